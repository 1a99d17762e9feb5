"""The same for ``asyncio``: calls run on threads of their own, and the event loop goes on."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Optional, ParamSpec, TypeVar

from ._catalog import Catalog
from ._config import ConfigLike
from ._convert import Timestamp
from ._internal import NativeBatch, NativeCancel, NativeSchema, set_cancel
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
from .exceptions import CatalogClosedError, InvalidInputError

if TYPE_CHECKING:
    import pandas

__all__ = [
    "AsyncCatalog", "AsyncRows", "AsyncTable", "AsyncTableAlterer", "AsyncTableMerger",
    "AsyncTableOptimizer", "AsyncTransaction", "AsyncTransactionTable",
]

P = ParamSpec("P")
T = TypeVar("T")
#: How long a cancelled call is waited for, seconds. What the native part does ends at once.
_PATIENCE = 10.0


class _Threads:
    """Threads for the calls of a catalog. A forked child has its own."""

    def __init__(self, most: int) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 1000:
            raise InvalidInputError(f"max_workers must be from 1 to 1000, and is {most!r}")
        self._most = most
        self._process = 0
        self._pool: Optional[ThreadPoolExecutor] = None
        self._closed = False

    def _here(self) -> ThreadPoolExecutor:
        if self._closed:
            raise CatalogClosedError("this program has closed the catalog: make a new AsyncCatalog")
        if self._pool is None or self._process != os.getpid():
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(self._most, thread_name_prefix="deltalakedb-async")
        return self._pool

    async def run(self, work: Callable[[], T]) -> T:
        """Does work on a thread. If the task is cancelled, the work ends before this does."""
        cancel = NativeCancel()

        def on_thread() -> T:
            set_cancel(cancel)
            try:
                return work()
            finally:
                set_cancel(None)

        future = self._here().submit(on_thread)
        waited = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            cancel.cancel()
            if not future.cancel() and not future.done():
                # Whatever becomes of it: nothing of it goes on behind the caller's back.
                await asyncio.wait([waited], timeout=_PATIENCE)
            if waited.done() and not waited.cancelled():
                waited.exception()
            raise

    async def close(self) -> None:
        self._closed = True
        pool = self._pool
        if pool is not None and self._process == os.getpid():
            self._pool = None
            await asyncio.to_thread(pool.shutdown, wait=True)


def _calls(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method of the same object for `await`."""

    @functools.wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._threads.run(lambda: method(self._sync, *args, **kwargs))
        return result

    return call


def _tables(
    method: Callable[Concatenate[Any, P], Table],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncTable]]:
    @functools.wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTable:
        table = await self._threads.run(lambda: method(self._sync, *args, **kwargs))
        return AsyncTable._of(table, self._threads)

    return call


def _rows(
    method: Callable[Concatenate[Any, P], Rows],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncRows]]:
    @functools.wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncRows:
        rows = await self._threads.run(lambda: method(self._sync, *args, **kwargs))
        return AsyncRows(rows, self._threads)

    return call


def _clauses(
    method: Callable[Concatenate[Any, P], TableMerger],
) -> Callable[Concatenate[Any, P], AsyncTableMerger]:
    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTableMerger:
        method(self._sync, *args, **kwargs)
        merger: AsyncTableMerger = self
        return merger

    return call


class AsyncRows:
    """Rows that are read a batch at a time: ``async for batch in rows``. See :class:`Rows`."""

    def __init__(self, rows: Rows, threads: _Threads) -> None:
        self._sync = rows
        self._threads = threads

    async def __aiter__(self) -> AsyncIterator[NativeBatch]:
        batches = await self._threads.run(lambda: iter(self._sync))
        while (batch := await self._threads.run(lambda: next(batches, None))) is not None:
            yield batch

    to_arrow = _calls(Rows.to_arrow)

    async def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """All rows as a ``pandas.DataFrame``."""
        return await self._threads.run(lambda: self._sync.to_pandas(**options))

    to_polars = _calls(Rows.to_polars)


class AsyncTable:
    """A table at a version, for ``await``. See :class:`Table`: names and arguments are the same."""

    def __init__(self) -> None:
        raise TypeError("await AsyncCatalog.table(name) or AsyncTable.open(url)")

    @classmethod
    def _of(cls, table: Table, threads: _Threads) -> AsyncTable:
        made = cls.__new__(cls)
        made._sync, made._threads = table, threads
        return made

    _sync: Table
    _threads: _Threads

    @classmethod
    async def open(
        cls,
        table_uri: str,
        version: Optional[int] = None,
        *,
        timestamp: Optional[Timestamp] = None,
        user: Optional[str] = None,
        config: ConfigLike = None,
        max_workers: int = 16,
    ) -> AsyncTable:
        """Opens a table by its URL."""
        threads = _Threads(max_workers)
        table = await threads.run(
            lambda: Table(table_uri, version, timestamp=timestamp, user=user, config=config)
        )
        return cls._of(table, threads)

    @property
    def name(self) -> str:
        """``namespace.table``"""
        return self._sync.name

    @property
    def id(self) -> str:
        """The catalog's id of the table."""
        return self._sync.id

    @property
    def table_uri(self) -> str:
        """The table's URL, without a password."""
        return self._sync.table_uri

    @property
    def location(self) -> str:
        """Folder or URL of the table's root."""
        return self._sync.location

    @property
    def num_files(self) -> int:
        """How many files it has."""
        return self._sync.num_files

    @property
    def size_bytes(self) -> int:
        """How large they are together."""
        return self._sync.size_bytes

    def version(self) -> int:
        """The version that is open."""
        return self._sync.version()

    def timestamp(self) -> datetime:
        """When this version was committed."""
        return self._sync.timestamp()

    def schema(self) -> NativeSchema:
        """Its columns."""
        return self._sync.schema()

    def metadata(self) -> Metadata:
        """Its metadata at this version."""
        return self._sync.metadata()

    def protocol(self) -> Protocol:
        """Its protocol at this version."""
        return self._sync.protocol()

    at = _tables(Table.at)
    snapshot = at
    load_as_version = _calls(Table.load_as_version)
    update_incremental = _calls(Table.update_incremental)
    history = _calls(Table.history)
    files = _rows(Table.files)
    file_uris = _calls(Table.file_uris)
    mirror_status = _calls(Table.mirror_status)
    wait_published = _calls(Table.wait_published)
    publish = _calls(Table.publish)
    diff = _calls(Table.diff)
    rows = _rows(Table.rows)
    to_arrow = _calls(Table.to_arrow)
    to_polars = _calls(Table.to_polars)
    to_pyarrow_dataset = _calls(Table.to_pyarrow_dataset)
    scan = _calls(Table.scan)
    write = _calls(Table.write)
    delete = _calls(Table.delete)
    update = _calls(Table.update)
    restore = _calls(Table.restore)
    cutover = _calls(Table.cutover)
    vacuum = _calls(Table.vacuum)

    async def to_pandas(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
        **options: Any,
    ) -> pandas.DataFrame:
        """Its rows as a ``pandas.DataFrame``."""
        return await self._threads.run(lambda: self._sync.to_pandas(columns, filter, **options))

    def merge(
        self,
        source: Any,
        predicate: str,
        source_alias: Optional[str] = None,
        target_alias: Optional[str] = None,
        merge_schema: bool = False,
        *,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> AsyncTableMerger:
        """Merges rows into the table: ``await`` its ``execute()``. See :meth:`Table.merge`."""
        merger = self._sync.merge(
            source, predicate, source_alias, target_alias, merge_schema, token=token, publish=publish
        )
        return AsyncTableMerger(merger, self._threads)

    @property
    def optimize(self) -> AsyncTableOptimizer:
        """Makes large files of small ones."""
        return AsyncTableOptimizer(self._sync.optimize, self._threads)

    @property
    def alter(self) -> AsyncTableAlterer:
        """Changes of its metadata, one commit each."""
        return AsyncTableAlterer(self._sync.alter, self._threads)

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"


class AsyncTableMerger:
    """A merge, see :class:`TableMerger`."""

    def __init__(self, merger: TableMerger, threads: _Threads) -> None:
        self._sync = merger
        self._threads = threads

    when_matched_update = _clauses(TableMerger.when_matched_update)
    when_matched_update_all = _clauses(TableMerger.when_matched_update_all)
    when_matched_delete = _clauses(TableMerger.when_matched_delete)
    when_not_matched_insert = _clauses(TableMerger.when_not_matched_insert)
    when_not_matched_insert_all = _clauses(TableMerger.when_not_matched_insert_all)
    when_not_matched_by_source_update = _clauses(TableMerger.when_not_matched_by_source_update)
    when_not_matched_by_source_delete = _clauses(TableMerger.when_not_matched_by_source_delete)
    execute = _calls(TableMerger.execute)


class AsyncTableOptimizer:
    """Makes large files of small ones, see :class:`TableOptimizer`."""

    def __init__(self, optimizer: TableOptimizer, threads: _Threads) -> None:
        self._sync = optimizer
        self._threads = threads

    compact = _calls(TableOptimizer.compact)
    z_order = _calls(TableOptimizer.z_order)


class AsyncTableAlterer:
    """Changes of a table's metadata, see :class:`TableAlterer`."""

    def __init__(self, alterer: TableAlterer, threads: _Threads) -> None:
        self._sync = alterer
        self._threads = threads

    add_columns = _calls(TableAlterer.add_columns)
    rename_column = _calls(TableAlterer.rename_column)
    drop_column = _calls(TableAlterer.drop_column)
    drop_column_not_null = _calls(TableAlterer.drop_column_not_null)
    add_constraint = _calls(TableAlterer.add_constraint)
    drop_constraint = _calls(TableAlterer.drop_constraint)
    set_table_properties = _calls(TableAlterer.set_table_properties)
    unset_table_properties = _calls(TableAlterer.unset_table_properties)
    set_table_description = _calls(TableAlterer.set_table_description)
    set_column_comment = _calls(TableAlterer.set_column_comment)


class AsyncCatalog:
    """A catalog for ``await``. See :class:`Catalog`: names and arguments are the same.

    ::

        async with AsyncCatalog("sqlite:///lake/catalog.db", create=True) as catalog:
            orders = await catalog.table("sales.orders")
            await orders.write(frame)
            async with catalog.transaction() as tx:
                await tx.table("sales.orders").delete("id = 1")

    Calls run on at most ``max_workers`` threads; more wait for one. A task that is cancelled ends its call: if
    something was being committed, it took effect as a whole or not at all, and the same call with a ``token``
    can be repeated without looking.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        create: bool = False,
        user: Optional[str] = None,
        config: ConfigLike = None,
        max_workers: int = 16,
    ) -> None:
        """Says which catalog; it is opened by ``async with`` or ``await`` of :meth:`open`.

        Args:
            max_workers: Most calls that run at a time.
        """
        self._make = lambda: Catalog(url, create=create, user=user, config=config)
        self._threads = _Threads(max_workers)
        self._catalog: Optional[Catalog] = None

    @property
    def _sync(self) -> Catalog:
        if self._catalog is None:
            raise InvalidInputError("the catalog is not open: `async with AsyncCatalog(…)`, or `await` its open()")
        return self._catalog

    async def open(self) -> AsyncCatalog:
        """Opens it."""
        if self._catalog is None:
            self._catalog = await self._threads.run(self._make)
        return self

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return self._sync.url

    create_table = _tables(Catalog.create_table)
    import_table = _calls(Catalog.import_table)
    list_tables = _calls(Catalog.list_tables)
    table = _tables(Catalog.table)
    drop = _calls(Catalog.drop)
    undrop = _tables(Catalog.undrop)
    write = _tables(Catalog.write)
    sql = _rows(Catalog.sql)
    ping = _calls(Catalog.ping)
    pool_stats = _calls(Catalog.pool_stats)
    cache_stats = _calls(Catalog.cache_stats)
    metrics = _calls(Catalog.metrics)

    def transaction(self, token: Optional[str] = None, *, publish: bool = True) -> AsyncTransaction:
        """Begins a transaction over any number of tables: ``async with``. See :meth:`Catalog.transaction`."""
        sync = self._sync
        return AsyncTransaction(lambda: sync.transaction(token, publish=publish), self._threads)

    async def close(self) -> None:
        """Closes its connections. Calls that run end as they would have; later ones are an error."""
        if self._catalog is not None:
            await asyncio.to_thread(self._catalog.close)
        await self._threads.close()

    async def __aenter__(self) -> AsyncCatalog:
        return await self.open()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return "AsyncCatalog(not open)" if self._catalog is None else f"Async{self._catalog!r}"


class AsyncTransaction:
    """Changes of tables that are committed together, or not at all. See :class:`Transaction`."""

    def __init__(self, make: Callable[[], Transaction], threads: _Threads) -> None:
        self._make = make
        self._threads = threads
        self._transaction: Optional[Transaction] = None

    @property
    def _sync(self) -> Transaction:
        if self._transaction is None:
            raise InvalidInputError("the transaction has not begun: `async with catalog.transaction() as tx`")
        return self._transaction

    @property
    def replayed(self) -> bool:
        """Whether a transaction with this token was committed before."""
        return self._sync.replayed

    @property
    def commit_info(self) -> Optional[dict[str, Any]]:
        """What was committed."""
        return self._sync.commit_info

    def table(self, name: str) -> AsyncTransactionTable:
        """A table in the transaction; one that is not there is made by a write."""
        return AsyncTransactionTable(self._sync.table(name), self._threads)

    commit = _calls(Transaction.commit)
    rollback = _calls(Transaction.rollback)

    async def __aenter__(self) -> AsyncTransaction:
        self._transaction = await self._threads.run(self._make)
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None and not self.replayed:
            await self.commit()
        else:
            await self.rollback()


class AsyncTransactionTable:
    """A table in a transaction, see :class:`TransactionTable`."""

    def __init__(self, table: TransactionTable, threads: _Threads) -> None:
        self._sync = table
        self._threads = threads

    write = _calls(TransactionTable.write)
    delete = _calls(TransactionTable.delete)
    update = _calls(TransactionTable.update)
    rows = _rows(TransactionTable.rows)
