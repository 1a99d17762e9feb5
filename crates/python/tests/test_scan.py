"""Lazy engines: the rows are those of the engine on the same rows in memory, whatever the condition."""

import datetime as dt
import pickle
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from deltalakedb import _conditions
from deltalakedb.exceptions import CatalogClosedError, QueryError

UTC = dt.timezone.utc
NAN, INF = float("nan"), float("inf")
c = pl.col


def mixed():
    """Rows with all that makes conditions differ: nulls, NaN, zeros with signs, edges of time."""
    n = 12
    return pa.table(
        {
            "id": pa.array([1, 2, 3, None, 5, 6, 7, 8, 9, -(2**63), 2**63 - 1, 0], pa.int64()),
            "i": pa.array([1, 2, 3, 4, None, 6, 7, -(2**31), 9, 10, 11, 12], pa.int32()),
            "s": ["a", "ab", "b", None, "", "é", "日本", "a'b", "%", "_", "A", "z" * 100],
            "x": [1.0, NAN, -0.0, 0.0, None, INF, -INF, 2.5, 5e-324, 1e308, -1.5, 7.0],
            "f": pa.array([0.1, NAN, -0.0, 0.0, None, INF, -INF, 2.5, 0.3, 1.0, 2.0, 3.0], pa.float32()),
            "b": [True, False, None] * 4,
            "d": [dt.date(2026, 1, 1 + i) for i in range(10)] + [None, dt.date(1, 1, 1)],
            "t": pa.array(
                [dt.datetime(2026, 1, 1, 0, 0, 0, i, tzinfo=UTC) for i in range(10)]
                + [None, dt.datetime(9999, 12, 31, tzinfo=UTC)],
                pa.timestamp("us", "UTC"),
            ),
            "u": pa.array([dt.datetime(1969, 12, 31, 23, 59, 59, i) for i in range(12)], pa.timestamp("us")),
            "dec": pa.array([Decimal(i) / 4 for i in range(11)] + [None], pa.decimal128(10, 2)),
            "odd \"name\" 'x'": pa.array(range(n), pa.int8()),
            "p": ["x", "y", None, "a b", "50%", "é", "x=y", "q?#", "x", "y", None, "z"],
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from deltalakedb import Catalog

    home = tmp_path_factory.mktemp("scan")
    with Catalog(f"sqlite://{home}/catalog.db", create=True) as catalog:
        rows = mixed()
        table = catalog.write("s.t", rows.slice(0, 6), location=f"{home}/t", partition_by="p")
        table.write(rows.slice(6))
        yield table


ODD = "odd \"name\" 'x'"
MOMENT = dt.datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
#: A condition, and whether the catalog hears of it.
CONDITIONS = [
    (c("id") > 3, True), (3 >= c("id"), True), (c("id") != 5, True), (c("id") == 2**63 - 1, True),
    (c("id") > -(2**63), False), (c("i") >= -(2**31), True), (c("i") == 2**40, None), (c("id") > 2.5, False),
    (c(ODD) < 4, True), (c("s") == "a'b", True), (c("s") >= "ab", True), (c("s") < "é", True),
    (c("s").str.starts_with("a"), True), (c("s").str.starts_with("%"), True), (c("s").str.ends_with("b"), False),
    (c("s").is_null(), True), (c("s").is_not_null(), True), (~c("s").is_null(), True), (c("s") == "", True),
    (c("x") > 1.0, False), (c("x") >= 0.0, False), (c("x") == 0.0, False), (c("x") < 0.0, False),
    (c("x") < 1.5, True), (c("x") <= 2.5, True), (c("x") == 2.5, True), (c("x") != 2.5, False),
    (~(c("x") < 1.5), None), (c("x").is_nan(), False), (c("x") == NAN, False), (c("x") < INF, False),
    (c("x").is_between(-2.0, 3.0), False), (c("x") < 1, None), (c("f") < 0.3, None), (c("f") == 2.5, None),
    (c("b"), True), (~c("b"), True), (c("b") == True, None), (c("b").is_null(), True),  # noqa: E712
    (c("d") == dt.date(2026, 1, 3), True), (c("d") > dt.date(2026, 1, 8), True), (c("d") < dt.date(2, 1, 1), True),
    (c("t") >= MOMENT, True), (c("t") == MOMENT, True), (c("t") > dt.datetime(9999, 1, 1, tzinfo=UTC), True),
    (c("t") < dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5))), None),
    (c("u") < dt.datetime(1969, 12, 31, 23, 59, 59, 5), True), (c("t").dt.year() == 2026, False),
    (c("dec") == Decimal("1.25"), True), (c("dec") > 1, None), (c("dec") < Decimal("1.255"), None),
    (c("id").is_in([1, 2, 9]), True), (c("id").is_in([1, None]), True), (~c("id").is_in([1, None]), None),
    (c("id").is_in([]), None), (c("id").is_in([1, None], nulls_equal=True), False), (c("s").is_in(["a", "é"]), True),
    (c("d").is_in([dt.date(2026, 1, 3)]), True), (c("x").is_in([0.0, NAN]), False), (c("b").is_in([True]), True),
    (c("id").is_between(2, 6, closed="none"), True), (c("id").is_between(2, 6, closed="left"), True),
    (c("p") == "a b", True), (c("p") == "50%", True), (c("p").is_null(), True), (c("p") != "x", True),
    ((c("id") > 3) & (c("s").str.len_chars() > 1), True), ((c("id") > 3) | (c("s").str.len_chars() > 1), False),
    ((c("id") > 6) | (c("s") == "a") | c("b"), True), (~((c("id") > 6) & c("b")), True),
    (c("id") > c("i"), False), (c("s").eq_missing(None), True), (c("id").eq_missing(3), None),
    (c("id").cast(pl.Int32, strict=False) > 3, None),
    (c("id").rank() == 1, False), (pl.lit(True), None), (c("id") % 2 == 1, False),
    (c("x") > c("x").mean(), False), (pl.any_horizontal(c("b"), c("id") > 8), None),
]


def same(got, expected):
    assert got.schema == expected.schema
    assert sorted(map(repr, got.rows())) == sorted(map(repr, expected.rows()))


def pushed(table, condition):
    """The condition as polars hands it over."""
    from polars.io.plugins import register_io_source

    seen = []

    def source(with_columns, predicate, n_rows, batch_size):
        seen.append(predicate)
        yield table.to_polars().filter(predicate).select(with_columns or pl.all())

    register_io_source(source, schema=table.to_polars().schema).filter(condition).collect()
    return seen[0]


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_a_condition_has_the_rows_that_it_has_in_memory(table, number):
    condition, heard = CONDITIONS[number]
    memory = pl.DataFrame(mixed())
    engine = "streaming" if number % 3 == 0 else "in-memory"
    same(
        table.scan().filter(condition).select("p", "x", "id").collect(engine=engine),
        memory.filter(condition).select("p", "x", "id"),
    )
    if heard is not None:
        told = _conditions.sql_of(pushed(table, condition) if heard else condition, memory.schema)
        assert (told is not None) == heard, told


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_columns_and_slices(table, engine):
    memory, lazy = pl.DataFrame(mixed()), table.scan()
    get = lambda query: query.collect(engine=engine)  # noqa: E731
    same(get(lazy), memory)
    # In an order that is not the table's: pola-rs/polars#22731.
    same(get(lazy.select("s", ODD, "id")), memory.select("s", ODD, "id"))
    assert get(lazy.select(pl.len())).item() == 12 and get(lazy.select(pl.lit(1))).item() == 1
    assert get(lazy.filter(c("id") > 3).select(pl.len())).item() == 6
    assert get(lazy.head(5)).height == 5 and get(lazy.slice(3, 4)).height == 4 and get(lazy.head(0)).height == 0
    assert get(lazy.filter(c("id") > 3).head(2)).height == 2
    # The first rows, and of them those that fit.
    assert get(lazy.head(12).filter(c("id") > 3)).height == 6
    assert get(lazy.filter(c("id") > 3).tail(3)).height == 3
    # Polars once gave sources a condition here that cannot be evaluated: pola-rs/polars#28629.
    assert get(lazy.sort("id", nulls_last=True).head(3))["id"].to_list() == [-(2**63), 0, 1]
    assert get(lazy.filter(c("id") > 3).bottom_k(2, by="id"))["id"].to_list() == [5, 6]
    same(get(lazy.filter(c("id") == 77)), memory.clear())
    same(get(lazy.filter(c("id") > 5).filter(c("b")).filter(c("p") == "x")), memory.filter(
        (c("id") > 5) & c("b") & (c("p") == "x")))
    same(get(lazy.join(lazy.select("id", y="i"), on="id")), memory.join(memory.select("id", y="i"), on="id"))
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        get(lazy.select("nope"))


def test_many_scans_at_once_do_not_hang(table):
    """pola-rs/polars#24963"""
    frames = pl.collect_all([table.scan().filter(c("id") > n) for n in range(pl.thread_pool_size() + 2)])
    assert [frame.height for frame in frames[:3]] == [9, 8, 7]


def test_a_batch_is_not_larger_than_asked_for(table):
    from deltalakedb._scan import PolarsSource

    source = PolarsSource(table)
    frames = list(source(["id"], None, None, 5))
    assert sum(frame.height for frame in frames) == 12 and max(frame.height for frame in frames) <= 5
    frames = list(source(["s"], c("id") > 100, None, None))
    assert [frame.columns for frame in frames] and {tuple(frame.columns) for frame in frames} == {("s",)}


def test_a_scan_stays_at_its_version_and_can_be_pickled(lite, lake):
    table = lite.write("t", pa.table({"id": [1, 2]}), location=lake)
    lazy = table.scan()
    table.write(pa.table({"id": [3]}))
    assert lazy.collect().height == 2 and table.scan().collect().height == 3
    assert table.at(0).scan().collect().height == 2
    from deltalakedb._scan import PolarsSource

    again = pickle.loads(pickle.dumps(PolarsSource(table.at(0)._held())))
    assert sum(frame.height for frame in again(None, None, None, None)) == 2
    lite.close()
    with pytest.raises(CatalogClosedError):
        lazy.collect()


def test_files_that_cannot_have_rows_are_not_opened(lite, lake):
    from pathlib import Path

    table = lite.write("t", pa.table({"id": [1], "p": ["a"]}), location=lake, partition_by="p")
    for number, name in ((2, "b"), (3, "c")):
        table.write(pa.table({"id": [number], "p": [name]}))
    for uri in table.file_uris("p = 'b'"):
        Path(uri).unlink()
    for condition in (c("p") == "c", c("id") > 2, c("p").is_in(["a", "c"]), (c("id") != 2) & (c("p") < "b")):
        assert table.scan().filter(condition).collect().height > 0
    # An error keeps its type.
    with pytest.raises(QueryError, match="default.t"):
        table.scan().collect()


def test_values_below_structs_and_lists(lite, lake):
    """pola-rs/polars#27857"""
    rows = pa.table(
        {
            "flags": [{"a": True, "b": None}, {"a": False, "b": True}, None],
            "tags": [["x"], [], None],
            "many": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "raw": [b"\x00", b"", None],
        }
    )
    table = lite.write("t", rows, location=lake)
    memory = table.to_polars()
    for condition in (
        pl.any_horizontal(c("flags").struct.unnest()), c("flags").struct.field("a"), c("tags").list.len() > 0,
        c("flags").is_null(), c("raw") == b"\x00", c("tags").is_null(),
    ):
        same(table.scan().filter(condition).collect(), memory.filter(condition))
