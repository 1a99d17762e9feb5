//! The registry: records by kind and name, and the row that has the revision.
//!
//! The writer's transaction has the write lock from its beginning on, so that what is read in it is what is written to.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::audit::AuditEntry;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::{fetch_limit, no_revision, page, registry_after};
use rusqlite::{OptionalExtension, Row, params};

use crate::audit;
use crate::errors::DbResult;
use crate::rows::Reader;
use crate::rows::text::statements;
use crate::session::Db;

statements! {
    GET: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry WHERE kind = ?1 AND name = ?2",
    LIST: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry
        WHERE kind = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    /// The row without a kind and a name comes before all records.
    ALL: "SELECT kind, name, revision, body, changed_at_ms FROM {p}registry
        WHERE (kind, name) > (?1, ?2) ORDER BY kind, name LIMIT ?3",
    REVISION_OF: "SELECT revision FROM {p}registry WHERE kind = ?1 AND name = ?2",
    /// The row without a kind and a name.
    REVISION: "SELECT revision FROM {p}registry WHERE kind = '' AND name = ''",
    ADVANCE: "UPDATE {p}registry SET revision = ?1, changed_at_ms = ?2 WHERE kind = '' AND name = ''",
    PUT: "INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (kind, name) DO UPDATE SET
            revision = excluded.revision, body = excluded.body, changed_at_ms = excluded.changed_at_ms",
    DELETE: "DELETE FROM {p}registry WHERE kind = ?1 AND name = ?2",
}

fn record(row: &Row<'_>) -> DbResult<Record> {
    let r = Reader::new(row, &"of the registry", None);
    let (kind, name): (String, String) = (r.get(0)?, r.get(1)?);
    Ok(Record {
        key: RecordKey::new(kind, name).map_err(|e| r.corrupt("name", e))?,
        revision: r.get(2)?,
        body: r.get(3)?,
        changed_at: TimestampMs(r.get(4)?),
    })
}

pub(crate) fn get(db: Db<'_>, key: &RecordKey) -> DbResult<Option<Record>> {
    let mut statement = db.prepare(GET)?;
    let mut rows = statement.query(params![key.kind(), key.name()])?;
    rows.next()?.map(record).transpose()
}

pub(crate) fn list(
    db: Db<'_>,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> DbResult<Page<Record, String>> {
    let after = registry_after(kind, after)?;
    let mut statement = db.prepare(LIST)?;
    let mut rows = statement.query(params![kind, after, fetch_limit(limit)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(record(row)?);
    }
    Ok(page(items, limit, |record| record.key.name().to_owned()))
}

pub(crate) fn all(
    db: Db<'_>,
    after: Option<&RecordKey>,
    limit: usize,
) -> DbResult<Page<Record, RecordKey>> {
    let (kind, name) = after.map_or(("", ""), |after| (after.kind(), after.name()));
    let mut statement = db.prepare(ALL)?;
    let mut rows = statement.query(params![kind, name, fetch_limit(limit)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(record(row)?);
    }
    Ok(page(items, limit, |record| record.key.clone()))
}

pub(crate) fn load(db: Db<'_>, records: &[Record], to: i64) -> DbResult<bool> {
    Record::check(records, to)?;
    if revision(db)? != 0 {
        return Ok(false);
    }
    db.execute(ADVANCE, params![to, 0])?;
    for Record { key, revision, body, changed_at } in records {
        db.execute(PUT, params![key.kind(), key.name(), revision, body, changed_at.0])?;
    }
    Ok(true)
}

pub(crate) fn revision(db: Db<'_>) -> DbResult<i64> {
    let found: Option<i64> = db.prepare(REVISION)?.query_row([], |row| row.get(0)).optional()?;
    Ok(found.ok_or_else(|| no_revision(&db.shared.path().display().to_string()))?)
}

pub(crate) fn write(
    db: Db<'_>,
    writes: &[RecordWrite],
    at: TimestampMs,
    entry: Option<&AuditEntry>,
) -> DbResult<RegistryOutcome> {
    RecordWrite::check(writes)?;
    entry.map_or(Ok(()), AuditEntry::check)?;
    let next = revision(db)?.saturating_add(1);
    let mut found: BTreeMap<&RecordKey, i64> = BTreeMap::new();
    for RecordWrite { key, .. } in writes {
        let mut statement = db.prepare(REVISION_OF)?;
        let current = statement.query_row(params![key.kind(), key.name()], |row| row.get(0));
        found.extend(current.optional()?.map(|revision| (key, revision)));
    }
    if let Some(conflict) = RegistryOutcome::conflict(writes, |key| found.get(key).copied()) {
        return Ok(conflict);
    }
    db.execute(ADVANCE, params![next, at.0])?;
    for RecordWrite { key, body, .. } in writes {
        match body {
            Some(body) => db.execute(PUT, params![key.kind(), key.name(), next, body, at.0])?,
            None => db.execute(DELETE, params![key.kind(), key.name()])?,
        };
    }
    if let Some(entry) = entry {
        audit::keep(db, entry)?;
    }
    Ok(RegistryOutcome::Written(next))
}
