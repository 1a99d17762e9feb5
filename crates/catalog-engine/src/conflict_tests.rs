use super::*;
use deltalakedb_catalog_core::action::{DomainMetadata, Format, Metadata, Protocol, Txn};

fn add(path: &str) -> Add {
    serde_json::from_value(serde_json::json!({
        "path": path, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": true
    }))
    .unwrap()
}

fn remove(path: &str) -> Remove {
    serde_json::from_value(serde_json::json!({"path": path, "dataChange": true})).unwrap()
}

fn adds(paths: &[&str]) -> CommitIndex {
    CommitIndex { adds: paths.iter().map(|p| add(p)).collect(), ..CommitIndex::default() }
}

fn blind(paths: &[&str]) -> CommitIndex {
    CommitIndex { commit_info: Some(r#"{"isBlindAppend":true}"#.into()), ..adds(paths) }
}

fn removes(paths: &[&str]) -> CommitIndex {
    CommitIndex { removes: paths.iter().map(|p| remove(p)).collect(), ..CommitIndex::default() }
}

const WS: Isolation = Isolation::WriteSerializable;

#[test]
fn protocol_and_metadata_changes_conflict_with_everything() {
    let protocol = CommitIndex {
        protocol: Some(Protocol {
            min_reader_version: 1,
            min_writer_version: 2,
            reader_features: None,
            writer_features: None,
        }),
        ..CommitIndex::default()
    };
    let metadata = CommitIndex {
        metadata: Some(Metadata {
            id: "i".into(),
            name: None,
            description: None,
            format: Format::default(),
            schema_string: String::new(),
            partition_columns: vec![],
            created_time: None,
            configuration: deltalakedb_catalog_core::action::NullableMap::default(),
        }),
        ..CommitIndex::default()
    };
    for current in [blind(&["x"]), removes(&["y"]), CommitIndex::default()] {
        let reads = Reads::default();
        assert_eq!(check(&current, &reads, WS, &protocol), Some(ConflictKind::ProtocolChanged));
        assert_eq!(check(&current, &reads, WS, &metadata), Some(ConflictKind::MetadataChanged));
    }
}

#[test]
fn blind_appends_pass_under_write_serializable_only() {
    let current = removes(&["old"]);
    let reads = Reads::whole_table();
    assert_eq!(check(&current, &reads, WS, &blind(&["n"])), None);
    let append = Some(ConflictKind::ConcurrentAppend { path: "n".into() });
    assert_eq!(check(&current, &reads, Isolation::Serializable, &blind(&["n"])), append);
    // A winner that read something may depend on what this commit removes.
    assert_eq!(check(&current, &reads, WS, &adds(&["n"])), append);
    assert_eq!(check(&current, &reads, Isolation::Snapshot, &adds(&["n"])), None);
    assert_eq!(check(&adds(&["m"]), &Reads::default(), WS, &adds(&["n"])), None);
}

#[test]
fn a_filter_narrows_what_was_read() {
    let reads = Reads {
        matching: Some(Arc::new(|a: &Add| a.path.starts_with("day=1/"))),
        ..Reads::default()
    };
    assert_eq!(check(&adds(&["x"]), &reads, WS, &adds(&["day=2/n"])), None);
    assert_eq!(
        check(&adds(&["x"]), &reads, WS, &adds(&["day=1/n"])),
        Some(ConflictKind::ConcurrentAppend { path: "day=1/n".into() })
    );
    // Without partition values the remove may be one of them.
    assert!(check(&adds(&["x"]), &reads, WS, &removes(&["day=2/n"])).is_some());
}

#[test]
fn removes_conflict_with_removes_and_reads() {
    assert_eq!(
        check(&removes(&["a"]), &Reads::default(), WS, &removes(&["a"])),
        Some(ConflictKind::ConcurrentDeleteDelete { path: "a".into() })
    );
    assert_eq!(check(&removes(&["a"]), &Reads::default(), WS, &removes(&["b"])), None);
    let reads = Reads { files: [remove("b").key()].into(), ..Reads::default() };
    let read = Some(ConflictKind::ConcurrentDeleteRead { path: "b".into() });
    assert_eq!(check(&removes(&["a"]), &reads, WS, &removes(&["b"])), read);
    assert_eq!(check(&removes(&["a"]), &Reads::whole_table(), WS, &removes(&["b"])), read);
    // The same file conflicts at every isolation level.
    assert!(
        check(&removes(&["a"]), &Reads::default(), Isolation::Snapshot, &removes(&["a"])).is_some()
    );
}

#[test]
fn applications_and_domains_conflict_by_name() {
    let txn = |app: &str| CommitIndex {
        txns: vec![Txn { app_id: app.into(), version: 1, last_updated: None }],
        ..CommitIndex::default()
    };
    assert_eq!(check(&txn("a"), &Reads::default(), WS, &txn("b")), None);
    let moved = Some(ConflictKind::ConcurrentTransaction { app_id: "a".into() });
    assert_eq!(check(&txn("a"), &Reads::default(), WS, &txn("a")), moved);
    let reads = Reads { app_ids: ["a".to_owned()].into(), ..Reads::default() };
    assert_eq!(check(&adds(&["x"]), &reads, WS, &txn("a")), moved);
    let domain = |d: &str| CommitIndex {
        domain_metadata: vec![DomainMetadata {
            domain: d.into(),
            configuration: String::new(),
            removed: false,
        }],
        ..CommitIndex::default()
    };
    assert_eq!(check(&domain("a"), &Reads::default(), WS, &domain("b")), None);
    assert!(check(&domain("a"), &Reads::default(), WS, &domain("a")).is_some());
}

#[test]
fn isolation_follows_the_property_and_the_commit() {
    let data = adds(&["a"]);
    assert_eq!(Isolation::for_commit(None, data.only_rearranges()), WS);
    assert_eq!(
        Isolation::for_commit(Some("Serializable"), data.only_rearranges()),
        Isolation::Serializable
    );
    let mut rearranged = adds(&["a"]);
    rearranged.adds[0].data_change = false;
    assert_eq!(
        Isolation::for_commit(Some("Serializable"), rearranged.only_rearranges()),
        Isolation::Snapshot
    );
}
