"""TPC-H: its tables written by `dl write`, its 22 queries answered by `dl sql` and by DuckDB.

DuckDB reads the generated Parquet files themselves, and once more the published tables by its Delta reader. The
queries are those of the specification with its validation parameters.
"""

import subprocess
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq

from dl import Dl
from engine import DuckDb
from outcomes import Outcomes

QUERIES = sorted(Path(__file__).with_name("tpch").glob("q*.sql"))
TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
# Several files, of which some queries need a part.
MORE = {"orders": ["--partition-by", "o_orderstatus"], "lineitem": ["--partition-by", "l_returnflag"]}


def rows(table) -> list[tuple]:
    return [tuple(row.values()) for row in table.to_pylist()]


def same(a, b) -> bool:
    """Engines differ in the digits that an average has, and in whether a quotient is a decimal."""
    if isinstance(a, (int, float, Decimal)) and isinstance(b, (int, float, Decimal)):
        return abs(float(a) - float(b)) <= 1e-6 * max(1.0, abs(float(a)))
    return a == b


def differences(ours: list[tuple], theirs: list[tuple]) -> str | None:
    if not theirs:
        return "DuckDB has no rows: nothing was compared"
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB has {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs)):
        if len(a) != len(b) or not all(same(x, y) for x, y in zip(a, b)):
            return f"row {number}: {a}, DuckDB has {b}"
    return None


def run(program: Path, generator: Path, data: Path, scale: str, outcomes: Outcomes) -> None:
    """Runs all queries."""
    subprocess.run([str(generator), str(data), scale], check=True)
    dl = Dl(program, data / "catalog.db")
    dl("init")
    duck = DuckDb().connection
    duck.execute("CREATE SCHEMA published")
    for table in TABLES:
        file = data / f"{table}.parquet"
        dl("write", table, file, *MORE.get(table, []))
        duck.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{file}')")
        published = data / "default" / table
        duck.execute(f"CREATE VIEW published.{table} AS SELECT * FROM delta_scan('{published}')")
    for file in QUERIES:
        query = file.read_text()
        answer = data / f"{file.stem}.parquet"
        wrong = []
        try:
            dl("sql", query, "--output", answer)
            ours = rows(pq.read_table(answer))
            for schema in ("main", "published"):
                duck.execute(f"SET search_path = '{schema}'")
                problem = differences(ours, rows(duck.execute(query).to_arrow_table()))
                if problem:
                    wrong.append(f"{schema}: {problem}")
        except Exception as e:
            wrong.append(f"{type(e).__name__}: {e}")
        outcomes.ends(f"tpch::{file.stem}", wrong)
