"""Rows, as they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from ._internal import NativeBatch, NativeRows

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Rows"]

_forks = 0


def _note_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_fork)


class Rows:
    """Rows that are read a batch at a time, as often as they are asked for.

    Everything that takes Arrow streams takes this: ``pyarrow.table(rows)``, ``polars.DataFrame(rows)``,
    ``duckdb.sql("SELECT * FROM rows")``. Each asks anew, so that a query runs again; of a table it is
    always the version that was opened.
    """

    def __init__(self, make: Callable[[], NativeRows]) -> None:
        self._make = make
        # Errors of the query come at once. What is opened for that is the first answer.
        self._first: Optional[NativeRows] = make()
        self._opened = _forks

    def _take(self) -> NativeRows:
        first, self._first = self._first, None
        # What was opened before a fork is of no use after it.
        return self._make() if first is None or self._opened != _forks else first

    def __iter__(self) -> Iterator[NativeBatch]:
        """The batches. Each has the Arrow PyCapsule interface, as ``pyarrow.record_batch(batch)`` takes it."""
        return iter(self._take())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._take().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        rows = self._take()
        # Nothing was read of it.
        self._first, self._opened = rows, _forks
        return rows.__arrow_c_schema__()

    def to_arrow(self) -> pyarrow.Table:
        """All rows as a ``pyarrow.Table``."""
        import pyarrow as pa

        rows = self._take()
        schema = pa.schema(rows)
        return pa.Table.from_batches([pa.record_batch(batch) for batch in rows], schema=schema)

    def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """All rows as a ``pandas.DataFrame``; options are those of ``pyarrow.Table.to_pandas``."""
        return self.to_arrow().to_pandas(**options)

    def to_polars(self) -> polars.DataFrame:
        """All rows as a ``polars.DataFrame``."""
        import polars as pl

        rows = self._take()
        frames = [pl.DataFrame(batch) for batch in rows]
        # What has ended still has its columns.
        return pl.concat(frames) if frames else pl.DataFrame(rows)
