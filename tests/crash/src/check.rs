//! What must hold after each kill, and at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltalakedb::Db;
use deltalakedb::core::backend::{CommitFilter, CommittedTable};
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::{At, CommitToken, TableId, TableName, TableRef, Version};
use deltalakedb::core::model::TableRecord;
use deltalakedb::mirror::kernel;
use deltalakedb::mirror::publish::PublisherConfig;
use futures::TryStreamExt;

use crate::AnyError;
use crate::worker::{TABLES, catalog_uri};

/// How a commit ended, by what the worker printed.
#[derive(Debug)]
enum Claim {
    /// Announced, never acknowledged: it may be there or not, but not half.
    Tried { tables: usize },
    /// Acknowledged: table id and version of each.
    Acknowledged(BTreeMap<String, i64>),
}

#[derive(Debug)]
pub(crate) struct Checker {
    dir: PathBuf,
    /// What each acknowledged commit wrote: version by table id.
    acknowledged: BTreeMap<String, BTreeMap<String, i64>>,
    kept: u64,
    lost: u64,
    /// Versions below are checked already, by table.
    checked: BTreeMap<TableId, Version>,
    /// Log files below are compared already, by table.
    compared: BTreeMap<TableId, i64>,
    /// Files in the logs after the last round.
    published: BTreeMap<TableId, i64>,
    rounds_that_published: u64,
}

impl Checker {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Checker {
            dir,
            acknowledged: BTreeMap::new(),
            kept: 0,
            lost: 0,
            checked: BTreeMap::new(),
            compared: BTreeMap::new(),
            published: BTreeMap::new(),
            rounds_that_published: 0,
        }
    }

    /// Whether enough happened for the rounds to mean something.
    ///
    /// # Errors
    /// If too little did.
    pub(crate) fn enough(&self, rounds: u64) -> Result<(), AnyError> {
        if u64::try_from(self.acknowledged.len())? < rounds {
            return Err("fewer commits were acknowledged than rounds were run".into());
        }
        if self.rounds_that_published < rounds / 4 {
            return Err("too few rounds published anything".into());
        }
        // What the rounds are about: kills between a commit's request and its answer.
        if self.kept + self.lost < rounds / 4 {
            return Err(format!(
                "only {} of {rounds} kills came in the middle of a commit",
                self.kept + self.lost
            )
            .into());
        }
        Ok(())
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} commits acknowledged and there; of those cut off, {} took effect whole and {} not \
             at all; {} rounds published, logs of {} versions, gapless and byte-equal",
            self.acknowledged.len(),
            self.kept,
            self.lost,
            self.rounds_that_published,
            self.published.values().sum::<i64>()
        )
    }

    /// Checks what a killed worker left.
    pub(crate) async fn after_round(&mut self, lines: &[String]) -> Result<(), AnyError> {
        let db = match Db::open(&catalog_uri(&self.dir)).await {
            Ok(db) => db,
            // Killed before the catalog was made: then nothing was acknowledged either.
            Err(CatalogError::Schema(_) | CatalogError::Unavailable { .. }) if lines.is_empty() => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for (token, claim) in claims(lines)? {
            let found = db.resolve(&CommitToken::new(token.clone())?).await?;
            match (claim, found) {
                (Claim::Acknowledged(expected), Some(tables)) => {
                    same(&token, &expected, &tables)?;
                    self.acknowledged.insert(token, expected);
                }
                (Claim::Acknowledged(_), None) => {
                    return Err(format!("{token} was acknowledged and is lost").into());
                }
                (Claim::Tried { tables: wanted }, Some(tables)) => {
                    if tables.len() != wanted {
                        return Err(format!("{token}: {} of {wanted} tables", tables.len()).into());
                    }
                    self.kept += 1;
                }
                (Claim::Tried { .. }, None) => self.lost += 1,
            }
        }
        let before: i64 = self.published.values().sum();
        for table in TABLES {
            let name: TableName = table.parse()?;
            match db.catalog().table(&TableRef::Name(name)).await {
                Ok(record) => self.check_table(&db, &record).await?,
                Err(CatalogError::TableNotFound(_)) if lines.is_empty() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.published.values().sum::<i64>() > before {
            self.rounds_that_published += 1;
        }
        Ok(())
    }

    async fn check_table(&mut self, db: &Db, table: &TableRecord) -> Result<(), AnyError> {
        let head = table.head.ok_or("a table without a head")?;
        let from = self.checked.get(&table.id).copied().unwrap_or(Version::ZERO);
        let filter = CommitFilter { from_version: Some(from), ..CommitFilter::default() };
        let mut commits: Vec<_> = db.history(table.id, filter).try_collect().await?;
        commits.reverse();
        let versions: Vec<i64> = commits.iter().map(|c| c.version.get()).collect();
        if versions != (from.get()..=head.get()).collect::<Vec<_>>() {
            return Err(
                format!("table '{}' has a gap: {versions:?}, head {head}", table.name).into()
            );
        }
        if commits.windows(2).any(|w| w[0].timestamp >= w[1].timestamp) {
            return Err(format!("table '{}': timestamps do not grow", table.name).into());
        }
        self.checked.insert(table.id, head);
        self.check_log(db, table, head).await
    }

    /// `_delta_log/` is a gapless prefix of the ratified commits, byte by byte.
    async fn check_log(
        &mut self,
        db: &Db,
        table: &TableRecord,
        head: Version,
    ) -> Result<(), AnyError> {
        let log = self.dir.join(table.name.name()).join("_delta_log");
        let present = json_versions(&log)?;
        let count = i64::try_from(present.len())?;
        if present != (0..count).collect::<Vec<_>>() {
            return Err(format!("'{}': published versions {present:?}", table.name).into());
        }
        if count > head.get() + 1 {
            return Err(format!("'{}': more is published than ratified", table.name).into());
        }
        if let Some(recorded) = table.published_version
            && recorded.get() >= count
        {
            return Err(format!(
                "'{}': version {recorded} is recorded as published, the log has {count} commits",
                table.name
            )
            .into());
        }
        let mut next = self.compared.get(&table.id).copied().unwrap_or(0);
        while next < count {
            let (from, to) = (Version::new(next)?, Version::new(count - 1)?);
            for (record, body) in db.backend().read_bodies(table.id, from, to, 256).await? {
                let file = log.join(format!("{}.json", record.version.padded()));
                if std::fs::read(&file)? != body.published()? {
                    return Err(format!("{} differs from the catalog", file.display()).into());
                }
                next = record.version.next().get();
            }
        }
        self.compared.insert(table.id, next);
        self.published.insert(table.id, count);
        Ok(())
    }

    /// Publishing catches up by itself, and the kernel reads what the catalog says.
    pub(crate) async fn at_the_end(&mut self) -> Result<(), AnyError> {
        let db = Db::open(&catalog_uri(&self.dir)).await?;
        for (token, expected) in &self.acknowledged {
            let found = db.resolve(&CommitToken::new(token.clone())?).await?;
            same(token, expected, &found.unwrap_or_default())?;
        }
        // The last worker's leases lapse by themselves.
        let config = PublisherConfig::default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(100);
        let publisher = db.publisher(config);
        for table in TABLES {
            let name: TableName = table.parse()?;
            let by_name = TableRef::Name(name);
            loop {
                publisher.run_once(None).await?;
                let record = db.catalog().table(&by_name).await?;
                if record.published_version == record.head {
                    break;
                }
                if std::time::Instant::now() > deadline {
                    return Err(format!(
                        "'{}' is published up to {:?} only, the head is {:?}",
                        record.name, record.published_version, record.head
                    )
                    .into());
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            let record = db.catalog().table(&by_name).await?;
            self.compared.remove(&record.id);
            self.checked.remove(&record.id);
            self.check_table(&db, &record).await?;

            let snapshot = db.snapshot(&by_name, At::Head).await?;
            let files: Vec<_> = db.files(record.id, snapshot.version).try_collect().await?;
            let mut ours: Vec<String> = files.into_iter().map(|f| f.add.path).collect();
            ours.sort();
            let location = kernel::LogLocation::Table(record.location.clone());
            let state = kernel::read_state(location, &BTreeMap::new(), None).await?;
            let mut theirs: Vec<String> = state.files.keys().map(|k| k.path.clone()).collect();
            theirs.sort();
            if state.version != snapshot.version || ours != theirs {
                return Err(format!(
                    "'{}': the kernel reads version {} with {} files, the catalog has version {} \
                     with {}",
                    record.name,
                    state.version,
                    theirs.len(),
                    snapshot.version,
                    ours.len()
                )
                .into());
            }
        }
        Ok(())
    }
}

/// A token still stands for the versions that were acknowledged.
fn same(
    token: &str,
    expected: &BTreeMap<String, i64>,
    found: &[CommittedTable],
) -> Result<(), AnyError> {
    let found: BTreeMap<String, i64> =
        found.iter().map(|t| (t.table_id.to_string(), t.version.get())).collect();
    if *expected == found {
        Ok(())
    } else {
        Err(format!("{token}: {expected:?} was acknowledged, {found:?} is there").into())
    }
}

fn claims(lines: &[String]) -> Result<BTreeMap<String, Claim>, AnyError> {
    let mut claims = BTreeMap::new();
    for (number, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["try", token, tables] => {
                let tables = tables.parse()?;
                claims.insert((*token).to_owned(), Claim::Tried { tables });
            }
            ["ok", token, written @ ..] => {
                let mut tables = BTreeMap::new();
                for pair in written {
                    let (id, version) = pair.split_once(':').ok_or("bad acknowledgement")?;
                    tables.insert(id.to_owned(), version.parse()?);
                }
                claims.insert((*token).to_owned(), Claim::Acknowledged(tables));
            }
            // The last line may have been cut off in the middle.
            _ if number + 1 == lines.len() => {}
            _ => return Err(format!("the worker printed: {line}").into()),
        }
    }
    Ok(claims)
}

/// Versions of the `N.json` files, ascending.
fn json_versions(log: &Path) -> Result<Vec<i64>, AnyError> {
    let mut versions = Vec::new();
    let entries = match std::fs::read_dir(log) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(versions),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(digits) = name.strip_suffix(".json")
            && digits.len() == 20
        {
            versions.push(digits.parse()?);
        }
    }
    versions.sort_unstable();
    Ok(versions)
}
