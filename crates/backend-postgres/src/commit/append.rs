//! Appends: which commits they are, and the statement that commits several of them.

use deltalakedb_catalog_core::backend::{
    CommitRequest, CommitTarget, CommittedTable, HeadRule, TableCommit,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs};
use deltalakedb_catalog_core::support::{body_len, count, stored_commit_info};
use sqlx::Row;

use crate::errors::DbResult;
use crate::files::{Adds, Keys, reported};
use crate::rows::{Id, Reader};
use crate::session::{Args, Call};

use super::append_sql::{APPENDS, APPENDS_ACROSS, APPENDS_IN_FUNCTION};
use super::columns::Chunks;
use super::known::Known;
use super::statement::separator;

/// Most files in one statement.
pub(super) const MOST_FILES: usize = 2_000;
/// Most compressed bytes in one statement.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// An append that may share a statement with others.
pub(super) struct Append<'r> {
    pub(super) request: &'r CommitRequest,
    pub(super) commit: &'r TableCommit,
    pub(super) table: TableId,
    pub(super) since: i64,
}

impl<'r> Append<'r> {
    /// The append that this commit is, if it is one, and small.
    pub(super) fn of(request: &'r CommitRequest) -> Option<Append<'r>> {
        let [commit] = request.tables.as_slice() else { return None };
        let CommitTarget::Existing { table_id, rule: HeadRule::Append { since } } = &commit.target
        else {
            return None;
        };
        let index = &commit.index;
        let plain = commit.later.is_none()
            && index.removes.is_empty()
            && index.protocol.is_none()
            && index.metadata.is_none()
            && index.txns.is_empty()
            && index.domain_metadata.is_empty();
        let small = index.adds.len() <= MOST_FILES / 4 && commit.rest.zstd.len() <= MOST_BYTES / 4;
        (plain && small).then(|| Append { request, commit, table: *table_id, since: since.get() })
    }
}

/// The statement that commits appends, by what it does where other commits hold the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendStatement {
    /// To one table. It waits for a commit that holds the table.
    OneTable,
    /// To one table. It waits inside of the function of `APPEND_FUNCTION`.
    OneTableInFunction,
    /// To several tables. It passes over tables that other commits hold.
    SeveralTables,
}

/// Commits appends to each table in their order. The answer has all appends to a table, or none, in the order
/// of `appends`.
pub(super) async fn send(
    call: &mut Call,
    appends: &[Append<'_>],
    statement: AppendStatement,
    known: &Known,
) -> DbResult<Vec<CommittedTable>> {
    let separator = separator(appends.iter().map(|append| &append.commit.first_line))?;
    let mut columns = Columns::default();
    let mut chunks = Chunks::default();
    let mut adds = Adds::default();
    for (number, append) in (1_i32..).zip(appends) {
        let index = &append.commit.index;
        let keys = Keys::of(&index.adds, &index.removes);
        if keys.live_files != count(index.adds.len()) {
            // It adds a file twice.
            return Ok(Vec::new());
        }
        columns.push(append, &separator, keys.live_bytes);
        chunks.push(number, &append.commit.rest.zstd);
        adds.push(number, &index.adds, &keys, 0, 0)?;
    }
    let now = appends.iter().map(|append| append.request.now.0).max().unwrap_or(0);
    let tables: Vec<Id> = appends.iter().map(|append| Id::from(append.table)).collect();
    let args = Args::new().bind(&tables).bind(now).bind(separator.as_str());
    let args =
        columns.bind(args).bind(&chunks.commits).bind(&chunks.positions).bind(&chunks.bodies);
    let args = adds.bind_values(args.bind(&adds.tables).bind(&adds.ordinals));
    let sql = match statement {
        AppendStatement::OneTable => APPENDS,
        AppendStatement::OneTableInFunction => APPENDS_IN_FUNCTION,
        AppendStatement::SeveralTables => APPENDS_ACROSS,
    };
    let rows = call.fetch(sql, args).await?;
    let mut done = Vec::with_capacity(rows.len());
    for row in &rows {
        let number: i64 = row.try_get(0)?;
        let table = usize::try_from(number - 1).ok().and_then(|at| appends.get(at));
        let Some(table) = table.map(|append| append.table) else {
            return Err(sqlx::Error::RowNotFound.into());
        };
        let called = table.to_string();
        let r = Reader::new(row, &called, None);
        known.note_commit(&call.session, r.get(3)?, r.get(1)?);
        if r.get(4)? {
            known.note_contended(table);
        }
        done.push(CommittedTable {
            table_id: table,
            version: r.version(1)?,
            timestamp: TimestampMs(r.get(2)?),
        });
    }
    Ok(done)
}

/// Columns of the commits.
#[derive(Default)]
struct Columns<'r> {
    tokens: Vec<&'r str>,
    since: Vec<i64>,
    first_lines: Vec<String>,
    commit_infos: Vec<Option<&'r str>>,
    body_lens: Vec<i64>,
    num_added: Vec<i64>,
    bytes_added: Vec<i64>,
    live_bytes: Vec<String>,
}

impl<'r> Columns<'r> {
    fn push(&mut self, append: &Append<'r>, separator: &str, live_bytes: i128) {
        let TableCommit { first_line, rest, index, .. } = append.commit;
        self.tokens.push(append.request.token.as_str());
        self.since.push(append.since);
        self.first_lines.push(first_line.parts().join(separator));
        let body =
            CommitBody { first_line: Some(first_line.render(TimestampMs(0))), rest: rest.clone() };
        self.commit_infos.push(stored_commit_info(&body, index));
        self.body_lens.push(body_len(&body));
        self.num_added.push(count(index.adds.len()));
        self.bytes_added.push(reported(index.adds.iter().map(|a| i128::from(a.size)).sum()));
        self.live_bytes.push(live_bytes.to_string());
    }

    fn bind(&self, args: Args) -> Args {
        args.bind(&self.tokens)
            .bind(&self.since)
            .owned_texts("the first line of the commit", &self.first_lines)
            .texts_opt("commitInfo", &self.commit_infos)
            .bind(&self.body_lens)
            .bind(&self.num_added)
            .bind(&self.bytes_added)
            .bind(&self.live_bytes)
    }
}
