"""`await`, cancellation, the end."""

import asyncio
import inspect
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import AsyncCatalog, AsyncTable, Catalog
from deltalakedb.exceptions import (
    CatalogClosedError,
    ConflictError,
    InvalidInputError,
    TableNotFoundError,
)

COLUMNS = "id long, who long"
FOREVER = (
    "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b "
    "WHERE (a.value * b.value) % 7 = 3"
)


def rows(*ids, who=0):
    return pa.table({"id": pa.array(ids, pa.int64()), "who": pa.array([who] * len(ids), pa.int64())})


def test_everything_can_be_awaited(url, lake):
    async def work():
        async with AsyncCatalog(url, create=True) as catalog:
            table = await catalog.create_table("s.t", COLUMNS, location=lake)
            assert isinstance(table, AsyncTable) and table.version() == 0 and table.name == "s.t"
            await table.write(rows(1, 2, 3))
            assert table.version() == 1 and (await table.to_arrow()).num_rows == 3
            assert (await table.to_pandas(filter="id > 1")).shape == (2, 2)
            assert sum([batch.num_rows async for batch in await table.rows(["id"])]) == 3
            assert (await (await table.files()).to_arrow()).num_rows == table.num_files
            await table.update({"who": "7"}, predicate="id = 1")
            await table.delete("id = 2")
            merge = table.merge(rows(3, 4, who=9), "target.id = source.id")
            done = await merge.when_matched_update_all().when_not_matched_insert_all().execute()
            assert done["num_target_rows_inserted"] == 1
            await table.alter.set_table_description("changed")
            await table.optimize.compact()
            assert (await table.at(1)).version() == 1
            assert (await table.history(limit=1))[0]["version"] == table.version()
            assert (await table.scan()).collect().height == 3
            assert (await table.diff())["verdict"] == "parity"
            got = await (await catalog.sql("SELECT sum(who) AS n FROM s.t")).to_arrow()
            assert got["n"].to_pylist() == [7 + 9 + 9]
            assert [t["table"] for t in await catalog.list_tables()] == ["s.t"]
            with pytest.raises(TableNotFoundError):
                await catalog.table("s.no")
            with pytest.raises(InvalidInputError):
                await table.rows(filter="id =")

    asyncio.run(work())


def test_each_method_is_there():
    """None is left out: each public method of the classes for threads has its match."""
    pairs = {
        "Catalog": set(),
        "Rows": set(),
        # As `deltalake` calls what has another name here; what others do on their own.
        "Table": {"to_pyarrow_table", "to_duckdb"},
        "TableMerger": set(), "TableOptimizer": set(), "TableAlterer": set(),
        "Transaction": set(), "TransactionTable": set(),
    }
    for name, without in pairs.items():
        there = {m for m in dir(getattr(deltalakedb, name)) if not m.startswith("_")}
        awaited = getattr(deltalakedb, "Async" + name)
        assert there - set(dir(awaited)) == without, name
        for method in there - without:
            ours, theirs = getattr(awaited, method), getattr(getattr(deltalakedb, name), method)
            if callable(ours):
                assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()


def test_the_loop_goes_on_and_calls_run_at_a_time(lite, lake):
    lite.create_table("t", COLUMNS, location=lake)

    async def work():
        ticks = 0

        async def count():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        counter = asyncio.ensure_future(count())
        async with AsyncCatalog(lite.url, max_workers=4) as catalog:
            table = await catalog.table("t")
            opened = await asyncio.gather(*(catalog.table("t") for _ in range(20)))
            assert [t.version() for t in opened] == [0] * 20
            began = time.monotonic()
            handles = [await catalog.table("t") for _ in range(6)]
            await asyncio.gather(*(handle.write(rows(n)) for n, handle in enumerate(handles)))
            took = time.monotonic() - began
            assert (await (await catalog.table("t")).to_arrow()).num_rows == 6 and table.version() == 0
        counter.cancel()
        assert ticks > took / 0.05, f"{ticks} ticks in {took:.3f} s"

    asyncio.run(work())


def test_transactions(url, lake):
    async def work():
        async with AsyncCatalog(url, create=True) as catalog:
            await catalog.create_table("a", COLUMNS, location=lake + "a")
            await catalog.create_table("b", COLUMNS, location=lake + "b")
            async with catalog.transaction() as tx:
                await tx.table("a").write(rows(1))
                await tx.table("b").write(rows(2))
                assert (await (await tx.table("a").rows()).to_arrow()).num_rows == 1
            assert {t["table"] for t in tx.commit_info["tables"]} == {"default.a", "default.b"}
            with pytest.raises(ZeroDivisionError):
                async with catalog.transaction() as tx:
                    await tx.table("a").write(rows(3))
                    1 / 0
            with pytest.raises(ConflictError):
                async with catalog.transaction() as tx:
                    await tx.table("a").delete("id = 1")
                    await (await catalog.table("a")).delete("id = 1")
            assert (await catalog.table("a")).version() == 2
            for replayed in (False, True):
                async with catalog.transaction("once") as tx:
                    assert tx.replayed == replayed
                    await tx.table("b").write(rows(5))
            assert (await catalog.table("b")).version() == 2
            with pytest.raises(InvalidInputError, match="begun"):
                catalog.transaction().table("a")

    asyncio.run(work())


def test_a_cancelled_task_ends_its_call(lite, lake):
    lite.create_table("t", COLUMNS, location=lake)

    async def work():
        async with AsyncCatalog(lite.url) as catalog:
            rows_of = await catalog.sql(FOREVER)
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(rows_of.to_arrow(), 0.5)
            assert time.monotonic() - began < 3
            # Its thread is free again.
            busy = [t for t in threading.enumerate() if t.name.startswith("deltalakedb-async")]
            assert len(busy) <= 2
            assert (await catalog.table("t")).version() == 0
            # A transaction that is cancelled leaves nothing.
            async def endless():
                async with catalog.transaction() as tx:
                    await tx.table("t").write(rows(1))
                    await asyncio.sleep(60)

            task = asyncio.ensure_future(endless())
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await catalog.table("t")).version() == 0
            await (await catalog.table("t")).write(rows(1))

    asyncio.run(work())


def test_a_closed_catalog_says_so(lite, lake):
    lite.create_table("t", COLUMNS, location=lake)

    async def work():
        catalog = AsyncCatalog(lite.url)
        with pytest.raises(InvalidInputError, match="not open"):
            catalog.url  # noqa: B018
        await catalog.open()
        table = await catalog.table("t")
        await catalog.close()
        await catalog.close()
        for call in (lambda: catalog.table("t"), lambda: table.history(), lambda: catalog.sql("SELECT 1")):
            with pytest.raises(CatalogClosedError):
                await call()
        for wrong in (0, 10_000, True, "4"):
            with pytest.raises(InvalidInputError, match="max_workers"):
                AsyncCatalog(lite.url, max_workers=wrong)
        opened = await AsyncTable.open(f"delta+sql://{lite.url}/default.t")
        assert opened.version() == 0

    asyncio.run(work())


ENDS = """
    import asyncio, sys
    from deltalakedb import AsyncCatalog

    async def work():
        catalog = await AsyncCatalog(sys.argv[1], create=True).open()
        rows = await catalog.sql("SELECT * FROM generate_series(1, 1000000)")
        async for batch in rows:
            break
        asyncio.ensure_future(catalog.list_tables())
        print("ends")

    asyncio.run(work())
"""


def test_a_program_ends_without_closing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ENDS), f"sqlite://{tmp_path}/c.db"],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr[-3000:]
    with Catalog(f"sqlite://{tmp_path}/c.db") as catalog:
        assert catalog.list_tables() == []
