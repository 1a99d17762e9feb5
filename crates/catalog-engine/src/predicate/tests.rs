use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use std::cmp::Ordering;

pub(crate) fn metadata(schema: &str, partitions: &[&str]) -> Metadata {
    Metadata {
        id: "x".into(),
        name: None,
        description: None,
        format: deltalakedb_catalog_core::action::Format::default(),
        schema_string: StructType::from_text(schema).unwrap().to_json(),
        partition_columns: partitions.iter().map(|p| (*p).to_owned()).collect(),
        created_time: None,
        configuration: deltalakedb_catalog_core::action::NullableMap::new(),
    }
}

fn add(partitions: &[(&str, Option<&str>)], stats: Option<&str>) -> Add {
    Add {
        path: "f".into(),
        partition_values: partitions
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
            .collect(),
        size: 1,
        modification_time: 0,
        data_change: true,
        stats: stats.map(str::to_owned),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn col(name: &str) -> ColumnPath {
    ColumnPath(name.split('.').map(str::to_owned).collect())
}

fn num(text: &str) -> Literal {
    Literal::Number(text.into())
}

fn text(text: &str) -> Literal {
    Literal::Text(text.into())
}

fn cmp(name: &str, op: CompareOp, literal: Literal) -> Predicate {
    Predicate::compare(col(name), op, literal)
}

use CompareOp::{Eq, Gt, GtEq, Lt, LtEq, NotEq};

const SCHEMA: &str = "l long, d decimal(38,2), s string, f float, g double, t timestamp, \
                      n timestamp_ntz, day date, b boolean, x binary, a struct<b:struct<c:int>>, \
                      p string, q int";

fn keeps(stats: &str, predicate: &Predicate) -> bool {
    let m = metadata(SCHEMA, &["p", "q"]);
    let partitions = [("p", Some("a b")), ("q", Some("7"))];
    Pruner::new(&m, predicate).unwrap().may_match(&add(&partitions, Some(stats)))
}

#[test]
fn ranges_rule_files_out_and_only_where_sure() {
    let long = r#"{"numRecords":2,"minValues":{"l":9007199254740993},"maxValues":{"l":9007199254740995},"nullCount":{"l":0}}"#;
    for (op, literal, want) in [
        (Eq, "9007199254740992", false),
        (Eq, "9007199254740993", true),
        (Eq, "9007199254740996", false),
        (Lt, "9007199254740993", false),
        (LtEq, "9007199254740993", true),
        (Gt, "9007199254740995", false),
        (Gt, "9007199254740994.5", true),
        (GtEq, "9007199254740995.5", false),
        (NotEq, "9007199254740993", true),
    ] {
        assert_eq!(keeps(long, &cmp("l", op, num(literal))), want, "{op:?} {literal}");
    }
    let not = cmp("l", Lt, num("9007199254740996")).negated();
    assert!(!keeps(long, &not));
    let list = Predicate::In { column: col("l"), values: vec![num("1"), num("2")] };
    assert!(!keeps(long, &list));
    let one = r#"{"numRecords":2,"minValues":{"l":5},"maxValues":{"l":5},"nullCount":{"l":1}}"#;
    let list = Predicate::In { column: col("l"), values: vec![num("5"), num("6")] };
    assert!(keeps(one, &list) && !keeps(one, &list.negated()));
    assert!(!keeps(one, &cmp("l", NotEq, num("5"))));
    assert!(keeps(one, &Predicate::IsNull(col("l"))));
    assert!(keeps(one, &Predicate::IsNull(col("l")).negated()));
    assert!(!keeps(one, &Predicate::between(col("l"), num("6"), num("9"))));
    assert!(!keeps(one, &Predicate::Always(false)) && keeps(one, &Predicate::Always(true)));
}

#[test]
fn nulls_are_neither_true_nor_false() {
    let all = r#"{"numRecords":3,"minValues":{},"maxValues":{},"nullCount":{"l":3}}"#;
    assert!(!keeps(all, &cmp("l", Eq, num("1"))));
    assert!(!keeps(all, &cmp("l", Eq, num("1")).negated()));
    assert!(!keeps(all, &Predicate::IsNull(col("l")).negated()));
    assert!(keeps(all, &Predicate::IsNull(col("l"))));
    assert!(!keeps(all, &cmp("s", Eq, Literal::Null)));
    let list = Predicate::In { column: col("s"), values: vec![text("a"), Literal::Null] };
    assert!(keeps(all, &list));
    assert!(!keeps(all, &list.negated()));
    let none = r#"{"numRecords":3,"nullCount":{"l":0}}"#;
    assert!(!keeps(none, &Predicate::IsNull(col("l"))));
    assert!(keeps(none, &cmp("l", Eq, num("1"))));
}

#[test]
fn statistics_that_are_missing_or_odd_rule_nothing_out() {
    let predicates = [
        cmp("l", Eq, num("1")),
        cmp("l", Eq, num("1")).negated(),
        Predicate::IsNull(col("l")),
        Predicate::IsNull(col("l")).negated(),
    ];
    for stats in [
        "",
        "{}",
        "nonsense",
        "[1]",
        r#"{"numRecords":0}"#,
        r#"{"numRecords":0,"nullCount":{"l":0}}"#,
        r#"{"minValues":null,"maxValues":3,"nullCount":[]}"#,
        r#"{"minValues":{"l":"x"},"maxValues":{"l":{}}}"#,
        r#"{"minValues":{"l":9},"maxValues":{"l":2}}"#,
        r#"{"numRecords":"3","nullCount":{"l":3}}"#,
    ] {
        for predicate in &predicates {
            assert!(keeps(stats, predicate), "{stats}: {predicate:?}");
        }
    }
    // A null count of all rows beside a bound: one of the two is wrong.
    let odd = r#"{"numRecords":2,"nullCount":{"l":2},"minValues":{"l":1},"maxValues":{"l":1}}"#;
    assert!(keeps(odd, &cmp("l", Eq, num("1"))));
}

#[test]
fn truncated_strings_stay_in() {
    let prefix = "x".repeat(32);
    for tail in ["", "\u{FFFF}", "\u{10FFFF}", "\u{FFFF}\u{FFFF}"] {
        let stats = json!({"numRecords": 1, "nullCount": {"s": 0},
            "minValues": {"s": "aa"}, "maxValues": {"s": format!("{prefix}{tail}")}})
        .to_string();
        // Larger than U+FFFF in UTF-8: an old writer's tie-breaker is below it.
        for end in ["", "a", "\u{1F680}\u{1F680}"] {
            let value = format!("{prefix}{end}");
            assert!(keeps(&stats, &cmp("s", Eq, text(&value))), "{tail:?} {end:?}");
            assert!(keeps(&stats, &cmp("s", GtEq, text(&value))), "{tail:?} {end:?}");
        }
        assert!(!keeps(&stats, &cmp("s", Eq, text("y"))));
        assert!(!keeps(&stats, &cmp("s", Gt, text("y"))));
        assert!(!keeps(&stats, &cmp("s", Lt, text("aa"))));
        let like = |p: &str| Predicate::StartsWith { column: col("s"), prefix: p.into() };
        assert!(!keeps(&stats, &like("y")) && !keeps(&stats, &like("A")));
        assert!(keeps(&stats, &like("a")) && keeps(&stats, &like(&format!("{prefix}zz"))));
        assert!(keeps(&stats, &like("a").negated()));
    }
    let same = r#"{"minValues":{"s":"abc"},"maxValues":{"s":"abd"},"nullCount":{"s":0}}"#;
    let like = Predicate::StartsWith { column: col("s"), prefix: "ab".into() };
    assert!(keeps(same, &like) && !keeps(same, &like.negated()));
}

#[test]
fn floats_may_hide_nan() {
    let stats = r#"{"numRecords":3,"minValues":{"g":-0.0,"f":0.1},"maxValues":{"g":2.5,"f":0.3},"nullCount":{"g":0,"f":0}}"#;
    assert!(keeps(stats, &cmp("g", Gt, num("100"))));
    assert!(keeps(stats, &cmp("g", NotEq, num("1"))));
    assert!(!keeps(stats, &cmp("g", Eq, num("2.6"))));
    assert!(!keeps(stats, &cmp("g", Lt, num("0"))));
    assert!(keeps(stats, &cmp("g", Eq, num("0"))) && keeps(stats, &cmp("g", Eq, num("-0.0"))));
    // 0.1 as a float is 0.100000001…, and is compared as either.
    for literal in ["0.1", "0.10000000149011612", "0.3", "0.30000001192092896"] {
        assert!(keeps(stats, &cmp("f", Eq, num(literal))), "{literal}");
    }
    assert!(!keeps(stats, &cmp("f", Eq, num("0.31"))));
    let nan = r#"{"numRecords":3,"minValues":{"g":"NaN"},"maxValues":{"g":"NaN"}}"#;
    assert!(keeps(nan, &cmp("g", Eq, num("1"))));
}

#[test]
fn decimals_keep_their_digits() {
    let stats = r#"{"minValues":{"d":"123456789012345678901234567890.11"},"maxValues":{"d":"123456789012345678901234567890.13"}}"#;
    assert!(keeps(stats, &cmp("d", Eq, num("123456789012345678901234567890.12"))));
    assert!(!keeps(stats, &cmp("d", Eq, num("123456789012345678901234567890.14"))));
    // As a number it may have come through a double.
    let stats =
        r#"{"minValues":{"d":123456789012345680000},"maxValues":{"d":1.2345678901234568e20}}"#;
    assert!(keeps(stats, &cmp("d", Eq, num("123456789012345678901.25"))));
    assert!(!keeps(stats, &cmp("d", Eq, num("123456789012345778901.25"))));
    // What went through a 64-bit integer stops at its ends.
    let stats = r#"{"minValues":{"d":-9223372036854775808},"maxValues":{"d":9223372036854775807}}"#;
    for beyond in ["-9223372036854775809.5", "9223372036854775808", "12345678901234567890123"] {
        assert!(keeps(stats, &cmp("d", CompareOp::Eq, num(beyond))), "{beyond}");
    }
    let stats = r#"{"minValues":{"l":1},"maxValues":{"l":9223372036854775807}}"#;
    assert!(!keeps(stats, &cmp("l", CompareOp::Lt, num("1"))));
}

#[test]
fn timestamps_are_truncated_to_what_they_show() {
    let stats = r#"{"minValues":{"t":"2024-01-01T00:00:00.000Z","n":"2024-01-01T00:00:00.000"},"maxValues":{"t":"2024-01-01T12:00:00.123+02:00","n":"2024-01-01T12:00:00.123"}}"#;
    for (name, literal, want) in [
        ("t", "2024-01-01 10:00:00.123999", true),
        ("t", "2024-01-01 10:00:00.124", false),
        ("t", "2024-01-01T12:00:00.123999+02:00", true),
        ("t", "2023-12-31 23:59:59.999999", false),
        ("n", "2024-01-01 12:00:00.123999", true),
        ("n", "2024-01-01 12:00:00.124", false),
    ] {
        let predicate = cmp(name, Eq, Literal::Timestamp(literal.into()));
        assert_eq!(keeps(stats, &predicate), want, "{name} {literal}");
    }
    assert!(!keeps(stats, &cmp("t", Lt, Literal::Date("2024-01-01".into()))));
    let days = r#"{"minValues":{"day":"2024-01-01"},"maxValues":{"day":"2024-01-31"}}"#;
    assert!(!keeps(days, &cmp("day", Eq, text("2024-02-01"))));
    assert!(keeps(days, &cmp("day", Eq, Literal::Date("2024-01-31".into()))));
}

#[test]
fn partition_values_are_exact_and_empty_is_null() {
    assert!(keeps("", &cmp("p", Eq, text("a b"))) && !keeps("", &cmp("p", NotEq, text("a b"))));
    assert!(!keeps("", &cmp("p", Eq, text("a bc"))));
    assert!(!keeps("", &cmp("q", Gt, num("7"))) && keeps("", &cmp("q", Gt, num("6.5"))));
    let m = metadata(SCHEMA, &["p", "q"]);
    for value in [None, Some("")] {
        let file = add(&[("p", value)], None);
        let kept = |p: &Predicate| Pruner::new(&m, p).unwrap().may_match(&file);
        assert!(kept(&Predicate::IsNull(col("p"))));
        assert!(!kept(&Predicate::IsNull(col("p")).negated()));
        assert!(!kept(&cmp("p", Eq, text(""))) && !kept(&cmp("p", NotEq, text("x"))));
        assert!(kept(&Predicate::IsNull(col("q")).negated()), "q has no value at all");
    }
    let times = metadata("a int, t timestamp, b boolean, f double", &["t", "b", "f"]);
    let file =
        add(&[("t", Some("2024-01-01 00:00:00")), ("b", Some("true")), ("f", Some("x"))], None);
    let kept = |p: &Predicate| Pruner::new(&times, p).unwrap().may_match(&file);
    assert!(kept(&cmp("t", Eq, Literal::Timestamp("2024-01-01T00:00:00Z".into()))));
    assert!(!kept(&cmp("t", Gt, Literal::Timestamp("2024-01-01T00:00:00Z".into()))));
    assert!(!kept(&cmp("b", Eq, Literal::Boolean(false))));
    assert!(kept(&cmp("f", Eq, num("1"))), "a value that cannot be read may be any");
    assert!(Pruner::new(&times, &cmp("b", Eq, Literal::Boolean(true))).unwrap().partitions_only());
}

#[test]
fn nested_and_mapped_columns_are_found_by_physical_name() {
    let stats = r#"{"minValues":{"a":{"b":{"c":5}}},"maxValues":{"a":{"b":{"c":9}}},"nullCount":{"a":{"b":{"c":0}}}}"#;
    assert!(
        !keeps(stats, &cmp("a.b.c", Gt, num("9"))) && keeps(stats, &cmp("A.B.C", Eq, num("9")))
    );
    assert!(!keeps(stats, &Predicate::IsNull(col("a.b.c"))));
    assert!(
        keeps(stats, &Predicate::IsNull(col("a.b"))) && keeps(stats, &Predicate::IsNull(col("a")))
    );
    let mut schema = StructType::from_text("x int, p string").unwrap();
    schema.fields[0].metadata.insert(crate::schema::PHYSICAL_NAME.into(), "col-1".into());
    schema.fields[1].metadata.insert(crate::schema::PHYSICAL_NAME.into(), "col-2".into());
    let mut m = metadata("x int, p string", &["p"]);
    m.schema_string = schema.to_json();
    let file = add(
        &[("col-2", Some("v")), ("p", Some("w"))],
        Some(r#"{"minValues":{"col-1":1,"x":7},"maxValues":{"col-1":2,"x":8}}"#),
    );
    let kept = |m: &Metadata, p: &Predicate| Pruner::new(m, p).unwrap().may_match(&file);
    assert!(kept(&m, &cmp("x", Eq, num("7"))) && kept(&m, &cmp("p", Eq, text("w"))));
    m.configuration.insert("delta.columnMapping.mode".into(), Some("name".into()));
    assert!(kept(&m, &cmp("x", Eq, num("2"))) && !kept(&m, &cmp("x", Eq, num("7"))));
    assert!(kept(&m, &cmp("p", Eq, text("v"))) && !kept(&m, &cmp("p", Eq, text("w"))));
}

#[test]
fn constants_that_do_not_fit_name_the_type() {
    let m = metadata(SCHEMA, &["p"]);
    for (predicate, want) in [
        (cmp("nope", Eq, num("1")), "unknown column 'nope': there are l, d"),
        (cmp("l", Eq, text("1")), "'l' is of type long"),
        (cmp("p", Eq, num("1")), "'p' is of type string, which cannot be compared with 1"),
        (cmp("day", Eq, text("today")), "write DATE"),
        (cmp("day", Eq, Literal::Timestamp("2024-01-01 00:00:00".into())), "of type date"),
        (cmp("n", Eq, Literal::Timestamp("2024-01-01 00:00:00Z".into())), "without a time zone"),
        (cmp("t", Eq, Literal::Timestamp("2024-01-01 00:00:00.1234567".into())), "6 digits"),
        (cmp("x", Eq, text("a")), "only IS NULL"),
        (cmp("a", Eq, num("1")), "only IS NULL"),
        (cmp("l", Eq, num("1e99999")), "write a number"),
        (Predicate::StartsWith { column: col("l"), prefix: "1".into() }, "LIKE needs a string"),
        (Predicate::IsNull(col("l.x")), "'l' is not a struct"),
    ] {
        let err = Pruner::new(&m, &predicate).unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
}

#[test]
fn partition_values_are_checked_against_their_type() {
    let check = |data_type: &str, text: &str| {
        let schema = StructType::from_text(&format!("a {data_type}")).unwrap();
        partition_value(&schema.fields[0].data_type, text)
    };
    for (data_type, text, want) in [
        ("int", "007", Some("7")),
        ("byte", "128", None),
        ("long", "1.0", Some("1")),
        ("long", "1.5", None),
        ("boolean", "TRUE", Some("true")),
        ("decimal(4,2)", "12.3", Some("12.30")),
        ("decimal(4,2)", "123.4", None),
        ("decimal(4,2)", "1.234", None),
        ("date", "2024-02-30", None),
        ("date", "2024-02-29", Some("2024-02-29")),
        ("timestamp", "2024-02-29", Some("2024-02-29T00:00:00.000000Z")),
        ("timestamp", "2024-02-29T10:00:00.5", Some("2024-02-29T10:00:00.500000Z")),
        ("timestamp", "2024-02-29T10:00:00Z", Some("2024-02-29T10:00:00.000000Z")),
        ("timestamp", "2024-02-29T10:00:00+02:00", Some("2024-02-29T08:00:00.000000Z")),
        ("timestamp", "2024-02-29T10:00:00.1234567", None),
        ("timestamp_ntz", "2024-02-29T10:00:00Z", None),
        ("double", "1e3", Some("1000.0")),
        ("string", "é x", Some("é x")),
        ("binary", "x", None),
    ] {
        assert_eq!(check(data_type, text).as_deref(), want, "{data_type} {text}");
    }
}

// ---- random rows, their statistics as different writers make them, and random predicates ----

pub(crate) const RANDOM: &str = "i long, d decimal(30,2), s string, f float, g double, t timestamp, day date, \
                      b boolean, p string, q double";

/// A row: a cell for each column of `RANDOM`, as a small number that each type reads its way.
pub(crate) type Row = Vec<Option<i64>>;

const WORDS: &[&str] =
    &["", "a", "ab", "ab\u{FFFF}", "abc", "abz", "b", "é", "\u{1F680}", "\u{1F680}x"];

/// The cell as the column's real value, for brute force.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Int(i128),
    Real(f64),
    Word(String),
}

fn cell(column: usize, raw: i64) -> Cell {
    match column {
        // Near the end of what a double tells apart.
        0 => Cell::Int(9_007_199_254_740_990 + i128::from(raw)),
        // Hundredths of a number of 20 digits.
        1 => Cell::Int(12_345_678_901_234_567_800 + i128::from(raw)),
        2 | 8 => Cell::Word(WORDS[usize::try_from(raw.rem_euclid(10)).unwrap()].to_owned()),
        3 => Cell::Real(match raw {
            1 => f64::NAN,
            0 => -0.0,
            _ => f64::from(f32::from(i16::try_from(raw).unwrap()) / 10.0),
        }),
        4 | 9 => Cell::Real(match raw {
            1 => f64::NAN,
            0 => -0.0,
            5 => f64::INFINITY,
            _ => f64::from(i32::try_from(raw).unwrap()) / 10.0,
        }),
        // Microseconds around a millisecond, on both sides of the epoch.
        5 => Cell::Int(i128::from(raw) * 400),
        6 => Cell::Int(i128::from(raw)),
        _ => Cell::Int(i128::from(raw.rem_euclid(2))),
    }
}

fn order(a: &Cell, b: &Cell) -> Ordering {
    match (a, b) {
        (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
        (Cell::Word(a), Cell::Word(b)) => a.cmp(b),
        (Cell::Real(a), Cell::Real(b)) => {
            a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
        _ => panic!("cells of two columns"),
    }
}

fn day_text(day: i128) -> String {
    let day = u32::try_from(day + 31).unwrap();
    if day < 31 { format!("1969-12-{:02}", day + 1) } else { format!("1970-01-{:02}", day - 30) }
}

/// Text of a time within a second of the epoch, cut to some digits.
fn time_text(micros: i128, digits: usize) -> String {
    let (second, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let base = if second < 0 { "1969-12-31T23:59:59" } else { "1970-01-01T00:00:00" };
    let all = format!("{fraction:06}");
    if digits == 0 { format!("{base}Z") } else { format!("{base}.{}Z", &all[..digits]) }
}

fn exact_text(column: usize, value: &Cell) -> String {
    match (column, value) {
        (1, Cell::Int(v)) => format!("{}.{:02}", v / 100, v % 100),
        (5, Cell::Int(v)) => time_text(*v, 6),
        (6, Cell::Int(v)) => day_text(*v),
        (7, Cell::Int(v)) => (*v == 1).to_string(),
        (_, Cell::Int(v)) => v.to_string(),
        (_, Cell::Real(v)) if v.is_infinite() => "Infinity".to_owned(),
        (3, Cell::Real(v)) => v.to_string().parse::<f32>().unwrap().to_string(),
        (_, Cell::Real(v)) => v.to_string(),
        (_, Cell::Word(w)) => w.clone(),
    }
}

/// How one writer summarises: each field switches a habit.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    truncate: Option<(usize, bool)>,
    time_digits: usize,
    decimals_as_text: bool,
    no_nulls: bool,
    no_bounds: bool,
    no_count: bool,
    widened: i64,
    nan_is_max: bool,
}

fn bound(writer: &Writer, column: usize, value: &Cell, max: bool) -> Json {
    let raw = |text: String| serde_json::from_str::<Json>(&text).unwrap_or(Json::String(text));
    match (column, value) {
        (2, Cell::Word(word)) => {
            let Some((length, tie)) = writer.truncate else { return Json::String(word.clone()) };
            let mut cut: String = word.chars().take(length).collect();
            if max && tie && cut != *word {
                cut.push('\u{FFFF}');
            }
            Json::String(cut)
        }
        (1, _) if writer.decimals_as_text => Json::String(exact_text(1, value)),
        // What a writer does that has doubles only.
        (1, _) => json!(exact_text(1, value).parse::<f64>().unwrap()),
        (5, Cell::Int(v)) => Json::String(time_text(*v, writer.time_digits)),
        (6, _) => Json::String(exact_text(6, value)),
        (_, Cell::Real(v)) if !v.is_finite() => Json::String(exact_text(column, value)),
        _ => raw(exact_text(column, value)),
    }
}

/// The file's action as that writer makes it. Rows share their partition's cells (8 and 9).
pub(crate) fn describe(rows: &[Row], writer: &Writer) -> Add {
    let names = ["i", "d", "s", "f", "g", "t", "day", "b", "p", "q"];
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for column in 0..8 {
        let raw = |delta: i64| {
            rows.iter().filter_map(move |r| r[column].map(|raw| raw + delta)).collect::<Vec<_>>()
        };
        let count = rows.iter().filter(|r| r[column].is_none()).count();
        nulls.insert(names[column].into(), json!(count));
        let real = |raw: &i64| {
            let value = cell(column, *raw);
            let nan = matches!(value, Cell::Real(v) if v.is_nan());
            (!nan || writer.nan_is_max).then_some(value)
        };
        // Wide bounds, as after a deletion; only where the order of the raw numbers is the type's.
        let wide = if matches!(column, 0 | 1 | 5 | 6) { writer.widened } else { 0 };
        let low = raw(-wide).iter().filter_map(real).min_by(order);
        let high = raw(wide).iter().filter_map(real).max_by(order);
        if let (Some(low), Some(high)) = (low, high) {
            min.insert(names[column].into(), bound(writer, column, &low, false));
            max.insert(names[column].into(), bound(writer, column, &high, true));
        }
    }
    let mut stats = Map::new();
    if !writer.no_count {
        stats.insert("numRecords".into(), json!(rows.len()));
    }
    if !writer.no_bounds {
        stats.insert("minValues".into(), Json::Object(min));
        stats.insert("maxValues".into(), Json::Object(max));
    }
    if !writer.no_nulls {
        stats.insert("nullCount".into(), Json::Object(nulls));
    }
    let partition =
        |column: usize| rows[0][column].map(|raw| exact_text(column, &cell(column, raw)));
    let (p, q) = (partition(8), partition(9));
    add(&[("p", p.as_deref()), ("q", q.as_deref())], Some(&Json::Object(stats).to_string()))
}

/// A condition in both worlds.
#[derive(Debug, Clone)]
pub(crate) enum Cond {
    Compare(usize, u8, i64),
    In(usize, Vec<Option<i64>>),
    Prefix(usize),
    Null(usize),
    Not(Box<Cond>),
    And(Vec<Cond>),
    Or(Vec<Cond>),
}

const NAMES: [&str; 10] = ["i", "d", "s", "f", "g", "t", "day", "b", "p", "q"];
const OPS: [CompareOp; 6] = [Eq, NotEq, Lt, LtEq, Gt, GtEq];

/// Constants are numbers that SQL can write: no NaN, no infinity.
fn constant(column: usize, raw: i64) -> Cell {
    let finite = match (column, raw) {
        (3 | 4 | 9, 1) => 2,
        (3 | 4 | 9, 5) => 4,
        _ => raw,
    };
    cell(column, finite)
}

fn literal(column: usize, raw: i64) -> Literal {
    let value = constant(column, raw);
    let text = exact_text(column, &value);
    match column {
        2 | 8 => Literal::Text(text),
        5 => Literal::Timestamp(text),
        6 => Literal::Date(text),
        7 => Literal::Boolean(text == "true"),
        _ => Literal::Number(text),
    }
}

fn word(column: usize) -> bool {
    matches!(column, 2 | 8)
}

impl Cond {
    pub(crate) fn predicate(&self) -> Predicate {
        let all = |list: &[Cond]| list.iter().map(Cond::predicate).collect();
        match self {
            Cond::Compare(c, op, raw) => cmp(NAMES[*c], OPS[usize::from(*op)], literal(*c, *raw)),
            Cond::In(c, raws) => Predicate::In {
                column: col(NAMES[*c]),
                values: raws
                    .iter()
                    .map(|raw| raw.map_or(Literal::Null, |raw| literal(*c, raw)))
                    .collect(),
            },
            Cond::Prefix(c) => Predicate::StartsWith {
                column: col(if word(*c) { NAMES[*c] } else { "s" }),
                prefix: "ab".into(),
            },
            Cond::Null(c) => Predicate::IsNull(col(NAMES[*c])),
            Cond::Not(inner) => inner.predicate().negated(),
            Cond::And(list) => Predicate::And(all(list)),
            Cond::Or(list) => Predicate::Or(all(list)),
        }
    }

    /// The truth for one row. An empty string in a partition column is null.
    fn truth(&self, row: &Row) -> Option<bool> {
        let at = |c: usize| {
            row[c].map(|raw| cell(c, raw)).filter(|v| c != 8 || *v != Cell::Word(String::new()))
        };
        match self {
            Cond::Compare(c, op, raw) => {
                let order = order(&at(*c)?, &constant(*c, *raw));
                Some(match OPS[usize::from(*op)] {
                    Eq => order.is_eq(),
                    NotEq => order.is_ne(),
                    Lt => order.is_lt(),
                    LtEq => order.is_le(),
                    Gt => order.is_gt(),
                    GtEq => order.is_ge(),
                })
            }
            Cond::In(c, raws) => {
                let value = at(*c)?;
                let hit = raws.iter().flatten().any(|r| order(&value, &constant(*c, *r)).is_eq());
                if hit { Some(true) } else { (!raws.contains(&None)).then_some(false) }
            }
            Cond::Prefix(c) => match at(if word(*c) { *c } else { 2 })? {
                Cell::Word(w) => Some(w.starts_with("ab")),
                _ => None,
            },
            Cond::Null(c) => Some(at(*c).is_none()),
            Cond::Not(inner) => inner.truth(row).map(|b| !b),
            Cond::And(list) => {
                let all: Vec<_> = list.iter().map(|c| c.truth(row)).collect();
                if all.contains(&Some(false)) {
                    Some(false)
                } else {
                    (!all.contains(&None)).then_some(true)
                }
            }
            Cond::Or(list) => {
                let all: Vec<_> = list.iter().map(|c| c.truth(row)).collect();
                if all.contains(&Some(true)) {
                    Some(true)
                } else {
                    (!all.contains(&None)).then_some(false)
                }
            }
        }
    }
}

pub(crate) fn conds() -> impl Strategy<Value = Cond> {
    let leaf = prop_oneof![
        6 => (0..10_usize, 0..6_u8, -4..6_i64).prop_map(|(c, o, r)| Cond::Compare(c, o, r)),
        2 => (0..10_usize, prop::collection::vec(prop::option::weighted(0.9, -4..6_i64), 1..4))
            .prop_map(|(c, list)| Cond::In(c, list)),
        1 => (0..10_usize).prop_map(Cond::Prefix),
        1 => (0..10_usize).prop_map(Cond::Null),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|c| Cond::Not(Box::new(c))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Cond::And),
            prop::collection::vec(inner, 1..4).prop_map(Cond::Or),
        ]
    })
}

pub(crate) fn writers() -> impl Strategy<Value = Writer> {
    let rare = || prop::bool::weighted(0.1);
    (
        prop::option::of((1..3_usize, any::<bool>())),
        prop_oneof![Just(0_usize), Just(3), Just(6)],
        any::<bool>(),
        (rare(), rare(), rare()),
        0..3_i64,
        any::<bool>(),
    )
        .prop_map(
            |(truncate, time_digits, decimals_as_text, (a, b, c), widened, nan_is_max)| Writer {
                truncate,
                time_digits,
                decimals_as_text,
                no_nulls: a,
                no_bounds: b,
                no_count: c,
                widened,
                nan_is_max,
            },
        )
}

pub(crate) fn files() -> impl Strategy<Value = Vec<Row>> {
    // A base per column and small steps from it: narrow files, so that some are ruled out.
    let column = || (-4..4_i64, 0..3_i64, any::<bool>());
    prop::collection::vec(column(), 10).prop_flat_map(|columns| {
        let row: Vec<_> = columns
            .iter()
            .enumerate()
            .map(|(c, (base, spread, nulls))| {
                if c >= 8 {
                    // All rows of a file are of one partition.
                    return Just((!nulls || base % 3 != 0).then_some(*base)).boxed();
                }
                let some = if *nulls { 0.6 } else { 0.99 };
                prop::option::weighted(some, *base..=(*base + *spread)).boxed()
            })
            .collect();
        prop::collection::vec(row, 1..5)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_000, ..ProptestConfig::default() })]

    #[test]
    fn a_file_with_a_matching_row_is_never_ruled_out(
        rows in files(), writer in writers(), cond in conds(),
    ) {
        let pruner = Pruner::new(&metadata(RANDOM, &["p", "q"]), &cond.predicate()).unwrap();
        let file = describe(&rows, &writer);
        if rows.iter().any(|row| cond.truth(row) == Some(true)) {
            prop_assert!(pruner.may_match(&file), "{:?}\n{:?}", file, cond);
        }
    }
}

#[test]
fn half_of_the_files_that_cannot_match_are_ruled_out() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut none, mut ruled_out) = (0, 0);
    for _ in 0..2_000 {
        let (rows, cond) = (files(), conds()).new_tree(&mut runner).unwrap().current();
        let writer = Writer {
            truncate: None,
            time_digits: 6,
            decimals_as_text: true,
            no_nulls: false,
            no_bounds: false,
            no_count: false,
            widened: 0,
            nan_is_max: false,
        };
        if rows.iter().any(|row| cond.truth(row) == Some(true)) {
            continue;
        }
        none += 1;
        let pruner = Pruner::new(&metadata(RANDOM, &["p", "q"]), &cond.predicate()).unwrap();
        ruled_out += i32::from(!pruner.may_match(&describe(&rows, &writer)));
    }
    assert!(none > 200 && ruled_out * 2 > none, "{ruled_out} of {none}");
}

#[test]
fn foreign_text_in_statistics_never_panics() {
    let kinds = ["l", "d", "s", "f", "g", "t", "n", "day", "b", "a.b.c"];
    for value in [
        r#""""#,
        r#""-""#,
        r#""é-é-é""#,
        r#""2024-01-01Té""#,
        r#""2024-01-01T00:00:00+é1""#,
        "1e99999",
        "-1e-99999",
        "99999999999999999999999999999999999999999999",
        "null",
        "true",
        r#""9999999-12-31T23:59:59.999999999+18:00""#,
        r#""-9999999-01-01""#,
        "[]",
        "{}",
        "1e38",
        "170141183460469231731687303715884105727",
        "-170141183460469231731687303715884105728",
    ] {
        for name in kinds {
            let nested = match name {
                "a.b.c" => format!(r#"{{"a":{{"b":{{"c":{value}}}}}}}"#),
                _ => format!(r#"{{"{name}":{value}}}"#),
            };
            let stats =
                format!(r#"{{"minValues":{nested},"maxValues":{nested},"nullCount":{nested}}}"#);
            keeps(&stats, &Predicate::IsNull(col(name)));
            let literal = match name {
                "s" => text("x"),
                "t" | "n" | "day" => text("2024-01-01"),
                "b" => Literal::Boolean(true),
                _ => num("1"),
            };
            keeps(&stats, &cmp(name, Lt, literal));
        }
    }
}
