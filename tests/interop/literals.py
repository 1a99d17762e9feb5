"""Conditions with constants, in each command that takes one, beside DuckDB on the same rows.

Values lie at the ends of their types and near each other; constants are values of the table, or one step away.
The seed is printed, and `DL_SEED` repeats it.
"""

import datetime as dt
import json
import os
import random
import traceback
from decimal import Decimal, localcontext
from pathlib import Path

import duckdb
import pyarrow as pa

from dl import Dl, Table
from outcomes import Outcomes

OPERATORS = ["=", "<>", "<", "<=", ">", ">="]
# Each command, and how many conditions it is given; rows go last.
COMMANDS = [("sql", 40), ("files", 4), ("update", 3), ("merge", 3), ("write", 2), ("delete", 3)]
FIRST, LAST = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)
MICROSECOND = dt.timedelta(microseconds=1)


def decimal_values(rng: random.Random, precision: int, scale: int) -> list[Decimal]:
    bound = 10**precision - 1
    near = rng.randrange(-bound, bound)
    digits = [bound, -bound, 0, 1, -1, near, near + 1, near - 1, rng.randrange(-bound, bound)]
    with localcontext() as context:
        context.prec = 60
        return [Decimal(d).scaleb(-scale) for d in digits if -bound <= d <= bound]


def times(rng: random.Random) -> list[dt.datetime]:
    span = (LAST - FIRST) // MICROSECOND
    near = FIRST + rng.randrange(1, span) * MICROSECOND
    second = near.replace(microsecond=0)
    ends = dt.datetime(9999, 12, 31)
    return [FIRST, LAST, ends, near, near - MICROSECOND, near + MICROSECOND, second, dt.datetime(1970, 1, 1)]


def floats(rng: random.Random) -> list[float]:
    some = rng.uniform(-1000, 1000)
    return [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 0.1, some, -some, 1e300, -1e300, 5e-324]


def single(value: float) -> float:
    return pa.array([value], pa.float64()).cast(pa.float32(), safe=False).to_pylist()[0]


def number(value: float) -> str:
    text = repr(value)
    if text in ("nan", "inf", "-inf"):
        return f"CAST('{text}' AS DOUBLE)"
    return text


def moment(value: dt.datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")


def day(value: dt.date) -> str:
    return value.strftime("%Y-%m-%d").rjust(10, "0")


def kinds(rng: random.Random) -> dict[str, tuple[pa.DataType, list, list[str]]]:
    """For each type of a column: values, and constants as they are written in SQL."""
    decimals = {(p, s): decimal_values(rng, p, s) for p, s in [(38, 18), (38, 0), (32, 16), (10, 2)]}
    stamps = times(rng)
    utc = [stamp.replace(tzinfo=dt.timezone.utc) for stamp in stamps]
    dates = [stamp.date() for stamp in stamps]
    doubles = floats(rng)
    singles = [single(value) for value in doubles if abs(value) < 1e38 or value != value or abs(value) == float("inf")]
    longs = [2**63 - 1, -(2**63), 2**53 + 1, 2**53, -1, 0, rng.randrange(-(2**63), 2**63)]
    found = {
        f"decimal({p},{s})": (pa.decimal128(p, s), values, [format(v, "f") for v in values])
        for (p, s), values in decimals.items()
    }
    found["timestamp"] = (pa.timestamp("us", "UTC"), utc, [f"TIMESTAMP WITH TIME ZONE '{moment(v)}+00:00'" for v in stamps])
    found["timestamp_ntz"] = (
        pa.timestamp("us"),
        stamps,
        [f"TIMESTAMP '{moment(v)}'" for v in stamps] + [f"'{moment(v)}'" for v in stamps],
    )
    found["date"] = (pa.date32(), dates, [f"DATE '{day(v)}'" for v in dates] + [f"'{day(v)}'" for v in dates])
    found["double"] = (pa.float64(), doubles, [number(v) for v in doubles] + ["0", "-0.0", "0.10"])
    found["float"] = (pa.float32(), singles, [number(v) for v in singles if v == v and abs(v) != float("inf")])
    found["long"] = (pa.int64(), longs, [str(v) for v in longs] + ["0.5", "-0.5"])
    return found


# How many checks there are.
COUNT = len(kinds(random.Random(0))) * len(COMMANDS)


def condition(rng: random.Random, constants: list[str], column: str = "a") -> str:
    one, other = rng.choice(constants), rng.choice(constants)
    form = rng.randrange(8)
    if form == 0:
        return f"{column} IN ({one}, {other})"
    if form == 1:
        return f"{column} BETWEEN {one} AND {other}"
    if form == 2:
        return f"NOT ({column} {rng.choice(OPERATORS)} {one})"
    if form == 3:
        return f"{one} {rng.choice(OPERATORS)} {column}"
    return f"{column} {rng.choice(OPERATORS)} {one}"


class Pair:
    """A table of `dl`, and one of DuckDB to which the same is done."""

    def __init__(self, dl: Dl, home: Path, name: str, of: pa.DataType, values: list):
        self.dl, self.name = dl, name
        schema = pa.schema([("id", pa.int64()), ("a", of), ("hits", pa.int64())])
        self.table = Table(dl, home / name.split(".")[1], name, schema)
        self.files: dict[str, set[int]] = {}
        values = values + [None]
        for first in range(0, len(values), 3):
            ids = list(range(first, min(first + 3, len(values))))
            data = pa.table(
                {"id": ids, "a": [values[i] for i in ids], "hits": [0] * len(ids)}, schema=schema
            )
            self.table.append(f"f{first}.parquet", data)
            self.files[f"f{first}.parquet"] = set(ids)
        everything = self.table.expected()
        self.duck = duckdb.connect()
        self.duck.execute("SET TimeZone = 'UTC'")
        self.duck.execute("CREATE TABLE t AS SELECT * FROM everything")

    def rows(self) -> list[tuple[int, int]]:
        text = self.dl("sql", f"SELECT id, hits FROM {self.name} ORDER BY id", "--to", "ndjson")
        return [(row["id"], row["hits"]) for row in map(json.loads, text.splitlines())]

    def expected(self) -> list[tuple[int, int]]:
        return self.duck.execute("SELECT id, hits FROM t ORDER BY id").fetchall()

    def same(self, after: str) -> list[str]:
        got, want = self.rows(), self.expected()
        return [] if got == want else [f"after {after}: {got}, DuckDB has {want}"]


def check_sql(pair: Pair, conditions: list[str]) -> list[str]:
    parts = [f"SELECT {n} AS n, id FROM {pair.name} WHERE {c}" for n, c in enumerate(conditions)]
    text = pair.dl("sql", " UNION ALL ".join(parts) + " ORDER BY n, id", "--to", "ndjson")
    got: dict[int, list[int]] = {n: [] for n in range(len(conditions))}
    for row in map(json.loads, text.splitlines()):
        got[row["n"]].append(row["id"])
    wrong = []
    for n, c in enumerate(conditions):
        want = [i for (i,) in pair.duck.execute(f"SELECT id FROM t WHERE {c} ORDER BY id").fetchall()]
        if got[n] != want:
            wrong.append(f"{c}: rows {got[n]}, DuckDB has {want}")
    return wrong


def check_files(pair: Pair, conditions: list[str]) -> list[str]:
    wrong = []
    for c in conditions:
        try:
            listed = pair.dl("files", pair.name, "--where", c)
        except RuntimeError as e:
            # Its conditions are simpler than SQL's: it must say so, not choose wrongly.
            if "CAST" in c or "WITH TIME ZONE" in c or "NOT (" in c:
                continue
            wrong.append(str(e))
            continue
        for (i,) in pair.duck.execute(f"SELECT id FROM t WHERE {c}").fetchall():
            (file,) = [name for name, ids in pair.files.items() if i in ids]
            if file not in listed:
                wrong.append(f"{c}: {file} is left out, and row {i} matches")
    return wrong


def check_update(pair: Pair, conditions: list[str]) -> list[str]:
    wrong = []
    for c in conditions:
        pair.dl("update", pair.name, "--set", "hits = hits + 1", "--where", c)
        pair.duck.execute(f"UPDATE t SET hits = hits + 1 WHERE {c}")
        wrong += pair.same(f"update where {c}")
    return wrong


def check_merge(pair: Pair, conditions: list[str]) -> list[str]:
    wrong = []
    for c in conditions:
        qualified = c.replace("a ", "target.a ", 1) if c.startswith("a ") else None
        if qualified is None:
            continue
        pair.dl(
            "merge", pair.name, "--query", f"SELECT id, hits FROM {pair.name}",
            "--on", "target.id = source.id", "--when-matched", f"AND {qualified} THEN UPDATE SET hits = target.hits + 10",
        )  # fmt: skip
        pair.duck.execute(f"UPDATE t SET hits = hits + 10 WHERE {c}")
        wrong += pair.same(f"merge and {qualified}")
    return wrong


def check_write(pair: Pair, conditions: list[str]) -> list[str]:
    wrong = []
    for c in conditions:
        query = f"SELECT id, a, hits + 100 AS hits FROM {pair.name} WHERE {c}"
        pair.dl("write", pair.name, "--query", query, "--mode", "overwrite", "--replace-where", c)
        pair.duck.execute(f"UPDATE t SET hits = hits + 100 WHERE {c}")
        wrong += pair.same(f"replacing where {c}")
    return wrong


def check_delete(pair: Pair, conditions: list[str]) -> list[str]:
    wrong = []
    for c in conditions:
        pair.dl("delete", pair.name, "--where", c)
        pair.duck.execute(f"DELETE FROM t WHERE {c}")
        wrong += pair.same(f"delete where {c}")
    return wrong


def run(program: Path, home: Path, outcomes: Outcomes) -> None:
    """Checks each type with each command."""
    seed = int(os.environ.get("DL_SEED") or random.randrange(2**32))
    print(f"literals: DL_SEED={seed}", flush=True)
    rng = random.Random(seed)
    dl = Dl(program, home / "catalog.db")
    dl("init")
    for n, (kind, (of, values, constants)) in enumerate(kinds(rng).items()):
        pair = None
        for command, count in COMMANDS:
            wrong = []
            conditions = [condition(rng, constants) for _ in range(count)]
            try:
                pair = pair or Pair(dl, home, f"literals.t{n}", of, values)
                wrong = globals()[f"check_{command}"](pair, conditions)
            except Exception:
                wrong = [traceback.format_exc()]
            outcomes.ends(f"literals::{command}::{kind}", wrong)
