//! Makes tables of a backup.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use deltalakedb_catalog_core::audit::action;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_mirror::log::listing::LogName;
use deltalakedb_mirror::sink::open_sink;
use serde_json::json;

use super::compare::Comparer;
use super::format::TableEntry;
use super::moment::{self, Moment};
use super::place::{Listing, Place, Set};
use super::read::Chain;
use super::report::{Notice, RestoreReport};
use super::set::SetId;
use crate::copy::compare::{publishing, records};
use crate::copy::differences::Differences;
use crate::copy::survey::{listed, require_catalog, tables};
use crate::copy::{Limits, Progressed, TableCopy, Validate};
use crate::copy::{audit, load, registry};

/// What to restore, and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The set; none = the newest one, or the one that `at` needs.
    pub set: Option<SetId>,
    /// The state at this time; none = when the set was taken.
    pub at: Option<TimestampMs>,
    /// Tables; none = all.
    pub tables: Vec<TableRef>,
    /// Restore into a catalog that holds other tables. None of them is changed.
    pub into_existing: bool,
    /// Publish as when it was backed up, without a look at the logs. A log that is known to be ahead is
    /// not published to in any case.
    pub keep_publishing: bool,
    /// What to compare before tables become active.
    pub validate: Validate,
    /// The size of the steps.
    pub limits: Limits,
}

/// Restores a backup, or goes on with a restore that was interrupted, or compares one that is complete.
///
/// Tables come back with their ids, names, histories, tokens and states. None can be found by name
/// before all were compared with the backup and agree. No table that is there is changed: it is
/// compared, if the backup has it. Differences are no errors: the report lists them.
///
/// A table whose published log is ahead of what was restored, or cannot be looked at, is `Diverged`:
/// it takes commits, and none is published until a person has decided (`dl repair`).
///
/// # Errors
/// * `Schema`: the catalog is not initialised.
/// * `InvalidInput`: there is no such set, time or table; the catalog holds other tables, or other records in its
///   registry.
/// * `Corrupt`: the backup is damaged. Nothing of a damaged table becomes active.
/// * `Unavailable`: database or store do not answer. The same call goes on.
pub async fn restore(
    place: &Place,
    to: &Catalog,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let to = &to.clone().on_primary();
    require_catalog(to, "catalog").await?;
    let listing = place.list().await?;
    let set = choose(place, &listing, options)?;
    let chain = Chain::open(place, listing.chain(set.id())?).await?;
    // All objects of the audit are read once before anything is written: of a backup that is damaged nothing becomes
    // active.
    let with_audit = audit::is_kept(to).await?;
    if with_audit {
        for segment in chain.audit() {
            chain.audit_rows(segment).await?;
        }
    }
    // It belongs to the catalog as a whole, and is as the set has it, whatever the time. What the catalog's own has is not
    // overwritten.
    let registry = if options.tables.is_empty() { chain.registry().await? } else { None };
    if let Some(registry) = &registry {
        registry::check(to, registry).await?;
    }
    let mut left_out: Vec<Notice> = set
        .manifest
        .left_out
        .iter()
        .map(|name| Notice {
            name: name.clone(),
            why: "its import was not finished when it was backed up".to_owned(),
        })
        .collect();
    let Moment { tables: mut wanted, left_out: later, mut notes } = match options.at {
        Some(time) => moment::at(&chain, time).await?,
        None => Moment { tables: chain.tables.clone(), ..Moment::default() },
    };
    left_out.extend(later);
    if !options.tables.is_empty() {
        wanted = selected(wanted, &options.tables, &left_out)?;
        left_out.clear();
        notes.retain(|note| wanted.iter().any(|entry| entry.record.name == note.name));
    }
    let mut run =
        Run { to, options, progress, chain, entries: BTreeMap::new(), paused: Vec::new() };
    let target = run.target(&wanted).await?;
    let wanted = run.with_mirrors(wanted, &target).await?;
    run.load(&wanted, &target).await?;
    run.compare(&wanted).await?;
    let finished = run.agrees() && run.finish(&wanted).await?;
    if finished && with_audit {
        run.audit(&wanted).await?;
    }
    if let Some(registry) = registry.filter(|_| finished) {
        registry::put(to, &registry).await?;
    }
    let up_to = options.at.unwrap_or(set.manifest.taken_at);
    if finished {
        let detail = json!({ "set": set.id().to_string(), "up_to_ms": up_to.0 });
        to.record(action::RESTORE, None, &detail).await?;
    }
    let report = run.report(set.id().clone(), up_to, finished);
    Ok(RestoreReport { left_out, notes, ..report })
}

/// The set to restore from.
fn choose<'l>(place: &Place, listing: &'l Listing, options: &RestoreOptions) -> Result<&'l Set> {
    let set = match (&options.set, options.at) {
        (Some(set), _) => Some(listing.get(set)?),
        (None, None) => listing.newest(),
        (None, Some(time)) => {
            let whole = |set: &&Set| set.broken.is_none();
            listing.sets.iter().filter(whole).find(|set| set.manifest.taken_at >= time)
        }
    };
    let Some(set) = set.or_else(|| listing.newest()) else {
        return Err(CatalogError::invalid(format!(
            "there is no backup in '{}': see `dl backup list`",
            place.describe()
        )));
    };
    match options.at {
        Some(time) if time > set.manifest.taken_at => Err(CatalogError::invalid(format!(
            "set {} has what was committed before {}, not what followed: restore an earlier time, or \
             the whole set without --at",
            set.id(),
            shown(set.manifest.taken_at)
        ))),
        _ => Ok(set),
    }
}

/// A time, for messages.
pub(super) fn shown(time: TimestampMs) -> String {
    use chrono::{SecondsFormat, TimeZone, Utc};
    let time = Utc.timestamp_millis_opt(time.0).single().unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The tables that were asked for.
fn selected(
    tables: Vec<Arc<TableEntry>>,
    wanted: &[TableRef],
    left_out: &[Notice],
) -> Result<Vec<Arc<TableEntry>>> {
    let mut ids = BTreeSet::new();
    for table in wanted {
        let is_it = |entry: &&Arc<TableEntry>| match table {
            TableRef::Id(id) => entry.record.id == *id,
            TableRef::Name(name) => {
                entry.record.name == *name && entry.record.state == TableState::Active
            }
        };
        let Some(found) = tables.iter().find(is_it) else {
            let why = left_out.iter().find(|left| TableRef::Name(left.name.clone()) == *table);
            return Err(CatalogError::invalid(match why {
                Some(left) => format!("table '{table}' cannot be restored: {}", left.why),
                None => format!(
                    "the backup has no table '{table}' (one that was dropped is named by its id)"
                ),
            }));
        };
        ids.insert(found.record.id);
    }
    Ok(tables.into_iter().filter(|entry| ids.contains(&entry.record.id)).collect())
}

/// A restore at work.
struct Run<'a> {
    to: &'a Catalog,
    options: &'a RestoreOptions,
    progress: &'a dyn Progress,
    chain: Arc<Chain>,
    entries: BTreeMap<TableId, (TableCopy, Differences)>,
    paused: Vec<Notice>,
}

/// Tables of the catalog.
struct Target {
    tables: HashMap<TableId, TableRecord>,
    names: HashMap<TableName, TableId>,
}

impl Run<'_> {
    /// Looks at the catalog.
    async fn target(&self, wanted: &[Arc<TableEntry>]) -> Result<Target> {
        let mut target = Target { tables: HashMap::new(), names: HashMap::new() };
        let ours: BTreeSet<TableId> = wanted.iter().map(|entry| entry.record.id).collect();
        for state in [TableState::Active, TableState::Importing, TableState::Dropped] {
            for table in tables(self.to, state).await? {
                // Our own unfinished tables give their names up in their order.
                let begun = state == TableState::Importing && ours.contains(&table.id);
                if state != TableState::Dropped && !begun {
                    target.names.insert(table.name.clone(), table.id);
                }
                target.tables.insert(table.id, table);
            }
        }
        let mut foreign: Vec<String> = target
            .tables
            .values()
            .filter(|table| !ours.contains(&table.id))
            .map(|table| format!("{} ({}, {})", table.name, table.id, table.state.as_str()))
            .collect();
        if foreign.is_empty() || self.options.into_existing {
            return Ok(target);
        }
        foreign.sort();
        Err(CatalogError::invalid(format!(
            "the catalog holds other tables: {}. Restore into an empty catalog, or one that this restore \
             has begun; with --into-existing, tables that are absent are restored beside these, and \
             none of these is changed",
            listed(foreign.into_iter())
        )))
    }

    /// Decides how each table is published.
    async fn with_mirrors(
        &mut self,
        wanted: Vec<Arc<TableEntry>>,
        target: &Target,
    ) -> Result<Vec<Arc<TableEntry>>> {
        let mut decided = Vec::with_capacity(wanted.len());
        self.progress.begin("Looking at logs", "tables", u64::try_from(wanted.len()).ok());
        for mut entry in wanted {
            self.progress.advance(1);
            let record = &entry.record;
            let there = target.tables.get(&record.id);
            if let Some(there) = there.filter(|there| there.state != TableState::Importing) {
                // A finished table has its own mirror by now.
                Arc::make_mut(&mut entry).record.mirror = there.mirror;
            } else if record.mirror == MirrorMode::Active
                && let Some(why) = ahead(record, &self.chain, !self.options.keep_publishing).await
            {
                self.paused.push(Notice { name: record.name.clone(), why });
                Arc::make_mut(&mut entry).record.mirror = MirrorMode::Diverged;
            }
            decided.push(entry);
        }
        self.progress.end();
        Ok(decided)
    }

    fn entry(&mut self, record: &TableRecord) -> &mut (TableCopy, Differences) {
        self.entries.entry(record.id).or_insert_with(|| {
            let copy = TableCopy {
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
            };
            (copy, Differences::default())
        })
    }

    fn agrees(&self) -> bool {
        self.entries.values().all(|(_, differences)| differences.is_empty())
    }

    async fn load(&mut self, wanted: &[Arc<TableEntry>], target: &Target) -> Result<()> {
        let mut uses: HashMap<&TableName, usize> = HashMap::new();
        for entry in wanted {
            *uses.entry(&entry.record.name).or_default() += 1;
        }
        let total: u64 = wanted.iter().fold(0, |sum, entry| {
            let head = entry.record.head.map_or(0, |head| head.get().saturating_add(1));
            sum.saturating_add(u64::try_from(head).unwrap_or(0))
        });
        self.progress.begin("Restoring", "commits", Some(total));
        for entry in wanted {
            let record = &entry.record;
            let there = target.tables.get(&record.id);
            if there.is_some_and(|there| there.state != TableState::Importing) {
                self.entry(record);
                continue;
            }
            let name = target.names.get(&record.name);
            if let Some(other) = name.filter(|other| **other != record.id) {
                let (copy, differences) = self.entry(record);
                copy.progress = Progressed::Refused;
                differences.add(|| {
                    format!(
                        "its name belongs to table {other} of the catalog, which is not changed: rename \
                         or drop that one, or restore into another catalog"
                    )
                });
                continue;
            }
            if let Some(there) = there.filter(|there| !load::continues(record, there)) {
                load::abort(self.to, there.id).await?;
            }
            let stored = self.chain.table(record, entry.from_json, self.options.limits)?;
            let loaded = load::load(&stored, self.to, record, self.progress).await?;
            // Of two tables with one name, one was dropped: it is finished at once, to free the name.
            let at_once = record.state == TableState::Dropped
                && uses.get(&record.name).is_some_and(|uses| *uses > 1);
            if at_once {
                load::finish(self.to, record).await?;
            }
            let (copy, _) = self.entry(record);
            copy.commits = loaded.commits;
            copy.resumed = loaded.resumed;
            copy.progress = if at_once { Progressed::Copied } else { Progressed::Loaded };
        }
        self.progress.end();
        Ok(())
    }

    async fn compare(&mut self, wanted: &[Arc<TableEntry>]) -> Result<()> {
        self.progress.begin("Comparing", "tables", u64::try_from(wanted.len()).ok());
        for entry in wanted {
            self.progress.advance(1);
            let record = &entry.record;
            if self.entry(record).0.progress == Progressed::Refused {
                continue;
            }
            let Some(copy) = load::find(self.to, record.id).await? else {
                self.entry(record).1.add(|| "it went away while it was restored".to_owned());
                continue;
            };
            let stored = self.chain.table(record, entry.from_json, self.options.limits)?;
            let comparer = Comparer { to: self.to, validate: self.options.validate };
            let compared = comparer.table(&stored, record, &copy).await?;
            let (report, differences) = self.entry(record);
            report.compared_versions = compared.versions;
            *differences = compared.differences;
        }
        self.progress.end();
        Ok(())
    }

    /// Makes the tables active.
    async fn finish(&mut self, wanted: &[Arc<TableEntry>]) -> Result<bool> {
        for entry in wanted {
            let record = &entry.record;
            if self.entry(record).0.progress != Progressed::Loaded {
                continue;
            }
            let finished = load::finish(self.to, record).await?;
            let mut expected = record.clone();
            // Compared before, and not in the row of a set that was taken later.
            expected.head_timestamp = finished.head_timestamp;
            expected.barrier_version = finished.barrier_version;
            let (report, differences) = self.entry(record);
            report.progress = Progressed::Copied;
            records(differences, &expected, &finished);
            publishing(differences, &expected, &finished);
        }
        Ok(self.agrees())
    }

    /// Brings the rows of the audit back, up to the time that is restored. Of tables that were chosen only those
    /// about them.
    async fn audit(&self, wanted: &[Arc<TableEntry>]) -> Result<()> {
        let ids: BTreeSet<TableId> = wanted.iter().map(|entry| entry.record.id).collect();
        let all = self.options.tables.is_empty();
        for segment in self.chain.audit() {
            for row in self.chain.audit_rows(segment).await? {
                let in_time = self.options.at.is_none_or(|at| row.entry.at <= at);
                if in_time && (all || row.entry.table_id.is_some_and(|id| ids.contains(&id))) {
                    audit::put(self.to, row).await?;
                }
            }
        }
        Ok(())
    }

    fn report(self, set: SetId, up_to: TimestampMs, finished: bool) -> RestoreReport {
        let mut tables: Vec<TableCopy> = self
            .entries
            .into_values()
            .map(|(mut report, differences)| {
                (report.num_differences, report.differences) = differences.into_parts();
                report
            })
            .collect();
        tables.sort_by(|a, b| (&a.name, a.table_id).cmp(&(&b.name, b.table_id)));
        let commits = tables.iter().fold(0, |sum, table| table.commits.saturating_add(sum));
        RestoreReport {
            set,
            up_to,
            finished,
            commits,
            tables,
            left_out: Vec::new(),
            paused: self.paused,
            notes: Vec::new(),
        }
    }
}

/// Why a table's log must not be written to before a person has looked at it; none = it holds nothing
/// after the table's head.
///
/// Putting is never overwriting, but that is not enough: a log whose early commits were cleaned up has
/// room where an older state would put its next ones.
async fn ahead(record: &TableRecord, chain: &Chain, look: bool) -> Option<String> {
    let head = record.head.unwrap_or(Version::ZERO);
    let published = chain
        .tables
        .iter()
        .find(|entry| entry.record.id == record.id)
        .and_then(|entry| entry.record.published_version);
    if let Some(published) = published.filter(|published| *published > head) {
        return Some(format!(
            "its log had version {published} when it was backed up, and {head} was restored"
        ));
    }
    if !look {
        return None;
    }
    let looked = async {
        let sink = open_sink(&record.location, &record.storage_options)?;
        let last = format!("{}.json", head.padded());
        sink.list(Some(&last)).await
    };
    match looked.await {
        Ok(found) => {
            let last = found.iter().filter_map(|entry| match LogName::parse(&entry.name) {
                LogName::Commit(version)
                | LogName::Checksum(version)
                | LogName::Checkpoint(version)
                | LogName::CheckpointPart { version, .. }
                | LogName::UuidCheckpoint { version, .. } => Some(version),
                _ => None,
            });
            let last = last.max().filter(|last| *last > head)?;
            Some(format!("its log is at version {last}, and {head} was restored"))
        }
        Err(error) => Some(format!("its log cannot be looked at: {error}")),
    }
}
