//! The registry: records by kind and name, and the row that has the revision.
//!
//! That row is locked before anything else is read. Each statement after it sees what was committed before it began
//! (READ COMMITTED), so it sees all of the calls that had the lock before; where the server isolates more, the second of
//! two calls fails as busy.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::audit::AuditEntry;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::{
    REGISTRY, fetch_limit, no_revision, page, registry_after, registry_record,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::added::Added;
use crate::audit;
use crate::errors::DbResult;
use crate::rows::PgFormat;
use crate::session::{Args, Call, statements};

/// Records; the row without a kind and a name is that of the revision.
const TABLE: &str = r#"
CREATE TABLE {p}registry (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- That of the registry when the record was written last.
    revision bigint NOT NULL,
    -- A JSON object.
    body text NOT NULL,
    changed_at_ms bigint NOT NULL,
    PRIMARY KEY (kind, name)
);
INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms) VALUES ('', '', 0, '{}', 0);
"#;

/// What version 5 added. Who may add rows to the catalog reads here; it is changed by the owner of the tables, and by
/// whom the owner has given the right to.
pub(crate) const ADDED: Added = Added {
    name: REGISTRY,
    version: 5,
    text: TABLE,
    for_speed: None,
    rights: &[("INSERT", "SELECT")],
};

/// Records of one statement that fills the registry.
const LOADED: usize = 500;

statements! {
    GET: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry WHERE kind = $1 AND name = $2",
    LIST: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry
        WHERE kind = $1 AND name > $2 ORDER BY name LIMIT $3",
    /// The row without a kind and a name comes before all records.
    ALL: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry
        WHERE (kind, name) > ($1, $2) ORDER BY kind, name LIMIT $3",
    LOAD: "INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms)
        SELECT k.kind, k.name, k.revision, k.body, k.changed_at_ms
        FROM unnest($1::text[], $2::text[], $3::int8[], $4::text[], $5::int8[])
            AS k (kind, name, revision, body, changed_at_ms)",
    REVISION: "SELECT revision FROM {p}registry WHERE kind = '' AND name = ''",
    /// Makes everyone else who writes to the registry wait.
    LOCK: "SELECT revision FROM {p}registry WHERE kind = '' AND name = '' FOR UPDATE",
    ADVANCE: "UPDATE {p}registry SET revision = $1, changed_at_ms = $2 WHERE kind = '' AND name = ''",
    FOUND: "SELECT r.kind, r.name, r.revision FROM unnest($1::text[], $2::text[]) AS k (kind, name)
        JOIN {p}registry r ON r.kind = k.kind AND r.name = k.name",
    PUT: "INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms)
        SELECT k.kind, k.name, $1, k.body, $2
        FROM unnest($3::text[], $4::text[], $5::text[]) AS k (kind, name, body)
        ON CONFLICT (kind, name) DO UPDATE SET
            revision = excluded.revision, body = excluded.body, changed_at_ms = excluded.changed_at_ms",
    DELETE: "DELETE FROM {p}registry r USING unnest($1::text[], $2::text[]) AS k (kind, name)
        WHERE r.kind = k.kind AND r.name = k.name",
}

pub(crate) async fn get(call: &mut Call, key: &RecordKey) -> DbResult<Option<Record>> {
    let args = Args::new().bind(key.kind()).bind(key.name());
    let row = call.fetch_optional(GET, args).await?;
    Ok(row.as_ref().map(registry_record::<PgFormat>).transpose()?)
}

pub(crate) async fn list(
    call: &mut Call,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> DbResult<Page<Record, String>> {
    let after = registry_after(kind, after)?;
    let args = Args::new().bind(kind).bind(after).bind(fetch_limit(limit));
    let rows = call.fetch(LIST, args).await?;
    let items = rows.iter().map(registry_record::<PgFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |record| record.key.name().to_owned()))
}

pub(crate) async fn all(
    call: &mut Call,
    after: Option<&RecordKey>,
    limit: usize,
) -> DbResult<Page<Record, RecordKey>> {
    let (kind, name) = after.map_or(("", ""), |after| (after.kind(), after.name()));
    let args = Args::new().bind(kind).bind(name).bind(fetch_limit(limit));
    let rows = call.fetch(ALL, args).await?;
    let items = rows.iter().map(registry_record::<PgFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |record| record.key.clone()))
}

pub(crate) async fn load(call: &mut Call, records: &[Record], to: i64) -> DbResult<bool> {
    Record::check(records, to)?;
    let row = call.fetch_optional(LOCK, Args::new()).await?;
    if revision_of(call, row.as_ref())? != 0 {
        return Ok(false);
    }
    call.execute(ADVANCE, Args::new().bind(to).bind(0_i64)).await?;
    for some in records.chunks(LOADED) {
        let (kinds, names) = columns(some.iter().map(|record| &record.key));
        let revisions: Vec<i64> = some.iter().map(|record| record.revision).collect();
        let bodies: Vec<&str> = some.iter().map(|record| record.body.as_str()).collect();
        let times: Vec<i64> = some.iter().map(|record| record.changed_at.0).collect();
        let args = Args::new().bind(kinds).bind(names).bind(revisions).bind(bodies).bind(times);
        call.execute(LOAD, args).await?;
    }
    Ok(true)
}

/// The revision, from the row that has it.
fn revision_of(call: &Call, row: Option<&PgRow>) -> DbResult<i64> {
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(no_revision(&call.session.at).into()),
    }
}

pub(crate) async fn revision(call: &mut Call) -> DbResult<i64> {
    let row = call.fetch_optional(REVISION, Args::new()).await?;
    revision_of(call, row.as_ref())
}

/// Kinds and names of keys.
fn columns<'k>(keys: impl Iterator<Item = &'k RecordKey>) -> (Vec<&'k str>, Vec<&'k str>) {
    keys.map(|key| (key.kind(), key.name())).unzip()
}

pub(crate) async fn write(
    call: &mut Call,
    writes: &[RecordWrite],
    at: TimestampMs,
    entry: Option<&AuditEntry>,
) -> DbResult<RegistryOutcome> {
    RecordWrite::check(writes)?;
    entry.map_or(Ok(()), AuditEntry::check)?;
    let row = call.fetch_optional(LOCK, Args::new()).await?;
    let next = revision_of(call, row.as_ref())?.saturating_add(1);
    let (kinds, names) = columns(writes.iter().map(|write| &write.key));
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    for row in call.fetch(FOUND, Args::new().bind(kinds).bind(names)).await? {
        found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let current =
        |key: &RecordKey| found.get(&(key.kind().to_owned(), key.name().to_owned())).copied();
    if let Some(conflict) = RegistryOutcome::conflict(writes, current) {
        return Ok(conflict);
    }
    call.execute(ADVANCE, Args::new().bind(next).bind(at.0)).await?;
    let (mut put, mut bodies, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for RecordWrite { key, body, .. } in writes {
        match body {
            Some(body) => {
                put.push(key);
                bodies.push(body.as_str());
            }
            None => deleted.push(key),
        }
    }
    if !put.is_empty() {
        let (kinds, names) = columns(put.into_iter());
        let args = Args::new().bind(next).bind(at.0).bind(kinds).bind(names).bind(bodies);
        call.execute(PUT, args).await?;
    }
    if !deleted.is_empty() {
        let (kinds, names) = columns(deleted.into_iter());
        call.execute(DELETE, Args::new().bind(kinds).bind(names)).await?;
    }
    if let Some(entry) = entry {
        audit::keep(call, entry).await?;
    }
    Ok(RegistryOutcome::Written(next))
}
