//! Checks for tests of a live server: what a login may do, and commits of many files.
//!
//! The suite itself needs no more than a database. These need more around it (logins, a proxy, a
//! clock), so that each backend calls them from tests of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deltalakedb_catalog_core::action::{Add, Remove};
use deltalakedb_catalog_core::audit::{Act, Actor, AuditEntry, AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{
    CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest, ImportEnd,
    MirrorLease, PublishFailure, Published, TableCommit, TableFilter,
};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, FileCursor, MirrorMode, NewSkipSegment, SkipPage,
};
use deltalakedb_catalog_core::registry::{Expected, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::change::{Change, file, gone, metadata, new_table, protocol};
use crate::env::{all_files, retrying, v};

/// One call and what became of it.
pub type Answer = (&'static str, Result<()>);

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn table_name(table: TableId) -> Result<TableName> {
    Ok(TableName::new("live", table.to_string())?)
}

fn fresh_token() -> Result<CommitToken> {
    Ok(CommitToken::new(Uuid::new_v4().to_string())?)
}

fn fresh_id() -> TableId {
    TableId(Uuid::new_v4())
}

/// An entry of the audit about nothing.
fn note() -> AuditEntry {
    AuditEntry {
        at: NOW,
        action: "test".to_owned(),
        table_id: None,
        table_name: None,
        by: Actor::default(),
        detail: None,
        token: None,
    }
}

fn unexpected(outcome: &CommitOutcome) -> CatalogError {
    CatalogError::corrupt(format!("a commit that nothing speaks against became {outcome:?}"))
}

/// Commits to one table, or says what else happened.
///
/// # Errors
/// Those of the backend; `Corrupt` if it was not committed.
pub async fn commit(db: &dyn CatalogBackend, tables: Vec<TableCommit>) -> Result<()> {
    let request = CommitRequest { token: fresh_token()?, now: NOW, tables };
    match db.commit(request).await? {
        CommitOutcome::Committed(_) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// What takes the tables of a catalog back to their first version; `{p}` is schema and prefix. Later
/// versions have more tables and no other columns.
pub const TO_FIRST_SCHEMA: [&str; 4] = [
    "DROP TABLE {p}skip_index",
    "DROP TABLE {p}skip_segments",
    "DROP TABLE {p}skip_pages",
    "DELETE FROM {p}schema WHERE version > 1",
];

/// A catalog of the first version, with a table of [`make_table`]: it is refused by name, upgraded, and
/// all is there.
///
/// # Errors
/// Those of the backend, and if it does otherwise.
pub async fn upgrade(db: &dyn CatalogBackend, table: TableId) -> Result<()> {
    match db.skip_index(table).await.plain() {
        Err(CatalogError::Schema(message))
            if message.contains("version 1") && message.contains("dl init") => {}
        other => {
            return Err(CatalogError::corrupt(format!("an old schema is not refused: {other:?}")));
        }
    }
    db.migrate(NOW).await?;
    db.migrate(NOW).await?;
    let info = db.info().await?;
    if info.schema_version != info.supported_schema_version {
        return Err(CatalogError::corrupt(format!("after the upgrade: {info:?}")));
    }
    for (name, answer) in every_read(db, table).await? {
        answer.map_err(|error| CatalogError::corrupt(format!("{name}: {error}")))?;
    }
    Ok(())
}

/// Makes a table with two versions, two files and a tombstone.
///
/// # Errors
/// Those of the backend.
pub async fn make_table(db: &dyn CatalogBackend) -> Result<TableId> {
    let id = fresh_id();
    let first = Change::files(["a", "b"]).txn("app", 1).domain("d", Some("{}"));
    commit(db, vec![first.create(new_table(id, table_name(id)?))?]).await?;
    let second = Change::files(["c"]).remove(gone(&file("a"), Some(NOW.0)));
    commit(db, vec![second.exactly(id, v(0))?]).await?;
    Ok(id)
}

/// Every call that reads, of a table made by [`make_table`].
///
/// # Errors
/// None: those of the calls are among the answers.
pub async fn every_read(db: &dyn CatalogBackend, table: TableId) -> Result<Vec<Answer>> {
    let by_id = TableRef::Id(table);
    let by_name = TableRef::Name(table_name(table)?);
    let head = v(1);
    let calls: Vec<(&'static str, BoxFuture<'_, Result<bool>>)> = vec![
        ("info", Box::pin(async { Ok(db.info().await?.schema_version > 0) })),
        ("get_table", Box::pin(async { Ok(db.get_table(&by_name).await?.is_some()) })),
        (
            "list_tables",
            Box::pin(async {
                let page = db.list_tables(&TableFilter::default(), None, 10_000).await?;
                Ok(page.items.iter().any(|t| t.id == table))
            }),
        ),
        (
            "snapshot by name",
            Box::pin(async { Ok(db.snapshot(&by_name, At::Head).await?.version == head) }),
        ),
        (
            "snapshot at a version",
            Box::pin(async { Ok(db.snapshot(&by_id, At::Version(v(0))).await?.version == v(0)) }),
        ),
        (
            "snapshot at a time",
            Box::pin(async {
                let at = At::Timestamp(TimestampMs(i64::MAX));
                Ok(db.snapshot(&by_id, at).await?.version == head)
            }),
        ),
        (
            "list_files",
            Box::pin(async { Ok(db.list_files(table, head, None, 10).await?.items.len() == 2) }),
        ),
        (
            "files_at",
            Box::pin(async {
                let place = FileCursor { added_version: v(1), ordinal: 0 };
                Ok(db.files_at(table, head, &[place]).await?.len() == 1)
            }),
        ),
        ("skip_index", Box::pin(async { Ok(db.skip_index(table).await?.generation == 0) })),
        (
            "skip_pages",
            Box::pin(async {
                let page = SkipPage { segment: 1, page: 0 };
                Ok(db.skip_pages(table, &[page]).await? == [None])
            }),
        ),
        (
            "list_tombstones",
            Box::pin(async {
                let after = TimestampMs(0);
                let page = db.list_tombstones(table, head, after, None, 10).await?;
                Ok(page.items.len() == 1)
            }),
        ),
        (
            "app_transactions",
            Box::pin(async { Ok(db.app_transactions(table, head).await?.len() == 1) }),
        ),
        (
            "domain_metadata",
            Box::pin(async { Ok(db.domain_metadata(table, head).await?.len() == 1) }),
        ),
        (
            "list_commits",
            Box::pin(async {
                let page = db.list_commits(table, &CommitFilter::default(), None, 10).await?;
                Ok(page.items.len() == 2)
            }),
        ),
        (
            "read_bodies",
            Box::pin(async { Ok(db.read_bodies(table, v(0), head, 10).await?.len() == 2) }),
        ),
        (
            "resolve_token",
            Box::pin(async { Ok(db.resolve_token(&fresh_token()?).await?.is_none()) }),
        ),
        (
            "audit_list",
            Box::pin(async {
                if !db.info().await?.keeps_audit {
                    return Ok(true);
                }
                let filter = AuditFilter { table_ids: vec![table], ..AuditFilter::default() };
                let page = db.audit_list(&filter, AuditOrder::NewestFirst, None, 10).await?;
                Ok(page.items.is_empty())
            }),
        ),
        (
            "mirror_rows",
            Box::pin(async {
                let page = db.mirror_rows(Some(table), None, None, 10).await?;
                Ok(page.items.len() == 2)
            }),
        ),
    ];
    let mut answers = Vec::new();
    for (name, call) in calls {
        let answer = match call.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CatalogError::corrupt(format!("{name} gave another answer"))),
            Err(error) => Err(error),
        };
        answers.push((name, answer));
    }
    Ok(answers)
}

/// Every call that writes but `migrate`, of a table made by [`make_table`]. With a login that may
/// write, each succeeds; with one that may not, each fails.
///
/// # Errors
/// If a request cannot be made; those of the calls are among the answers.
pub async fn every_write(db: &dyn CatalogBackend, table: TableId) -> Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = Vec::new();
    let (created, imported, aborted) = (fresh_id(), fresh_id(), fresh_id());
    let change = Change::files(["new"]);
    let create = vec![change.clone().create(new_table(created, table_name(created)?))?];
    answers.push(("commit that creates", commit(db, create).await));
    answers.push(("commit", commit(db, vec![change.append(table, v(1))?]).await));

    answers.push(("drop_table", db.drop_table(table, &Act::at(NOW)).await.plain().map(drop)));
    let name = table_name(table)?;
    answers.push((
        "undrop_table",
        db.undrop_table(table, &name, &Act::default()).await.plain().map(drop),
    ));

    let segment = NewSkipSegment {
        after: None,
        through: FileCursor { added_version: v(0), ordinal: 0 },
        version: v(0),
        files: 1,
        root: vec![1].into(),
        pages: vec![vec![2].into()],
    };
    let unless_told = CatalogError::corrupt("it was not written");
    let replaced = db.skip_replace(table, 0, &[], &segment).await.plain();
    answers.push(("skip_replace", replaced.and_then(|done| done.then_some(()).ok_or(unless_told))));

    let new = new_table(imported, table_name(imported)?);
    let begun = db.import_begin(&new, v(5), false, NOW).await.plain().map(drop);
    answers.push(("import_begin", begun));
    let chunk = BaseChunk { files: vec![file("base")], tombstones: Vec::new() };
    let tail = BaseTail {
        protocol: protocol(2),
        metadata: metadata("base"),
        txns: Vec::new(),
        domain_metadata: Vec::new(),
        timestamp: TimestampMs(5),
    };
    let stored = db.import_base(imported, 0, 0, chunk, Some(tail)).await.plain().map(drop);
    answers.push(("import_base", stored));
    let commits = vec![Change::files(["six"]).imported(v(6), 6)?];
    answers.push((
        "import_commits",
        db.import_commits(imported, commits.into()).await.plain().map(drop),
    ));
    let end = ImportEnd { published: Some(v(6)), ..ImportEnd::default() };
    answers.push((
        "import_finish",
        db.import_finish(imported, end, &Act::at(NOW)).await.plain().map(drop),
    ));
    let new = new_table(aborted, table_name(aborted)?);
    let begun = db.import_begin(&new, Version::ZERO, true, NOW).await.plain().map(drop);
    answers.push(("import_begin again", begun));
    answers.push(("import_abort", db.import_abort(aborted, &Act::default()).await.plain()));

    let request = ClaimRequest {
        owner: "live".to_owned(),
        now: NOW,
        lease_ms: 60_000,
        max_tables: 1,
        max_versions: 1,
        only: Some(table),
    };
    let claimed = db.mirror_claim(&request).await.plain();
    // Whoever may not claim makes the other calls with a lease that is not theirs.
    let lease = match claimed.as_ref().ok().and_then(|tasks| tasks.first()) {
        Some(task) => task.lease.clone(),
        None => MirrorLease {
            table_id: table,
            owner: "live".to_owned(),
            epoch: 0,
            until: NOW.plus_ms(60_000),
        },
    };
    let none = || CatalogError::corrupt("nothing was done");
    let some = |did: Result<bool>| did.and_then(|did| did.then_some(()).ok_or_else(none));
    answers.push((
        "mirror_claim",
        claimed.and_then(|tasks| (!tasks.is_empty()).then_some(()).ok_or_else(none)),
    ));
    answers.push((
        "mirror_renew",
        some(db.mirror_renew(&lease, NOW, 60_000).await.plain().map(|l| l.is_some())),
    ));
    let done = [Published { version: v(0), digest: "d".to_owned(), at: NOW }];
    answers.push(("mirror_complete", some(db.mirror_complete(&lease, &done).await.plain())));
    let failure =
        PublishFailure { version: v(1), error: "no".to_owned(), retry_at: NOW, diverged: false };
    answers.push(("mirror_fail", some(db.mirror_fail(&lease, &failure).await.plain())));
    answers.push(("mirror_release", db.mirror_release(&lease).await.plain().map(drop)));
    answers.push(("mirror_retry", db.mirror_retry(table, &Act::at(NOW)).await.plain().map(drop)));
    let off = db.mirror_set_mode(table, MirrorMode::Off, &Act::at(NOW)).await.plain().map(drop);
    answers.push(("mirror_set_mode", off));
    if db.info().await?.keeps_audit {
        let entry =
            AuditEntry { table_id: Some(table), table_name: Some(name.to_string()), ..note() };
        answers.push(("audit_record", db.audit_record(&entry).await.plain()));
    }
    Ok(answers)
}

/// What each call asks of the server, by name: requests that were answered.
///
/// `taken` gives the number of them since it was last called, as of a proxy between the two.
///
/// # Errors
/// Those of the backend.
pub async fn round_trips(
    db: &dyn CatalogBackend,
    taken: impl Fn() -> u64,
) -> Result<Vec<(&'static str, u64)>> {
    let ids = [make_table(db).await?, make_table(db).await?, make_table(db).await?];
    let by_id = TableRef::Id(ids[0]);
    let by_name = TableRef::Name(table_name(ids[1])?);
    let mut counts = Vec::new();
    taken();

    commit(db, vec![Change::files(["one"]).append(ids[0], v(1))?]).await?;
    counts.push(("a commit to one table", taken()));
    let change = Change::new().remove(gone(&file("one"), None)).exactly(ids[0], v(2))?;
    commit(db, vec![change]).await?;
    counts.push(("a commit that removes a file", taken()));
    let parts: Result<Vec<TableCommit>> =
        ids.iter().map(|id| Change::files(["all"]).append(*id, v(1))).collect();
    commit(db, parts?).await?;
    counts.push(("a commit to three tables", taken()));

    db.snapshot(&by_id, At::Head).await?;
    counts.push(("opening a table", taken()));
    db.snapshot(&by_name, At::Version(v(1))).await?;
    counts.push(("opening a version by name", taken()));
    db.get_table(&by_name).await?;
    counts.push(("looking a table up", taken()));
    db.list_files(ids[0], v(1), None, 100).await?;
    counts.push(("a page of files", taken()));
    Ok(counts)
}

/// How the request of a commit gets lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Its answer is: it took effect.
    Answer,
    /// It is itself.
    Request,
}

/// Commits whose deciding request is lost on the way, as `lose` arranges beforehand: each is in doubt,
/// the token tells, and sent again it takes effect once.
///
/// # Errors
/// Those of the backend; `Corrupt` if anything else is seen.
pub async fn lost_commits(db: &dyn CatalogBackend, lose: impl Fn(Lost)) -> Result<()> {
    // What is lost is the execution of a prepared statement, not its preparation.
    let other = make_table(db).await?;
    commit(db, vec![Change::files(["before"]).append(other, v(1))?]).await?;
    let id = make_table(db).await?;
    let odd = |what: String| Err(CatalogError::corrupt(what));
    for (lost, expected) in [(Lost::Answer, v(2)), (Lost::Request, v(3))] {
        let change = Change::files([format!("{lost:?}")]).append(id, v(1))?;
        let request = CommitRequest { token: fresh_token()?, now: NOW, tables: vec![change] };
        lose(lost);
        match db.commit(request.clone()).await {
            Err(error) if error.write_state() == WriteState::Unknown => {}
            other => return odd(format!("{lost:?} lost: {other:?}, not a commit in doubt")),
        }
        // The server may be at it for a moment after the connection is gone.
        let tables = match retrying(|| db.commit(request.clone())).await? {
            CommitOutcome::Replayed(tables) => tables,
            CommitOutcome::Committed(tables) if lost == Lost::Request => tables,
            other => return odd(format!("{lost:?} lost, sent again: {other:?}")),
        };
        let told = db.resolve_token(&request.token).await?;
        if tables.first().map(|t| t.version) != Some(expected) || told != Some(tables) {
            return odd(format!("{lost:?} lost: the token tells {told:?}"));
        }
    }
    let head = db.snapshot(&TableRef::Id(id), At::Head).await?;
    if (head.version, head.num_files) != (v(3), 4) {
        return odd(format!("after two commits: {head:?}"));
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct WallClock;

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[derive(Debug)]
pub(crate) struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
    }
}

/// What [`disturbed`] saw.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Disturbed {
    /// Commits that were answered.
    pub committed: u64,
    /// Commits that failed, and were not written.
    pub failed: u64,
    /// Commits that failed in doubt, and were written, as their tokens told afterwards.
    pub found: u64,
    /// Commits that failed in doubt, and were not written.
    pub missing: u64,
}

/// Six tasks commit to one table through a [`Catalog`] while `disturb` does harm, again and again until
/// they are done: each commit ends as committed, not committed, or to be told by its token, none is
/// lost and none is there twice. Afterwards the database can be used by itself.
///
/// # Errors
/// `Corrupt` that says what was seen; those of the backend.
pub async fn disturbed(
    db: Arc<dyn CatalogBackend>,
    mut disturb: impl FnMut(),
) -> Result<Disturbed> {
    let id = make_table(db.as_ref()).await?;
    let catalog = Catalog::new(db.clone(), Arc::new(WallClock), Arc::new(RandomIds));
    let writers = (0..6).map(|writer| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            let mut ends = Vec::new();
            for number in 0..25 {
                let token = fresh_token()?;
                let path = format!("w{writer}-{number}");
                let lines = format!(
                    r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true}}}}"#
                );
                let change = TableChange {
                    target: ChangeTarget::Existing { table: TableRef::Id(id), read_version: None },
                    ndjson: lines.into_bytes(),
                    origin: path.clone(),
                    reads: Reads::default(),
                    operation: None,
                };
                let batch = CommitBatch { token: Some(token.clone()), tables: vec![change] };
                ends.push((path, token, catalog.commit(batch).await.map(drop)));
            }
            Ok::<_, CatalogError>(ends)
        })
    });
    let writers: Vec<_> = writers.collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        disturb();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let head = retrying(|| async { db.snapshot(&TableRef::Id(id), At::Head).await }).await?;
    let files = all_files(db.as_ref(), id, head.version, 1_000).await?;
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        *left.entry(file.add.path.clone()).or_default() += 1;
    }
    let mut seen = Disturbed::default();
    for writer in writers {
        let ends = writer.await.map_err(|e| CatalogError::corrupt(format!("a writer: {e}")))??;
        for (path, token, end) in ends {
            let there = left.remove(&path).unwrap_or(0);
            let told = db.resolve_token(&token).await?.is_some();
            match (&end, there, told) {
                (Ok(()), 1, true) => seen.committed += 1,
                (Err(e), 0, false) if e.write_state() == WriteState::Unknown => seen.missing += 1,
                (Err(e), 1, true) if e.write_state() == WriteState::Unknown => seen.found += 1,
                (Err(_), 0, false) => seen.failed += 1,
                _ => {
                    return Err(CatalogError::corrupt(format!(
                        "{path}: {end:?}, it is there {there} times, known by its token: {told}"
                    )));
                }
            }
        }
    }
    // Two files are of `make_table`; each commit is a version.
    let written = seen.committed + seen.found;
    let versions = u64::try_from(head.version.get()).unwrap_or(0) - 1;
    if left.len() != 2 || versions != written {
        return Err(CatalogError::corrupt(format!("{seen:?}, but {versions} versions, {left:?}")));
    }
    Ok(seen)
}

/// Both roles at work: each reads everything, the reader writes nothing, the writer everything.
///
/// # Errors
/// `Corrupt` that says which call went otherwise; those of the backend.
pub async fn roles(
    owner: &dyn CatalogBackend,
    reader: &dyn CatalogBackend,
    writer: &dyn CatalogBackend,
) -> Result<()> {
    let table = make_table(owner).await?;
    let other = |who: &str, call: &str, answer: String| {
        CatalogError::corrupt(format!("{who}: {call}: {answer}"))
    };
    for (who, db) in [("reader", reader), ("writer", writer)] {
        for (call, answer) in every_read(db, table).await? {
            answer.map_err(|error| other(who, call, error.to_string()))?;
        }
    }
    // Calls that find nothing to do write nothing: they need not be refused.
    let harmless = ["import_abort", "mirror_release", "mirror_retry"];
    for (call, answer) in every_write(reader, table).await? {
        match answer {
            Ok(()) if harmless.contains(&call) => {}
            Err(error) if !error.is_retryable() => {}
            other_answer => return Err(other("reader", call, format!("{other_answer:?}"))),
        }
    }
    for (call, answer) in every_read(owner, table).await? {
        answer.map_err(|error| other("owner, after a reader tried", call, error.to_string()))?;
    }
    for (call, answer) in every_write(writer, table).await? {
        answer.map_err(|error| other("writer", call, error.to_string()))?;
    }
    Ok(())
}

/// The roles and the registry: an admin changes it, a writer reads it, a reader does neither.
///
/// # Errors
/// `Corrupt` that says which call went otherwise; those of the backend.
pub async fn registry_roles(
    admin: &dyn CatalogBackend,
    writer: &dyn CatalogBackend,
    reader: &dyn CatalogBackend,
) -> Result<()> {
    let key = RecordKey::new("share", "live")?;
    let writes =
        [RecordWrite { key: key.clone(), expected: Expected::Any, body: Some("{}".to_owned()) }];
    let entry = note();
    // While nothing was written to it: after that it would not be filled in any case.
    let mut refused = vec![
        ("writer", writer.registry_load(&[], 1).await.plain().map(drop)),
        ("reader", reader.registry_load(&[], 1).await.plain().map(drop)),
    ];
    admin.registry_write(&writes, NOW, Some(&entry)).await?;
    let revision = admin.registry_revision().await?;
    let record = writer.registry_get(&key).await?;
    let listed = writer.registry_list("share", None, 10).await?.items;
    if listed.len() != 1 || record.as_ref() != listed.first() {
        return Err(CatalogError::corrupt(format!("a writer reads {record:?} and {listed:?}")));
    }
    refused.extend([
        ("writer", writer.registry_write(&writes, NOW, Some(&entry)).await.plain().map(drop)),
        ("reader", reader.registry_write(&writes, NOW, Some(&entry)).await.plain().map(drop)),
        ("reader", reader.registry_get(&key).await.plain().map(drop)),
        ("reader", reader.registry_list("share", None, 10).await.plain().map(drop)),
        ("reader", reader.registry_all(None, 10).await.plain().map(drop)),
        ("reader", reader.registry_revision().await.plain().map(drop)),
    ]);
    for (who, answer) in refused {
        if !answer.as_ref().is_err_and(|error| !error.is_retryable()) {
            return Err(CatalogError::corrupt(format!("a {who} is not refused: {answer:?}")));
        }
    }
    let delete = [RecordWrite { key, expected: Expected::Revision(revision), body: None }];
    match (writer.registry_revision().await?, admin.registry_write(&delete, NOW, None).await?) {
        (seen, RegistryOutcome::Written(next)) if seen == revision && next == revision + 1 => {
            Ok(())
        }
        other => Err(CatalogError::corrupt(format!("after {revision}: {other:?}"))),
    }
}

/// How long the parts of [`bulk`] took.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// One commit that adds all files.
    pub add: Duration,
    /// Listing all of them, in pages.
    pub list: Duration,
    /// One commit that removes all of them.
    pub remove: Duration,
}

/// Files as a writer makes them, with statistics.
#[must_use]
pub fn many_files(count: usize) -> Vec<Add> {
    (0..count)
        .map(|i| {
            let mut add = file(format!("day=2026-01-{:02}/part-{i:08}.parquet", i % 28 + 1));
            add.partition_values =
                [("day".to_owned(), Some(format!("2026-01-{:02}", i % 28 + 1)))].into_iter().collect();
            add.stats = Some(format!(
                r#"{{"numRecords":100,"minValues":{{"x":{i}}},"maxValues":{{"x":{}}},"nullCount":{{"x":0}}}}"#,
                i + 99
            ));
            add
        })
        .collect()
}

/// Adds many files in one commit, lists them, removes them in one commit.
///
/// # Errors
/// Those of the backend; `Corrupt` if what is listed is not what was added.
pub async fn bulk(db: &dyn CatalogBackend, count: usize) -> Result<Bulk> {
    let id = fresh_id();
    commit(db, vec![Change::new().create(new_table(id, table_name(id)?))?]).await?;
    let adds = many_files(count);
    let removes: Vec<Remove> = adds.iter().map(|add| gone(add, Some(NOW.0))).collect();
    let change = adds.iter().cloned().fold(Change::new(), Change::add).append(id, v(0))?;
    let began = Instant::now();
    commit(db, vec![change]).await?;
    let add = began.elapsed();

    let began = Instant::now();
    let listed = all_files(db, id, v(1), 10_000).await?;
    let list = began.elapsed();
    if !listed.iter().map(|file| &file.add).eq(adds.iter()) {
        return Err(CatalogError::corrupt(format!(
            "{} files are listed of {count} that were added, or they are not the same",
            listed.len()
        )));
    }
    let change = removes.into_iter().fold(Change::new(), Change::remove).exactly(id, v(1))?;
    let began = Instant::now();
    commit(db, vec![change]).await?;
    let remove = began.elapsed();
    let snapshot = db.snapshot(&TableRef::Id(id), At::Head).await?;
    let left = db.list_files(id, v(2), None, 1).await?.items.len();
    let buried = db.list_tombstones(id, v(2), TimestampMs(0), None, count + 1).await?;
    if snapshot.num_files != 0 || left != 0 || buried.items.is_empty() {
        return Err(CatalogError::corrupt(format!("files are left: {snapshot:?}")));
    }
    Ok(Bulk { add, list, remove })
}
