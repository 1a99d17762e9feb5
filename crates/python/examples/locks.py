"""Writers at the same time, without a lock on the store: the database decides, and no commit is lost.

    python locks.py FOLDER [WRITERS]
"""

import multiprocessing
import sys

import pyarrow as pa

from deltalakedb import Catalog, ConflictError, Table

EACH = 3


def append(url: str, who: int) -> int:
    table = Table(url)
    for number in range(EACH):
        table.write(pa.table({"who": [who], "number": [number]}))
    return who


def main() -> None:
    folder, writers = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4
    with Catalog(f"sqlite://{folder}/catalog.db", create=True) as catalog:
        table = catalog.create_table("demo.locks", "who long, number long", location=f"{folder}/locks")
        with multiprocessing.get_context("spawn").Pool(writers) as pool:
            pool.starmap(append, [(table.table_uri, who) for who in range(writers)])
        table.update_incremental()
        rows = table.to_arrow()
        print(f"{writers} processes, {EACH} commits each: version {table.version()}, {rows.num_rows} rows")
        assert rows.num_rows == table.version() == writers * EACH
        # Two changes that do not go together: the second one is told who was first.
        try:
            with catalog.transaction() as tx:
                tx.table("demo.locks").delete("who = 0")
                catalog.table("demo.locks").update({"number": "number + 1"}, predicate="who = 0")
            raise AssertionError("there is no conflict")
        except ConflictError as error:
            print(f"conflict: {error.versions}: {error}")


if __name__ == "__main__":
    main()
