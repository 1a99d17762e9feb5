"""A table, and transactions over tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Optional, Union
from urllib.parse import unquote, urlsplit

from . import _internal
from ._config import ConfigLike, settings_of
from ._convert import Timestamp, answer, literal, names, stream, texts, timestamp_ms
from ._internal import NativeCatalog, NativeSchema, NativeTable, NativeTransaction
from ._rows import Rows
from .exceptions import InvalidInputError

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow
    import pyarrow.dataset
    import pyarrow.fs

__all__ = ["Metadata", "Protocol", "Table", "TableAlterer", "TableMerger", "TableOptimizer",
           "Transaction", "TransactionTable"]

Mode = Literal["append", "overwrite", "overwrite_partitions", "error", "ignore"]
SchemaMode = Literal["merge", "overwrite"]


@dataclass(frozen=True)
class Metadata:
    """What a table is: the Delta log's ``metaData``."""

    id: str
    name: Optional[str]
    description: Optional[str]
    partition_columns: list[str]
    created_time: Optional[int]
    configuration: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """What a reader and a writer of the table must know: the Delta log's ``protocol``."""

    min_reader_version: int
    min_writer_version: int
    reader_features: Optional[list[str]]
    writer_features: Optional[list[str]]


def _location_of(location: str, path: str) -> str:
    """Where a file is: a path for a local one, else a URL."""
    decoded = unquote(path)
    if "://" in path or path.startswith("/"):
        return decoded.removeprefix("file://")
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    return f"{location.rstrip('/')}/{decoded}"


class Table:
    """A table at a version.

    ``Table("delta+sql://sqlite:///lake/catalog.db/sales.orders")`` opens one by its URL,
    :meth:`Catalog.table` one of a catalog that is open. It stays at its version until
    :meth:`update_incremental` or a change by this object.

    It can be pickled: what is kept is the URL without a password, the name and the version. Where it is
    loaded, the password comes from the environment or the configuration.
    """

    def __init__(
        self,
        table_uri: str,
        version: Optional[int] = None,
        *,
        timestamp: Optional[Timestamp] = None,
        user: Optional[str] = None,
        config: ConfigLike = None,
    ) -> None:
        """Opens a table by its URL.

        Args:
            table_uri: As ``delta+sql://postgresql://user@host/database/sales.orders``.
            version: The version; the latest by default.
            timestamp: In place of a version: the latest version that is not younger.
            user: On whose behalf changes are committed.
            config: Configuration, as for :class:`Catalog`.

        Raises:
            TableNotFoundError: The catalog has no such table.
            VersionNotFoundError: The table has no such version.
        """
        catalog, name = _internal.catalog_of_table(table_uri, user, settings_of(config))
        self._open(catalog, name, version, timestamp, user)

    @classmethod
    def _of(
        cls,
        catalog: NativeCatalog,
        name: str,
        version: Optional[int],
        timestamp: Optional[Timestamp],
        user: Optional[str],
    ) -> Table:
        table = cls.__new__(cls)
        table._open(catalog, name, version, timestamp, user)
        return table

    def _open(
        self,
        catalog: NativeCatalog,
        name: str,
        version: Optional[int],
        timestamp: Optional[Timestamp],
        user: Optional[str],
    ) -> None:
        self._catalog = catalog
        self._user = user
        self._native: NativeTable = catalog.table(name, version, timestamp_ms(timestamp))

    # What it is

    @property
    def name(self) -> str:
        """``namespace.table``"""
        return self._native.name

    @property
    def id(self) -> str:
        """The catalog's id of the table: it stays when the table is renamed."""
        return self._native.id

    @property
    def table_uri(self) -> str:
        """The table's URL, without a password."""
        return _internal.table_url(self._catalog.url, self.name)

    @property
    def location(self) -> str:
        """Folder or URL of the table's root."""
        return self._native.location

    @property
    def num_files(self) -> int:
        """How many files it has."""
        return self._native.num_files

    @property
    def size_bytes(self) -> int:
        """How large they are together."""
        return self._native.size_bytes

    def version(self) -> int:
        """The version that is open."""
        return self._native.version

    def timestamp(self) -> datetime:
        """When this version was committed."""
        return datetime.fromtimestamp(self._native.timestamp_ms / 1000, timezone.utc)

    def schema(self) -> NativeSchema:
        """Its columns. Whatever takes Arrow schemas takes it, as ``pyarrow.schema(table.schema())``."""
        return self._native.schema()

    def metadata(self) -> Metadata:
        """Its metadata at this version."""
        said = json.loads(self._native.metadata_json())
        return Metadata(
            id=said["id"],
            name=said.get("name"),
            description=said.get("description"),
            partition_columns=said.get("partitionColumns", []),
            created_time=said.get("createdTime"),
            configuration={k: v for k, v in said.get("configuration", {}).items() if v is not None},
        )

    def protocol(self) -> Protocol:
        """Its protocol at this version."""
        said = json.loads(self._native.protocol_json())
        return Protocol(
            min_reader_version=said["minReaderVersion"],
            min_writer_version=said["minWriterVersion"],
            reader_features=said.get("readerFeatures"),
            writer_features=said.get("writerFeatures"),
        )

    def history(self, limit: Optional[int] = None) -> list[dict[str, Any]]:
        """Its commits, newest first: what each says of itself, with ``version``, ``timestamp`` and ``token``."""
        if limit is not None and limit < 0:
            raise InvalidInputError(f"limit must be 0 or more, and is {limit}")
        lines: list[dict[str, Any]] = json.loads(self._catalog.history(self.id, limit))
        return lines

    # Versions

    def at(self, version: Optional[int] = None, *, timestamp: Optional[Timestamp] = None) -> Table:
        """The same table at another version, or at a time; the latest if neither is given."""
        return Table._of(self._catalog, self.id, version, timestamp, self._user)

    #: The same as :meth:`at`.
    snapshot = at

    def load_as_version(self, version: Union[int, str, datetime]) -> None:
        """Opens another version in this object: by its number, or by a time."""
        by_number = isinstance(version, int)
        number, moment = (version, None) if by_number else (None, version)
        self._open(self._catalog, self.id, number, moment, self._user)  # type: ignore[arg-type]

    def update_incremental(self) -> None:
        """Opens the latest version in this object."""
        self._open(self._catalog, self.id, None, None, self._user)

    # Files

    def files(self, predicate: Optional[str] = None, batch_size: int = 8192) -> Rows:
        """Its files, by the catalog alone: no data file and no log is opened.

        They come as they are read, ``batch_size`` files at a time, with the columns ``path``,
        ``size_bytes``, ``num_records``, ``partition_values``, ``modification_time``, ``added_version``,
        ``stats``, ``deletion_vector`` and ``deleted_records``.

        Args:
            predicate: Only files that may have rows for which this SQL condition is true.
            batch_size: Most files of a batch.
        """
        native = self._native
        return Rows(lambda: native.files(predicate, batch_size))

    def file_uris(self, predicate: Optional[str] = None) -> list[str]:
        """Where its files are: paths of local ones, else URLs."""
        paths: list[str] = self.files(predicate).to_arrow().column("path").to_pylist()
        return [self._place_of(path) for path in paths]

    def _place_of(self, path: str) -> str:
        return _location_of(self.location, path)

    # Publishing

    def mirror_status(self) -> dict[str, Any]:
        """How far it is published to its ``_delta_log``, and what waits with which error."""
        said: dict[str, Any] = json.loads(self._catalog.mirror_status(self.id))
        return said

    def wait_published(self, timeout: float = 30.0) -> dict[str, Any]:
        """Waits until this version is published, by whichever worker.

        Raises:
            TimeoutError: It is not within ``timeout`` seconds.
        """
        text = self._catalog.wait_published(self.id, self.version(), timeout)
        said: dict[str, Any] = json.loads(text)
        return said

    def publish(self) -> dict[str, Any]:
        """Publishes what is not published yet."""
        said: dict[str, Any] = json.loads(self._catalog.publish(self.id))
        return said

    def diff(self) -> dict[str, Any]:
        """Compares the catalog with the published log, which the Delta kernel reads from its files alone."""
        said: dict[str, Any] = json.loads(self._catalog.diff(self.id))
        return said

    # Rows out

    def rows(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
        limit: Optional[int] = None,
    ) -> Rows:
        """Its rows, as they are read. Files that cannot have rows for the filter are not opened.

        Args:
            columns: Only these columns, in this order.
            filter: Only rows for which this SQL condition is true.
            limit: At most so many.
        """
        native = self._native
        wanted = None if columns is None else list(columns)
        return Rows(lambda: native.rows(wanted, filter, limit))

    def to_arrow(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
    ) -> pyarrow.Table:
        """Its rows as a ``pyarrow.Table``, see :meth:`rows`."""
        return self.rows(columns, filter).to_arrow()

    #: As in ``deltalake``.
    to_pyarrow_table = to_arrow

    def to_pandas(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
        **options: Any,
    ) -> pandas.DataFrame:
        """Its rows as a ``pandas.DataFrame``, see :meth:`rows`."""
        return self.rows(columns, filter).to_pandas(**options)

    def to_polars(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
    ) -> polars.DataFrame:
        """Its rows as a ``polars.DataFrame``, see :meth:`rows`."""
        return self.rows(columns, filter).to_polars()

    def scan(self) -> polars.LazyFrame:
        """Its rows as a polars ``LazyFrame``, at the version that is open.

        Columns and conditions of the query go to the catalog, and files that cannot have such rows are not
        opened. A condition that SQL cannot say is applied after reading.
        """
        from ._scan import polars_scan

        return polars_scan(self)

    def to_pyarrow_dataset(
        self,
        file_pruning_predicate: Optional[str] = None,
        filesystem: Optional[pyarrow.fs.FileSystem] = None,
        parquet_read_options: Optional[pyarrow.dataset.ParquetReadOptions] = None,
    ) -> pyarrow.dataset.Dataset:
        """Its files as a dataset of pyarrow, which knows partitions and statistics of each and skips files.

        Args:
            file_pruning_predicate: Only files that may have rows for which this SQL condition is true. It
                chooses files, not rows.
            filesystem: Where the files are, rooted at the table; needed for one in an object store.
            parquet_read_options: How they are read.

        Raises:
            UnsupportedError: The files alone do not have the table's rows: it has deletion vectors, or maps
                columns.
        """
        from ._scan import pyarrow_dataset

        return pyarrow_dataset(self, file_pruning_predicate, filesystem, parquet_read_options)

    def to_duckdb(
        self,
        connection: Optional[duckdb.DuckDBPyConnection] = None,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
    ) -> duckdb.DuckDBPyRelation:
        """Its rows as a DuckDB relation, at the version that is open.

        Columns and conditions of the query go to the files. Of a table with deletion vectors or mapped
        columns, conditions are applied to the rows as they are read: ``filter`` skips its files.

        Args:
            connection: The connection that it is for; the default connection of DuckDB if it is not given.
            columns: Only these columns.
            filter: Only rows for which this SQL condition of the catalog is true.
        """
        from ._scan import duckdb_relation

        return duckdb_relation(self, connection, columns, filter)

    def _held(self) -> Table:
        """The same table at the same version, which nothing changes."""
        held = Table.__new__(Table)
        held._catalog, held._user, held._native = self._catalog, self._user, self._native
        return held

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.rows().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self.schema().__arrow_c_schema__()

    # Changes

    def write(
        self,
        data: Any,
        *,
        mode: Mode = "append",
        partition_by: Union[str, Sequence[str], None] = None,
        schema_mode: Optional[SchemaMode] = None,
        predicate: Optional[str] = None,
        target_file_size: Optional[int] = None,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> dict[str, Any]:
        """Writes rows in one commit, and goes on to its version.

        Args:
            data: Rows: pyarrow, pandas, polars, a DuckDB relation, anything with ``__arrow_c_stream__``.
                Of a pandas index the levels with names are columns.
            mode: ``append``; ``overwrite`` replaces all rows, or those of ``predicate``;
                ``overwrite_partitions`` replaces the partitions that the rows fall into; ``error``;
                ``ignore``.
            partition_by: Partition columns, which must be those of the table.
            schema_mode: ``merge`` adds columns that the table lacks; ``overwrite`` gives the table the
                columns of the rows, with ``mode="overwrite"``.
            predicate: With ``mode="overwrite"``: only rows for which this SQL condition is true are replaced.
            target_file_size: Size at which a file is full, bytes.
            token: A second write with this token does nothing, and tells what the first one did.
            publish: Publish the commit at once. Without it a worker does.

        Returns:
            The metrics of the write.

        Raises:
            SchemaMismatchError: Columns or types do not fit, or a new column has no type.
            ConflictError: Another commit was first.
        """
        with Transaction(self._catalog, token, publish) as transaction:
            if transaction.replayed:
                metrics: dict[str, Any] = {}
            else:
                metrics = transaction._write(
                    self.id, data, mode, schema_mode, predicate, names(partition_by), {}, None, {},
                    target_file_size,
                )
        self.update_incremental()
        return metrics

    def delete(
        self, predicate: Optional[str] = None, *, token: Optional[str] = None, publish: bool = True
    ) -> dict[str, Any]:
        """Deletes the rows for which a SQL condition is true; without one all rows."""
        with Transaction(self._catalog, token, publish) as transaction:
            metrics = {} if transaction.replayed else transaction.table(self.id).delete(predicate)
        self.update_incremental()
        return metrics

    def update(
        self,
        updates: Optional[Mapping[str, str]] = None,
        new_values: Optional[Mapping[str, Any]] = None,
        predicate: Optional[str] = None,
        *,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> dict[str, Any]:
        """Sets columns in the rows for which a SQL condition is true; without one in all rows.

        Args:
            updates: Columns and SQL expressions over the columns as they were before.
            new_values: Columns and values of Python.
            predicate: The condition.
            token: A second update with this token does nothing.
            publish: Publish the commit at once.
        """
        with Transaction(self._catalog, token, publish) as transaction:
            if transaction.replayed:
                metrics: dict[str, Any] = {}
            else:
                metrics = transaction.table(self.id).update(updates, new_values, predicate)
        self.update_incremental()
        return metrics

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
    ) -> TableMerger:
        """Merges rows into the table: clauses say what happens to rows that match and to others.

        ::

            (
                table.merge(frame, "target.id = source.id", "source", "target")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            )

        Args:
            source: The rows, as for :meth:`write`. All of them are held in memory.
            predicate: Which rows belong together: a SQL condition over both.
            source_alias: What expressions call the rows; ``source`` by default.
            target_alias: What expressions call the table; ``target`` by default.
            merge_schema: Add columns that the table lacks.
            token: A second merge with this token does nothing.
            publish: Publish the commit at once.
        """
        return TableMerger(
            self, source, predicate, source_alias or "source", target_alias or "target",
            merge_schema, token, publish,
        )

    @property
    def optimize(self) -> TableOptimizer:
        """Makes large files of small ones."""
        return TableOptimizer(self)

    def vacuum(
        self,
        retention_hours: Optional[int] = None,
        dry_run: bool = True,
        enforce_retention_duration: bool = True,
        *,
        keep_versions: Optional[Sequence[int]] = None,
    ) -> list[str]:
        """Deletes data files that no version within the retention needs; by default it only looks.

        Args:
            retention_hours: The retention; by default the table's, else a week.
            dry_run: Delete nothing.
            enforce_retention_duration: Refuse a retention that is shorter than the table's.
            keep_versions: Keep what these versions need, however old they are.

        Returns:
            Files that nothing needs, relative to the table's root; of very many, some.
        """
        if retention_hours is not None and not 0 <= retention_hours <= 876_000:
            raise InvalidInputError(
                f"retention_hours must be from 0 to 876000, and is {retention_hours}"
            )
        retention_ms = None if retention_hours is None else retention_hours * 3_600_000
        said = json.loads(
            self._catalog.vacuum(
                self.id, retention_ms, not enforce_retention_duration, list(keep_versions or []),
                not dry_run,
            )
        )
        files: list[str] = said["files"]
        return files

    def restore(
        self,
        target: Union[int, str, datetime],
        *,
        ignore_missing_files: bool = False,
        protocol_downgrade_allowed: bool = False,
        token: Optional[str] = None,
        publish: bool = True,
    ) -> dict[str, Any]:
        """Makes the rows of an older version those of the table again, in a new commit.

        Args:
            target: The version, or a time: the latest version that is not younger.
            ignore_missing_files: Go on if files of that version are gone. Their rows stay gone.
            protocol_downgrade_allowed: Not possible: the protocol keeps what keeps other writers out.
            token: A second restore with this token does nothing.
            publish: Publish the commit at once.

        Returns:
            ``numRemovedFile`` and ``numRestoredFile``; nothing of a restore that was done before.

        Raises:
            VersionNotFoundError: The table has no such version.
        """
        if protocol_downgrade_allowed:
            raise InvalidInputError(
                "restore does not lower a table's protocol: leave protocol_downgrade_allowed out"
            )
        if isinstance(target, bool) or not isinstance(target, (int, str, datetime)):
            raise InvalidInputError(
                f"restore needs a version or a time, and not {type(target).__name__}"
            )
        by_number = isinstance(target, int)
        metrics: dict[str, Any] = {}
        with Transaction(self._catalog, token, publish) as transaction:
            if not transaction.replayed:
                number, moment = (target, None) if by_number else (None, target)
                older = self.at(number, timestamp=moment)  # type: ignore[arg-type]
                latest = self.at()
                if older.version() == latest.version():
                    raise InvalidInputError(
                        f"table '{self.name}' is at version {latest.version()} already: nothing to restore",
                        self.name,
                    )
                text = transaction._native.restore(self.id, older.version(), ignore_missing_files)
                metrics = json.loads(text)
        self.update_incremental()
        return metrics

    def cutover(self, *, skip_diff: bool = False, publish: bool = True) -> Optional[int]:
        """Keeps writers out that do not go through the catalog, see ``dl cutover --help``.

        Tables that the catalog made are so from the start; this is for imported ones.

        Args:
            skip_diff: Do not compare the published log with the catalog first.
            publish: Publish the commit at once: other writers are kept out from then on.

        Returns:
            The version of the commit; None if they were kept out already.

        Raises:
            InvalidInputError: The published log is not what the catalog says, or is not published.
        """
        said = answer(self._catalog.cutover(self.id, skip_diff, publish))
        self.update_incremental()
        version: Optional[int] = said["version"]
        return version

    @property
    def alter(self) -> TableAlterer:
        """Changes of its metadata, one commit each."""
        return TableAlterer(self)

    # Python

    def __reduce__(self) -> tuple[Any, ...]:
        return (_loaded, (self.table_uri, self.name, self.version(), self._user))

    def __repr__(self) -> str:
        return f"Table({self.table_uri!r}, version={self.version()})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = [
            ("table", self.name),
            ("version", str(self.version())),
            ("committed", self.timestamp().isoformat(sep=" ", timespec="seconds")),
            ("files", f"{self.num_files:,}"),
            ("bytes", f"{self.size_bytes:,}"),
            ("location", self.location),
        ]
        body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
        return f"<table>{body}</table>"


def _loaded(uri: str, name: str, version: int, user: Optional[str]) -> Table:
    catalog, _ = _internal.catalog_of_table(uri, user, {})
    return Table._of(catalog, name, version, None, user)


class TableMerger:
    """A merge: clauses are tried in the order in which they were given, of each kind the first that fits."""

    def __init__(
        self,
        table: Table,
        source: Any,
        predicate: str,
        source_alias: str,
        target_alias: str,
        merge_schema: bool,
        token: Optional[str],
        publish: bool,
    ) -> None:
        self._table = table
        self._source = stream(source)
        self._predicate = predicate
        self._aliases = (source_alias, target_alias)
        self._merge_schema = merge_schema
        self._token = token
        self._publish = publish
        self._clauses: list[tuple[str, str, Optional[str], list[tuple[str, str]]]] = []

    def _with(
        self, when: str, action: str, predicate: Optional[str], values: Mapping[str, str]
    ) -> TableMerger:
        if action != "delete" and not values:
            raise InvalidInputError(f"when_{when}_{action} needs columns and their values")
        pairs = [(self._column(column), value) for column, value in values.items()]
        self._clauses.append((when, action, predicate, pairs))
        return self

    def _column(self, column: str) -> str:
        column = column.removeprefix(self._aliases[1] + ".")
        for quote in ("`", '"'):
            if len(column) > 1 and column.startswith(quote) and column.endswith(quote):
                return column[1:-1].replace(quote * 2, quote)
        return column

    def _all(self, except_cols: Optional[Sequence[str]]) -> dict[str, str]:
        import pyarrow as pa

        if hasattr(self._source, "__arrow_c_schema__"):
            names_of_source = pa.schema(self._source).names
        else:
            self._source = pa.table(self._source)
            names_of_source = self._source.schema.names
        source = self._aliases[0]
        left_out = set(except_cols or [])
        quoted = {name: name.replace('"', '""') for name in names_of_source}
        return {
            f"`{name}`": f'{source}."{text}"' for name, text in quoted.items() if name not in left_out
        }

    def when_matched_update(
        self, updates: Mapping[str, str], predicate: Optional[str] = None
    ) -> TableMerger:
        """Updates rows of the table that match: columns, and SQL expressions over both sides."""
        return self._with("matched", "update", predicate, updates)

    def when_matched_update_all(
        self, predicate: Optional[str] = None, except_cols: Optional[Sequence[str]] = None
    ) -> TableMerger:
        """Updates rows of the table that match with all columns of the source."""
        return self._with("matched", "update", predicate, self._all(except_cols))

    def when_matched_delete(self, predicate: Optional[str] = None) -> TableMerger:
        """Deletes rows of the table that match."""
        return self._with("matched", "delete", predicate, {})

    def when_not_matched_insert(
        self, updates: Mapping[str, str], predicate: Optional[str] = None
    ) -> TableMerger:
        """Inserts rows of the source that have no match."""
        return self._with("not_matched", "insert", predicate, updates)

    def when_not_matched_insert_all(
        self, predicate: Optional[str] = None, except_cols: Optional[Sequence[str]] = None
    ) -> TableMerger:
        """Inserts rows of the source that have no match, with all their columns."""
        return self._with("not_matched", "insert", predicate, self._all(except_cols))

    def when_not_matched_by_source_update(
        self, updates: Mapping[str, str], predicate: Optional[str] = None
    ) -> TableMerger:
        """Updates rows of the table that have no match in the source."""
        return self._with("not_matched_by_source", "update", predicate, updates)

    def when_not_matched_by_source_delete(self, predicate: Optional[str] = None) -> TableMerger:
        """Deletes rows of the table that have no match in the source."""
        return self._with("not_matched_by_source", "delete", predicate, {})

    def execute(self) -> dict[str, Any]:
        """Merges, in one commit. The metrics."""
        if not self._clauses:
            raise InvalidInputError("a merge needs a clause, as when_matched_update_all()")
        table = self._table
        metrics: dict[str, Any] = {}
        with Transaction(table._catalog, self._token, self._publish) as transaction:
            if not transaction.replayed:
                text = transaction._native.merge(
                    table.id, self._source, self._predicate, *self._aliases, self._merge_schema,
                    self._clauses,
                )
                metrics = json.loads(text)
        table.update_incremental()
        return metrics


class TableOptimizer:
    """Makes large files of small ones. Rows stay what they are."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def compact(self, target_size: Optional[int] = None) -> dict[str, Any]:
        """Puts small files together.

        Args:
            target_size: Size of a file, bytes; by default the table's, else 100 MiB.
        """
        return self._run([], target_size)

    def z_order(
        self, columns: Union[str, Sequence[str]], target_size: Optional[int] = None
    ) -> dict[str, Any]:
        """Writes all files anew, rows that are near each other in the columns together."""
        wanted = names(columns)
        if not wanted:
            raise InvalidInputError("z_order needs columns")
        return self._run(wanted, target_size)

    def _run(self, columns: list[str], target_size: Optional[int]) -> dict[str, Any]:
        if target_size is not None and target_size <= 0:
            raise InvalidInputError(f"target_size must be positive, and is {target_size}")
        table = self._table
        with Transaction(table._catalog, None, True) as transaction:
            text = transaction._native.optimize(table.id, columns, target_size)
        table.update_incremental()
        metrics: dict[str, Any] = json.loads(text)
        return metrics


class TableAlterer:
    """Changes of a table's metadata. Each call is one commit."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def _change(self, *changes: tuple[str, list[str]]) -> None:
        table = self._table
        answer(table._catalog.alter(table.id, list(changes), True))
        table.update_incremental()

    def add_columns(self, fields: Union[str, Sequence[str]]) -> None:
        """Adds columns that may be null, as SQL writes them: ``"note string"``, ``"addr.zip int"``."""
        self._change(*[("add_column", [field]) for field in names(fields)])

    def rename_column(self, column: str, name: str) -> None:
        """Gives a column another name. The table must map columns."""
        self._change(("rename_column", [column, name]))

    def drop_column(self, column: str) -> None:
        """Drops a column. The table must map columns."""
        self._change(("drop_column", [column]))

    def drop_column_not_null(self, column: str) -> None:
        """Lets a column be null."""
        self._change(("set_nullable", [column]))

    def add_constraint(self, constraints: Mapping[str, str]) -> None:
        """Adds CHECK constraints, by their names. Each must be true for the rows that are there."""
        self._change(*[("add_constraint", [name, text]) for name, text in constraints.items()])

    def drop_constraint(self, name: str) -> None:
        """Drops a CHECK constraint."""
        self._change(("drop_constraint", [name]))

    def set_table_properties(self, properties: Mapping[str, Any]) -> None:
        """Sets table properties."""
        pairs = texts("properties", properties)
        self._change(*[("set_property", [key, value]) for key, value in pairs.items()])

    def unset_table_properties(self, keys: Union[str, Sequence[str]]) -> None:
        """Takes table properties away."""
        self._change(*[("unset_property", [key]) for key in names(keys)])

    def set_table_description(self, description: str) -> None:
        """Says what the table holds."""
        self._change(("description", [description]))

    def set_column_comment(self, column: str, comment: str) -> None:
        """Says what a column holds; an empty text takes the comment away."""
        self._change(("comment", [column, comment]))


class Transaction:
    """Changes of tables that are committed together, or not at all.

    ::

        with catalog.transaction() as tx:
            tx.table("sales.orders").write(orders)
            tx.table("sales.totals").update({"amount": "amount + 1"})

    An exception in the block leaves nothing. With a token, a second transaction with the same token takes
    no effect; ``replayed`` says so before the work is done.
    """

    def __init__(self, catalog: NativeCatalog, token: Optional[str], publish: bool) -> None:
        self._native: NativeTransaction = _internal.begin(catalog, token, publish)
        before = self._native.replayed() if token is not None else None
        self.commit_info: Optional[dict[str, Any]] = None if before is None else json.loads(before)

    @property
    def replayed(self) -> bool:
        """Whether a transaction with this token was committed before."""
        return bool(self.commit_info and self.commit_info["replayed"])

    def table(self, name: str) -> TransactionTable:
        """A table in the transaction; one that is not there is made by a write."""
        return TransactionTable(self, name)

    def _write(
        self,
        name: str,
        data: Any,
        mode: str,
        schema_mode: Optional[str],
        predicate: Optional[str],
        partition_by: list[str],
        properties: dict[str, str],
        location: Optional[str],
        storage_options: dict[str, str],
        target_file_size: Optional[int],
    ) -> dict[str, Any]:
        if target_file_size is not None and target_file_size <= 0:
            raise InvalidInputError(f"target_file_size must be positive, and is {target_file_size}")
        text = self._native.write(
            name, stream(data), mode, schema_mode, predicate, partition_by, properties, location,
            storage_options, target_file_size,
        )
        metrics: dict[str, Any] = {} if text is None else json.loads(text) or {}
        return metrics

    def commit(self) -> Optional[dict[str, Any]]:
        """Commits. What was committed: ``token``, ``replayed``, and ``tables`` with their versions; None if
        nothing was done."""
        self.commit_info = answer(self._native.commit())["commit"] or self.commit_info
        return self.commit_info

    def rollback(self) -> None:
        """Ends the transaction without a commit."""
        self._native.rollback()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None and not self.replayed:
            self.commit()
        else:
            self.rollback()


class TransactionTable:
    """A table in a transaction."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    def write(
        self,
        data: Any,
        *,
        mode: Mode = "append",
        partition_by: Union[str, Sequence[str], None] = None,
        schema_mode: Optional[SchemaMode] = None,
        predicate: Optional[str] = None,
        location: Optional[str] = None,
        configuration: Optional[Mapping[str, Any]] = None,
        storage_options: Optional[Mapping[str, Any]] = None,
        target_file_size: Optional[int] = None,
    ) -> dict[str, Any]:
        """Writes rows, see :meth:`Table.write`. A table that is not there is made."""
        return self._transaction._write(
            self._name, data, mode, schema_mode, predicate, names(partition_by),
            texts("configuration", configuration), location, texts("storage_options", storage_options),
            target_file_size,
        )

    def delete(self, predicate: Optional[str] = None) -> dict[str, Any]:
        """Deletes rows, see :meth:`Table.delete`."""
        metrics: dict[str, Any] = json.loads(self._transaction._native.delete(self._name, predicate))
        return metrics

    def rows(
        self,
        columns: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,  # noqa: A002
    ) -> Rows:
        """Its rows as the transaction sees them, with its own changes."""
        native = self._transaction._native
        wanted = None if columns is None else list(columns)
        return Rows(lambda: native.rows(self._name, wanted, filter))

    def update(
        self,
        updates: Optional[Mapping[str, str]] = None,
        new_values: Optional[Mapping[str, Any]] = None,
        predicate: Optional[str] = None,
    ) -> dict[str, Any]:
        """Updates rows, see :meth:`Table.update`."""
        pairs = list((updates or {}).items())
        pairs += [(column, literal(value)) for column, value in (new_values or {}).items()]
        if not pairs:
            raise InvalidInputError("an update needs updates= or new_values=")
        text = self._transaction._native.update(self._name, pairs, predicate)
        metrics: dict[str, Any] = json.loads(text)
        return metrics
