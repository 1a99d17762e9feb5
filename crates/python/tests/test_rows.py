"""Rows out: to pyarrow, pandas, polars, DuckDB, lazily."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from deltalakedb.exceptions import InvalidInputError, QueryError, TableNotFoundError


@pytest.fixture
def table(catalog, lake):
    table = catalog.create_table("s.t", "id long, day string, x double", location=lake, partition_by="day")
    for day in ("a", "b", "c"):
        table.write(pa.table({"id": range(100), "day": [day] * 100, "x": [i / 2 for i in range(100)]}))
    return table


def test_rows_come_to_each_library(table):
    arrow = table.to_arrow()
    assert isinstance(arrow, pa.Table) and arrow.num_rows == 300
    assert arrow.schema.names == ["id", "day", "x"] and arrow.schema.field("day").type == pa.string()
    frame = table.to_pandas()
    assert isinstance(frame, pd.DataFrame) and len(frame) == 300
    frame = table.to_polars()
    assert isinstance(frame, pl.DataFrame) and frame.shape == (300, 3)
    assert frame.schema == {"id": pl.Int64, "day": pl.String, "x": pl.Float64}
    # Anything that takes Arrow streams takes a table.
    assert pa.table(table).num_rows == 300
    assert pl.DataFrame(table).height == 300
    assert duckdb.from_arrow(table.rows()).aggregate("count(*)").fetchall() == [(300,)]


def test_columns_and_filters_are_chosen(table):
    some = table.to_arrow(columns=["x", "id"], filter="day = 'b' AND id >= 98")
    assert some.to_pydict() == {"x": [49.0, 49.5], "id": [98, 99]}
    assert table.rows(limit=5).to_arrow().num_rows == 5
    assert table.to_pandas(columns=["id"], filter="id < 0").empty
    assert table.to_polars(columns=["id"], filter="id < 0").schema == {"id": pl.Int64}
    # A comment in a filter ends nothing but itself.
    assert table.to_arrow(filter="id = 1 -- )").num_rows == 3
    with pytest.raises(InvalidInputError, match="no column"):
        table.to_arrow(columns=[])
    for wrong in ("id = ", "nope = 1", "id = 1) OR (1 = 1"):
        with pytest.raises((QueryError, InvalidInputError)):
            table.rows(filter=wrong)
    with pytest.raises(QueryError, match="nope"):
        table.rows(columns=["nope"])


def test_a_version_is_read_as_it_was(table):
    before = table.at(1)
    table.delete("day = 'a'")
    assert before.to_arrow()["day"].unique().to_pylist() == ["a"]
    assert table.to_arrow().num_rows == 200
    assert table.at(0).to_arrow().num_rows == 0
    assert table.at(0).to_polars().schema["x"] == pl.Float64


def test_rows_are_lazy_and_read_as_often_as_they_are_asked_for(table):
    rows = table.rows()
    first = next(iter(rows))
    assert 0 < first.num_rows <= 300
    assert rows.to_arrow().num_rows == 300
    assert pa.table(rows).num_rows == 300 and pl.DataFrame(rows).height == 300
    for _ in range(2):
        assert duckdb.sql("SELECT count(*), sum(x) FROM rows").fetchall() == [(300, 7425.0)]
    reader = pa.RecordBatchReader.from_stream(rows)
    assert sum(batch.num_rows for batch in reader) == 300
    assert pa.schema(rows).names == ["id", "day", "x"]


def test_a_large_result_is_not_held(lite):
    import resource

    rows = iter(lite.sql("SELECT value, repeat('x', 100) AS text FROM generate_series(1, 4000000)"))
    next(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(batch.num_rows for batch in rows) > 3_900_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # All rows are 432 MB.
    assert grown < 150_000, f"{grown:,} KiB"


def test_sql_over_tables(table, catalog, lake):
    other = catalog.create_table("s.names", "day string, name string", location=lake + "2")
    other.write(pa.table({"day": ["a", "b"], "name": ["first", "second"]}))
    got = catalog.sql(
        "SELECT n.name, count(*) AS n FROM s.t JOIN s.names n ON t.day = n.day GROUP BY n.name ORDER BY 1"
    )
    assert got.to_arrow().to_pydict() == {"name": ["first", "second"], "n": [100, 100]}
    assert catalog.sql("SELECT count(*) AS n FROM s.t VERSION AS OF 1").to_polars()["n"].to_list() == [100]
    assert catalog.sql("SELECT id FROM s.t WHERE false").to_pandas().columns.tolist() == ["id"]
    with pytest.raises(TableNotFoundError) as caught:
        catalog.sql("SELECT * FROM s.nope")
    assert "s.nope" in str(caught.value)
    for wrong in ("SELEC 1", "SELECT nope FROM s.t", "DROP TABLE s.t", "SELECT 1; SELECT 2", ""):
        with pytest.raises((QueryError, InvalidInputError)):
            catalog.sql(wrong)


def test_an_error_between_rows_keeps_its_type(table):
    from pathlib import Path

    gone = table.file_uris("day = 'c'")[0]
    Path(gone).unlink()
    with pytest.raises(QueryError, match="s.t"):
        table.to_arrow()
    with pytest.raises(QueryError):
        table.to_polars()
    # Where another library reads the stream, its error has the text.
    with pytest.raises(Exception, match="s.t"):
        pa.table(table)
