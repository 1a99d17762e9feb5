//! Who did what to which table, when and from where: the audit's rows and the tables' commits, as one list.

mod merge;

use deltalakedb_catalog_core::audit::{AuditFilter, AuditOrder, AuditRow, action};
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{
    CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{CommitRecord, TableRecord, TableState};
use deltalakedb_catalog_engine::freeze;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::db::Db;
use merge::{Merge, Source};

pub use deltalakedb_catalog_core::audit::{Act, Actor, AuditEntry};

/// What is listed of the audit.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only what was done to this table. By name, all tables are meant that have or had it.
    pub table: Option<TableRef>,
    /// Only these actions, see [`AuditEvent::action`]; none = all.
    pub actions: Vec<String>,
    /// Only what was done on behalf of this user.
    pub user: Option<String>,
    /// At or after this time.
    pub since: Option<TimestampMs>,
    /// Before this time.
    pub until: Option<TimestampMs>,
    /// Without commits.
    pub no_commits: bool,
    /// Oldest first, unless told otherwise.
    pub order: AuditOrder,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEvent {
    /// When: of a commit its commit timestamp, of all else the caller's clock.
    pub at_ms: TimestampMs,
    /// `commit`, `table.create`, `table.alter`, `table.cutover`, `table.release`, `table.freeze`, `table.unfreeze`,
    /// `table.restore`, `vacuum.start` and `vacuum.end` are commits, by their operation. All others are rows of the
    /// audit: [`action`] has their words.
    pub action: String,
    /// Which table; none if it is about the whole catalog.
    pub table_id: Option<TableId>,
    /// Of a commit the table's name now, of all else the name that it had then.
    pub table: Option<String>,
    /// The version, if it is a commit.
    pub version: Option<Version>,
    /// On whose behalf.
    pub user: Option<String>,
    /// From which host or address. Commits do not say.
    pub origin: Option<String>,
    /// By which program.
    pub program: Option<String>,
    /// More about it.
    pub detail: Option<Value>,
    /// Token of a commit; of a row of the audit that has one, its own.
    pub token: Option<CommitToken>,
    /// Of a row of the audit its id there.
    pub id: Option<i64>,
}

/// Actions of commits.
const OF_COMMITS: [&str; 10] = [
    "commit",
    "table.create",
    "table.alter",
    "table.cutover",
    "table.release",
    "table.freeze",
    "table.unfreeze",
    "table.restore",
    action::VACUUM_START,
    action::VACUUM_END,
];

/// The action of a commit, by its `operation` and version.
fn action_of(operation: Option<&str>, version: Version) -> &'static str {
    let Some(operation) = operation else {
        return if version == Version::ZERO { "table.create" } else { "commit" };
    };
    match operation {
        "RAISE FENCE" => "table.cutover",
        "LOWER FENCE" => "table.release",
        freeze::FREEZE => "table.freeze",
        freeze::UNFREEZE => "table.unfreeze",
        "RESTORE" => "table.restore",
        "VACUUM START" => action::VACUUM_START,
        "VACUUM END" => action::VACUUM_END,
        "ADD COLUMNS"
        | "DROP COLUMNS"
        | "RENAME COLUMN"
        | "CHANGE COLUMN"
        | "CHANGE COLUMNS"
        | "REPLACE COLUMNS"
        | "SET TBLPROPERTIES"
        | "UNSET TBLPROPERTIES"
        | "ADD CONSTRAINT"
        | "DROP CONSTRAINT"
        | "ALTER TABLE"
        | "UPDATE SCHEMA"
        | "UPGRADE PROTOCOL"
        | "ADD FEATURE"
        | "DROP FEATURE"
        | "CLUSTER BY"
        | "SET COLUMN COMMENT" => "table.alter",
        _ if version == Version::ZERO => "table.create",
        _ if operation.starts_with("CREATE") || operation.starts_with("REPLACE TABLE") => {
            "table.create"
        }
        _ => "commit",
    }
}

impl AuditEvent {
    fn of_row(row: AuditRow) -> AuditEvent {
        let AuditRow { id, entry } = row;
        AuditEvent {
            at_ms: entry.at,
            action: entry.action,
            table_id: entry.table_id,
            table: entry.table_name,
            version: None,
            user: entry.by.user,
            origin: entry.by.origin,
            program: entry.by.program,
            detail: entry
                .detail
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            token: entry.token,
            id: Some(id),
        }
    }

    fn of_commit(commit: &CommitRecord, table: &str) -> AuditEvent {
        let info = commit.commit_info.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let info: Map<String, Value> = info.unwrap_or_default();
        let text =
            |name: &str| info.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let operation = text("operation");
        let mut detail = json!({
            "files_added": commit.num_added,
            "files_removed": commit.num_removed,
            "bytes_added": commit.bytes_added,
            "bytes_removed": commit.bytes_removed,
        });
        if let Some(operation) = operation {
            detail["operation"] = operation.into();
        }
        AuditEvent {
            at_ms: commit.timestamp,
            action: action_of(operation, commit.version).to_owned(),
            table_id: Some(commit.table_id),
            table: Some(table.to_owned()),
            version: Some(commit.version),
            user: text("userName").map(str::to_owned),
            origin: None,
            program: text("engineInfo").map(str::to_owned),
            detail: Some(detail),
            token: commit.token.clone(),
            id: None,
        }
    }
}

impl AuditQuery {
    /// Whether a commit may be wanted.
    fn wants_commits(&self) -> bool {
        let any = |actions: &[String]| actions.iter().any(|a| OF_COMMITS.contains(&a.as_str()));
        !self.no_commits && (self.actions.is_empty() || any(&self.actions))
    }

    /// Whether an event of a commit is wanted. Its table and time are.
    fn takes(&self, event: &AuditEvent) -> bool {
        (self.actions.is_empty() || self.actions.contains(&event.action))
            && (self.user.is_none() || self.user == event.user)
    }
}

impl Db {
    /// What was done: the rows of the audit and the commits of all tables, dropped ones too, by time. It is read as it
    /// is asked for. What is in memory is bounded, but for some 200 bytes a table.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// use deltalakedb::audit::AuditQuery;
    /// use futures::TryStreamExt;
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// let events: Vec<_> = db.audit(AuditQuery::default()).await?.try_collect().await?;
    /// assert!(events.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `TableNotFound` if there is no such table and nothing is known of one; `Unsupported` where the database keeps no
    /// audit (SQL Server); those of the database.
    pub async fn audit(&self, query: AuditQuery) -> Result<BoxStream<'static, Result<AuditEvent>>> {
        let retry = Retry::of(self.catalog());
        let mut filter = AuditFilter {
            actions: query.actions.clone(),
            user: query.user.clone(),
            since: query.since,
            until: query.until,
            ..AuditFilter::default()
        };
        let mut tables = Vec::new();
        match &query.table {
            None if !query.wants_commits() => {}
            None => {
                for state in [TableState::Active, TableState::Dropped] {
                    let list = TableFilter { namespace: None, state: Some(state) };
                    let mut list = self.tables(list);
                    while let Some(table) = list.try_next().await? {
                        tables.push(table);
                    }
                }
            }
            Some(TableRef::Id(id)) => {
                filter.table_ids.push(*id);
                let table = TableRef::Id(*id);
                tables.extend(retry.repeat(|| self.reader().get_table(&table)).await?);
            }
            Some(TableRef::Name(name)) => {
                filter.table_name = Some(name.to_string());
                tables = self.ever_named(name).await?;
                // Of more, rows from before they had the name are left out.
                let ids = tables.iter().map(|table| table.id).take(AuditFilter::MOST);
                filter.table_ids = ids.collect();
            }
        }
        let first =
            retry.repeat(|| self.reader().audit_list(&filter, query.order, None, 1)).await?;
        if let (Some(table), true, true) = (&query.table, tables.is_empty(), first.items.is_empty())
        {
            let of_table = AuditFilter {
                table_ids: filter.table_ids.clone(),
                table_name: filter.table_name.clone(),
                ..AuditFilter::default()
            };
            let any =
                retry.repeat(|| self.reader().audit_list(&of_table, query.order, None, 1)).await?;
            if any.items.is_empty() {
                return Err(CatalogError::TableNotFound(table.to_string()));
            }
        }
        if !query.wants_commits() {
            tables.clear();
        }
        tables.retain(|table| table.state != TableState::Importing);
        let source = Source { backend: self.reader().clone(), retry, query, filter };
        Ok(Merge::new(source, &tables).events())
    }

    /// The live table of a name, and the dropped ones that had it.
    async fn ever_named(&self, name: &TableName) -> Result<Vec<TableRecord>> {
        let mut found = Vec::new();
        for state in [TableState::Active, TableState::Dropped] {
            let namespace = Some(name.namespace().to_owned());
            let mut list = self.tables(TableFilter { namespace, state: Some(state) });
            while let Some(table) = list.try_next().await? {
                if table.name == *name {
                    found.push(table);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
