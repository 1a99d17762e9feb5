"""One measurement of a peer, in this process.

peers.py prepare-checkpoint TABLE         writes a checkpoint at the table's head with deltalake
peers.py prepare-ducklake TABLE LAKE      makes a DuckLake catalog (SQLite) with the files of the table's log
peers.py prepare-ducklake-pg TABLE LAKE   and one in PostgreSQL with the same rows (LAKE_URL, LAKE_SCHEMA)
peers.py ENGINE CASE TABLE LAKE DAY LOW HIGH VERSION SECONDS

ENGINE is deltalake, duckdb (its Delta reader), polars, ducklake or ducklake-pg. Prints `ms=…` (or `commits_per_s=…`), `count=…` and
`peak_mb=…`. Importing the packages is not measured; all of them begin with nothing in memory.

The tables have a log and no data files: only metadata is measured. Where an engine has no call that plans, the time is
that of EXPLAIN for a query with the same filter (DuckDB's Delta reader), or of the query until it misses its first file
(DuckLake, which chooses files when a query runs).
"""

import glob
import importlib
import json
import os
import resource
import shutil
import sqlite3
import sys
import time
from pathlib import Path


def done(ms: float, count, name: str = "ms") -> None:
    print(f"{name}={ms}")
    if count is not None:
        print(f"count={count}")
    print(f"peak_mb={resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


def duck(*extensions):
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name in extensions:
        package = Path(importlib.import_module(f"duckdb_extension_{name}").__file__).parent
        (extension,) = package.rglob(f"{name}.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    return connection


def attach(connection, lake: str):
    connection.execute(f"ATTACH 'ducklake:sqlite:{lake}/catalog.sqlite' AS lake (DATA_PATH '{lake}/data/')")
    return connection


def attach_pg(connection, lake: str):
    options = f"DATA_PATH '{lake}/data/', META_SCHEMA '{os.environ['LAKE_SCHEMA']}'"
    connection.execute(f"ATTACH 'ducklake:postgres:{os.environ['LAKE_URL']}' AS lake ({options})")
    return connection


def prepare_ducklake_pg(lake: str) -> None:
    connection = duck("sqlite_scanner", "postgres_scanner", "ducklake")
    schema = os.environ["LAKE_SCHEMA"]
    connection.execute(f"ATTACH '{os.environ['LAKE_URL']}' AS target (TYPE postgres)")
    connection.execute(f"CREATE SCHEMA target.{schema}")
    # Makes the tables.
    attach_pg(connection, lake)
    connection.execute("DETACH lake")
    connection.execute("DETACH target")
    connection.execute(f"ATTACH '{os.environ['LAKE_URL']}' AS target (TYPE postgres)")
    connection.execute(f"ATTACH '{lake}/catalog.sqlite' AS source (TYPE sqlite)")
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'source'").fetchall()
    for (name,) in tables:
        types = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = 'target' AND schema_name = ? "
            "AND table_name = ? ORDER BY column_index",
            (schema, name),
        ).fetchall()
        if not types:
            connection.execute(f"CREATE TABLE target.{schema}.{name} AS SELECT * FROM source.{name}")
            continue
        columns = ", ".join(f'CAST("{column}" AS {kind})' for column, kind in types)
        connection.execute(f"DELETE FROM target.{schema}.{name}")
        connection.execute(f"INSERT INTO target.{schema}.{name} SELECT {columns} FROM source.{name}")


def prepare_ducklake(table: str, lake: str) -> None:
    shutil.rmtree(lake, ignore_errors=True)
    os.makedirs(lake)
    connection = attach(duck("sqlite_scanner", "ducklake"), lake)
    connection.execute(
        'CREATE TABLE lake.t (id BIGINT, amount DOUBLE, name VARCHAR, "at" TIMESTAMPTZ, flag INTEGER, day DATE)'
    )
    connection.execute("ALTER TABLE lake.t SET PARTITIONED BY (day)")
    connection.close()
    db = sqlite3.connect(f"{lake}/catalog.sqlite")
    snapshot, when, schema, catalog_id, _ = db.execute(
        "SELECT * FROM ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
    ).fetchone()
    columns = dict(db.execute("SELECT column_name, column_id FROM ducklake_column"))
    (partition,) = db.execute("SELECT max(partition_id) FROM ducklake_partition_info").fetchone()
    file = rows = size = 0
    for log in sorted(glob.glob(f"{table}/_delta_log/*.json")):
        snapshot += 1
        with open(log) as lines:
            for line in lines:
                add = json.loads(line).get("add")
                if add is None:
                    continue
                stats = json.loads(add["stats"])
                db.execute(
                    "INSERT INTO ducklake_data_file VALUES (?,1,?,NULL,?,?,1,'parquet',?,?,1000,?,?,NULL,NULL,NULL)",
                    (file, snapshot, file, add["path"], stats["numRecords"], add["size"], rows, partition),
                )
                db.execute(
                    "INSERT INTO ducklake_file_partition_value VALUES (?,1,0,?)", (file, add["partitionValues"]["day"])
                )
                db.executemany(
                    "INSERT INTO ducklake_file_column_stats VALUES (?,1,?,100,?,?,?,?,0,NULL)",
                    [
                        (file, columns[c], stats["numRecords"], stats["nullCount"][c], str(low), str(stats["maxValues"][c]))
                        for c, low in stats["minValues"].items()
                    ],
                )
                file, rows, size = file + 1, rows + stats["numRecords"], size + add["size"]
        db.execute("INSERT INTO ducklake_snapshot VALUES (?,?,?,?,?)", (snapshot, when, schema, catalog_id, file))
        db.execute(
            "INSERT INTO ducklake_snapshot_changes VALUES (?,'inserted_into_table:1',NULL,NULL,NULL)", (snapshot,)
        )
    db.execute("DELETE FROM ducklake_table_stats")
    db.execute("INSERT INTO ducklake_table_stats VALUES (1,?,?,?)", (rows, rows, size))
    db.commit()


def deltalake(case, table, lake, day, low, high, version, seconds):
    import pyarrow.compute as pc
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

    if case == "commit-1":
        # To a table of its own, as the others.
        place = f"{lake}/hot-deltalake"
        shutil.rmtree(place, ignore_errors=True)
        opened = DeltaTable.create(place, DeltaTable(table).schema(), partition_by=["day"])
    start = time.perf_counter()
    if case == "travel":
        opened = DeltaTable(table, version=version)
        return (time.perf_counter() - start) * 1e3, opened.version()
    if case != "commit-1":
        opened = DeltaTable(table)
    if case == "open":
        return (time.perf_counter() - start) * 1e3, opened.version()
    if case == "refresh":
        times = []
        for _ in range(21):
            start = time.perf_counter()
            opened.update_incremental()
            times.append((time.perf_counter() - start) * 1e3)
        return sorted(times)[10], opened.version()
    if case == "list":
        return after(start, len(opened.file_uris()))
    if case == "plan-partition":
        return after(start, len(opened.file_uris(partition_filters=[("day", "=", day)])))
    if case == "plan-stats":
        import pyarrow as pa

        adds = pa.table(opened.get_add_actions(flatten=True))
        ids = pc.and_(pc.greater_equal(adds["max.id"], low), pc.less_equal(adds["min.id"], high))
        return after(start, pc.sum(ids).as_py())
    if case == "history":
        return after(start, len(opened.history()))
    if case == "commit-1":
        commits = 0
        deadline = time.perf_counter() + seconds
        start = time.perf_counter()
        while time.perf_counter() < deadline:
            add = AddAction(f"day={day}/hot-{commits}.parquet", 1000, {"day": day}, 1, True, '{"numRecords":10}')
            opened.create_write_transaction([add], "append", opened.schema(), ["day"])
            opened.update_incremental()
            commits += 1
        return commits / (time.perf_counter() - start), None
    return None


def after(start, count):
    return (time.perf_counter() - start) * 1e3, count


def duckdb(case, table, _lake, day, low, high, version, _seconds):
    connection = duck("delta")
    scan = f"delta_scan('{table}')"
    queries = {
        "open": f"DESCRIBE SELECT * FROM {scan}",
        "plan-partition": f"EXPLAIN SELECT id FROM {scan} WHERE day = DATE '{day}'",
        "plan-stats": f"EXPLAIN SELECT id FROM {scan} WHERE id BETWEEN {low} AND {high}",
        "travel": f"DESCRIBE SELECT * FROM delta_scan('{table}', version => {version})",
    }
    if case not in queries:
        return None
    start = time.perf_counter()
    connection.execute(queries[case]).fetchall()
    return after(start, None)


def polars(case, table, _lake, day, low, high, version, _seconds):
    import polars as pl

    start = time.perf_counter()
    if case == "open":
        pl.scan_delta(table).collect_schema()
        return after(start, None)
    if case == "travel":
        pl.scan_delta(table, version=version).collect_schema()
        return after(start, None)
    return None


def ducklake_pg(*arguments):
    return ducklake(*arguments, extension="postgres_scanner", attach=attach_pg)


def ducklake(case, _table, lake, day, low, high, version, seconds, extension="sqlite_scanner", attach=attach):
    connection = duck(extension, "ducklake")
    queries = {
        "open": "DESCRIBE SELECT * FROM lake.t",
        "list": "SELECT count(*) FROM ducklake_list_files('lake', 't')",
        "plan-partition": f"EXPLAIN SELECT id FROM lake.t WHERE day = DATE '{day}'",
        "plan-stats": f"EXPLAIN SELECT id FROM lake.t WHERE id BETWEEN {low} AND {high}",
        # The first snapshots made the table.
        "travel": f"DESCRIBE SELECT * FROM lake.t AT (VERSION => {version + 3})",
        "history": "SELECT count(*) FROM lake.snapshots()",
    }
    start = time.perf_counter()
    attach(connection, lake)
    if case == "refresh":
        times = []
        for _ in range(21):
            start = time.perf_counter()
            connection.execute(queries["open"]).fetchall()
            times.append((time.perf_counter() - start) * 1e3)
        return sorted(times)[10], None
    if case == "commit-1":
        # A row is kept in the catalog itself: no file is written.
        connection.execute("CREATE TABLE IF NOT EXISTS lake.hot (id BIGINT)")
        commits = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            connection.execute("INSERT INTO lake.hot VALUES (1)")
            commits += 1
        return commits / (time.perf_counter() - start), None
    if case not in queries:
        return None
    if case.startswith("plan"):
        # EXPLAIN does not choose files yet; the query does, and then misses the first one.
        try:
            connection.execute(queries[case].removeprefix("EXPLAIN ")).fetchall()
        except Exception as e:
            if ".parquet" not in str(e):
                raise
            return after(start, None)
        raise RuntimeError("the query found files that are not there")
    answer = connection.execute(queries[case]).fetchall()
    return after(start, answer[0][0] if case in ("list", "history") else None)


def main() -> None:
    if sys.argv[1] == "prepare-checkpoint":
        from deltalake import DeltaTable

        DeltaTable(sys.argv[2]).create_checkpoint()
        return
    if sys.argv[1] == "prepare-ducklake":
        prepare_ducklake(sys.argv[2], sys.argv[3])
        return
    if sys.argv[1] == "prepare-ducklake-pg":
        prepare_ducklake_pg(sys.argv[3])
        return
    engine, case, table, lake, day, low, high, version, seconds = sys.argv[1:]
    engines = {
        "deltalake": deltalake,
        "duckdb": duckdb,
        "polars": polars,
        "ducklake": ducklake,
        "ducklake-pg": ducklake_pg,
    }
    # What is imported here is not imported while time is measured.
    importlib.import_module(engine if engine in ("deltalake", "polars") else "duckdb")
    if engine == "deltalake":
        importlib.import_module("deltalake.transaction")
        importlib.import_module("pyarrow.compute")
    answer = engines[engine](case, table, lake, day, int(low), int(high), int(version), float(seconds))
    if answer is None:
        print("absent=1")
        return
    value, count = answer
    done(value, count, "commits_per_s" if case.startswith("commit") else "ms")


if __name__ == "__main__":
    main()
