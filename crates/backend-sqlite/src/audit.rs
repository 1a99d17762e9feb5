//! The audit: rows are added and listed, and nothing else.

use deltalakedb_catalog_core::audit::{
    Actor, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow,
};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs};
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::support::{Span, fetch_limit, page};
use rusqlite::{Row, params};

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Reader, to_json};
use crate::session::Db;

macro_rules! columns {
    () => {
        "id, at_ms, action, table_id, table_name, user_name, origin, program, detail, token"
    };
}

macro_rules! within {
    () => {
        "(at_ms, id) > (?1, ?2) AND (at_ms, id) < (?3, ?4)
         AND (?5 = '[]' OR action IN (SELECT value FROM json_each(?5)))
         AND (?6 IS NULL OR user_name = ?6)"
    };
}

macro_rules! of_tables {
    () => {
        "(table_id IN (SELECT value FROM json_each(?7)) OR table_name = ?8)"
    };
}

statements! {
    INSERT: "INSERT INTO {p}audit (at_ms, action, table_id, table_name, user_name, origin, program, detail, token)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (token) DO NOTHING",
    /// Lists of ids and actions come as JSON arrays; an empty one of actions is all.
    LIST: concat!("SELECT ", columns!(), " FROM {p}audit WHERE ", within!(), " ORDER BY at_ms, id LIMIT ?9"),
    LIST_BACK: concat!("SELECT ", columns!(), " FROM {p}audit WHERE ", within!(),
        " ORDER BY at_ms DESC, id DESC LIMIT ?9"),
    /// Of tables, and of no others.
    LIST_OF: concat!("SELECT ", columns!(), " FROM {p}audit WHERE ", within!(), " AND ", of_tables!(),
        " ORDER BY at_ms, id LIMIT ?9"),
    LIST_OF_BACK: concat!("SELECT ", columns!(), " FROM {p}audit WHERE ", within!(), " AND ", of_tables!(),
        " ORDER BY at_ms DESC, id DESC LIMIT ?9"),
}

/// Keeps a row, in the transaction of what it tells of.
pub(crate) fn keep(db: Db<'_>, entry: &AuditEntry) -> DbResult<()> {
    entry.check()?;
    db.execute(
        INSERT,
        params![
            entry.at.0,
            entry.action,
            entry.table_id.map(|id| id.to_string()),
            entry.table_name,
            entry.by.user,
            entry.by.origin,
            entry.by.program,
            entry.detail,
            entry.token.as_ref().map(CommitToken::as_str),
        ],
    )?;
    Ok(())
}

pub(crate) fn list(
    db: Db<'_>,
    filter: &AuditFilter,
    order: AuditOrder,
    after: Option<AuditCursor>,
    limit: usize,
) -> DbResult<Page<AuditRow, AuditCursor>> {
    filter.check()?;
    let span = Span::of(filter, order, after);
    let (actions, user) = (to_json(&filter.actions)?, filter.user.as_deref());
    let (after, before, wanted) = (span.after, span.before, fetch_limit(limit));
    let any = filter.is_any_table();
    let text = match (any, order) {
        (true, AuditOrder::OldestFirst) => LIST,
        (true, AuditOrder::NewestFirst) => LIST_BACK,
        (false, AuditOrder::OldestFirst) => LIST_OF,
        (false, AuditOrder::NewestFirst) => LIST_OF_BACK,
    };
    let mut statement = db.prepare(text)?;
    let mut rows = if any {
        // The limit has the number that it has in the other texts.
        statement.query(params![
            after.0,
            after.1,
            before.0,
            before.1,
            actions,
            user,
            Option::<&str>::None,
            Option::<&str>::None,
            wanted
        ])?
    } else {
        let ids: Vec<String> = filter.table_ids.iter().map(TableId::to_string).collect();
        let (ids, name) = (to_json(&ids)?, filter.table_name.as_deref());
        statement.query(params![
            after.0, after.1, before.0, before.1, actions, user, ids, name, wanted
        ])?
    };
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(audit_row(row)?);
    }
    Ok(page(items, limit, AuditRow::cursor))
}

fn audit_row(row: &Row<'_>) -> DbResult<AuditRow> {
    let r = Reader::new(row, &"of the audit", None);
    let (table_id, token): (Option<String>, Option<String>) = (r.get(3)?, r.get(9)?);
    let table_id = table_id.map(|id| id.parse::<TableId>()).transpose();
    let token = token.map(CommitToken::new).transpose();
    Ok(AuditRow {
        id: r.get(0)?,
        entry: AuditEntry {
            at: TimestampMs(r.get(1)?),
            action: r.get(2)?,
            table_id: table_id.map_err(|e| r.corrupt("table_id", e))?,
            table_name: r.get(4)?,
            by: Actor { user: r.get(5)?, origin: r.get(6)?, program: r.get(7)? },
            detail: r.get(8)?,
            token: token.map_err(|e| r.corrupt("token", e))?,
        },
    })
}
