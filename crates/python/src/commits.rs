//! What became of commits, as Python gets it.

use deltalakedb::core::catalog::CommitReport;
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::{Db, MirrorMode, TableId, TableRef};
use serde_json::{Value, json};

use crate::failure::Result;

/// A commit as Python gets it.
pub(crate) async fn commit_view(db: &Db, report: &CommitReport) -> Result<Value> {
    let mut tables = Vec::with_capacity(report.tables.len());
    for written in &report.tables {
        let record = db.catalog().table(&TableRef::Id(written.table_id)).await?;
        tables.push(json!({
            "table": record.name.to_string(),
            "id": written.table_id,
            "version": written.version,
            "timestamp_ms": written.timestamp,
        }));
    }
    Ok(json!({
        "token": report.token.as_str(),
        "replayed": report.replayed,
        "attempts": report.attempts,
        "tables": tables,
    }))
}

/// Publishes tables right after a commit. What goes wrong is told: the commit stands.
pub(crate) async fn published(db: &Db, config: PublisherConfig, tables: &[TableId]) -> Vec<String> {
    let publisher = db.publisher(config);
    let mut warnings = Vec::new();
    for id in tables {
        let name = match db.catalog().table(&TableRef::Id(*id)).await {
            Ok(table) if table.mirror == MirrorMode::Off => continue,
            Ok(table) => table.name.to_string(),
            Err(_) => id.to_string(),
        };
        let trouble = match publisher.run_once(Some(*id)).await {
            Err(error) => error.to_string(),
            Ok(report) => match report.failures.first() {
                Some(issue) => issue.error.clone(),
                None => continue,
            },
        };
        warnings.push(format!(
            "the commit to '{name}' stands, and is not published yet: {trouble}. Table.publish() or a \
             worker (`dl mirror run`) catches up"
        ));
    }
    warnings
}
