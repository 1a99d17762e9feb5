"""What is compared of a table: its schema, and per column counts, sums, extremes and a digest of all rows.

Computed with the same code from the source data and from what an engine read.
"""

import datetime
import decimal
import hashlib
import json
import math

import pyarrow as pa
import pyarrow.compute as pc


def type_name(t: pa.DataType) -> str:
    """Name of a type, without what engines choose freely (large or view layouts, field names)."""
    if pa.types.is_dictionary(t):
        return type_name(t.value_type)
    if pa.types.is_large_string(t) or pa.types.is_string_view(t):
        return "string"
    if pa.types.is_large_binary(t) or pa.types.is_binary_view(t):
        return "binary"
    if pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_list_view(t):
        return f"list<{type_name(t.value_type)}>"
    if pa.types.is_struct(t):
        fields = (t.field(i) for i in range(t.num_fields))
        return "struct<" + ",".join(f"{f.name}:{type_name(f.type)}" for f in fields) + ">"
    if pa.types.is_map(t):
        return f"map<{type_name(t.key_type)},{type_name(t.item_type)}>"
    if pa.types.is_timestamp(t):
        return "timestamp" if t.tz else "timestamp_ntz"
    return str(t)


def plain(value):
    """A value as JSON, exact and equal for equal values of every engine."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, decimal.Decimal):
        return f"decimal {value:f}"
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc)
        return value.isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    if isinstance(value, list):
        # An entry of a map comes as a pair, or as {"key": …, "value": …}.
        if value and all(isinstance(v, dict) and set(v) == {"key", "value"} for v in value):
            return sorted([plain(v["key"]), plain(v["value"])] for v in value)
        return [plain(v) for v in value]
    raise TypeError(f"no plain form for {value!r}")


def column_facts(column: pa.ChunkedArray) -> dict:
    facts = {"nulls": column.null_count}
    t = column.type
    if pa.types.is_integer(t):
        facts["sum"] = sum(v for v in column.to_pylist() if v is not None)
    elif pa.types.is_decimal(t):
        facts["sum"] = plain(sum((v for v in column.to_pylist() if v is not None), decimal.Decimal(0)))
    elif pa.types.is_floating(t):
        finite = [v for v in column.to_pylist() if v is not None and math.isfinite(v)]
        facts["sum"] = repr(math.fsum(finite))
    ordered = not (pa.types.is_nested(t) or pa.types.is_boolean(t) or pa.types.is_binary(t))
    if ordered and column.null_count < len(column):
        if pa.types.is_floating(t):
            column = column.filter(pc.invert(pc.is_nan(column)))
        extremes = pc.min_max(column).as_py()
        facts["min"], facts["max"] = plain(extremes["min"]), plain(extremes["max"])
    return facts


def normal(table: pa.Table) -> pa.Table:
    """Ordinary layouts, so that computations exist for every column."""
    columns = []
    for column in table.columns:
        t = column.type
        if pa.types.is_dictionary(t):
            column = column.cast(t.value_type)
        elif pa.types.is_large_string(t) or pa.types.is_string_view(t):
            column = column.cast(pa.string())
        elif pa.types.is_large_binary(t) or pa.types.is_binary_view(t):
            column = column.cast(pa.binary())
        columns.append(column)
    return pa.table(columns, names=table.column_names)


def facts(table: pa.Table) -> dict:
    table = normal(table)
    names = sorted(table.column_names)
    rows = sorted(json.dumps({k: plain(v) for k, v in row.items()}, sort_keys=True) for row in table.to_pylist())
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return {
        "schema": {name: type_name(table.schema.field(name).type) for name in names},
        "rows": table.num_rows,
        "columns": {name: column_facts(table.column(name)) for name in names},
        "digest": digest,
    }


def differences(expected: dict, found: dict) -> list[str]:
    out = []
    for name in sorted({*expected["schema"], *found["schema"]}):
        want, have = expected["schema"].get(name), found["schema"].get(name)
        if want != have:
            out.append(f"column {name}: type {have}, expected {want}")
    if expected["rows"] != found["rows"]:
        out.append(f"{found['rows']} rows, expected {expected['rows']}")
    for name in expected["columns"].keys() & found["columns"].keys():
        for fact, want in expected["columns"][name].items():
            have = found["columns"][name].get(fact)
            if want != have:
                out.append(f"column {name}: {fact} {have}, expected {want}")
    if not out and expected["digest"] != found["digest"]:
        out.append("the rows differ")
    return out
