"""Opening a table and choosing files: queries of the catalog, however long the log is.

    python opening.py FOLDER [FILES]
"""

import sys
import time

import deltalake
import pyarrow as pa

from deltalakedb import Catalog

folder, files = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300


def timed(work, times=5):
    """The best of some runs, milliseconds, and the answer."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        answer = work()
        best = min(best, time.perf_counter() - began)
    return best * 1000, answer


with Catalog(f"sqlite://{folder}/catalog.db", create=True) as catalog:
    rows = pa.table({"part": range(files), "id": range(files)})
    made = catalog.write("demo.opening", rows, location=f"{folder}/opening", partition_by="part")
    path = made.location.removeprefix("file://")
    ours, table = timed(lambda: catalog.table("demo.opening"))
    theirs, plain = timed(lambda: deltalake.DeltaTable(path))
    print(f"open: deltalakedb {ours:.2f} ms, deltalake {theirs:.2f} ms")
    ours, mine = timed(lambda: table.file_uris("part = 7"))
    theirs, other = timed(lambda: plain.file_uris(file_pruning_predicate=[("part", "=", "7")]))
    print(f"plan: deltalakedb {ours:.2f} ms, deltalake {theirs:.2f} ms")
    assert table.version() == plain.version() and len(mine) == len(other) == 1
    assert table.num_files == files
