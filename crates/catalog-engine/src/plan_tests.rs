use super::*;
use deltalakedb_catalog_core::ids::{TimestampMs, Version};

const SCHEMA: &str = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"day\",\"type\":\"date\",\"nullable\":true,\"metadata\":{}}]}"#;

fn protocol(writer_features: &[&str]) -> Protocol {
    Protocol {
        min_reader_version: 1,
        min_writer_version: 7,
        reader_features: None,
        writer_features: Some(writer_features.iter().map(|s| (*s).to_owned()).collect()),
    }
}

fn metadata(partitions: &[&str], properties: &[(&str, &str)]) -> Metadata {
    Metadata {
        id: "m".into(),
        name: None,
        description: None,
        format: deltalakedb_catalog_core::action::Format::default(),
        schema_string: SCHEMA.replace('\\', ""),
        partition_columns: partitions.iter().map(|s| (*s).to_owned()).collect(),
        created_time: Some(0),
        configuration: properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())))
            .collect(),
    }
}

fn on<'a>(protocol: &'a Protocol, metadata: &'a Metadata) -> PlanTarget<'a> {
    PlanTarget::On(PlanBase {
        protocol,
        metadata,
        next_version: Version::new(5).unwrap(),
        next_timestamp: TimestampMs(5_000),
        lowers_fence: false,
        switches_freeze: false,
    })
}

fn run(ndjson: &str, protocol: &Protocol, metadata: &Metadata) -> Result<Plan> {
    both(ndjson.as_bytes(), on(protocol, metadata))
}

/// Plans a commit as a small one, and sees that it is the same as a large one.
fn both(ndjson: &[u8], target: PlanTarget<'_>) -> Result<Plan> {
    let token = CommitToken::new("t").unwrap();
    let by = |large| plan_by(large, "f.json", ndjson, target, &Reads::default(), None, &token);
    let (small, large) = (by(usize::MAX), by(0).and_then(whole));
    assert_eq!(format!("{small:?}"), format!("{large:?}"));
    small
}

/// A plan with all of its adds in the index, and its bytes compressed in one piece.
fn whole(mut plan: Plan) -> Result<Plan> {
    let later = plan.later.take().unwrap();
    let index = Arc::make_mut(&mut plan.index);
    assert!(index.adds.is_empty());
    let mut pages = later.pages()?;
    while let Some(page) = pages.blocking_next()? {
        index.adds.extend_from_slice(&page);
    }
    assert_eq!((later.files(), later.bytes()), (index.adds.len(), index.added_bytes()));
    plan.rest = Packed::pack(&plan.rest.unpack()?)?;
    Ok(plan)
}

fn plain(ndjson: &str) -> Result<Plan> {
    run(ndjson, &protocol(&[]), &metadata(&[], &[]))
}

fn add(path: &str) -> String {
    format!(
        r#"{{"add":{{"path":{},"partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true}}}}"#,
        serde_json::Value::from(path)
    )
}

#[test]
fn bytes_of_each_line_are_kept_and_unknown_ones_too() {
    let odd = r#"{"add" : {"path":"a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true,"new":{"x":[1,2]}}}"#;
    let unknown = r#"{"futureAction":{"k":  "v"}}"#;
    let plan = plain(&format!("{odd}\r\n\n{unknown}\n")).unwrap();
    let rest = String::from_utf8(plan.rest.unpack().unwrap()).unwrap();
    assert_eq!(rest, format!("{odd}\n{unknown}\n"));
    assert_eq!(plan.index.unknown_actions, ["futureAction"]);
    assert!(!plan.blind_append, "an unknown action may mean anything");
}

#[test]
fn a_commit_info_is_kept_or_made_and_gets_the_timestamp_when_it_must() {
    let given = r#"{"commitInfo":{"operation":"MERGE","inCommitTimestamp":5,"x":{"b":1, "a":2}}}"#;
    let plan = plain(&format!("{}\n{given}\n", add("a"))).unwrap();
    assert_eq!(plan.first_line.render(TimestampMs(9)), given, "first, verbatim");

    let ict = metadata(&[], &[("delta.enableInCommitTimestamps", "true")]);
    let plan = run(&format!("{}\n{given}", add("a")), &protocol(&["inCommitTimestamp"]), &ict);
    assert_eq!(
        plan.unwrap().first_line.render(TimestampMs(9)),
        r#"{"commitInfo":{"inCommitTimestamp":9,"operation":"MERGE","x":{"b":1, "a":2}}}"#
    );
    let plan = run(&add("a"), &protocol(&["inCommitTimestamp"]), &ict).unwrap();
    let line = plan.first_line.render(TimestampMs(9));
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["commitInfo"]["inCommitTimestamp"], 9);
    assert_eq!(json["commitInfo"]["timestamp"], 9);
    assert_eq!(json["commitInfo"]["isBlindAppend"], true);
    assert_eq!(json["commitInfo"]["txnId"], "t");
}

#[test]
fn only_pure_additions_are_blind_appends() {
    assert!(plain(&add("a")).unwrap().blind_append);
    let remove = r#"{"remove":{"path":"b","dataChange":true,"deletionTimestamp":1}}"#;
    for more in [remove, r#"{"txn":{"appId":"a","version":1}}"#] {
        assert!(!plain(&format!("{}\n{more}", add("a"))).unwrap().blind_append);
    }
    let (p, m) = (protocol(&[]), metadata(&[], &[]));
    let base = on(&p, &m);
    let token = CommitToken::new("t").unwrap();
    let bytes = add("a");
    let read = plan("f", bytes.as_bytes(), base, &Reads::whole_table(), None, &token);
    assert!(!read.unwrap().blind_append);
}

#[test]
fn paths_that_leave_the_table_are_refused() {
    for bad in [
        "../x.parquet",
        "a/../../x",
        "a/%2e%2E/x",
        "/etc/passwd",
        "%2Fetc/x",
        "s3://b/x",
        "file:/x",
        "",
        "_delta_log/x.json",
        "./_delta_log/x",
        "a\\..\\b",
        "x%00y",
    ] {
        let error = plain(&add(bad)).unwrap_err().to_string();
        assert!(error.starts_with("f.json, line 1: "), "{bad}: {error}");
    }
    for good in ["a b.parquet", "x=1/%25/ü🚀.parquet", "a..b/c", "t=10:00/x", &"p".repeat(4_000)]
    {
        plain(&add(good)).unwrap();
    }
    assert!(plain(&add(&"p".repeat(MAX_PATH_BYTES + 1))).is_err());
}

#[test]
fn one_file_has_one_action_however_its_path_is_spelt() {
    for (first, second) in [
        ("day=a%20b/x", "day=a b/x"),
        ("x/a", "x//a"),
        ("x/a", "./x/./a"),
        ("x/%61", "x/a"),
        ("x/a%2fb", "x/a%2Fb"),
    ] {
        let error = plain(&format!("{}\n{}", add(first), add(second))).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("in line 1"), "{error}");
        let remove = r#"{"remove":{"path":"PATH","dataChange":true,"deletionTimestamp":1}}"#;
        let remove = remove.replace("PATH", first);
        let error = plain(&format!("{remove}\n{}", add(second))).unwrap_err().to_string();
        assert!(error.contains("in line 1"), "{error}");
    }
    plain(&format!("{}\n{}", add("a%2520b"), add("a%20b"))).unwrap();
}

#[test]
fn two_reconciling_actions_for_one_file_are_refused() {
    let remove = r#"{"remove":{"path":"a","dataChange":true,"deletionTimestamp":1}}"#;
    for second in [add("a"), remove.to_owned()] {
        let error = plain(&format!("{}\n{second}", add("a"))).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("in line 1"), "{error}");
    }
    let dv = r#"{"remove":{"path":"a","dataChange":true,"deletionVector":{"storageType":"u","pathOrInlineDv":"x","sizeInBytes":1,"cardinality":1}}}"#;
    plain(&format!("{}\n{dv}", add("a"))).unwrap();
}

#[test]
fn partition_values_fit_the_columns() {
    let parted = metadata(&["day"], &[]);
    let with = |values: &str| {
        let line = format!(
            r#"{{"add":{{"path":"a","partitionValues":{values},"size":1,"modificationTime":1,"dataChange":true}}}}"#
        );
        run(&line, &protocol(&[]), &parted).map(|_| ())
    };
    with(r#"{"day":"2024-01-01"}"#).unwrap();
    with(r#"{"day":null}"#).unwrap();
    assert!(with(r#"{"dya":"x","day":null}"#).unwrap_err().to_string().contains("'dya'"));
    assert!(with("{}").unwrap_err().to_string().contains("no value for partition column 'day'"));
}

#[test]
fn version_zero_needs_protocol_and_metadata() {
    let token = CommitToken::new("t").unwrap();
    let error = plan(
        "f",
        add("a").as_bytes(),
        PlanTarget::New { fence: false },
        &Reads::default(),
        None,
        &token,
    )
    .unwrap_err();
    assert!(error.to_string().contains("'protocol' is missing"), "{error}");
    let zero = format!(
        "{{\"protocol\":{{\"minReaderVersion\":1,\"minWriterVersion\":2}}}}\n{{\"metaData\":{{\"id\":\"i\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\"schemaString\":\"{SCHEMA}\",\"partitionColumns\":[\"nope\"],\"configuration\":{{}}}}}}"
    );
    let error = plan(
        "f",
        zero.as_bytes(),
        PlanTarget::New { fence: false },
        &Reads::default(),
        None,
        &token,
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("unknown partition column 'nope'") && error.contains("id, day"),
        "{error}"
    );
    let fixed = zero.replace("nope", "day");
    assert!(
        !plan(
            "f",
            fixed.as_bytes(),
            PlanTarget::New { fence: false },
            &Reads::default(),
            None,
            &token
        )
        .unwrap()
        .blind_append
    );
    let broken = fixed.replace("struct", "strcut");
    assert!(
        plan(
            "f",
            broken.as_bytes(),
            PlanTarget::New { fence: false },
            &Reads::default(),
            None,
            &token
        )
        .is_err()
    );
}

#[test]
fn features_decide_what_may_be_written() {
    let error = run(&add("a"), &protocol(&["flyingCars"]), &metadata(&[], &[])).unwrap_err();
    assert!(
        matches!(error, CatalogError::Unsupported(_)) && error.to_string().contains("flyingCars")
    );
    let append_only = metadata(&[], &[("delta.appendOnly", "true")]);
    let remove = r#"{"remove":{"path":"b","dataChange":true,"deletionTimestamp":1}}"#;
    let error = run(remove, &protocol(&["appendOnly"]), &append_only).unwrap_err();
    assert!(error.to_string().contains("append-only"), "{error}");
    let domain = r#"{"domainMetadata":{"domain":"d","configuration":"","removed":false}}"#;
    assert!(plain(domain).is_err());
    run(domain, &protocol(&["domainMetadata"]), &metadata(&[], &[])).unwrap();
}

#[test]
fn a_void_column_may_stay_and_none_may_come() {
    let with = |kind: &str| {
        let mut metadata = metadata(&[], &[]);
        metadata.schema_string = metadata.schema_string.replace(r#""date""#, kind);
        metadata
    };
    let line = |metadata: &Metadata| Action::Metadata(metadata.clone()).to_line().unwrap();
    let array = r#"{"type":"array","elementType":"void","containsNull":true}"#;
    let map = r#"{"type":"map","keyType":"string","valueType":"void","valueContainsNull":true}"#;
    let fields =
        r#"{"type":"struct","fields":[{"name":"a","type":"null","nullable":true,"metadata":{}}]}"#;
    for (kind, column) in [
        (r#""void""#, "'day'"),
        (r#""null""#, "'day'"),
        (array, "'day.element'"),
        (map, "'day.value'"),
        (fields, "'day.a'"),
    ] {
        let (void, plain) = (with(kind), with(r#""date""#));
        let error = run(&line(&void), &protocol(&[]), &plain).unwrap_err().to_string();
        assert!(error.contains(column) && error.contains("void"), "{kind}: {error}");
        let zero =
            format!("{}\n{}", Action::Protocol(protocol(&[])).to_line().unwrap(), line(&void));
        let new = both(zero.as_bytes(), PlanTarget::New { fence: false });
        assert!(new.unwrap_err().to_string().contains(column), "{kind}");
        // A table that came with one is written to, and may lose it.
        run(&line(&void), &protocol(&[]), &void).unwrap();
        run(&line(&plain), &protocol(&[]), &void).unwrap();
        run(&add("a"), &protocol(&[]), &void).unwrap();
    }
}
