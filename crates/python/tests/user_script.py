"""A script of a user, which `mypy --strict` checks. It is not run."""

import pyarrow as pa

from deltalakedb import Catalog, ConflictError, DeltaLakeDbError, Table


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
