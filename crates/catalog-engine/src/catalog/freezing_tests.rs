//! Frozen tables, on the backend in memory.

use deltalakedb_catalog_core::action::Protocol;
use deltalakedb_catalog_core::frozen::Frozen;

use super::*;
use crate::fence::{self, FenceChange};
use crate::freeze::{self, Reason, is_frozen};
use crate::signature::Signature;

fn reason(text: &str) -> Reason {
    text.parse().unwrap()
}

fn signed(catalog: Catalog) -> Catalog {
    let user = Some("ann".parse().unwrap());
    catalog.with_signature(Signature { user, table_names: false })
}

/// Freezes one table by its name.
async fn freeze(catalog: &Catalog, table: &str) -> FreezeReport {
    catalog.freeze(&[by_name(table)], Some(reason("the store moves")), None).await.unwrap()
}

async fn unfreeze(catalog: &Catalog, table: &str) -> FreezeReport {
    catalog.unfreeze(&[by_name(table)], None, None).await.unwrap()
}

fn is_refused(error: CatalogError) -> Frozen {
    assert_eq!(error.code(), "table_frozen", "{error}");
    match error {
        CatalogError::TableFrozen(frozen) => *frozen,
        other => panic!("{other}"),
    }
}

async fn head(catalog: &Catalog, table: &str) -> Snapshot {
    catalog.snapshot(&by_name(table), At::Head).await.unwrap()
}

/// A version's lines as they are published.
async fn published(catalog: &Catalog, table: &str, version: i64) -> String {
    let (id, version) = (head(catalog, table).await.table.id, Version::new(version).unwrap());
    let bodies = catalog.backend().read_bodies(id, version, version, 1).await.unwrap();
    String::from_utf8(bodies[0].1.published().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_frozen_table_is_read_and_written_by_nobody() {
    let c = signed(catalog());
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let report = freeze(&c, "t").await;
    assert!(report.changed());
    assert_eq!(report.tables[0].version.unwrap().get(), 2);
    let written = published(&c, "t", 2).await;
    let first: serde_json::Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    let info = &first["commitInfo"];
    assert_eq!((&info["operation"], &info["userName"]), (&"FREEZE".into(), &"ann".into()));
    assert_eq!(info["operationParameters"]["reason"], "the store moves");
    let at = report.commit.unwrap().tables[0].timestamp.0;
    assert_eq!((&info["inCommitTimestamp"], &info["timestamp"]), (&at.into(), &at.into()));
    assert_eq!(written.lines().count(), 2, "{written}");

    let remove_it = remove("a");
    let wider = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;
    let next = ChangeTarget::Next { table: by_name("t"), version: Version::new(3).unwrap() };
    let taken = ChangeTarget::Next { table: by_name("t"), version: Version::new(2).unwrap() };
    for refused in [
        on("t", None, &add("b")),
        on("t", Some(1), &add("b")),
        on("t", Some(1), &remove_it),
        on("t", Some(2), &remove_it),
        // Nobody unfreezes it by hand.
        on("t", None, wider),
        on("t", None, &published(&c, "t", 0).await),
        on("t", None, &txn("app", 1)),
        change(next, add("b")),
        change(taken, add("b")),
    ] {
        let frozen = is_refused(c.commit(batch(vec![refused])).await.unwrap_err());
        assert_eq!(frozen.table, "default.t");
        assert_eq!(frozen.version.get(), 2);
        assert_eq!(frozen.since, Some(TimestampMs(at)));
        assert_eq!(frozen.user.as_deref(), Some("ann"));
        assert_eq!(frozen.reason.as_deref(), Some("the store moves"));
    }
    let text = c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap_err().to_string();
    for part in
        ["'default.t'", "by ann", "the store moves", "`dl unfreeze default.t`", "since 1970"]
    {
        assert!(text.contains(part), "{text}");
    }
    for fence in [FenceChange::Raise, FenceChange::Lower { keep_timestamps: false }] {
        match c.change_fence(&by_name("t"), fence.clone()).await {
            // It has no fence, and that is no change.
            Ok(None) if fence != FenceChange::Raise => {}
            other => drop(is_refused(other.unwrap_err())),
        }
    }
    is_refused(c.drop_table(&by_name("t")).await.unwrap_err());
    assert_eq!(paths(&c, "t", At::Head).await, ["a"]);
    // Once more is nothing.
    let again = freeze(&c, "t").await;
    assert_eq!((again.commit, again.tables[0].version), (None, None));
    assert_eq!(head(&c, "t").await.version.get(), 2);
    assert_eq!(c.frozen(&head(&c, "t").await).await.unwrap().unwrap().user.unwrap(), "ann");

    let report = unfreeze(&c, "t").await;
    assert_eq!(report.tables[0].version.unwrap().get(), 3);
    assert!(published(&c, "t", 3).await.contains("\"UNFREEZE\""));
    assert!(unfreeze(&c, "t").await.commit.is_none());
    let now = head(&c, "t").await;
    let before = c.snapshot(&by_name("t"), At::Version(Version::ZERO)).await.unwrap();
    assert_eq!((now.protocol, now.metadata), (before.protocol, before.metadata));
    c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap();
    c.drop_table(&by_name("t")).await.unwrap();
}

/// What a program had planned before is refused while the table is frozen, and conflicts once it is not any more.
#[tokio::test]
async fn what_was_planned_before_a_freeze_does_not_slip_past_it() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    // The head of version 1 is remembered from here on, for appends by id.
    let id = TableRef::Id(head(&c, "t").await.table.id);
    let blind = |path: &str, read_version: Option<Version>| {
        change(ChangeTarget::Existing { table: id.clone(), read_version }, add(path))
    };
    c.commit(batch(vec![blind("b", None)])).await.unwrap();
    // Another process freezes.
    let other = Catalog::new(Arc::clone(c.backend()), Arc::clone(c.clock()), Arc::clone(c.ids()));
    freeze(&other, "t").await;
    is_refused(c.commit(batch(vec![blind("c", None)])).await.unwrap_err());
    is_refused(c.commit(batch(vec![blind("c", Some(Version::ZERO))])).await.unwrap_err());
    unfreeze(&other, "t").await;
    // A freeze that was and is gone is still a change of the protocol between.
    let old = Some(Version::new(2).unwrap());
    for stale in [blind("c", old), on("t", Some(2), &remove("a"))] {
        let error = c.commit(batch(vec![stale])).await.unwrap_err();
        assert_eq!(kind(error), ConflictKind::ProtocolChanged);
    }
    // What read nothing, and no version, goes on top: also from the program that remembered a head.
    c.commit(batch(vec![blind("c", None)])).await.unwrap();
    assert_eq!(paths(&c, "t", At::Head).await, ["a", "b", "c"]);
}

/// The freeze comes between the look at the head and the commit.
#[tokio::test]
async fn a_freeze_between_a_plan_and_its_commit_wins() {
    for blind in [true, false] {
        let memory: Arc<MemoryBackend> = Arc::new(MemoryBackend::new());
        let plain = Catalog::new(
            Arc::clone(&memory) as _,
            Arc::new(FrozenClock),
            Arc::new(CountingIds::default()),
        );
        plain.commit(batch(vec![create("t"), create("u")])).await.unwrap();
        plain.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
        let before = head(&plain, "t").await;
        freeze(&plain, "t").await;
        // The plan was made on the head of before, as if it had been read then.
        let token = CommitToken::new("late").unwrap();
        let (ndjson, reads) =
            if blind { (add("b"), Reads::default()) } else { (remove("a"), Reads::whole_table()) };
        let base = crate::plan::PlanBase {
            protocol: &before.protocol,
            metadata: &before.metadata,
            next_version: before.version.next(),
            next_timestamp: TimestampMs(5_000),
            lowers_fence: false,
            switches_freeze: false,
        };
        let target = crate::plan::PlanTarget::On(base);
        let plan = crate::plan::plan("x", ndjson.as_bytes(), target, &reads, None, &token).unwrap();
        let rule = if blind {
            deltalakedb_catalog_core::backend::HeadRule::Append { since: before.version }
        } else {
            deltalakedb_catalog_core::backend::HeadRule::Exactly(before.version)
        };
        let request = deltalakedb_catalog_core::backend::CommitRequest {
            token,
            now: TimestampMs(5_000),
            tables: vec![deltalakedb_catalog_core::backend::TableCommit {
                target: deltalakedb_catalog_core::backend::CommitTarget::Existing {
                    table_id: before.table.id,
                    rule,
                },
                first_line: plan.first_line,
                rest: plan.rest,
                index: plan.index,
                later: None,
            }],
        };
        let outcome = plain.backend().commit(request).await.unwrap();
        let moved = deltalakedb_catalog_core::backend::CommitOutcome::HeadMoved {
            index: 0,
            head: before.version.next(),
        };
        assert_eq!(outcome, moved, "blind: {blind}");
    }
}

#[tokio::test]
async fn of_a_batch_with_a_frozen_table_nothing_is_committed() {
    let c = catalog();
    c.commit(batch(vec![create("t"), create("u")])).await.unwrap();
    freeze(&c, "u").await;
    let both = vec![on("t", None, &add("a")), on("u", None, &add("a"))];
    let frozen = is_refused(c.commit(batch(both)).await.unwrap_err());
    assert_eq!(frozen.table, "default.u");
    assert_eq!(head(&c, "t").await.version.get(), 0);
}

#[tokio::test]
async fn several_tables_are_frozen_together_or_not_at_all() {
    let c = catalog();
    c.commit(batch(vec![create("t"), create("u"), create("v")])).await.unwrap();
    let missing = [by_name("t"), by_name("no")];
    let error = c.freeze(&missing, None, None).await.unwrap_err();
    assert_eq!(error.code(), "table_not_found");
    assert!(!is_frozen(&head(&c, "t").await.protocol));
    freeze(&c, "u").await;
    // One is frozen already, one is named twice.
    let id = TableRef::Id(head(&c, "t").await.table.id);
    let all = [by_name("t"), by_name("u"), id, by_name("v")];
    let report = c.freeze(&all, None, None).await.unwrap();
    let names: Vec<(String, bool)> = report
        .tables
        .iter()
        .map(|table| (table.name.to_string(), table.version.is_some()))
        .collect();
    assert_eq!(
        names,
        [("default.t".into(), true), ("default.u".into(), false), ("default.v".into(), true)]
    );
    assert_eq!(report.commit.unwrap().tables.len(), 2);
    // Nothing was said of why.
    let told = c.frozen(&head(&c, "t").await).await.unwrap().unwrap();
    assert_eq!((told.user, told.reason), (None, None));
    let error = c.freeze(&[], None, None).await.unwrap_err();
    assert_eq!(error.code(), "invalid_input", "{error}");
    let report = c.unfreeze(&all, Some(reason("done")), None).await.unwrap();
    assert_eq!(report.commit.unwrap().tables.len(), 3);
}

#[tokio::test]
async fn a_token_freezes_once() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    let token = || Some(CommitToken::new("window-1").unwrap());
    let first = c.freeze(&[by_name("t")], None, token()).await.unwrap();
    unfreeze(&c, "t").await;
    let again = c.freeze(&[by_name("t")], None, token()).await.unwrap();
    assert!(first.changed() && !again.changed());
    assert_eq!(first.tables, again.tables);
    assert!(again.commit.unwrap().replayed);
    assert!(!is_frozen(&head(&c, "t").await.protocol));
    // What was committed before a freeze is answered during it.
    let load = || CommitBatch { token: token(), tables: vec![on("t", None, &add("a"))] };
    let load =
        |token: &str| CommitBatch { token: Some(CommitToken::new(token).unwrap()), ..load() };
    c.commit(load("load")).await.unwrap();
    freeze(&c, "t").await;
    assert!(c.commit(load("load")).await.unwrap().replayed);
    is_refused(c.commit(load("load-2")).await.unwrap_err());
}

/// Answers that are lost, and a database that goes away, at each call of a freeze.
#[tokio::test]
async fn a_freeze_that_dies_anywhere_is_repeated() {
    for verb in [Verb::ResolveToken, Verb::Snapshot, Verb::Info, Verb::Commit] {
        for nth in 0..3 {
            for lost in [false, true] {
                let memory = Arc::new(MemoryBackend::new());
                let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
                let c = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
                c.commit(batch(vec![create("t")])).await.unwrap();
                let faulty = FaultyBackend::new(memory, move |call| {
                    match (call.verb == verb && call.nth == nth, lost) {
                        (true, false) => Fault::Fail,
                        (true, true) => Fault::LoseAnswer,
                        _ => Fault::None,
                    }
                });
                let faulty = Catalog::new(Arc::new(faulty), Arc::new(FrozenClock), ids);
                let token = || Some(CommitToken::new("w").unwrap());
                let first = faulty.freeze(&[by_name("t")], None, token()).await;
                if first.is_err() {
                    faulty.freeze(&[by_name("t")], None, token()).await.unwrap();
                }
                let now = head(&c, "t").await;
                assert!(is_frozen(&now.protocol), "{verb:?} {nth} {lost}");
                let filter = CommitFilter::default();
                let commits: Vec<CommitRecord> =
                    c.history(now.table.id, filter).try_collect().await.unwrap();
                let freezes = commits
                    .iter()
                    .filter(|c| c.commit_info.as_deref().unwrap().contains("FREEZE"))
                    .count();
                assert_eq!(freezes, 1, "{verb:?} {nth} {lost}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_freeze_and_unfreeze_at_once() {
    let c = catalog();
    c.commit(batch(vec![create("t"), create("u")])).await.unwrap();
    let tables = [by_name("t"), by_name("u")];
    let mut calls = Vec::new();
    for n in 0..16 {
        let (c, tables) = (c.clone(), tables.clone());
        calls.push(tokio::spawn(async move {
            if n % 2 == 0 {
                c.freeze(&tables, None, None).await
            } else {
                c.unfreeze(&tables, None, None).await
            }
        }));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // They were always frozen together: of both there are as many versions.
    let (t, u) = (head(&c, "t").await, head(&c, "u").await);
    assert_eq!((t.version, &t.protocol), (u.version, &u.protocol));
}

/// In each order, with the fence up or not, all is undone.
#[tokio::test]
async fn fence_and_freeze_do_not_mix() {
    let c = catalog();
    let zero = zero("", "")
        .replace("\"minWriterVersion\":7,\"writerFeatures\":[]", "\"minWriterVersion\":2");
    let mut legacy = create("t");
    legacy.ndjson = zero.into_bytes();
    c.commit(batch(vec![legacy])).await.unwrap();
    let plain = head(&c, "t").await;
    assert_eq!(plain.protocol.min_writer_version, 2);
    freeze(&c, "t").await;
    let frozen = head(&c, "t").await;
    let features = ["appendOnly", "invariants", "deltalakedb.frozen"];
    assert_eq!(frozen.protocol.writer_features.as_deref().unwrap(), features);
    assert!(!fence::is_up(&frozen.protocol));
    assert_eq!(frozen.metadata, plain.metadata, "no in-commit timestamps");
    // Readers are asked for nothing.
    assert_eq!(frozen.protocol.min_reader_version, 1);
    assert_eq!(frozen.protocol.reader_features, None);
    unfreeze(&c, "t").await;
    assert_eq!(head(&c, "t").await.protocol, plain.protocol);

    c.change_fence(&by_name("t"), FenceChange::Raise).await.unwrap().unwrap();
    let fenced = head(&c, "t").await;
    freeze(&c, "t").await;
    let both = head(&c, "t").await;
    assert!(fence::is_up(&both.protocol) && is_frozen(&both.protocol));
    // Of the two a writer through the catalog sees the one that keeps it out.
    let (seen, _) = fence::writer_view(&both.protocol, &both.metadata);
    assert!(!fence::is_up(&seen) && is_frozen(&seen));
    // Who reads files sees neither.
    let (seen, _) = fence::scan_view(&both.protocol, &both.metadata);
    assert_eq!(seen, plain.protocol);
    let lower = || FenceChange::Lower { keep_timestamps: false };
    is_refused(c.change_fence(&by_name("t"), lower()).await.unwrap_err());
    unfreeze(&c, "t").await;
    assert_eq!(head(&c, "t").await.protocol, fenced.protocol);
    assert_eq!(head(&c, "t").await.metadata, fenced.metadata);
    c.change_fence(&by_name("t"), lower()).await.unwrap().unwrap();
    assert_eq!(head(&c, "t").await.protocol, plain.protocol);
}

/// Protocols that other writers are known to have written.
#[tokio::test]
async fn protocols_of_other_writers_are_frozen_and_come_back() {
    let c = catalog();
    for (n, (protocol, features)) in [
        // Identity columns of Spark: readers of version 1 map no columns.
        (
            r#""minReaderVersion":1,"minWriterVersion":6"#,
            vec!["appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns", "identityColumns"],
        ),
        // As trinodb/trino pull request 24635 found it: reader version 2 beside a list.
        (
            r#""minReaderVersion":2,"minWriterVersion":7,"writerFeatures":["columnMapping","changeDataFeed","appendOnly","invariants"]"#,
            vec!["columnMapping", "changeDataFeed", "appendOnly", "invariants"],
        ),
        (
            r#""minReaderVersion":2,"minWriterVersion":5"#,
            vec!["appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns", "columnMapping"],
        ),
        (r#""minReaderVersion":1,"minWriterVersion":7,"writerFeatures":[]"#, vec![]),
        (
            r#""minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]"#,
            vec!["deletionVectors"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{n}");
        let mut new = create(&table);
        let old = "\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":[]";
        new.ndjson = zero("", "").replace(old, protocol).into_bytes();
        c.commit(batch(vec![new])).await.unwrap();
        let before = head(&c, &table).await.protocol;
        freeze(&c, &table).await;
        let now = head(&c, &table).await.protocol;
        let want: Vec<&str> = features.into_iter().chain(["deltalakedb.frozen"]).collect();
        assert_eq!(now.writer_features.as_deref().unwrap(), want, "{protocol}");
        assert_eq!(now.reader_features, before.reader_features);
        unfreeze(&c, &table).await;
        assert_eq!(meaning(&head(&c, &table).await.protocol), meaning(&before), "{protocol}");
        c.change_fence(&by_name(&table), FenceChange::Raise).await.unwrap().unwrap();
    }
}

/// A protocol by what it asks of writers.
fn meaning(protocol: &Protocol) -> (i32, Vec<bool>) {
    let known = [
        "appendOnly",
        "invariants",
        "checkConstraints",
        "changeDataFeed",
        "generatedColumns",
        "columnMapping",
        "identityColumns",
        "deletionVectors",
        "deltalakedb",
        "deltalakedb.frozen",
    ];
    let has = |name: &&str| crate::features::supports_writer(protocol, name);
    (protocol.min_reader_version, known.iter().map(has).collect())
}

/// A restore of the state of then brings a frozen protocol back, as the virtual log shows it.
#[tokio::test]
async fn the_state_of_a_frozen_version_is_restored_unfrozen() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    freeze(&c, "t").await;
    let then = head(&c, "t").await.protocol;
    unfreeze(&c, "t").await;
    let line = deltalakedb_catalog_core::action::Action::Protocol(then).to_line().unwrap();
    c.commit(batch(vec![on("t", None, &line)])).await.unwrap();
    assert!(!is_frozen(&head(&c, "t").await.protocol));
    // A clone of it is not frozen either.
    for fence in [true, false] {
        let mut clone = create(&format!("clone{fence}"));
        clone.ndjson = zero("\"deltalakedb.frozen\",\"appendOnly\"", "").into_bytes();
        let ChangeTarget::Create { fence: up, .. } = &mut clone.target else { panic!() };
        *up = fence;
        c.commit(batch(vec![clone])).await.unwrap();
        let protocol = head(&c, &format!("clone{fence}")).await.protocol;
        assert!(!is_frozen(&protocol) && protocol.min_writer_version == 7, "{protocol:?}");
    }
}

/// Programs of before do not know the feature: what is not known is refused by its name.
#[test]
fn the_feature_is_none_that_a_commit_may_use() {
    let protocol: Protocol = serde_json::from_str(
        r#"{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["deltalakedb.frozen"]}"#,
    )
    .unwrap();
    let metadata = serde_json::from_str(r#"{"id":"i","schemaString":"{}"}"#).unwrap();
    let error = crate::features::check_commit(&protocol, &metadata).unwrap_err();
    assert!(error.to_string().contains(freeze::FEATURE), "{error}");
    assert!(error.to_string().contains("dl unfreeze"), "{error}");
    let asked = [("delta.feature.deltalakedb.frozen".to_owned(), Some("supported".to_owned()))];
    let schema = crate::schema::StructType::from_text("id long").unwrap();
    let error = crate::features::default_protocol_for(&schema, &asked.into_iter().collect());
    assert_eq!(error.unwrap_err().code(), "unsupported");
}

/// Writers that append all the time do not keep a table from being frozen.
#[tokio::test]
async fn appends_do_not_hold_a_freeze_up() {
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let c = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
    c.commit(batch(vec![create("t")])).await.unwrap();
    let other = c.clone();
    let faulty = FaultyBackend::new(memory, move |call| {
        if call.verb != Verb::Commit {
            return Fault::None;
        }
        let other = other.clone();
        // Between each look at the head and the commit.
        Fault::Before(Box::pin(async move {
            other
                .commit(batch(vec![on("t", None, &add(&format!("f{}", call.nth)))]))
                .await
                .unwrap();
        }))
    });
    let faulty = Catalog::new(Arc::new(faulty), Arc::new(FrozenClock), ids);
    for (freezes, version) in [(true, 2), (false, 3)] {
        let tables = [by_name("t")];
        let report = if freezes {
            faulty.freeze(&tables, Some(reason("busy")), None).await.unwrap()
        } else {
            // Nobody appends to a frozen table.
            c.unfreeze(&tables, None, None).await.unwrap()
        };
        assert_eq!(report.commit.unwrap().attempts, 1);
        if freezes {
            assert_eq!(report.tables[0].version.unwrap().get(), version);
            // The times are those of the commit.
            let written = published(&c, "t", version).await;
            let at = head(&c, "t").await.timestamp.0;
            assert!(written.contains(&format!("\"timestamp\":{at},\"operation\":\"FREEZE\"")));
            assert!(written.contains("\"operationParameters\":{\"reason\":\"busy\"}"), "{written}");
        }
    }
}
