//! The audit: rows are added and listed, and nothing else.
//!
//! No trigger keeps others from changing rows: where the server has a binary log, as it has by itself, making one takes the
//! right SUPER. What there is are the rights of logins, see `grants`.

use std::fmt::Write as _;

use deltalakedb_catalog_core::audit::{AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{CommitToken, TableId};
use deltalakedb_catalog_core::model::Page;
use deltalakedb_catalog_core::support::{AUDIT_COLUMNS, Span, audit_row, fetch_limit, page};

use crate::errors::DbResult;
use crate::rows::MySqlFormat;
use crate::session::Call;
use crate::session::literals::{Value, list as values};

const INSERT: &str =
    "INSERT INTO {p}audit (at_ms, action, table_id, table_name, user_name, origin, program, detail, token)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
/// Between two places. The first two conditions are those that an index knows.
const WITHIN: &str = "at_ms >= ? AND at_ms <= ?
    AND (at_ms > ? OR (at_ms = ? AND id > ?)) AND (at_ms < ? OR (at_ms = ? AND id < ?))";

/// The statement that adds a row.
fn insert(call: &Call, entry: &AuditEntry) -> DbResult<String> {
    entry.check()?;
    let id = entry.table_id.map(|id| id.to_string());
    let values = [
        entry.at.0.into(),
        entry.action.as_str().into(),
        id.as_deref().into(),
        entry.table_name.as_deref().into(),
        entry.by.user.as_deref().into(),
        entry.by.origin.as_deref().into(),
        entry.by.program.as_deref().into(),
        entry.detail.as_deref().into(),
        entry.token.as_ref().map(CommitToken::as_str).into(),
    ];
    Ok(call.session.sql(INSERT, &values))
}

/// Keeps a row, in the transaction of what it tells of.
pub(crate) async fn keep(call: &mut Call, entry: &AuditEntry) -> DbResult<()> {
    let sql = insert(call, entry)?;
    call.run(sql).await.map(|_| ())
}

/// The same, unless there is one with its token: only the statement is undone then.
pub(crate) async fn keep_once(call: &mut Call, entry: &AuditEntry) -> DbResult<()> {
    match keep(call, entry).await {
        Err(error) if error.is_duplicate() => Ok(()),
        other => other,
    }
}

/// Keeps a row in a transaction of its own, unless there is one with its token.
pub(crate) async fn record(call: &mut Call, entry: &AuditEntry) -> DbResult<()> {
    let sql = insert(call, entry)?;
    match call.open(&sql).await {
        Err(error) if error.is_duplicate() => Ok(()),
        other => other.map(|_| ()),
    }
}

pub(crate) async fn list(
    call: &mut Call,
    filter: &AuditFilter,
    order: AuditOrder,
    after: Option<AuditCursor>,
    limit: usize,
) -> DbResult<Page<AuditRow, AuditCursor>> {
    filter.check()?;
    let none = Page { items: Vec::new(), next: None };
    let Span { after: (from, from_id), before: (to, to_id) } = Span::of(filter, order, after);
    let sql = call.session.sql(
        WITHIN,
        &[
            from.into(),
            to.into(),
            from.into(),
            from.into(),
            from_id.into(),
            to.into(),
            to.into(),
            to_id.into(),
        ],
    );
    let mut sql =
        call.session.sql(&format!("SELECT {AUDIT_COLUMNS} FROM {{p}}audit WHERE "), &[]) + &sql;
    // Collations take `'a '` for `'a'`: what is equal has the same length, too.
    let is = |column: &str, text: &str| {
        let mut literal = String::new();
        Value::Text(text).write(&mut literal);
        format!("({column} = {literal} AND LENGTH({column}) = {})", text.len())
    };
    if !filter.is_any_table() {
        let ids: Vec<String> = filter.table_ids.iter().map(TableId::to_string).collect();
        let mut any = Vec::new();
        if !ids.is_empty() {
            any.push(format!("table_id IN ({})", values(ids.iter().map(Into::into))));
        }
        any.extend(filter.table_name.as_deref().map(|name| is("table_name", name)));
        let _ = write!(sql, " AND ({})", any.join(" OR "));
    }
    if let Some(user) = &filter.user {
        let _ = write!(sql, " AND {}", is("user_name", user));
    }
    if !filter.actions.is_empty() {
        // Others are in no row, and no text of the column's character set.
        let actions: Vec<&String> =
            filter.actions.iter().filter(|action| action.is_ascii()).collect();
        if actions.is_empty() {
            return Ok(none);
        }
        let _ = write!(sql, " AND action IN ({})", values(actions.into_iter().map(Into::into)));
    }
    let back = if order == AuditOrder::NewestFirst { " DESC" } else { "" };
    let _ = write!(sql, " ORDER BY at_ms{back}, id{back} LIMIT {}", fetch_limit(limit));
    let sets = call.read(&sql).await?;
    let rows = sets.iter().flat_map(|set| &set.rows);
    let items = rows.map(audit_row::<MySqlFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, AuditRow::cursor))
}
