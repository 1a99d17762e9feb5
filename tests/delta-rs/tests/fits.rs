//! Rows that are made fit for a table (`deltalakedb::deltalake::fit`): each type of Arrow, for each type of a
//! column, at its bounds. What is in the table then is the value, or an error said so; null only where the
//! source is null.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DurationSecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, ListArray, NullArray, RecordBatch, StringArray,
    StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use delta::datafusion::prelude::SessionContext;
use deltalakedb::core::schema::StructType;
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::deltalake::fit;
use deltalakedb::{CatalogUri, Db};
use proptest::prelude::*;

const COLUMNS: [&str; 14] = [
    "byte",
    "short",
    "integer",
    "long",
    "float",
    "double",
    "decimal(5,2)",
    "decimal(38,0)",
    "string",
    "binary",
    "boolean",
    "date",
    "timestamp",
    "timestamp_ntz",
];

fn column(kind: &str) -> Field {
    let schema = StructType::from_text(&format!("x {kind}")).unwrap();
    fit::from_delta(&schema).unwrap().field(0).clone()
}

/// Values at the bounds, one null among them.
fn sources() -> Vec<ArrayRef> {
    const DAY: i64 = 86_400;
    let texts = vec![
        None,
        Some(""),
        Some("1"),
        Some("-0.0"),
        Some("128"),
        Some("0.005"),
        Some("1e3"),
        Some("NaN"),
        Some("99999999999999999999999999999999999999"),
        Some("true"),
        Some("2026-01-31"),
        Some("9999-12-31 23:59:59.999999"),
        Some("2026-01-31T00:00:00.0000001Z"),
        Some("é"),
    ];
    let micros =
        vec![None, Some(0), Some(1), Some(-62_135_596_800_000_000), Some(253_402_300_799_999_999)];
    let nanos = vec![None, Some(0), Some(1), Some(-1000), Some(i64::MAX), Some(i64::MIN)];
    vec![
        Arc::new(Int8Array::from(vec![None, Some(0), Some(i8::MIN), Some(i8::MAX)])),
        Arc::new(Int16Array::from(vec![None, Some(0), Some(i16::MIN), Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![None, Some(16_777_217), Some(i32::MIN), Some(i32::MAX)])),
        Arc::new(Int64Array::from(vec![None, Some((1 << 53) + 1), Some(i64::MIN), Some(i64::MAX)])),
        Arc::new(UInt8Array::from(vec![None, Some(0), Some(u8::MAX)])),
        Arc::new(UInt16Array::from(vec![None, Some(0), Some(u16::MAX)])),
        Arc::new(UInt32Array::from(vec![None, Some(0), Some(u32::MAX)])),
        Arc::new(UInt64Array::from(vec![None, Some(0), Some(u64::MAX)])),
        Arc::new(Float32Array::from(vec![
            None,
            Some(0.5),
            Some(f32::MAX),
            Some(f32::NAN),
            Some(-0.0),
        ])),
        Arc::new(Float64Array::from(vec![
            None,
            Some(0.5),
            Some(0.1),
            Some(1e300),
            Some(f64::NAN),
            Some(f64::INFINITY),
            Some(3.0),
        ])),
        Arc::new(
            Decimal128Array::from(vec![None, Some(0), Some(12345), Some(99_999), Some(-100)])
                .with_precision_and_scale(20, 3)
                .unwrap(),
        ),
        Arc::new(BooleanArray::from(vec![None, Some(true), Some(false)])),
        Arc::new(Date32Array::from(vec![None, Some(0), Some(-719_162), Some(2_932_896)])),
        Arc::new(Date64Array::from(vec![None, Some(0), Some(1), Some(DAY * 1000), Some(i64::MAX)])),
        Arc::new(TimestampSecondArray::from(vec![None, Some(0), Some(DAY), Some(i64::MAX)])),
        Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC")),
        Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("+02:00")),
        Arc::new(TimestampNanosecondArray::from(nanos)),
        Arc::new(Time64MicrosecondArray::from(vec![None, Some(1)])),
        Arc::new(DurationSecondArray::from(vec![None, Some(1)])),
        Arc::new(StringArray::from(texts.clone())),
        Arc::new(StringViewArray::from(texts.clone())),
        Arc::new(LargeStringArray::from(texts)),
        Arc::new(BinaryArray::from_opt_vec(vec![None, Some(b"a"), Some(b"\xff")])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2], [0xff, 0]].iter()).unwrap()),
        Arc::new(NullArray::new(2)),
    ]
}

/// The number, day or instant that a text stands for, in a form that is the same for all types.
fn meaning(array: &dyn Array, row: usize) -> String {
    let text = array_value_to_string(array, row).unwrap();
    let text = text.trim_end_matches('Z').replace('T', " ");
    if let Ok(whole) = text.parse::<i128>() {
        return whole.to_string();
    }
    // Decimals have zeros at their ends.
    if text.contains('.')
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'.')
        && text.matches('.').count() == 1
    {
        let short = text.trim_end_matches('0').trim_end_matches('.');
        return if short == "-0" { "-0".to_owned() } else { short.to_owned() };
    }
    text.strip_suffix(" 00:00:00").unwrap_or(&text).to_owned()
}

/// Types whose values print alike where they are equal.
fn comparable(from: &DataType, to: &DataType) -> bool {
    let exact = |t: &DataType| t.is_integer() || matches!(t, DataType::Decimal128(..));
    let days = |t: &DataType| {
        matches!(t, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, None))
    };
    exact(from) && exact(to) || days(from) && days(to)
}

#[test]
fn each_type_for_each_column_is_exact_or_refused() {
    let (mut fits, mut refusals) = (0, 0);
    for kind in COLUMNS {
        let field = column(kind);
        for source in sources() {
            for row in 0..source.len() {
                let one = source.slice(row, 1);
                let is_null = one.logical_nulls().is_some_and(|nulls| nulls.is_null(0));
                let what = || format!("{} {one:?} for {kind}", one.data_type());
                match fit::column(&one, &field) {
                    Ok(fitted) => {
                        fits += 1;
                        assert_eq!(fitted.data_type(), field.data_type(), "{}", what());
                        let now = fitted.logical_nulls().is_some_and(|nulls| nulls.is_null(0));
                        assert_eq!(now, is_null, "{}", what());
                        if !is_null && comparable(one.data_type(), fitted.data_type()) {
                            assert_eq!(meaning(&fitted, 0), meaning(&one, 0), "{}", what());
                        }
                    }
                    Err(misfit) => {
                        refusals += 1;
                        assert!(!is_null, "{}: {misfit}", what());
                        assert_eq!(misfit.column, "x", "{}", what());
                        assert!(misfit.row.is_none_or(|row| row == 0), "{}: {misfit}", what());
                    }
                }
            }
        }
    }
    assert!(fits > 400 && refusals > 400, "{fits} fit, {refusals} do not");
}

/// What is cast on the way, value by value, goes through a table, or does not go.
#[tokio::test]
async fn what_fits_is_in_the_table_and_what_does_not_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let uri: CatalogUri = format!("sqlite://{}/c.db", folder.path().display()).parse().unwrap();
    let db = Db::create(&uri).await.unwrap();
    let text = COLUMNS.iter().enumerate().map(|(i, kind)| format!("c{i} {kind}"));
    let schema = StructType::from_text(&text.collect::<Vec<_>>().join(", ")).unwrap();
    let schema = fit::from_delta(&schema).unwrap();
    let name = "x.t".parse().unwrap();
    let mut rows = Vec::new();
    for (place, field) in schema.fields().iter().enumerate() {
        for source in sources() {
            for row in 0..source.len() {
                let one = source.slice(row, 1);
                let Ok(fitted) = fit::column(&one, field) else { continue };
                let columns: Vec<ArrayRef> = schema
                    .fields()
                    .iter()
                    .enumerate()
                    .map(|(i, f)| {
                        if i == place {
                            Arc::clone(&fitted)
                        } else {
                            arrow::array::new_null_array(f.data_type(), 1)
                        }
                    })
                    .collect();
                rows.push(RecordBatch::try_new(Arc::new(schema.clone()), columns).unwrap());
            }
        }
    }
    let want = arrow::compute::concat_batches(&Arc::new(schema.clone()), &rows).unwrap();
    let tx = db.transaction();
    let table = tx.table(&name).await.unwrap();
    table.write(vec![want.clone()]).await.unwrap();
    tx.commit().await.unwrap();
    for (i, _) in schema.fields().iter().enumerate() {
        let query = format!("SELECT count(*) AS n, count(c{i}) AS c FROM x.t");
        let got = db.queries().query(&query).await.unwrap().collect().await.unwrap();
        let values = want.num_rows() - want.column(i).logical_null_count();
        assert_eq!(array_value_to_string(got[0].column(1), 0).unwrap(), values.to_string(), "c{i}");
    }
    // The whole of a query, by its plan.
    let context = SessionContext::new();
    let field = Field::new("c0", DataType::Int64, true);
    let target = Schema::new(vec![schema.field(0).clone()]);
    for (value, ok) in [(127, true), (128, false)] {
        let batch = RecordBatch::try_new(
            Arc::new(Schema::new(vec![field.clone()])),
            vec![Arc::new(Int64Array::from(vec![None, Some(value)]))],
        );
        let frame = fit::rows(context.read_batch(batch.unwrap()).unwrap(), &target).unwrap();
        match frame.collect().await {
            Ok(batches) => assert!(ok && batches[0].column(0).null_count() == 1),
            Err(error) => {
                assert!(!ok && error.to_string().contains("column 'c0': '128'"), "{error}");
            }
        }
    }
}

#[test]
fn what_is_nested_names_its_path_and_its_row() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 300, 4]));
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 0, 2, 1]), numbers, None);
    let list: ArrayRef = Arc::new(list);
    let misfit = fit::column(&list, &column("array<byte>")).unwrap_err();
    assert_eq!((misfit.column.as_str(), misfit.row), ("x.element", Some(2)));
    // Values outside of a slice are not looked at.
    let part = list.slice(3, 1);
    assert_eq!(fit::column(&part, &column("array<byte>")).unwrap().len(), 1);
    assert!(fit::column(&list, &column("array<short>")).is_ok());

    let hidden: ArrayRef = Arc::new(StringArray::from(vec!["7", "no number"]));
    let fields = vec![Field::new("a", DataType::Utf8, true)].into();
    let row: ArrayRef =
        Arc::new(StructArray::new(fields, vec![hidden], Some(vec![true, false].into())));
    let fitted = fit::column(&row, &column("struct<a:long,b:string>")).unwrap();
    assert_eq!(fitted.null_count(), 1);
    let misfit = fit::column(&row, &column("struct<b:string>")).unwrap_err();
    assert_eq!(misfit.column, "x.a");
    let misfit = fit::column(&row, &column("struct<a:string,b:string not null>")).unwrap_err();
    assert_eq!(misfit.column, "x.b");
    let void = Field::new("x", DataType::Null, true);
    let misfit = fit::column(&row, &void).unwrap_err();
    assert!(misfit.to_string().contains("void"), "{misfit}");
}

proptest! {
    /// Numbers as text, as doubles and as integers mean the same in the column, or are refused.
    #[test]
    fn numbers_keep_their_values(whole in any::<i64>(), cents in -9_999_999_i64..10_000_000) {
        for kind in ["byte", "short", "integer", "long", "decimal(38,0)", "float", "double"] {
            let as_number: ArrayRef = Arc::new(Int64Array::from(vec![whole]));
            let as_text: ArrayRef = Arc::new(StringArray::from(vec![whole.to_string()]));
            let number = fit::column(&as_number, &column(kind)).ok();
            let text = fit::column(&as_text, &column(kind)).ok();
            prop_assert_eq!(&number, &text, "{} for {}", whole, kind);
            if let Some(number) = number {
                let back = fit::column(&number, &column("long")).unwrap();
                prop_assert_eq!(&back, &as_number);
            }
        }
        let sign = if cents < 0 { "-" } else { "" };
        let text = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
        let as_text: ArrayRef = Arc::new(StringArray::from(vec![text.clone()]));
        match fit::column(&as_text, &column("decimal(5,2)")) {
            Ok(decimal) => {
                prop_assert!(cents.abs() < 100_000);
                let again = array_value_to_string(&decimal, 0).unwrap();
                prop_assert_eq!(again, text);
            }
            Err(_) => prop_assert!(cents.abs() >= 100_000),
        }
    }

    /// Instants as text and as nanoseconds are the same microseconds, or are refused.
    #[test]
    fn instants_keep_their_digits(nanos in any::<i64>()) {
        let source: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![nanos]));
        let text = array_value_to_string(&source, 0).unwrap();
        let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
        for source in [&source, &text] {
            let fitted = fit::column(source, &column("timestamp_ntz"));
            prop_assert_eq!(fitted.is_ok(), nanos % 1000 == 0);
            if let Ok(fitted) = fitted {
                let got = fitted.as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
                prop_assert_eq!(got.value(0), nanos / 1000);
            }
        }
    }
}
