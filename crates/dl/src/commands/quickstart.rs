//! `dl quickstart`: the whole product in a folder of its own.

mod data;
mod shop;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use deltalakedb::core::env::Progress;
use deltalakedb::core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb::mirror::diff::{DiffOptions, Verdict, diff};
use deltalakedb::mirror::kernel::count_rows;
use deltalakedb::mirror::store::LOG_FOLDER;
use deltalakedb::{CatalogUri, Db};
use futures::TryStreamExt;
use serde::Serialize;

use super::append::rows_of;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count, plural};
use crate::publishing;
use shop::Shop;

/// Arguments of `dl quickstart`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes a folder with a SQLite catalog and two Delta tables, shop.customers and shop.orders; commits
to both in one transaction, and some more; publishes both logs with a checkpoint; reads them back
with the Delta kernel from the files alone, and compares. Running it again adds nothing: it picks up
where an earlier run was stopped, and checks again.

Examples:
  dl quickstart
  dl quickstart /tmp/lake
  dl quickstart --format json")]
pub(crate) struct Quickstart {
    /// Folder to make
    #[arg(default_value = "quickstart", value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    folder: String,
    catalog: String,
    transactions: u64,
    new_transactions: u64,
    published_versions: u64,
    tables: Vec<Checked>,
}

/// A table, as the catalog and as the kernel see it.
#[derive(Debug, Serialize)]
struct Checked {
    table: String,
    id: TableId,
    location: String,
    version: Version,
    checkpoint: Version,
    num_files: u64,
    rows_in_catalog: u64,
    rows_read_by_kernel: u64,
    diff: Verdict,
}

impl Quickstart {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let out = context.out;
        let trouble = |e| Failure::io(format!("cannot make folder '{}'", self.folder.display()), e);
        fs::create_dir_all(&self.folder).map_err(trouble)?;
        let folder = std::path::absolute(&self.folder).map_err(trouble)?;
        let uri = CatalogUri::sqlite(folder.join("catalog.db"));
        let db = context.create(&uri).await?;
        out.say(format!("Catalog    {uri}"))?;

        let shop = Shop::new(&db, &folder)?;
        shop.write_data(&context.progress)?;
        out.say(format!(
            "Data       {} of Parquet in customers/ and orders/ (by {})",
            plural(data::number_of_files(), "file"),
            data::ORDERS_PARTITION
        ))?;

        let transactions = shop.commit_all(&context.progress).await?;
        let made = transactions.iter().filter(|new| **new).count();
        let (all, made) = (to_u64(transactions.len()), to_u64(made));
        out.say(format!(
            "Commits    {}, {} of them over both tables at once{}",
            plural(all, "transaction"),
            count(all - 1),
            match made {
                0 => " (all were there already)".to_owned(),
                n if n < all => format!(" ({} were there already)", count(all - n)),
                _ => String::new(),
            }
        ))?;

        let report = publishing::until_done(context, &db, None).await?;
        if let Some(issue) = report.failures.first() {
            return Err(Failure::Mismatch(publishing::describe(issue)));
        }
        out.say(if report.published == 0 {
            "Published  all was there already".to_owned()
        } else {
            format!(
                "Published  {} and {} to customers/{LOG_FOLDER} and orders/{LOG_FOLDER}",
                plural(report.published, "version"),
                plural(report.checkpoints, "checkpoint"),
            )
        })?;

        let mut tables = Vec::new();
        for name in shop.names() {
            context.progress.begin("Reading back", "tables", None);
            let checked = check(context, &db, name).await;
            context.progress.end();
            tables.push(checked?);
        }
        if out.is_json() {
            return out.document(&Report {
                folder: folder.display().to_string(),
                catalog: uri.to_string(),
                transactions: all,
                new_transactions: made,
                published_versions: report.published,
                tables,
            });
        }
        out.say("Read back  by the Delta kernel, from the files alone:\n")?;
        let mut list = out.list(
            &["table", "version", "checkpoint", "files", "rows (catalog)", "rows (kernel)", "diff"],
            &[1, 2, 3, 4, 5],
        );
        for table in &tables {
            list.push(table, || {
                vec![
                    table.table.clone(),
                    table.version.to_string(),
                    table.checkpoint.to_string(),
                    count(table.num_files),
                    count(table.rows_in_catalog),
                    count(table.rows_read_by_kernel),
                    "parity".to_owned(),
                ]
            })?;
        }
        list.end()?;
        out.say(next_steps(&uri, &self.folder))
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Compares what the catalog says of a table with what the kernel reads.
async fn check(context: &Context, db: &Db, name: &TableName) -> Result<Checked> {
    let snapshot = db.snapshot(&TableRef::Name(name.clone()), At::Head).await?;
    let mut rows = 0_u64;
    let mut files = db.files(snapshot.table.id, snapshot.version);
    while let Some(file) = files.try_next().await? {
        let deleted = file.add.deletion_vector.as_ref().map_or(0, |dv| dv.cardinality);
        rows += rows_of(&file.add).saturating_sub(u64::try_from(deleted).unwrap_or(0));
    }
    let location = &snapshot.table.location;
    let read = count_rows(location, &snapshot.table.storage_options).await?;
    if read != rows {
        return Err(Failure::Mismatch(format!(
            "table '{name}': the catalog has {rows} rows, the Delta kernel reads {read} in \
             {location}. They must be the same: this is a bug"
        )));
    }
    let compared =
        diff(db, &TableRef::Id(snapshot.table.id), DiffOptions::default(), &context.progress)
            .await?;
    if compared.verdict != Verdict::Parity {
        return Err(Failure::Mismatch(format!(
            "table '{name}': catalog and log differ. {}",
            compared.reasons.join(" ")
        )));
    }
    Ok(Checked {
        table: name.to_string(),
        id: snapshot.table.id,
        location: location.clone(),
        version: snapshot.version,
        checkpoint: last_checkpoint(name, location)?,
        num_files: snapshot.num_files,
        rows_in_catalog: rows,
        rows_read_by_kernel: read,
        diff: compared.verdict,
    })
}

/// Version that `_last_checkpoint` names.
fn last_checkpoint(name: &TableName, location: &str) -> Result<Version> {
    let missing =
        |why: String| Failure::Mismatch(format!("table '{name}' has no checkpoint: {why}"));
    let folder = url::Url::parse(location)
        .ok()
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| missing(format!("{location} is no folder of this machine")))?;
    let file = folder.join(LOG_FOLDER).join("_last_checkpoint");
    let text =
        fs::read_to_string(&file).map_err(|e| missing(format!("{}: {e}", file.display())))?;
    serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|hint| Version::new(hint.get("version")?.as_i64()?).ok())
        .ok_or_else(|| missing(format!("{} cannot be read", file.display())))
}

fn next_steps(uri: &CatalogUri, folder: &Path) -> String {
    // Cargo sets this for programs that it runs.
    let dl = if std::env::var_os("CARGO_MANIFEST_DIR").is_some() {
        "cargo run -q -p dl --"
    } else {
        "dl"
    };
    let folder = folder.display();
    format!(
        "\nEvery Delta reader sees the same tables in {folder}/customers and {folder}/orders.\n\
         Try next:\n  \
         export DELTA_DB_CONNECTION='{uri}'\n  \
         {dl} list\n  \
         {dl} show shop.orders\n  \
         {dl} files shop.orders --where \"order_date >= '2026-01-18' AND amount > 100\"\n  \
         {dl} history shop.orders --limit 5\n  \
         {dl} files shop.orders --version 1 --limit 5\n  \
         {dl} publish shop.orders --to {folder}/orders-copy\n  \
         {dl} --help"
    )
}
