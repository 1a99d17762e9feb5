"""Restoring versions, overwriting partitions, cutting over."""

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from test_write import Ours, Theirs, plain, rows

from deltalakedb.exceptions import (
    DeltaLakeDbError,
    InvalidInputError,
    SchemaMismatchError,
    VersionNotFoundError,
)

UTC = dt.timezone.utc


def restores(on):
    on.write(rows(1, 2), mode="append")
    on.write(rows(3), mode="append")
    on.delete("id = 1")
    on.restored = on.table.restore(1)
    on.write(rows(9), mode="append")


def restores_the_schema(on):
    on.write(rows(1), mode="append")
    on.write(pa.table({"other": [1]}), mode="overwrite", schema_mode="overwrite")
    on.restored = on.table.restore(0)


@pytest.mark.parametrize("operations", [restores, restores_the_schema])
def test_a_version_is_restored_as_by_deltalake(catalog, lake, operations):
    ours, theirs = Ours(catalog, lake), Theirs(lake)
    operations(theirs)
    operations(ours)
    assert plain(ours.result()) == plain(theirs.result())
    assert ours.restored == theirs.restored
    published = deltalake.DeltaTable(ours.lake + "/ours")
    assert plain(published.to_pyarrow_table()) == plain(theirs.result())
    assert ours.diff()["verdict"] == "parity"


def test_a_time_is_restored(lite, lake):
    table = lite.write("t", rows(1), location=lake)
    first = table.timestamp()
    table.write(rows(2), mode="overwrite")
    table.restore(first, token="back")
    assert plain(table) == plain(rows(1)) and table.history(1)[0]["operation"] == "RESTORE"
    version = table.version()
    assert table.restore(first, token="back") == {} and table.version() == version
    assert plain(table.at(1)) == plain(rows(2))


def test_a_restore_that_is_wrong(lite, lake):
    table = lite.write("t", rows(1), location=lake)
    table.write(rows(2), mode="overwrite")
    for target, kind in [
        (7, VersionNotFoundError), (-1, InvalidInputError), (1, InvalidInputError), ("soon", InvalidInputError),
        (True, InvalidInputError), (None, InvalidInputError), (dt.datetime(2026, 1, 1), InvalidInputError),
    ]:
        with pytest.raises(kind):
            table.restore(target)
    with pytest.raises(InvalidInputError, match="protocol"):
        table.restore(0, protocol_downgrade_allowed=True)
    # What vacuum has deleted does not come back.
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(DeltaLakeDbError) as caught:
        table.restore(0)
    assert "parquet" in str(caught.value) and caught.value.table == "default.t"
    assert lite.table("t").version() == 1


# ---- partitions ----

#: Values of two partitions, one of which is overwritten, and null.
VALUES = {
    "long": (pa.int64(), [1, -(2**63), None]),
    "int": (pa.int32(), [1, 2, None]),
    "string": (pa.string(), ["it's", "a/b=c %41 é", None]),
    "date": (pa.date32(), [dt.date(2026, 1, 31), dt.date(1, 1, 1), None]),
    "timestamp": (
        pa.timestamp("us", "UTC"),
        [dt.datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC), dt.datetime(2026, 1, 1, tzinfo=UTC), None],
    ),
    "timestamp_ntz": (pa.timestamp("us"), [dt.datetime(2026, 1, 1, 0, 0, 0, 5), dt.datetime(1500, 1, 1), None]),
    "decimal(10,2)": (pa.decimal128(10, 2), [Decimal("1.50"), Decimal("-2.25"), None]),
    "boolean": (pa.bool_(), [True, False, None]),
    "double": (pa.float64(), [0.1, 1e10, None]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_partitions_of_the_rows_are_overwritten(lite, lake, kind):
    arrow, values = VALUES[kind]
    data = lambda n, of: pa.table({"p": pa.array(of, arrow), "n": [n] * len(of)})  # noqa: E731
    table = lite.write("t", data(0, values), location=lake, partition_by="p")
    table.write(data(1, [values[0], None, values[0]]), mode="overwrite_partitions")
    expected = data(1, [values[0], None, values[0]]).to_pylist() + data(0, [values[1]]).to_pylist()
    assert sorted(map(repr, table.to_arrow().to_pylist())) == sorted(map(repr, expected))
    assert table.diff()["verdict"] == "parity"


def test_partitions_of_several_columns(catalog, lake):
    data = lambda n, a, b: pa.table({"a": a, "b": b, "n": [n] * len(a)})  # noqa: E731
    table = catalog.write("t", data(0, [1, 1, 2, 2], ["x", "y", "x", None]), location=lake, partition_by=["a", "b"])
    assert table.num_files == 4
    # A stream that can be read once only.
    new = data(1, [1, 2], ["y", None])
    table.write(pa.RecordBatchReader.from_batches(new.schema, iter(new.to_batches())), mode="overwrite_partitions")
    got = sorted(((r["a"], r["b"], r["n"]) for r in table.to_arrow().to_pylist()), key=repr)
    assert got == sorted([(1, "x", 0), (2, "x", 0), (1, "y", 1), (2, None, 1)], key=repr)
    # Nothing replaces nothing.
    table.write(new.slice(0, 0), mode="overwrite_partitions")
    assert table.to_arrow().num_rows == 4
    for _ in range(2):
        table.write(new, mode="overwrite_partitions", token="once")
    assert table.to_arrow().num_rows == 4
    with catalog.transaction() as tx:
        tx.table("t").write(data(2, [1], ["x"]), mode="overwrite_partitions")
        assert tx.table("t").rows(filter="n = 0").to_arrow().to_pydict() == {"a": [2], "b": ["x"], "n": [0]}
    made = catalog.write("new", new, mode="overwrite_partitions", location=lake + "new", partition_by="a")
    assert made.to_arrow().num_rows == 2


def test_partitions_that_cannot_be_overwritten(lite, lake):
    plain_table = lite.write("t", rows(1), location=lake)
    with pytest.raises(InvalidInputError, match="no partitions"):
        plain_table.write(rows(2), mode="overwrite_partitions")
    parted = lite.write("p", pa.table({"p": [1], "n": [1]}), location=lake + "p", partition_by="p")
    for data, options, kind in [
        (pa.table({"p": [2], "n": [1]}), {"predicate": "p = 2"}, InvalidInputError),
        (pa.table({"p": [2], "n": [1]}), {"schema_mode": "overwrite"}, InvalidInputError),
        (pa.table({"p": ["x"], "n": [1]}), {}, DeltaLakeDbError),
        (pa.table({"p": [2], "other": [1]}), {}, SchemaMismatchError),
        (pa.table({"p": range(1001), "n": range(1001)}), {}, InvalidInputError),
    ]:
        with pytest.raises(kind):
            parted.write(data, mode="overwrite_partitions", **options)
    assert lite.table("p").version() == 0
    parted.write(pa.table({"p": range(1000), "n": [7] * 1000}), mode="overwrite_partitions")
    assert parted.to_arrow().num_rows == 1000 and parted.to_arrow(filter="n = 1").num_rows == 0


# ---- cutover ----


def test_an_imported_table_is_cut_over(lite, lake):
    deltalake.write_deltalake(lake, rows(1, 2))
    lite.import_table(lake, "s.t")
    table = lite.table("s.t")
    assert table.cutover() == 1 and table.version() == 1
    assert table.cutover() is None
    table.write(rows(3))
    # Readers read on, writers are kept out.
    assert deltalake.DeltaTable(lake).to_pyarrow_table().num_rows == 3
    with pytest.raises(Exception, match="(?i)feature"):
        deltalake.write_deltalake(lake, rows(4), mode="append")


def test_a_table_with_foreign_commits_is_not_cut_over(lite, lake):
    deltalake.write_deltalake(lake, rows(1, 2))
    lite.import_table(lake, "s.t")
    deltalake.write_deltalake(lake, rows(3), mode="append")
    with pytest.raises(DeltaLakeDbError) as caught:
        lite.table("s.t").cutover()
    assert caught.value.table == "s.t"
    assert lite.table("s.t").version() == 0


def test_a_log_that_was_changed_is_not_cut_over(lite, lake):
    deltalake.write_deltalake(lake, rows(1, 2))
    lite.import_table(lake, "s.t")
    first = Path(lake) / "_delta_log" / f"{0:020}.json"
    assert first.is_file() and os.path.getsize(first) > 0
    first.write_text(first.read_text().replace('"size":', '"size":1'))
    with pytest.raises(InvalidInputError, match="diff"):
        lite.table("s.t").cutover()
    assert lite.table("s.t").cutover(skip_diff=True) == 1
