use serde_json::json;

use super::*;
use crate::predicate::tests::metadata;

const SCHEMA: &str = "i int, l long, g double, s string, d decimal(20,2), day date, t timestamp, b boolean, \
                      a struct<c:int>, x binary, p decimal(10,2), q string";

fn canonical() -> Canonical {
    Canonical::of(&metadata(SCHEMA, &["p", "q"]))
}

fn usable(text: &str) -> Option<String> {
    canonical().stats(text).map(Cow::into_owned)
}

/// Statistics that are fine stay as they are, to the byte.
#[test]
fn usable_statistics_stay() {
    for text in [
        "{}",
        r#"{"numRecords":3}"#,
        r#" {"numRecords":3,"minValues":{"i":-1,"g":1e3,"s":"a","d":"123456789012345678.25","day":"2020-01-01","t":"2020-01-01T00:00:00.000Z","b":false,"a":{"c":1}},"maxValues":{"i":2,"l":9223372036854775807,"g":null},"nullCount":{"i":0,"a":{"c":3},"x":1},"tightBounds":false}"#,
        r#"{"numRecords":1,"minValues":{"unknown":[1,{"x":2}]},"other":1}"#,
    ] {
        assert!(
            matches!(canonical().stats(text), Some(Cow::Borrowed(same)) if same == text),
            "{text}"
        );
    }
}

#[test]
fn unusable_statistics_go_and_no_others() {
    let all = r#"{"numRecords":3,"minValues":{"i":1},"maxValues":{"i":2},"nullCount":{"i":0}}"#;
    assert_eq!(usable(all).as_deref(), Some(all));
    for (text, want) in [
        ("", None),
        ("null", None),
        ("no JSON at all", None),
        ("[1]", None),
        ("{}{}", None),
        (r#"{"numRecords":3,"minValues":{"g":-Infinity}}"#, None),
        (r#"{"numRecords":NaN}"#, None),
        (r#"{"numRecords":3"#, None),
        (r#"{"numRecords":"3"}"#, None),
        (r#"{"numRecords":-3}"#, None),
        (r#"{"numRecords":3.5,"nullCount":{"i":0}}"#, Some(r#"{"nullCount":{"i":0}}"#)),
        (r#"{"numRecords":99999999999999999999,"tightBounds":1}"#, None),
        (
            r#"{"numRecords":3,"minValues":{"i":"x","l":1},"maxValues":{"i":5,"l":2147483648}}"#,
            Some(r#"{"numRecords":3,"minValues":{"l":1},"maxValues":{"i":5,"l":2147483648}}"#),
        ),
        (
            r#"{"numRecords":3,"minValues":{"i":9,"l":1},"maxValues":{"i":2,"l":1}}"#,
            Some(r#"{"numRecords":3,"minValues":{"l":1},"maxValues":{"l":1}}"#),
        ),
        (r#"{"numRecords":3,"nullCount":{"i":4,"l":1}}"#, Some(r#"{"nullCount":{"i":4,"l":1}}"#)),
        (r#"{"numRecords":3,"nullCount":{"i":-1}}"#, Some(r#"{"numRecords":3,"nullCount":{}}"#)),
        (r#"{"numRecords":3,"nullCount":7,"minValues":[]}"#, Some(r#"{"numRecords":3}"#)),
        (r#"{"numRecords":2,"minValues":{"i":1e99}}"#, Some(r#"{"numRecords":2,"minValues":{}}"#)),
        (
            r#"{"numRecords":2,"maxValues":{"i":300000000000}}"#,
            Some(r#"{"numRecords":2,"maxValues":{}}"#),
        ),
        (r#"{"numRecords":2,"minValues":{"g":1e999}}"#, Some(r#"{"numRecords":2,"minValues":{}}"#)),
        (
            r#"{"numRecords":2,"minValues":{"g":"NaN","s":5}}"#,
            Some(r#"{"numRecords":2,"minValues":{}}"#),
        ),
        (
            r#"{"numRecords":2,"minValues":{"day":"soon","t":1}}"#,
            Some(r#"{"numRecords":2,"minValues":{}}"#),
        ),
        (
            r#"{"numRecords":2,"minValues":{"a":{"c":"x"}}}"#,
            Some(r#"{"numRecords":2,"minValues":{"a":{}}}"#),
        ),
        (r#"{"numRecords":2,"minValues":{"a":1}}"#, Some(r#"{"numRecords":2,"minValues":{}}"#)),
        (
            r#"{"numRecords":2,"maxValues":{"s":"\ud800"}}"#,
            Some(r#"{"numRecords":2,"maxValues":{}}"#),
        ),
        (r#"{"numRecords":2,"zz":"\ud800"}"#, Some(r#"{"numRecords":2}"#)),
        // More digits than a double has: they may not be those of the minimum.
        (
            r#"{"numRecords":2,"minValues":{"d":123456789012345680}}"#,
            Some(r#"{"numRecords":2,"minValues":{}}"#),
        ),
        (r#"{"numRecords":2,"maxValues":{"s":"aa￿"}}"#, Some(r#"{"numRecords":2,"maxValues":{}}"#)),
        (r#"{"numRecords":1,"numRecords":2}"#, Some(r#"{"numRecords":2}"#)),
    ] {
        assert_eq!(usable(text).as_deref(), want, "{text}");
    }
    let deep = format!("{{\"minValues\":{}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    assert_eq!(usable(&deep).as_deref(), Some("{\"minValues\":{\"a\":{}}}"));
}

/// Only the two fields change; all others keep their bytes, also those that no one here knows.
#[test]
fn lines_change_where_they_must() {
    let line = |p: &str, q: &str, stats: &str| {
        format!(
            "{{\"add\":{{\"path\":\"f\",\"new\":[1, 2],\"partitionValues\":{{\"p\":{p},\"q\":{q}}},\"size\":1,\
             \"modificationTime\":1,\"dataChange\":true,\"stats\":{stats}}}}}"
        )
    };
    let good = r#""{\"numRecords\":1}""#;
    assert_eq!(canonical().line(&line("\"1.50\"", "null", good)).unwrap(), None);
    assert_eq!(canonical().line(&line("\"abc\"", "\"a\"", good)).unwrap(), None);
    for (p, q, stats, want) in [
        ("\"1.5\"", "\"\"", good, line("\"1.50\"", "null", good)),
        ("null", "\"x\"", "\"\"", line("null", "\"x\"", "null")),
    ] {
        assert_eq!(canonical().line(&line(p, q, stats)).unwrap(), Some(want));
    }
    let remove = json!({"remove": {"path": "f", "dataChange": true, "partitionValues": {"p": "2", "q": null}}});
    let changed = canonical().line(&remove.to_string()).unwrap().unwrap();
    assert!(changed.contains(r#""p":"2.00""#), "{changed}");
    let other = r#"{"commitInfo":{"partitionValues":{"p":""}}}"#;
    assert_eq!(canonical().line(other).unwrap(), None);
}

#[test]
fn empty_values_of_a_commit_become_null() {
    let line = |p: &str| {
        format!(
            "{{\"add\":{{\"path\":\"f\",\"partitionValues\":{{\"p\":{p}}},\"size\":1,\"modificationTime\":1,\
             \"dataChange\":true,\"tags\":{{\"t\":\"\"}}}}}}\n"
        )
    };
    let info = "{\"commitInfo\":{\"a\":\"\"}}\n";
    let commit = |p: &str| format!("{info}{}{}", line("\"x\""), line(p)) + &line("\"y\"");
    assert_eq!(without_empty_values(&commit("null")).unwrap(), None);
    assert_eq!(without_empty_values(&commit("\"\"")).unwrap(), Some(commit("null")));
}
