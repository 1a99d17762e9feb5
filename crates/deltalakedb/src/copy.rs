//! Copies a whole catalog from one database into another, for people who outgrow the first.
//!
//! It works through [`CatalogBackend`] alone, so it works for every pair of databases. What a
//! reader or writer can see is the same at the target: tables with their ids, commits with their
//! bytes and times, the state of every version, history below an import's base, tokens, dropped
//! tables, and which versions are published. The rows of the audit and the records of the registry are copied, too.
//!
//! Not copied, as the outbox does not say it or it is of no use elsewhere: leases, the number of
//! attempts and the last error of versions that could not be published yet (they are due at once at
//! the target), and the outbox rows of versions that are published already (their digests, times).
//!
//! Each table is filled in state `Importing`, which nobody can find by name, in steps of one
//! transaction each. A copy that was killed at any moment goes on where the rows stop when it is
//! called again. Tables become `Active` (or `Dropped`) all at the end, once source and target agree;
//! only a dropped one whose name another table has, too, is finished at once to free the name.
//!
//! The source is only read. Its writers and mirror workers should be stopped for the last call:
//! what is committed there once a table is `Active` at the target is reported, not copied.
//!
//! [`CatalogBackend`]: crate::core::backend::CatalogBackend

pub(crate) mod audit;
pub(crate) mod compare;
pub(crate) mod differences;
pub(crate) mod load;
pub(crate) mod registry;
pub(crate) mod source;
pub(crate) mod survey;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deltalakedb_catalog_core::audit::action;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableName, Version};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use serde::Serialize;
use serde_json::json;

use compare::Comparer;
use differences::Differences;
use source::Source;
use survey::Survey;

/// Times that new commits of the source are looked for.
const CATCH_UP_ROUNDS: usize = 10;

/// How much of source and target is compared. History and the bytes of all commits are in any case,
/// unless it is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validate {
    /// The state at every version.
    All,
    /// The state at so many versions of each table, first and last among them.
    Sample(usize),
    /// Nothing.
    None,
}

impl Default for Validate {
    fn default() -> Self {
        Validate::Sample(5)
    }
}

/// Most that is stored in one transaction of the target, so that none grows without bound. A single
/// commit that is larger goes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Commits.
    pub commits: usize,
    /// Bytes of commits, before compression.
    pub bytes: u64,
    /// Files and tombstones of an import's base.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { commits: 500, bytes: 16 << 20, files: 10_000 }
    }
}

/// How to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// The size of the steps.
    pub limits: Limits,
    /// What to compare before tables become active.
    pub validate: Validate,
    /// Leave out tables that an unfinished import holds at the source, instead of refusing.
    pub skip_importing: bool,
    /// Make the tables active at the end. Without it a later call catches up and does: the source
    /// can be in use until then.
    pub finish: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        CopyOptions {
            limits: Limits::default(),
            validate: Validate::default(),
            skip_importing: false,
            finish: true,
        }
    }
}

/// How far a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progressed {
    /// This call finished it.
    Copied,
    /// It was finished before.
    Present,
    /// It is stored up to the head, and not finished.
    Loaded,
    /// It cannot be copied: its differences say why.
    Refused,
}

/// One table of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableCopy {
    /// Id, the same on both sides.
    pub table_id: TableId,
    /// Name at the source.
    pub name: TableName,
    /// State at the source.
    pub state: TableState,
    /// First readable version.
    pub base_version: Version,
    /// Head at the source.
    pub head: Option<Version>,
    /// How far it is.
    pub progress: Progressed,
    /// Whether this call continued what another one began.
    pub resumed: bool,
    /// Commits that this call stored.
    pub commits: u64,
    /// Versions whose whole state was compared.
    pub compared_versions: u64,
    /// Number of differences between source and target.
    pub num_differences: usize,
    /// The first of them.
    pub differences: Vec<String>,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// Whether every table is finished at the target.
    pub finished: bool,
    /// Commits that this call stored.
    pub commits: u64,
    /// Tables of the source, by name.
    pub tables: Vec<TableCopy>,
    /// Tables that were left out: an unfinished import holds them at the source.
    pub skipped: Vec<TableName>,
}

impl CopyReport {
    /// Whether no table differs.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.tables.iter().all(|table| table.num_differences == 0)
    }
}

/// Copies a catalog, or goes on with a copy that was interrupted, or compares one that is complete.
///
/// Differences between source and target are no errors: the report lists them. While there are
/// any, no table becomes active.
///
/// # Errors
/// * `Schema`: source or target is not initialised.
/// * `InvalidInput`: the target holds tables, or records in its registry, that are not the source's; the source has
///   unfinished imports; the source does not stop changing.
/// * `Unsupported`: the source has records in its registry, and the target's database keeps none.
/// * `Corrupt`: stored bytes of the source contradict its rows.
/// * `Unavailable`: a database does not answer. The same call goes on.
pub async fn copy_catalog(
    from: &Catalog,
    to: &Catalog,
    options: &CopyOptions,
    progress: &dyn Progress,
) -> Result<CopyReport> {
    // What is copied and compared is what is in the rows.
    let (from, to) = (&from.clone().on_primary(), &to.clone().on_primary());
    survey::require_catalog(from, "source").await?;
    survey::require_catalog(to, "target").await?;
    // Before anything is written.
    if let Some(registry) = registry::read(from).await? {
        registry::check(to, &registry).await?;
    }
    let mut run = Run { from, to, options, progress, tables: BTreeMap::new() };
    let mut rounds = 0;
    loop {
        let survey = Survey::take(from, to, options.skip_importing).await?;
        if run.load(&survey).await? {
            rounds += 1;
            if rounds < CATCH_UP_ROUNDS {
                continue;
            }
            if options.finish {
                return Err(CatalogError::invalid(
                    "the source does not stop changing: everything up to now is stored, and no \
                     table is active yet. Stop the writers of the source, then run the same \
                     command again",
                ));
            }
            // A later call catches up, and compares.
            return Ok(run.report(false, survey.skipped));
        }
        if run.compare(&survey).await? && options.finish {
            // That took its time: the source may have gone on.
            continue;
        }
        let finished = options.finish && run.agrees() && run.finish(&survey).await?;
        let report = run.report(finished, survey.skipped);
        if finished {
            audit::copy(from, to).await?;
            if let Some(registry) = registry::read(from).await? {
                registry::put(to, &registry).await?;
            }
        }
        if finished && report.commits > 0 {
            let detail = json!({ "tables": report.tables.len(), "commits": report.commits });
            to.record(action::COPY, None, &detail).await?;
        }
        return Ok(report);
    }
}

/// A copy at work.
struct Run<'a> {
    from: &'a Catalog,
    to: &'a Catalog,
    options: &'a CopyOptions,
    progress: &'a dyn Progress,
    tables: BTreeMap<TableId, Entry>,
}

/// What this call knows of a table.
struct Entry {
    report: TableCopy,
    differences: Differences,
    /// The source's row that it was compared with.
    compared: Option<TableRecord>,
}

impl Run<'_> {
    fn entry(&mut self, record: &TableRecord) -> &mut Entry {
        let entry = self.tables.entry(record.id).or_insert_with(|| Entry {
            report: TableCopy {
                table_id: record.id,
                name: record.name.clone(),
                state: record.state,
                base_version: record.base_version,
                head: record.head,
                progress: Progressed::Present,
                resumed: false,
                commits: 0,
                compared_versions: 0,
                num_differences: 0,
                differences: Vec::new(),
            },
            differences: Differences::default(),
            compared: None,
        });
        entry.report.name.clone_from(&record.name);
        entry.report.state = record.state;
        entry.report.base_version = record.base_version;
        entry.report.head = record.head;
        entry
    }

    fn agrees(&self) -> bool {
        self.tables.values().all(|entry| entry.differences.is_empty())
    }

    /// Stores what the source has and the target lacks. True if there was anything.
    async fn load(&mut self, survey: &Survey) -> Result<bool> {
        let total = survey.missing_commits();
        let mut any = false;
        // What is registered otherwise by now begins anew; first of all, as names may have moved.
        let mut begun: HashMap<TableId, &TableRecord> = HashMap::new();
        for record in &survey.source {
            let Some(copy) = survey.target.get(&record.id) else { continue };
            if copy.state != TableState::Importing || load::continues(record, copy) {
                begun.insert(record.id, copy);
            } else {
                load::abort(self.to, record.id).await?;
            }
        }
        self.progress.begin("Copying", "commits", Some(total));
        for record in &survey.source {
            let before = self.entry(record).report.progress;
            let copy = begun.get(&record.id).copied();
            if before == Progressed::Refused || survey.is_finished(record) {
                continue;
            }
            // Of two tables with one name at the source, one was dropped: it has been finished.
            if let Some(other) = survey.name_taken(record) {
                let entry = self.entry(record);
                entry.report.progress = Progressed::Refused;
                entry.differences.add(|| {
                    format!(
                        "its name belongs to table {other} at the target, which the source has \
                         dropped or renamed since it was copied"
                    )
                });
                continue;
            }
            // A dropped table may still be brought back: unless it is in the way, it waits too.
            let at_once = record.state == TableState::Dropped && survey.shares_name(record);
            if !at_once && copy.is_some_and(|copy| copy.head == record.head) {
                let entry = self.entry(record);
                if entry.report.progress == Progressed::Present {
                    entry.report.progress = Progressed::Loaded;
                    entry.report.resumed = true;
                }
                continue;
            }
            let source = Source::open(self.from, record, self.options.limits).await?;
            let loaded = load::load(&source, self.to, record, self.progress).await?;
            any = true;
            if at_once {
                load::finish(self.to, record).await?;
            }
            let entry = self.entry(record);
            entry.report.commits = entry.report.commits.saturating_add(loaded.commits);
            if before == Progressed::Present {
                entry.report.resumed = loaded.resumed;
            }
            entry.report.progress = if at_once { Progressed::Copied } else { Progressed::Loaded };
        }
        self.progress.end();
        Ok(any)
    }

    /// Compares what has not been compared in this state yet. True if there was anything.
    async fn compare(&mut self, survey: &Survey) -> Result<bool> {
        let copied: BTreeSet<TableId> = survey.source.iter().map(|record| record.id).collect();
        let total = u64::try_from(survey.source.len()).ok();
        let mut any = false;
        self.progress.begin("Comparing", "tables", total);
        for record in &survey.source {
            self.progress.advance(1);
            let Some(copy) = survey.target.get(&record.id) else { continue };
            let entry = self.entry(record);
            if entry.report.progress == Progressed::Refused
                || entry.compared.as_ref().is_some_and(|seen| same_content(seen, record))
            {
                continue;
            }
            let comparer = Comparer { from: self.from, to: self.to, copied: &copied };
            let compared = comparer.table(record, copy, self.options.validate).await?;
            let entry = self.entry(record);
            entry.differences = compared.differences;
            entry.report.compared_versions = compared.versions;
            entry.compared = Some(record.clone());
            any = true;
        }
        self.progress.end();
        Ok(any)
    }

    /// Makes the tables active. False if the source went on meanwhile.
    async fn finish(&mut self, survey: &Survey) -> Result<bool> {
        for record in &survey.source {
            if survey.is_finished(record) {
                continue;
            }
            let finished = load::finish(self.to, record).await?;
            let entry = self.entry(record);
            entry.report.progress = Progressed::Copied;
            compare::records(&mut entry.differences, record, &finished);
            compare::publishing(&mut entry.differences, record, &finished);
        }
        let after = Survey::take(self.from, self.to, true).await?;
        for record in &after.source {
            let known = survey.source.iter().find(|known| known.id == record.id);
            if known.is_some_and(|known| same_content(known, record)) {
                continue;
            }
            let entry = self.entry(record);
            if known.is_none() {
                entry.report.progress = Progressed::Refused;
            }
            entry.differences.add(|| {
                format!(
                    "the source has changed while its tables became active at the target: it is \
                     {} at version {} now. What is new there is not copied",
                    record.state.as_str(),
                    differences::version(record.head)
                )
            });
        }
        Ok(self.agrees())
    }

    fn report(self, finished: bool, skipped: Vec<TableName>) -> CopyReport {
        let mut tables: Vec<TableCopy> = self
            .tables
            .into_values()
            .map(|entry| {
                let mut report = entry.report;
                (report.num_differences, report.differences) = entry.differences.into_parts();
                report
            })
            .collect();
        tables.sort_by(|a, b| (&a.name, a.table_id).cmp(&(&b.name, b.table_id)));
        let commits = tables.iter().fold(0, |sum, table| table.commits.saturating_add(sum));
        CopyReport { finished, commits, tables, skipped }
    }
}

/// Whether a table of the source holds the same as before. Publishing may go on: it writes nothing
/// that a copy would lack.
fn same_content(before: &TableRecord, now: &TableRecord) -> bool {
    let content = |record: &TableRecord| TableRecord { published_version: None, ..record.clone() };
    content(before) == content(now)
}
