//! Conditions and queries over random values beside an oracle that knows nothing of doubles.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate};
use deltalake::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use deltalake::arrow::datatypes::{Int64Type, Schema};
use deltalake::datafusion::common::DFSchema;
use deltalake::datafusion::logical_expr::ColumnarValue;
use deltalake::datafusion::prelude::SessionContext;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use deltalakedb_log_store::deltalake;
use deltalakedb_log_store::sql::{Expressions, Queries};

const OPERATORS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

fn holds(operator: &str, order: Ordering) -> bool {
    match operator {
        "=" => order.is_eq(),
        "<>" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn batch(column: ArrayRef) -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..i64::try_from(column.len()).unwrap());
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("a", column)]).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Rows, and what reads conditions on them.
struct Rows {
    batch: RecordBatch,
    expressions: Expressions,
    schema: DFSchema,
    context: SessionContext,
    runtime: Runtime,
    queries: Queries,
}

impl Rows {
    fn new(column: ArrayRef) -> Rows {
        let batch = batch(column);
        let schema: &Schema = batch.schema_ref();
        let queries = Queries::new("catalog", catalog());
        queries.session().register_batch("t", batch.clone()).unwrap();
        Rows {
            expressions: Expressions::of(schema).unwrap(),
            schema: DFSchema::try_from(schema.clone()).unwrap(),
            context: SessionContext::new(),
            runtime: runtime(),
            queries,
            batch,
        }
    }

    /// Rows for which a condition of an operation is true.
    fn by_condition(&self, text: &str) -> Result<Vec<usize>, String> {
        let condition = self.expressions.condition(text).map_err(|e| e.to_string())?;
        let physical = self.context.create_physical_expr(condition, &self.schema);
        let value = physical.and_then(|physical| physical.evaluate(&self.batch));
        let array = match value.map_err(|e| e.to_string())? {
            ColumnarValue::Array(array) => array,
            ColumnarValue::Scalar(value) => value.to_array_of_size(self.batch.num_rows()).unwrap(),
        };
        let array = array.as_boolean();
        Ok((0..array.len()).filter(|at| array.is_valid(*at) && array.value(*at)).collect())
    }

    /// Rows that a query gives for each condition.
    fn by_query(&self, conditions: &[String]) -> Result<Vec<Vec<usize>>, String> {
        let parts = conditions.iter().enumerate();
        let parts = parts.map(|(n, text)| format!("SELECT {n}, id FROM t WHERE {text}"));
        let text = parts.collect::<Vec<_>>().join(" UNION ALL ") + " ORDER BY 1, 2";
        let rows = self
            .runtime
            .block_on(async { self.queries.session().sql(&text).await?.collect().await });
        let mut found = vec![Vec::new(); conditions.len()];
        for rows in rows.map_err(|e| e.to_string())? {
            let [numbers, ids] = [0, 1].map(|n| rows.column(n).as_primitive::<Int64Type>());
            for (number, id) in numbers.values().iter().zip(ids.values()) {
                found[usize::try_from(*number).unwrap()].push(usize::try_from(*id).unwrap());
            }
        }
        Ok(found)
    }
}

/// No time passes in a catalog without tables.
#[derive(Debug)]
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> TimestampMs {
        TimestampMs(0)
    }

    async fn sleep(&self, _: Duration) {}
}

impl IdSource for Still {
    fn uuid(&self) -> Uuid {
        Uuid::nil()
    }

    fn fraction(&self) -> f64 {
        0.5
    }
}

fn catalog() -> Catalog {
    Catalog::new(Arc::new(MemoryBackend::new()), Arc::new(Still), Arc::new(Still))
}

/// Of each operator, the condition and its opposite; the same with sides turned; IN and BETWEEN.
fn check_all(rows: &Rows, literal: &str, orders: &[Ordering]) {
    let rows_where = |operator: &str, wanted: bool| -> Vec<usize> {
        let holds = |at: &usize| holds(operator, orders[*at]) == wanted;
        (0..orders.len()).filter(holds).collect()
    };
    let mut checks = Vec::new();
    for operator in OPERATORS {
        checks.push((format!("a {operator} {literal}"), rows_where(operator, true)));
        checks.push((format!("NOT (a {operator} {literal})"), rows_where(operator, false)));
    }
    checks.push((format!("{literal} < a"), rows_where(">", true)));
    checks.push((format!("a IN ({literal}, NULL)"), rows_where("=", true)));
    checks.push((format!("a NOT IN ({literal})"), rows_where("<>", true)));
    checks.push((format!("a BETWEEN {literal} AND {literal}"), rows_where("=", true)));
    checks.push((format!("a IS DISTINCT FROM {literal}"), rows_where("<>", true)));
    let (conditions, wanted): (Vec<_>, Vec<_>) = checks.into_iter().unzip();
    for (condition, want) in conditions.iter().zip(&wanted) {
        let got = rows.by_condition(condition);
        assert_eq!(got.as_ref(), Ok(want), "{condition} on {:?}", rows.batch);
    }
    let got = rows.by_query(&conditions).unwrap();
    for ((condition, want), got) in conditions.iter().zip(&wanted).zip(&got) {
        assert_eq!(got, want, "query: {condition} on {:?}", rows.batch);
    }
}

/// Order of two numbers by their digits.
fn by_digits(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> (bool, String, String) {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        (negative, format!("{whole:0>90}"), format!("{fraction:0<90}"))
    }
    let ((an, aw, af), (bn, bw, bf)) = (parts(a), parts(b));
    let zero = |w: &str, f: &str| w.bytes().chain(f.bytes()).all(|c| c == b'0');
    let (an, bn) = (an && !zero(&aw, &af), bn && !zero(&bw, &bf));
    match (an, bn) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => (aw, af).cmp(&(bw, bf)),
        (true, true) => (bw, bf).cmp(&(aw, af)),
    }
}

/// `digits` with a point before the last `scale` of them.
fn pointed(digits: i128, scale: usize) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn decimals(
        (precision, scale) in prop_oneof![
            Just((38_u8, 0_u8)), Just((38, 38)), Just((38, 18)), Just((32, 16)), Just((10, 2)),
            Just((3, 1)),
        ],
        seeds in prop::collection::vec(any::<i128>(), 3),
        few in any::<bool>(),
        more in "[0-9]{0,20}",
        quoted in any::<bool>(),
    ) {
        let bound = 10_i128.pow(if few { u32::from(precision).min(4) } else { precision.into() });
        let base = seeds[0] % bound;
        let mut values: Vec<i128> = seeds.iter().map(|seed| seed % bound).collect();
        values.extend([base - 1, base + 1, 0, 1, -1, bound - 1, 1 - bound]);
        values.retain(|value| value.abs() < bound);
        let of_scale = usize::from(scale);
        let array = Decimal128Array::from(values.clone())
            .with_precision_and_scale(precision, i8::try_from(scale).unwrap())
            .unwrap();
        let rows = Rows::new(Arc::new(array));
        let exact = pointed(base, of_scale);
        let point = if of_scale == 0 && !more.is_empty() { "." } else { "" };
        let text = format!("{exact}{point}{more}");
        let orders: Vec<_> =
            values.iter().map(|value| by_digits(&pointed(*value, of_scale), &text)).collect();
        let literal = if quoted { format!("'{text}'") } else { text };
        check_all(&rows, &literal, &orders);
    }

    #[test]
    fn integers(seed in any::<i64>(), near in any::<bool>(), fraction in "[0-9]{0,3}") {
        let whole = if near { seed % 200 } else { seed };
        let dot = if fraction.is_empty() { "" } else { "." };
        let literal = format!("{whole}{dot}{fraction}");
        let order = |value: i64| by_digits(&value.to_string(), &literal);
        let long = [i64::MIN, i64::MAX, whole, whole.saturating_add(1), 0, -1];
        let orders: Vec<_> = long.iter().map(|value| order(*value)).collect();
        check_all(&Rows::new(Arc::new(Int64Array::from(long.to_vec()))), &literal, &orders);
        let byte = [i8::MIN, i8::MAX, 0, 1, -1];
        let orders: Vec<_> = byte.iter().map(|value| order((*value).into())).collect();
        check_all(&Rows::new(Arc::new(Int8Array::from(byte.to_vec()))), &literal, &orders);
        let int = [i32::MIN, i32::MAX, 0];
        let orders: Vec<_> = int.iter().map(|value| order((*value).into())).collect();
        check_all(&Rows::new(Arc::new(Int32Array::from(int.to_vec()))), &literal, &orders);
    }

    #[test]
    fn times(
        micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
        part in prop_oneof![Just(1_i64), Just(1_000), Just(1_000_000), Just(86_400_000_000)],
        form in 0..6_usize,
        zoned in any::<bool>(),
    ) {
        let micros = micros.div_euclid(part) * part;
        let first = -62_135_596_800_000_000;
        let last = 253_402_300_799_999_999;
        let values = [micros, (micros - 1).max(first), (micros + 1).min(last), first, last, 0];
        let text = DateTime::from_timestamp_micros(micros).unwrap().naive_utc();
        let text = text.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
        let date = text[..10].to_owned();
        let literal = match form {
            0 => format!("TIMESTAMP '{text}'"),
            1 => format!("'{text}'"),
            2 => format!("CAST('{text}' AS TIMESTAMP)"),
            3 => format!("to_timestamp('{text}')"),
            4 => format!("'{}+00:00'", text.replace(' ', "T")),
            _ => format!("TIMESTAMP WITH TIME ZONE '{text}'"),
        };
        let zone = zoned.then_some("UTC");
        let array = TimestampMicrosecondArray::from(values.to_vec()).with_timezone_opt(zone);
        let batch_of_times = Rows::new(Arc::new(array));
        let orders: Vec<_> = values.iter().map(|value| value.cmp(&micros)).collect();
        check_all(&batch_of_times, &literal, &orders);
        // The same times as days, with the date and with the time.
        let day = 86_400_000_000;
        let days: Vec<i32> =
            values.iter().map(|value| i32::try_from(value.div_euclid(day)).unwrap()).collect();
        let orders_of = |other: i64| -> Vec<_> {
            days.iter().map(|value| (i64::from(*value) * day).cmp(&other)).collect()
        };
        let batch_of_days = Rows::new(Arc::new(Date32Array::from(days.clone())));
        let midnight = micros.div_euclid(day) * day;
        check_all(&batch_of_days, &format!("DATE '{date}'"), &orders_of(midnight));
        check_all(&batch_of_days, &format!("'{date}'"), &orders_of(midnight));
        if form != 1 && form != 4 {
            check_all(&batch_of_days, &literal, &orders_of(micros));
        }
        let orders: Vec<_> = values.iter().map(|value| value.cmp(&midnight)).collect();
        check_all(&batch_of_times, &format!("DATE '{date}'"), &orders);
        prop_assert!(NaiveDate::parse_from_str(&date, "%Y-%m-%d").is_ok());
    }

    #[test]
    fn floats(
        seed in prop_oneof![any::<f64>(), -1000.0..1000.0_f64],
        special in prop::option::of(0..6_usize),
        single in any::<bool>(),
    ) {
        let negative_nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63);
        let narrow = |value: f64| format!("{value:e}").parse::<f32>().unwrap();
        let seed = if seed.is_finite() { seed } else { 1.5 };
        let seed = if single { f64::from(narrow(seed)) } else { seed };
        let seed = if seed.is_finite() { seed } else { 1.5 };
        let (literal, value) = match special {
            Some(0) => ("CAST('NaN' AS DOUBLE)".to_owned(), f64::NAN),
            Some(1) => ("CAST('inf' AS DOUBLE)".to_owned(), f64::INFINITY),
            Some(2) => ("CAST('-Infinity' AS DOUBLE)".to_owned(), f64::NEG_INFINITY),
            Some(3) => ("0.0".to_owned(), 0.0),
            Some(4) => ("-0.0".to_owned(), 0.0),
            Some(_) => ("0".to_owned(), 0.0),
            None => {
                let text = if single { format!("{:e}", narrow(seed)) } else { format!("{seed:e}") };
                let near = seed == 0.0 || (1e-50..1e50).contains(&seed.abs());
                (if near { text } else { format!("CAST('{text}' AS DOUBLE)") }, seed)
            }
        };
        let values = [
            seed, 0.0, -0.0, f64::NAN, negative_nan, f64::INFINITY, f64::NEG_INFINITY, 1.0, -1.0,
        ];
        let canonical = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
        let order = |a: f64| canonical(a).total_cmp(&canonical(value));
        let orders: Vec<_> = values.iter().map(|value| order(*value)).collect();
        let array: ArrayRef = if single {
            let single = |v: &f64| if v.is_nan() && v.is_sign_negative() {
                f32::from_bits(f32::NAN.to_bits() | 1 << 31)
            } else {
                narrow(*v)
            };
            Arc::new(Float32Array::from(values.iter().map(single).collect::<Vec<_>>()))
        } else {
            Arc::new(Float64Array::from(values.to_vec()))
        };
        check_all(&Rows::new(array), &literal, &orders);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let of = Rows::new;
    let decimals = Decimal128Array::from(vec![1]).with_precision_and_scale(5, 2).unwrap();
    let times = TimestampMicrosecondArray::from(vec![0]);
    for (rows, condition, words) in [
        (of(Arc::new(decimals)), "a = 'abc'", ["'abc'", "a is of type", "decimal(5,2)"]),
        (of(Arc::new(Int32Array::from(vec![1]))), "a < '1x'", ["'1x'", "a is of type", "integer"]),
        (
            of(Arc::new(Date32Array::from(vec![1]))),
            "a >= '2024-13-45'",
            ["'2024-13-45'", "a is of type", "date"],
        ),
        (
            of(Arc::new(Date32Array::from(vec![1]))),
            "a IN ('2024-01-01 12:00:00')",
            ["time of day", "a is of type", "date"],
        ),
        (of(Arc::new(times)), "a = 'yesterday'", ["'yesterday'", "a is of type", "timestamp_ntz"]),
        (
            of(Arc::new(Int64Array::from(vec![1]))),
            "a = TIMESTAMP 'x'",
            ["'x'", "value", "timestamp"],
        ),
    ] {
        let query = rows.by_query(&[condition.to_owned()]).unwrap_err();
        for error in [rows.by_condition(condition).unwrap_err(), query] {
            assert!(words.iter().all(|word| error.contains(word)), "{condition}: {error}");
        }
    }
}

#[test]
fn values_fit_their_columns_or_are_refused() {
    use deltalake::arrow::datatypes::DataType;
    let batch = batch(Arc::new(Int64Array::from(vec![1])));
    let expressions = Expressions::of(batch.schema_ref()).unwrap();
    let decimal = DataType::Decimal128(32, 16);
    let value = |text: &str, of: &DataType| {
        expressions.value(text, "\"x\"", Some(of)).map(|e| e.to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(
        value("1.0000000000000001", &decimal).unwrap(),
        "Decimal128(1.0000000000000001,32,16)"
    );
    assert_eq!(value("5.0", &DataType::Int32).unwrap(), "Int32(5)");
    for (text, of) in [
        ("1.00000000000000001", &decimal),
        ("1.5", &DataType::Int32),
        ("99999999999999999999", &DataType::Int64),
        ("300", &DataType::Int8),
        ("'x'", &DataType::Int64),
        ("'2024-02-30'", &DataType::Date32),
    ] {
        let error = value(text, of).unwrap_err();
        assert!(
            error.contains("\"x\"") && error.contains(text.trim_matches('\'')),
            "{text}: {error}"
        );
    }
}

#[test]
fn types_of_results_are_those_of_before() {
    let decimals = Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).unwrap();
    let batch = batch(Arc::new(decimals));
    runtime().block_on(async {
        let queries = Queries::new("catalog", catalog());
        let session = queries.session();
        session.register_batch("t", batch).unwrap();
        for (query, want) in [
            ("SELECT 1.5", "Float64"),
            ("SELECT id * 1.5 FROM t", "Float64"),
            ("SELECT id / 2.0 FROM t", "Float64"),
            ("SELECT a / 2.0 FROM t", "Float64"),
            ("SELECT 100.0 * a / 3 FROM t", "Float64"),
            ("SELECT count(*) * 100.0 / 3 FROM t", "Float64"),
            ("SELECT sqrt(2.0)", "Float64"),
            ("SELECT CASE WHEN id = 1 THEN 1.5 ELSE 0 END FROM t", "Float64"),
            ("SELECT * FROM (VALUES (1.5), (NULL), (2.25)) AS v", "Float64"),
            ("SELECT a + 1.5 FROM t", "Decimal128(6, 2)"),
            ("SELECT coalesce(a, 0.0) FROM t", "Decimal128(5, 2)"),
            ("SELECT 1.0000000000000001", "Decimal128(17, 16)"),
            ("SELECT TIMESTAMP '9999-12-31 00:00:00'", "Timestamp(µs)"),
            ("SELECT now()", "Timestamp(µs, \"UTC\")"),
        ] {
            let rows = session.sql(query).await.unwrap().collect().await.unwrap();
            let schema = rows[0].schema();
            assert_eq!(schema.field(0).data_type().to_string(), want, "{query}");
        }
    });
}
