"""The `dl` command line, and the data files that a writer puts beside it."""

import json
import subprocess
import time
import urllib.parse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class Dl:
    """One catalog, used only through the command line."""

    def __init__(self, program: Path, catalog: Path):
        self.program = program
        self.catalog = catalog

    def __call__(self, *args, stdin: str | None = None) -> str:
        command = [str(self.program), "--catalog", f"sqlite://{self.catalog}", *map(str, args)]
        done = subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"`dl {' '.join(map(str, args))}` failed ({done.returncode}):\n{done.stderr}{done.stdout}")
        return done.stdout

    def json(self, *args):
        return json.loads(self(*args, "--format", "json"))


def delta_type(t: pa.DataType):
    """The Delta type of an Arrow type, as in `schemaString`."""
    if pa.types.is_decimal(t):
        return f"decimal({t.precision},{t.scale})"
    if pa.types.is_timestamp(t):
        return "timestamp" if t.tz else "timestamp_ntz"
    if pa.types.is_list(t):
        return {"type": "array", "elementType": delta_type(t.value_type), "containsNull": True}
    if pa.types.is_map(t):
        return {
            "type": "map",
            "keyType": delta_type(t.key_type),
            "valueType": delta_type(t.item_type),
            "valueContainsNull": True,
        }
    if pa.types.is_struct(t):
        return {"type": "struct", "fields": [delta_field(t.field(i)) for i in range(t.num_fields)]}
    return {
        pa.int8(): "byte",
        pa.int16(): "short",
        pa.int32(): "integer",
        pa.int64(): "long",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.bool_(): "boolean",
        pa.string(): "string",
        pa.binary(): "binary",
        pa.date32(): "date",
    }[t]


def delta_field(field: pa.Field) -> dict:
    return {"name": field.name, "type": delta_type(field.type), "nullable": field.nullable, "metadata": {}}


class Table:
    """A table that is made through `dl`. Remembers what should be in it."""

    def __init__(self, dl: Dl, folder: Path, name: str, schema: pa.Schema, partition_by=(), properties=(), arguments=()):
        self.dl, self.folder, self.name, self.schema = dl, folder, name, schema
        self.partition_by = list(partition_by)
        self.files: dict[str, pa.Table] = {}
        folder.mkdir(parents=True, exist_ok=True)
        schema_file = folder.parent / f"{folder.name}.schema.json"
        schema_file.write_text(json.dumps({"type": "struct", "fields": [delta_field(f) for f in schema]}))
        args = ["create", name, "--location", folder, "--schema-file", schema_file]
        if self.partition_by:
            args += ["--partition-by", ",".join(self.partition_by)]
        for prop in properties:
            args += ["--property", prop]
        dl(*args, *arguments)

    def write(self, file_name: str, data: pa.Table) -> Path:
        """Writes a data file in hive layout; the partition is that of the first row."""
        folder = self.folder
        for column in self.partition_by:
            (value,) = set(data.column(column).to_pylist())
            folder /= f"{column}={hive(value)}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file_name
        pq.write_table(data.drop_columns(self.partition_by), path)
        self.files[str(path)] = data
        return path

    def append(self, file_name: str, data: pa.Table) -> Path:
        path = self.write(file_name, data)
        self.dl("append", self.name, path)
        return path

    def add_action(self, path: Path, partition_values=None) -> dict:
        """The `add` of a data file, as another writer would commit it."""
        data = self.files[str(path)]
        return {
            "add": {
                "path": self.action_path(path),
                "partitionValues": partition_values or {},
                "size": path.stat().st_size,
                "modificationTime": int(time.time() * 1000),
                "dataChange": True,
                "stats": json.dumps({"numRecords": data.num_rows}),
            }
        }

    def remove_action(self, path: Path) -> dict:
        del self.files[str(path)]
        return {
            "remove": {
                "path": self.action_path(path),
                "deletionTimestamp": int(time.time() * 1000),
                "dataChange": True,
            }
        }

    def action_path(self, path: Path) -> str:
        return urllib.parse.quote(str(path.relative_to(self.folder)), safe="/=_.-")

    def commit(self, *actions: dict) -> None:
        self.dl("commit", self.name, "-", stdin=ndjson(actions))

    def publish(self) -> None:
        self.dl("mirror", "run", self.name)

    def expected(self) -> pa.Table:
        tables = [t.select(self.schema.names).cast(self.schema) for t in self.files.values()]
        return pa.concat_tables(tables) if tables else self.schema.empty_table()


def ndjson(actions) -> str:
    return "".join(json.dumps(a) + "\n" for a in actions)


def hive(value) -> str:
    """A partition value in a folder name, escaped as Hive and Spark do."""
    if value is None:
        return "__HIVE_DEFAULT_PARTITION__"
    if isinstance(value, bool):
        return str(value).lower()
    return "".join(
        f"%{ord(c):02X}" if c in "\"#%'*/:=?\\{[]^\x7f" or ord(c) < 0x20 else c for c in str(value)
    )
