//! Commits that wait for each other's table go together: one statement, one transaction, one sync of
//! the server's disk.
//!
//! A commit to a table finds nobody at it, and goes as it is (`commit`). Those that come meanwhile wait in
//! this process, and when it is through all of them go in one statement: the first gets the next version, and
//! so on. Only appends take part, small ones that read nothing: whatever happened to the table, short of
//! a change of its metadata or protocol, they go on top of any head, in any order.
//!
//! The statement writes all of them or none. None, where anything about it is not plain: a token that is
//! known, a file that is in the table already, a table that is gone, a barrier that moved. Then each goes by
//! itself, which finds out what is to be said about it. Why the statement is right is said in `commit`: it
//! stands on the same facts, and on the same row.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, TableCommit,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs};
use deltalakedb_catalog_core::support::{CHUNK_BYTES, body_len, count, stored_commit_info};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::commit::{self, separator};
use crate::errors::DbResult;
use crate::files::{Adds, Keys, reported};
use crate::groups_sql::APPENDS;
use crate::rows::{Id, Reader};
use crate::session::{Args, Call, Mode, Session};
use crate::statements::statements;

/// Most commits in one statement.
const MOST: usize = 256;
/// Most files in one statement.
const MOST_FILES: usize = 2_000;
/// Most compressed bytes in one statement.
const MOST_BYTES: usize = 4 << 20;

statements! {
    /// The statement that commits several appends.
    GroupSql {
        appends: APPENDS,
        /// The same through the function of [`APPEND_FUNCTION`].
        appends_in_turn: "SELECT f.* FROM {p}append_1($1::uuid, $2::int8, $3::text, $4::text[], $5::int8[],
            $6::text[], $7::text[], $8::int8[], $9::int8[], $10::int8[], $11::text[], $12::int4[],
            $13::int8[], $14::bytea[], $15::int4[], $16::int8[], $17::bytea[], $18::int8[],
            $19::int8[], $20::bool[], $21::int8[], $22::int8[], $23::text[], $24::text[],
            $25::text[], $26::text[], $27::text[], $28::text[], $29::text[]) f",
    }
}

/// An append that may go with others.
struct Append<'r> {
    request: &'r CommitRequest,
    commit: &'r TableCommit,
    table: TableId,
    since: i64,
}

impl<'r> Append<'r> {
    fn of(request: &'r CommitRequest) -> Option<Append<'r>> {
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

    fn fits(&self, files: &mut usize, bytes: &mut usize) -> bool {
        *files += self.commit.index.adds.len();
        *bytes += self.commit.rest.zstd.len();
        *files <= MOST_FILES && *bytes <= MOST_BYTES
    }
}

/// What a waiting commit is told.
#[derive(Debug)]
enum Told {
    /// It is through, in whatever way.
    Through(Result<CommitOutcome>),
    /// Nothing was written: it goes by itself.
    Alone,
}

/// A commit that waits.
#[derive(Debug)]
struct Waiting {
    request: Arc<CommitRequest>,
    tell: oneshot::Sender<Told>,
}

/// Those that wait, by table. A table that is here has somebody at it.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    tables: Mutex<HashMap<TableId, VecDeque<Waiting>>>,
    /// The function of `APPEND_FUNCTION` was not found.
    no_function: AtomicBool,
}

impl Groups {
    fn has_function(&self) -> bool {
        !self.no_function.load(Ordering::Relaxed)
    }

    fn without_function(&self) {
        self.no_function.store(true, Ordering::Relaxed);
    }

    /// Waits for those that are at the table; none if there is nobody, and it is the caller's turn now.
    fn wait(
        &self,
        table: TableId,
        request: &Arc<CommitRequest>,
    ) -> Option<oneshot::Receiver<Told>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = tables.get_mut(&table) else {
            tables.insert(table, VecDeque::new());
            return None;
        };
        let (tell, told) = oneshot::channel();
        waiting.push_back(Waiting { request: Arc::clone(request), tell });
        Some(told)
    }

    /// Those that go next; none if nobody waits, and then nobody is at the table any more.
    fn next(&self, table: TableId) -> Option<Vec<Waiting>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = tables.get_mut(&table)?;
        if waiting.is_empty() {
            tables.remove(&table);
            return None;
        }
        let (mut files, mut bytes) = (0, 0);
        let fit = waiting.iter().take(MOST).take_while(|waiting| {
            Append::of(&waiting.request).is_some_and(|a| a.fits(&mut files, &mut bytes))
        });
        let number = fit.count().max(1);
        Some(waiting.drain(..number).collect())
    }
}

/// A turn at a table. However it ends, those that wait go next.
struct Turn {
    session: Arc<Session>,
    table: TableId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(next) = self.session.groups.next(self.table) else { return };
        let turn = Turn { session: Arc::clone(&self.session), table: self.table };
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(turn.go(next));
            }
            // Nobody is left to do it: whoever waits for `next` is told by its end.
            Err(_) => drop(next),
        }
    }
}

impl Turn {
    /// Commits these; the rest follows when the turn ends.
    async fn go(self, waiting: Vec<Waiting>) {
        // Whoever gave up is not committed any more.
        let waiting: Vec<Waiting> =
            waiting.into_iter().filter(|waiting| !waiting.tell.is_closed()).collect();
        if waiting.len() <= 1 {
            for Waiting { request, tell } in waiting {
                let outcome = by_itself(&self.session, &request).await;
                let _ = tell.send(Told::Through(outcome));
            }
            return;
        }
        let appends: Vec<Append<'_>> =
            waiting.iter().filter_map(|waiting| Append::of(&waiting.request)).collect();
        let told: Vec<Told> = match together(&self.session, &appends).await {
            Ok(Some(done)) if done.len() == waiting.len() => done
                .into_iter()
                .map(|done| Told::Through(Ok(CommitOutcome::Committed(vec![done]))))
                .collect(),
            Err(error) if error.write_state() == WriteState::Unknown => {
                let in_doubt = || CatalogError::Unavailable {
                    message: error.to_string(),
                    retryable: error.is_retryable(),
                    write: WriteState::Unknown,
                };
                waiting.iter().map(|_| Told::Through(Err(in_doubt()))).collect()
            }
            Ok(_) => waiting.iter().map(|_| Told::Alone).collect(),
            Err(error) => {
                tracing::debug!(%error, commits = waiting.len(), "commits go one by one");
                waiting.iter().map(|_| Told::Alone).collect()
            }
        };
        for (waiting, told) in waiting.into_iter().zip(told) {
            // Whoever does not listen any more has dropped the call.
            let _ = waiting.tell.send(told);
        }
    }
}

/// Commits a batch, with others that wait where it can.
pub(crate) async fn commit(
    session: &Arc<Session>,
    request: CommitRequest,
) -> Result<CommitOutcome> {
    let Some(table) = Append::of(&request).map(|append| append.table) else {
        return commit::commit_now(session, &request).await;
    };
    let request = Arc::new(request);
    let Some(told) = session.groups.wait(table, &request) else {
        let _turn = Turn { session: Arc::clone(session), table };
        return by_itself(session, &request).await;
    };
    match told.await {
        Ok(Told::Through(outcome)) => outcome,
        Ok(Told::Alone) => commit::commit_now(session, &request).await,
        Err(_) => Err(CatalogError::Unavailable {
            message: format!("the runtime ended while commits to database '{}' waited", session.at),
            retryable: true,
            write: WriteState::Unknown,
        }),
    }
}

/// Commits one append. The statement is the one for several: it is half of what any commit takes, which
/// finds out what is to be said where anything is not plain.
async fn by_itself(session: &Arc<Session>, request: &CommitRequest) -> Result<CommitOutcome> {
    // Without the function, who waits for other processes locks in a statement of its own: `commit` does so.
    let fits =
        |append: &Append<'_>| session.groups.has_function() || !session.contended.has(append.table);
    if let Some(append) = Append::of(request).filter(fits) {
        match together(session, &[append]).await {
            Ok(Some(done)) => return Ok(CommitOutcome::Committed(done)),
            Ok(None) => {}
            // What is wrong, the other statement finds out.
            Err(error)
                if error.write_state() == WriteState::NotApplied && !error.is_retryable() =>
            {
                tracing::debug!(%error, "an append goes as any commit");
            }
            Err(error) => return Err(error),
        }
    }
    commit::commit_now(session, request).await
}

/// Commits appends to one table, all of them, or none and says so.
async fn together(
    session: &Arc<Session>,
    appends: &[Append<'_>],
) -> Result<Option<Vec<CommittedTable>>> {
    let Some(table) = appends.first().map(|append| append.table) else { return Ok(None) };
    let in_turn = session.contended.is(table) && session.groups.has_function();
    let mut call = session.begin("committing", Mode::WriteOne).await?;
    match send(&mut call, table, appends, in_turn).await {
        Err(error) if error.is_unique_violation() => {
            call.end_rolled_back(Ok(())).await?;
            Ok(None)
        }
        // undefined_function, insufficient_privilege: it is done without.
        Err(error) if in_turn && matches!(error.code(), Some("42883" | "42501")) => {
            session.groups.without_function();
            call.end_rolled_back(Ok(())).await?;
            Ok(None)
        }
        other => call.end(other).await,
    }
}

async fn send(
    call: &mut Call,
    table: TableId,
    appends: &[Append<'_>],
    in_turn: bool,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let separator = separator(appends.iter().map(|append| &append.commit.first_line))?;
    let mut columns = Columns::default();
    let mut chunks: (Vec<i32>, Vec<i64>, Vec<&[u8]>) = Default::default();
    let mut adds = Adds::default();
    for (number, append) in (1_i32..).zip(appends) {
        let index = &append.commit.index;
        let keys = Keys::of(&index.adds, &index.removes);
        if keys.live_files != count(index.adds.len()) {
            // It adds a file twice.
            return Ok(None);
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
    let args = Args::new().bind(Id::from(table)).bind(now).bind(separator.as_str());
    let args = columns.bind(args).bind(&chunks.0).bind(&chunks.1).bind(&chunks.2);
    let args = adds.bind_values(args.bind(&adds.tables).bind(&adds.ordinals));
    let texts = &call.session.sql.groups;
    let sql = if in_turn { &texts.appends_in_turn } else { &texts.appends }.clone();
    let rows = call.fetch(&sql, args).await?;
    let mut done = Vec::with_capacity(rows.len());
    let called = table.to_string();
    for row in &rows {
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
    Ok(Some(done).filter(|done| done.len() == appends.len()))
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
