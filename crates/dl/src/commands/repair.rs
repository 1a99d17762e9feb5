//! `dl repair`

use clap::Args;
use deltalakedb::core::model::MirrorMode;
use deltalakedb::mirror::repair::{self, Histories, HistoryLine};
use deltalakedb::view::{self, TableView};

use crate::context::Context;
use crate::failure::{Result, exit};
use crate::output::plural;
use crate::publishing;

/// Arguments of `dl repair`.
#[derive(Debug, Args)]
#[command(after_help = "\
For a table in whose log another program has committed all the same. Without an option it shows both
histories from where they part, and changes nothing; the exit code is then 2 if they do part.

--adopt    takes the foreign commits in, where the catalog has nothing at their versions
--rebase   puts the catalog's commits on top of the foreign ones, if none conflicts with one of
           them; the table gets a new id, and the old one is dropped with its history
--detach   leaves the log to others: the table stays in the catalog, unpublished

Keep other writers out afterwards: `dl cutover`.

Examples:
  dl repair sales.orders
  dl repair sales.orders --adopt
  dl repair sales.orders --rebase")]
pub(crate) struct Repair {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Take foreign commits into the catalog
    #[arg(long, conflicts_with_all = ["rebase", "detach"])]
    adopt: bool,
    /// Put the catalog's commits on top of foreign ones
    #[arg(long, conflicts_with = "detach")]
    rebase: bool,
    /// Leave the log to others
    #[arg(long)]
    detach: bool,
}

impl Repair {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let (db, table) = context.table(&self.table).await?;
        if self.adopt {
            let versions = repair::adopt(&db, &table).await?;
            let record = db.clone().on_primary().catalog().table(&table).await?;
            publishing::after_commit(context, &db, &[record.id]).await;
            if context.out.is_json() {
                context.out.document(&versions)?;
            } else {
                let count = u64::try_from(versions.len()).unwrap_or(u64::MAX);
                context.out.say(format!(
                    "Adopted {} of '{}'.",
                    plural(count, "foreign commit"),
                    record.name
                ))?;
            }
            return Ok(exit::OK);
        }
        if self.rebase {
            context.to_go_on("the same command goes on from there");
            let report = repair::rebase(&db, &table, &context.progress).await?;
            publishing::after_commit(context, &db, &[report.table_id]).await;
            if context.out.is_json() {
                context.out.document(&view::plain(&report))?;
            } else {
                let count = u64::try_from(report.moved.len()).unwrap_or(u64::MAX);
                let to = report.moved.last().map_or(report.fork, |(_, to)| *to);
                context.out.say(format!(
                    "{} of '{}' now follow the foreign ones, up to version {to}. The table as it \
                     was is kept, dropped, under id {}.",
                    plural(count, "commit"),
                    report.name,
                    report.old_id
                ))?;
            }
            return Ok(exit::OK);
        }
        if self.detach {
            let record = repair::detach(&db, &table).await?;
            if context.out.is_json() {
                context.out.document(&TableView::from(&record))?;
            } else {
                context.out.say(format!(
                    "Publishing of '{}' is off: its commits stay in the catalog, and the log at {} \
                     is others'.",
                    record.name, record.location
                ))?;
            }
            return Ok(exit::OK);
        }
        let histories = repair::histories(&db, &table).await?;
        let code = if histories.fork.is_some() { exit::DRIFT } else { exit::OK };
        if context.out.is_json() {
            context.out.document(&view::plain(&histories))?;
        } else {
            show(context, &histories)?;
        }
        Ok(code)
    }
}

fn show(context: &Context, both: &Histories) -> Result<()> {
    let Some(fork) = both.fork else {
        return context.out.say(format!(
            "The log of '{}' has nothing that the catalog does not have.{}",
            both.name,
            if both.mirror == MirrorMode::Diverged {
                format!(" `dl mirror retry {}` publishes again.", both.name)
            } else {
                String::new()
            }
        ));
    };
    context.out.say(format!("'{}' parts at version {fork}.", both.name))?;
    for (who, lines) in [("The catalog", &both.catalog), ("The log", &both.log)] {
        if lines.is_empty() {
            context.out.say(format!("{who} has nothing there."))?;
            continue;
        }
        context.out.say(format!("{who}:"))?;
        for line in lines {
            context.out.say(format!("  {}", describe(line)))?;
        }
    }
    let name = &both.name;
    context.out.hint(if both.can_adopt() {
        format!("`dl repair {name} --adopt` takes the foreign commits in, --detach leaves the log to others.")
    } else {
        format!(
            "`dl repair {name} --rebase` puts the catalog's commits on top, if they do not conflict; \
             --detach leaves the log to others."
        )
    });
    Ok(())
}

fn describe(line: &HistoryLine) -> String {
    match &line.error {
        Some(error) => format!("{:>6}  {error}", line.version),
        None => format!(
            "{:>6}  {:<16} +{} -{} files  {}",
            line.version,
            line.operation.as_deref().unwrap_or("?"),
            line.adds,
            line.removes,
            line.engine.as_deref().unwrap_or("")
        ),
    }
}
