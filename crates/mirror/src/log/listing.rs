//! The files of a `_delta_log/` and the chain that a table is read from (protocol sections "Delta
//! Log Entries", "Checkpoints" and "Last Checkpoint File").
//!
//! Only what stands directly in the folder counts, and only names that the protocol defines; all
//! else (temporary files, checksums of file systems, compacted commits) is passed over. The folder
//! is listed whole, so stores whose listings ignore an offset are no special case.
//! `_last_checkpoint` is never read: it is a hint that may be old, wrong or broken, and a complete
//! listing makes it superfluous.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::commits::CommitFile;
use super::read_error;
use crate::store::LogDir;

/// Digits of a version in a file name.
const VERSION_DIGITS: usize = 20;
/// Digits of a part number in the name of a multi-part checkpoint.
const PART_DIGITS: usize = 10;
/// More parts than this are taken for a forged name.
const MAX_PARTS: u32 = 1_000_000;

/// Folder of a log with the sidecars of V2 checkpoints (protocol section "Sidecar Files").
pub(crate) const SIDECARS: &str = "_sidecars/";

/// What the name of a file in `_delta_log/` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogName {
    /// `N.json`
    Commit(Version),
    /// `N.checkpoint.parquet`: V1, or a V2 checkpoint under the classic name.
    Checkpoint(Version),
    /// `N.checkpoint.i.n.parquet`: part `i` (from 1) of `n`.
    CheckpointPart {
        /// Version.
        version: Version,
        /// This part, from 1.
        part: u32,
        /// Number of parts.
        parts: u32,
    },
    /// `N.checkpoint.<uuid>.parquet` or `.json`
    UuidCheckpoint {
        /// Version.
        version: Version,
        /// Whether the manifest is JSON.
        json: bool,
    },
    /// `_sidecars/…`: files of a V2 checkpoint. Names are the writer's own choice; those of ours (and
    /// of Spark) begin with `N.checkpoint.` and belong to checkpoints of version N only.
    Sidecar(Option<Version>),
    /// `N.crc`
    Checksum(Version),
    /// `N.M.compacted.json`: never needed, as the commits it stands for are kept as long.
    Compacted,
    /// `_last_checkpoint`
    LastCheckpoint,
    /// Anything else.
    Other,
}

impl LogName {
    /// Reads a name relative to the log folder.
    #[must_use]
    pub fn parse(name: &str) -> LogName {
        if name == "_last_checkpoint" {
            return LogName::LastCheckpoint;
        }
        if let Some(name) = name.strip_prefix(SIDECARS) {
            let version = name.split_once(".checkpoint.").and_then(|(n, _)| parse_version(n));
            return LogName::Sidecar(version);
        }
        let Some((digits, rest)) = name.split_once('.') else { return LogName::Other };
        let Some(version) = parse_version(digits) else { return LogName::Other };
        match rest {
            "json" => return LogName::Commit(version),
            "crc" => return LogName::Checksum(version),
            "checkpoint.parquet" => return LogName::Checkpoint(version),
            _ => {}
        }
        if let Some(end) = rest.strip_suffix(".compacted.json") {
            return match parse_version(end) {
                Some(_) => LogName::Compacted,
                None => LogName::Other,
            };
        }
        let Some(rest) = rest.strip_prefix("checkpoint.") else { return LogName::Other };
        let pieces: Vec<&str> = rest.split('.').collect();
        match pieces.as_slice() {
            [part, parts, "parquet"] => match (parse_part(part), parse_part(parts)) {
                (Some(part), Some(parts)) if (1..=parts).contains(&part) => {
                    LogName::CheckpointPart { version, part, parts }
                }
                _ => LogName::Other,
            },
            [id, kind @ ("parquet" | "json")] if uuid::Uuid::try_parse(id).is_ok() => {
                LogName::UuidCheckpoint { version, json: *kind == "json" }
            }
            _ => LogName::Other,
        }
    }
}

fn parse_version(digits: &str) -> Option<Version> {
    if digits.len() != VERSION_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok().and_then(|v| Version::new(v).ok())
}

fn parse_part(digits: &str) -> Option<u32> {
    if digits.len() != PART_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u32>().ok().filter(|n| *n <= MAX_PARTS)
}

/// How a checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// One Parquet file with the classic name (its content may be V1 or V2).
    Classic,
    /// V2, Parquet manifest with a UUID in its name.
    V2Parquet,
    /// V2, JSON manifest with a UUID in its name.
    V2Json,
    /// V1 in several Parquet files.
    MultiPart,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Where it is.
    pub path: Path,
    /// Size, bytes.
    pub size: u64,
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFiles {
    /// Version whose state it holds.
    pub version: Version,
    /// How it is stored.
    pub kind: CheckpointKind,
    /// Its file, or all of its parts in order. Sidecars are named inside.
    pub files: Vec<CheckpointFile>,
    /// Modification time of the youngest file.
    pub modified: TimestampMs,
}

impl CheckpointFiles {
    /// Name of its (first) file, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.files.first().and_then(|f| f.path.filename()).unwrap_or_default()
    }
}

/// Everything in a `_delta_log/` that the protocol gives a meaning.
#[derive(Debug, Clone, Default)]
pub struct LogListing {
    /// The folder.
    pub log_dir: LogDir,
    /// Commits by version, ascending.
    pub commits: Vec<CommitFile>,
    /// Complete checkpoints by version; several forms of one version are sorted by kind.
    pub checkpoints: BTreeMap<Version, Vec<CheckpointFiles>>,
    /// Versions with a checksum file.
    pub checksums: BTreeSet<Version>,
    /// Multi-part checkpoints of which parts are missing: ignored, as the protocol asks.
    pub incomplete_checkpoints: Vec<Version>,
    /// Whether `_last_checkpoint` exists.
    pub has_last_checkpoint: bool,
}

/// From where a table's state starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// From commit 0.
    Json,
    /// From a checkpoint.
    Checkpoint(CheckpointFiles),
}

impl Base {
    /// Name of its (first) file, for people; of commits that of the folder's first.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Base::Json => format!("{}.json", Version::ZERO.padded()),
            Base::Checkpoint(files) => files.name().to_owned(),
        }
    }

    /// Version whose state it is.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Base::Json => Version::ZERO,
            Base::Checkpoint(files) => files.version,
        }
    }
}

/// What a reader wants of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainOptions {
    /// Last version to read; none = the head.
    pub up_to: Option<Version>,
    /// Start from the newest checkpoint and read nothing below it.
    pub checkpoint_only: bool,
    /// Only this base will do (an interrupted import continues): version, and whether from JSON.
    pub base: Option<(Version, bool)>,
}

/// How to read a table: a base, and every commit after it without a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Last version of the chain.
    pub head: Version,
    /// Last version of the log; above `head` where a reader asked for less.
    pub log_head: Version,
    /// Where the state may start, best first; the others stand in if its files cannot be read.
    pub bases: Vec<Base>,
    /// All commits up to the head: those above the base make the chain, the others are history.
    pub commits: Vec<CommitFile>,
}

impl Chain {
    /// Commits that are applied to a base of this version.
    #[must_use]
    pub fn applied(&self, base: &Base) -> &[CommitFile] {
        let start = match base {
            Base::Json => 0,
            Base::Checkpoint(files) => self.commits.partition_point(|c| c.version <= files.version),
        };
        self.commits.get(start..).unwrap_or_default()
    }

    /// Commits at or below a base: history whose state is not known. There may be gaps in it.
    #[must_use]
    pub fn history(&self, base: &Base) -> &[CommitFile] {
        match base {
            Base::Json => &[],
            Base::Checkpoint(files) => {
                let end = self.commits.partition_point(|c| c.version <= files.version);
                self.commits.get(..end).unwrap_or_default()
            }
        }
    }
}

impl LogListing {
    /// Lists `log_dir`. A folder that does not exist gives an empty listing.
    ///
    /// # Errors
    /// `Unavailable` if the store cannot be reached or refuses.
    pub async fn read(store: &Arc<dyn ObjectStore>, log_dir: &LogDir) -> Result<LogListing> {
        let found = match store.list_with_delimiter(Some(&log_dir.path)).await {
            Ok(found) => found.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(read_error(&format!("the folder '{log_dir}'"), &e)),
        };
        Ok(LogListing::from_objects(log_dir.clone(), found))
    }

    /// Makes sense of listed objects, in any order; those not directly in `log_dir` are ignored.
    #[must_use]
    pub fn from_objects(
        log_dir: impl Into<LogDir>,
        objects: impl IntoIterator<Item = ObjectMeta>,
    ) -> LogListing {
        let log_dir = log_dir.into();
        let files = objects.into_iter().filter_map(|object| {
            let name = direct_child(&log_dir.path, &object.location)?;
            Some((name, object.size, modified(&object)))
        });
        let files: Vec<_> = files.collect();
        LogListing::from_files(log_dir, files)
    }

    /// Makes sense of names in the folder, in any order, with size and modification time.
    pub(super) fn from_files(
        log_dir: LogDir,
        files: impl IntoIterator<Item = (String, u64, TimestampMs)>,
    ) -> LogListing {
        let mut listing = LogListing { log_dir, ..LogListing::default() };
        let mut parts: BTreeMap<(Version, u32), BTreeMap<u32, Part>> = BTreeMap::new();
        for (name, size, modified) in files {
            let found = LogName::parse(&name);
            if let LogName::Commit(version) = found {
                listing.commits.push(CommitFile { version, size, modified });
                continue;
            }
            // As the store has it: nothing in the name is written in another way.
            let Ok(path) = Path::parse(format!("{}/{name}", listing.log_dir.path)) else {
                continue;
            };
            let file = (CheckpointFile { path, size }, modified);
            match found {
                LogName::Checkpoint(version) => {
                    listing.add_checkpoint(version, CheckpointKind::Classic, vec![file]);
                }
                LogName::UuidCheckpoint { version, json } => {
                    let kind =
                        if json { CheckpointKind::V2Json } else { CheckpointKind::V2Parquet };
                    listing.add_checkpoint(version, kind, vec![file]);
                }
                LogName::CheckpointPart { version, part, parts: of } => {
                    parts.entry((version, of)).or_default().insert(part, file);
                }
                LogName::Checksum(version) => {
                    listing.checksums.insert(version);
                }
                LogName::LastCheckpoint => listing.has_last_checkpoint = true,
                LogName::Commit(_) | LogName::Compacted | LogName::Sidecar(_) | LogName::Other => {}
            }
        }
        for ((version, of), found) in parts {
            // Part numbers lie between 1 and `of`, so the count alone tells completeness.
            if u32::try_from(found.len()).is_ok_and(|n| n == of) {
                let files = found.into_values().collect();
                listing.add_checkpoint(version, CheckpointKind::MultiPart, files);
            } else {
                listing.incomplete_checkpoints.push(version);
            }
        }
        listing.commits.sort_by_key(|c| c.version);
        listing.commits.dedup_by_key(|c| c.version);
        for forms in listing.checkpoints.values_mut() {
            forms.sort_by(|a, b| (a.kind, a.name()).cmp(&(b.kind, b.name())));
        }
        listing
    }

    fn add_checkpoint(&mut self, version: Version, kind: CheckpointKind, files: Vec<Part>) {
        let modified = files.iter().map(|(_, modified)| *modified).max().unwrap_or_default();
        let files = files.into_iter().map(|(file, _)| file).collect();
        self.checkpoints.entry(version).or_default().push(CheckpointFiles {
            version,
            kind,
            files,
            modified,
        });
    }

    /// Whether nothing here makes a table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.checkpoints.is_empty()
    }

    /// Latest version: of the last commit, or of a later checkpoint whose commits are gone.
    #[must_use]
    pub fn head(&self) -> Option<Version> {
        let commit = self.commits.last().map(|c| c.version);
        let checkpoint = self.checkpoints.last_key_value().map(|(v, _)| *v);
        commit.max(checkpoint)
    }

    /// Decides how to read the table.
    ///
    /// Commits that reach back to version 0 are replayed from there. Else the state starts from a
    /// complete checkpoint after which no commit is missing: the lowest such one, which keeps the
    /// most versions readable.
    ///
    /// # Errors
    /// `InvalidInput` if this is no Delta table, or it has no such version; `Corrupt` for a gap
    /// that no checkpoint bridges.
    pub fn chain(&self, options: ChainOptions) -> Result<Chain> {
        let Some(log_head) = self.head() else {
            return Err(CatalogError::invalid(format!(
                "not a Delta table: '{}' has neither a commit nor a checkpoint",
                self.log_dir
            )));
        };
        let head = options.up_to.unwrap_or(log_head);
        if head > log_head {
            return Err(CatalogError::invalid(format!(
                "the table has no version {head}: its latest version is {log_head}"
            )));
        }
        let end = self.commits.partition_point(|c| c.version <= head);
        let commits = self.commits.get(..end).unwrap_or_default();

        // The unbroken run of commits that ends at the head.
        let mut missing = Some(head);
        for commit in commits.iter().rev() {
            if Some(commit.version) != missing {
                break;
            }
            missing = commit.version.previous();
        }
        let lowest_base = missing.unwrap_or(Version::ZERO);
        let mut checkpoints: Vec<Base> = self
            .checkpoints
            .range(lowest_base..=head)
            .flat_map(|(_, forms)| forms.iter().cloned().map(Base::Checkpoint))
            .collect();
        let json = missing.is_none().then_some(Base::Json);
        if json.is_none() && checkpoints.is_empty() {
            return Err(self.gap(lowest_base, head));
        }
        let bases: Vec<Base> = if let Some((version, from_json)) = options.base {
            json.into_iter()
                .chain(checkpoints)
                .filter(|b| b.version() == version && matches!(b, Base::Json) == from_json)
                .collect()
        } else if options.checkpoint_only || json.is_some() {
            // Stable: forms of one version keep their order of preference. Behind the commits stand
            // the checkpoints for a log where the two contradict each other: readers see the newest.
            checkpoints.sort_by_key(|base| std::cmp::Reverse(base.version()));
            if options.checkpoint_only {
                checkpoints.into_iter().chain(json).collect()
            } else {
                json.into_iter().chain(checkpoints).collect()
            }
        } else {
            checkpoints
        };
        Ok(Chain { head, log_head, bases, commits: commits.to_vec() })
    }

    fn gap(&self, missing: Version, head: Version) -> CatalogError {
        let mut text = format!(
            "'{}' cannot be read at version {head}: {}.json is missing",
            self.log_dir,
            missing.padded()
        );
        if missing == head {
            text.push_str(", and there is no complete checkpoint of that version");
        } else {
            text.push_str(", and no complete checkpoint stands at or after that version");
        }
        let parts: Vec<String> = self
            .incomplete_checkpoints
            .iter()
            .filter(|v| (missing..=head).contains(*v))
            .map(ToString::to_string)
            .collect();
        if !parts.is_empty() {
            text.push_str(" (of the checkpoint of version ");
            text.push_str(&parts.join(", "));
            text.push_str(" some parts are missing)");
        }
        text.push_str(". Restore the file, or ask for a version below it");
        CatalogError::corrupt(text)
    }
}

/// A file of a checkpoint and its modification time.
type Part = (CheckpointFile, TimestampMs);

fn direct_child(folder: &Path, path: &Path) -> Option<String> {
    let mut parts = path.prefix_match(folder)?;
    let name = parts.next()?;
    match parts.next() {
        None => Some(name.as_ref().to_owned()),
        Some(_) => None,
    }
}

fn modified(object: &ObjectMeta) -> TimestampMs {
    TimestampMs(object.last_modified.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn v(n: i64) -> Version {
        Version::new(n).unwrap()
    }

    fn object(name: &str) -> ObjectMeta {
        ObjectMeta {
            location: Path::from(format!("t/_delta_log/{name}")),
            last_modified: DateTime::from_timestamp_millis(5).unwrap(),
            size: 1,
            e_tag: None,
            version: None,
        }
    }

    fn listing(names: &[String]) -> LogListing {
        LogListing::from_objects(Path::from("t/_delta_log"), names.iter().map(|n| object(n)))
    }

    fn commit(n: i64) -> String {
        format!("{n:020}.json")
    }

    fn checkpoint(n: i64) -> String {
        format!("{n:020}.checkpoint.parquet")
    }

    fn part(n: i64, i: u32, of: u32) -> String {
        format!("{n:020}.checkpoint.{i:010}.{of:010}.parquet")
    }

    fn commits(range: std::ops::RangeInclusive<i64>) -> Vec<String> {
        range.map(commit).collect()
    }

    #[test]
    fn names_are_read_as_the_protocol_defines_them() {
        let id = "80a083e8-7026-4e79-81be-64bd76c43a11";
        for (name, want) in [
            ("00000000000000000007.json", LogName::Commit(v(7))),
            ("00000000000000000007.crc", LogName::Checksum(v(7))),
            ("00000000000000000007.checkpoint.parquet", LogName::Checkpoint(v(7))),
            ("_last_checkpoint", LogName::LastCheckpoint),
            ("00000000000000000000.00000000000000000005.compacted.json", LogName::Compacted),
            (
                "00000000000000000007.checkpoint.0000000002.0000000003.parquet",
                LogName::CheckpointPart { version: v(7), part: 2, parts: 3 },
            ),
        ] {
            assert_eq!(LogName::parse(name), want, "{name}");
        }
        for json in [true, false] {
            let end = if json { "json" } else { "parquet" };
            let name = format!("00000000000000000007.checkpoint.{id}.{end}");
            assert_eq!(LogName::parse(&name), LogName::UuidCheckpoint { version: v(7), json });
        }
        for other in [
            "",
            ".json",
            "7.json",
            "00000000000000000007.json.crc",
            ".00000000000000000007.json.crc",
            "00000000000000000007.json.tmp",
            "000000000000000000007.json",
            "0000000000000000000７.json",
            "99999999999999999999.json",
            "09223372036854775807.json",
            "-0000000000000000007.json",
            "00000000000000000007.checkpoint.json",
            "00000000000000000007.checkpoint.0000000000.0000000003.parquet",
            "00000000000000000007.checkpoint.0000000004.0000000003.parquet",
            "00000000000000000007.checkpoint.4294967296.4294967297.parquet",
            "00000000000000000007.checkpoint.nonsense.parquet",
            "00000000000000000007.checkpoint.parquet.crc",
            "0000000000000000000x.compacted.json",
        ] {
            assert_eq!(LogName::parse(other), LogName::Other, "{other}");
        }
    }

    #[test]
    fn subfolders_and_foreign_folders_do_not_count() {
        let mut objects: Vec<ObjectMeta> =
            vec![object(&commit(0)), object(&format!(".tmp/{}", commit(1)))];
        objects.push(ObjectMeta { location: Path::from("t/x.json"), ..object("x") });
        objects.push(ObjectMeta {
            location: Path::from(format!("other/{}", commit(1))),
            ..object("")
        });
        let listing = LogListing::from_objects(Path::from("t/_delta_log"), objects);
        assert_eq!(listing.head(), Some(v(0)));
    }

    #[test]
    fn a_complete_json_log_is_replayed_from_zero() {
        let mut names = commits(0..=5);
        names.push(checkpoint(3));
        names.reverse();
        let chain = listing(&names).chain(ChainOptions::default()).unwrap();
        assert_eq!(chain.bases.first(), Some(&Base::Json));
        let behind: Vec<i64> = chain.bases[1..].iter().map(|b| b.version().get()).collect();
        assert_eq!(behind, [3], "for a log whose checkpoint contradicts its commits");
        assert_eq!(chain.applied(&Base::Json).len(), 6);
        assert!(chain.history(&Base::Json).is_empty());
    }

    #[test]
    fn a_cleaned_log_starts_at_its_lowest_usable_checkpoint() {
        let mut names = commits(5..=12);
        names.extend([checkpoint(5), checkpoint(10), checkpoint(2)]);
        let chain = listing(&names).chain(ChainOptions::default()).unwrap();
        let found: Vec<i64> = chain.bases.iter().map(|b| b.version().get()).collect();
        assert_eq!(found, [5, 10]);
        let base = &chain.bases[0];
        assert_eq!(chain.history(base).len(), 1);
        assert_eq!(chain.applied(base).first().unwrap().version, v(6));

        let only = ChainOptions { checkpoint_only: true, ..ChainOptions::default() };
        let chain = listing(&names).chain(only).unwrap();
        assert_eq!(chain.bases[0].version(), v(10));
    }

    #[test]
    fn a_checkpoint_may_stand_right_before_the_first_commit_or_alone() {
        let mut names = commits(4..=5);
        names.push(checkpoint(3));
        let chain = listing(&names).chain(ChainOptions::default()).unwrap();
        assert_eq!(chain.bases[0].version(), v(3));
        let chain = listing(&[checkpoint(108)]).chain(ChainOptions::default()).unwrap();
        assert_eq!((chain.head, chain.bases[0].version()), (v(108), v(108)));
        assert!(chain.commits.is_empty());
        // The commits up to the head are gone, those of long ago are not.
        let mut names = commits(0..=2);
        names.push(checkpoint(7));
        let chain = listing(&names).chain(ChainOptions::default()).unwrap();
        assert_eq!((chain.head, chain.history(&chain.bases[0]).len()), (v(7), 3));
        let to_two = ChainOptions { up_to: Some(v(2)), ..ChainOptions::default() };
        assert_eq!(listing(&names).chain(to_two).unwrap().bases, [Base::Json]);
    }

    #[test]
    fn a_gap_names_the_missing_version() {
        let mut names = commits(0..=4);
        names.extend(commits(6..=9));
        names.extend([checkpoint(3), part(7, 1, 2)]);
        let error = listing(&names).chain(ChainOptions::default()).unwrap_err().to_string();
        assert!(error.contains("00000000000000000005.json is missing"), "{error}");
        assert!(error.contains("checkpoint of version 7 some parts are missing"), "{error}");
        names.push(part(7, 2, 2));
        let chain = listing(&names).chain(ChainOptions::default()).unwrap();
        assert_eq!(chain.bases[0].version(), v(7));
        assert_eq!(chain.history(&chain.bases[0]).len(), 7);
    }

    #[test]
    fn multi_part_checkpoints_count_only_when_complete() {
        let names = [part(1, 1, 3), part(1, 3, 3), part(1, 1, 2), part(1, 2, 2)];
        let listing = listing(&names);
        assert_eq!(listing.checkpoints[&v(1)].len(), 1);
        assert_eq!(listing.checkpoints[&v(1)][0].files.len(), 2);
        assert_eq!(listing.incomplete_checkpoints, [v(1)]);
    }

    #[test]
    fn an_empty_log_and_a_version_beyond_the_head_are_refused() {
        let error = listing(&[]).chain(ChainOptions::default()).unwrap_err().to_string();
        assert!(error.contains("not a Delta table"), "{error}");
        let options = ChainOptions { up_to: Some(v(9)), ..ChainOptions::default() };
        let error = listing(&commits(0..=1)).chain(options).unwrap_err().to_string();
        assert!(error.contains("its latest version is 1"), "{error}");
    }

    #[test]
    fn a_continued_import_insists_on_its_base() {
        let mut names = commits(5..=12);
        names.extend([checkpoint(5), checkpoint(10)]);
        let options = ChainOptions { base: Some((v(10), false)), ..ChainOptions::default() };
        let chain = listing(&names).chain(options).unwrap();
        assert_eq!(chain.bases.len(), 1);
        let options = ChainOptions { base: Some((v(0), true)), ..ChainOptions::default() };
        assert!(listing(&names).chain(options).unwrap().bases.is_empty());
    }
}
