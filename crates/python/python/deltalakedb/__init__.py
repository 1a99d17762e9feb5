"""Delta tables whose log is in a SQL database, and published to a plain ``_delta_log``.

::

    from deltalakedb import Catalog

    with Catalog("sqlite:///lake/catalog.db", create=True) as catalog:
        orders = catalog.write("sales.orders", frame, mode="append")
        print(orders.version(), catalog.sql("SELECT count(*) FROM sales.orders").to_arrow())
"""

from __future__ import annotations

import os

from . import _internal, exceptions
from ._async import (
    AsyncCatalog,
    AsyncRows,
    AsyncTable,
    AsyncTableAlterer,
    AsyncTableMerger,
    AsyncTableOptimizer,
    AsyncTransaction,
    AsyncTransactionTable,
)
from ._catalog import Catalog, write_deltalake
from ._config import SqlConfig
from ._internal import __version__
from ._logging import setup_logging, stop_logging
from ._rows import Rows
from ._table import (
    Metadata,
    Protocol,
    Table,
    TableAlterer,
    TableMerger,
    TableOptimizer,
    Transaction,
    TransactionTable,
)
from .exceptions import (
    CatalogClosedError,
    CommitUnknownError,
    ConflictError,
    CorruptError,
    DeltaLakeDbError,
    ForkedError,
    InternalError,
    InvalidInputError,
    QueryError,
    SchemaMismatchError,
    SchemaVersionError,
    TableExistsError,
    TableFrozenError,
    TableNotFoundError,
    TimeoutError,  # noqa: A004
    TransientError,
    UnavailableError,
    UnsupportedError,
    VersionNotFoundError,
)

__all__ = [
    "AsyncCatalog",
    "AsyncRows",
    "AsyncTable",
    "AsyncTableAlterer",
    "AsyncTableMerger",
    "AsyncTableOptimizer",
    "AsyncTransaction",
    "AsyncTransactionTable",
    "Catalog",
    "CatalogClosedError",
    "CommitUnknownError",
    "ConflictError",
    "CorruptError",
    "DeltaLakeDbError",
    "ForkedError",
    "InternalError",
    "InvalidInputError",
    "Metadata",
    "Protocol",
    "QueryError",
    "Rows",
    "SchemaMismatchError",
    "SchemaVersionError",
    "SqlConfig",
    "Table",
    "TableAlterer",
    "TableExistsError",
    "TableFrozenError",
    "TableMerger",
    "TableNotFoundError",
    "TableOptimizer",
    "TimeoutError",
    "Transaction",
    "TransactionTable",
    "TransientError",
    "UnavailableError",
    "UnsupportedError",
    "VersionNotFoundError",
    "__version__",
    "exceptions",
    "setup_logging",
    "stop_logging",
    "write_deltalake",
]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_internal.before_fork,
        after_in_parent=_internal.after_fork_in_parent,
        after_in_child=_internal.after_fork_in_child,
    )
