//! Changes of tables, committed together.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Action, Add, FileKey, Remove};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TableRef};
use deltalakedb_catalog_engine::catalog::{ChangeTarget, CommitBatch, CommitReport, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::predicate::Pruner;

use super::{CreateTable, IntoTableRef, Table};
use crate::Db;
use crate::filter::parse_filter;

/// Changes of any number of tables. Awaited, they are committed in one transaction, all of them or none.
///
/// What is wrong with them is said when they are awaited; nothing is committed then.
#[must_use = "changes are committed when they are awaited"]
#[derive(Debug)]
pub struct Changes {
    db: Db,
    token: Option<String>,
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    Create(Box<CreateTable>),
    Change(Box<Change>),
}

impl Changes {
    pub(super) fn new(db: Db) -> Changes {
        Changes { db, token: None, items: Vec::new() }
    }

    /// A token makes a repeated run take effect once: if it was committed before, awaiting these changes
    /// answers with what it wrote then, and writes nothing. 1 to 128 printable ASCII characters.
    pub fn token(mut self, token: impl Into<String>) -> Changes {
        self.token = Some(token.into());
        self
    }

    /// Adds files to a table. The writer has read nothing, so this goes on top of whatever others
    /// committed meanwhile, unless they changed schema or protocol.
    pub fn append(self, table: impl Into<Target>, files: Vec<Add>) -> Changes {
        self.change(
            Change::of(table).operation("WRITE").actions(files.into_iter().map(Action::Add)),
        )
    }

    /// Changes one more table. Each table can be in it once.
    pub fn change(mut self, change: Change) -> Changes {
        self.items.push(Item::Change(Box::new(change)));
        self
    }

    /// Creates one more table, together with all else.
    pub fn create(mut self, table: CreateTable) -> Changes {
        self.items.push(Item::Create(Box::new(table)));
        self
    }
}

impl IntoFuture for Changes {
    type Output = Result<CommitReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Commits.
    ///
    /// # Errors
    /// Nothing is committed with any of them but `commit_unknown`.
    ///
    /// - `conflict`: others committed what does not go together with these changes. Open the tables anew,
    ///   and decide anew.
    /// - `invalid_input`: a bad token, name, condition or action, and nothing to commit.
    /// - `table_not_found`, `table_exists`.
    /// - `table_frozen`: a table was frozen ([`Db::freeze`]); the message says by whom and why.
    /// - `unsupported`: a table has a feature that this writer does not have.
    /// - `commit_unknown`: the answer was lost. The same changes with the same token tell.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let token = self.token.map(CommitToken::new).transpose()?;
            // What was committed with this token before is there now: nothing is in its way.
            let known = match &token {
                Some(token) => self.db.resolve(token).await?.is_some(),
                None => false,
            };
            let mut tables = Vec::with_capacity(self.items.len());
            for item in self.items {
                tables.push(match item {
                    Item::Create(table) => table.into_request(known).await?,
                    Item::Change(change) => change.into_request()?,
                });
            }
            self.db.commit(CommitBatch { token, tables }).await
        })
    }
}

/// A table to be changed: a name, an id, a [`TableRef`] (the table as it is when the commit begins), or a
/// [`Table`] (as it was when it was opened).
#[derive(Debug)]
pub struct Target(Result<(TableRef, Option<Table>)>);

impl From<&Table> for Target {
    fn from(table: &Table) -> Target {
        Target(table.into_table_ref().map(|reference| (reference, Some(table.clone()))))
    }
}

impl From<&str> for Target {
    fn from(name: &str) -> Target {
        Target::unopened(name)
    }
}

impl From<&String> for Target {
    fn from(name: &String) -> Target {
        Target::unopened(name)
    }
}

impl From<&TableName> for Target {
    fn from(name: &TableName) -> Target {
        Target::unopened(name)
    }
}

impl From<TableId> for Target {
    fn from(id: TableId) -> Target {
        Target::unopened(id)
    }
}

impl From<&TableRef> for Target {
    fn from(table: &TableRef) -> Target {
        Target::unopened(table)
    }
}

impl Target {
    fn unopened(table: impl IntoTableRef) -> Target {
        Target(table.into_table_ref().map(|table| (table, None)))
    }
}

/// What changes in one table, and what was read to decide on it.
///
/// ```no_run
/// # async fn example(db: deltalakedb::Db, old: Vec<deltalakedb::Add>, new: Vec<deltalakedb::Add>)
/// # -> deltalakedb::Result<()> {
/// use deltalakedb::Change;
///
/// let orders = db.table("shop.orders").await?;
/// // … rows of `old` that are for 31 January were read, changed, and written to `new` …
/// let change = Change::of(&orders)
///     .operation("UPDATE")
///     .read_where("day = DATE '2026-01-31'")
///     .remove_files(old)
///     .add_files(new);
/// db.changes().change(change).await?;
/// # Ok(()) }
/// ```
#[must_use = "a change is committed by `Changes`"]
#[derive(Debug)]
pub struct Change {
    target: Result<(TableRef, Option<Table>)>,
    operation: Option<String>,
    reads: Reads,
    ndjson: Result<Vec<u8>>,
    origin: String,
    /// Removed files: when they were removed is known when this is committed.
    removed: Vec<Add>,
}

impl Change {
    /// A change of a table. One that reads must be of a [`Table`]: others' commits since its version are
    /// checked against what was read.
    pub fn of(table: impl Into<Target>) -> Change {
        Change {
            target: table.into().0,
            operation: None,
            reads: Reads::default(),
            ndjson: Ok(Vec::new()),
            origin: "a change".to_owned(),
            removed: Vec::new(),
        }
    }

    /// Name of the operation in the table's history: `WRITE`, `UPDATE`, `MERGE`, …
    pub fn operation(mut self, name: impl Into<String>) -> Change {
        self.operation = Some(name.into());
        self
    }

    /// Adds files.
    pub fn add_files(self, files: impl IntoIterator<Item = Add>) -> Change {
        self.actions(files.into_iter().map(Action::Add))
    }

    /// Removes files, as they were listed: their rows are gone or changed. For files whose rows only
    /// moved (`dataChange` is false) there is [`Change::actions`].
    pub fn remove_files(mut self, files: impl IntoIterator<Item = Add>) -> Change {
        self.removed.extend(files);
        self
    }

    /// Adds actions of any kind.
    pub fn actions(mut self, actions: impl IntoIterator<Item = Action>) -> Change {
        for action in actions {
            let Ok(ndjson) = &mut self.ndjson else { break };
            match action.to_line() {
                Ok(line) => {
                    ndjson.extend_from_slice(line.as_bytes());
                    ndjson.push(b'\n');
                }
                Err(error) => self.ndjson = Err(error),
            }
        }
        self
    }

    /// Adds actions as the protocol writes them, one a line. `origin` names them in errors: a file's name,
    /// for instance.
    pub fn ndjson(mut self, origin: impl Into<String>, lines: impl AsRef<[u8]>) -> Change {
        self.origin = origin.into();
        if let Ok(ndjson) = &mut self.ndjson {
            ndjson.extend_from_slice(lines.as_ref());
            if ndjson.last().is_some_and(|byte| *byte != b'\n') {
                ndjson.push(b'\n');
            }
        }
        self
    }

    /// The writer read the whole table.
    pub fn read_whole_table(mut self) -> Change {
        self.reads.whole_table = true;
        self
    }

    /// The writer read these files.
    pub fn read_files<'a>(mut self, files: impl IntoIterator<Item = &'a Add>) -> Change {
        self.reads.files.extend(files.into_iter().map(Add::key).collect::<BTreeSet<FileKey>>());
        self
    }

    /// The writer read the rows for which this condition is true (see [`parse_filter`]).
    pub fn read_where(mut self, condition: &str) -> Change {
        let filter = (|| {
            let (_, table) = self.target.as_ref().ok()?;
            Some(
                table
                    .as_ref()
                    .ok_or_else(unopened)
                    .and_then(|table| Pruner::new(table.metadata(), &parse_filter(condition)?)),
            )
        })();
        match filter {
            Some(Ok(pruner)) => {
                let before = self.reads.matching.take();
                self.reads.matching = Some(Arc::new(move |add| {
                    pruner.may_match(add) || before.as_ref().is_some_and(|before| before(add))
                }));
            }
            Some(Err(error)) => self.target = Err(error),
            // The table's name is wrong, and that is said.
            None => {}
        }
        self
    }

    fn into_request(mut self) -> Result<TableChange> {
        let removed = std::mem::take(&mut self.removed);
        let (table, opened) = self.target?;
        if opened.is_none() && !(self.reads.is_blind() && removed.is_empty()) {
            return Err(unopened());
        }
        let mut ndjson = self.ndjson?;
        if let Some(opened) = &opened {
            let now = opened.now().0;
            for add in removed {
                let line = Action::Remove(Remove {
                    path: add.path,
                    deletion_timestamp: Some(now),
                    data_change: true,
                    extended_file_metadata: Some(true),
                    partition_values: Some(add.partition_values),
                    size: Some(add.size),
                    stats: add.stats,
                    tags: add.tags,
                    deletion_vector: add.deletion_vector,
                    base_row_id: add.base_row_id,
                    default_row_commit_version: add.default_row_commit_version,
                })
                .to_line()?;
                ndjson.extend_from_slice(line.as_bytes());
                ndjson.push(b'\n');
            }
        }
        Ok(TableChange {
            target: ChangeTarget::Existing { table, read_version: opened.map(|t| t.version()) },
            ndjson,
            origin: self.origin,
            reads: self.reads,
            operation: self.operation,
        })
    }
}

fn unopened() -> CatalogError {
    CatalogError::invalid(
        "a change that reads or removes needs the version that was read: open the table with \
         `Db::table`, and pass that",
    )
}
