"""Figures of the package beside `deltalake`, on the same table, in one run.

    python figures.py opening [--files 100000] [--rounds 11]
    python figures.py rows [--rows 10000000]

`opening` writes the log of a table of many files as other engines do (1 commit for every 100 files, a checkpoint),
imports it, and times opening, opening with planning, and a small query through polars. `rows` writes and reads many
rows, and measures the most memory that a process takes. A bound that is not held ends the run with an error.

Needs deltalakedb (a release wheel), deltalake, polars, pyarrow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Callable

FILES_OF_A_COMMIT = 100
DAYS = 1_000
DAY = "day-0500"
SCHEMA = {
    "type": "struct",
    "fields": [
        {"name": "id", "type": "long", "nullable": True, "metadata": {}},
        {"name": "price", "type": "double", "nullable": True, "metadata": {}},
        {"name": "note", "type": "string", "nullable": True, "metadata": {}},
        {"name": "day", "type": "string", "nullable": True, "metadata": {}},
    ],
}


def add(number: int, path: str, size: int, day: str) -> dict[str, Any]:
    """An action of a file with statistics."""
    low = number * 1_000
    stats = {
        "numRecords": 1_000,
        "minValues": {"id": low, "price": number / 7, "note": f"note {number:07}"},
        "maxValues": {"id": low + 999, "price": number / 7 + 10, "note": f"note {number:07} z"},
        "nullCount": {"id": 0, "price": 3, "note": 0},
    }
    return {
        "add": {
            "path": path,
            "partitionValues": {"day": day},
            "size": size,
            "modificationTime": 1_700_000_000_000 + number,
            "dataChange": True,
            "stats": json.dumps(stats),
        }
    }


def make_table(root: Path, files: int) -> int:
    """Writes a table. The files of one day are there, the others are in the log alone. Gives their number."""
    import deltalake
    import pyarrow as pa
    import pyarrow.parquet as pq

    log = root / "_delta_log"
    log.mkdir(parents=True)
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps(SCHEMA),
        "partitionColumns": ["day"],
        "configuration": {},
        "createdTime": 1_700_000_000_000,
    }
    first = [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}]
    present, version = 0, 0
    for begin in range(0, files, FILES_OF_A_COMMIT):
        actions = first if begin == 0 else []
        for number in range(begin, min(begin + FILES_OF_A_COMMIT, files)):
            day = f"day-{number % DAYS:04}"
            path, size = f"day={day}/part-{number:07}-{uuid.uuid4()}.c000.snappy.parquet", 123_456
            if day == DAY:
                rows = pa.table(
                    {
                        "id": range(number * 1_000, number * 1_000 + 1_000),
                        "price": [number / 7 + n / 100 if n > 2 else None for n in range(1_000)],
                        "note": [f"note {number:07} {n:03}" for n in range(1_000)],
                    }
                )
                (root / path).parent.mkdir(exist_ok=True)
                pq.write_table(rows, root / path)
                size, present = (root / path).stat().st_size, present + 1
            actions.append(add(number, path, size, day))
        text = "".join(json.dumps(action) + "\n" for action in actions)
        (log / f"{version:020}.json").write_text(text)
        version += 1
    deltalake.DeltaTable(str(root)).create_checkpoint()
    return present


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """The median of the seconds, and the last answer."""
    times, answer = [], None
    for _ in range(rounds):
        begun = time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), answer


def opening(args: argparse.Namespace) -> bool:
    import deltalake
    import polars as pl

    from deltalakedb import Catalog, Table

    with tempfile.TemporaryDirectory() as folder:
        root, url = Path(folder) / "t", f"sqlite://{folder}/catalog.db"
        present = make_table(root, args.files)
        with Catalog(url, create=True) as catalog:
            begun = time.perf_counter()
            catalog.import_table(str(root), "bench.t")
            print(f"import of {args.files} files: {time.perf_counter() - begun:.2f} s")
            uri = f"delta+{url.replace('sqlite://', 'sql://sqlite://')}/bench.t"
            predicate = f"day = '{DAY}'"

            def peer() -> deltalake.DeltaTable:
                return deltalake.DeltaTable(str(root))

            def planned() -> set[str]:
                found = peer().file_uris(file_pruning_predicate=predicate)
                return {path.rsplit("/", 1)[-1] for path in found}

            def ours() -> set[str]:
                found = Table(uri).file_uris(predicate)
                return {path.rsplit("/", 1)[-1] for path in found}

            def rows(frame: pl.LazyFrame) -> pl.DataFrame:
                found = frame.filter(pl.col("day") == DAY).select(pl.col("id").sum(), pl.len())
                return found.collect()

            cases: list[tuple[str, float, Callable[[], Any], Callable[[], Any]]] = [
                ("open", 20, lambda: peer().version(), lambda: Table(uri).version()),
                ("open and plan one day", 20, planned, ours),
                (
                    "open and query one day through polars",
                    10,
                    lambda: rows(pl.scan_delta(str(root))),
                    lambda: rows(Table(uri).scan()),
                ),
            ]
            held = True
            print("| case | deltalake (ms) | deltalakedb (ms) | times faster | bound |")
            print("| --- | --- | --- | --- | --- |")
            for name, bound, theirs, mine in cases:
                # In turn, so that a busy machine is busy for both.
                slow, theirs_last = timed(theirs, args.rounds)
                fast, mine_last = timed(mine, args.rounds)
                same = (
                    theirs_last.equals(mine_last)
                    if isinstance(mine_last, pl.DataFrame)
                    else theirs_last == mine_last
                )
                if not same:
                    raise SystemExit(f"{name}: {theirs_last} is not {mine_last}")
                print(
                    f"| {name} | {slow * 1e3:.1f} | {fast * 1e3:.2f} | {slow / fast:.0f} | {bound} |",
                    flush=True,
                )
                held = held and (slow / fast >= bound or not args.bounds)
            if len(ours()) != present:
                raise SystemExit(f"{present} files are of {DAY}, and {len(ours())} are planned")
            return held


def batches(count: int) -> Any:
    """A stream of rows, made while it is read."""
    import pyarrow as pa

    schema = pa.schema([("id", pa.int64()), ("price", pa.float64()), ("note", pa.string())])

    def made() -> Any:
        for begin in range(0, count, 100_000):
            ids = range(begin, min(begin + 100_000, count))
            yield pa.record_batch(
                [
                    pa.array(ids, pa.int64()),
                    pa.array([i / 7 for i in ids], pa.float64()),
                    pa.array([f"note {i * 2654435761 % 4294967296}" for i in ids], pa.string()),
                ],
                schema=schema,
            )

    return pa.RecordBatchReader.from_batches(schema, made())


def one(args: argparse.Namespace) -> bool:
    """One write or read, in a process of its own. Prints seconds, bytes of memory, rows."""
    place, count = Path(args.place), args.rows
    library, what = args.case.split("-")
    begun, seen = time.perf_counter(), 0
    if library == "nothing":
        for batch in batches(count):
            seen += batch.num_rows
    elif library == "deltalake":
        import deltalake

        if what == "write":
            deltalake.write_deltalake(str(place / "peer"), batches(count))
            seen = count
        else:
            table = deltalake.DeltaTable(str(place / "peer"))
            for batch in table.to_pyarrow_dataset().to_batches():
                seen += batch.num_rows
    else:
        from deltalakedb import Catalog

        with Catalog(f"sqlite://{place}/catalog.db", create=True) as catalog:
            if what == "write":
                catalog.write("bench.rows", batches(count), location=str(place / "ours"))
                seen = count
            else:
                import pyarrow as pa

                for batch in pa.RecordBatchReader.from_stream(catalog.table("bench.rows").rows()):
                    seen += batch.num_rows
    took = time.perf_counter() - begun
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": took, "bytes": most, "rows": seen}))
    return seen == count


def rows(args: argparse.Namespace) -> bool:
    held = True
    print("| case | rows | seconds | most memory (MB) |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        for case in (
            "nothing-write",
            "deltalake-write",
            "deltalakedb-write",
            "deltalake-read",
            "deltalakedb-read",
        ):
            command = [sys.executable, __file__, "one", case, place, "--rows", str(args.rows)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
            found = json.loads(answer.stdout)
            megabytes = found["bytes"] / 1e6
            print(
                f"| {case} | {found['rows']} | {found['seconds']:.1f} | {megabytes:.0f} |",
                flush=True,
            )
            if case.startswith("deltalakedb") and args.bounds:
                held = held and megabytes <= args.megabytes
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-bounds", dest="bounds", action="store_false")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("opening")
    command.add_argument("--files", type=int, default=100_000)
    command.add_argument("--rounds", type=int, default=11)
    command = commands.add_parser("rows")
    command.add_argument("--rows", type=int, default=10_000_000)
    command.add_argument("--megabytes", type=float, default=1_000)
    command = commands.add_parser("one")
    command.add_argument("case")
    command.add_argument("place")
    command.add_argument("--rows", type=int, required=True)
    args = parser.parse_args()
    held = {"opening": opening, "rows": rows, "one": one}[args.command](args)
    if not held:
        print("a bound is not held", file=sys.stderr)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
