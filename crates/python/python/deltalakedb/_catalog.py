"""A catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Optional, Union

from ._config import ConfigLike, portable, settings_of
from ._convert import Timestamp, answer, names, texts
from ._internal import NativeCatalog
from ._rows import Rows
from ._table import Mode, SchemaMode, Table, Transaction
from .exceptions import InvalidInputError

__all__ = ["Catalog", "write_deltalake"]


class Catalog:
    """A catalog: a database that has the logs of Delta tables.

    ::

        with Catalog("sqlite:///lake/catalog.db", create=True) as catalog:
            orders = catalog.create_table("sales.orders", "id long, day date", location="/lake/orders")

    It may be used from any number of threads. A forked child opens it anew by itself. With SQLite, a fork
    closes the connections of the parent first, which opens them again by itself; rows that are just read
    then end with an error.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        create: bool = False,
        user: Optional[str] = None,
        config: ConfigLike = None,
    ) -> None:
        """Opens a catalog.

        Args:
            url: ``sqlite:///path/catalog.db``, ``postgresql://user@host/database``, ``mysql://…``,
                ``mssql://…``. By default the configuration says it, as for ``dl``: the environment
                (``DELTA_DB_CONNECTION``) or a file.
            create: Make the catalog if the database has none, and upgrade one of an older version.
            user: On whose behalf changes are committed: the history shows it.
            config: Configuration that goes before environment and files: a :class:`SqlConfig`, a dict of
                sections, or the path of a file.

        Raises:
            SchemaVersionError: The database has no catalog, or a newer one.
            UnavailableError: The database cannot be reached.
            InvalidInputError: The URL or the configuration is wrong.
        """
        self._user = user
        self._settings = settings_of(config)
        self._native = NativeCatalog(url, create, user, self._settings)
        self._native.open()

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return self._native.url

    # Tables

    def create_table(
        self,
        name: str,
        schema: Any,
        *,
        location: str,
        partition_by: Union[str, Sequence[str], None] = None,
        description: Optional[str] = None,
        configuration: Optional[Mapping[str, Any]] = None,
        storage_options: Optional[Mapping[str, Any]] = None,
        mirror: bool = True,
        fence: bool = True,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> Table:
        """Makes a table without rows.

        Args:
            name: ``namespace.table``
            schema: Its columns as text (``"id long not null, day date"``), or an Arrow schema: of pyarrow,
                arro3, anything with ``__arrow_c_schema__``.
            location: Folder or URL of its root.
            partition_by: Partition columns.
            description: What it holds.
            configuration: Table properties, as ``{"delta.appendOnly": "true"}``.
            storage_options: Options of the store of files. The catalog keeps them: give secrets by
                reference (``env:NAME``, ``file:/path``).
            mirror: Publish its commits to its ``_delta_log``.
            fence: Keep writers out that do not go through the catalog.
            token: A second call with this token makes nothing, and opens the table.
            publish: Publish the commit at once. Without it a worker does.

        Raises:
            TableExistsError: There is one of this name.
            SchemaMismatchError: Delta has no type for a column.
        """
        columns, arrow = (schema, None) if isinstance(schema, str) else (None, schema)
        if arrow is not None and not hasattr(arrow, "__arrow_c_schema__"):
            raise InvalidInputError(
                f"schema must be text or have __arrow_c_schema__, and is {type(arrow).__name__}"
            )
        made = answer(
            self._native.create_table(
                name, location, columns, arrow, names(partition_by), description,
                texts("configuration", configuration), texts("storage_options", storage_options),
                mirror, fence, token, publish,
            )
        )
        return self.table(made["commit"]["tables"][0]["id"])

    def import_table(
        self,
        location: str,
        name: str,
        *,
        storage_options: Optional[Mapping[str, Any]] = None,
        up_to_version: Optional[int] = None,
        mirror: bool = True,
        dry_run: bool = False,
        resume: bool = False,
        restart: bool = False,
        checkpoint_only: bool = False,
        skip_validation: bool = False,
    ) -> dict[str, Any]:
        """Takes over a Delta table: its files and its log stay where they are, see ``dl import --help``."""
        text = self._native.import_table(
            location, name, texts("storage_options", storage_options), up_to_version, mirror,
            dry_run, resume, restart, checkpoint_only, skip_validation,
        )
        said: dict[str, Any] = json.loads(text)
        return said

    def list_tables(
        self, namespace: Optional[str] = None, *, dropped: bool = False
    ) -> list[dict[str, Any]]:
        """Its tables, or those that were dropped: name, id, location, version and more of each."""
        said: list[dict[str, Any]] = json.loads(self._native.tables(namespace, dropped))
        return said

    def table(
        self,
        name: str,
        version: Optional[int] = None,
        timestamp: Optional[Timestamp] = None,
    ) -> Table:
        """Opens a table, by its name or its id: one query.

        Args:
            name: ``namespace.table``; without a namespace it is in ``default``.
            version: The version; the latest by default.
            timestamp: In place of a version: the latest version that is not younger.
        """
        return Table._of(self._native, name, version, timestamp, self._user)

    def drop(self, name: str) -> dict[str, Any]:
        """Drops a table. Neither its data nor its log is deleted; :meth:`undrop` brings it back."""
        said: dict[str, Any] = json.loads(self._native.drop_table(name))
        return said

    def undrop(self, name: str, new_name: Optional[str] = None) -> Table:
        """Brings a dropped table back, by its name or its id, with another name if that is taken."""
        said = json.loads(self._native.undrop(name, new_name))
        return self.table(said["id"])

    # Rows

    def write(
        self,
        name: str,
        data: Any,
        *,
        mode: Mode = "error",
        partition_by: Union[str, Sequence[str], None] = None,
        schema_mode: Optional[SchemaMode] = None,
        predicate: Optional[str] = None,
        location: Optional[str] = None,
        configuration: Optional[Mapping[str, Any]] = None,
        storage_options: Optional[Mapping[str, Any]] = None,
        target_file_size: Optional[int] = None,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> Table:
        """Writes rows to a table, which is made if it is not there, see :meth:`Table.write`.

        Args:
            location: Folder or URL of a new table's root. By default it is ``namespace/table`` beside the
                file of a SQLite catalog.
            configuration: Properties of a new table.
            storage_options: Options of a new table's store.
        """
        with self.transaction(token, publish=publish) as transaction:
            if not transaction.replayed:
                transaction.table(name).write(
                    data, mode=mode, partition_by=partition_by, schema_mode=schema_mode,
                    predicate=predicate, location=location, configuration=configuration,
                    storage_options=storage_options, target_file_size=target_file_size,
                )
        return self.table(name)

    def sql(self, query: str) -> Rows:
        """The rows of a query over its tables, as they are read.

        ``SELECT * FROM sales.orders VERSION AS OF 3`` reads a version. Without one all tables of a query
        are read as of one instant.

        Raises:
            QueryError: The query is none, or cannot be run.
            TableNotFoundError: A table is not there.
        """
        native = self._native
        return Rows(lambda: native.sql(query))

    def transaction(self, token: Optional[str] = None, *, publish: bool = True) -> Transaction:
        """Begins a transaction over any number of tables.

        Args:
            token: A second transaction with this token takes no effect.
            publish: Publish the commit at once. Without it a worker does.
        """
        return Transaction(self._native, token, publish)

    # Operation

    def ping(self, timeout: float = 2.0) -> float:
        """Milliseconds that the database took to answer: a cheap call, for health checks.

        Raises:
            TimeoutError: It did not answer within ``timeout`` seconds.
        """
        return self._native.ping(timeout)

    def pool_stats(self) -> Optional[dict[str, int]]:
        """The connections to the database; None where their number has no limit."""
        return self._native.pool_stats()

    def cache_stats(self) -> dict[str, Any]:
        """What the cache has done since the catalog was opened, and what is in it."""
        said: dict[str, Any] = json.loads(self._native.cache_stats())
        return said

    def metrics(self) -> dict[str, Any]:
        """All numbers of operation since it was opened: calls, commits, conflicts, the pool, the cache.

        :class:`deltalakedb.prometheus.CatalogCollector` hands them to ``prometheus_client``.
        """
        said: dict[str, Any] = json.loads(self._native.metrics())
        return said

    def close(self) -> None:
        """Closes its connections. Calls that run end as they would have; later ones are an error."""
        self._native.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_loaded, (self.url, self._user, portable(self._settings)))

    def __repr__(self) -> str:
        return f"Catalog({self.url!r})"


def _loaded(url: str, user: Optional[str], settings: dict[str, str]) -> Catalog:
    return Catalog(url, user=user, config=settings)


def write_deltalake(
    table_or_uri: Union[str, Table],
    data: Any,
    *,
    partition_by: Union[str, Sequence[str], None] = None,
    mode: Mode = "error",
    configuration: Optional[Mapping[str, Any]] = None,
    schema_mode: Optional[SchemaMode] = None,
    storage_options: Optional[Mapping[str, Any]] = None,
    predicate: Optional[str] = None,
    target_file_size: Optional[int] = None,
) -> None:
    """Writes rows to a table, with the arguments of ``deltalake.write_deltalake``."""
    from . import _internal

    if isinstance(table_or_uri, Table):
        native, name = table_or_uri._catalog, table_or_uri.id
    else:
        native, name = _internal.catalog_of_table(table_or_uri, None, {})
    with Transaction(native, None, True) as transaction:
        transaction.table(name).write(
            data, mode=mode, partition_by=partition_by, schema_mode=schema_mode, predicate=predicate,
            configuration=configuration, storage_options=storage_options,
            target_file_size=target_file_size,
        )
    if isinstance(table_or_uri, Table):
        table_or_uri.update_incremental()
