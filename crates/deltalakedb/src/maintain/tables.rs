//! Steps that look at tables, a few at a time: one whose store hangs does not keep the others waiting.

use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult, Result};
use deltalakedb_catalog_core::ids::{At, TableRef};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_mirror::cleanup::clean_log;
use deltalakedb_mirror::vacuum::{VacuumOptions, stated_retention_ms};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::MaintainPlan;
use super::clock::refuse_fast_clock;
use super::step::Done;
use crate::Db;

/// Property of a table whose data files are deleted by a pass once no version needs them: `true`.
pub const VACUUM_PROPERTY: &str = "deltalakedb.maintain.vacuum";
/// Property of a table whose small files are made large ones by a pass: `true`.
pub const OPTIMIZE_PROPERTY: &str = "deltalakedb.maintain.optimize";

/// Tables at a time.
const AT_A_TIME: usize = 4;
/// Tables at a time whose files are listed: each keeps what it has found in memory.
const LISTED_AT_A_TIME: usize = 2;

/// What was done about one table.
#[derive(Default)]
struct Told {
    counts: Vec<(&'static str, u64)>,
    note: Option<String>,
    /// Something that is wrong, and was not put right.
    wrong: Option<String>,
}

/// The tables that a pass looks at.
async fn chosen(db: &Db, plan: &MaintainPlan) -> Result<Vec<TableRecord>> {
    if plan.tables.is_empty() {
        let filter = TableFilter { state: Some(TableState::Active), ..TableFilter::default() };
        return db.tables(filter).try_collect().await;
    }
    let mut tables: Vec<TableRecord> = Vec::new();
    for table in &plan.tables {
        let record = db.catalog().table(table).await?;
        if record.state != TableState::Active {
            return Err(CatalogError::TableNotFound(table.to_string()));
        }
        if tables.iter().all(|other| other.id != record.id) {
            tables.push(record);
        }
    }
    Ok(tables)
}

/// Does the work for each table. A table that fails is told, and the others are done.
async fn each<'w>(
    db: &Db,
    plan: &MaintainPlan,
    done: &mut Done,
    at_a_time: usize,
    work: impl Fn(TableRecord) -> BoxFuture<'w, Result<Told>>,
) -> Result<()> {
    let tables = chosen(db, plan).await?;
    done.count("tables", u64::try_from(tables.len()).unwrap_or(u64::MAX));
    let works = tables.into_iter().map(|table| {
        let name = table.name.clone();
        work(table).map(move |answer| (name, answer))
    });
    // Not all at once: each is a future of some size.
    let mut works = futures::stream::iter(works).buffer_unordered(at_a_time);
    while let Some((name, answer)) = works.next().await {
        match answer {
            Ok(told) => {
                for (what, number) in told.counts {
                    done.count(what, number);
                }
                if let Some(note) = told.note {
                    done.note(format!("{name}: {note}"));
                }
                if let Some(wrong) = told.wrong {
                    done.fail(format!("{name}: {wrong}"));
                }
            }
            // It was dropped meanwhile.
            Err(CatalogError::TableNotFound(_)) if plan.tables.is_empty() => {}
            Err(CatalogError::TableFrozen(frozen)) => {
                done.count("frozen", 1);
                done.note(format!("left alone: {frozen}"));
            }
            Err(error) => done.fail(format!("{name}: {error}")),
        }
    }
    Ok(())
}

pub(super) async fn skipping_index(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    let dry_run = plan.dry_run;
    let work = |table: TableRecord| {
        async move {
            if !dry_run {
                let made = db.maintain_index(table.id).await?;
                let note = (made.files > 0).then(|| format!("{} files indexed", made.files));
                return Ok(Told { counts: vec![("files", made.files)], note, wrong: None });
            }
            let head = db.snapshot(&TableRef::Id(table.id), At::Head).await?;
            let index = db.backend().skip_index(table.id).await.plain()?;
            let files: i64 = index.segments.iter().map(|segment| segment.files).sum();
            let note = format!("the index has {files} of {} files", head.num_files);
            Ok(Told { note: Some(note), ..Told::default() })
        }
        .boxed()
    };
    each(db, plan, done, AT_A_TIME, work).await
}

pub(super) async fn reconcile(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    let repair = !plan.dry_run;
    let work = |table: TableRecord| {
        async move {
            let by_id = TableRef::Id(table.id);
            let report = deltalakedb_mirror::reconcile::reconcile(db, &by_id, repair).await?;
            let counts = vec![
                ("objects", report.expected),
                ("wrong", report.drift),
                ("put_back", report.republished),
            ];
            let note = (report.republished > 0)
                .then(|| format!("{} objects of the log were put back", report.republished));
            let first = report.findings.iter().find(|finding| !finding.repaired);
            let wrong = match (report.unrepaired(), first) {
                (0, _) => None,
                (n, Some(first)) => Some(format!(
                    "{n} objects of the log are wrong: '{}' is {}",
                    first.name,
                    match first.kind {
                        deltalakedb_mirror::reconcile::FindingKind::Missing => "missing",
                        deltalakedb_mirror::reconcile::FindingKind::Different => "another one",
                        deltalakedb_mirror::reconcile::FindingKind::Foreign => "foreign",
                    }
                )),
                (n, None) => Some(format!("{n} objects of the log are wrong")),
            };
            Ok(Told { counts, note, wrong })
        }
        .boxed()
    };
    each(db, plan, done, AT_A_TIME, work).await
}

pub(super) async fn log_retention(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    refuse_fast_clock(db).await?;
    let delete = !plan.dry_run;
    let work = |table: TableRecord| {
        async move {
            let cleaned = clean_log(db, &TableRef::Id(table.id), delete).await?;
            let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let counts =
                vec![("expired", number(cleaned.expired)), ("deleted", number(cleaned.deleted))];
            let found = (cleaned.expired > 0)
                .then(|| format!("{} files of the log have expired", cleaned.expired));
            let note = cleaned.left.map(|why| format!("left alone: {why}")).or(found);
            Ok(Told { counts, note, wrong: None })
        }
        .boxed()
    };
    each(db, plan, done, AT_A_TIME, work).await
}

pub(super) async fn vacuum(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    refuse_fast_clock(db).await?;
    let min = i64::try_from(plan.min_vacuum_retention.as_millis()).unwrap_or(i64::MAX);
    let delete = !plan.dry_run;
    let work = |table: TableRecord| {
        async move {
            let by_id = TableRef::Id(table.id);
            let head = db.snapshot(&by_id, At::Head).await?;
            if !wanted(&head.metadata, VACUUM_PROPERTY)? {
                return Ok(Told { counts: vec![("not_asked_for", 1)], ..Told::default() });
            }
            let own = stated_retention_ms(&table.name, &head.metadata)?;
            let options = VacuumOptions {
                retention_ms: Some(own.max(min)),
                delete,
                ..VacuumOptions::default()
            };
            let report =
                deltalakedb_mirror::vacuum::vacuum(db, &by_id, options, &NoProgress).await?;
            let counts = vec![
                ("unneeded", report.unneeded),
                ("unneeded_bytes", report.unneeded_bytes),
                ("deleted", report.deleted),
            ];
            let hours = report.retention_ms / 3_600_000;
            let note = format!(
                "{} of {} files are not needed, {} deleted, with a retention of {hours} h",
                report.unneeded, report.seen, report.deleted
            );
            Ok(Told { counts, note: Some(note), wrong: None })
        }
        .boxed()
    };
    each(db, plan, done, LISTED_AT_A_TIME, work).await?;
    skip_if_nobody_asked(done, VACUUM_PROPERTY);
    Ok(())
}

#[cfg(not(feature = "deltalake"))]
pub(super) async fn optimize(_: &Db, _: &MaintainPlan, done: &mut Done) -> Result<()> {
    done.skip("this program was built without its query engine, which rewrites files");
    std::future::ready(Ok(())).await
}

#[cfg(feature = "deltalake")]
pub(super) async fn optimize(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    let dry_run = plan.dry_run;
    let work = |table: TableRecord| {
        async move {
            let head = db.snapshot(&TableRef::Id(table.id), At::Head).await?;
            if !wanted(&head.metadata, OPTIMIZE_PROPERTY)? {
                return Ok(Told { counts: vec![("not_asked_for", 1)], ..Told::default() });
            }
            if dry_run {
                let note = format!("small ones of {} files would be put together", head.num_files);
                return Ok(Told { note: Some(note), ..Told::default() });
            }
            optimize_one(db, &table).await
        }
        .boxed()
    };
    // One at a time: it reads and writes rows.
    each(db, plan, done, 1, work).await?;
    skip_if_nobody_asked(done, OPTIMIZE_PROPERTY);
    Ok(())
}

/// Makes large files of a table's small ones, as one commit.
#[cfg(feature = "deltalake")]
async fn optimize_one(db: &Db, table: &TableRecord) -> Result<Told> {
    use deltalakedb_catalog_core::error::WriteState;
    use deltalakedb_log_store::explain::{Explained, operation};

    let plain = |explained: Explained| match explained {
        Explained::Catalog(error) => error,
        Explained::Engine(text) => CatalogError::failed(text, WriteState::NotApplied),
    };
    let transaction = db.transaction();
    let opened =
        transaction.table(&table.name).await.map_err(|e| plain(operation(&table.name, e)))?;
    let (_, metrics) = opened.optimize().await.map_err(|e| plain(operation(&table.name, e)))?;
    let (gone, new) = (metrics.num_files_removed, metrics.num_files_added);
    if gone == 0 {
        return Ok(Told::default());
    }
    transaction.commit_as(None).await?;
    let note = format!("{new} files in place of {gone}");
    Ok(Told { counts: vec![("removed", gone), ("added", new)], note: Some(note), wrong: None })
}

/// Whether a table asks for something. A value that says neither yes nor no is refused: a slip must not look like
/// an answer.
fn wanted(metadata: &Metadata, property: &str) -> Result<bool> {
    match metadata.property(property).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(CatalogError::invalid(format!(
            "the property {property} is '{}': it is true or false",
            other.escape_debug()
        ))),
    }
}

fn skip_if_nobody_asked(done: &mut Done, property: &str) {
    let all = done.counts.get("tables").copied().unwrap_or_default();
    if done.counts.get("not_asked_for").copied().unwrap_or_default() == all {
        done.skip(format!("no table has the property {property} = true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_says_yes_or_no_and_nothing_else() {
        let mut metadata: Metadata =
            serde_json::from_str(r#"{"id":"x","schemaString":"{}"}"#).unwrap();
        assert!(!wanted(&metadata, VACUUM_PROPERTY).unwrap());
        for (value, answer) in [
            ("true", Some(true)),
            (" TRUE ", Some(true)),
            ("false", Some(false)),
            ("", Some(false)),
            ("yes", None),
            ("1", None),
            ("ture", None),
        ] {
            metadata.configuration.insert(VACUUM_PROPERTY.into(), Some(value.into()));
            assert_eq!(wanted(&metadata, VACUUM_PROPERTY).ok(), answer, "{value}");
        }
        let e = wanted(&metadata, VACUUM_PROPERTY).unwrap_err().to_string();
        assert!(e.contains("deltalakedb.maintain.vacuum") && e.contains("ture"), "{e}");
    }
}
