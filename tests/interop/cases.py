"""The tables. Each case makes one or more with `dl` and says what should be read from them."""

import datetime as dt
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dl import Dl, Table, ndjson
from stores import Store

UTC = dt.timezone.utc


@dataclass
class Reading:
    """A table folder or URL (at a version, or the head), and what an engine must read from it."""

    folder: Path | str
    expected: pa.Table | None = None
    version: int | None = None
    # This is what others are compared with: made by another engine, and not by `dl`.
    original: bool = False
    # The same engine must read the same from here as from the original in this folder.
    same_as: Path | None = None
    # Engines that read this wrong whoever writes it, and why. They must: else the note is out of date.
    unable: dict[str, str] = field(default_factory=dict)
    # Where the table is, if not on this machine.
    store: Store | None = None


@dataclass
class Foreign:
    """Two tables of so many commits that a foreign engine appends to: it may to one, and must not to the other."""

    open: Reading
    fenced: Reading
    commits: int


SAIL_TRAVEL = {"sail": "finds no version between the first and the one in _last_checkpoint"}


def rows(schema: pa.Schema, first: int, count: int) -> pa.Table:
    """Data for schemas of `id`, `amount`, `name`."""
    ids = range(first, first + count)
    return pa.table(
        {
            "id": list(ids),
            "amount": [i * 0.25 for i in ids],
            "name": [None if i % 7 == 0 else f"name {i}" for i in ids],
        },
        schema=schema,
    )


SIMPLE = pa.schema([("id", pa.int64()), ("amount", pa.float64()), ("name", pa.string())])


def primitives(dl: Dl, home: Path):
    schema = pa.schema(
        [
            ("tiny", pa.int8()),
            ("small", pa.int16()),
            ("int", pa.int32()),
            ("big", pa.int64()),
            ("real", pa.float32()),
            ("double", pa.float64()),
            ("flag", pa.bool_()),
            ("text", pa.string()),
            ("raw", pa.binary()),
            ("day", pa.date32()),
            pa.field("required", pa.int64(), nullable=False),
        ]
    )
    table = Table(dl, home / "t", "interop.primitives", schema)
    data = {
        "tiny": [-128, 127, None, 0],
        "small": [-32768, 32767, None, 0],
        "int": [-(2**31), 2**31 - 1, None, 0],
        "big": [-(2**63), 2**63 - 1, None, 0],
        "real": [-1.5, 3.25, None, 0.0],
        "double": [-1e300, 1e300, None, 0.1],
        "flag": [True, False, None, True],
        "text": ["", "quote \" ' \\ back", None, "naïve 🚀 %20"],
        "raw": [b"", b"\x00\xff", None, b"abc"],
        "day": [dt.date(1582, 10, 15), dt.date(9999, 12, 31), None, dt.date(1970, 1, 1)],
        "required": [1, 2, 3, 4],
    }
    table.append("a.parquet", pa.table(data, schema=schema))
    table.publish()
    unable = {"clickhouse": "has no type for bytes but text, which these are not"}
    return [Reading(table.folder, table.expected(), unable=unable)]


def nulls(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.nulls", SIMPLE)
    table.append("none.parquet", pa.table({"id": [1, 2], "amount": [None, None], "name": [None, None]}, schema=SIMPLE))
    table.append("some.parquet", pa.table({"id": [3, None], "amount": [1.0, None], "name": [None, "x"]}, schema=SIMPLE))
    table.publish()
    return [Reading(table.folder, table.expected())]


def decimals(dl: Dl, home: Path):
    schema = pa.schema(
        [("small", pa.decimal128(5, 2)), ("long", pa.decimal128(18, 6)), ("wide", pa.decimal128(38, 10))]
    )
    table = Table(dl, home / "t", "interop.decimals", schema)
    data = {
        "small": [Decimal("-999.99"), Decimal("999.99"), Decimal("0.01"), None],
        "long": [Decimal("-123456789012.345678"), Decimal("0.000001"), None, Decimal("1")],
        "wide": [Decimal("9999999999999999999999999999.9999999999"), None, Decimal("-0.0000000001"), Decimal("5")],
    }
    table.append("a.parquet", pa.table(data, schema=schema))
    table.publish()
    return [Reading(table.folder, table.expected())]


def timestamps(dl: Dl, home: Path):
    schema = pa.schema([("utc", pa.timestamp("us", "UTC")), ("local", pa.timestamp("us")), ("day", pa.date32())])
    table = Table(dl, home / "t", "interop.timestamps", schema)
    moments = [
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
        dt.datetime(2024, 2, 29, 12, 30, 15, 123456),
        dt.datetime(2024, 10, 27, 1, 30, 0),
        None,
    ]
    data = {
        "utc": [m and m.replace(tzinfo=UTC) for m in moments],
        "local": moments,
        "day": [m and m.date() for m in moments],
    }
    table.append("a.parquet", pa.table(data, schema=schema))
    table.publish()
    unable = {"clickhouse": "hands out timestamps without a zone as timestamps with one"}
    return [Reading(table.folder, table.expected(), unable=unable)]


def nested(dl: Dl, home: Path):
    inner = pa.struct([("x", pa.int64()), ("tags", pa.list_(pa.string()))])
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("point", inner),
            ("list", pa.list_(pa.int64())),
            ("matrix", pa.list_(pa.list_(pa.float64()))),
            ("people", pa.list_(inner)),
            ("map", pa.map_(pa.string(), pa.int64())),
        ]
    )
    table = Table(dl, home / "t", "interop.nested", schema)
    data = {
        "id": [1, 2, 3],
        "point": [{"x": 1, "tags": ["a", None]}, {"x": None, "tags": []}, None],
        "list": [[1, None, 3], [], None],
        "matrix": [[[1.5], []], [], None],
        "people": [[{"x": 5, "tags": ["b"]}, None], [], None],
        "map": [[("k", 1), ("l", None)], [], None],
    }
    table.append("a.parquet", pa.table(data, schema=schema))
    table.publish()
    unable = {"clickhouse": "reads null lists, maps and structs as empty ones"}
    return [Reading(table.folder, table.expected(), unable=unable)]


def partitions_of_special_text(dl: Dl, home: Path):
    schema = pa.schema([("id", pa.int64()), ("place", pa.string())])
    table = Table(dl, home / "t", "interop.places", schema, partition_by=["place"])
    places = ["plain", "a b", "x/y", "100%", "%20", "é 🚀", "a=b", "c:d", "q?#&+", "'quoted'", '"double"', "tab\there", None]
    for i, place in enumerate(places):
        table.append("part.parquet", pa.table({"id": [i, i + 100], "place": [place, place]}, schema=schema))
    table.publish()
    return [Reading(table.folder, table.expected())]


def partitions_of_many_types(dl: Dl, home: Path):
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("day", pa.date32()),
            ("number", pa.int32()),
            ("price", pa.decimal128(10, 2)),
            ("flag", pa.bool_()),
        ]
    )
    table = Table(dl, home / "t", "interop.typed", schema, partition_by=["day", "number", "price", "flag"])
    values = [
        (dt.date(2024, 2, 29), -5, Decimal("1.50"), True),
        # Not negative: deltalake 1.6 itself misreads such a decimal in a partition ('0.-25').
        (dt.date(1969, 12, 31), 7, Decimal("0.25"), False),
        (None, None, None, None),
    ]
    for i, (day, number, price, flag) in enumerate(values):
        row = {"id": [i], "day": [day], "number": [number], "price": [price], "flag": [flag]}
        table.write(f"part-{i}.parquet", pa.table(row, schema=schema))
    # The whole folder at once.
    dl("append", table.name, table.folder)
    table.publish()
    return [Reading(table.folder, table.expected())]


def partitions_in_other_spellings(dl: Dl, home: Path):
    """Folders of other programs: what is written for them is what every engine can read."""
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("day", pa.date32()),
            ("number", pa.int32()),
            ("price", pa.decimal128(10, 2)),
            ("flag", pa.bool_()),
        ]
    )
    table = Table(dl, home / "t", "interop.spelt", schema, partition_by=["day", "number", "price", "flag"])
    folders = [
        "day=2024-2-29/number=007/price=1.5/flag=TRUE",
        "day=2024-02-29/number=+7/price=1.50/flag=true",
        "day=2024-02-29/number=7/price=150e-2/flag=t",
    ]
    for i, folder in enumerate(folders):
        row = {"id": [i], "day": [dt.date(2024, 2, 29)], "number": [7], "price": [Decimal("1.50")], "flag": [True]}
        path = table.folder / folder / "part.parquet"
        path.parent.mkdir(parents=True)
        table.files[str(path)] = pa.table(row, schema=schema)
        pq.write_table(table.files[str(path)].drop_columns(table.partition_by), path)
    dl("append", table.name, table.folder)
    table.publish()
    unable = {"polars": "takes partition values from the names of folders, not from the log"}
    return [Reading(table.folder, table.expected(), unable=unable)]


def file_names(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.file_names", SIMPLE)
    for i, name in enumerate(["with space", "per%cent", "per%20cent", "plus+and&", "naïve-🚀", "a=b", "semi;comma,"]):
        table.append(f"{name}.parquet", rows(SIMPLE, i * 10, 5))
    table.publish()
    return [Reading(table.folder, table.expected())]


def empty(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.empty", SIMPLE)
    table.publish()
    return [Reading(table.folder, table.expected())]


def removes(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.removes", SIMPLE)
    paths = [table.append(f"part-{i}.parquet", rows(SIMPLE, i * 10, 10)) for i in range(4)]
    before = table.expected()
    table.commit(table.remove_action(paths[1]), table.remove_action(paths[3]))
    table.publish()
    return [Reading(table.folder, table.expected()), Reading(table.folder, before, version=4)]


def overwrite(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.overwrite", SIMPLE)
    old = [table.append(f"old-{i}.parquet", rows(SIMPLE, i * 10, 10)) for i in range(3)]
    new = table.write("new.parquet", rows(SIMPLE, 1000, 20))
    table.commit(*[table.remove_action(p) for p in old], table.add_action(new))
    table.publish()
    return [Reading(table.folder, table.expected())]


def schema_change(dl: Dl, home: Path):
    table = Table(dl, home / "t", "interop.schema_change", SIMPLE)
    table.append("old.parquet", rows(SIMPLE, 0, 10))
    table.publish()
    created = (table.folder / "_delta_log" / f"{0:020}.json").read_text()
    (first,) = [a for a in map(json.loads, created.splitlines()) if "metaData" in a]
    wider = SIMPLE.append(pa.field("extra", pa.string()))
    meta = first["metaData"]
    meta["schemaString"] = meta["schemaString"].replace(
        "]}", ',{"name":"extra","type":"string","nullable":true,"metadata":{}}]}'
    )
    table.files = {
        path: data.append_column("extra", pa.nulls(data.num_rows, pa.string()))
        for path, data in table.files.items()
    }
    table.schema = wider
    data = rows(SIMPLE, 100, 10).append_column("extra", pa.array([f"e{i}" for i in range(10)]))
    new = table.write("new.parquet", data.cast(wider))
    table.commit(first, table.add_action(new))
    table.publish()
    return [Reading(table.folder, table.expected())]


def checkpoint(dl: Dl, home: Path):
    """More than two checkpoint intervals, with removes between; read at the head and in the middle."""
    table = Table(dl, home / "t", "interop.checkpoint", SIMPLE, properties=["delta.checkpointInterval=10"])
    middle, paths = None, []
    for i in range(1, 26):
        if i % 5 == 0:
            table.commit(table.remove_action(paths.pop(0)))
        else:
            paths.append(table.append(f"part-{i}.parquet", rows(SIMPLE, i * 100, 7)))
        if i == 13:
            middle = table.expected()
    table.publish()
    log = table.folder / "_delta_log"
    for version in (10, 20):
        if not list(log.glob(f"{version:020}.checkpoint*.parquet")):
            raise RuntimeError(f"there is no checkpoint of version {version}")
    # The same table, of which only the checkpoint and what follows it is left.
    cleaned = home / "cleaned"
    shutil.copytree(table.folder, cleaned)
    for version in range(20):
        (cleaned / "_delta_log" / f"{version:020}.json").unlink()
    for old in (cleaned / "_delta_log").glob(f"{10:020}.checkpoint*"):
        old.unlink()
    return [
        Reading(table.folder, table.expected()),
        Reading(
            table.folder,
            middle,
            version=13,
            unable=SAIL_TRAVEL,
        ),
        Reading(cleaned, table.expected()),
    ]


def checkpoint_with_sidecars(dl: Dl, home: Path):
    """V2 checkpoints under their own names, with files in sidecars; read with and without the commits."""
    properties = ["delta.checkpointInterval=4", "delta.checkpointPolicy=v2"]
    table = Table(dl, home / "t", "interop.sidecars", SIMPLE, properties=properties)
    paths = []
    for i in range(1, 11):
        if i == 7:
            table.commit(table.remove_action(paths.pop(0)))
        else:
            paths.append(table.append(f"part-{i}.parquet", rows(SIMPLE, i * 100, 7)))
    table.publish()
    dl("diff", "--table", "interop.sidecars")
    cleaned = home / "cleaned"
    shutil.copytree(table.folder, cleaned)
    log = cleaned / "_delta_log"
    for version in (4, 8):
        manifests = list(log.glob(f"{version:020}.checkpoint.*-*.parquet"))
        sidecars = list(log.glob(f"_sidecars/{version:020}.checkpoint.*.parquet"))
        if len(manifests) != 1 or not sidecars or list(log.glob("*.checkpoint.parquet")):
            raise RuntimeError(f"version {version} has no V2 checkpoint with sidecars")
    for version in range(8):
        (log / f"{version:020}.json").unlink()
    for old in log.glob(f"**/{4:020}.checkpoint*"):
        old.unlink()
    unable = {"polars": "knows no V2 checkpoints"}
    return [
        Reading(table.folder, table.expected(), unable=unable),
        Reading(cleaned, table.expected(), unable=unable),
    ]


def checkpoint_of_partitions(dl: Dl, home: Path):
    """Partition values, statistics and special paths go through a checkpoint."""
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("place", pa.string())])
    table = Table(
        dl, home / "t", "interop.part_checkpoint", schema, ["place"], ["delta.checkpointInterval=3"]
    )
    for i, place in enumerate(["a b", "x/y", "100%", None, "é"]):
        at = dt.datetime(2024, 1, 1 + i, tzinfo=UTC)
        table.append("p.parquet", pa.table({"id": [i], "at": [at], "place": [place]}, schema=schema))
    table.publish()
    cleaned = home / "cleaned"
    shutil.copytree(table.folder, cleaned)
    for version in range(3):
        (cleaned / "_delta_log" / f"{version:020}.json").unlink()
    return [Reading(table.folder, table.expected()), Reading(cleaned, table.expected())]


def one_transaction_over_two_tables(dl: Dl, home: Path):
    left = Table(dl, home / "left", "interop.left", SIMPLE)
    right = Table(dl, home / "right", "interop.right", SIMPLE)
    changes = []
    for table, first in ((left, 0), (right, 1000)):
        path = table.write("part.parquet", rows(SIMPLE, first, 10))
        file = home / f"{table.folder.name}.ndjson"
        file.write_text(ndjson([table.add_action(path)]))
        changes += ["--table", f"{table.name}={file}"]
    dl("commit", *changes, "--token", "interop-1")
    # The same token again changes nothing.
    dl("commit", *changes, "--token", "interop-1")
    dl("mirror", "run")
    return [Reading(left.folder, left.expected()), Reading(right.folder, right.expected())]


def imported_and_appended(dl: Dl, home: Path):
    """A table that deltalake wrote, imported, and continued through `dl`."""
    from deltalake import write_deltalake

    folder = home / "t"
    data = [rows(SIMPLE, i * 10, 10) for i in range(3)]
    for part in data:
        write_deltalake(folder, part, mode="append")
    dl("import", folder, "interop.imported")
    more = rows(SIMPLE, 500, 10)
    pq.write_table(more, folder / "more.parquet")
    dl("append", "interop.imported", folder / "more.parquet")
    dl("mirror", "run", "interop.imported")
    return [Reading(folder, pa.concat_tables([*data, more]))]


def imported_as_others_write(dl: Dl, home: Path):
    """A log that is not written as the protocol says: who can read it reads the same from the one that is published."""
    from deltalake import DeltaTable, write_deltalake

    folder = home / "t"
    for i in range(2):
        write_deltalake(folder, rows(SIMPLE, i * 10, 10), mode="append")
    for log in sorted((folder / "_delta_log").glob("*.json")):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if add := line.get("add"):
                add |= {"size": float(add["size"]), "modificationTime": str(add["modificationTime"])}
                add["tags"] = {"n": 1, "flag": True}
                line["someFuture"] = {"a": 1}
            if metadata := line.get("metaData"):
                metadata["configuration"] |= {"n": 1}
            if protocol := line.get("protocol"):
                protocol |= {"minReaderVersion": 1.0}
        log.write_text("\r\n".join(json.dumps(line) for line in lines))
    report = dl.json("import", folder, "interop.others")
    assert report["validation"]["result"] == "passed", report
    assert any("'add.size'" in warning for warning in report["warnings"]), report
    ids = dl("sql", "select id from interop.others order by id", "--to", "csv").splitlines()[1:]
    ids = [int(line) for line in ids]
    assert ids == sorted(DeltaTable(folder).to_pyarrow_table()["id"].to_pylist()), ids
    copy = home / "copy"
    copy.mkdir()
    dl("publish", "interop.others", "--to", copy)
    for file in folder.glob("*.parquet"):
        shutil.copy2(file, copy / file.name)
    return [Reading(folder, original=True), Reading(copy, same_as=folder)]


def published_elsewhere(dl: Dl, home: Path):
    """`dl publish` writes the whole log into another folder, over the same data files."""
    table = Table(dl, home / "t", "interop.elsewhere", SIMPLE, properties=["delta.checkpointInterval=5"])
    for i in range(7):
        table.append(f"part-{i}.parquet", rows(SIMPLE, i * 10, 10))
    copy = home / "copy"
    copy.mkdir()
    dl("publish", table.name, "--to", copy)
    for file in table.folder.glob("*.parquet"):
        shutil.copy2(file, copy / file.name)
    return [Reading(copy, table.expected())]


def fence(dl: Dl, home: Path):
    """A writer that does not go through the catalog is refused, and only because of the fence."""
    tables = {}
    for name, arguments in (("open", ["--no-fence"]), ("fenced", [])):
        # Without in-commit timestamps, which are reason enough for some writers.
        properties = ["delta.enableInCommitTimestamps=false"]
        table = Table(dl, home / name, f"interop.{name}", SIMPLE, properties=properties, arguments=arguments)
        for i in range(2):
            table.append(f"part-{i}.parquet", rows(SIMPLE, i * 10, 10))
        table.publish()
        tables[name] = Reading(table.folder, table.expected())
    # Each engine appends to the open one: nobody else looks at it.
    return Foreign(tables["open"], tables["fenced"], 3)


def frozen(dl: Dl, home: Path):
    """A writer is refused for as long as a table is frozen, and only because of that."""
    tables = {}
    for name in ("thawed", "frozen"):
        properties = ["delta.enableInCommitTimestamps=false"]
        table = Table(dl, home / name, f"interop.{name}", SIMPLE, properties=properties, arguments=["--no-fence"])
        table.append("part-0.parquet", rows(SIMPLE, 0, 10))
        if name == "thawed":
            dl("freeze", table.name, "--reason", "interop")
            dl("unfreeze", table.name)
        else:
            table.append("part-1.parquet", rows(SIMPLE, 10, 10))
            dl("freeze", table.name, "--reason", "interop")
        table.publish()
        tables[name] = Reading(table.folder, table.expected())
    return Foreign(tables["thawed"], tables["frozen"], 4)


def read_while_frozen(dl: Dl, home: Path):
    """Who reads does not notice."""
    readings = []
    for name, arguments in (("plain", ["--no-fence"]), ("fenced", [])):
        table = Table(dl, home / name, f"interop.read_{name}", SIMPLE, arguments=arguments)
        table.append("part-0.parquet", rows(SIMPLE, 0, 10))
        dl("freeze", table.name, "--reason", "interop")
        table.publish()
        readings.append(Reading(table.folder, table.expected()))
    return readings


def released(dl: Dl, home: Path):
    """After `dl release` other writers may commit again, and have not lost anything."""
    table = Table(dl, home / "t", "interop.released", SIMPLE)
    table.append("a.parquet", rows(SIMPLE, 0, 10))
    dl("release", table.name)
    from deltalake import write_deltalake

    more = rows(SIMPLE, 100, 10)
    write_deltalake(table.folder, more, mode="append")
    return [Reading(table.folder, pa.concat_tables([table.expected(), more]))]


def store_cases() -> list:
    """The same on object stores, as far as their emulators are there."""
    stores = [Store.find(kind) for kind in ("s3", "azure")]
    return [store_case(store) for store in stores if store]


def store_case(store: Store):
    """A table that `dl` makes on a store, and one of deltalake's that is imported and cut over."""

    def case(dl: Dl, home: Path):
        import polars
        from deltalake import write_deltalake

        bucket = f"interop-{int(time.time() * 1000)}"
        store.make_bucket(bucket)
        options = store.options()
        flags = [f"--storage-option={name}={value}" for name, value in store.references().items()]
        # Where `dl` finds the secrets.
        os.environ.update(store.environment())
        made = f"{store.url(bucket)}/made"
        name = f"stores.made_on_{store.kind}"
        columns = "id long, amount double, name string"
        dl("create", name, "--location", made, "--columns", columns, "--property", "delta.checkpointInterval=5", *flags)
        parts = [rows(SIMPLE, i * 10, 10) for i in range(12)]
        for i, part in enumerate(parts):
            file = f"{made}/part-{i}.parquet"
            polars.from_arrow(part).write_parquet(file, storage_options=options)
            dl("append", name, file)
        taken = f"{store.url(bucket)}/taken"
        # Once: deltalake cannot append on a store whose listings begin at the start, as Azurite's do.
        write_deltalake(taken, pa.concat_tables(parts[:3]), storage_options=options)
        name = f"stores.taken_on_{store.kind}"
        dl("import", taken, name, *flags)
        dl("cutover", name)
        dl("diff", "--table", name)
        # Its address is not in what it is told.
        unable = {"duckdb": "reaches Azure's emulator at its usual port only"} if store.kind == "azure" else {}
        return [
            Reading(made, pa.concat_tables(parts), unable=unable, store=store),
            Reading(made, pa.concat_tables(parts[:7]), version=7, unable=unable | SAIL_TRAVEL, store=store),
            Reading(taken, pa.concat_tables(parts[:3]), unable=unable, store=store),
        ]

    case.__name__ = f"tables_on_{store.kind}"
    return case


# Tables of other engines, by what is special about them.
CORPUS = {
    "deletion_vectors": ["delta-rs/table-with-dv-small", "kernel/with-short-dv"],
    "change_data_files": ["delta-rs/cdf-table", "delta-rs/cdf-table-with-cdc-and-dvs"],
    "column_mapping_by_name": ["delta-rs/table_with_column_mapping", "delta-rs/table_with_partitioning_mapping"],
    "column_mapping_by_id": ["kernel/cdf-column-mapping-id-mode"],
    "row_tracking": ["kernel/crc-full"],
    "clustering": ["delta-rs/table_with_liquid_clustering"],
    "timestamps_without_zone": ["kernel/data-reader-timestamp_ntz"],
    "type_widening": ["kernel/type-widening"],
    "in_commit_timestamps": ["delta-rs/cdc_ict_table"],
    "v2_checkpoints": ["delta-rs/checkpoint-v2-table"],
    "v2_checkpoints_json_sidecars": ["kernel/v2-checkpoints-json-with-sidecars"],
    "v2_checkpoints_parquet_sidecars": ["kernel/v2-checkpoints-parquet-with-sidecars"],
    "struct_statistics_only": ["kernel/v2-parquet-sidecars-struct-stats-only", "delta-rs/delta-1.2.1-only-struct-stats"],
    "multi_part_checkpoints": ["kernel/v1-multi-part-struct-stats-only"],
    "special_partitions": ["delta-rs/delta-0.8.0-special-partition", "delta-rs/delta-0.8.0-null-partition"],
}


def corpus_cases(folder: Path | None) -> list:
    """Imported, republished from the catalog alone, and cut over: read as the original is."""
    return [corpus_case(folder, name, tables) for name, tables in CORPUS.items()] if folder else []


def corpus_case(folder: Path, name: str, tables: list[str]):
    def case(dl: Dl, home: Path):
        readings = []
        for i, path in enumerate(tables):
            original = unpack(folder, path, home / f"original-{i}")
            readings.append(Reading(original, original=True))
            mine = home / f"imported-{i}"
            shutil.copytree(original, mine)
            table = f"corpus.{name}_{i}"
            dl("import", mine, table)
            # Only the log that `dl` makes, beside the data.
            copy = home / f"republished-{i}"
            shutil.copytree(original, copy, ignore=shutil.ignore_patterns("_delta_log"))
            dl("publish", table, "--to", copy)
            readings.append(Reading(copy, same_as=original))
            # Someone has edited this one: a checksum contradicts its commit.
            edited = path == "delta-rs/cdc_ict_table"
            if edited:
                try:
                    dl("cutover", table)
                    raise AssertionError(f"{path} was cut over with a wrong checksum")
                except RuntimeError as e:
                    if "with another checksum" not in str(e):
                        raise
            try:
                dl("cutover", table, *(["--skip-diff"] if edited else []))
            except RuntimeError as e:
                # Features that `dl` imports and publishes, and does not write with.
                if "cannot write with" not in str(e):
                    raise
                continue
            if not edited:
                dl("diff", "--table", table)
            readings.append(Reading(mine, same_as=original))
        return readings

    case.__name__ = f"corpus_{name}"
    return case


def unpack(folder: Path, path: str, to: Path) -> Path:
    """A table of the corpus, as a folder of our own."""
    archive = folder / f"{path}.tar.zst"
    if archive.exists():
        import tarfile

        import zstandard

        with archive.open("rb") as packed, zstandard.open(packed, "rb") as tar:
            with tarfile.open(fileobj=tar, mode="r|") as files:
                files.extractall(to, filter="data")
        (log,) = to.rglob("_delta_log")
        return log.parent
    source = folder / path
    if (source / "delta" / "_delta_log").is_dir():
        source /= "delta"
    shutil.copytree(source, to)
    return to


CASES = [
    primitives,
    nulls,
    decimals,
    timestamps,
    nested,
    partitions_of_special_text,
    partitions_of_many_types,
    partitions_in_other_spellings,
    file_names,
    empty,
    removes,
    overwrite,
    schema_change,
    checkpoint,
    checkpoint_with_sidecars,
    checkpoint_of_partitions,
    one_transaction_over_two_tables,
    imported_and_appended,
    imported_as_others_write,
    published_elsewhere,
    fence,
    frozen,
    read_while_frozen,
    released,
]
