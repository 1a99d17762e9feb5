"""Rows in, beside what `deltalake` does on a plain table."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import deltalake
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from deltalakedb import Table, write_deltalake
from deltalakedb.exceptions import (
    ConflictError,
    DeltaLakeDbError,
    InvalidInputError,
    QueryError,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
)

UTC = dt.timezone.utc


def rows(*ids, day="a"):
    return pa.table({"id": pa.array(ids, pa.int64()), "day": [day] * len(ids), "x": [i * 1.5 for i in ids]})


def plain(table):
    """Rows in an order of their own."""
    table = pa.table(table)
    names = sorted(table.schema.names)
    return sorted((tuple(row[name] for name in names) for row in table.to_pylist()), key=repr)


# ---- the same operations on both ----


class Ours:
    def __init__(self, catalog, lake):
        self.catalog, self.lake, self.table = catalog, lake, None

    def write(self, data, **options):
        self.table = self.catalog.write("s.t", data, location=self.lake + "/ours", **options)

    def __getattr__(self, name):
        return getattr(self.table, name)

    def result(self):
        return self.table.to_arrow()


class Theirs:
    def __init__(self, lake):
        self.path, self.table = lake + "/theirs", None

    def write(self, data, **options):
        deltalake.write_deltalake(self.path, data, **options)
        self.table = deltalake.DeltaTable(self.path)

    def __getattr__(self, name):
        return getattr(self.table, name)

    def result(self):
        return self.table.to_pyarrow_table()


def appends(on):
    on.write(rows(1, 2), mode="append")
    on.write(rows(3), mode="append")


def overwrites(on):
    appends(on)
    on.write(rows(7, 8), mode="overwrite")


def overwrites_a_part(on):
    on.write(rows(1, 2, day="a"), mode="append", partition_by="day")
    on.write(rows(3, 4, day="b"), mode="append")
    on.write(rows(9, day="b"), mode="overwrite", predicate="day = 'b'")


def ignores(on):
    appends(on)
    on.write(rows(9), mode="ignore")


def merges_schemas(on):
    appends(on)
    on.write(rows(4).append_column("new", pa.array(["n"])), mode="append", schema_mode="merge")


def replaces_the_schema(on):
    appends(on)
    on.write(pa.table({"other": [1]}), mode="overwrite", schema_mode="overwrite")


def deletes(on):
    on.write(rows(*range(10)), mode="append")
    on.delete("id % 2 = 0 AND x > 3")


def deletes_all(on):
    appends(on)
    on.delete()


def updates(on):
    on.write(rows(*range(10)), mode="append")
    on.update(updates={"x": "x * 2", "day": "'z'"}, predicate="id > 5")
    on.update(new_values={"x": -1.0, "day": "its"}, predicate="id = 0")


def writes_nothing(on):
    on.write(rows(1), mode="append")
    on.write(rows(), mode="append")


def writes_partitions(on):
    names = ["é", "a b", "50%", "x=y", "日本", None]
    on.write(pa.table({"p": names, "n": range(len(names))}), mode="append", partition_by=["p"])


def merges(on):
    on.write(rows(*range(5)), mode="append")
    source = rows(3, 4, 5, 6, day="new")
    on.merge(source, "target.id = source.id", "source", "target").when_matched_update(
        {"day": "source.day", "target.x": "target.x + source.x"}, predicate="source.id < 4"
    ).when_matched_delete().when_not_matched_insert_all().execute()


def upserts(on):
    on.write(rows(*range(5)), mode="append")
    on.merge(rows(4, 5, day="new"), "t.id = s.id", "s", "t").when_matched_update_all(
        except_cols=["x"]
    ).when_not_matched_insert({"id": "s.id", "`day`": "'inserted'"}).when_not_matched_by_source_update(
        {"x": "-1.0"}, predicate="t.id = 0"
    ).when_not_matched_by_source_delete(predicate="t.id = 1").execute()


def compacts(on):
    for number in range(5):
        on.write(rows(number), mode="append")
    on.optimize.compact()


def orders(on):
    for number in range(5):
        on.write(rows(number), mode="append")
    on.optimize.z_order(["x", "id"])


@pytest.mark.parametrize(
    "operations",
    [
        merges, upserts, compacts, orders,
        appends, overwrites, overwrites_a_part, ignores, merges_schemas, replaces_the_schema, deletes,
        deletes_all, updates, writes_nothing, writes_partitions,
    ],
)
def test_the_results_are_those_of_deltalake(catalog, lake, operations):
    ours, theirs = Ours(catalog, lake), Theirs(lake)
    operations(theirs)
    operations(ours)
    assert plain(ours.result()) == plain(theirs.result())
    assert sorted(ours.result().schema.names) == sorted(theirs.result().schema.names)
    # And so are those of the published log.
    published = deltalake.DeltaTable(ours.lake + "/ours")
    assert plain(published.to_pyarrow_table()) == plain(theirs.result())
    assert published.version() == ours.version()
    assert ours.diff()["verdict"] == "parity"


def test_metrics_have_the_names_of_deltalake(lite, lake):
    ours, theirs = Ours(lite, lake), Theirs(lake)
    for on in (ours, theirs):
        on.write(rows(*range(10)), mode="append")
    assert set(theirs.delete("id = 1")) <= set(ours.delete("id = 1")) | {"scan_time_ms"}
    mine, other = ours.update({"x": "0.0"}, predicate="id = 2"), theirs.update({"x": "0.0"}, predicate="id = 2")
    assert mine["num_updated_rows"] == other["num_updated_rows"] == 1


# ---- sources ----


def generated():
    schema = pa.schema([("id", pa.int64()), ("day", pa.string()), ("x", pa.float64())])
    return pa.RecordBatchReader.from_batches(schema, (rows(i).to_batches()[0] for i in range(3)))


SOURCES = {
    "pyarrow table": lambda: rows(0, 1, 2),
    "pyarrow batch": lambda: rows(0, 1, 2).to_batches()[0],
    "pyarrow batches": lambda: rows(0, 1, 2).to_batches(),
    "pyarrow reader": generated,
    "pandas": lambda: rows(0, 1, 2).to_pandas(),
    "pandas, filtered": lambda: rows(5, 0, 1, 2).to_pandas().query("id < 5"),
    "pandas, with an index": lambda: rows(0, 1, 2).to_pandas().set_index("id"),
    "polars": lambda: pl.from_arrow(rows(0, 1, 2)),
    "duckdb": lambda: duckdb.sql("SELECT range AS id, 'a' AS day, CAST(range * 1.5 AS DOUBLE) AS x FROM range(3)"),
    "arro3": lambda: __import__("arro3.core").core.Table.from_arrow(rows(0, 1, 2)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_rows_come_from_each_library(lite, lake, source):
    table = lite.write("t", SOURCES[source](), location=lake)
    assert plain(table) == plain(rows(0, 1, 2))


def test_rows_come_from_a_query_and_from_a_table(lite, lake):
    first = lite.write("a", rows(1, 2), location=lake)
    second = lite.write("b", first, location=lake + "b")
    second.write(lite.sql("SELECT id + 10 AS id, day, x FROM a"))
    assert second.to_arrow(columns=["id"]).sort_by("id")["id"].to_pylist() == [1, 2, 11, 12]


@pytest.mark.parametrize("wrong", [None, 5, "rows", [], [{"id": 1}], {"id": [1]}, object()])
def test_what_has_no_rows_is_refused(lite, lake, wrong):
    with pytest.raises(InvalidInputError, match="rows must come as"):
        lite.write("t", wrong, location=lake)


def test_a_lazy_frame_says_what_to_do(lite, lake):
    with pytest.raises(InvalidInputError, match="collect"):
        lite.write("t", pl.LazyFrame({"a": [1]}), location=lake)


def test_a_source_that_fails_leaves_nothing(lite, lake):
    table = lite.write("t", rows(1), location=lake)

    def broken():
        yield rows(2).to_batches()[0]
        raise RuntimeError("the source broke")

    reader = pa.RecordBatchReader.from_batches(rows(1).schema, broken())
    with pytest.raises(QueryError, match="the source broke"):
        table.write(reader)
    assert lite.table("t").version() == 0 and plain(lite.table("t")) == plain(rows(1))


# ---- types ----


def test_types_are_kept_or_named(lite, lake):
    data = pa.table(
        {
            "i8": pa.array([1, None], pa.int8()),
            "u32": pa.array([4_000_000_000, None], pa.uint32()),
            "f32": pa.array([1.5, float("nan")], pa.float32()),
            "dec": pa.array([Decimal("1.05"), None], pa.decimal128(10, 2)),
            "flag": pa.array([True, None]),
            "large": pa.array(["é", None], pa.large_string()),
            "view": pa.array(["v", None], pa.string_view()),
            "dict": pa.array(["d", None]).dictionary_encode(),
            "bin": pa.array([b"\x00\xff", None], pa.large_binary()),
            "date": pa.array([dt.date(2026, 1, 31), None]),
            "utc": pa.array([dt.datetime(2026, 1, 31, 12, tzinfo=UTC), None], pa.timestamp("ms", "UTC")),
            "berlin": pa.array([dt.datetime(2026, 1, 31, 12, tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")),
            "naive": pa.array([dt.datetime(1969, 7, 20, 20, 17), None], pa.timestamp("ns")),
            "list": pa.array([[1, None], None], pa.large_list(pa.int32())),
            "struct": pa.array([{"a": 1, "b": "x"}, None]),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    got = lite.write("t", data, location=lake).to_arrow()
    assert [str(t) for t in got.schema.types[:13]] == [
        "int8", "int64", "float", "decimal128(10, 2)", "bool", "string", "string", "string", "binary",
        "date32[day]", "timestamp[us, tz=UTC]", "timestamp[us, tz=UTC]", "timestamp[us]",
    ]
    for name in ("i8", "u32", "dec", "flag", "large", "view", "dict", "bin", "date", "utc", "list", "struct", "map"):
        assert got[name].to_pylist() == data[name].to_pylist(), name
    assert got["berlin"].to_pylist()[0] == dt.datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert got["naive"].to_pylist()[0] == dt.datetime(1969, 7, 20, 20, 17)


def test_a_column_without_values_gets_the_tables_type_or_an_error(lite, lake):
    """Void columns that no reader takes: delta-io/delta-rs#1110 and others."""
    nothing = pa.table({"id": [1], "note": pa.nulls(1)})
    with pytest.raises(SchemaMismatchError, match="column 'note' has no values") as caught:
        lite.write("t", nothing, location=lake)
    assert caught.value.table == "default.t"
    assert lite.list_tables() == []
    with pytest.raises(SchemaMismatchError, match="column 'note'"):
        lite.write("t", pd.DataFrame({"id": [1], "note": [None]}), location=lake)
    with pytest.raises(SchemaMismatchError, match="column 'deep'"):
        lite.write("t", pa.table({"deep": pa.array([{"x": None}])}), location=lake)
    table = lite.create_table("t", "id long, note string", location=lake)
    table.write(nothing)
    table.write(pl.DataFrame({"id": [2], "note": [None]}))
    assert table.to_arrow().schema.field("note").type == pa.string()
    assert table.to_arrow()["note"].to_pylist() == [None, None]
    with pytest.raises(SchemaMismatchError, match="column 'new' has no values"):
        table.write(nothing.append_column("new", pa.nulls(1)), schema_mode="merge")


def test_values_are_written_exactly_or_not_at_all(lite, lake):
    table = lite.create_table("t", "b byte, d decimal(4,2), s string", location=lake)
    for wrong in ({"b": [300]}, {"d": [Decimal("1.005")]}, {"d": [Decimal("100.00")]}):
        with pytest.raises(DeltaLakeDbError) as caught:
            table.write(pa.table(wrong), schema_mode="merge")
        assert next(iter(wrong)) in str(caught.value), caught.value
    table.write(pa.table({"b": [100], "d": [Decimal("1.5")]}), schema_mode="merge")
    assert table.to_arrow()["b"].to_pylist() == [100]
    with pytest.raises(DeltaLakeDbError, match="'b'"):
        table.write(pa.table({"b": ["text"]}), schema_mode="merge")


def test_columns_must_be_those_of_the_table(lite, lake):
    table = lite.write("t", rows(1), location=lake)
    with pytest.raises(SchemaMismatchError, match=r"no column new.*schema_mode=\"merge\"") as caught:
        table.write(rows(1).append_column("new", pa.array([1])))
    assert caught.value.code == "schema_mismatch" and isinstance(caught.value, ValueError)
    with pytest.raises(SchemaMismatchError, match="no column x"):
        table.write(rows(1).drop_columns(["x"]))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    with pytest.raises(SchemaMismatchError, match="two columns of the rows are called 'id'"):
        table.write(twice)
    with pytest.raises(SchemaMismatchError, match="no columns"):
        table.write(pa.table({}))
    # In any order.
    table.write(rows(2).select(["x", "id", "day"]))
    assert plain(table) == plain(rows(1, 2))


# ---- options ----


def test_modes_and_options_that_do_not_fit(lite, lake):
    table = lite.write("t", rows(1), location=lake, partition_by="day")
    with pytest.raises(TableExistsError):
        lite.write("t", rows(2))
    for options, text in [
        ({"mode": "replace"}, "mode must be"),
        ({"schema_mode": "add"}, "schema_mode must be"),
        ({"predicate": "id = 1"}, "predicate goes with"),
        ({"schema_mode": "overwrite"}, "goes with mode"),
        ({"mode": "overwrite", "predicate": "id ="}, "predicate"),
        ({"mode": "overwrite", "predicate": "nope = 1"}, "nope"),
        ({"partition_by": ["id"]}, "partitioned by"),
        ({"target_file_size": 0}, "target_file_size"),
        ({"token": ""}, "token"),
    ]:
        with pytest.raises(InvalidInputError, match=text):
            table.write(rows(2), **options)
    assert lite.table("t").version() == 0


def test_changes_that_do_not_fit(lite, lake):
    table = lite.write("t", rows(1), location=lake)
    for change in [
        lambda: table.delete("nope = 1"),
        lambda: table.delete("id ="),
        lambda: table.update({"nope": "1"}),
        lambda: table.update({"x": "nope"}),
        lambda: table.update({}),
        lambda: table.update(),
        lambda: table.update(new_values={"x": object()}),
    ]:
        with pytest.raises(InvalidInputError):
            change()
    table.update(new_values={"day": "it's", "x": None}, predicate="id = 1")
    assert table.to_arrow().to_pylist() == [{"id": 1, "day": "it's", "x": None}]
    lite.drop("t")
    # What has its name now is another table.
    other = lite.write("t", rows(5), location=lake + "2")
    for change in (lambda: table.write(rows(1)), table.delete, lambda: table.update({"x": "1.0"}), table.at):
        with pytest.raises(TableNotFoundError):
            change()
    assert plain(lite.table("t")) == plain(rows(5)) and lite.table("t").version() == other.version()


def test_a_token_takes_effect_once(catalog, lake):
    table = catalog.create_table("t", "id long, day string, x double", location=lake)
    for _ in range(3):
        table.write(rows(1), token="load-1")
    assert table.version() == 1 and plain(table) == plain(rows(1))
    for _ in range(2):
        table.delete("id = 1", token="gone")
    assert table.version() == 2
    for _ in range(2):
        made = catalog.create_table("u", "id long", location=lake + "u", token="make-u")
    assert made.version() == 0


def test_a_new_table_lies_beside_the_catalog(lite, tmp_path):
    table = lite.write("sales.orders", rows(1), mode="append", configuration={"delta.appendOnly": "true"})
    assert Path(table.file_uris()[0]).is_relative_to(tmp_path / "sales" / "orders")
    assert table.metadata().configuration["delta.appendOnly"] == "true"


def test_moving_means_changing_an_import_and_a_url(lite, tmp_path):
    uri = f"delta+sql://{lite.url}/s.t"
    write_deltalake(uri, rows(1, 2), partition_by=["day"])
    with pytest.raises(TableExistsError):
        write_deltalake(uri, rows(1))
    write_deltalake(uri, rows(3), mode="append")
    table = Table(uri)
    assert table.version() == 1 and table.to_pandas().shape == (3, 3)
    write_deltalake(table, rows(4), mode="overwrite")
    assert table.version() == 2 and table.to_pyarrow_table().num_rows == 1


def test_merges_and_optimizations_that_do_not_fit(lite, lake):
    table = lite.write("t", rows(1, 2), location=lake)
    source = rows(2, 3)
    for call in [
        lambda: table.merge(source, "target.id = source.id").execute(),
        lambda: table.merge(source, "target.id =").when_matched_delete().execute(),
        lambda: table.merge(source, "target.nope = source.id").when_matched_delete().execute(),
        lambda: table.merge(source, "target.id = source.id").when_matched_update({"nope": "1"}).execute(),
        lambda: table.merge(source, "target.id = source.id").when_matched_update({"x": "nope"}).execute(),
        lambda: table.merge(source, "target.id = source.id").when_matched_update({}),
        lambda: table.merge([1], "target.id = source.id"),
        lambda: table.optimize.z_order([]),
        lambda: table.optimize.z_order(["nope"]),
        lambda: table.optimize.compact(target_size=-1),
        lambda: table.vacuum(retention_hours=-1),
        lambda: table.vacuum(retention_hours=0),
    ]:
        with pytest.raises(InvalidInputError):
            call()
    assert lite.table("t").version() == 0


def test_a_merge_with_a_token_takes_effect_once(lite, lake):
    table = lite.write("t", rows(1), location=lake)
    for expected in (1, None):
        merge = table.merge(rows(2), "target.id = source.id", token="m-1").when_not_matched_insert_all()
        assert merge.execute().get("num_target_rows_inserted") == expected
    assert table.version() == 1 and plain(table) == plain(rows(1, 2))


def test_compaction_and_vacuum(lite, lake):
    table = lite.write("t", rows(0), location=lake)
    for number in range(1, 4):
        table.write(rows(number))
    old = table.file_uris()
    metrics = table.optimize.compact()
    assert (metrics["numFilesAdded"], metrics["numFilesRemoved"], table.num_files) == (1, 4, 1)
    assert table.vacuum() == []
    looked = table.vacuum(retention_hours=0, enforce_retention_duration=False)
    assert len(looked) == 4 and all(Path(uri).is_file() for uri in old)
    gone = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert sorted(gone) == sorted(looked) and not any(Path(uri).exists() for uri in old)
    assert plain(table) == plain(rows(0, 1, 2, 3))


# ---- transactions ----


def test_a_transaction_reads_what_it_wrote(catalog, lake):
    table = catalog.write("s.t", rows(1, 2), location=lake)
    with catalog.transaction() as tx:
        inside = tx.table("s.t")
        inside.write(rows(3))
        inside.delete("id = 1")
        assert plain(inside.rows().to_arrow()) == plain(rows(2, 3))
        assert inside.rows(["id"], "x > 4").to_arrow().to_pydict() == {"id": [3]}
        # Others do not see it yet.
        assert plain(catalog.table("s.t")) == plain(rows(1, 2))
    table.update_incremental()
    assert table.version() == 1 and plain(table) == plain(rows(2, 3))


def test_a_transaction_is_all_or_nothing(catalog, lake):
    one = catalog.create_table("s.one", "id long, day string, x double", location=lake + "1")
    two = catalog.create_table("s.two", "id long, day string, x double", location=lake + "2")
    with catalog.transaction() as tx:
        tx.table("s.one").write(rows(1))
        tx.table("s.two").write(rows(2))
        tx.table("s.one").update({"x": "x + 1"})
        tx.table("s.three").write(rows(3), location=lake + "3")
    assert sorted(t["table"] for t in tx.commit_info["tables"]) == ["s.one", "s.three", "s.two"]
    one.update_incremental(), two.update_incremental()
    assert (one.version(), two.version()) == (1, 1)
    assert one.to_arrow()["x"].to_pylist() == [2.5]
    with pytest.raises(ZeroDivisionError), catalog.transaction() as tx:
        tx.table("s.one").write(rows(9))
        tx.table("s.two").delete()
        1 / 0
    with pytest.raises(SchemaMismatchError), catalog.transaction() as tx:
        tx.table("s.one").write(rows(9))
        tx.table("s.two").write(pa.table({"other": [1]}))
    assert catalog.table("s.one").version() == catalog.table("s.two").version() == 1
    with pytest.raises(InvalidInputError, match="has ended"):
        tx.table("s.one").write(rows(1))
    with catalog.transaction() as tx:
        pass
    assert tx.commit_info is None


def test_a_conflict_names_the_table_and_the_version(catalog, lake):
    table = catalog.write("s.t", rows(1, 2), location=lake)
    with pytest.raises(ConflictError) as caught, catalog.transaction() as tx:
        tx.table("s.t").delete("id = 1")
        table.delete("id = 1")
    assert caught.value.tables == ["s.t"] and caught.value.versions == {"s.t": 1}
    assert caught.value.code == "conflict" and caught.value.kind
    assert catalog.table("s.t").version() == 1


def test_a_transaction_with_a_token_takes_effect_once(catalog, lake):
    catalog.create_table("t", "id long, day string, x double", location=lake)
    for attempt in range(2):
        with catalog.transaction("batch-7") as tx:
            assert tx.replayed == (attempt == 1)
            tx.table("t").write(rows(1))
        assert tx.commit_info["tables"][0]["version"] == 1
    assert catalog.table("t").version() == 1
