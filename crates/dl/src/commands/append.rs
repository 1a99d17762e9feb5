//! `dl append`

use std::collections::BTreeSet;
use std::fs;
use std::path::Path as LocalPath;

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::action::{Action, Add};
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, CommitReport, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::env::Progress;
use deltalakedb::core::ids::{At, CommitToken, TableRef};
use deltalakedb::core::model::Snapshot;
use deltalakedb::mirror::store::{Store, open_store};
use deltalakedb::parquet_files::{describe_files, locate};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;

use super::commit::{Done, finish};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count_of, plural, size};

/// Footers that are read between two steps of the progress bar.
const FILES_AT_ONCE: usize = 500;

/// Arguments of `dl append`.
#[derive(Debug, Args)]
#[command(after_help = "\
The files stay where they are: below the table's root, with partition values in their folders
(day=2026-01-31/…). Only footers are read: the schema is compared with the table's, statistics are
taken from the row groups. A folder stands for the *.parquet files in it, at any depth; a pattern
may have *, ** and ?. Files that are in the table already are passed over, so that a second run
adds nothing.

Examples:
  dl append sales.orders /lake/orders/day=2026-01-31/part-0.parquet
  dl append sales.orders /lake/orders                  every file that is not in it yet
  dl append sales.orders '/lake/orders/day=2026-02-*/*.parquet' --token load-2026-02")]
pub(crate) struct Append {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Parquet files, folders or patterns below the table's root
    #[arg(required = true, value_name = "FILE|DIR|GLOB")]
    files: Vec<String>,
    /// Idempotency token: 1 to 128 printable ASCII characters
    #[arg(long)]
    token: Option<String>,
    /// Check the files and say what would be added, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
}

impl Append {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let token = self.token.as_deref().map(CommitToken::new).transpose()?;
        let (db, table) = context.table(&self.table).await?;
        if let Some(token) = &token
            && let Some(tables) = db.resolve(token).await?
        {
            let report = CommitReport { token: token.clone(), replayed: true, attempts: 0, tables };
            return finish(context, &db, Some(report), None, !self.no_publish).await;
        }
        let snapshot = db.snapshot(&table, At::Head).await?;
        db.refuse_frozen(&snapshot).await?;
        let store = open_store(&snapshot.table.location, &snapshot.table.storage_options)?;
        let mut wanted = Vec::new();
        let mut seen = BTreeSet::new();
        for argument in &self.files {
            for file in expand(&store, argument).await? {
                if seen.insert(file.clone()) {
                    wanted.push(file);
                }
            }
        }
        let described = describe(context, &snapshot, &store, &wanted).await?;
        let (adds, skipped) = without_known(&db, &snapshot, &store, described).await?;
        let appended = Appended {
            files: count_of(adds.len()),
            rows: adds.iter().map(rows_of).sum(),
            bytes: adds.iter().map(|add| u64::try_from(add.size).unwrap_or(0)).sum(),
            skipped: count_of(skipped),
            dry_run: self.dry_run,
        };
        if skipped > 0 {
            context.out.hint(format!(
                "Passed over: {} that the table has already.",
                plural(count_of(skipped), "file")
            ));
        }
        if adds.is_empty() || self.dry_run {
            return finish(context, &db, None, Some(appended.done()), false).await;
        }
        let mut ndjson = String::new();
        for add in adds {
            ndjson.push_str(&Action::Add(add).to_line()?);
            ndjson.push('\n');
        }
        let change = TableChange {
            target: ChangeTarget::Existing {
                table: TableRef::Id(snapshot.table.id),
                // The schema that the files were compared with: a later one conflicts.
                read_version: Some(snapshot.version),
            },
            ndjson: ndjson.into_bytes(),
            origin: "dl append".to_owned(),
            reads: Reads::default(),
            operation: Some("WRITE".to_owned()),
        };
        let report = db.commit(CommitBatch { token, tables: vec![change] }).await?;
        finish(context, &db, Some(report), Some(appended.done()), !self.no_publish).await
    }
}

/// The files of an append.
#[derive(Debug, Serialize)]
struct Appended {
    files: u64,
    rows: u64,
    bytes: u64,
    /// Files that were in the table already.
    skipped: u64,
    dry_run: bool,
}

impl Appended {
    fn done(&self) -> Done {
        let what = format!(
            "{} ({}, {})",
            plural(self.files, "file"),
            plural(self.rows, "row"),
            size(self.bytes)
        );
        let text = match (self.files, self.dry_run) {
            (0, _) => "Nothing to append.".to_owned(),
            (_, true) => format!("Would append {what}."),
            (_, false) => format!("Appended {what}."),
        };
        Done::new("appended", serde_json::json!(self), &text)
    }
}

/// Reads the footers.
async fn describe(
    context: &Context,
    snapshot: &Snapshot,
    store: &Store,
    files: &[Path],
) -> Result<Vec<Add>> {
    context.progress.begin("Reading footers", "files", Some(count_of(files.len())));
    let mut adds = Vec::with_capacity(files.len());
    for some in files.chunks(FILES_AT_ONCE) {
        adds.extend(describe_files(snapshot, &store.store, &store.root, some).await?);
        context.progress.advance(count_of(some.len()));
    }
    context.progress.end();
    Ok(adds)
}

/// Leaves out files that are in the table, however their paths are spelt there; tells how many.
async fn without_known(
    db: &Db,
    snapshot: &Snapshot,
    store: &Store,
    mut adds: Vec<Add>,
) -> Result<(Vec<Add>, usize)> {
    let root = store.paths()?;
    let keys = |path: &str| {
        store.keys_of(&root, path).map_err(|e| {
            Failure::invalid(format!(
                "{e}: nobody can tell whether table '{}' has these files already. `dl commit` adds \
                 files without asking",
                snapshot.table.name
            ))
        })
    };
    let mut wanted = BTreeSet::new();
    for add in &adds {
        // What is written here is encoded: it means one file.
        wanted.extend(keys(&add.path)?.into_iter().next());
    }
    let mut known = BTreeSet::new();
    let mut files = db.files(snapshot.table.id, snapshot.version);
    while let Some(file) = files.try_next().await? {
        known.extend(keys(&file.add.path)?.into_iter().filter(|key| wanted.contains(key)));
    }
    let before = adds.len();
    let mut is_new = Vec::with_capacity(before);
    for add in &adds {
        is_new.push(keys(&add.path)?.first().is_none_or(|key| !known.contains(key)));
    }
    let mut is_new = is_new.into_iter();
    adds.retain(|_| is_new.next().unwrap_or(true));
    let skipped = before - adds.len();
    Ok((adds, skipped))
}

/// `numRecords` of a file's statistics.
pub(super) fn rows_of(add: &Add) -> u64 {
    add.stats
        .as_deref()
        .and_then(|stats| serde_json::from_str::<serde_json::Value>(stats).ok())
        .and_then(|stats| stats.get("numRecords")?.as_u64())
        .unwrap_or(0)
}

/// The files that an argument stands for, sorted where it stands for several.
async fn expand(store: &Store, argument: &str) -> Result<Vec<Path>> {
    let wild = argument.contains(['*', '?', '[']);
    let local = store.local.is_some() && !argument.contains("://");
    if !local {
        return expand_remote(store, argument, wild).await;
    }
    let mut found = Vec::new();
    // Like single files, folders and patterns may start at the table, too.
    let at_table = store.local.as_ref().map(|root| root.join(argument));
    if wild && !LocalPath::new(argument).exists() {
        let mut paths = globbed(argument)?;
        if let Some(pattern) =
            at_table.filter(|p| paths.is_empty() && p.as_path() != LocalPath::new(argument))
        {
            paths = globbed(&pattern.to_string_lossy())?;
        }
        if paths.is_empty() {
            return Err(Failure::invalid(format!("no file matches '{argument}'")));
        }
        for path in paths {
            if path.is_dir() {
                walk(&path, &mut found)?;
            } else {
                found.push(path);
            }
        }
    } else {
        let given = LocalPath::new(argument);
        let folder = match at_table.filter(|_| !given.exists()) {
            Some(path) => path,
            None => given.to_path_buf(),
        };
        if !folder.is_dir() {
            return Ok(vec![locate(store, argument)?]);
        }
        walk(&folder, &mut found)?;
        if found.is_empty() {
            return Err(Failure::invalid(format!("there is no *.parquet file in '{argument}'")));
        }
    }
    found.sort();
    found.iter().map(|path| Ok(locate(store, &path.to_string_lossy())?)).collect()
}

fn globbed(pattern: &str) -> Result<Vec<std::path::PathBuf>> {
    let paths = glob::glob(pattern)
        .map_err(|e| Failure::invalid(format!("bad pattern '{pattern}': {e}")))?;
    paths
        .map(|path| {
            path.map_err(|e| {
                Failure::io(format!("cannot look into '{}'", e.path().display()), e.into())
            })
        })
        .collect()
}

/// Whether Delta readers and writers pass over a file or folder of this name.
fn is_hidden(name: &str) -> bool {
    // A partition column may begin with an underscore.
    name.starts_with('.') || (name.starts_with('_') && !name.contains('='))
}

fn walk(folder: &LocalPath, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    let trouble = |e| Failure::io(format!("cannot read folder '{}'", folder.display()), e);
    for entry in fs::read_dir(folder).map_err(trouble)? {
        let entry = entry.map_err(trouble)?;
        if is_hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(trouble)?;
        // Links to folders are not followed: they may lead round in circles.
        if kind.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "parquet") {
            found.push(path);
        }
    }
    Ok(())
}

/// In a store a folder is a prefix, and a pattern is matched with the keys below its fixed part.
async fn expand_remote(store: &Store, argument: &str, wild: bool) -> Result<Vec<Path>> {
    let fixed = if wild {
        let end = argument.find(['*', '?', '[']).unwrap_or(argument.len());
        argument[..end].rsplit_once('/').map_or("", |(folder, _)| folder)
    } else {
        argument.trim_end_matches('/')
    };
    let at_root = fixed.is_empty() || fixed == store.url.as_str();
    let folder = if at_root { store.root.clone() } else { locate(store, fixed)? };
    let listed: Vec<_> = store
        .store
        .list(Some(&folder))
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .map_err(|e| Failure::io(format!("cannot list '{fixed}'"), std::io::Error::other(e)))?;
    let below_root = |path: &Path| -> Option<Vec<String>> {
        Some(path.prefix_match(&store.root)?.map(|part| part.as_ref().to_owned()).collect())
    };
    let pattern = if wild {
        let relative =
            argument.strip_prefix(store.url.as_str()).unwrap_or(argument).trim_start_matches('/');
        Some(
            glob::Pattern::new(relative)
                .map_err(|e| Failure::invalid(format!("bad pattern '{argument}': {e}")))?,
        )
    } else {
        None
    };
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    let mut found: Vec<Path> = listed
        .into_iter()
        .filter(|path| {
            let Some(parts) = below_root(path) else { return false };
            let visible = !parts.iter().any(|part| is_hidden(part));
            visible
                && match &pattern {
                    Some(pattern) => pattern.matches_with(&parts.join("/"), options),
                    None => parts.last().is_some_and(|name| name.ends_with(".parquet")),
                }
        })
        .collect();
    if found.is_empty() {
        if wild {
            return Err(Failure::invalid(format!("no file matches '{argument}'")));
        }
        return Ok(vec![locate(store, argument)?]);
    }
    found.sort();
    Ok(found)
}
