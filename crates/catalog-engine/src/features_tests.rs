use super::*;

fn protocol(reader: i32, writer: i32, r: Option<&[&str]>, w: Option<&[&str]>) -> Protocol {
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Protocol {
        min_reader_version: reader,
        min_writer_version: writer,
        reader_features: r.map(list),
        writer_features: w.map(list),
    }
}

fn metadata(schema: &str, properties: &[(&str, &str)]) -> Metadata {
    Metadata {
        id: "x".into(),
        name: None,
        description: None,
        format: deltalakedb_catalog_core::action::Format::default(),
        schema_string: StructType::from_text(schema).unwrap().to_json(),
        partition_columns: vec![],
        created_time: None,
        configuration: map(properties),
    }
}

fn map(properties: &[(&str, &str)]) -> NullableMap {
    properties.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect()
}

#[test]
fn known_protocols_pass() {
    let m = metadata("a int", &[]);
    for writer in 1..=6 {
        check_commit(&protocol(1, writer, None, None), &m).unwrap();
    }
    check_commit(&protocol(2, 5, None, None), &m).unwrap();
    check_commit(&protocol(1, 7, None, Some(&["appendOnly", "inCommitTimestamp"])), &m).unwrap();
    // Writers of reader version 2 or less may list columnMapping for writers only.
    check_commit(&protocol(2, 7, None, Some(&["columnMapping"])), &m).unwrap();
    let dv = ["deletionVectors"];
    check_commit(&protocol(3, 7, Some(&dv), Some(&dv)), &m).unwrap();
}

#[test]
fn unknown_ones_are_refused_by_name() {
    let m = metadata("a int", &[]);
    for (p, want) in [
        (protocol(1, 8, None, None), "minWriterVersion 8"),
        (protocol(4, 7, None, Some(&[])), "minReaderVersion 4"),
        (protocol(0, 2, None, None), "minReaderVersion 0"),
        (protocol(1, 7, None, None), "needs 'writerFeatures'"),
        (protocol(3, 7, None, Some(&[])), "needs 'readerFeatures'"),
        (protocol(3, 6, Some(&[]), None), "needs writer version 7"),
        (protocol(1, 2, None, Some(&["appendOnly"])), "'writerFeatures' need"),
        (protocol(3, 7, Some(&["deletionVectors"]), Some(&[])), "not in 'writerFeatures'"),
        (protocol(3, 7, Some(&[]), Some(&["deletionVectors"])), "not in 'readerFeatures'"),
        (
            protocol(1, 7, None, Some(&["appendOnly", "rowTracking", "icebergCompatV2", "zebra"])),
            "rowTracking (the writer must assign row ids",
        ),
        (protocol(3, 7, Some(&["geospatial"]), Some(&["geospatial"])), "a feature that"),
    ] {
        let err = check_commit(&p, &m).unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
}

#[test]
fn support_follows_legacy_versions_or_the_list() {
    let legacy = protocol(1, 4, None, None);
    assert!(supports_writer(&legacy, "appendOnly") && supports_writer(&legacy, "changeDataFeed"));
    assert!(!supports_writer(&legacy, "columnMapping"));
    assert!(!supports_writer(&legacy, "deletionVectors"));
    let listed = protocol(1, 7, None, Some(&["inCommitTimestamp"]));
    assert!(!supports_writer(&listed, "appendOnly"));
    let m = metadata("a int", &[("delta.appendOnly", "TRUE"), (ENABLE_ICT, "true")]);
    assert!(is_append_only(&legacy, &m) && !is_append_only(&listed, &m));
    assert!(ict_enabled(&listed, &m) && !ict_enabled(&legacy, &m));
}

#[test]
fn appending_refuses_what_it_cannot_uphold() {
    let p = protocol(2, 6, None, None);
    let check = |schema: &StructType, properties: &[(&str, &str)]| {
        check_append(&p, &metadata("a int", properties), schema).map_err(|e| e.to_string())
    };
    let plain = StructType::from_text("a int, s array<struct<b:int>>").unwrap();
    check(&plain, &[("delta.columnMapping.mode", "none")]).unwrap();
    let err = check(&plain, &[("delta.columnMapping.mode", "name")]).unwrap_err();
    assert!(err.contains("delta.columnMapping.mode is 'name'"), "{err}");
    let err = check(&plain, &[("delta.constraints.positive", "a > 0")]).unwrap_err();
    assert!(err.contains("CHECK constraint positive,"), "{err}");
    for key in ["delta.invariants", "delta.generationExpression", "delta.identity.start"] {
        let mut nested = plain.clone();
        let DataType::Array { element, .. } = &mut nested.fields[1].data_type else { panic!() };
        let DataType::Struct(inner) = element.as_mut() else { panic!() };
        inner.fields[0].metadata.insert(key.into(), "x".into());
        let err = check(&nested, &[]).unwrap_err();
        assert!(err.contains("column 's.element.b'"), "{err}");
    }
}

#[test]
fn new_tables_get_the_least_protocol() {
    let new = |schema: &str, properties: &[(&str, &str)]| {
        default_protocol_for(&StructType::from_text(schema).unwrap(), &map(properties))
    };
    let plain = new("a int", &[("x", "y")]).unwrap();
    assert_eq!(
        plain.protocol,
        protocol(1, 7, None, Some(&["appendOnly", "inCommitTimestamp", "invariants"]))
    );
    assert_eq!(plain.configuration, map(&[("x", "y"), (ENABLE_ICT, "true")]));
    let ntz = new("a array<timestamp_ntz>", &[]).unwrap();
    let both = ["timestampNtz"];
    let all = ["appendOnly", "inCommitTimestamp", "invariants", "timestampNtz"];
    assert_eq!(ntz.protocol, protocol(3, 7, Some(&both), Some(&all)));
    let legacy = new("a int", &[(ENABLE_ICT, "false")]).unwrap();
    assert_eq!(legacy.protocol, protocol(1, 2, None, None));
    let dv = new("a int", &[("delta.feature.deletionVectors", "supported")]).unwrap();
    assert_eq!(dv.configuration, map(&[(ENABLE_ICT, "true")]));
    assert_eq!(dv.protocol.reader_features, Some(vec!["deletionVectors".to_owned()]));
    for made in [plain, ntz, legacy, dv] {
        check_commit(&made.protocol, &metadata("a int", &[])).unwrap();
    }
    for (key, value) in [
        ("delta.columnMapping.mode", "name"),
        ("delta.enableRowTracking", "true"),
        ("delta.enableIcebergCompatV2", "true"),
        ("delta.feature.rowTracking", "supported"),
        ("delta.feature.appendOnly", "yes"),
        ("delta.enableDeletionVectors", "maybe"),
        ("delta.checkpointPolicy", "v3"),
        ("delta.minWriterVersion", "5"),
    ] {
        let err = new("a int", &[(key, value)]).unwrap_err().to_string();
        assert!(err.contains(key), "{err}");
    }
}

#[test]
fn scans_are_not_asked_for_what_asks_nothing_of_them() {
    let all = [
        "vacuumProtocolCheck",
        "v2Checkpoint",
        "catalogManaged",
        "typeWidening",
        "timestampNtz",
        "variantType",
        "deletionVectors",
        "columnMapping",
        "someFuture",
    ];
    let before = protocol(3, 7, Some(&all), Some(&[&all[..], &["appendOnly"]].concat()));
    let left = |schema: &StructType| {
        let mut metadata = metadata("a long", &[]);
        metadata.schema_string = schema.to_json();
        let after = for_scans(&before, &metadata);
        let readers = after.reader_features.unwrap();
        assert_eq!(after.writer_features.unwrap(), [&readers[..], &["appendOnly".into()]].concat());
        readers
    };
    let asked = ["deletionVectors", "columnMapping", "someFuture"];
    assert_eq!(left(&StructType::from_text("a long").unwrap()), asked);
    let typed = StructType::from_text("a long, s struct<t:array<timestamp_ntz>>").unwrap();
    assert_eq!(left(&typed), [&["timestampNtz"], &asked[..]].concat());
    let variant = StructType::from_text("a long, v variant").unwrap();
    assert_eq!(left(&variant), [&["variantType"], &asked[..]].concat());
    let mut widened = StructType::from_text("a long, s struct<b:long>").unwrap();
    let DataType::Struct(inner) = &mut widened.fields[1].data_type else { panic!() };
    inner.fields[0].metadata.insert("delta.typeChanges".into(), serde_json::json!([]));
    assert_eq!(left(&widened), [&["typeWidening"], &asked[..]].concat());
    // What cannot be read may hold anything.
    let mut unreadable = metadata("a long", &[]);
    unreadable.schema_string = "{".into();
    let after = for_scans(&before, &unreadable).reader_features.unwrap();
    assert!(
        after.iter().any(|f| f == "typeWidening") && !after.iter().any(|f| f == "v2Checkpoint")
    );
    let plain = protocol(1, 2, None, None);
    assert_eq!(for_scans(&plain, &unreadable), plain);
}
