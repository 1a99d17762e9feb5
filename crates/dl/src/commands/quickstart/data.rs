//! The quickstart's data: a shop's customers and orders, the same on every machine.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::{Days, NaiveDate};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::failure::{Failure, Result};

/// Columns of `customers`.
pub(super) const CUSTOMERS: &str = "customer_id long not null, name string, country string, \
                                    credit decimal(10,2), signed_up timestamp";
/// Columns of `orders`.
pub(super) const ORDERS: &str = "order_id long not null, customer_id long not null, \
                                 amount decimal(12,2), status string, note string, \
                                 ordered_at timestamp, order_date date";
/// Partition column of `orders`.
pub(super) const ORDERS_PARTITION: &str = "order_date";

/// Days in the first load.
pub(super) const FIRST_DAYS: u64 = 10;
/// Days that come one by one: enough for a checkpoint and a commit after it.
pub(super) const LATER_DAYS: u64 = 10;
const FIRST_CUSTOMERS: i64 = 1_000;
const CUSTOMERS_A_DAY: i64 = 20;
const ORDERS_A_DAY: i64 = 200;

const MICROS_A_DAY: i64 = 86_400_000_000;
const COUNTRIES: &[&str] = &["DE", "FR", "PL", "IT", "ES", "NL", "SE", "AT"];
const FIRST_NAMES: &[&str] =
    &["Ada", "Björn", "Chloé", "Dmitri", "Eszter", "Fatima", "Gül", "Hiro", "Inês", "Jürgen"];
const LAST_NAMES: &[&str] =
    &["Almeida", "Berg", "Costa", "Dubois", "Eriksson", "Fischer", "García", "Horváth"];
const STATUSES: &[&str] = &["paid", "paid", "paid", "shipped", "shipped", "returned"];

/// A day of the shop, counted from its first.
pub(super) fn day(number: u64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, 1)
        .unwrap_or_default()
        .checked_add_days(Days::new(number))
        .unwrap_or_default()
}

fn days_since_epoch(date: NaiveDate) -> i32 {
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).unwrap_or(0)
}

/// Path of a file of `customers`, below its root: the first load, or the sign-ups of a later day.
pub(super) fn customers_path(day_number: Option<u64>) -> String {
    match day_number {
        None => "first.parquet".to_owned(),
        Some(number) => format!("signups-{}.parquet", day(number)),
    }
}

/// Path of a day's file of `orders`, below its root.
pub(super) fn orders_path(day_number: u64) -> String {
    format!("{ORDERS_PARTITION}={}/orders.parquet", day(day_number))
}

/// Path of the corrected file of the first day.
pub(super) fn corrected_path() -> String {
    format!("{ORDERS_PARTITION}={}/orders-corrected.parquet", day(0))
}

/// Files that [`write_customers`] and [`write_orders`] make.
pub(super) fn number_of_files() -> u64 {
    1 + LATER_DAYS + FIRST_DAYS + LATER_DAYS + 1
}

/// All files of `customers`.
pub(super) fn write_customers(root: &Path) -> Result<()> {
    write(root, &customers_path(None), || customers(0, FIRST_CUSTOMERS, 0))?;
    for number in 0..LATER_DAYS {
        let from = FIRST_CUSTOMERS + signed(number) * CUSTOMERS_A_DAY;
        let path = customers_path(Some(FIRST_DAYS + number));
        write(root, &path, || customers(from, CUSTOMERS_A_DAY, FIRST_DAYS + number))?;
    }
    Ok(())
}

/// All files of `orders`.
pub(super) fn write_orders(root: &Path) -> Result<()> {
    for number in 0..FIRST_DAYS + LATER_DAYS {
        write(root, &orders_path(number), || orders(number, false))?;
    }
    write(root, &corrected_path(), || orders(0, true))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(0)
}

fn customers(from: i64, rows: i64, day_number: u64) -> Result<RecordBatch> {
    let ids: Vec<i64> = (from..from + rows).collect();
    let schema = Schema::new(vec![
        Field::new("customer_id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("country", DataType::Utf8, true),
        Field::new("credit", DataType::Decimal128(10, 2), true),
        Field::new("signed_up", timestamp_type(), true),
    ]);
    let name = |id: &i64| format!("{} {}", pick(FIRST_NAMES, *id, 1), pick(LAST_NAMES, *id, 2));
    let midnight = i64::from(days_since_epoch(day(day_number))) * MICROS_A_DAY;
    batch(
        schema,
        vec![
            Arc::new(Int64Array::from(ids.clone())),
            Arc::new(StringArray::from_iter_values(ids.iter().map(name))),
            Arc::new(StringArray::from_iter_values(ids.iter().map(|id| pick(COUNTRIES, *id, 3)))),
            Arc::new(
                // Every seventh customer has no credit line.
                ids.iter()
                    .map(|id| (id % 7 != 0).then(|| i128::from(below(*id, 4, 1_000_000))))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(10, 2)
                    .map_err(bad_data)?,
            ),
            timestamps(ids.iter().map(|id| midnight + below(*id, 5, MICROS_A_DAY))),
        ],
    )
}

fn orders(day_number: u64, corrected: bool) -> Result<RecordBatch> {
    let first = signed(day_number) * ORDERS_A_DAY;
    let ids: Vec<i64> = (first..first + ORDERS_A_DAY).collect();
    let customers = if day_number < FIRST_DAYS {
        FIRST_CUSTOMERS
    } else {
        FIRST_CUSTOMERS + signed(day_number - FIRST_DAYS + 1) * CUSTOMERS_A_DAY
    };
    // The partition column is in the path only, as Delta writers do it.
    let schema = Schema::new(vec![
        Field::new("order_id", DataType::Int64, false),
        Field::new("customer_id", DataType::Int64, false),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("status", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("ordered_at", timestamp_type(), true),
    ]);
    let midnight = i64::from(days_since_epoch(day(day_number))) * MICROS_A_DAY;
    let status = |id: &i64| if corrected { "paid" } else { pick(STATUSES, *id, 8) };
    batch(
        schema,
        vec![
            Arc::new(Int64Array::from(ids.clone())),
            Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| below(*id, 6, customers)))),
            Arc::new(
                Decimal128Array::from_iter_values(
                    ids.iter().map(|id| i128::from(100 + below(*id, 7, 50_000))),
                )
                .with_precision_and_scale(12, 2)
                .map_err(bad_data)?,
            ),
            Arc::new(StringArray::from_iter_values(ids.iter().map(status))),
            Arc::new(
                ids.iter()
                    .map(|id| (id % 11 == 0).then(|| format!("gift № {id} 🎁")))
                    .collect::<StringArray>(),
            ),
            timestamps(ids.iter().map(|id| midnight + below(*id, 9, MICROS_A_DAY))),
        ],
    )
}

fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn timestamps(micros: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

fn batch(schema: Schema, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::new(schema), columns).map_err(bad_data)
}

fn bad_data(error: arrow::error::ArrowError) -> Failure {
    Failure::invalid(format!("the quickstart's data cannot be made: {error}"))
}

/// A number that only depends on its arguments (SplitMix64).
fn random(id: i64, salt: u64) -> u64 {
    let mut z = id.unsigned_abs().wrapping_add(salt << 40).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn below(id: i64, salt: u64, bound: i64) -> i64 {
    i64::try_from(random(id, salt) % bound.unsigned_abs().max(1)).unwrap_or(0)
}

fn pick<'a>(from: &[&'a str], id: i64, salt: u64) -> &'a str {
    let index = random(id, salt) % u64::try_from(from.len()).unwrap_or(1).max(1);
    usize::try_from(index).ok().and_then(|index| from.get(index)).copied().unwrap_or_default()
}

/// Writes a file unless it is there. It appears whole and durable, or not at all: an earlier run
/// may have been killed, and a commit must never name a file that a power cut takes away.
fn write(root: &Path, path: &str, rows: impl FnOnce() -> Result<RecordBatch>) -> Result<()> {
    let target = root.join(path);
    if target.exists() {
        return Ok(());
    }
    let what = |_: &str| format!("cannot write '{}'", target.display());
    let folder = target.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(|e| Failure::io(what("folder"), e))?;
    let unfinished = target.with_extension(format!("{}.unfinished", std::process::id()));
    let rows = rows()?;
    let file = File::create(&unfinished).map_err(|e| Failure::io(what("file"), e))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let written = ArrowWriter::try_new(&file, rows.schema(), Some(properties)).and_then(|mut w| {
        w.write(&rows)?;
        w.close()
    });
    written.map_err(|e| Failure::io(what("rows"), std::io::Error::other(e)))?;
    file.sync_all()
        .and_then(|()| fs::rename(&unfinished, &target))
        .map_err(|e| Failure::io(what("file"), e))?;
    // Where folders can be synced, the new name survives a power cut too.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_the_same_each_time() {
        assert_eq!(orders(3, false).unwrap(), orders(3, false).unwrap());
        assert_ne!(orders(3, false).unwrap(), orders(3, true).unwrap());
        assert_eq!(customers(0, 5, 0).unwrap().num_rows(), 5);
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            write_customers(dir.path()).unwrap();
        }
        let read = |dir: &tempfile::TempDir| fs::read(dir.path().join("first.parquet")).unwrap();
        assert_eq!(read(&a), read(&b));
        assert!(
            fs::read_dir(a.path())
                .unwrap()
                .all(|f| { f.unwrap().path().extension().is_some_and(|e| e == "parquet") })
        );
    }

    #[test]
    fn orders_name_customers_that_exist() {
        let last = orders(FIRST_DAYS, false).unwrap();
        let ids = last.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
        assert!(ids.values().iter().all(|id| *id < FIRST_CUSTOMERS + CUSTOMERS_A_DAY));
    }
}
