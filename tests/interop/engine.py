"""Reads one Delta table with one engine, in this process, and prints the facts of what it read.

engine.py ENGINE TABLE_FOLDER [VERSION]
"""

import json
import os
import sys
from pathlib import Path

from facts import facts


def read_deltalake(table: str, version):
    from deltalake import DeltaTable

    return DeltaTable(table, version=version).to_pyarrow_table()


def read_polars(table: str, version):
    import polars

    return polars.scan_delta(table, version=version).collect().to_arrow()


def read_duckdb(table: str, version):
    import duckdb
    import duckdb_extension_delta

    package = Path(duckdb_extension_delta.__file__).parent
    (extension,) = package.rglob("delta.duckdb_extension")
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    scan = "SELECT * FROM delta_scan(?)" if version is None else f"SELECT * FROM delta_scan(?, version => {int(version)})"
    return connection.execute(scan, [table]).to_arrow_table()


ENGINES = {"deltalake": read_deltalake, "polars": read_polars, "duckdb": read_duckdb}

if __name__ == "__main__":
    engine, folder = sys.argv[1:3]
    at = int(sys.argv[3]) if len(sys.argv) > 3 else None
    print(json.dumps(facts(ENGINES[engine](folder, at))), flush=True)
    # Now and then the thread pools of these packages abort while the interpreter shuts down, after all is read.
    os._exit(0)
