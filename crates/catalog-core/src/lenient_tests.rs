use super::normal::Number;
use super::*;
use crate::commit::{CommitIndex, index_ndjson, parse_ndjson};
use crate::later::read_large_by;

const METADATA: &str = r#"{"metaData":{"id":"i","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":[],"configuration":{}}}"#;

fn add(fields: &str) -> String {
    format!(
        r#"{{"add":{{"path":"p","partitionValues":{{}},"size":1,"modificationTime":2,"dataChange":true{fields}}}}}"#
    )
}

/// What a text says in the protocol's form, and what is odd of it.
fn normal(text: &str) -> (String, Vec<String>) {
    let lines = normal_lines("x", text.as_bytes()).unwrap();
    let odd = index_ndjson("x", text.as_bytes()).unwrap().odd;
    let odd = odd.iter().map(|(odd, seen)| format!("{odd:?} {} {}", seen.count, seen.line));
    (String::from_utf8(lines.into_owned()).unwrap(), odd.collect())
}

#[test]
fn what_readers_read_is_put_into_the_protocols_form() {
    let plain = add("");
    for (line, want, odd) in [
        (
            plain.replace("\"size\":1", "\"size\":1.0"),
            plain.clone(),
            "FractionalNumber(\"add.size\")",
        ),
        (
            plain.replace("\"size\":1", "\"size\":\"1\""),
            plain.clone(),
            "QuotedNumber(\"add.size\")",
        ),
        (plain.replace("\"size\":1", "\"size\":1.9"), plain.clone(), "CutNumber(\"add.size\")"),
        (
            plain.replace("\"modificationTime\":2", "\"modificationTime\":0.2E1"),
            plain.clone(),
            "FractionalNumber(\"add.modificationTime\")",
        ),
        (
            plain.replace(
                "\"partitionValues\":{}",
                "\"partitionValues\":{\"a\":1.50,\"b\":true,\"c\":null}",
            ),
            plain.replace(
                "\"partitionValues\":{}",
                "\"partitionValues\":{\"a\":\"1.50\",\"b\":\"true\",\"c\":null}",
            ),
            "NumberForText(\"add.partitionValues\")",
        ),
        (
            add(r#","tags":{"t":1,"o":{"k":[1, "x"]}}"#),
            add(r#","tags":{"o":"{\"k\":[1, \"x\"]}","t":"1"}"#),
            "JsonForText(\"add.tags\")",
        ),
        (
            add(r#","stats":{"numRecords":2}"#),
            add(r#","stats":"{\"numRecords\":2}""#),
            "JsonForText(\"add.stats\")",
        ),
        (plain.replace("{}", "null"), plain.clone(), "Missing(\"add.partitionValues\")"),
        (plain.replace("true", "null"), plain.clone(), "Missing(\"add.dataChange\")"),
        (add(r#","size":7"#), plain.replace("\"size\":1", "\"size\":7"), "Twice(\"add.size\")"),
        (
            add(
                r#","deletionVector":{"storageType":"u","pathOrInlineDv":"a","offset":1.0,"sizeInBytes":"2","cardinality":3}"#,
            ),
            add(
                r#","deletionVector":{"storageType":"u","pathOrInlineDv":"a","offset":1,"sizeInBytes":2,"cardinality":3}"#,
            ),
            "QuotedNumber(\"add.deletionVector.sizeInBytes\")",
        ),
        (plain.replacen('{', "{\"x\":[1],", 1), plain.clone(), "UnknownKey"),
        (
            r#"{"txn":{"appId":5,"version":"3","lastUpdated":1.0}}"#.into(),
            r#"{"txn":{"appId":"5","version":3,"lastUpdated":1}}"#.into(),
            "QuotedNumber(\"txn.version\")",
        ),
        (
            r#"{"protocol":{"minReaderVersion":1.0,"minWriterVersion":"2","writerFeatures":null}}"#
                .into(),
            r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#.into(),
            "QuotedNumber(\"protocol.minWriterVersion\")",
        ),
        (
            r#"{"remove":{"path":"p","deletionTimestamp":1.7e12,"dataChange":true}}"#.into(),
            r#"{"remove":{"path":"p","deletionTimestamp":1700000000000,"dataChange":true}}"#.into(),
            "FractionalNumber(\"remove.deletionTimestamp\")",
        ),
        (
            r#"{"domainMetadata":{"domain":"d","configuration":{"a":1},"removed":false}}"#.into(),
            r#"{"domainMetadata":{"domain":"d","configuration":"{\"a\":1}","removed":false}}"#
                .into(),
            "JsonForText(\"domainMetadata.configuration\")",
        ),
        (
            r#"{"cdc":{"path":"p"}}"#.into(),
            r#"{"cdc":{"path":"p","partitionValues":{},"size":0,"dataChange":false}}"#.into(),
            "Missing(\"cdc.size\")",
        ),
        (
            METADATA.replace("\"configuration\":{}", "\"configuration\":{\"a\":1,\"b\":false}"),
            METADATA
                .replace("\"configuration\":{}", "\"configuration\":{\"a\":\"1\",\"b\":\"false\"}"),
            "NumberForText(\"metaData.configuration\")",
        ),
        (
            METADATA.replace("[],", "null,"),
            METADATA.into(),
            "Missing(\"metaData.partitionColumns\")",
        ),
        (
            METADATA.replace("{\"provider\":\"parquet\",\"options\":{}}", "{\"options\":null}"),
            METADATA.into(),
            "Missing(\"metaData.format.provider\")",
        ),
        (
            METADATA.replace("\"id\":\"i\"", "\"id\":7"),
            METADATA.replace("\"id\":\"i\"", "\"id\":\"7\""),
            "NumberForText(\"metaData.id\")",
        ),
        (
            METADATA.replace(r#""schemaString":"{\"type\":\"struct\",\"fields\":[]}","#, ""),
            METADATA.into(),
            "Missing(\"metaData.schemaString\")",
        ),
        (format!("\u{feff}{plain}"), plain.clone(), "ByteOrderMark"),
        (plain.replace(',', ",\n  "), plain.clone(), "SeveralLines"),
        (
            plain.replace("\"p\"", "\"a\tb\""),
            plain.replace("\"p\"", "\"a\\tb\""),
            "ControlCharacter",
        ),
    ] {
        let (found, notes) = normal(&line);
        assert_eq!(found.trim_end(), want, "{line}");
        let is_noted = |note: &String| note.starts_with(odd) && note.ends_with(" 1");
        assert!(notes.iter().any(is_noted), "{line}: {notes:?}");
        // In the protocol's form nothing is odd, and the strict reader reads it.
        let again = normal(&found);
        assert_eq!(again, (found.clone(), vec![]), "{line}");
        parse_ndjson("x", found.as_bytes()).unwrap();
        // Our own commits must have that form.
        if odd != "Missing(\"metaData.schemaString\")" {
            parse_ndjson("x", line.as_bytes()).unwrap_err();
        }
    }
}

#[test]
fn lines_keep_their_bytes_where_nothing_is_odd() {
    let odd = add("").replace("\"size\":1", "\"size\":1.0");
    let plain = add(r#","new":{"x":1}"#);
    for lines in [
        vec![plain.as_str(), "", "{\"commitInfo\":{ \"a\":1}}\r", &plain],
        vec![&odd, &plain, METADATA],
        vec![&plain, &odd, &plain, &odd],
        vec![&plain, "  ", &odd],
    ] {
        let text = lines.join("\n");
        let want = text.replace(&odd, &add(""));
        assert_eq!(normal(&text).0.trim_end(), want);
    }
    // Fields that have a default are there for readers that insist on them.
    let (line, odd) = normal(r#"{"add":{"path":"p","size":1,"modificationTime":2}}"#);
    assert_eq!((line.trim_end(), odd.len()), (add("").as_str(), 0));
    let (line, _) = normal(r#"{"remove":{"path":"p"}}"#);
    assert_eq!(line.trim_end(), r#"{"remove":{"path":"p","dataChange":true}}"#);
}

#[test]
fn objects_need_no_lines_of_their_own() {
    let (one, two) = (add(""), add("").replace("\"p\"", "\"q\""));
    let info = r#"{"commitInfo":{"operation":"x"}}"#;
    let joined =
        format!("{}{}", info.trim_end_matches('}').to_owned() + "},", one.trim_start_matches('{'));
    for (text, odd) in [
        (format!("{info} {one}{two}"), "SeveralObjects 1 1"),
        (format!("{info}\r{one}\r{two}\r"), "SeveralObjects 1 1"),
        (format!("{info}\n{one} {two}\n"), "SeveralObjects 1 2"),
        (format!("{joined}\n{two}"), "SeveralActions 1 1"),
        (format!("{info}\n{}\n{two}", one.replace('{', "{\n")), "SeveralLines 1 2"),
    ] {
        let index = index_ndjson("x", text.as_bytes()).unwrap();
        let paths: Vec<_> = index.adds.iter().map(|add| add.path.as_str()).collect();
        assert_eq!(paths, ["p", "q"], "{text}");
        assert_eq!(index.info().operation.as_deref(), Some("x"), "{text}");
        assert!(normal(&text).1.iter().any(|note| note == odd), "{text}: {:?}", normal(&text).1);
        let (lines, _) = normal(&text);
        let strict = parse_ndjson("x", lines.as_bytes()).unwrap();
        assert_eq!(strict.len(), 3, "{lines}");
    }
}

#[test]
fn what_nobody_reads_is_refused_with_its_line() {
    let plain = add("");
    for (line, want) in [
        ("null".into(), "line 2: not a JSON object with one action"),
        ("[]".into(), "line 2: not a JSON object with one action"),
        ("\0\0".into(), "line 2: not a JSON object with one action"),
        (plain.replace("\"size\":1,", ""), "line 2: bad 'add' action: missing field `size`"),
        (plain.replace("\"size\":1", "\"size\":\"l\""), "line 2: bad 'add' action"),
        (plain.replace("\"size\":1", "\"size\":1e30"), "line 2: bad 'add' action"),
        (plain.replace("\"size\":1", "\"size\":9223372036854775808"), "line 2: bad 'add' action"),
        (plain.replace("true", "\"true\""), "line 2: bad 'add' action"),
        (plain.replace("{}", "[]"), "line 2: bad 'add' action"),
        (plain.replace("\"size\"", "\"SIZE\""), "line 2: bad 'add' action: missing field `size`"),
        (plain.replace("}}", "}"), "line 2: not a JSON object with one action"),
        (plain.replace("}}", "}}}"), "line 2: not a JSON object with one action"),
        (
            METADATA.replace("{\"provider\":\"parquet\",\"options\":{}}", "\"x\""),
            "line 2: bad 'metaData'",
        ),
        (r#"{"txn":{"appId":"a"}}"#.into(), "line 2: bad 'txn' action: missing field `version`"),
        (r#"{"protocol":{"minReaderVersion":1}}"#.into(), "line 2: bad 'protocol' action"),
    ] {
        let text = format!("{plain}\n{line}\n{plain}\n");
        let error = index_ndjson("x", text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("x, ") && error.contains(want), "{line}: {error}");
        let large = read_large_by("x", text.as_bytes(), 1);
        let error = match large {
            Err(error) => error,
            Ok(read) => {
                let mut pages = read.later.pages().unwrap();
                loop {
                    match pages.blocking_next() {
                        Err(error) => break error,
                        Ok(page) => assert!(page.is_some(), "{line} was read"),
                    }
                }
            }
        };
        assert!(error.to_string().contains(want), "{line}: {error}");
    }
    // Lists are not read to their end, nor is an object that never ends.
    let endless = "{\"add\":\n".repeat(10);
    index_ndjson("x", endless.as_bytes()).unwrap_err();
    index_ndjson("x", ("{\"a\":{".to_owned() + &"\n".repeat(5_000)).as_bytes()).unwrap_err();
}

#[tokio::test]
async fn large_commits_are_read_alike() {
    let plain = add("").replace("\"p\"", "\"q\"");
    let info = r#"{"commitInfo":{"operation":5,"inCommitTimestamp":7.0,"a":"x	y"}}"#;
    let odd = add(r#","tags":{"a":1}"#).replace("\"size\":1", "\"size\":\"4.0\"");
    let metadata = METADATA.replace("\"id\":\"i\",", "");
    let txn = r#"{"txn":{"appId":"a","version":"3"},"zzz":1}"#;
    for text in [
        [info, &plain, &odd, &metadata, txn].join("\n"),
        [info, &plain, &odd, &metadata, txn].join("\r"),
        [info, &plain, &odd, &metadata, txn].concat(),
        format!("\u{feff}{odd}\n\n{}", metadata.replace(':', ":\n").replace(r#"\":\n"#, r#"\":"#)),
        odd.replace(',', "\n,\n") + "\r\n" + &plain,
    ] {
        let want = index_ndjson("x", text.as_bytes()).unwrap();
        assert!(!want.odd.is_empty());
        for page in [1, 9] {
            let read = read_large_by("x", text.as_bytes(), page).unwrap();
            assert!(!read.twice);
            assert_eq!(read.body.published().unwrap(), text.as_bytes());
            assert_eq!(read.later.bytes(), want.added_bytes());
            let adds = read.later.all().await.unwrap();
            let mut all: Vec<_> = read.index.odd.iter().map(|(o, _)| o.clone()).collect();
            all.extend(read.later.odd().iter().map(|(o, _)| o.clone()));
            all.sort();
            all.dedup();
            assert!(all.iter().eq(want.odd.iter().map(|(o, _)| o)), "{all:?}");
            let odd = want.odd.clone();
            assert_eq!(CommitIndex { adds, odd, ..read.index }, want, "{text}");
        }
        if want.commit_info.is_some() {
            assert_eq!(want.info().in_commit_timestamp, Some(7));
            assert_eq!(want.info().operation.as_deref(), Some("5"));
        }
        if let Some(metadata) = want.metadata {
            assert_eq!(metadata.id.len(), 36);
        }
    }
}

#[test]
fn schemas_get_what_writers_left_out() {
    let text = r#"{"type":"struct","fields":[{"name":"a","type":"long"},{"name":"b","type":{"type":"array","elementType":{"type":"struct","fields":[{"name":"c","type":"string","nullable":false,"metadata":null}]}},"nullable":false,"metadata":{"k":1.5}}]}"#;
    let mut metadata: Metadata = serde_json::from_str(r#"{"id":"i"}"#).unwrap();
    metadata.schema_string = text.to_owned();
    let mut odd = Vec::new();
    complete(&mut metadata, &mut odd);
    let field = |name: &str, of: &str, nullable: bool, metadata: &str| {
        format!(r#"{{"name":"{name}","type":{of},"nullable":{nullable},"metadata":{metadata}}}"#)
    };
    let inner = field("c", r#""string""#, false, "{}");
    let list = format!(
        r#"{{"type":"array","elementType":{{"type":"struct","fields":[{inner}]}},"containsNull":true}}"#
    );
    let (first, second) =
        (field("a", r#""long""#, true, "{}"), field("b", &list, false, r#"{"k":1.5}"#));
    let want = format!(r#"{{"type":"struct","fields":[{first},{second}]}}"#);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&metadata.schema_string), json(&want));
    assert_eq!(odd.len(), 3, "{odd:?}");
    let complete_text = metadata.schema_string.clone();
    odd.clear();
    complete(&mut metadata, &mut odd);
    assert_eq!((metadata.schema_string, odd.len()), (complete_text, 0));
}

#[test]
fn numbers_are_integers_however_they_are_written() {
    for (text, integer, is_fractional, is_cut) in [
        ("0", 0, false, false),
        ("-7", -7, false, false),
        ("696.0", 696, true, false),
        ("-696.5", -696, true, true),
        ("1.7e12", 1_700_000_000_000, true, false),
        ("17000E-1", 1_700, true, false),
        ("17E-2", 0, true, true),
        ("0.00", 0, true, false),
        ("9223372036854775807.0", i64::MAX, true, false),
        ("-9223372036854775808", i64::MIN, false, false),
        ("1e+3", 1_000, true, false),
    ] {
        assert_eq!(Number::parse(text), Some(Number { integer, is_fractional, is_cut }), "{text}");
    }
    for text in
        ["", "-", ".5", "1e", "1e99999999999", "9223372036854775808", "1e19", "0x1", "1 ", "NaN"]
    {
        assert_eq!(Number::parse(text), None, "{text}");
    }
}
