"""Conditions of polars as SQL, for the catalog: what cannot be said there is left to polars.

A translation may let through rows that the condition does not want. It never holds back one that the condition wants:
whoever uses it applies the condition again.
"""

from __future__ import annotations

import io
import json
import math
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Optional

from ._convert import literal

if TYPE_CHECKING:
    import polars

__all__ = ["sql_of"]

#: Longest condition that is handed over, and its deepest one. What is more is left to polars.
_LONGEST = 200_000
_DEEPEST = 12
#: Most values of a list.
_MOST_VALUES = 5_000

_SIGNS = {"Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_MIRRORED = {"Eq": "Eq", "NotEq": "NotEq", "Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
_INTEGERS = {"Int8", "Int16", "Int32", "Int64"}
_EPOCH = date(1970, 1, 1)


def _tree(predicate: polars.Expr) -> Any:
    try:
        return json.loads(predicate.meta.serialize(format="json"))
    except Exception:
        # A form of a version of polars that is not known here, as of functions of Python.
        return None


def sql_of(predicate: polars.Expr, schema: polars.Schema) -> Optional[str]:
    """A SQL condition that is true for each row for which the predicate is; None if there is none."""
    tree = _tree(predicate)
    if tree is None:
        return None
    parts: list[str] = []
    for part in _conjuncts(tree):
        try:
            text = _Sql(schema).condition(part, 0)
        except (_Unknown, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # A form that is not known here.
            continue
        if sum(map(len, parts)) + len(text) < _LONGEST:
            parts.append(text)
    return " AND ".join(f"({part})" for part in parts) if parts else None


class _Unknown(Exception):
    """What has no translation."""


def _conjuncts(tree: Any) -> list[Any]:
    found, rest = [], [tree]
    while rest:
        node = rest.pop()
        both = node.get("BinaryExpr") if isinstance(node, dict) else None
        if isinstance(both, dict) and both.get("op") in ("And", "LogicalAnd"):
            rest += [both["right"], both["left"]]
        else:
            found.append(node)
    return found


def _only(node: Any) -> tuple[str, Any]:
    if not isinstance(node, dict) or len(node) != 1:
        raise _Unknown
    ((kind, value),) = node.items()
    return str(kind), value


class _Sql:
    def __init__(self, schema: polars.Schema) -> None:
        self.schema = schema
        #: Below a NOT, what lets too many rows through holds rows back.
        self.exact = False

    def condition(self, node: Any, depth: int) -> str:
        if depth > _DEEPEST:
            raise _Unknown
        kind, value = _only(node)
        if kind == "Column":
            if str(self.schema[value]) != "Boolean":
                raise _Unknown
            return self.column(value)
        if kind == "BinaryExpr":
            return self.binary(value["left"], value["op"], value["right"], depth)
        if kind == "Function":
            return self.function(value["input"], value["function"], depth)
        raise _Unknown

    def binary(self, left: Any, op: str, right: Any, depth: int) -> str:
        word = {"And": "AND", "LogicalAnd": "AND", "Or": "OR", "LogicalOr": "OR"}.get(op)
        if word is not None:
            return f"({self.condition(left, depth + 1)} {word} {self.condition(right, depth + 1)})"
        if op not in _SIGNS:
            raise _Unknown
        if "Column" not in left:
            left, op, right = right, _MIRRORED[op], left
        return self.compared(self.named(left), op, self.scalar(right))

    def function(self, given: list[Any], function: Any, depth: int) -> str:
        if function == {"Boolean": "Not"}:
            self.exact = True
            return f"NOT ({self.condition(given[0], depth + 1)})"
        if function in ({"Boolean": "IsNull"}, {"Boolean": "IsNotNull"}):
            word = "IS NULL" if function["Boolean"] == "IsNull" else "IS NOT NULL"
            return f"{self.column(self.named(given[0]))} {word}"
        if function == {"StringExpr": "StartsWith"}:
            name, start = self.named(given[0]), self.scalar(given[1])
            if str(self.schema[name]) != "String" or not isinstance(start.get("String"), str):
                raise _Unknown
            return f"starts_with({self.column(name)}, {literal(start['String'])})"
        kind, options = _only(function.get("Boolean"))
        if kind == "IsBetween":
            low, high = {
                "Both": ("GtEq", "LtEq"), "Left": ("GtEq", "Lt"),
                "Right": ("Gt", "LtEq"), "None": ("Gt", "Lt"),
            }[options["closed"]]
            name = self.named(given[0])
            bounds = [(low, self.scalar(given[1])), (high, self.scalar(given[2]))]
            return "(" + " AND ".join(self.compared(name, op, bound) for op, bound in bounds) + ")"
        if kind == "IsIn" and options == {"nulls_equal": False}:
            return self.is_in(self.named(given[0]), self.scalar(given[1]))
        raise _Unknown

    def is_in(self, name: str, listed: dict[str, Any]) -> str:
        import polars as pl

        dtype = self.schema[name]
        if str(dtype) not in _INTEGERS | {"String", "Date", "Boolean"}:
            raise _Unknown
        values = pl.read_ipc_stream(io.BytesIO(bytes(listed["List"]))).to_series()
        if isinstance(values.dtype, pl.List):
            values = values.explode()
        if values.dtype != dtype or len(values) > _MOST_VALUES:
            raise _Unknown
        texts = [self.value(value) for value in values if value is not None]
        if not texts or (values.null_count() and self.exact):
            raise _Unknown
        return f"{self.column(name)} IN ({', '.join(texts)})"

    def value(self, value: Any) -> str:
        # Its digits alone are beyond the type.
        if value == -(2**63):
            raise _Unknown
        return literal(value)

    def named(self, node: Any) -> str:
        kind, name = _only(node)
        if kind != "Column" or name not in self.schema:
            raise _Unknown
        return str(name)

    def column(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def scalar(self, node: Any) -> dict[str, Any]:
        kind, value = _only(node)
        if kind != "Literal":
            raise _Unknown
        kind, value = _only(value)
        if kind != "Scalar" or not isinstance(value, dict):
            raise _Unknown
        return value

    def compared(self, name: str, op: str, scalar: dict[str, Any]) -> str:
        dtype: Any = self.schema[name]
        kind, value = _only(scalar)
        family = str(dtype.base_type())
        if family in _INTEGERS and kind in _INTEGERS and isinstance(value, int):
            text = self.value(value)
        elif family in ("Float32", "Float64") and kind in ("Float32", "Float64"):
            text = self.number(op, value)
        elif family == kind == "Date":
            text = literal(_EPOCH + timedelta(days=value))
        elif family == kind == "Datetime":
            text = self.moment(dtype, *value)
        elif family == kind == "Decimal":
            text = self.decimal(dtype, *value)
        elif family == kind and kind in ("String", "Boolean") and isinstance(value, (str, bool)):
            text = literal(value)
        else:
            raise _Unknown
        return f"{self.column(name)} {_SIGNS[op]} {text}"

    def number(self, op: str, value: Any) -> str:
        # For polars a NaN is the largest number, and statistics of files and of Parquet say nothing of
        # it: a bound from below must not skip a file. And -0.0 is 0.0 for polars alone.
        if self.exact or op not in ("Lt", "LtEq", "Eq") or not isinstance(value, float):
            raise _Unknown
        if not math.isfinite(value) or value == 0:
            raise _Unknown
        return f"CAST('{value!r}' AS DOUBLE)"

    def moment(self, dtype: Any, number: Any, unit: str, zone: Any) -> str:
        zone = zone["inner"] if isinstance(zone, dict) else zone
        if dtype.time_unit != "us" or unit != "Microseconds" or zone != dtype.time_zone:
            raise _Unknown
        if zone not in (None, "UTC") or not isinstance(number, int):
            raise _Unknown
        within = 'Some("UTC")' if zone else "None"
        return f"arrow_cast({number}, 'Timestamp(Microsecond, {within})')"

    def decimal(self, dtype: Any, digits: int, precision: int, scale: int) -> str:
        exact = Decimal(digits).scaleb(-scale)
        scaled = exact.scaleb(dtype.scale)
        if scaled != scaled.to_integral_value() or abs(scaled) >= Decimal(10) ** dtype.precision:
            raise _Unknown
        return f"CAST('{exact:f}' AS DECIMAL({dtype.precision}, {dtype.scale}))"
