//! Commands that read and write rows, with DataFusion and the `deltalake` crate (feature `sql`).

pub(super) mod delete;
pub(super) mod merge;
pub(super) mod optimize;
mod results;
mod source;
pub(super) mod sql;
mod text;
pub(super) mod update;
pub(super) mod write;

use clap::Args;
use delta::datafusion::error::DataFusionError;
use delta::datafusion::sql::sqlparser::ast::{AssignmentTarget, ObjectName, Statement};
use delta::datafusion::sql::sqlparser::dialect::GenericDialect;
use delta::datafusion::sql::sqlparser::parser::Parser;
use delta::{DeltaTable, DeltaTableError};
use deltalakedb::Db;
use deltalakedb::core::catalog::CommitReport;
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::{CommitToken, TableName, TableRef};
use deltalakedb::deltalake::{deltalake as delta, explain};
use deltalakedb::rows::quoted;
use serde_json::Value;

use super::commit::{Done, finish};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count, count_of, plural};

/// Options of every command that changes rows.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Idempotency token: 1 to 128 printable ASCII characters
    #[arg(long)]
    token: Option<String>,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
}

/// Which rows a command changes: nobody means all of them by saying nothing.
#[derive(Debug, Args)]
struct Rows {
    /// Rows for which this SQL condition is true
    #[arg(
        long = "where",
        value_name = "CONDITION",
        required_unless_present = "all",
        allow_hyphen_values = true
    )]
    condition: Option<String>,
    /// All rows
    #[arg(long, conflicts_with = "condition")]
    all: bool,
}

impl Change {
    fn token(&self) -> Result<Option<CommitToken>> {
        Ok(self.token.as_deref().map(CommitToken::new).transpose()?)
    }

    /// Says what the token was committed for before. Whether it was.
    async fn replayed(&self, context: &Context, db: &Db) -> Result<bool> {
        let Some(token) = self.token()? else { return Ok(false) };
        let Some(tables) = db.resolve(&token).await? else { return Ok(false) };
        let report = CommitReport { token, replayed: true, attempts: 0, tables };
        finish(context, db, Some(report), None, !self.no_publish).await?;
        Ok(true)
    }

    /// Changes a table that is there in one commit, and reports it.
    async fn run(
        &self,
        context: &Context,
        table: &str,
        work: impl AsyncFnOnce(&Db, &TableName, DeltaTable) -> Result<Option<Done>>,
    ) -> Result<()> {
        let (db, table) = context.table(table).await?;
        if self.replayed(context, &db).await? {
            return Ok(());
        }
        // By the name that it has now.
        let name = db.catalog().table(&table).await?.name;
        db.refuse_frozen_table(&table).await?;
        let transaction = db.transaction();
        let opened = transaction.table(&name).await.map_err(|e| failure(&name, e))?;
        if opened.version().is_none() {
            return Err(CatalogError::TableNotFound(name.to_string()).into());
        }
        context.to_go_on(
            "the change took effect as a whole or not at all; `dl history` tells. With --token the \
             same command can be repeated without looking",
        );
        let done = work(&db, &name, opened).await?;
        let report = transaction.commit_as(self.token()?).await?;
        finish(context, &db, report, done, !self.no_publish).await
    }
}

impl Done {
    /// With how many files went and came.
    fn files(name: &'static str, value: Value, text: &str, gone: usize, new: usize) -> Done {
        let (gone, new) = (count_of(gone), count_of(new));
        let files = match (gone, new) {
            (0, 0) => "no file changed".to_owned(),
            (gone, 0) => format!("{} removed", plural(gone, "file")),
            (0, new) => format!("{} written", plural(new, "file")),
            (gone, new) => format!("{} written in place of {}", plural(new, "file"), count(gone)),
        };
        Done::new(name, value, &format!("{text}: {files}."))
    }
}

/// The name of a table that may not be there yet.
async fn name_of(db: &Db, table: TableRef) -> Result<TableName> {
    match table {
        TableRef::Name(name) => Ok(name),
        TableRef::Id(id) => Ok(db.catalog().table(&TableRef::Id(id)).await?.name),
    }
}

/// An error of `deltalake`, with the table's name. One of the catalog's own stays what it is.
fn failure(table: &TableName, error: DeltaTableError) -> Failure {
    explain::operation(table, error).into()
}

/// An error of DataFusion. One of the catalog's own stays what it is.
fn query_failure(error: DataFusionError) -> Failure {
    explain::query(error).into()
}

/// Reads a piece of SQL by the statement that it is made part of.
fn parse_within(what: &str, text: &str, statement: &str) -> Result<Statement> {
    let bad = |why: String| Failure::invalid(format!("{what} '{text}': {why}"));
    let mut parsed = Parser::parse_sql(&GenericDialect {}, statement)
        .map_err(|e| bad(e.to_string().replace("sql parser error: ", "")))?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(bad("it is more than one statement".to_owned())),
    }
}

/// `a = 1, "b c" = a + 1` as columns and expressions.
fn assignments(what: &str, text: &str) -> Result<Vec<(String, String)>> {
    let Statement::Update(update) = parse_within(what, text, &format!("UPDATE t SET {text}"))?
    else {
        return Err(Failure::invalid(format!("{what} '{text}' is no list of assignments")));
    };
    if update.selection.is_some() || update.from.is_some() {
        return Err(Failure::invalid(format!(
            "{what} '{text}': only assignments, as in \"a = 1, b = a + 1\"; the condition goes into \
             --where"
        )));
    }
    let pairs = update.assignments.iter().map(|assignment| {
        Ok((target_column(what, &assignment.target)?, assignment.value.to_string()))
    });
    pairs.collect()
}

fn target_column(what: &str, target: &AssignmentTarget) -> Result<String> {
    match target {
        AssignmentTarget::ColumnName(name) => Ok(column(name)),
        AssignmentTarget::Tuple(_) => {
            Err(Failure::invalid(format!("{what}: columns are set one by one, not as a tuple")))
        }
    }
}

/// A column's name, each part quoted.
fn column(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(|part| part.as_ident()).map(|part| quoted(&part.value));
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_taken_apart() {
        let got = assignments("--set", r#"a = 1, "b c" = f(a, 'x,y=z') + 1"#).unwrap();
        let want = [("\"a\"", "1"), ("\"b c\"", "f(a, 'x,y=z') + 1")];
        assert_eq!(got, want.map(|(column, value)| (column.to_owned(), value.to_owned())));
        for bad in ["a", "a = ", "a = 1 WHERE b = 2", "a = 1; DROP TABLE t", "(a, b) = (1, 2)"] {
            let error = assignments("--set", bad).unwrap_err().to_string();
            assert!(error.contains("--set"), "{bad}: {error}");
        }
    }
}
