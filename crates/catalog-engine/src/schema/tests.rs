use super::*;

fn all_types() -> StructType {
    StructType::from_text(
        "a byte, b short, c int, d bigint not null, e real, f double precision, \
         g decimal(38,18), h text, i binary, j bool, k date, l timestamp, m timestamp_ntz, \
         n variant, o array<string not null>, p map<string,array<int>>, \
         `q r` struct<street:string not null, zip int comment 'it''s \"x\"'>, s decimal",
    )
    .unwrap()
}

#[test]
fn json_and_text_read_back_what_they_write() {
    let schema = all_types();
    let json = schema.to_json();
    assert_eq!(StructType::parse(&json).unwrap(), schema);
    let mut plain = schema.clone();
    let DataType::Struct(inner) = &mut plain.fields[16].data_type else { panic!() };
    assert_eq!(inner.fields[1].metadata_text("comment"), Some("it's \"x\""));
    inner.fields[1].metadata.clear();
    assert_eq!(StructType::from_text(&schema.to_string()).unwrap(), plain);
    assert!(json.starts_with(
        r#"{"type":"struct","fields":[{"name":"a","type":"byte","nullable":true,"metadata":{}}"#
    ));
}

#[test]
fn types_of_newer_writers_survive() {
    let text = r#"{"type":"struct","fields":[{"name":"g","type":"geometry(OGC:CRS84)","nullable":true,"metadata":{"x":[1,null]}},{"name":"u","type":{"type":"union","of":["long"]},"nullable":false,"metadata":{}}]}"#;
    let schema = StructType::parse(text).unwrap();
    assert_eq!(schema.fields[0].data_type, DataType::Other("geometry(OGC:CRS84)".into()));
    let again: Value = serde_json::from_str(&schema.to_json()).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    let err = schema.validate_new(&[]).unwrap_err().to_string();
    assert!(err.contains("column 'g'") && err.contains("unknown type"), "{err}");
}

#[test]
fn bad_json_names_the_column() {
    for (text, want) in [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        (r#"{"type":"struct"}"#, "\"fields\""),
        (r#"{"type":"struct","fields":[{"type":"long"}]}"#, "field 1 has no \"name\""),
        (r#"{"type":"struct","fields":[{"name":"a"}]}"#, "'a': \"type\" is missing"),
        (
            r#"{"type":"struct","fields":[{"name":"a","type":{"type":"struct","fields":[{"name":"b","type":"long","nullable":3}]}}]}"#,
            "'a.b': \"nullable\" is 3",
        ),
        (
            r#"{"type":"struct","fields":[{"name":"a","type":{"type":"array","elementType":7}}]}"#,
            "'a.element': \"elementType\" is 7",
        ),
        (
            r#"{"type":"struct","fields":[{"name":"a","type":"decimal(400,1)"}]}"#,
            "'a': bad type \"decimal(400,1)\"",
        ),
    ] {
        let err = StructType::parse(text).unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let json = format!(
        "{{\"type\":\"struct\",\"fields\":[{{\"name\":\"a\",\"type\":{}\"x\"",
        "{\"type\":\"array\",\"elementType\":".repeat(50_000)
    );
    assert!(StructType::parse(&json).is_err());
    let text = format!("a {}int{}", "array<".repeat(50_000), ">".repeat(50_000));
    assert!(StructType::from_text(&text).unwrap_err().to_string().contains("levels"));
}

#[test]
fn bad_text_says_where() {
    for (text, want) in [
        ("", "position 1: expected a column name, found the end"),
        ("id", "position 3: expected a type, found the end"),
        ("id lnog", "position 4: expected a type"),
        ("id long not, b int", "position 12: expected 'null' after 'not', found ','"),
        ("id long b int", "position 9: expected ',' or the end"),
        ("id array<int", "expected '>'"),
        ("id decimal(300,2)", "number of digits"),
        ("`id long", "position 1: ` is not closed"),
        ("id long;", "position 8"),
        ("id varchar(10)", "expected a type"),
    ] {
        let err = StructType::from_text(text).unwrap_err().to_string();
        assert!(err.contains(want), "{text}: {err}");
    }
}

#[test]
fn new_tables_are_checked() {
    let check = |text: &str, partitions: &[&str]| {
        let partitions: Vec<String> = partitions.iter().map(|p| (*p).to_owned()).collect();
        StructType::from_text(text)
            .and_then(|s| s.validate_new(&partitions))
            .map_err(|e| e.to_string())
    };
    check("id long, day date, name string", &["day"]).unwrap();
    for (text, partitions, want) in [
        ("id long, ID int", &[][..], "there twice ('id' and 'ID')"),
        ("a struct<b:int,B:int>", &[], "'a.B' is there twice"),
        ("a array<struct<`x y`:int>>", &[], "'a.element.x y'"),
        ("`a,b` int", &[], "','"),
        ("`` int", &[], "empty"),
        ("a decimal(39,2)", &[], "out of range"),
        ("a decimal(5,6)", &[], "out of range"),
        ("a map<string,decimal(0,0)>", &[], "'a.value'"),
        ("a void", &[], "void"),
        ("a int", &["b"], "unknown partition column 'b'"),
        ("a int", &["a"], "every column"),
        ("a int, b array<int>", &["b"], "primitive"),
        ("a int, b int", &["a", "a"], "twice"),
    ] {
        let err = check(text, partitions).unwrap_err();
        assert!(err.contains(want), "{text}: {err}");
    }
    assert!(StructType::default().validate_new(&[]).is_err());
}

#[test]
fn columns_are_found_by_path() {
    let schema = StructType::from_text("Id int, a struct<b:struct<C:int>>, x int, X int").unwrap();
    let find = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|p| (*p).to_owned()).collect();
        schema
            .resolve(&path)
            .map(|found| found.last().unwrap().name.clone())
            .map_err(|e| e.to_string())
    };
    assert_eq!(find(&["id"]).unwrap(), "Id");
    assert_eq!(find(&["a", "b", "c"]).unwrap(), "C");
    assert_eq!(find(&["X"]).unwrap(), "X");
    assert!(find(&["id", "z"]).unwrap_err().contains("'id' is not a struct"));
    assert!(find(&["nope"]).unwrap_err().contains("there are Id, a, x, X"));
    let twice = StructType::from_text("x int, X int").unwrap();
    assert!(twice.resolve(&["x".to_owned()]).is_ok());
}
