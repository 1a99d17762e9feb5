"""Tables for the lazy engines: polars, pyarrow, DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from ._conditions import sql_of
from .exceptions import InvalidInputError

if TYPE_CHECKING:
    import polars

    from ._table import Table

__all__ = ["polars_scan"]


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
