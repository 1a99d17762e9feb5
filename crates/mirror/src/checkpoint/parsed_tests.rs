use arrow::array::{ArrayRef, AsArray};
use serde_json::json;

use super::*;
use crate::log::stats::StatsWriter;

fn metadata(
    fields: &serde_json::Value,
    partitions: &[&str],
    properties: &[(&str, &str)],
) -> Metadata {
    let schema = json!({"type": "struct", "fields": fields}).to_string();
    let configuration: serde_json::Map<String, serde_json::Value> =
        properties.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    serde_json::from_value(json!({"id": "m", "schemaString": schema,
        "partitionColumns": partitions, "configuration": configuration}))
    .unwrap()
}

fn field(name: &str, ty: impl Into<serde_json::Value>) -> serde_json::Value {
    json!({"name": name, "type": ty.into(), "nullable": true, "metadata": {}})
}

fn add(stats: Option<&str>, day: Option<&str>) -> Add {
    let mut add: Add = serde_json::from_value(json!({"path": "p", "partitionValues": {},
        "size": 1, "modificationTime": 1, "dataChange": true}))
    .unwrap();
    add.stats = stats.map(str::to_owned);
    add.partition_values.insert("day".to_owned(), day.map(str::to_owned));
    add
}

/// The typed columns, with statistics as they are written.
fn typed(parsed: &Parsed, metadata: &Metadata, rows: &[Add]) -> Vec<ArrayRef> {
    let stats: Vec<Option<&str>> = rows.iter().map(|add| add.stats.as_deref()).collect();
    parsed.columns(rows.iter(), &stats, &Canonical::of(metadata)).unwrap()
}

const STRUCT: (&str, &str) = ("delta.checkpoint.writeStatsAsStruct", "true");

#[test]
fn properties_decide() {
    let fields = json!([field("id", "long")]);
    let as_json = "delta.checkpoint.writeStatsAsJson";
    for (properties, want) in [
        (vec![], (true, false)),
        (vec![STRUCT], (true, true)),
        (vec![(as_json, "false")], (false, true)),
        (
            vec![(as_json, "false"), ("delta.checkpoint.writeStatsAsStruct", "false")],
            (false, false),
        ),
        (vec![(as_json, "true")], (true, false)),
    ] {
        let parsed = Parsed::of(&metadata(&fields, &[], &properties));
        assert_eq!((parsed.json, parsed.stats.is_some()), want, "{properties:?}");
    }
    let mut broken = metadata(&fields, &[], &[(as_json, "false")]);
    broken.schema_string = "{".to_owned();
    assert!(Parsed::of(&broken).json, "statistics are not lost");
}

/// What is read back from the typed columns is what the text said.
#[test]
fn typed_statistics_say_what_the_text_said() {
    let fields = json!([
        field("tiny", "byte"),
        field("small", "short"),
        field("int", "integer"),
        field("big", "long"),
        field("real", "float"),
        field("double", "double"),
        field("price", "decimal(10,2)"),
        field("text", "string"),
        field("on", "date"),
        field("at", "timestamp"),
        field("local", "timestamp_ntz"),
        field("flag", "boolean"),
        field("raw", "binary"),
        field(
            "point",
            json!({"type": "struct", "fields": [field("x", "long"), field("tags",
            json!({"type": "array", "elementType": "string", "containsNull": true}))]})
        ),
    ]);
    let table = metadata(&fields, &[], &[STRUCT]);
    let parsed = Parsed::of(&table);
    let text = json!({
        "numRecords": 7, "tightBounds": true,
        "minValues": {"tiny": -1, "small": -300, "int": -70000, "big": -9_223_372_036_854_775_808_i64,
            "real": -1.5, "double": -1e300, "price": -12.34, "text": "a\"ü", "on": "1969-12-31",
            "at": "2024-02-29T12:30:15.123Z", "local": "2024-02-29T12:30:15.123", "point": {"x": 1}},
        "maxValues": {"tiny": 1, "small": 300, "int": 70000, "big": 9_223_372_036_854_775_807_i64,
            "real": 1.5, "double": 1e300, "price": 99.99, "text": "z", "on": "2024-02-29",
            "at": "2024-12-31T23:59:59.999Z", "local": "2024-12-31T23:59:59.999", "point": {"x": 2}},
        "nullCount": {"tiny": 0, "small": 1, "int": 2, "big": 3, "real": 4, "double": 5, "price": 6,
            "text": 7, "on": 0, "at": 0, "local": 0, "flag": 1, "raw": 2, "point": {"x": 3, "tags": 4}}
    });
    let rows = [add(Some(&text.to_string()), None), add(None, None), add(Some("{}"), None)];
    let columns = typed(&parsed, &table, &rows);
    let [stats] = columns.as_slice() else { panic!("{columns:?}") };
    let writer = StatsWriter::new(stats);
    let back: serde_json::Value = serde_json::from_str(&writer.json(0).unwrap()).unwrap();
    assert_eq!(back, text);
    assert_eq!((writer.json(1), writer.json(2)), (None, None));
    assert!(stats.is_null(1) && stats.is_valid(2));
}

/// A file with odd statistics has none; the others keep theirs.
#[test]
fn what_does_not_fit_is_null() {
    let table = metadata(&json!([field("id", "long")]), &[], &[STRUCT]);
    let parsed = Parsed::of(&table);
    let good = r#"{"numRecords":1,"minValues":{"id":5},"other":{"x":[1]}}"#;
    let rows = [
        add(Some(good), None),
        add(Some(r#"{"numRecords":"many"}"#), None),
        add(Some("no json"), None),
        add(Some(r#"{"minValues":{"id":1.5e99}}"#), None),
        add(Some("{}{}"), None),
        add(Some(good), None),
    ];
    let columns = typed(&parsed, &table, &rows);
    let valid: Vec<bool> = (0..rows.len()).map(|row| columns[0].is_valid(row)).collect();
    assert_eq!(valid, [true, false, false, false, false, true]);
    let writer = StatsWriter::new(&columns[0]);
    assert_eq!(writer.json(5).unwrap(), r#"{"numRecords":1,"minValues":{"id":5}}"#);
}

#[test]
fn partition_values_are_typed() {
    let fields = json!([field("id", "long"), field("day", "date")]);
    let table = metadata(&fields, &["day"], &[STRUCT]);
    let parsed = Parsed::of(&table);
    let rows = [add(None, Some("2024-02-29")), add(None, None), add(None, Some("someday"))];
    let columns = typed(&parsed, &table, &rows);
    let days: &ArrayRef = columns[0].as_struct().column(0);
    assert_eq!((days.is_valid(0), days.is_valid(1), days.is_valid(2)), (true, false, false));
    assert_eq!(days.as_primitive::<arrow::datatypes::Date32Type>().value(0), 19_782);
    // Whatever the text looks like, the typed value is the one that it stands for: readers prune with it.
    for (ty, text, want) in [
        ("decimal(10,2)", "1.5", "1.50"),
        ("date", "2020-1-1", "2020-01-01"),
        ("date", "+10000-01-01", "10000-01-01"),
        ("timestamp", "2020-01-01T12:00:00+02:00", "2020-01-01T10:00:00Z"),
        ("timestamp_ntz", "2020-01-01 12:00:00", "2020-01-01T12:00:00"),
        ("integer", "+7", "7"),
        ("byte", "7", "7"),
        ("double", "-0.0", "0.0"),
        ("float", "inf", "inf"),
        ("string", "", ""),
        ("string", " x", " x"),
    ] {
        let fields = json!([field("id", "long"), field("day", ty)]);
        let table = metadata(&fields, &["day"], &[STRUCT]);
        let columns = typed(&Parsed::of(&table), &table, &[add(None, Some(text))]);
        let value = columns[0].as_struct().column(0);
        let shown = arrow::util::display::array_value_to_string(value, 0).unwrap();
        assert_eq!(
            (shown.trim_start_matches('+'), value.is_null(0)),
            (want, want.is_empty()),
            "{ty} {text}"
        );
    }
    // A partition column has no statistics, and no more columns than are indexed have any.
    let many: Vec<serde_json::Value> = (0..40).map(|i| field(&format!("c{i}"), "long")).collect();
    let parsed = Parsed::of(&metadata(&json!(many), &["c0"], &[STRUCT]));
    let Arrow::Struct(bounds) = parsed.stats.unwrap()[2].data_type().clone() else { panic!() };
    assert_eq!((bounds.len(), bounds[0].name().as_str()), (32, "c1"));
    let few = ("delta.dataSkippingNumIndexedCols", "3");
    let parsed = Parsed::of(&metadata(&json!(many), &[], &[STRUCT, few]));
    let Arrow::Struct(bounds) = parsed.stats.unwrap()[2].data_type().clone() else { panic!() };
    assert_eq!(bounds.len(), 3);
}
