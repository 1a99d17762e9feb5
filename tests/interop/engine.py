"""One engine, in this process: reads Delta tables and prints the facts of what it read, or tries to append.

engine.py ENGINE [--append]

Standard input is a JSON list of readings, {"table": folder or URL, "version": … or null, "store": … or null}. For each,
one line of JSON is printed: {"facts": …} or {"error": …}; with --append {"wrote": true} or {"error": …}.
"""

import importlib
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pyarrow as pa

from facts import facts
from stores import Store

ONE_ROW = pa.table({"id": pa.array([424242], pa.int64()), "amount": pa.array([1.5]), "name": pa.array(["foreign"])})


class Deltalake:
    def read(self, table: str, version, store):
        from deltalake import DeltaTable, QueryBuilder

        # Its own reader: the one for PyArrow knows fewer features.
        opened = DeltaTable(table, version=version, storage_options=store and store.options())
        query = QueryBuilder().register("t", opened)
        return pa.table(query.execute("SELECT * FROM t").read_all())

    def append(self, table: str):
        from deltalake import write_deltalake

        write_deltalake(table, ONE_ROW, mode="append")


class Polars:
    def read(self, table: str, version, store):
        import polars

        options = store and store.options()
        return polars.scan_delta(table, version=version, storage_options=options).collect().to_arrow()

    def append(self, table: str):
        import polars

        polars.from_arrow(ONE_ROW).write_delta(table, mode="append")


class DuckDb:
    def __init__(self):
        import duckdb

        self.connection = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        for name in ("httpfs", "azure", "delta"):
            package = Path(importlib.import_module(f"duckdb_extension_{name}").__file__).parent
            (extension,) = package.rglob(f"{name}.duckdb_extension")
            self.connection.execute(f"LOAD '{extension}'")
        self.connection.execute("SET TimeZone = 'UTC'")

    def read(self, table: str, version, store):
        if store and store.kind == "s3":
            self.connection.execute(
                "CREATE OR REPLACE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', "
                f"ENDPOINT '{store.endpoint.removeprefix('http://')}', USE_SSL false, URL_STYLE 'path')"
            )
        elif store:
            self.connection.execute(
                f"CREATE OR REPLACE SECRET (TYPE azure, CONNECTION_STRING '{store.connection_string()}')"
            )
        at = "" if version is None else f", version => {int(version)}"
        return self.connection.execute(f"SELECT * FROM delta_scan(?{at})", [table]).to_arrow_table()

    def append(self, table: str):
        path = table.replace("'", "''")
        self.connection.execute(f"ATTACH '{path}' AS t (TYPE delta)")
        self.connection.execute("INSERT INTO t VALUES (424242, 1.5, 'foreign')")


class Sail:
    """Spark's API on Sail, whose Delta reader and writer are its own."""

    def __init__(self):
        warnings.simplefilter("ignore")
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        self.server = SparkConnectServer()
        self.server.start(background=True)
        _, port = self.server.listening_address
        self.spark = SparkSession.builder.remote(f"sc://localhost:{port}").getOrCreate()
        self.spark.conf.set("spark.sql.session.timeZone", "UTC")

    def read(self, table: str, version, _store):
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", str(version))
        return reader.load(table).toArrow()

    def append(self, table: str):
        rows = self.spark.createDataFrame([(424242, 1.5, "foreign")], "id long, amount double, name string")
        rows.write.format("delta").mode("append").save(table)


class ClickHouse:
    """ClickHouse in this process, which reads through a build of the Delta kernel of its own."""

    def __init__(self):
        # It reads below its working directory only.
        os.chdir("/")

    def read(self, table: str, version, store):
        import chdb

        path = table.replace("\\", "\\\\").replace("'", "\\'")
        source = f"deltaLakeLocal('{path}')"
        if store:
            bucket, _, key = table.split("://")[1].partition("/")
            if store.kind == "s3":
                source = f"deltaLake('{store.endpoint}/{bucket}/{key}/', 'test', 'test')"
            else:
                source = f"deltaLakeAzure('{store.connection_string()}', '{bucket}', '{key}')"
        settings = ["output_format_arrow_string_as_string=1", "session_timezone='UTC'"]
        if version is not None:
            settings.append(f"delta_lake_snapshot_version={int(version)}")
        query = f"SELECT * FROM {source} SETTINGS {', '.join(settings)}"
        return chdb.query(query, "ArrowTable")


ENGINES = {
    "deltalake": Deltalake,
    "polars": Polars,
    "duckdb": DuckDb,
    "sail": Sail,
    "clickhouse": ClickHouse,
}


def main() -> None:
    logging.disable(logging.CRITICAL)
    readings = json.load(sys.stdin)
    # What engines print themselves does not get in between.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for reading in readings:
        if reading["store"]:
            # Where engines find what they have no option for.
            os.environ.update(Store(**reading["store"]).environment())
    engine = ENGINES[sys.argv[1]]()
    for reading in readings:
        store = reading["store"] and Store(**reading["store"])
        try:
            if "--append" in sys.argv:
                engine.append(reading["table"])
                answer = {"wrote": True}
            else:
                answer = {"facts": facts(engine.read(reading["table"], reading["version"], store))}
        except Exception as e:  # Each engine has errors of its own.
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), file=out, flush=True)
    # Now and then the thread pools of these packages abort while the interpreter shuts down, after all is read.
    os._exit(0)


if __name__ == "__main__":
    main()
