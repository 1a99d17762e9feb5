//! What is not copied, and what is said about it.

use std::sync::Arc;

use deltalakedb::copy::{CopyOptions, Progressed, Validate};
use deltalakedb::core::audit::Act;
use deltalakedb::core::backend::CatalogBackendExt;
use deltalakedb::core::backend::{CatalogBackend, CommitOutcome, CommitRequest, ImportEnd};
use deltalakedb::core::fault::{Fault, FaultyBackend, Verb};
use deltalakedb::core::ids::{CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb::core::model::TableState;
use deltalakedb_conformance::change::{Change, metadata, new_table, protocol};
use uuid::Uuid;

use crate::history::Writer;
use crate::same::{same_reads, tables};
use crate::world::{Database, Kind, copy, small_steps, whole};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn name(table: &str) -> TableName {
    TableName::new("ns", table).unwrap()
}

async fn commit(db: &Database, part: deltalakedb::core::backend::TableCommit) {
    let token = CommitToken::new(Uuid::new_v4().to_string()).unwrap();
    let request = CommitRequest { token, now: TimestampMs(10_000), tables: vec![part] };
    let outcome = db.db.commit(request).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

async fn create(db: &Database, table: &str) -> TableId {
    let id = TableId(Uuid::new_v4());
    commit(db, Change::files(["a"]).create(new_table(id, name(table))).unwrap()).await;
    id
}

async fn append(db: &Database, id: TableId, file: &str) {
    commit(db, Change::files([file]).append(id, v(0)).unwrap()).await;
}

async fn both() -> (Database, Database) {
    (Kind::Memory.fresh().await, Kind::Sqlite.fresh().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_other_tables_is_refused() {
    let (source, target) = both().await;
    create(&source, "t").await;
    let other = create(&target, "theirs").await;
    let error = copy(&source.db, &target.db, &small_steps()).await.unwrap_err().to_string();
    for word in ["ns.theirs", &other.to_string(), "empty", "table_prefix"] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(tables(&*target.db, TableState::Importing).await, []);
    // A dropped one is somebody's, too.
    target.db.drop_table(other, &Act::at(TimestampMs(5))).await.unwrap();
    let error = copy(&source.db, &target.db, &small_steps()).await.unwrap_err().to_string();
    assert!(error.contains("ns.theirs") && error.contains("dropped"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_imports_are_refused_or_left_out() {
    let (source, target) = both().await;
    create(&source, "t").await;
    let importing = new_table(TableId(Uuid::new_v4()), name("half"));
    source.db.import_begin(&importing, v(0), true, TimestampMs(1)).await.unwrap();
    let error = copy(&source.db, &target.db, &small_steps()).await.unwrap_err().to_string();
    for word in ["ns.half", "--resume", "--restart", "--skip-importing"] {
        assert!(error.contains(word), "{error}");
    }
    let options = CopyOptions { skip_importing: true, ..small_steps() };
    let report = copy(&source.db, &target.db, &options).await.unwrap();
    whole(&report);
    assert_eq!(report.skipped, [name("half")]);
    assert_eq!(report.tables.len(), 1);
    same_reads(&*source.db, &*target.db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_to_the_target_is_kept() {
    let (source, target) = both().await;
    let id = create(&source, "t").await;
    create(&source, "u").await;
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    append(&target, id, "new").await;
    let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
    assert!(!report.finished && !report.agrees());
    let text = format!("{:?}", report.tables[0].differences);
    assert!(text.contains("target is in use") && text.contains("version 1"), "{text}");
    assert_eq!(report.tables[1].num_differences, 0);
    let kept = target.db.get_table(&TableRef::Id(id)).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.head), (TableState::Active, Some(v(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_went_on_after_the_copy_is_reported() {
    let (source, target) = both().await;
    let id = create(&source, "t").await;
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    append(&source, id, "late").await;
    let later = create(&source, "later").await;
    let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
    assert!(!report.finished);
    let of = |id| report.tables.iter().find(|table| table.table_id == id).unwrap();
    let text = format!("{:?}", of(id).differences);
    assert!(text.contains("source was committed to after") && text.contains("version 1"), "{text}");
    // Nothing becomes active while anything differs.
    assert_eq!(of(later).progress, Progressed::Loaded);
    let waits = target.db.get_table(&TableRef::Id(later)).await.unwrap().unwrap();
    assert_eq!(waits.state, TableState::Importing);
}

/// Rows that the target has wrong are found, and keep every table from becoming active.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_row_at_the_target_is_found() {
    for validate in [Validate::All, Validate::Sample(5)] {
        let (source, target) = both().await;
        let id = create(&source, "t").await;
        append(&source, id, "b").await;
        create(&source, "u").await;
        // The same registration, and another commit 0.
        let record = source.db.get_table(&TableRef::Id(id)).await.unwrap().unwrap();
        let mut new = new_table(id, name("t"));
        new.location.clone_from(&record.location);
        target.db.import_begin(&new, v(0), true, TimestampMs(1)).await.unwrap();
        let wrong = Change::files(["wrong"]).protocol(protocol(2)).metadata(metadata("first"));
        let wrong = wrong.imported(v(0), 10_000).unwrap();
        target.db.import_commits(id, vec![wrong].into()).await.unwrap();

        let options = CopyOptions { validate, ..small_steps() };
        let report = copy(&source.db, &target.db, &options).await.unwrap();
        assert!(!report.finished && !report.agrees());
        let text = report.tables[0].differences.join("\n");
        for what in [
            "history, version 0, token",
            "history, version 0, place in its batch",
            "version 0: the bytes are not the same",
            "version 0, files: not the same from 'a' on",
            "version 1, files",
            "token ",
        ] {
            assert!(text.contains(what), "'{what}' is not in {text}");
        }
        assert_eq!(tables(&*target.db, TableState::Active).await, []);
        assert_eq!(tables(&*target.db, TableState::Importing).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_change_their_names_during_a_copy_begin_anew() {
    let (source, target) = both().await;
    let (a, b) = (create(&source, "a").await, create(&source, "b").await);
    let early = CopyOptions { finish: false, ..small_steps() };
    let report = copy(&source.db, &target.db, &early).await.unwrap();
    assert!(report.agrees() && !report.finished);
    // They swap names.
    for id in [a, b] {
        source.db.drop_table(id, &Act::at(TimestampMs(20_000))).await.unwrap();
    }
    source.db.undrop_table(a, &name("b"), &Act::default()).await.unwrap();
    source.db.undrop_table(b, &name("a"), &Act::default()).await.unwrap();
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dropped_tables_of_one_name_are_copied() {
    let (source, target) = both().await;
    for round in 0..6 {
        let id = create(&source, "t").await;
        append(&source, id, "b").await;
        if round < 5 {
            source.db.drop_table(id, &Act::at(TimestampMs(20_000 - round))).await.unwrap();
        }
    }
    let early = CopyOptions { finish: false, ..small_steps() };
    copy(&source.db, &target.db, &early).await.unwrap();
    let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
    whole(&report);
    assert_eq!(report.tables.len(), 6);
    same_reads(&*source.db, &*target.db).await;
}

/// A table of version 0 that was imported from a checkpoint, with a commit 0 that says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_of_version_0_is_kept_where_the_commit_says_otherwise() {
    use deltalakedb::core::model::{BaseChunk, BaseTail};
    let (source, target) = both().await;
    let new = new_table(TableId(Uuid::new_v4()), name("t"));
    let db = &source.db;
    db.import_begin(&new, v(0), false, TimestampMs(1)).await.unwrap();
    let first = Change::files(["said"]).protocol(protocol(2)).metadata(metadata("said"));
    db.import_commits(new.id, vec![first.imported(v(0), 100).unwrap()].into()).await.unwrap();
    let chunk = BaseChunk {
        files: vec![deltalakedb_conformance::change::file("found")],
        tombstones: Vec::new(),
    };
    let tail = BaseTail {
        protocol: protocol(2),
        metadata: metadata("found"),
        txns: Vec::new(),
        domain_metadata: Vec::new(),
        timestamp: TimestampMs(100),
    };
    db.import_base(new.id, 0, 0, chunk, Some(tail)).await.unwrap();
    db.import_finish(new.id, ImportEnd::default(), &Act::at(TimestampMs(2))).await.unwrap();
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}

/// Of a file that a foreign commit names twice, an import keeps the last: so does its copy.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_commit_names_twice_are_copied_as_they_were_stored() {
    let (source, target) = both().await;
    let new = new_table(TableId(Uuid::new_v4()), name("t"));
    source.db.import_begin(&new, v(0), true, TimestampMs(1)).await.unwrap();
    let first = Change::files(["a", "b", "a"]).protocol(protocol(2)).metadata(metadata("first"));
    let mut first = first.imported(v(0), 100).unwrap();
    first.index.adds.remove(0);
    let gone = deltalakedb_conformance::change::gone(&first.index.adds[0], Some(5));
    let second = Change::files(["c"]).remove(gone.clone()).remove(gone);
    let mut second = second.imported(v(1), 200).unwrap();
    second.index.removes.remove(0);
    let third = Change::files(["d", "e", "d"]).imported(v(2), 300).unwrap();
    source.db.import_commits(new.id, vec![first, second, third].into()).await.unwrap();
    source.db.import_finish(new.id, ImportEnd::default(), &Act::at(TimestampMs(2))).await.unwrap();
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_catalog_is_copied() {
    let (source, target) = both().await;
    let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
    whole(&report);
    assert_eq!(report.tables, []);
    Writer::new(&source.db, 1).steps(10).await;
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
}

/// Each look at the source finds a new commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_never_rests_is_not_finished() {
    let (source, target) = both().await;
    let id = create(&source, "t").await;
    let inner = Arc::clone(&source.db);
    let restless: Arc<dyn CatalogBackend> =
        Arc::new(FaultyBackend::new(Arc::clone(&source.db), move |call| {
            if call.verb != Verb::ListTables {
                return Fault::None;
            }
            let db = Arc::clone(&inner);
            Fault::Before(Box::pin(async move {
                let part = Change::files(["more"]).append(id, v(0)).unwrap();
                let token = CommitToken::new(Uuid::new_v4().to_string()).unwrap();
                let now = TimestampMs(30_000);
                db.commit(CommitRequest { token, now, tables: vec![part] }).await.unwrap();
            }))
        }));
    let error = copy(&restless, &target.db, &small_steps()).await.unwrap_err().to_string();
    assert!(
        error.contains("does not stop changing") && error.contains("Stop the writers"),
        "{error}"
    );
    assert_eq!(tables(&*target.db, TableState::Active).await, []);
    let early = CopyOptions { finish: false, ..small_steps() };
    let report = copy(&restless, &target.db, &early).await.unwrap();
    assert!(report.agrees() && !report.finished && report.commits > 5, "{report:?}");
    // Once it rests, it is finished.
    whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
    same_reads(&*source.db, &*target.db).await;
}
