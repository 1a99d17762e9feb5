//! The registry: records by kind and name, and the row that has the revision.
//!
//! That row is locked before anything else is read. Each statement after it sees what was committed before it began
//! (READ COMMITTED). On a cluster a lock is one of its node: each write changes the row, so that of two nodes' writes
//! one fails as busy.
//!
//! Names are bytes: collations take `'a '` for `'a'`.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::audit::AuditEntry;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::{
    fetch_limit, no_revision, page, registry_after, registry_record,
};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::audit;
use crate::errors::DbResult;
use crate::rows::MySqlFormat;
use crate::session::literals::Value;
use crate::session::writer::Writer;
use crate::session::{Call, first};

macro_rules! columns {
    () => {
        "kind, CONVERT(name USING utf8mb4), revision, body, changed_at_ms"
    };
}

const GET: &str = concat!("SELECT ", columns!(), " FROM {p}registry WHERE kind = ? AND name = ?");
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM {p}registry WHERE kind = ? AND name > ? ORDER BY name LIMIT ?"
);
/// The row without a kind and a name comes before all records.
const ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM {p}registry WHERE kind >= ? AND (kind > ? OR name > ?) ORDER BY kind, name LIMIT ?"
);
const REVISION: &str = "SELECT revision FROM {p}registry WHERE kind = '' AND name = ''";
/// Makes everyone else who writes to the registry wait.
const LOCK: &str = "SELECT revision FROM {p}registry WHERE kind = '' AND name = '' FOR UPDATE";
const ADVANCE: &str = "UPDATE {p}registry SET revision = ?, changed_at_ms = ?
    WHERE kind = '' AND name = '' AND revision = ?";
const FOUND: &str = "SELECT kind, CONVERT(name USING utf8mb4), revision FROM {p}registry WHERE ";
const ONE: &str = "(kind = ? AND name = ?)";
const INSERT: &str = "INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms) VALUES ";
const UPDATE: &str = "UPDATE {p}registry SET revision = ?, body = ?, changed_at_ms = ?
    WHERE kind = ? AND name = ? AND revision = ?";
const DELETE: &str = "DELETE FROM {p}registry WHERE kind = ? AND name = ? AND revision = ?";

/// Kind and name of a key, as they are stored.
fn values(key: &RecordKey) -> [Value<'_>; 2] {
    [key.kind().into(), key.name().as_bytes().into()]
}

pub(crate) async fn get(call: &mut Call, key: &RecordKey) -> DbResult<Option<Record>> {
    let row = call.row(GET, &values(key)).await?;
    Ok(row.as_ref().map(registry_record::<MySqlFormat>).transpose()?)
}

pub(crate) async fn list(
    call: &mut Call,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> DbResult<Page<Record, String>> {
    let after = registry_after(kind, after)?;
    let sets = call
        .query(LIST, &[kind.into(), after.as_bytes().into(), fetch_limit(limit).into()])
        .await?;
    let rows = sets.iter().flat_map(|set| &set.rows);
    let items = rows.map(registry_record::<MySqlFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |record| record.key.name().to_owned()))
}

pub(crate) async fn all(
    call: &mut Call,
    after: Option<&RecordKey>,
    limit: usize,
) -> DbResult<Page<Record, RecordKey>> {
    let (kind, name) = after.map_or(("", ""), |after| (after.kind(), after.name()));
    let values = [kind.into(), kind.into(), name.as_bytes().into(), fetch_limit(limit).into()];
    let sets = call.query(ALL, &values).await?;
    let rows = sets.iter().flat_map(|set| &set.rows);
    let items = rows.map(registry_record::<MySqlFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |record| record.key.clone()))
}

pub(crate) async fn load(call: &mut Call, records: &[Record], to: i64) -> DbResult<bool> {
    Record::check(records, to)?;
    let lock = call.session.sql(LOCK, &[]);
    let sets = call.open(&lock).await?;
    if revision_of(call, first(&sets))? != 0 {
        return Ok(false);
    }
    let mut writer = Writer::new(call);
    writer.push_one(ADVANCE, &[to.into(), 0.into(), 0.into()]).await?;
    for Record { key, revision, body, changed_at } in records {
        let [kind, name] = values(key);
        let row = [kind, name, (*revision).into(), body.into(), changed_at.0.into()];
        writer.row(INSERT, &row).await?;
    }
    writer.finish().await?;
    Ok(true)
}

/// The revision, from the row that has it.
fn revision_of(call: &Call, row: Option<&MySqlRow>) -> DbResult<i64> {
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(no_revision(&call.session.at).into()),
    }
}

pub(crate) async fn revision(call: &mut Call) -> DbResult<i64> {
    let row = call.row(REVISION, &[]).await?;
    revision_of(call, row.as_ref())
}

pub(crate) async fn write(
    call: &mut Call,
    writes: &[RecordWrite],
    at: TimestampMs,
    entry: Option<&AuditEntry>,
) -> DbResult<RegistryOutcome> {
    RecordWrite::check(writes)?;
    entry.map_or(Ok(()), AuditEntry::check)?;
    let lock = call.session.sql(LOCK, &[]);
    let sets = call.open(&lock).await?;
    let before = revision_of(call, first(&sets))?;
    let next = before.saturating_add(1);
    let keys: Vec<String> =
        writes.iter().map(|write| call.session.sql(ONE, &values(&write.key))).collect();
    let sql = call.session.sql(FOUND, &[]) + &keys.join(" OR ");
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    for row in call.run(sql).await?.iter().flat_map(|set| &set.rows) {
        found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let current =
        |key: &RecordKey| found.get(&(key.kind().to_owned(), key.name().to_owned())).copied();
    if let Some(conflict) = RegistryOutcome::conflict(writes, current) {
        return Ok(conflict);
    }
    let mut writer = Writer::new(call);
    writer.push_one(ADVANCE, &[next.into(), at.0.into(), before.into()]).await?;
    for RecordWrite { key, body, .. } in writes {
        let [kind, name] = values(key);
        match (body, current(key)) {
            (Some(body), None) => {
                let row = [kind, name, next.into(), body.into(), at.0.into()];
                writer.row(INSERT, &row).await?;
            }
            (Some(body), Some(old)) => {
                let set = [next.into(), body.into(), at.0.into(), kind, name, old.into()];
                writer.push_one(UPDATE, &set).await?;
            }
            (None, Some(old)) => writer.push_one(DELETE, &[kind, name, old.into()]).await?,
            (None, None) => {}
        }
    }
    writer.finish().await?;
    if let Some(entry) = entry {
        audit::keep_once(call, entry).await?;
    }
    Ok(RegistryOutcome::Written(next))
}
