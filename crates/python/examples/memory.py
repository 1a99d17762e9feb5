"""Rows in and out, a batch at a time: memory does not grow with the table.

    python memory.py FOLDER [ROWS]
"""

import resource
import sys

import pyarrow as pa

from deltalakedb import Catalog

folder, rows = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000
BATCH = 50_000
schema = pa.schema([("id", pa.int64()), ("text", pa.string())])


def batches():
    for start in range(0, rows, BATCH):
        ids = range(start, min(start + BATCH, rows))
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array([f"row {i:>90}" for i in ids])], schema=schema)


def peak():
    """Most memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


with Catalog(f"sqlite://{folder}/catalog.db", create=True) as catalog:
    table = catalog.create_table("demo.memory", schema, location=f"{folder}/memory")
    # Warm up: libraries are loaded, threads are started.
    table.write(pa.RecordBatchReader.from_batches(schema, [next(batches())]), mode="overwrite")
    before = peak()
    table.write(pa.RecordBatchReader.from_batches(schema, batches()), mode="overwrite", target_file_size=16 << 20)
    written = peak()
    total = sum(batch.num_rows for batch in table.rows())
    read = peak()

data = rows * 104 // (1 << 20)
print(f"{total:,} rows, {data} MiB: peak {before} MiB before, {written} MiB after writing, {read} MiB after reading")
assert total == rows
