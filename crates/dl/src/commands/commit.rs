//! `dl commit`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::Path;

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, CommitReport, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::ids::{CommitToken, TableId, TableRef, TimestampMs, Version};
use serde::Serialize;

use crate::context::{Context, shown};
use crate::failure::{Failure, Result};
use crate::publishing;
use crate::time;

/// Arguments of `dl commit`.
#[derive(Debug, Args)]
#[command(after_help = "\
The input is NDJSON: one action of the Delta protocol a line (add, remove, metaData, protocol, txn,
domainMetadata, commitInfo, cdc), as in a file of _delta_log/. All tables get their commit in one
transaction, or none does. A commitInfo is made where there is none.

A commit that only adds and read nothing (--blind) fits on any head. Any other is checked against
the commits since the version that was read (--read-version, else the head), by Delta's rules.

A token makes a retry safe: committing twice with the same one takes effect once.

Examples:
  dl commit sales.orders actions.json
  make-actions | dl commit sales.orders - --blind
  dl commit sales.orders delete.json --read-version 41 --operation DELETE
  dl commit --table sales.orders=orders.json --table sales.items=items.json --token load-2026-01-31")]
pub(crate) struct Commit {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    #[arg(required_unless_present = "tables", conflicts_with = "tables")]
    table: Option<String>,
    /// File with the actions; '-' is standard input
    #[arg(default_value = "-", value_name = "FILE")]
    file: String,
    /// A table and its file, for several tables in one transaction
    #[arg(long = "table", value_name = "TABLE=FILE")]
    tables: Vec<String>,
    /// Idempotency token: 1 to 128 printable ASCII characters
    #[arg(long)]
    token: Option<String>,
    /// Version that the writer read: N, or TABLE=N for each of several tables
    #[arg(long = "read-version", value_name = "N")]
    read_versions: Vec<String>,
    /// The writer read nothing: its files fit on any version
    #[arg(long)]
    blind: bool,
    /// Operation for the commitInfo that is made if the input has none
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
}

impl Commit {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let token = self.token.as_deref().map(CommitToken::new).transpose()?;
        let parts = self.parts()?;
        let read_versions = self.read_versions(&parts)?;
        let (db, tables) = context.tables(parts.iter().map(|(table, _)| table.as_str())).await?;
        if parts.iter().any(|(_, file)| file == "-") && std::io::stdin().is_terminal() {
            context.out.hint("Reading actions from standard input, up to its end (Ctrl-D).");
        }
        let mut changes = Vec::with_capacity(parts.len());
        for ((name, file), table) in parts.iter().zip(tables) {
            let (origin, ndjson) = read_actions(file).await?;
            changes.push(TableChange {
                target: ChangeTarget::Existing {
                    table,
                    read_version: read_versions.get(name).copied(),
                },
                ndjson,
                origin,
                reads: if self.blind { Reads::default() } else { Reads::whole_table() },
                operation: self.operation.clone(),
            });
        }
        context.to_go_on(match &token {
            Some(_) => "the same command again takes effect at most once, by its token".to_owned(),
            None => "the commit took effect as a whole or not at all; `dl history` tells. With \
                     --token the same command can be repeated without looking"
                .to_owned(),
        });
        let report = db.commit(CommitBatch { token, tables: changes }).await?;
        finish(context, &db, Some(report), None, !self.no_publish).await
    }

    /// Tables and their files.
    fn parts(&self) -> Result<Vec<(String, String)>> {
        if let Some(table) = &self.table {
            return Ok(vec![(table.clone(), self.file.clone())]);
        }
        let parts: Vec<_> =
            self.tables.iter().map(|text| split_pair(text)).collect::<Result<_>>()?;
        if parts.iter().filter(|(_, file)| file == "-").count() > 1 {
            return Err(Failure::invalid("only one table's actions can come from standard input"));
        }
        Ok(parts)
    }

    fn read_versions(&self, parts: &[(String, String)]) -> Result<BTreeMap<String, Version>> {
        let mut versions = BTreeMap::new();
        for text in &self.read_versions {
            let (table, number) = match (text.rsplit_once('='), parts) {
                (Some((table, number)), _) => (table.to_owned(), number),
                (None, [(only, _)]) => (only.clone(), text.as_str()),
                (None, _) => {
                    return Err(Failure::invalid(
                        "with several tables, give --read-version as TABLE=N for each",
                    ));
                }
            };
            if !parts.iter().any(|(known, _)| *known == table) {
                return Err(Failure::invalid(format!(
                    "--read-version names '{}', which is not among the tables of the commit",
                    shown(&table)
                )));
            }
            let version = number.parse().map_err(|_| {
                Failure::invalid(format!(
                    "--read-version takes N or TABLE=N, and '{}' is not a version number",
                    shown(number)
                ))
            })?;
            if versions.insert(table.clone(), version).is_some() {
                return Err(Failure::invalid(format!(
                    "--read-version for '{}' stands twice",
                    shown(&table)
                )));
            }
        }
        Ok(versions)
    }
}

/// Splits `TABLE=FILE`. Both may contain '=': the first place where the rest is a file counts.
fn split_pair(text: &str) -> Result<(String, String)> {
    let mut places = text.match_indices('=').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let first = places.clone().next();
    places
        .find(|(_, file)| *file == "-" || Path::new(file).exists())
        .or(first)
        .filter(|(table, file)| !table.is_empty() && !file.is_empty())
        .map(|(table, file)| (table.to_owned(), file.to_owned()))
        .ok_or_else(|| Failure::invalid(format!("--table takes TABLE=FILE, not '{}'", shown(text))))
}

/// Bytes of a file or of standard input, and what to call them.
async fn read_actions(file: &str) -> Result<(String, Vec<u8>)> {
    if file == "-" {
        let read = tokio::task::spawn_blocking(|| {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = read
            .await
            .map_err(std::io::Error::other)
            .and_then(|read| read)
            .map_err(|e| Failure::io("cannot read standard input", e))?;
        return Ok(("standard input".to_owned(), bytes));
    }
    let bytes =
        tokio::fs::read(file).await.map_err(|e| Failure::io(format!("cannot read '{file}'"), e))?;
    Ok((file.to_owned(), bytes))
}

/// What a commit wrote.
#[derive(Debug, Serialize)]
struct Committed {
    /// None if there was nothing to commit.
    token: Option<CommitToken>,
    replayed: bool,
    attempts: u32,
    tables: Vec<CommittedTable>,
    /// What was done, by its name.
    #[serde(flatten)]
    done: BTreeMap<&'static str, serde_json::Value>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CommittedTable {
    table: String,
    id: TableId,
    version: Version,
    timestamp_ms: TimestampMs,
}

/// What a command did besides committing.
#[derive(Debug)]
pub(super) struct Done {
    name: &'static str,
    value: serde_json::Value,
    text: String,
}

impl Done {
    /// `value` is its JSON form, under this name; `text` what people read.
    pub(super) fn new(name: &'static str, value: serde_json::Value, text: &str) -> Done {
        Done { name, value, text: text.to_owned() }
    }
}

/// Publishes what a commit wrote, if wanted, and reports it.
pub(super) async fn finish(
    context: &Context,
    db: &Db,
    report: Option<CommitReport>,
    done: Option<Done>,
    publish: bool,
) -> Result<()> {
    let written = report.as_ref().map(|r| r.tables.as_slice()).unwrap_or_default();
    let mut tables = Vec::with_capacity(written.len());
    for written in written {
        let record = db.catalog().table(&TableRef::Id(written.table_id)).await?;
        tables.push(CommittedTable {
            table: record.name.to_string(),
            id: written.table_id,
            version: written.version,
            timestamp_ms: written.timestamp,
        });
    }
    let warnings = if publish {
        let ids: Vec<TableId> = tables.iter().map(|t| t.id).collect();
        publishing::after_commit(context, db, &ids).await
    } else {
        Vec::new()
    };
    if context.out.is_json() {
        return context.out.document(&Committed {
            replayed: report.as_ref().is_some_and(|r| r.replayed),
            attempts: report.as_ref().map_or(0, |r| r.attempts),
            token: report.map(|r| r.token),
            tables,
            done: done.into_iter().map(|done| (done.name, done.value)).collect(),
            warnings,
        });
    }
    let replayed = report.is_some_and(|r| r.replayed);
    if let Some(done) = &done {
        context.out.say(&done.text)?;
    }
    for table in &tables {
        context.out.say(format!(
            "'{}' is at version {} ({} UTC){}",
            table.table,
            table.version,
            time::show(table.timestamp_ms),
            if replayed { "; this token was committed before" } else { "" }
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_where_the_file_is() {
        assert_eq!(split_pair("a.b=-").unwrap(), ("a.b".into(), "-".into()));
        assert_eq!(split_pair("a.b=x/y=z.json").unwrap(), ("a.b".into(), "x/y=z.json".into()));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("day=1.json");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        let url = "delta+sql://sqlite://c.db/t?readers=1";
        assert_eq!(split_pair(&format!("{url}={file}")).unwrap(), (url.into(), file.into()));
        for bad in ["", "a.b", "a.b=", "=x"] {
            assert!(split_pair(bad).is_err(), "{bad}");
        }
    }
}
