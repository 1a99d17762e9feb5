"""Catalogs, tables, versions, files, history."""

from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

import deltalakedb
from deltalakedb import Catalog, Table
from deltalakedb.exceptions import (
    CatalogClosedError,
    InvalidInputError,
    SchemaMismatchError,
    SchemaVersionError,
    TableExistsError,
    TableNotFoundError,
    VersionNotFoundError,
)

COLUMNS = "id long not null, day date, note string"


def days(*numbers):
    rows = [datetime(2026, 1, number).date() for number in numbers]
    return pa.table({"id": pa.array(numbers, pa.int64()), "day": rows, "note": ["n"] * len(numbers)})


def test_a_table_is_made_listed_and_opened(catalog, lake):
    made = catalog.create_table(
        "sales.orders", COLUMNS, location=lake, partition_by="day", description="what was sold",
        configuration={"delta.appendOnly": True},
    )
    assert (made.name, made.version(), made.num_files) == ("sales.orders", 0, 0)
    assert [table["table"] for table in catalog.list_tables()] == ["sales.orders"]
    assert catalog.list_tables("other") == []
    metadata = made.metadata()
    assert metadata.partition_columns == ["day"]
    assert metadata.description == "what was sold"
    assert metadata.configuration["delta.appendOnly"] == "true"
    assert made.protocol().min_writer_version >= 2
    assert catalog.table(made.id).name == "sales.orders"
    # Published, for every Delta reader.
    assert made.wait_published(10)["version"] == 0
    assert made.mirror_status()["published_version"] == 0
    assert made.diff()["verdict"] == "parity"


def test_a_schema_comes_from_text_or_from_arrow(lite, lake):
    arrow = pa.schema(
        [
            pa.field("id", pa.uint32(), nullable=False),
            pa.field("at", pa.timestamp("ns", "Europe/Berlin")),
            pa.field("naive", pa.timestamp("ms")),
            pa.field("tags", pa.large_list(pa.string_view())),
            pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
            pa.field("price", pa.decimal128(10, 2)),
        ]
    )
    table = lite.create_table("t", arrow, location=lake)
    got = pa.schema(table.schema())
    assert got.field("id").type == pa.int64() and not got.field("id").nullable
    assert got.field("at").type == pa.timestamp("us", "UTC")
    assert got.field("naive").type == pa.timestamp("us")
    assert got.field("tags").type.value_type == pa.string()
    assert got.field("kind").type == pa.string()
    assert got.field("price").type == pa.decimal128(10, 2)
    with pytest.raises(SchemaMismatchError, match="column 'x' is of type null"):
        lite.create_table("n", pa.schema([("x", pa.null())]), location=lake + "n")
    with pytest.raises(SchemaMismatchError, match="column 'd': Delta has no type"):
        lite.create_table("d", pa.schema([("d", pa.duration("s"))]), location=lake + "d")
    with pytest.raises(InvalidInputError, match="__arrow_c_schema__"):
        lite.create_table("e", {"id": "long"}, location=lake + "e")


def test_versions_by_number_and_by_time(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    for day in (1, 2, 3):
        table.write(days(day))
    assert table.version() == 3
    assert catalog.table("t", version=1).num_files == 1
    times = [line["timestamp"] for line in table.history()]
    assert times == sorted(times, reverse=True) and len(times) == 4
    at_one = datetime.fromtimestamp(times[2] / 1000, timezone.utc)
    for moment in (at_one, at_one.isoformat(), times[2], at_one.astimezone(timezone(timedelta(hours=5)))):
        assert catalog.table("t", timestamp=moment).version() == 1, moment
    assert table.at(2).version() == 2
    assert table.at().version() == 3
    table.load_as_version(0)
    assert table.version() == 0
    with pytest.raises(VersionNotFoundError) as caught:
        catalog.table("t", version=9)
    assert (caught.value.earliest, caught.value.latest, caught.value.table) == (0, 3, "default.t")
    for wrong in ("yesterday", datetime(2026, 1, 1), 1.5):
        with pytest.raises(InvalidInputError, match="timestamp"):
            catalog.table("t", timestamp=wrong)
    with pytest.raises(InvalidInputError, match="not both"):
        catalog.table("t", version=1, timestamp=0)
    with pytest.raises(InvalidInputError):
        catalog.table("t", version=-1)


def test_history_says_what_was_done(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(days(1, 2), token="load-1")
    last, first = table.history()
    assert (last["version"], last["operation"], last["token"]) == (1, "WRITE", "load-1")
    assert (first["version"], first["operation"]) == (0, "CREATE TABLE")
    assert [line["version"] for line in table.history(limit=1)] == [1]
    assert table.history(limit=0) == []
    with pytest.raises(InvalidInputError, match="limit"):
        table.history(limit=-1)


def test_files_come_in_batches_and_by_predicate(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake, partition_by=["day"])
    table.write(days(*range(1, 11)))
    files = table.files(batch_size=3)
    assert [batch.num_rows for batch in files] == [3, 3, 3, 1]
    # As often as they are asked for.
    listed = pa.table(files)
    assert listed.num_rows == 10 and files.to_arrow().equals(listed)
    assert sum(listed["num_records"].to_pylist()) == 10
    assert dict(listed["partition_values"][0].as_py()).keys() == {"day"}
    assert table.files("day = '2026-01-04'").to_arrow().num_rows == 1
    assert table.files("id > 8").to_arrow().num_rows == 2
    uris = table.file_uris("id = 1")
    assert len(uris) == 1 and uris[0].endswith(".parquet")
    with pytest.raises(InvalidInputError):
        table.files("id >")
    for size in (0, 2_000_000):
        with pytest.raises(InvalidInputError, match="batch_size"):
            table.files(batch_size=size)


def test_file_uris_are_files(lite, lake):
    from pathlib import Path

    table = lite.create_table("t", "name string, n long", location=lake, partition_by="name")
    names = ["é", "a b", "50%", "x=y", "日本", "a/b", "q?#"]
    table.write(pa.table({"name": names, "n": range(len(names))}))
    assert all(Path(uri).is_file() for uri in table.file_uris())
    assert sorted(table.to_arrow()["name"].to_pylist()) == sorted(names)
    for number, name in enumerate(names):
        text = name.replace("'", "''")
        assert table.to_arrow(filter=f"name = '{text}'")["n"].to_pylist() == [number], name


def test_tables_are_dropped_and_come_back(catalog, lake):
    table = catalog.create_table("a.t", COLUMNS, location=lake)
    with pytest.raises(TableExistsError) as caught:
        catalog.create_table("a.t", COLUMNS, location=lake + "2")
    assert caught.value.table == "a.t"
    catalog.drop("a.t")
    assert catalog.list_tables() == []
    assert [gone["id"] for gone in catalog.list_tables(dropped=True)] == [table.id]
    with pytest.raises(TableNotFoundError) as caught:
        catalog.table("a.t")
    assert caught.value.table == "a.t" and caught.value.hint
    # A handle from before.
    with pytest.raises(TableNotFoundError):
        table.update_incremental()
    assert catalog.undrop(table.id, "a.again").name == "a.again"


def test_a_delta_table_is_imported(lite, lake):
    import deltalake

    deltalake.write_deltalake(lake, pa.table({"id": [1, 2, 3]}))
    said = lite.import_table(lake, "old.orders")
    assert said["head"] == 0
    assert lite.table("old.orders").to_arrow()["id"].to_pylist() == [1, 2, 3]
    with pytest.raises(TableExistsError):
        lite.import_table(lake, "old.orders")


def test_metadata_is_altered(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.alter.add_columns(["price double", "qty int"])
    table.alter.set_table_description("changed")
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 60 days"})
    table.alter.set_column_comment("note", "free text")
    table.alter.add_constraint({"positive": "id > 0"})
    assert pa.schema(table.schema()).names == ["id", "day", "note", "price", "qty"]
    assert table.metadata().description == "changed"
    assert table.version() == 5
    with pytest.raises(deltalakedb.DeltaLakeDbError):
        table.write(pa.table({"id": [-1]}), schema_mode="merge")
    table.alter.drop_constraint("positive")
    table.write(pa.table({"id": [-1]}), schema_mode="merge")


def test_a_table_is_opened_by_its_url(url, lake):
    with Catalog(url, create=True) as catalog:
        catalog.create_table("s.t", COLUMNS, location=lake)
    place, _, query = url.partition("?")
    with_password = f"delta+sql://{place}/s.t" + (f"?{query}" if query else "")
    table = Table(with_password)
    assert table.name == "s.t" and table.version() == 0
    assert table.table_uri.startswith("delta+sql://")
    assert "Table(" in repr(table) and "s.t" in table._repr_html_()
    with pytest.raises(TableNotFoundError):
        Table(with_password.replace("/s.t", "/s.no"))
    with pytest.raises(InvalidInputError, match=r"delta\+sql://"):
        Table("s3://bucket/table")


def test_a_wrong_url_says_what_is_right(tmp_path):
    for wrong in ("", "oracle://h/d", "sqlite://", "/lake/catalog.db", "postgresql://u:geheim@h"):
        with pytest.raises(deltalakedb.DeltaLakeDbError) as caught:
            Catalog(wrong)
        assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="no catalog given"):
        Catalog()
    missing = f"sqlite://{tmp_path}/none.db"
    with pytest.raises(deltalakedb.DeltaLakeDbError, match="none.db"):
        Catalog(missing)
    (tmp_path / "empty.db").touch()
    with pytest.raises(SchemaVersionError):
        Catalog(f"sqlite://{tmp_path}/empty.db")


def test_the_configuration_says_which_catalog(tmp_path, monkeypatch):
    Catalog(f"sqlite://{tmp_path}/c.db", create=True).close()
    monkeypatch.setenv("DELTA_DB_CONNECTION", f"sqlite://{tmp_path}/c.db")
    with Catalog() as catalog:
        assert catalog.url.endswith("c.db")
    monkeypatch.delenv("DELTA_DB_CONNECTION")
    (tmp_path / "dl.toml").write_text('catalog = "sqlite://./c.db"\n')
    with Catalog() as catalog:
        assert catalog.ping() >= 0


def test_a_closed_catalog_says_so(lite, lake):
    table = lite.create_table("t", COLUMNS, location=lake)
    lite.close()
    lite.close()
    for call in (lite.list_tables, lambda: lite.table("t"), table.history, lambda: lite.sql("SELECT 1")):
        with pytest.raises(CatalogClosedError) as caught:
            call()
        assert caught.value.code == "catalog_closed"


def test_numbers_of_operation(catalog, lake):
    catalog.create_table("t", COLUMNS, location=lake)
    for _ in range(3):
        catalog.table("t")
    assert catalog.ping() >= 0
    stats = catalog.cache_stats()
    assert stats["capacity_bytes"] > 0 and set(stats["kinds"])
    pool = catalog.pool_stats()
    assert pool is None or pool["limit"] >= 1
    with pytest.raises(InvalidInputError, match="timeout"):
        catalog.ping(timeout=-1)
