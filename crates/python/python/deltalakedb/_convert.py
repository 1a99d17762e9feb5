"""Values of Python in the forms that the native part takes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, Optional, Union

from .exceptions import InvalidInputError

#: A moment: a datetime with a time zone, RFC 3339 text (UTC if it names no zone), milliseconds since 1970.
Timestamp = Union[datetime, str, int]


def timestamp_ms(moment: Optional[Timestamp]) -> Optional[int]:
    """A moment in milliseconds since 1970."""
    if moment is None or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    if isinstance(moment, str):
        text = moment[:-1] + "+00:00" if moment.endswith(("Z", "z")) else moment
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidInputError(
                f"timestamp {moment!r} is none: write 2026-01-31, 2026-01-31T12:00:00 (UTC) or "
                "2026-01-31T12:00:00+01:00"
            ) from None
        moment = parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
    if not isinstance(moment, datetime):
        raise InvalidInputError(
            f"timestamp must be a datetime, text or milliseconds, and is {type(moment).__name__}"
        )
    if moment.tzinfo is None:
        raise InvalidInputError(
            "timestamp has no time zone: datetime(…, tzinfo=timezone.utc) says which moment is meant"
        )
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    delta = moment - epoch
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def literal(value: Any) -> str:
    """A value as a SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, Decimal)):
        return str(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return f"CAST('{value}' AS DOUBLE)"
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    raise InvalidInputError(
        f"a value of type {type(value).__name__} has no SQL literal: use updates= with an expression"
    )


def names(columns: Union[str, Sequence[str], None]) -> list[str]:
    """Names of columns: one, or several."""
    if columns is None:
        return []
    return [columns] if isinstance(columns, str) else list(columns)


def texts(what: str, pairs: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Options whose values are text."""
    out: dict[str, str] = {}
    for key, value in (pairs or {}).items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(key, str) or not isinstance(value, (str, int)):
            raise InvalidInputError(f"{what}[{key!r}] must be text, and is {type(value).__name__}")
        out[key] = str(value)
    return out


def stream(data: Any) -> Any:
    """Rows as something with the Arrow PyCapsule interface of streams."""
    kind = type(data)
    if kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame":
        import pyarrow as pa

        # An index without a name is no column of the data; pandas would add it as "__index_level_0__".
        named = any(name is not None for name in data.index.names)
        return pa.Table.from_pandas(data.reset_index() if named else data, preserve_index=False)
    if kind.__module__.partition(".")[0] == "polars" and kind.__name__ == "DataFrame":
        # Columns of nulls without a type go through pyarrow: the two libraries differ on their buffers.
        return data.to_arrow() if "Null" in map(str, data.dtypes) else data
    if hasattr(data, "__arrow_c_stream__"):
        return data
    if kind.__module__.partition(".")[0] == "polars" and kind.__name__ == "LazyFrame":
        raise InvalidInputError("a LazyFrame has no rows yet: write lazy.collect()")
    if hasattr(data, "__arrow_c_array__"):
        data = [data]
    if isinstance(data, Sequence) and data and all(hasattr(d, "__arrow_c_array__") for d in data):
        import pyarrow as pa

        return pa.Table.from_batches([pa.record_batch(batch) for batch in data])
    raise InvalidInputError(
        f"rows must come as pyarrow, pandas, polars, a DuckDB relation or anything with "
        f"__arrow_c_stream__, and not as {kind.__module__}.{kind.__name__}"
    )


def answer(text: str) -> Any:
    """The answer of a call; what it warns of is told."""
    value = json.loads(text)
    if isinstance(value, dict):
        for warning in value.pop("warnings", None) or []:
            warnings.warn(warning, stacklevel=4)
    return value
