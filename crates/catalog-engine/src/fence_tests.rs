use super::*;
use deltalakedb_catalog_core::action::NullableMap;
use deltalakedb_catalog_core::ids::{TimestampMs, Version};

fn protocol(reader: i32, writer: i32, features: Option<&[&str]>) -> Protocol {
    let list = |f: &[&str]| f.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    Protocol {
        min_reader_version: reader,
        min_writer_version: writer,
        reader_features: (reader == 3).then(|| list(&["deletionVectors"])),
        writer_features: features.map(list),
    }
}

fn metadata(properties: &[(&str, &str)]) -> Metadata {
    let mut metadata: Metadata =
        serde_json::from_str(r#"{"id":"m","schemaString":"{\"type\":\"struct\",\"fields\":[]}"}"#)
            .unwrap();
    for (key, value) in properties {
        metadata.configuration.insert((*key).to_owned(), Some((*value).to_owned()));
    }
    metadata
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

fn dressed(ndjson: &str, target: &PlanTarget<'_>) -> (String, bool) {
    let Dressed { ndjson, enables_ict } = dress("f", ndjson.as_bytes(), target).unwrap();
    (String::from_utf8(ndjson.into_owned()).unwrap(), enables_ict)
}

/// The reader's part stays; a version without a list becomes the list that it stands for; and back.
#[test]
fn a_fence_is_the_same_protocol_for_everyone_else() {
    let base = ["appendOnly", "invariants"];
    for (before, listed) in [
        (protocol(1, 1, None), vec![]),
        (protocol(1, 2, None), base.to_vec()),
        (protocol(1, 3, None), [&base[..], &["checkConstraints"]].concat()),
        (
            protocol(1, 4, None),
            [&base[..], &["checkConstraints", "changeDataFeed", "generatedColumns"]].concat(),
        ),
        (
            protocol(2, 5, None),
            [
                &base[..],
                &["checkConstraints", "changeDataFeed", "generatedColumns", "columnMapping"],
            ]
            .concat(),
        ),
        (protocol(1, 7, Some(&["domainMetadata"])), vec!["domainMetadata"]),
        (protocol(3, 7, Some(&["deletionVectors"])), vec!["deletionVectors"]),
    ] {
        assert!(!is_up(&before));
        let up = with_features(&before, &[FEATURE]);
        assert!(is_up(&up));
        assert_eq!(up.min_reader_version, before.min_reader_version);
        assert_eq!(up.reader_features, before.reader_features);
        let want: Vec<&str> = [&listed[..], &[FEATURE]].concat();
        assert_eq!(up.writer_features.as_deref().unwrap(), want);
        features::check_commit(&up, &metadata(&[])).unwrap();
        assert_eq!(without_features(&up, &[FEATURE]), before);
        assert_eq!(with_features(&up, &[FEATURE]), up);
    }
    // A list that some version stands for becomes that version.
    let up = protocol(1, 7, Some(&["invariants", FEATURE, "appendOnly"]));
    assert_eq!(without_features(&up, &[FEATURE]), protocol(1, 2, None));
    // A protocol that never had it is not touched.
    let listed = protocol(1, 7, Some(&base));
    assert_eq!(without_features(&listed, &[FEATURE, ICT]), listed);
}

const ZERO: &str = "{\"commitInfo\":{\"x\" : 1}}\n\
    { \"protocol\" : {\"minReaderVersion\":1,\"minWriterVersion\":2,\"later\":[1, 2]}}\r\n\n\
    {\"metaData\":{\"id\":\"m\",\"later\":{\"a\" : 1},\"schemaString\":\"{}\"}}\n\
    {\"new\":{\"protocol\" : \"no\"}}";

#[test]
fn a_new_table_is_dressed_and_the_rest_of_its_bytes_kept() {
    let (text, exact) = dressed(ZERO, &PlanTarget::New { fence: true });
    assert!(!exact, "from the first version on there is nothing to remember");
    assert_eq!(
        text,
        "{\"commitInfo\":{\"x\" : 1}}\n\
         {\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\"later\":[1, 2],\
         \"writerFeatures\":[\"appendOnly\",\"invariants\",\"deltalakedb\",\"inCommitTimestamp\"]}}\n\n\
         {\"metaData\":{\"id\":\"m\",\"later\":{\"a\" : 1},\"schemaString\":\"{}\",\
         \"configuration\":{\"delta.enableInCommitTimestamps\":\"true\"}}}\n\
         {\"new\":{\"protocol\" : \"no\"}}"
    );
    assert_eq!(dressed(ZERO, &PlanTarget::New { fence: false }), (ZERO.to_owned(), false));
    // Who says no to in-commit timestamps gets none.
    let no = ZERO.replace(
        "\"schemaString\"",
        "\"configuration\":{\"delta.enableInCommitTimestamps\":\"false\"},\"schemaString\"",
    );
    let (text, _) = dressed(&no, &PlanTarget::New { fence: true });
    assert!(text.contains("[\"appendOnly\",\"invariants\",\"deltalakedb\"]"), "{text}");
    assert!(text.contains("Timestamps\":\"false\"}"), "{text}");
}

#[test]
fn what_a_writer_commits_does_not_take_the_fence_away() {
    let features = ["appendOnly", "invariants", "deltalakedb", "inCommitTimestamp"];
    let base = protocol(1, 7, Some(&features));
    let in_force = metadata(&[
        (ENABLE_ICT, "true"),
        (ICT_VERSION, "3"),
        (ICT_TIMESTAMP, "3000"),
        ("delta.appendOnly", "true"),
    ]);
    let (seen, seen_metadata) = writer_view(&base, &in_force);
    assert_eq!(seen, protocol(1, 2, None));
    assert_eq!(seen_metadata, metadata(&[("delta.appendOnly", "true")]));
    // It commits what it saw, with a change.
    let lines = format!(
        "{}\n{}\n",
        Action::Protocol(protocol(1, 4, None)).to_line().unwrap(),
        Action::Metadata(metadata(&[("a", "b")])).to_line().unwrap()
    );
    let (text, exact) = dressed(&lines, &on(&base, &in_force));
    assert!(!exact);
    let (found, kept) = find(&text);
    let names = [
        "appendOnly",
        "invariants",
        "checkConstraints",
        "changeDataFeed",
        "generatedColumns",
        "deltalakedb",
        "inCommitTimestamp",
    ];
    assert_eq!(found.unwrap().action, protocol(1, 7, Some(&names)));
    let ict = [(ENABLE_ICT, "true"), (ICT_VERSION, "3"), (ICT_TIMESTAMP, "3000")];
    assert_eq!(kept.unwrap().action, metadata(&[&ict[..], &[("a", "b")]].concat()));
    // An explicit no is a decision.
    let off = Action::Metadata(metadata(&[(ENABLE_ICT, "false")])).to_line().unwrap();
    assert_eq!(dressed(&off, &on(&base, &in_force)), (off.clone(), false));
    // Without a fence, a protocol is the writer's own business, but for in-commit timestamps.
    let plain = protocol(1, 2, None);
    let line = Action::Protocol(protocol(1, 3, None)).to_line().unwrap();
    assert_eq!(dressed(&line, &on(&plain, &metadata(&[]))), (line.clone(), false));
}

#[test]
fn writers_see_the_lines_without_what_the_catalog_put_into_them() {
    let (text, _) = dressed(ZERO, &PlanTarget::New { fence: true });
    let seen = writer_lines(text.as_bytes()).unwrap();
    let (protocol_seen, metadata_seen) = find(std::str::from_utf8(&seen).unwrap());
    assert_eq!(protocol_seen.unwrap().action, protocol(1, 2, None));
    assert_eq!(metadata_seen.unwrap().action.configuration, NullableMap::new());
    assert!(seen.starts_with(b"{\"commitInfo\":{\"x\" : 1}}\n"));
    assert!(seen.ends_with(b"{\"new\":{\"protocol\" : \"no\"}}"));
    for same in [ZERO, "", "no json", "{\"add\":{\"path\":\"protocol metaData\"}}\n"] {
        assert!(matches!(writer_lines(same.as_bytes()).unwrap(), Cow::Borrowed(_)), "{same}");
    }
    // Who refused in-commit timestamps sees that.
    let off = Action::Metadata(metadata(&[(ENABLE_ICT, "false")])).to_line().unwrap();
    assert_eq!(writer_lines(off.as_bytes()).unwrap(), off.as_bytes());
}

#[test]
fn turning_in_commit_timestamps_on_says_from_when() {
    let base = protocol(1, 7, Some(&["inCommitTimestamp"]));
    let line = Action::Metadata(metadata(&[(ENABLE_ICT, "true"), (ICT_VERSION, "99")])).to_line();
    let (text, exact) = dressed(&line.unwrap(), &on(&base, &metadata(&[])));
    assert!(exact);
    let want = [(ENABLE_ICT, "true"), (ICT_VERSION, "5"), (ICT_TIMESTAMP, "5000")];
    assert_eq!(find(&text).1.unwrap().action, metadata(&want));
    // The property alone, without the feature, turns nothing on.
    let plain = protocol(1, 2, None);
    let line = Action::Metadata(metadata(&[(ENABLE_ICT, "true")])).to_line().unwrap();
    assert_eq!(dressed(&line, &on(&plain, &metadata(&[]))), (line.clone(), false));
    // The feature alone, where the property waits for it, has no place for the version.
    let line = Action::Protocol(base).to_line().unwrap();
    let waiting = metadata(&[(ENABLE_ICT, "true")]);
    let error = dress("f", line.as_bytes(), &on(&plain, &waiting)).unwrap_err();
    assert!(matches!(error, CatalogError::Unsupported(_)), "{error}");
}

#[test]
fn lines_that_are_wrong_are_left_to_who_reads_all_of_them() {
    for bad in ["{\"protocol\":", "\u{1}", "{\"metaData\":[]}\n{\"protocol\":7}", ""] {
        assert_eq!(dressed(bad, &PlanTarget::New { fence: true }), (bad.to_owned(), false));
    }
    let base = protocol(1, 2, None);
    let bytes = b"\xff{\"protocol\"";
    assert_eq!(&*dress("f", bytes, &on(&base, &metadata(&[]))).unwrap().ndjson, bytes);
}

/// It asks nothing of readers, and engines that do not know it refuse the table.
#[test]
fn a_check_before_vacuum_is_hidden_and_put_back() {
    let mut base = protocol(3, 7, Some(&["deletionVectors", "vacuumProtocolCheck", FEATURE]));
    base.reader_features.as_mut().unwrap().push("vacuumProtocolCheck".to_owned());
    let in_force = metadata(&[]);
    let (seen, _) = writer_view(&base, &in_force);
    assert_eq!(seen, protocol(3, 7, Some(&["deletionVectors"])));
    let line = Action::Protocol(base.clone()).to_line().unwrap();
    let seen_line = writer_lines(line.as_bytes()).unwrap();
    let seen_line = std::str::from_utf8(&seen_line).unwrap().to_owned();
    assert_eq!(find(&seen_line).0.unwrap().action, seen);
    // What a writer makes of that gets it back, in both lists; of its own, too.
    for new in [seen, protocol(1, 2, None), protocol(2, 5, None), base.clone()] {
        let line = Action::Protocol(new.clone()).to_line().unwrap();
        let (text, _) = dressed(&line, &on(&base, &in_force));
        let dressed = find(&text).0.unwrap().action;
        assert_eq!(dressed.min_reader_version, 3);
        let times = |list: Option<&Vec<String>>| {
            list.unwrap().iter().filter(|f| *f == "vacuumProtocolCheck").count()
        };
        assert_eq!(times(dressed.reader_features.as_ref()), 1, "{text}");
        assert_eq!(times(dressed.writer_features.as_ref()), 1, "{text}");
        assert!(features::supports_writer(&dressed, FEATURE));
        features::check_commit(&dressed, &in_force).unwrap();
        let mapped = new.min_reader_version == 2;
        let listed = dressed.reader_features.unwrap().iter().any(|f| f == "columnMapping");
        assert_eq!(listed, mapped, "{text}");
    }
}
