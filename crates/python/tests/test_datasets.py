"""Datasets of pyarrow and relations of DuckDB: rows are those of `deltalake` on the same tables."""

import datetime as dt
import os
import shutil
from decimal import Decimal
from pathlib import Path

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import REQUIRED
from test_scan import mixed

from deltalakedb.exceptions import InvalidInputError, QueryError, UnsupportedError

f = pc.field
TABLES = os.environ.get("DL_DELTA_TABLES")


def lines(table):
    return sorted(map(repr, pa.table(table).to_pylist()))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from deltalakedb import Catalog

    home = tmp_path_factory.mktemp("datasets")
    with Catalog(f"sqlite://{home}/catalog.db", create=True) as catalog:
        rows = mixed()
        # A file for each value of p, and two parts.
        table = catalog.write("s.t", rows.slice(0, 6), location=f"{home}/t", partition_by="p")
        table.write(rows.slice(6))
        yield table


MOMENT = dt.datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=dt.timezone.utc)
NAN = float("nan")
CONDITIONS = [
    f("id") > 3, f("id") == 2**63 - 1, f("id") < 0, f("id").is_null(), f("id").is_valid(), f("id") != 5,
    ~(f("id") > 3), f("s") == "a'b", f("s") > "é", f("s").is_null(), f("s") >= "z" * 101, f("s").isin(["a", None]),
    f("x") > 1.0, f("x") != 2.5, ~(f("x") <= 7.0), f("x").is_nan(), f("x").is_null(nan_is_null=True), f("x") == 0.0,
    f("b"), ~f("b"), f("b").is_null(), f("d") == dt.date(2026, 1, 3), f("d") < dt.date(2, 1, 1), f("d").is_null(),
    f("t") == MOMENT, f("t") > MOMENT, f("t") < MOMENT, f("t") > dt.datetime(9999, 1, 1, tzinfo=dt.timezone.utc),
    f("u") >= dt.datetime(1969, 12, 31, 23, 59, 59, 11), f("dec") == Decimal("1.25"), f("dec") > Decimal("2.26"),
    f("p") == "a b", f("p") == "50%", f("p").is_null(), f("p") != "x", f("p").isin(["x=y", "q?#"]), f("p") > "x",
    (f("p") == "x") & (f("id") > 3), (f("p") == "x") | f("id").is_null(),
]


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_a_dataset_has_the_rows_that_are_there(table, number):
    got = table.to_pyarrow_dataset().to_table(filter=CONDITIONS[number])
    assert lines(got) == lines(mixed().filter(CONDITIONS[number]))


def test_a_dataset_is_that_of_deltalake(table):
    ours = table.to_pyarrow_dataset()
    theirs = deltalake.DeltaTable(table.location).to_pyarrow_dataset()
    assert ours.schema.names == theirs.schema.names
    assert lines(ours.to_table()) == lines(theirs.to_table())
    assert len(list(ours.get_fragments())) == len(list(theirs.get_fragments())) == table.num_files
    assert sorted(ours.files) == sorted(table.file_uris())
    assert lines(ours.to_table(columns=["p", "id"])) == lines(theirs.to_table(columns=["p", "id"]))
    assert ours.count_rows() == 12 and ours.head(3).num_rows == 3


def test_files_are_skipped(table):
    whole = table.to_pyarrow_dataset()
    fragments = lambda condition: len(list(whole.get_fragments(condition)))  # noqa: E731
    assert fragments(f("p") == "a b") == 1
    assert fragments(f("id") == 2) < table.num_files
    assert fragments(f("d") == dt.date(2026, 1, 3)) < table.num_files
    # A NaN is within no bounds: such files are opened, but for that which has nulls only.
    assert fragments(f("x") > 1e300) == table.num_files - 1
    assert len(table.to_pyarrow_dataset("p = 'a b'").files) == 1
    with pytest.raises(InvalidInputError):
        table.to_pyarrow_dataset("p = ")


def test_bounds_of_statistics_are_not_tighter_than_the_rows(lite, lake):
    """delta-io/delta-rs#1496 and #3173: nulls beside values, columns without statistics beside structs."""
    rows = pa.table(
        {
            "part": ["a", "a", "b", "b", "c"],
            "n": pa.array([12, None, None, None, 15], pa.int64()),
            "st": [{"year": 1}] * 5,
            "year": pa.array([2020, 2021, 2022, 2023, 2024], pa.int32()),
        }
    )
    table = lite.write(
        "t", rows, location=lake, partition_by="part", configuration={"delta.dataSkippingNumIndexedCols": 2}
    )
    whole = table.to_pyarrow_dataset()
    for condition in (f("n").is_null(), f("n") > 12, f("year") == 2021, f("n").is_valid(), f("year") > 2023):
        assert lines(whole.to_table(filter=condition)) == lines(rows.filter(condition))


def test_moments_within_a_millisecond(lite, lake):
    """Statistics are in milliseconds, rounded down."""
    moments = [dt.datetime(2026, 1, 1, 0, 0, 0, us, tzinfo=dt.timezone.utc) for us in (1, 999, 1999)]
    table = lite.write("t", pa.table({"t": pa.array(moments, pa.timestamp("us", "UTC"))}), location=lake)
    for moment in moments:
        assert table.to_pyarrow_dataset().to_table(filter=f("t") == moment).num_rows == 1
        assert table.scan().filter(pl.col("t") == moment).collect().height == 1


def test_a_dataset_that_would_be_wrong_is_refused(lite, lake):
    rows = pa.table({"id": range(10), "p": ["a"] * 10})
    table = lite.write("s.dv", rows, location=lake, configuration={"delta.columnMapping.mode": "name"})
    with pytest.raises(UnsupportedError, match="columnMapping") as caught:
        table.to_pyarrow_dataset()
    assert caught.value.table == "s.dv"
    # The others have its rows.
    assert table.scan().collect().height == len(table.to_duckdb().fetchall()) == 10


def engine_rows(table, where):
    return sorted(map(repr, table.to_duckdb(duckdb.connect()).filter(where).fetchall()))


WHERE = [
    "id > 3", "id IS NULL", "id IN (1, 9, NULL)", "s >= 'é'", "s LIKE 'a%'", "x < 1.5", "x > 1.0", "isnan(x)", "b",
    "NOT b", "d = DATE '2026-01-03'", "t > TIMESTAMPTZ '2026-01-01 00:00:00.000005+00'", "dec = 1.25", "p = 'a b'",
    "p IS NULL", "p <> 'x' AND id > 2", "id % 2 = 1", "f = 2.5", "u < TIMESTAMP '1969-12-31 23:59:59.000003'",
]


@pytest.mark.parametrize("where", WHERE)
def test_duckdb_has_the_rows_that_it_has_in_memory(table, where):
    memory = duckdb.connect()
    rows = mixed()
    memory.execute("CREATE TABLE t AS SELECT * FROM rows")
    expected = sorted(map(repr, memory.table("t").filter(where).fetchall()))
    assert engine_rows(table, where) == expected
    # Through rows that are read by the catalog.
    from deltalakedb._scan import _rows_dataset

    source = _rows_dataset(table, None)
    got = duckdb.connect().from_arrow(source).filter(where).fetchall()
    assert sorted(map(repr, got)) == expected


def test_relations_of_duckdb(table):
    relation = table.to_duckdb(columns=["p", "id"], filter="id > 3")
    assert relation.columns == ["p", "id"] and len(relation.fetchall()) == 6
    # As often as it is asked for.
    assert len(relation.fetchall()) == 6
    connection = duckdb.connect()
    table.to_duckdb(connection).create_view("orders")
    assert connection.sql("SELECT count(*) FROM orders o JOIN orders USING (id)").fetchall() == [(11,)]
    assert connection.sql("SELECT max(id) FROM orders WHERE p = 'x'").fetchall() == [(9,)]
    with pytest.raises((InvalidInputError, QueryError)):
        table.to_duckdb(filter="nope = 1")


# ---- tables of other engines ----

#: Of `delta-rs/` and `kernel/`; what a dataset says of each: its rows, or why not.
CORPUS = {
    "delta-rs/delta-0.8.0-special-partition": None,
    "delta-rs/delta-0.8.0-null-partition": None,
    "delta-rs/delta-0.8.0-numeric-partition": None,
    "delta-rs/delta-0.8.0-date": None,
    "delta-rs/delta-2.2.0-partitioned-types": None,
    "delta-rs/delta-1.2.1-only-struct-stats": None,
    "delta-rs/partition-type-primitives": None,
    "delta-rs/checkpoint-v2-table": None,
    "delta-rs/http_requests": None,
    "delta-rs/table_with_null_stats_in_notnull_struct": None,
    "delta-rs/table-with-dv-small": "deletion vectors",
    "delta-rs/table_with_deletion_logs": "deletion vectors",
    "delta-rs/table_with_column_mapping": "columnMapping",
    "delta-rs/table_with_partitioning_mapping": "columnMapping",
    "kernel/basic-decimal-table": None,
    "kernel/data-reader-timestamp_ntz": None,
    "kernel/mixed-nulls": None,
    "kernel/timestamp-truncation-stats": None,
    "kernel/with-short-dv": "deletion vectors",
}


def taken(name, tmp_path):
    """A table of the corpus, copied."""
    if TABLES is None:
        why = "DL_DELTA_TABLES names no folder with tables of other engines"
        if "corpus" in REQUIRED:
            pytest.fail(f"{why}: DL_REQUIRE names corpus")
        pytest.skip(why)
    place = tmp_path / "table"
    shutil.copytree(Path(TABLES) / name, place)
    return place


def test_timestamps_of_the_old_kind_beyond_nanoseconds(lite, tmp_path):
    """`deltalake` cannot read its file as a dataset, and reads 1816 in place of 9999 by a query."""
    lite.import_table(str(taken("delta-rs/table_with_edge_timestamps", tmp_path)), "s.t")
    table = lite.table("s.t")
    for got in (table.to_pyarrow_dataset().to_table(), table.to_arrow(), pa.table(table.scan().collect())):
        assert sorted({value.year for value in got["BIG_DATE"].to_pylist()}) == [9999]


@pytest.mark.parametrize("name", CORPUS)
def test_tables_of_other_engines(lite, tmp_path, name):
    place = taken(name, tmp_path)
    theirs = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(str(place)))
    expected = pa.table(theirs.execute("SELECT * FROM t"))
    lite.import_table(str(place), "s.t")
    table = lite.table("s.t")
    assert table.scan().collect().height == expected.num_rows
    plain = pl.DataFrame(expected)
    same = lambda frame: sorted(map(repr, frame.rows()))  # noqa: E731
    assert same(table.scan().collect()) == same(plain.select(table.scan().collect_schema().names()))
    ((count,),) = table.to_duckdb(duckdb.connect()).aggregate("count(*)").fetchall()
    assert count == expected.num_rows
    if CORPUS[name] is not None:
        with pytest.raises(UnsupportedError, match=CORPUS[name]):
            table.to_pyarrow_dataset()
        return
    whole = table.to_pyarrow_dataset()
    assert lines(whole.to_table()) == lines(table.to_arrow())
    # A file is not skipped for a value that is in it.
    rows = table.to_arrow()
    for column in rows.schema.names:
        if pa.types.is_nested(rows.schema.field(column).type):
            continue
        for value in rows[column].slice(0, 5):
            condition = f(column) == value if value.is_valid else f(column).is_null()
            assert whole.count_rows(filter=condition) == rows.filter(condition).num_rows, (column, value)
