//! Compares what a table says of its data files with what is in the store: each live file and each deletion
//! vector exists and has its size; on demand each Parquet footer has as many rows as the log says, and the
//! table's columns.
//!
//! A finding is something that a reader of the table stumbles over. Where nobody can tell, a file is *not
//! comparable*, with the reason: that is no finding. What could not be looked at is a failure, and no finding
//! either.
//!
//! 1. A path means what the protocol says ([`paths`](deltalakedb_catalog_core::paths)). A file that is only
//!    found by another reading of its path is missing, and the finding says where it was found.
//! 2. What was removed while this went on is no finding: a vacuum may have deleted it.
//! 3. Each request has a deadline, and only so many run at a time. Memory is bounded by the shown findings.

mod footer;
mod vector;

use std::collections::BTreeMap;
use std::time::Duration;

use deltalakedb_catalog_core::action::{Add, FileKey};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_core::paths::{Place, Resolved, TableRoot};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::schema::StructType;
use futures::TryStreamExt;
use futures::future::{Either, select};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Serialize;

use crate::store::{Store, open_store, redact};

/// Findings that are kept to ask at the end whether their files are still live.
const MAX_ASKED: usize = 100_000;

/// What to check, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOptions {
    /// Version whose files are checked; the head if not given.
    pub version: Option<Version>,
    /// Also read each file's Parquet footer.
    pub footers: bool,
    /// Requests at a time.
    pub concurrency: usize,
    /// Longest that one request may take.
    pub deadline: Duration,
    /// Findings, and remarks of each other kind, that are listed; all are counted.
    pub shown: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        CheckOptions {
            version: None,
            footers: false,
            concurrency: 32,
            deadline: Duration::from_secs(30),
            shown: 1_000,
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckFindingKind {
    /// The file does not exist.
    Missing,
    /// It has another size than the log says.
    Size,
    /// It is no Parquet file that can be read.
    Unreadable,
    /// It has another number of rows than `numRecords`.
    Rows,
    /// A column is not what the table's schema says.
    Column,
    /// The file of its deletion vector does not exist.
    VectorMissing,
    /// Its deletion vector has another size than the log says, or ends too early.
    VectorSize,
    /// The checksum of its deletion vector is wrong.
    VectorChecksum,
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckFinding {
    /// What is wrong.
    pub kind: CheckFindingKind,
    /// `path` of its `add` action.
    pub path: String,
    /// What was expected, and what is there.
    pub detail: String,
}

/// Something about a file that is no finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRemark {
    /// `path` of its `add` action.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Of a list: how many there are, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// All.
    pub count: u64,
    /// The first ones.
    pub first: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed { count: 0, first: Vec::new() }
    }
}

impl<T> Listed<T> {
    fn add(&mut self, item: T, shown: usize) {
        self.count += 1;
        if self.first.len() < shown {
            self.first.push(item);
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Version whose files were checked.
    pub version: Version,
    /// Live files.
    pub files: u64,
    /// Their size as the log says, bytes.
    pub bytes: u64,
    /// Deletion vectors in files of their own.
    pub vectors: u64,
    /// Footers that were read.
    pub footers: u64,
    /// What is wrong.
    pub findings: Listed<CheckFinding>,
    /// How many findings there are of each kind.
    pub kinds: BTreeMap<CheckFindingKind, u64>,
    /// What nobody can tell, with the reason.
    pub not_comparable: Listed<CheckRemark>,
    /// What could not be looked at: the store did not answer, or refused.
    pub failures: Listed<CheckRemark>,
    /// Findings that were left out, as their files were removed from the table meanwhile.
    pub removed_meanwhile: u64,
}

impl CheckReport {
    /// Whether everything was looked at, and nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.findings.count == 0 && self.failures.count == 0
    }
}

/// What a look at one file has found.
#[derive(Debug, Default)]
struct Looked {
    findings: Vec<(CheckFindingKind, String)>,
    not_comparable: Vec<String>,
    failures: Vec<String>,
    vector: bool,
    footer: bool,
}

/// Checks the data files of a table.
///
/// # Errors
/// `TableNotFound`, `VersionNotFound`; `InvalidInput` for a schema or a location that nobody can read; those
/// of the database. What the store says of single files is in the report.
pub async fn check_data(
    catalog: &Catalog,
    table: &TableRef,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<CheckReport> {
    let catalog = &catalog.clone().on_primary();
    let at = options.version.map_or(At::Head, At::Version);
    let snapshot = catalog.snapshot(table, at).await?;
    let store = open_store(&snapshot.table.location, &snapshot.table.storage_options)?;
    let look = Look {
        root: store.paths()?,
        store,
        options,
        catalog,
        expected: if options.footers { Some(expected(&snapshot)?) } else { None },
    };
    let mut report = CheckReport {
        table_id: snapshot.table.id,
        name: snapshot.table.name.clone(),
        version: snapshot.version,
        files: 0,
        bytes: 0,
        vectors: 0,
        footers: 0,
        findings: Listed::default(),
        kinds: BTreeMap::new(),
        not_comparable: Listed::default(),
        failures: Listed::default(),
        removed_meanwhile: 0,
    };
    progress.begin(&format!("checking {}", report.name), "files", Some(snapshot.num_files));
    let looked = looks(&look, &snapshot, options.concurrency.max(1), &mut report, progress).await;
    progress.end();
    let found = still_live(catalog, &snapshot, looked?, &mut report).await?;
    for (key, kind, detail) in found {
        *report.kinds.entry(kind).or_default() += 1;
        report.findings.add(CheckFinding { kind, path: key.path, detail }, options.shown);
    }
    Ok(report)
}

type Found = (FileKey, CheckFindingKind, String);

/// Looks at every file; gives what is wrong, and counts all else.
async fn looks(
    look: &Look<'_>,
    snapshot: &Snapshot,
    concurrency: usize,
    report: &mut CheckReport,
    progress: &dyn Progress,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let files = look.catalog.files(snapshot.table.id, snapshot.version);
    let mut looks = files
        .map_ok(|file| async move {
            let looked = look.at(&file.add).await;
            Ok((file.add, looked))
        })
        .try_buffered(concurrency);
    let shown = look.options.shown;
    while let Some((add, looked)) = looks.try_next().await? {
        report.files += 1;
        report.bytes = report.bytes.saturating_add(u64::try_from(add.size).unwrap_or(0));
        report.vectors += u64::from(looked.vector);
        report.footers += u64::from(looked.footer);
        for reason in looked.not_comparable {
            report.not_comparable.add(CheckRemark { path: add.path.clone(), reason }, shown);
        }
        for reason in looked.failures {
            report.failures.add(CheckRemark { path: add.path.clone(), reason }, shown);
        }
        for (kind, detail) in looked.findings {
            if found.len() < MAX_ASKED {
                found.push((add.key(), kind, detail));
            } else {
                *report.kinds.entry(kind).or_default() += 1;
                report.findings.count += 1;
            }
        }
        progress.advance(1);
    }
    Ok(found)
}

/// Leaves out what is wrong with files that are not live any more, where the head was checked: they may have
/// been vacuumed meanwhile.
async fn still_live(
    catalog: &Catalog,
    checked: &Snapshot,
    found: Vec<Found>,
    report: &mut CheckReport,
) -> Result<Vec<Found>> {
    if found.is_empty() {
        return Ok(found);
    }
    let head = catalog.snapshot(&TableRef::Id(checked.table.id), At::Head).await?;
    let before = checked.table.head.unwrap_or(checked.version);
    if head.version == checked.version || checked.version < before {
        return Ok(found);
    }
    let mut gone: BTreeMap<FileKey, bool> =
        found.iter().map(|(key, ..)| (key.clone(), true)).collect();
    let mut files = catalog.files(head.table.id, head.version);
    while let Some(file) = files.try_next().await? {
        if let Some(gone) = gone.get_mut(&file.add.key()) {
            *gone = false;
        }
    }
    let all = found.len();
    let found: Vec<Found> =
        found.into_iter().filter(|(key, ..)| gone.get(key) != Some(&true)).collect();
    report.removed_meanwhile = u64::try_from(all - found.len()).unwrap_or(u64::MAX);
    Ok(found)
}

/// What footers are compared with.
fn expected(snapshot: &Snapshot) -> Result<footer::Expected> {
    let schema = StructType::parse(&snapshot.metadata.schema_string)?;
    Ok(footer::Expected::new(&snapshot.protocol, &snapshot.metadata, schema))
}

/// Where an object of a table lies.
enum Where {
    /// In the table's store.
    Here(Path),
    /// Nobody can tell; why.
    Unknown(String),
}

struct Look<'a> {
    catalog: &'a Catalog,
    store: Store,
    root: TableRoot,
    options: &'a CheckOptions,
    expected: Option<footer::Expected>,
}

impl Look<'_> {
    async fn at(&self, add: &Add) -> Looked {
        let mut looked = Looked::default();
        if let Some(vector) = &add.deletion_vector {
            self.vector(vector, &mut looked).await;
        }
        let resolved = match self.root.resolve(&add.path) {
            Ok(resolved) => resolved,
            Err(error) => {
                looked.not_comparable.push(error.to_string());
                return looked;
            }
        };
        let path = match self.locate(&resolved.place) {
            Where::Here(path) => path,
            Where::Unknown(why) => {
                looked.not_comparable.push(why);
                return looked;
            }
        };
        match self.head(&path).await {
            Ok(Some(object)) => self.file(add, &path, &object, &mut looked).await,
            Ok(None) => match self.missing(&resolved, &path).await {
                Ok(detail) => looked.findings.push((CheckFindingKind::Missing, detail)),
                Err(why) => looked.failures.push(why),
            },
            Err(why) => looked.failures.push(why),
        }
        looked
    }

    /// A file that exists.
    async fn file(&self, add: &Add, path: &Path, object: &ObjectMeta, looked: &mut Looked) {
        if u64::try_from(add.size) != Ok(object.size) {
            let detail = format!("the log says {} bytes, the file has {}", add.size, object.size);
            looked.findings.push((CheckFindingKind::Size, detail));
        }
        let Some(expected) = &self.expected else { return };
        let read = footer::read(&self.store.store, path, object.size);
        match self.in_time(read).await {
            Err(why) | Ok(Err(footer::Unread::Failed(why))) => looked.failures.push(why),
            Ok(Err(footer::Unread::Encrypted)) => {
                looked.not_comparable.push("its footer is encrypted".to_owned());
            }
            Ok(Err(footer::Unread::Broken(what))) => {
                looked.findings.push((CheckFindingKind::Unreadable, what));
            }
            Ok(Ok(footer)) => {
                looked.footer = true;
                match footer::rows_of(add) {
                    Ok(rows) => {
                        let found = footer.file_metadata().num_rows();
                        if rows != found {
                            let detail =
                                format!("numRecords is {rows}, the footer says {found} rows");
                            looked.findings.push((CheckFindingKind::Rows, detail));
                        }
                    }
                    Err(why) => looked.not_comparable.push(why),
                }
                let compared = expected.compare(&footer);
                let findings = compared.wrong.into_iter();
                looked.findings.extend(findings.map(|what| (CheckFindingKind::Column, what)));
                looked.not_comparable.extend(compared.unclear);
            }
        }
    }

    fn locate(&self, place: &Place) -> Where {
        let key = match place {
            Place::Inside(key) => {
                let root = self.store.root.as_ref();
                if root.is_empty() { key.clone() } else { format!("{root}/{key}") }
            }
            Place::Outside(outside) if outside.same_volume => outside.key.clone(),
            Place::Outside(outside) => {
                return Where::Unknown(format!(
                    "it is in another store than the table, whose options are not known here: {}",
                    redact(&outside.url)
                ));
            }
        };
        match Path::parse(&key) {
            Ok(path) => Where::Here(path),
            Err(error) => {
                Where::Unknown(format!("the store's client cannot name this object: {error}"))
            }
        }
    }

    /// What a store says of an object; none if there is none.
    async fn head(&self, path: &Path) -> std::result::Result<Option<ObjectMeta>, String> {
        match self.in_time(self.store.store.head(path)).await? {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(redact(&error.to_string())),
        }
    }

    /// Of a file that is not there: where else its path may lead.
    async fn missing(
        &self,
        resolved: &Resolved,
        path: &Path,
    ) -> std::result::Result<String, String> {
        let shown = self.store.shown(path);
        for place in &resolved.also {
            let Where::Here(other) = self.locate(place) else { continue };
            if other != *path && self.head(&other).await?.is_some() {
                return Ok(format!(
                    "there is no '{shown}', which is what the protocol reads the path as; there is \
                     '{}', which some readers take it for",
                    self.store.shown(&other)
                ));
            }
        }
        Ok(format!("there is no '{shown}'"))
    }

    /// A request, within its deadline.
    async fn in_time<T>(&self, request: impl Future<Output = T>) -> std::result::Result<T, String> {
        let limit = self.catalog.clock().sleep(self.options.deadline);
        match select(std::pin::pin!(request), limit).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(_) => Err(format!(
                "the store did not answer within {:.1} s",
                self.options.deadline.as_secs_f64()
            )),
        }
    }
}

/// Whether a store says that there is no such object.
fn is_absent(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { .. } => true,
        // A file stands where a folder of the path would be: then there is nothing below it.
        object_store::Error::Generic { source, .. } => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
            while let Some(error) = cause {
                if let Some(io) = error.downcast_ref::<std::io::Error>() {
                    return matches!(
                        io.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    );
                }
                cause = error.source();
            }
            false
        }
        _ => false,
    }
}
