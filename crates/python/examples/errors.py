"""Errors: each says what is wrong, with which table, and what to do.

    python errors.py FOLDER
"""

import sys

import pyarrow as pa

from deltalakedb import Catalog, DeltaLakeDbError

folder = sys.argv[1]
catalog = Catalog(f"sqlite://{folder}/catalog.db", create=True)
orders = catalog.write("demo.errors", pa.table({"id": [1, 2], "name": ["a", "b"]}), location=f"{folder}/errors")
calls = {
    "table_not_found": lambda: catalog.table("demo.orders"),
    "table_exists": lambda: catalog.create_table("demo.errors", "id long", location=f"{folder}/other"),
    "version_not_found": lambda: catalog.table("demo.errors", version=7),
    "schema_mismatch": lambda: orders.write(pa.table({"id": [1], "colour": ["red"]})),
    "invalid_input": lambda: orders.delete("nmae = 'a'"),
    "query": lambda: catalog.sql("SELECT nmae FROM demo.errors"),
}
for code, call in calls.items():
    try:
        call()
    except DeltaLakeDbError as error:
        print(f"{type(error).__name__} ({error.code}, table {error.table}): {error}\n  {error.hint}")
        assert error.code == code, (error.code, code)
    else:
        raise AssertionError(f"{code}: there is no error")
catalog.close()
try:
    orders.history()
except DeltaLakeDbError as error:
    print(f"{type(error).__name__}: {error}")
    assert error.code == "catalog_closed"
