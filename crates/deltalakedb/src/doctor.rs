//! A look at a catalog and its surroundings: the database's settings, rights, sizes and clock, publishing, the
//! stores of tables, the skipping index. For `dl doctor`, and for programs that want to know the same.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalakedb_catalog_core::backend::TableFilter;
pub use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState, TableRecord, TableState};
use deltalakedb_catalog_engine::retry::Retry;
use deltalakedb_mirror::store::open_store;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Serialize;

use crate::Db;
use crate::uri::Place;

/// Clocks that differ by more are worth a word.
const SKEW: Duration = Duration::from_secs(5);
/// A version that waits for longer is late.
const LATE: Duration = Duration::from_secs(60);
/// Outbox rows read at a time.
const PAGE: usize = 1_000;
/// Outbox rows that are looked at.
const MAX_ROWS: usize = 100_000;
/// Findings of one kind that are told one by one.
const SHOWN: usize = 20;
/// Files from which on a table wants an index.
const MANY_FILES: u64 = 10_000;

/// How far to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Longest that one look takes: at the database's pages, at a store.
    pub deadline: Duration,
    /// Tables whose store and index are looked at.
    pub max_tables: usize,
    /// Write a small object into the log folder of each of these tables, conditionally and once more, and delete
    /// it: nothing else tells whether the store keeps two writers apart.
    pub write_probe: bool,
}

impl Default for DoctorOptions {
    fn default() -> Self {
        DoctorOptions { deadline: Duration::from_secs(10), max_tables: 100, write_probe: false }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// Where the catalog is, without secrets.
    pub catalog: String,
    /// The worst finding's level.
    pub worst: Level,
    /// How many findings there are of each level.
    pub levels: BTreeMap<Level, usize>,
    /// All findings, in the order in which they were made.
    pub findings: Vec<Diagnosis>,
}

impl DoctorReport {
    fn new(catalog: String, findings: Vec<Diagnosis>) -> DoctorReport {
        let mut levels = BTreeMap::new();
        for finding in &findings {
            *levels.entry(finding.level).or_default() += 1;
        }
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        DoctorReport { catalog, worst, levels, findings }
    }
}

impl Db {
    /// Looks at the catalog and its surroundings. Nothing is changed, but for the probe of
    /// [`DoctorOptions::write_probe`].
    ///
    /// # Errors
    /// Those of the database, if it does not answer at all. What is wrong otherwise is in the report.
    pub async fn diagnose(&self, options: &DoctorOptions) -> Result<DoctorReport> {
        let db = self.clone().on_primary();
        let mut found = versions(&db).await?;
        found.extend(database(&db, options).await);
        let state = Some(TableState::Active);
        let tables: Vec<TableRecord> =
            db.tables(TableFilter { state, ..TableFilter::default() }).try_collect().await?;
        found.push(Diagnosis::ok("tables", tables.len().to_string()));
        found.extend(mirror(&db, &tables).await?);
        let some = &tables[..tables.len().min(options.max_tables)];
        found.extend(stores(&db, some, options).await);
        found.extend(indexes(&db, some).await?);
        if tables.len() > some.len() {
            found.push(Diagnosis::new(
                Level::Note,
                "tables",
                format!("stores and indexes of {} of {} were looked at", some.len(), tables.len()),
                "a look at all of them takes longer",
                "--max-tables looks at more",
            ));
        }
        Ok(DoctorReport::new(self.uri().to_string(), found))
    }
}

/// Programs, schema, clocks.
async fn versions(db: &Db) -> Result<Vec<Diagnosis>> {
    let before = db.clock().now();
    let info = Retry::of(db).repeat(|| db.backend().info()).await?;
    let after = db.clock().now();
    let mut found = vec![
        Diagnosis::ok("program", format!("deltalakedb {}", env!("CARGO_PKG_VERSION"))),
        Diagnosis::ok("database", format!("{} {}", info.kind, info.server_version)),
    ];
    let schema = format!("version {}", info.schema_version);
    found.push(if info.schema_version == info.supported_schema_version {
        Diagnosis::ok("schema", schema)
    } else {
        Diagnosis::new(
            Level::Error,
            "schema",
            format!("{schema}, this program has {}", info.supported_schema_version),
            "a program works with the version that it has",
            "`dl init` upgrades the catalog, or update this program",
        )
    });
    found.extend(info.clock.map(|clock| skew(before, clock, after)));
    Ok(found)
}

/// How far this machine's clock is from the database's, which was asked between two looks at this one.
fn skew(before: TimestampMs, there: TimestampMs, after: TimestampMs) -> Diagnosis {
    let off = if there.0 < before.0 {
        before.0 - there.0
    } else if there.0 > after.0 {
        there.0 - after.0
    } else {
        0
    };
    let text = format!("{:.1} s apart", Duration::from_millis(off.unsigned_abs()).as_secs_f64());
    if u128::from(off.unsigned_abs()) <= SKEW.as_millis() {
        return Diagnosis::ok("clocks", text);
    }
    Diagnosis::new(
        Level::Warning,
        "clocks",
        text,
        "times of commits, and what `--at` finds, are those of the machine that commits; commits from a \
         clock that is far ahead are refused",
        "let both machines ask a time server (chrony, systemd-timesyncd)",
    )
}

/// What the database says of itself.
async fn database(db: &Db, options: &DoctorOptions) -> Vec<Diagnosis> {
    let found = match db.uri().place() {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(sqlite) => crate::sqlite::diagnose(sqlite, options.deadline).await,
        #[cfg(not(feature = "sqlite"))]
        Place::Sqlite(_) => Err(crate::db::not_built(crate::uri::Scheme::Sqlite)),
        Place::Memory => Ok(vec![Diagnosis::new(
            Level::Note,
            "database",
            "the memory of this process",
            "the catalog ends with the process",
            "",
        )]),
        Place::Server(server) => match server.scheme() {
            #[cfg(feature = "postgres")]
            crate::uri::Scheme::Postgres => crate::postgres::diagnose(server).await,
            #[cfg(feature = "mysql")]
            crate::uri::Scheme::MySql => crate::mysql::diagnose(server).await,
            #[cfg(feature = "mssql")]
            crate::uri::Scheme::Mssql => Ok(vec![Diagnosis::new(
                Level::Note,
                "settings",
                "those of SQL Server are not looked at",
                "this version knows no rules for them",
                "",
            )]),
            other => Err(crate::db::not_built(other)),
        },
    };
    let _ = options;
    found.unwrap_or_else(|error| {
        vec![Diagnosis::new(
            Level::Warning,
            "settings",
            "could not be looked at",
            error.to_string(),
            "a login with more rights may be able to",
        )]
    })
}

/// What waits to be published, what failed, what diverged.
async fn mirror(db: &Db, tables: &[TableRecord]) -> Result<Vec<Diagnosis>> {
    let mut found = Vec::new();
    let diverged: Vec<&TableRecord> =
        tables.iter().filter(|table| table.mirror == MirrorMode::Diverged).collect();
    for table in diverged.iter().take(SHOWN) {
        found.push(Diagnosis::new(
            Level::Error,
            format!("publishing of {}", table.name),
            "has stopped: a foreign commit stands in the log",
            "readers of the log do not see what the catalog has",
            format!("`dl repair {}` shows both histories", table.name),
        ));
    }
    let names: BTreeMap<_, _> = tables.iter().map(|table| (table.id, table)).collect();
    let now = db.clock().now();
    let (retry, backend) = (Retry::of(db), db.backend());
    let (mut rows, mut failed, mut oldest) = (0_usize, BTreeMap::new(), None::<TimestampMs>);
    let mut after = None;
    loop {
        let page = retry.repeat(|| backend.mirror_rows(None, None, after, PAGE)).await?;
        for row in page.items {
            let live = names.get(&row.table_id);
            let Some(table) = live.filter(|table| table.mirror == MirrorMode::Active) else {
                continue;
            };
            rows += 1;
            oldest = Some(oldest.map_or(row.enqueued_at, |at| at.min(row.enqueued_at)));
            if row.state == MirrorState::Failed {
                failed
                    .entry(row.table_id)
                    .or_insert_with(|| (table.name.to_string(), row.last_error.clone()));
            }
        }
        after = page.next;
        if after.is_none() || rows >= MAX_ROWS {
            break;
        }
    }
    for (name, error) in failed.values().take(SHOWN) {
        found.push(Diagnosis::new(
            Level::Warning,
            format!("publishing of {name}"),
            format!("fails: {}", error.as_deref().unwrap_or("no reason is known")),
            "readers of the log do not see the latest commits",
            format!("`dl mirror status {name}` shows each version"),
        ));
    }
    let lag = oldest.map_or(0, |at| now.0.saturating_sub(at.0).max(0));
    let text = format!(
        "{} diverged, {} with failures, {rows} versions wait, the oldest for {:.1} s",
        diverged.len(),
        failed.len(),
        Duration::from_millis(lag.unsigned_abs()).as_secs_f64()
    );
    found.push(if u128::from(lag.unsigned_abs()) > LATE.as_millis() {
        Diagnosis::new(
            Level::Warning,
            "publishing",
            text,
            "readers of the logs see old versions",
            "run a worker: `dl mirror run --watch`",
        )
    } else {
        Diagnosis::ok("publishing", text)
    });
    Ok(found)
}

/// Whether the stores of tables answer, and keep writers apart.
async fn stores(db: &Db, tables: &[TableRecord], options: &DoctorOptions) -> Vec<Diagnosis> {
    let looks = tables.iter().map(|table| async move {
        let look = tokio::time::timeout(options.deadline, store(db, table, options.write_probe));
        let what = format!("store of {}", table.name);
        match look.await {
            Ok(Ok(text)) => Diagnosis::ok(what, text),
            Ok(Err(diagnosis)) => Diagnosis { what, ..*diagnosis },
            Err(_) => Diagnosis::new(
                Level::Error,
                what,
                format!("did not answer within {:.1} s", options.deadline.as_secs_f64()),
                "commits cannot be published, and files not be read",
                "look at the network and at the store's own state",
            ),
        }
    });
    let looks: Vec<_> = looks.collect();
    let all: Vec<Diagnosis> = futures::stream::iter(looks).buffered(8).collect().await;
    let (fine, mut wrong): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|diagnosis| diagnosis.level == Level::Ok);
    wrong.truncate(SHOWN);
    if !fine.is_empty() {
        let how =
            if options.write_probe { "can be read, and keep writers apart" } else { "can be read" };
        wrong.push(Diagnosis::ok("stores", format!("those of {} tables {how}", fine.len())));
    }
    wrong
}

type Trouble = Box<Diagnosis>;

async fn store(db: &Db, table: &TableRecord, write: bool) -> std::result::Result<String, Trouble> {
    let trouble = |found: String, why: &str, advice: &str| {
        Box::new(Diagnosis::new(Level::Error, "", found, why, advice))
    };
    let opened = open_store(&table.location, &table.storage_options).map_err(|error| {
        trouble(
            error.to_string(),
            "neither log nor files can be reached",
            "correct the location's options",
        )
    })?;
    let log = opened.log_dir();
    let failed = |error: &object_store::Error, doing: &str| {
        trouble(
            format!("cannot {doing} '{}': {}", opened.shown(&log), plain(error)),
            "commits cannot be published there",
            "look at the rights of this program's credentials, and at the storage options",
        )
    };
    match opened.store.list(Some(&log)).next().await {
        None | Some(Ok(_) | Err(object_store::Error::NotFound { .. })) => {}
        Some(Err(error)) => return Err(failed(&error, "list")),
    }
    if !write || table.mirror == MirrorMode::Off {
        return Ok("can be read".to_owned());
    }
    // Readers of a log pass over names that they do not know, and a vacuum leaves it alone.
    let probe = log.clone().join(format!(".dl-probe-{}", db.ids().uuid().as_hyphenated()));
    let put = async |text: &'static [u8]| {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        opened.store.put_opts(&probe, PutPayload::from_static(text), options).await
    };
    put(b"dl doctor").await.map_err(|error| failed(&error, "write to"))?;
    let again = put(b"dl doctor again").await;
    let deleted = delete(&*opened.store, &probe).await;
    match again {
        Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(failed(&error, "write a second time to")),
        Ok(_) => {
            return Err(trouble(
                "the store overwrites what a conditional put must keep".to_owned(),
                "two writers can put different commits in one place, and one of them is lost",
                "turn conditional puts on (storage option `conditional_put`), or use another store",
            ));
        }
    }
    deleted.map_err(|error| failed(&error, "delete the probe in"))?;
    Ok("can be read and written".to_owned())
}

async fn delete(store: &dyn ObjectStore, path: &Path) -> object_store::Result<()> {
    store.delete(path).await
}

/// A store's error without what stands behind a question mark: signatures do.
fn plain(error: &object_store::Error) -> String {
    let words = error.to_string();
    let cut = words.split(' ').map(|word| word.split_once('?').map_or(word, |(before, _)| before));
    cut.collect::<Vec<_>>().join(" ")
}

/// How much of large tables the skipping index covers.
async fn indexes(db: &Db, tables: &[TableRecord]) -> Result<Vec<Diagnosis>> {
    let mut found = Vec::new();
    let (mut large, mut indexed) = (0_u64, 0_u64);
    for table in tables {
        let by_id = TableRef::Id(table.id);
        let snapshot = match db.snapshot(&by_id, At::Head).await {
            Ok(snapshot) => snapshot,
            // It was dropped meanwhile.
            Err(CatalogError::TableNotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        if snapshot.num_files < MANY_FILES {
            continue;
        }
        large += 1;
        // Nothing rests on it: a login that may not read it sees none.
        let index = db.backend().skip_index(table.id).await.unwrap_or_default();
        let files: i64 = index.segments.iter().map(|segment| segment.files).sum();
        let files = u64::try_from(files).unwrap_or(0);
        if files.saturating_mul(2) >= snapshot.num_files {
            indexed += 1;
        } else if found.len() < SHOWN {
            found.push(Diagnosis::new(
                Level::Note,
                format!("skipping index of {}", table.name),
                format!("{files} of {} files", snapshot.num_files),
                "queries with a filter look at each file that is not in it",
                "programs that commit build it as they go; it grows with the next commits",
            ));
        }
    }
    if large > 0 {
        let text = format!("covers {indexed} of {large} tables with {MANY_FILES} files and more");
        found.push(Diagnosis::ok("skipping index", text));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_with_what_the_question_took() {
        let at = TimestampMs;
        for (before, there, after, level) in [
            (0, 0, 0, Level::Ok),
            // A slow answer is no skew.
            (0, 9_000, 20_000, Level::Ok),
            (10_000, 5_000, 10_001, Level::Ok),
            (10_000, 4_999, 10_001, Level::Warning),
            (10_000, 15_002, 10_001, Level::Warning),
        ] {
            assert_eq!(skew(at(before), at(there), at(after)).level, level, "{there}");
        }
    }

    #[tokio::test]
    async fn a_store_that_answers_is_probed_and_left_as_it_was() {
        let db = Db::create(&"memory://".parse().unwrap()).await.unwrap();
        db.create_table("t").location("memory://doctor/t").columns("id long").await.unwrap();
        let options = DoctorOptions { write_probe: true, ..DoctorOptions::default() };
        let report = db.diagnose(&options).await.unwrap();
        let stores = report.findings.iter().find(|d| d.what == "stores").unwrap();
        assert!(stores.found.contains("keep writers apart"), "{report:?}");
        let store = open_store("memory://doctor/t", &BTreeMap::new()).unwrap();
        let left: Vec<_> = store.store.list(None).try_collect().await.unwrap();
        assert!(left.iter().all(|object| !object.location.as_ref().contains("probe")), "{left:?}");
        // A catalog in memory is worth a word.
        assert_eq!(report.worst, Level::Note, "{report:?}");
    }
}
