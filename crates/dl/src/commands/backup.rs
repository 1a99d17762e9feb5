//! `dl backup`, `dl backup list`, `dl backup verify`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use deltalakedb::backup::{
    self, BackupOptions, BackupReport, Keep, Listing, Place, Pruned, Set, SetId, Verified,
};
use deltalakedb::view;
use serde_json::json;

use crate::context::{Context, key_values};
use crate::failure::{Failure, Result, exit};
use crate::output::{count, count_of, plural, size};
use crate::time;

/// Arguments of `dl backup`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Writers and workers go on meanwhile. Each table is backed up to one version, and a transaction over
several tables is in for all of them or for none. Commits never change: the first backup is a full
one, and each later one holds what is new. A backup that was broken off leaves no set; the same
command again begins anew.

In it: tables with their ids, names, states, every commit with its bytes and time, tokens, what is
published. Not in it: data files, passwords, tables that an unfinished import holds.

--pages copies the file of a SQLite catalog by SQLite's own backup, for who wants the file itself.

Examples:
  dl backup /backups/lake
  dl backup s3://bucket/lake --storage-option region=eu-central-1 --keep 30d
  dl backup /backups/lake --full --keep 4
  dl backup --pages /backups/catalog.db"
)]
pub(crate) struct Backup {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder or URL of an object store that the sets of the backup are in
    #[arg(required_unless_present = "pages")]
    target: Option<String>,
    /// Back up everything, also what the set before has
    #[arg(long)]
    full: bool,
    /// Delete older sets afterwards: so many of the newest (7) or those of a time (30d, 12h) are kept,
    /// with the sets that they go on from
    #[arg(long, value_name = "N|AGE")]
    keep: Option<String>,
    /// Copy the file of a SQLite catalog to this new file, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "full", "keep", "storage_options"])]
    pages: Option<PathBuf>,
    #[command(flatten)]
    store: StoreOptions,
}

/// Options of the object store.
#[derive(Debug, Args)]
pub(super) struct StoreOptions {
    /// Option of the object store; env:VARIABLE or file:/path in place of a value is looked up
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sets of a backup
    List(List),
    /// Read every object of a backup, and check it
    Verify(Verify),
}

/// Arguments of `dl backup list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl backup list /backups/lake
  dl backup list s3://bucket/lake --format json")]
struct List {
    /// Folder or URL of the backup
    target: String,
    #[command(flatten)]
    store: StoreOptions,
}

/// Arguments of `dl backup verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads each object of a set and of those that it goes on from: checksums, sizes, counts, the text of
each commit, and that no version is missing. Exit code 1 if something is wrong.

Examples:
  dl backup verify /backups/lake
  dl backup verify /backups/lake --set 20260131T235959999Z-0123abcd")]
struct Verify {
    /// Folder or URL of the backup
    target: String,
    /// Only this set, with those that it goes on from
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    #[command(flatten)]
    store: StoreOptions,
}

impl StoreOptions {
    /// Opens the place of a backup.
    pub(super) fn open(&self, target: &str) -> Result<Place> {
        Ok(Place::open(target, &key_values("--storage-option", &self.storage_options)?)?)
    }
}

impl Backup {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        match &self.command {
            Some(Command::List(list)) => return list.run(context).await,
            Some(Command::Verify(verify)) => return verify.run(context).await,
            None => {}
        }
        if let Some(file) = &self.pages {
            return pages(context, file).await;
        }
        let Some(target) = &self.target else {
            return Err(Failure::invalid("give a folder or a URL to back up to"));
        };
        let keep: Option<Keep> = self.keep.as_deref().map(str::parse).transpose()?;
        let place = self.store.open(target)?;
        context.to_go_on("no set was made; the same command again begins anew");
        let db = context.db().await?;
        let options = BackupOptions { full: self.full, ..BackupOptions::default() };
        let report = db.backup(&place, &options, &context.progress).await?;
        let pruned = match keep {
            Some(keep) => backup::prune(&place, keep, db.clock().now()).await?,
            None => Pruned::default(),
        };
        if context.out.is_json() {
            let mut value = view::plain(&report);
            value["target"] = json!(place.describe());
            value["deleted"] = json!(pruned.sets);
            context.out.document(&value)?;
        } else {
            say(context, &report, &place, &pruned)?;
        }
        Ok(exit::OK)
    }
}

fn say(context: &Context, report: &BackupReport, place: &Place, pruned: &Pruned) -> Result<()> {
    for name in &report.left_out {
        context.out.warn(format!("'{name}' was left out: its import is not finished"));
    }
    context.out.say(format!(
        "Backed up {} ({} in this set, {}) to {}.",
        plural(report.counts.tables, "table"),
        plural(report.counts.commits, "commit"),
        size(report.size_bytes),
        place.describe()
    ))?;
    context.out.say(match &report.parent {
        Some(parent) => format!("Set {} goes on from {parent}.", report.set),
        None => format!("Set {} is a full one.", report.set),
    })?;
    for set in &pruned.sets {
        context.out.say(format!("Deleted set {set}."))?;
    }
    for set in &report.cleaned {
        context.out.say(format!("Deleted what the unfinished set {set} had left."))?;
    }
    Ok(())
}

impl List {
    async fn run(&self, context: &Context) -> Result<u8> {
        let place = self.store.open(&self.target)?;
        let listing = place.list().await?;
        if context.out.is_json() {
            context.out.document(&document(&listing))?;
            return Ok(exit::OK);
        }
        let header = &["set", "kind", "taken (UTC)", "tables", "commits", "size", "state"];
        let mut list = context.out.list(header, &[3, 4, 5]);
        for set in &listing.sets {
            list.push(&line(set), || {
                vec![
                    set.id().to_string(),
                    kind(set).to_owned(),
                    time::show(set.manifest.taken_at),
                    count(set.manifest.counts.tables),
                    count(set.manifest.counts.commits),
                    size(set.size_bytes()),
                    set.broken.as_ref().map_or("whole", |_| "BROKEN").to_owned(),
                ]
            })?;
        }
        list.end()?;
        for set in &listing.sets {
            if let Some(why) = &set.broken {
                context.out.warn(format!("set {} cannot be restored: {why}", set.id()));
            }
        }
        for why in listing.unreadable.values() {
            context.out.warn(why);
        }
        for (set, unfinished) in &listing.unfinished {
            context.out.warn(format!(
                "set {set} is not finished ({}): a backup is writing it, or was broken off",
                size(unfinished.size_bytes)
            ));
        }
        Ok(exit::OK)
    }
}

fn kind(set: &Set) -> &'static str {
    if set.manifest.parent.is_some() { "incremental" } else { "full" }
}

fn line(set: &Set) -> serde_json::Value {
    json!({
        "set": set.id(),
        "kind": kind(set),
        "parent": set.manifest.parent.as_ref().map(|parent| &parent.set),
        "taken_at": set.manifest.taken_at,
        "finished_at": set.manifest.finished_at,
        "counts": set.manifest.counts,
        "objects": set.manifest.objects().count() + 1,
        "size_bytes": set.size_bytes(),
        "broken": set.broken,
    })
}

fn document(listing: &Listing) -> serde_json::Value {
    let sets: Vec<_> = listing.sets.iter().map(line).collect();
    let unfinished: Vec<&SetId> = listing.unfinished.keys().collect();
    json!({ "sets": sets, "unreadable": listing.unreadable, "unfinished": unfinished })
}

impl Verify {
    async fn run(&self, context: &Context) -> Result<u8> {
        let set: Option<SetId> = self.set.as_deref().map(str::parse).transpose()?;
        let place = self.store.open(&self.target)?;
        let found = backup::verify(&place, set.as_ref(), &context.progress).await?;
        if found.is_empty() {
            return Err(Failure::invalid(format!("there is no backup in '{}'", place.describe())));
        }
        let wrong = found.iter().filter(|one| !one.problems.is_empty()).count();
        if context.out.is_json() {
            context.out.document(&found)?;
        } else {
            for one in &found {
                show(context, one)?;
            }
            let sets = plural(count_of(found.len()), "set");
            context.out.say(if wrong == 0 {
                format!("{sets} verified: all that was written is there.")
            } else {
                format!("{wrong} of {sets} are damaged: back up again, with --full.")
            })?;
        }
        Ok(if wrong == 0 { exit::OK } else { exit::ERROR })
    }
}

fn show(context: &Context, one: &Verified) -> Result<()> {
    for problem in &one.problems {
        context.out.error(&Failure::Mismatch(format!("set {}: {problem}", one.set)));
    }
    context.out.say(format!(
        "{}: {}, {}, {}",
        one.set,
        plural(count_of(one.objects), "object"),
        plural(one.counts.commits, "commit"),
        size(one.size_bytes)
    ))
}

/// Copies the file of a SQLite catalog.
#[cfg(feature = "sqlite")]
async fn pages(context: &Context, file: &std::path::Path) -> Result<u8> {
    let uri = context.catalog_uri()?;
    let bytes = backup::copy_pages(&uri, file).await?;
    if context.out.is_json() {
        let file = file.display().to_string();
        context
            .out
            .document(&json!({ "catalog": uri.to_string(), "file": file, "size_bytes": bytes }))?;
    } else {
        context.out.say(format!("Copied {uri} to '{}' ({}).", file.display(), size(bytes)))?;
    }
    Ok(exit::OK)
}

#[cfg(not(feature = "sqlite"))]
async fn pages(_: &Context, _: &std::path::Path) -> Result<u8> {
    std::future::ready(Err(Failure::invalid("this program was built without SQLite"))).await
}
