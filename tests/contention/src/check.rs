//! What must hold after a run: the catalog, read through a fresh handle, against what the workers
//! sent and were told.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{CommitRecord, MirrorState, TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use futures::TryStreamExt;

use crate::claims::{Claims, Verdict};
use crate::journal::{Failure, Written};
use crate::replay::State;

/// Commits read per call.
const BODIES: usize = 500;
/// Rows of the outbox read per call.
const OUTBOX_PAGE: usize = 1_000;
/// Versions at which the rows are compared, besides the first and the last.
const SAMPLES: i64 = 5;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Versions of all tables.
    pub versions: u64,
    /// Commits that the workers were told of, all there.
    pub acknowledged: u64,
    /// Commits in doubt that are there, whole.
    pub doubtful_kept: u64,
    /// Commits in doubt of which nothing is there.
    pub doubtful_lost: u64,
    /// Commits that failed, of which nothing is there.
    pub refused: u64,
    /// Heads of the tables.
    pub heads: Vec<i64>,
}

/// Compares a catalog with the claims.
///
/// # Errors
/// At the first thing that is wrong: which token, table or version, and what is there instead.
pub async fn check(
    catalog: &Catalog,
    setup: &str,
    tables: &[TableId],
    claims: &Claims,
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let mut resolved = BTreeMap::new();
    for token in claims.by_token.keys() {
        let found = catalog.resolve(&CommitToken::new(token.clone())?).await?;
        let found = found.map(|tables| tables.iter().map(Written::from).collect::<BTreeSet<_>>());
        compare_token(token, claims, found.as_ref(), &mut findings)?;
        if let Some(found) = found {
            resolved.insert(token.as_str(), found);
        }
    }
    let mut in_history = BTreeMap::new();
    for table in tables {
        check_table(catalog, setup, *table, claims, &mut in_history, &mut findings)
            .await
            .with_context(|| format!("table {table}"))?;
    }
    // Both directions: nothing is in the history that its token does not stand for.
    ensure!(
        in_history.len() == resolved.len(),
        "{} tokens are in the histories, {} can be resolved",
        in_history.len(),
        resolved.len()
    );
    for (token, written) in &resolved {
        let found = in_history.get(*token);
        ensure!(
            found == Some(written),
            "token {token} is resolved to {written:?}, the histories have {found:?}"
        );
    }
    check_drops(catalog, tables, claims).await?;
    Ok(findings)
}

/// What a token stands for is what its worker was told.
fn compare_token(
    token: &str,
    claims: &Claims,
    found: Option<&BTreeSet<Written>>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let claim = &claims.by_token[token];
    match (&claim.verdict, found) {
        (Verdict::Open, _) => bail!("{token} was sent and never answered"),
        (Verdict::Committed(told), Some(found)) => {
            let told: BTreeSet<Written> = told.iter().cloned().collect();
            ensure!(told == *found, "{token}: {told:?} was acknowledged, {found:?} is there");
            findings.acknowledged += 1;
        }
        (Verdict::Committed(told), None) => {
            bail!("{token} was acknowledged as {told:?} and is lost")
        }
        (Verdict::NotApplied, Some(found)) => {
            bail!("{token} was said not to be written, but {found:?} is there")
        }
        (Verdict::NotApplied, None) => findings.refused += 1,
        (Verdict::Unknown, Some(_)) => findings.doubtful_kept += 1,
        (Verdict::Unknown, None) => findings.doubtful_lost += 1,
    }
    if let Some(found) = found {
        let there: BTreeSet<TableId> = found.iter().map(|written| written.table_id).collect();
        let sent: BTreeSet<TableId> = claim.changes.keys().copied().collect();
        ensure!(there == sent, "{token} was sent for tables {sent:?}, {there:?} have it");
    }
    Ok(())
}

async fn check_table<'a>(
    catalog: &Catalog,
    setup: &str,
    table: TableId,
    claims: &'a Claims,
    in_history: &mut BTreeMap<&'a str, BTreeSet<Written>>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let record = catalog.table(&TableRef::Id(table)).await?;
    let head = record.head.context("it has no head")?;
    let mut history: Vec<CommitRecord> =
        catalog.history(table, CommitFilter::default()).try_collect().await?;
    history.reverse();
    let versions: Vec<i64> = history.iter().map(|commit| commit.version.get()).collect();
    ensure!(
        versions == (0..=head.get()).collect::<Vec<_>>(),
        "a gap: head {head}, versions {versions:?}"
    );
    if let Some(pair) = history.windows(2).find(|pair| pair[0].timestamp >= pair[1].timestamp) {
        bail!("the timestamp of version {} does not grow", pair[1].version);
    }
    for commit in &history {
        let token = commit.token.as_ref().context("a version without a token")?.as_str();
        if commit.version == Version::ZERO {
            ensure!(token == setup, "version 0 was written by {token}");
            continue;
        }
        let (token, _) = claims
            .by_token
            .get_key_value(token)
            .with_context(|| format!("version {} has token {token}", commit.version))?;
        let written = Written {
            table_id: table,
            version: commit.version.get(),
            timestamp: commit.timestamp.0,
        };
        in_history.entry(token).or_default().insert(written);
    }
    replay(catalog, &record, &history, claims).await?;
    check_outbox(catalog, &record, head).await?;
    findings.versions += u64::try_from(history.len())?;
    findings.heads.push(head.get());
    Ok(())
}

/// The bytes say what was sent, and the rows say what the bytes say.
async fn replay(
    catalog: &Catalog,
    table: &TableRecord,
    history: &[CommitRecord],
    claims: &Claims,
) -> anyhow::Result<()> {
    let head = table.head.context("it has no head")?;
    let step = (head.get() / (SAMPLES + 1)).max(1);
    let mut state = State::default();
    let mut next = Version::ZERO;
    let mut rows = history.iter();
    while next <= head {
        let bodies = catalog.backend().read_bodies(table.id, next, head, BODIES).await?;
        ensure!(!bodies.is_empty(), "versions {next} to {head} have no bytes");
        for (stored, body) in bodies {
            let row = rows.next().context("more bytes than versions")?;
            ensure!(stored == *row, "the history has {row:?}, with the bytes came {stored:?}");
            let version = row.version;
            let commit = state.apply(version, &body.published()?)?;
            ensure!(
                commit.in_commit_timestamp == Some(row.timestamp.0),
                "version {version} is of {}, its bytes say {:?}",
                row.timestamp,
                commit.in_commit_timestamp
            );
            let token = row.token.as_ref().map(CommitToken::as_str);
            ensure!(
                commit.token.as_deref() == token,
                "version {version} has token {token:?}, its bytes say {:?}",
                commit.token
            );
            if let Some(claim) = token.and_then(|token| claims.by_token.get(token)) {
                let sent = claim.changes.get(&table.id);
                ensure!(
                    sent == Some(&commit.files),
                    "version {version} holds {:?}, sent was {sent:?}",
                    commit.files
                );
            }
            ensure!(
                commit.stray_removes.is_empty(),
                "version {version} removes files that are not there: {:?}",
                commit.stray_removes
            );
            ensure!(
                (row.total_files, i64::try_from(row.total_bytes)?)
                    == (u64::try_from(state.files.len())?, state.bytes()),
                "version {version}: {} files of {} bytes are counted, {} of {} are there",
                row.total_files,
                row.total_bytes,
                state.files.len(),
                state.bytes()
            );
            if version == head || version.get() % step == 0 {
                compare_rows(catalog, table, version, &state).await?;
            }
            next = version.next();
        }
    }
    Ok(())
}

/// The rows at a version are what a replay of the bytes gives.
async fn compare_rows(
    catalog: &Catalog,
    table: &TableRecord,
    version: Version,
    state: &State,
) -> anyhow::Result<()> {
    let files: Vec<_> = catalog.files(table.id, version).try_collect().await?;
    ensure!(
        files.windows(2).all(|pair| pair[0].cursor < pair[1].cursor),
        "the files of version {version} are not in order"
    );
    ensure!(
        files.len() == state.files.len(),
        "version {version}: {} rows, a replay gives {} files",
        files.len(),
        state.files.len()
    );
    for file in files {
        let there = (file.cursor.added_version, file.add);
        let expected = state.files.get(&there.1.key());
        ensure!(
            expected == Some(&there),
            "version {version}: a row says {there:?}, a replay gives {expected:?}"
        );
    }
    let snapshot = catalog.snapshot(&TableRef::Id(table.id), At::Version(version)).await?;
    ensure!(
        Some(&snapshot.protocol) == state.protocol.as_ref()
            && Some(&snapshot.metadata) == state.metadata.as_ref(),
        "version {version}: protocol or metadata are not those of the bytes"
    );
    let transactions = catalog.backend().app_transactions(table.id, version).await?;
    let replayed: Vec<_> = state.transactions.values().cloned().collect();
    ensure!(
        transactions == replayed,
        "version {version}: application transactions are {transactions:?}, a replay gives \
         {replayed:?}"
    );
    Ok(())
}

/// Every version waits to be published, once.
async fn check_outbox(catalog: &Catalog, table: &TableRecord, head: Version) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    let mut after = None;
    loop {
        let page = catalog.backend().mirror_rows(Some(table.id), None, after, OUTBOX_PAGE).await?;
        for row in page.items {
            ensure!(row.state == MirrorState::Pending, "nobody publishes, and yet: {row:?}");
            waiting.push(row.version.get());
        }
        match page.next {
            None => break,
            next => after = next,
        }
    }
    ensure!(
        waiting == (0..=head.get()).collect::<Vec<_>>(),
        "head {head}, but the outbox has versions {waiting:?}"
    );
    Ok(())
}

/// Of drops and undrops, each took effect once.
async fn check_drops(catalog: &Catalog, tables: &[TableId], claims: &Claims) -> anyhow::Result<()> {
    let mut gone = 0;
    for table in tables {
        let record = catalog.table(&TableRef::Id(*table)).await?;
        if record.state == TableState::Dropped {
            gone += 1;
        }
    }
    ensure!(gone == claims.dropped, "{gone} tables are dropped, {} should be", claims.dropped);
    ensure!(
        claims.drop_failures.keys().all(|kind| *kind == Failure::NoTable),
        "drops failed: {:?}",
        claims.drop_failures
    );
    Ok(())
}

#[cfg(test)]
mod tests;
