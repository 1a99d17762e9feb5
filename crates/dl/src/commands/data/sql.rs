//! `dl sql`

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use deltalakedb::deltalake::{CATALOG, explain};
use deltalakedb::{Config, Db};
use futures::TryStreamExt;

use super::query_failure;
use super::results::{Results, RowFormat};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count_of, plural};

/// Arguments of `dl sql`.
#[derive(Debug, Args)]
#[command(after_help = "\
Tables are namespace.table, or table alone in the namespace 'default', or catalog.namespace.table;
names are written as they are (upper and lower case differ). Behind a table may stand
  VERSION AS OF 12    TIMESTAMP AS OF '2026-01-31 12:00:00'
Without that all tables of a query are read as of one instant. Files that cannot hold rows for a
condition, by their partition or statistics, are left out by the catalog and never opened.
Queries only: rows are changed with `dl write`, `dl delete`, `dl update` and `dl merge`.

Examples:
  dl sql 'SELECT day, sum(amount) FROM sales.orders GROUP BY day ORDER BY day'
  dl sql 'SELECT * FROM sales.orders VERSION AS OF 3 WHERE id = 17' --to json
  dl sql --file report.sql --output report.parquet
  dl sql 'SELECT * FROM sales.orders o JOIN old.sales.orders p ON o.id = p.id' \\
     --attach old=sqlite:///backup/catalog.db
  dl sql 'SHOW TABLES'")]
pub(crate) struct Sql {
    /// The query; '-' is standard input
    #[arg(default_value = "-", value_name = "QUERY", conflicts_with = "file")]
    query: String,
    /// File with the query
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Format of the rows [default: by the name of --output, else table; json with --format json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<RowFormat>,
    /// File for the rows; it is replaced when all of them are there
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Another catalog, and the name for it in the query
    #[arg(long, value_name = "NAME=URL")]
    attach: Vec<String>,
}

impl Sql {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let query = self.query().await?;
        let format = self.format(context)?;
        let mut attached = Vec::new();
        for text in &self.attach {
            let (name, url) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty() && *name != CATALOG)
                .ok_or_else(|| {
                    Failure::invalid(format!(
                        "--attach takes NAME=URL, and the name '{CATALOG}' is taken"
                    ))
                })?;
            let uri = Config::default().catalog(Some(url))?;
            context.warn_of_password(&uri);
            attached.push((name, Db::open(&uri).await?));
        }
        let mut queries = context.db().await?.queries();
        for (name, db) in attached {
            queries = queries.with_catalog(name, db.catalog().clone());
        }
        let rows = queries.query(&query).await.map_err(query_failure)?;
        let tables = explain::tables(rows.logical_plan());
        let failed = |error| Failure::from(explain::rows(&tables, error));
        let mut rows = rows.execute_stream().await.map_err(failed)?;
        let mut results = Results::new(context, format, self.output.as_deref(), &rows.schema())?;
        let mut number = 0;
        let written: Result<()> = async {
            while let Some(batch) = rows.try_next().await.map_err(failed)? {
                number += batch.num_rows();
                results.push(&batch)?;
            }
            Ok(())
        }
        .await;
        if let Err(failure) = written {
            results.abandon();
            return Err(failure);
        }
        results.end()?;
        let number = plural(count_of(number), "row");
        match &self.output {
            Some(path) => context.out.hint(format!("{number} in '{}'", path.display())),
            None if format == RowFormat::Table => context.out.hint(number),
            None => {}
        }
        Ok(())
    }

    fn format(&self, context: &Context) -> Result<RowFormat> {
        match (self.to, &self.output) {
            (Some(format), _) => Ok(format),
            (None, Some(path)) => RowFormat::of(path).ok_or_else(|| {
                Failure::invalid(format!(
                    "the name of '{}' does not say which format it is to have: give --to",
                    path.display()
                ))
            }),
            (None, None) if context.out.is_json() => Ok(RowFormat::Json),
            (None, None) => Ok(RowFormat::Table),
        }
    }

    async fn query(&self) -> Result<String> {
        if let Some(file) = &self.file {
            let text = tokio::fs::read_to_string(file).await;
            return text.map_err(|e| Failure::io(format!("cannot read '{}'", file.display()), e));
        }
        if self.query != "-" {
            return Ok(self.query.clone());
        }
        if std::io::stdin().is_terminal() {
            return Err(Failure::invalid(
                "give a query: dl sql 'SELECT * FROM namespace.table LIMIT 10'",
            ));
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
        });
        let text = read.await.map_err(std::io::Error::other).and_then(|read| read);
        text.map_err(|e| Failure::io("cannot read standard input", e))
    }
}
