//! Sends appends in one statement.

use deltalakedb_catalog_core::backend::{CommittedTable, TableCommit};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::support::{CHUNK_BYTES, body_len, count, stored_commit_info};
use sqlx::Row;

use crate::commit::separator;
use crate::errors::DbResult;
use crate::files::{Adds, Keys, reported};
use crate::groups_queue::Append;
use crate::groups_sql::{APPENDS, APPENDS_ACROSS, APPENDS_IN_TURN};
use crate::rows::{Id, Reader};
use crate::session::{Args, Call};

/// How a statement meets those who are at its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One table, which it waits for.
    Waiting,
    /// One table, which it waits for in the function of `APPEND_FUNCTION`.
    InTurn,
    /// Several tables, without those that others hold.
    Across,
}

/// Commits appends, each table's in their order. The answer has all of a table's, or none, in the order of
/// `appends`.
pub(crate) async fn send(
    call: &mut Call,
    appends: &[Append<'_>],
    way: Way,
) -> DbResult<Vec<CommittedTable>> {
    let separator = separator(appends.iter().map(|append| &append.commit.first_line))?;
    let mut columns = Columns::default();
    let mut chunks: (Vec<i32>, Vec<i64>, Vec<&[u8]>) = Default::default();
    let mut adds = Adds::default();
    for (number, append) in (1_i32..).zip(appends) {
        let index = &append.commit.index;
        let keys = Keys::of(&index.adds, &index.removes);
        if keys.live_files != count(index.adds.len()) {
            // It adds a file twice.
            return Ok(Vec::new());
        }
        columns.push(append, &separator, keys.live_bytes);
        for (chunk_no, body) in append.commit.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
            chunks.0.push(number);
            chunks.1.push(count(chunk_no));
            chunks.2.push(body);
        }
        adds.push(number, &index.adds, &keys, 0, 0)?;
    }
    let now = appends.iter().map(|append| append.request.now.0).max().unwrap_or(0);
    let tables: Vec<Id> = appends.iter().map(|append| Id::from(append.table)).collect();
    let args = Args::new().bind(&tables).bind(now).bind(separator.as_str());
    let args = columns.bind(args).bind(&chunks.0).bind(&chunks.1).bind(&chunks.2);
    let args = adds.bind_values(args.bind(&adds.tables).bind(&adds.ordinals));
    let sql = match way {
        Way::Waiting => APPENDS,
        Way::InTurn => APPENDS_IN_TURN,
        Way::Across => APPENDS_ACROSS,
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
        call.session.note_size(r.get(3)?);
        call.session.note_commit(r.get(1)?);
        if r.get(4)? {
            call.session.contended.note(table);
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
