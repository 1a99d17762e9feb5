"""A script of a user, which `mypy --strict` checks. It is not run."""

import pyarrow as pa

from deltalakedb import (
    AsyncCatalog,
    AsyncTable,
    Catalog,
    ConflictError,
    DeltaLakeDbError,
    SqlConfig,
    Table,
    setup_logging,
)
from deltalakedb.prometheus import CatalogCollector


def load(url: str, token: str) -> int:
    with Catalog(url, create=True) as catalog:
        orders: Table = catalog.write("sales.orders", pa.table({"id": [1]}), mode="append", token=token)
        try:
            with catalog.transaction() as tx:
                tx.table("sales.orders").delete("id = 1")
                tx.table("sales.totals").update({"amount": "amount - 1"})
        except ConflictError as error:
            print(error.tables, error.versions, error.hint)
        except DeltaLakeDbError as error:
            print(error.code, error.table)
        for batch in catalog.sql("SELECT 1 AS one"):
            print(batch.num_rows)
        history: list[dict[str, object]] = orders.history(limit=3)
        return orders.version() + len(history)


def look(config: SqlConfig) -> int:
    setup_logging("INFO").info("looking")
    with Catalog(config=config) as catalog:
        table = catalog.table("sales.orders")
        collector = CatalogCollector(catalog, {"catalog": "sales"})
        restored: dict[str, object] = table.restore(3, token="back")
        fenced: int | None = table.cutover()
        table.write(pa.table({"id": [1]}), mode="overwrite_partitions")
        height: int = table.scan().collect().height
        rows = table.to_duckdb(filter="id > 1").fetchall()
        return height + len(rows) + len(restored) + (fenced or 0) + len(list(collector.collect()))


async def wait(url: str) -> int:
    async with AsyncCatalog(url, max_workers=4) as catalog:
        orders: AsyncTable = await catalog.table("sales.orders", version=3)
        metrics: dict[str, object] = await orders.delete("id = 1")
        await orders.merge(pa.table({"id": [1]}), "target.id = source.id").when_matched_delete().execute()
        async with catalog.transaction(token="once") as tx:
            await tx.table("sales.orders").write(pa.table({"id": [2]}))
        async for batch in await catalog.sql("SELECT 1 AS one"):
            print(batch.num_rows)
        return orders.version() + len(metrics)
