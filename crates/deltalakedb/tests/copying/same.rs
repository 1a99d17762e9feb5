//! Whether two catalogs are the same to everyone who uses them.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalakedb::core::audit::Act;
use deltalakedb::core::backend::CatalogBackendExt;
use deltalakedb::core::backend::{
    CatalogBackend, CommitFilter, CommitOutcome, CommitRequest, TableFilter,
};
use deltalakedb::core::error::PlainResult;
use deltalakedb::core::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb::core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_conformance::change::{Change, file, gone, new_table};
use deltalakedb_conformance::env::{all_commits, all_files, all_rows, all_tombstones};
use uuid::Uuid;

const EVER: TimestampMs = TimestampMs(i64::MIN);

/// All tables, in one state.
pub(crate) async fn tables(db: &dyn CatalogBackend, state: TableState) -> Vec<TableRecord> {
    let filter = TableFilter { namespace: None, state: Some(state) };
    db.list_tables(&filter, None, 10_000).await.unwrap().items
}

fn versions(from: Version, to: Version) -> impl Iterator<Item = Version> {
    (from.get()..=to.get()).map(|v| Version::new(v).unwrap())
}

/// Compares all that can be read of two catalogs. Returns the number of versions compared.
pub(crate) async fn same_reads(a: &dyn CatalogBackend, b: &dyn CatalogBackend) -> usize {
    let mut compared = 0;
    let mut tokens: BTreeSet<CommitToken> = BTreeSet::new();
    for state in [TableState::Active, TableState::Dropped] {
        let (ours, theirs) = (tables(a, state).await, tables(b, state).await);
        assert_eq!(ours, theirs);
        for record in ours {
            compared += same_table(a, b, &record).await;
            let commits = all_commits(a, record.id, &CommitFilter::default(), 50).await.unwrap();
            tokens.extend(commits.into_iter().filter_map(|c| c.token));
        }
    }
    assert_eq!(tables(b, TableState::Importing).await, []);
    for token in &tokens {
        let written = a.resolve_token(token).await.unwrap();
        assert_eq!(written, b.resolve_token(token).await.unwrap(), "{token}");
        // Whatever else is asked with it, it is answered with what it wrote.
        let new = new_table(TableId(Uuid::new_v4()), TableName::new("replayed", "t").unwrap());
        let request = CommitRequest {
            token: token.clone(),
            now: TimestampMs(1),
            tables: vec![Change::new().create(new).unwrap()],
        };
        let replayed = CommitOutcome::Replayed(written.unwrap());
        assert_eq!(b.commit(request).await.unwrap(), replayed);
    }
    compared
}

/// Compares all that can be read of a table. Returns the number of versions compared.
pub(crate) async fn same_table(
    a: &dyn CatalogBackend,
    b: &dyn CatalogBackend,
    of: &TableRecord,
) -> usize {
    let id = of.id;
    let head = of.head.unwrap();
    let all = CommitFilter::default();
    let commits = all_commits(a, id, &all, 50).await.unwrap();
    assert_eq!(commits, all_commits(b, id, &all, 7).await.unwrap());
    for commit in &commits {
        let v = commit.version;
        let ours = a.read_bodies(id, v, v, 1).await.unwrap();
        let theirs = b.read_bodies(id, v, v, 1).await.unwrap();
        assert_eq!(ours, theirs, "{} {v}", of.name);
    }
    let by_id = TableRef::Id(id);
    let mut compared = 0;
    for v in versions(Version::ZERO, head) {
        let ours = a.snapshot(&by_id, At::Version(v)).await;
        let theirs = b.snapshot(&by_id, At::Version(v)).await;
        let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else {
            assert!(ours.is_err() && theirs.is_err(), "{v}: {ours:?}, {theirs:?}");
            assert!(v < of.base_version);
            continue;
        };
        assert_eq!(ours, theirs, "{} {v}", of.name);
        for t in [ours.timestamp, ours.timestamp.plus_ms(1), ours.timestamp.plus_ms(-1)] {
            let at = |db: &'static str, s: Result<deltalakedb::core::model::Snapshot, _>| {
                let _: &Result<_, deltalakedb::core::error::CatalogError> = &s;
                s.map(|s| s.version).map_err(|e| (db, e).1.to_string())
            };
            let ours = at("a", a.snapshot(&by_id, At::Timestamp(t)).await.plain());
            assert_eq!(
                ours,
                at("b", b.snapshot(&by_id, At::Timestamp(t)).await.plain()),
                "{v} {t}"
            );
        }
        let ours = all_files(a, id, v, 50).await.unwrap();
        assert_eq!(ours, all_files(b, id, v, 3).await.unwrap(), "{} {v}", of.name);
        for after in [EVER, TimestampMs(0), TimestampMs(3_000)] {
            let mut ours = all_tombstones(a, id, v, after, 50).await.unwrap();
            let mut theirs = all_tombstones(b, id, v, after, 3).await.unwrap();
            // Databases may number those without a file in their own way.
            ours.sort_by_key(|t| t.remove.key());
            theirs.sort_by_key(|t| t.remove.key());
            assert_eq!(ours.len(), theirs.len(), "{} {v}", of.name);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours.remove, theirs.remove, "{} {v}", of.name);
                assert_eq!(ours.removed_version, theirs.removed_version, "{} {v}", of.name);
            }
        }
        let ours = a.app_transactions(id, v).await.unwrap();
        assert_eq!(ours, b.app_transactions(id, v).await.unwrap(), "{} {v}", of.name);
        let ours = a.domain_metadata(id, v).await.unwrap();
        assert_eq!(ours, b.domain_metadata(id, v).await.unwrap(), "{} {v}", of.name);
        compared += 1;
    }
    // What is to be published, if anything is.
    if of.mirror != MirrorMode::Off {
        let open = async |db: &dyn CatalogBackend| -> Vec<Version> {
            let rows = all_rows(db, Some(id), None, 50).await.unwrap();
            rows.into_iter().map(|row| row.version).collect()
        };
        assert_eq!(open(a).await, open(b).await, "{}", of.name);
    }
    compared
}

/// Goes on in the same way on both, and compares the answers.
pub(crate) async fn same_writes(a: &Arc<dyn CatalogBackend>, b: &Arc<dyn CatalogBackend>) {
    let now = TimestampMs(9_000_000);
    let mut number = 0;
    let mut both = async |change: Box<dyn Fn() -> deltalakedb::core::backend::TableCommit>| {
        number += 1;
        let request = || CommitRequest {
            token: CommitToken::new(format!("afterwards-{number}")).unwrap(),
            now,
            tables: vec![change()],
        };
        let ours = a.commit(request()).await.unwrap();
        assert_eq!(ours, b.commit(request()).await.unwrap());
    };
    for record in tables(&**a, TableState::Active).await {
        let (id, head) = (record.id, record.head.unwrap());
        let files = all_files(&**a, id, head, 50).await.unwrap();
        if let Some(first) = files.first() {
            let remove = gone(&first.add, Some(5));
            both(Box::new(move || Change::new().remove(remove.clone()).exactly(id, head).unwrap()))
                .await;
        }
        let never = gone(&file("never-there"), None);
        both(Box::new(move || {
            let change = Change::new().remove(never.clone());
            change.append(id, head).unwrap()
        }))
        .await;
        // Around the barrier, appends begin to conflict.
        let barrier = record.barrier_version.get();
        for since in [barrier - 1, barrier, barrier + 1] {
            let Ok(since) = Version::new(since) else { continue };
            both(Box::new(move || Change::files(["afterwards"]).append(id, since).unwrap())).await;
        }
        both(Box::new(move || Change::new().exactly(id, head).unwrap())).await;
    }
    for record in tables(&**a, TableState::Dropped).await {
        let ours = a.undrop_table(record.id, &record.name, &Act::default()).await;
        let theirs = b.undrop_table(record.id, &record.name, &Act::default()).await;
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
            (ours, theirs) => assert_eq!(
                ours.map_err(|e| e.to_string()).unwrap_err(),
                theirs.map_err(|e| e.to_string()).unwrap_err()
            ),
        }
    }
    // Publishing that was off goes on where it was.
    for record in tables(&**a, TableState::Active).await {
        for db in [a, b] {
            db.mirror_retry(record.id, &Act::at(now)).await.unwrap();
            db.mirror_set_mode(record.id, MirrorMode::Active, &Act::at(now)).await.unwrap();
        }
    }
    same_reads(&**a, &**b).await;
}
