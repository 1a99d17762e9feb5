"""Tables for the lazy engines: polars, pyarrow, DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import unquote

from ._conditions import sql_of
from .exceptions import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    import duckdb
    import polars
    import pyarrow
    import pyarrow.dataset
    import pyarrow.fs

    from ._table import Table

__all__ = ["duckdb_relation", "polars_scan", "pyarrow_dataset"]

#: Features of readers that change nothing for whoever reads the files as they are.
_PLAIN_FEATURES = {
    "appendOnly", "changeDataFeed", "checkConstraints", "deletionVectors", "columnMapping", "timestampNtz",
    "v2Checkpoint", "vacuumProtocolCheck",
}
#: Digits of a decimal that survive a writer's detour through floating point.
_EXACT_DIGITS = 15


class PolarsSource:
    """Rows of a table at one version, for polars. It can be pickled, as its table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def schema(self) -> polars.Schema:
        """Columns as polars has them."""
        import polars as pl

        return pl.Schema(self._table.schema())

    def __call__(
        self,
        with_columns: Optional[list[str]],
        predicate: Optional[polars.Expr],
        n_rows: Optional[int],
        batch_size: Optional[int],
    ) -> Iterator[polars.DataFrame]:
        import polars as pl

        schema = self.schema()
        wanted = list(schema.names() if with_columns is None else with_columns)
        read = wanted
        if predicate is not None:
            read = wanted + [name for name in predicate.meta.root_names() if name not in wanted]
        # The first n rows are counted before the condition.
        condition = sql_of(predicate, schema) if predicate is not None and n_rows is None else None
        # Without columns there are still rows.
        rows = self._table._native.rows(read or schema.names()[:1], condition, n_rows)
        some = False
        for batch in rows:
            frame = pl.DataFrame(batch)
            if predicate is not None:
                frame = frame.filter(predicate)
            frame = frame.select(wanted)
            for part in frame.iter_slices(batch_size) if batch_size else [frame]:
                some = True
                yield part
        if not some:
            yield pl.DataFrame(schema={name: schema[name] for name in wanted})


def polars_scan(table: Table) -> polars.LazyFrame:
    """A table as a LazyFrame."""
    try:
        from polars.io.plugins import register_io_source
    except ImportError:
        text = "scan() needs polars 1.20 or later: pip install 'deltalakedb[polars]'"
        raise InvalidInputError(text) from None
    source = PolarsSource(table._held())
    return register_io_source(source, schema=source.schema(), is_pure=True)


# pyarrow


def _why_not_plain(table: Table) -> Optional[str]:
    """Why the table's files alone do not have its rows; None if they do."""
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        return f"maps columns (delta.columnMapping.mode = {mode}): its files have other names for them"
    unknown = set(table.protocol().reader_features or []) - _PLAIN_FEATURES
    if unknown:
        return f"needs what a plain dataset does not know: {', '.join(sorted(unknown))}"
    return None


def pyarrow_dataset(
    table: Table,
    file_pruning_predicate: Optional[str],
    filesystem: Optional[pyarrow.fs.FileSystem],
    parquet_read_options: Optional[pyarrow.dataset.ParquetReadOptions],
) -> pyarrow.dataset.Dataset:
    """The files of a table as a dataset, with what is known of each."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    why = _why_not_plain(table)
    local = table.location.startswith("file://")
    if why is None and not local and filesystem is None:
        why = "lies in an object store, and filesystem= is not given"
    if why is not None:
        raise _refused(table, why)
    options = parquet_read_options or ds.ParquetReadOptions(coerce_int96_timestamp_unit="us")
    files = ds.ParquetFileFormat(read_options=options)
    schema: pyarrow.Schema = pa.schema(table.schema())
    partitions = table.metadata().partition_columns
    fragments = []
    for batch in table.files(file_pruning_predicate):
        for file in pa.record_batch(batch).to_pylist():
            if file["deletion_vector"] is not None:
                raise _refused(table, "has deletion vectors: deleted rows are still in its files")
            path = unquote(file["path"])
            if filesystem is None:
                path = table._place_of(file["path"])
            elif "://" in path or path.startswith("/"):
                raise _refused(table, f"has a file outside of its folder, '{path}'")
            values = dict(file["partition_values"])
            known = _known(schema, {name: values.get(name) for name in partitions}, file["stats"])
            fragments.append(
                files.make_fragment(path, filesystem or LocalFileSystem(), partition_expression=known)
            )
    return ds.FileSystemDataset(fragments, schema, files, filesystem or LocalFileSystem())


def _refused(table: Table, why: str) -> UnsupportedError:
    text = f"table '{table.name}' cannot be a dataset of pyarrow: it {why}"
    return UnsupportedError(f"{text}. Use scan(), to_duckdb() or to_arrow()", table.name)


def _known(
    schema: pyarrow.Schema, partition: dict[str, Optional[str]], stats: Optional[str]
) -> pyarrow.dataset.Expression:
    """What is true for each row of a file."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    known = ds.scalar(True)
    for name, text in partition.items():
        field = ds.field(name)
        # An empty text is a null (protocol, "Partition Value Serialization").
        if text is None or text == "":
            known = known & field.is_null()
        else:
            kind = schema.field(name).type
            known = known & (field == pa.scalar(_partition_value(kind, text), kind))
    told = json.loads(stats, parse_float=Decimal) if stats else {}
    low, high, nulls = ({} if not isinstance(told.get(key), dict) else told[key]
                        for key in ("minValues", "maxValues", "nullCount"))
    for field_of in schema:
        name, kind = field_of.name, field_of.type
        if name in partition:
            continue
        empty = nulls.get(name) if told.get("tightBounds", True) is True else None
        field = ds.field(name)
        if isinstance(empty, int) and empty > 0 and empty == told.get("numRecords"):
            known = known & field.is_null()
            continue
        bounds = [
            (field >= pa.scalar(bound, kind)) if end == "low" else (field <= pa.scalar(bound, kind))
            for end, values in (("low", low), ("high", high))
            for bound in [_bound(kind, values.get(name), end)]
            if bound is not None
        ]
        if not bounds:
            continue
        within = bounds[0] if len(bounds) == 1 else bounds[0] & bounds[1]
        # Whether there are nulls must be known: what is not stated may be there.
        known = known & (within & field.is_valid() if empty == 0 else within | field.is_null())
    return known


def _moment(text: str, zone: Optional[str]) -> datetime:
    text = text.strip().replace(" ", "T", 1)
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    if zone is None:
        return moment.replace(tzinfo=None)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _partition_value(kind: pyarrow.DataType, text: str) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_boolean(kind):
        return text.lower() == "true"
    if pa.types.is_floating(kind):
        return float(text)
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_date(kind):
        return date.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        return _moment(text, kind.tz)
    return text.encode() if pa.types.is_binary(kind) else text


def _bound(kind: pyarrow.DataType, value: Any, end: str) -> Any:
    """A bound that holds; None where it is not sure. Floats have none: a NaN is within no bounds."""
    import pyarrow as pa

    try:
        if pa.types.is_integer(kind):
            return value if isinstance(value, int) and not isinstance(value, bool) else None
        if pa.types.is_string(kind):
            return value if isinstance(value, str) else None
        if pa.types.is_date(kind):
            return date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else None
        if pa.types.is_timestamp(kind) and isinstance(value, str):
            # Written in milliseconds, rounded down.
            more = timedelta(milliseconds=1 if end == "high" else 0)
            return _moment(value, kind.tz) + more
        if pa.types.is_decimal(kind) and kind.precision <= _EXACT_DIGITS:
            number = Decimal(value) if isinstance(value, (int, Decimal)) else None
            scaled = None if number is None else number.scaleb(kind.scale)
            return number if scaled is not None and scaled == scaled.to_integral_value() else None
    except (ValueError, OverflowError, ArithmeticError):
        # Not the text of such a value.
        return None
    return None


# DuckDB


def duckdb_relation(
    table: Table,
    connection: Optional[duckdb.DuckDBPyConnection],
    columns: Optional[Sequence[str]],
    condition: Optional[str],
) -> duckdb.DuckDBPyRelation:
    """A table as a relation."""
    try:
        import duckdb
        import pyarrow  # noqa: F401
    except ImportError:
        text = "to_duckdb() needs DuckDB and pyarrow: pip install duckdb pyarrow"
        raise InvalidInputError(text) from None
    held = table._held()
    source: Any = None
    if condition is None:
        try:
            source = pyarrow_dataset(held, None, None, None)
        except UnsupportedError:
            source = None
    if source is None:
        source = _rows_dataset(held, condition)
    relation = (connection or duckdb.default_connection()).from_arrow(source)
    if columns is None:
        return relation
    return relation.select(*[duckdb.ColumnExpression(name) for name in columns])


def _rows_dataset(table: Table, condition: Optional[str]) -> Any:
    """A table as something that DuckDB takes for a dataset: it asks for columns, and conditions are applied
    to the rows as they are read."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    # The condition is looked at now, and not when the relation is read.
    table.rows(filter=condition, limit=0)
    whole: pyarrow.Schema = pa.schema(table.schema())

    class RowsDataset(ds.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

        @property
        def schema(self) -> pyarrow.Schema:
            return whole

        def scanner(
            self, columns: Optional[list[str]] = None, filter: Any = None, **options: Any  # noqa: A002
        ) -> Any:
            wanted = whole.names if columns is None else list(columns)
            read = list(wanted)
            if filter is not None:
                # Its text has the names of its columns, and may have those of others.
                text = str(filter)
                plain = all(name.isidentifier() and name.isascii() for name in whole.names)
                read += [name for name in whole.names if name not in read and (not plain or name in text)]
            rows = table.rows(read or whole.names[:1], condition)
            reader = pa.RecordBatchReader.from_stream(rows)
            return ds.Scanner.from_batches(reader, columns=wanted, filter=filter)

    return RowsDataset()
