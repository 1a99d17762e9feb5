//! A commit as one request: the whole transaction, with its decisions, is one batch of T-SQL.
//!
//! The batch answers with rows: the first set says how the commit ended (`kind`), the second set
//! has the details.

use deltalakedb_catalog_core::action::{FileKey, Remove};
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::commit_info_object;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use deltalakedb_catalog_core::support::{CHUNK_BYTES, count, end_of_time};

use super::heads::{self, END_OF_TIME, FILE_NOT_ACTIVE, HEAD_MOVED, ID_TAKEN, NAME_TAKEN};
use super::request::{lock_order, table_of, takes_name_twice};
use super::token::committed_rows;
use crate::errors::{DbResult, Sent};
use crate::files::rows::{self as file_rows, NewFile, new_files, parameters_per_row, weight};
use crate::rows::{
    Reader, big, big_opt, bytes, flag, id, owned, text, text_key, text_opt, to_json,
};
use crate::session::batch::{Batch, MAX_PARAMETERS};
use crate::session::{Lease, Session};

/// Largest request, bytes: beyond, the commit goes in several.
const MAX_BYTES: usize = 4 << 20;
/// Most removes in one request: each is a statement.
const MAX_REMOVES: usize = 200;
/// Most tables in one request.
const MAX_TABLES: usize = 64;

/// How the whole commit ended (`kind`).
const COMMITTED: i64 = 0;
const REPLAYED: i64 = 1;
const REFUSED: i64 = 2;

/// A request with the rows it makes.
pub(crate) struct Plan<'r> {
    request: &'r CommitRequest,
    files: Vec<Vec<NewFile<'r>>>,
    /// Positions in the request, in the order of the tables' ids: the order of their locks.
    order: Vec<usize>,
}

impl<'r> Plan<'r> {
    pub(crate) fn new(request: &'r CommitRequest) -> DbResult<Self> {
        let files = request.tables.iter().map(|part| new_files(&part.index.adds, 0));
        Ok(Plan {
            request,
            files: files.collect::<Result<_, CatalogError>>()?,
            order: lock_order(request),
        })
    }

    /// Whether the commit may fit into one request, before that request is written.
    fn may_fit(&self) -> bool {
        let mut parameters = 2_usize;
        let mut size = 0_usize;
        let mut removes = 0_usize;
        for (part, rows) in self.request.tables.iter().zip(&self.files) {
            removes += part.index.removes.len();
            parameters += 24
                + rows.len() * (parameters_per_row(rows) + 1)
                + part.index.removes.len() * 5
                + part.index.txns.len() * 4
                + part.index.domain_metadata.len() * 4;
            size += part.rest.zstd.len() + rows.iter().map(NewFile::weight).sum::<usize>();
            if parameters > MAX_PARAMETERS || size > MAX_BYTES || removes > MAX_REMOVES {
                return false;
            }
        }
        self.request.tables.len() <= MAX_TABLES
    }

    /// The request as one batch; none if it is too large for a batch.
    pub(crate) fn batch(&'r self, session: &Session) -> DbResult<Option<Batch<'r>>> {
        if !self.may_fit() {
            return Ok(None);
        }
        let mut batch = Batch::new();
        self.write(&mut batch, &session.settings())?;
        let size: usize = batch.values.iter().map(weight).sum();
        let fits = batch.values.len() <= MAX_PARAMETERS && size <= MAX_BYTES;
        Ok(fits.then_some(batch))
    }

    fn write(&'r self, batch: &mut Batch<'r>, settings: &str) -> DbResult<()> {
        let token = batch.bind(bytes(self.request.token.as_str().as_bytes()));
        let now = batch.bind(big(self.request.now.0));
        debug_assert_eq!((token.to_string(), now.to_string()), ("@P1".into(), "@P2".into()));
        batch.push(settings);
        batch.push("DECLARE @known BIGINT, @depth BIGINT, @n BIGINT, @ok BIGINT;");
        batch.push("DECLARE @f BIGINT, @b DECIMAL(38, 0), @ended BIGINT;");
        batch.push("DECLARE @gone DECIMAL(38, 0), @removed DECIMAL(38, 0);");
        for index in 0..self.request.tables.len() {
            batch.write(format_args!(
                "DECLARE @s{index} BIGINT, @v{index} BIGINT, @t{index} BIGINT, @h{index} BIGINT, \
                 @x{index} BIGINT;\nSET @s{index} = 0;\n"
            ));
        }
        batch.push(
            "BEGIN TRANSACTION;
            SET @depth = @@TRANCOUNT;
            SELECT @known = COUNT(*) FROM {p}batches WHERE token = @P1;
            IF @depth <> 1
            BEGIN
                ROLLBACK TRANSACTION;
                SELECT 3 AS kind
            END
            ELSE IF @known > 0
            BEGIN
                ROLLBACK TRANSACTION;
                SELECT 1 AS kind;
                SELECT c.table_id, c.version, c.timestamp_ms, c.batch_position
                FROM {p}batches b LEFT JOIN {p}commits c ON c.token = b.token
                WHERE b.token = @P1 ORDER BY c.batch_position
            END
            ELSE
            BEGIN
            INSERT INTO {p}batches (token, committed_at_ms) VALUES (@P1, @P2);",
        );
        // 1. Heads, in the order of the ids.
        let mut ids: Vec<String> = vec![String::new(); self.request.tables.len()];
        for index in &self.order {
            let Some(part) = self.request.tables.get(*index) else { continue };
            let table = batch.bind(id(table_of(part))).to_string();
            match &part.target {
                CommitTarget::Create(new) => {
                    let twice = takes_name_twice(self.request, *index).is_some();
                    heads::create(batch, new, *index, &table, twice)?;
                }
                CommitTarget::Existing { rule, .. } => {
                    let barrier = part.index.metadata.is_some() || part.index.protocol.is_some();
                    heads::move_head(batch, *rule, barrier, *index, &table);
                }
            }
            if let Some(slot) = ids.get_mut(*index) {
                *slot = table;
            }
        }
        // 2. Removes, in the order of the request: the first refusal in that order is told.
        batch.push("SET @ok = 1;");
        for (index, (part, table)) in self.request.tables.iter().zip(&ids).enumerate() {
            batch.write(format_args!("IF @s{index} <> 0 SET @ok = 0;\n"));
            if part.index.removes.is_empty() {
                continue;
            }
            batch.push("IF @ok = 1\nBEGIN");
            for (number, remove) in part.index.removes.iter().enumerate() {
                file_rows::remove(batch, remove, table, &format!("@v{index}"))?;
                batch.write(format_args!(
                    "SET @n = @@ROWCOUNT;\nIF @n <> 1 AND @x{index} IS NULL SET @x{index} = \
                     {number};\n"
                ));
            }
            batch.write(format_args!(
                "IF @x{index} IS NOT NULL\nBEGIN\nSET @s{index} = {FILE_NOT_ACTIVE};\nSET @ok = \
                 0\nEND\nEND;\n"
            ));
        }
        // 3. Everything else.
        batch.push("IF @ok = 1\nBEGIN");
        for (index, table) in ids.iter().enumerate() {
            self.rows(batch, index, table)?;
        }
        batch.write(format_args!("COMMIT TRANSACTION;\nSELECT {COMMITTED} AS kind;\nSELECT "));
        self.columns(batch, &["v", "t"]);
        batch.write(format_args!(
            "\nEND\nELSE\nBEGIN\nROLLBACK TRANSACTION;\nSELECT {REFUSED} AS kind;\nSELECT "
        ));
        self.columns(batch, &["s", "h", "x"]);
        batch.push("\nEND\nEND");
        Ok(())
    }

    /// `@v0 AS v0, @t0 AS t0, @v1 AS v1, …`.
    fn columns(&self, batch: &mut Batch<'_>, variables: &[&str]) {
        let mut list = Vec::new();
        for index in 0..self.request.tables.len() {
            for name in variables {
                list.push(format!("@{name}{index} AS {name}{index}"));
            }
        }
        batch.write(format_args!("{}", list.join(", ")));
    }

    /// The rows of one table's version.
    fn rows(&'r self, batch: &mut Batch<'r>, index: usize, table: &str) -> DbResult<()> {
        let (Some(part), Some(rows)) = (self.request.tables.get(index), self.files.get(index))
        else {
            return Ok(());
        };
        let version = format!("@v{index}");
        let is_new = matches!(part.target, CommitTarget::Create(_));
        file_rows::insert(batch, rows, table, &version);
        let (added, removes) = (&part.index.adds, &part.index.removes);
        if !is_new {
            file_rows::replace(batch, rows, table, &version);
        }
        Self::projection(batch, part, table, &version)?;

        batch.push("SET @f = 0; SET @b = 0; SET @ended = 0; SET @gone = 0;");
        batch.push("SET @removed = 0;");
        if !is_new {
            batch.write(format_args!(
                "SELECT @f = total_files, @b = total_bytes FROM {{p}}commits WHERE table_id = \
                 {table} AND version = {version} - 1;\n"
            ));
            if !added.is_empty() || !removes.is_empty() {
                batch.write(format_args!(
                    "SELECT @ended = COUNT(*), @gone = COALESCE(SUM(CAST(size AS DECIMAL(38, 0))), \
                     0), @removed = COALESCE(SUM(CASE WHEN is_tombstone = 1 THEN CAST(size AS \
                     DECIMAL(38, 0)) ELSE 0 END), 0) FROM {{p}}files WHERE table_id = {table} AND \
                     removed_version = {version} AND added_version < {version};\n"
                ));
            }
        }
        Self::commit_row(batch, index, part, rows, table);

        for (number, chunk) in part.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
            let chunk = batch.bind(bytes(chunk));
            batch.write(format_args!(
                "INSERT INTO {{p}}commit_chunks (table_id, version, chunk_no, body) VALUES \
                 ({table}, {version}, {number}, {chunk});\n"
            ));
        }
        batch.write(format_args!(
            "INSERT INTO {{p}}mirror_status (table_id, version, state, attempts, enqueued_at_ms) \
             SELECT m.table_id, {version}, N'PENDING', 0, @P2 FROM {{p}}mirror m WHERE m.table_id \
             = {table} AND m.mode <> N'off';\n"
        ));
        Ok(())
    }

    /// Protocol, metadata, application transactions and domain metadata.
    fn projection(
        batch: &mut Batch<'r>,
        part: &'r TableCommit,
        table: &str,
        version: &str,
    ) -> DbResult<()> {
        if let Some(protocol) = &part.index.protocol {
            let protocol = batch.bind(owned(to_json(protocol)?));
            batch.write(format_args!(
                "INSERT INTO {{p}}protocols (table_id, version, protocol) VALUES ({table}, \
                 {version}, {protocol});\n"
            ));
        }
        if let Some(metadata) = &part.index.metadata {
            let metadata = batch.bind(owned(to_json(metadata)?));
            batch.write(format_args!(
                "INSERT INTO {{p}}metadata (table_id, version, metadata) VALUES ({table}, \
                 {version}, {metadata});\n"
            ));
        }
        for txn in &part.index.txns {
            let (app_key, app_id) =
                (batch.bind(text_key(&txn.app_id)), batch.bind(text(&txn.app_id)));
            let (number, updated) =
                (batch.bind(big(txn.version)), batch.bind(big_opt(txn.last_updated)));
            batch.write(format_args!(
                "INSERT INTO {{p}}txns (table_id, app_key, version, app_id, app_version, \
                 last_updated) VALUES ({table}, {app_key}, {version}, {app_id}, {number}, \
                 {updated});\n"
            ));
        }
        for domain in &part.index.domain_metadata {
            let domain_key = batch.bind(text_key(&domain.domain));
            let name = batch.bind(text(&domain.domain));
            let removed = batch.bind(flag(domain.removed));
            let configuration = batch.bind(text(&domain.configuration));
            batch.write(format_args!(
                "INSERT INTO {{p}}domain_metadata (table_id, domain_key, version, domain, \
                 removed, configuration) VALUES ({table}, {domain_key}, {version}, {name}, \
                 {removed}, {configuration});\n"
            ));
        }
        Ok(())
    }

    /// The row of the commit. Its first line is put together here, where its timestamp is known.
    fn commit_row(
        batch: &mut Batch<'r>,
        index: usize,
        part: &'r TableCommit,
        rows: &[NewFile<'_>],
        table: &str,
    ) {
        let (files, bytes) = file_rows::totals(rows);
        let position = batch.bind(big(count(index)));
        let num_added = batch.bind(big(count(part.index.adds.len())));
        let num_removed = batch.bind(big(count(part.index.removes.len())));
        let bytes_added = batch.bind(big(part.index.added_bytes()));
        let metadata = i64::from(part.index.metadata.is_some());
        let protocol = i64::from(part.index.protocol.is_some());
        let files = batch.bind(big(files));
        let bytes = batch.bind(big(bytes));
        let body_len = batch.bind(big(i64::try_from(part.rest.raw_len).unwrap_or(i64::MAX)));
        let info = match apart(part) {
            None => "NULL".to_owned(),
            info => batch.bind(text_opt(info)).to_string(),
        };
        let mut line = Vec::new();
        for (number, piece) in part.first_line.parts().iter().enumerate() {
            let piece = batch.bind(text(piece));
            if number > 0 {
                line.push(format!("CAST(@t{index} AS NVARCHAR(20))"));
                line.push(piece.to_string());
            } else {
                // The type of the first piece decides how long the sum may be.
                line.push(format!("CAST({piece} AS NVARCHAR(MAX))"));
            }
        }
        let line = if line.is_empty() { "N''".to_owned() } else { line.join(" + ") };
        batch.write(format_args!(
            "SET @b = @b + {bytes} - @gone;\nINSERT INTO {{p}}commits (table_id, version, \
             timestamp_ms, token, batch_position, num_added, num_removed, bytes_added, \
             bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, \
             has_body, body_len, first_line, commit_info) VALUES ({table}, @v{index}, @t{index}, \
             @P1, {position}, {num_added}, {num_removed}, {bytes_added}, {}, {metadata}, \
             {protocol}, @f + {files} - @ended, {}, 1, {body_len}, {line}, {info});\n",
            clamped("@removed"),
            clamped("@b")
        ));
    }

    /// Sends the batch, and reads how the commit ended.
    pub(crate) async fn send(
        &self,
        lease: &mut Lease,
        batch: Batch<'_>,
    ) -> DbResult<CommitOutcome> {
        let sets = lease.query(&batch.sql, batch.values, Sent::Deciding).await?;
        let kind = sets.first().and_then(|rows| rows.first());
        let kind = kind.map(|row| Reader::new(row, "commits", None).i64(0)).transpose()?;
        let details = sets.get(1).and_then(|rows| rows.first());
        match (kind, details) {
            (Some(REPLAYED), Some(_)) => Ok(CommitOutcome::Replayed(committed_rows(sets.get(1))?)),
            (Some(REPLAYED), None) => {
                let text = "the token was known, and was forgotten before it was looked up";
                Err(CatalogError::busy(text.to_owned(), WriteState::NotApplied).into())
            }
            (Some(COMMITTED), Some(row)) => {
                let r = Reader::new(row, "commits", None);
                let mut done = Vec::with_capacity(self.request.tables.len());
                for (index, part) in self.request.tables.iter().enumerate() {
                    done.push(CommittedTable {
                        table_id: table_of(part),
                        version: r.version(index * 2)?,
                        timestamp: TimestampMs(r.i64(index * 2 + 1)?),
                    });
                }
                Ok(CommitOutcome::Committed(done))
            }
            (Some(REFUSED), Some(row)) => self.refusal(&Reader::new(row, "commits", None)),
            (Some(_), _) => {
                lease.discard();
                Err(CatalogError::busy(
                    "a transaction was open on a connection where none should be",
                    WriteState::NotApplied,
                )
                .into())
            }
            // There is no answer, though the server says that it is done: the caller asks by the
            // token.
            (None, _) => Err(CatalogError::busy(
                "SQL Server answered a commit with no rows",
                WriteState::Unknown,
            )
            .into()),
        }
    }

    /// The first table in the request that is refused.
    fn refusal(&self, r: &Reader<'_>) -> DbResult<CommitOutcome> {
        for (index, part) in self.request.tables.iter().enumerate() {
            let status = r.i64(index * 3)?;
            let table = table_of(part);
            let reason = match (status, &part.target) {
                (0, _) => continue,
                (HEAD_MOVED, _) => {
                    let head = Version::new(r.i64(index * 3 + 1)?)?;
                    return Ok(CommitOutcome::HeadMoved { index, head });
                }
                (END_OF_TIME, _) => return Err(end_of_time(table).into()),
                (ID_TAKEN, _) => Rejection::IdTaken(table),
                (NAME_TAKEN, CommitTarget::Create(new)) => Rejection::NameTaken(new.name.clone()),
                (FILE_NOT_ACTIVE, _) => {
                    let number = usize::try_from(r.i64(index * 3 + 2)?).unwrap_or(usize::MAX);
                    let key = part.index.removes.get(number).map(Remove::key);
                    let FileKey { path, dv_id } =
                        key.ok_or_else(|| r.corrupt(index * 3 + 2, "no such remove"))?;
                    Rejection::FileNotActive { path, dv_id }
                }
                _ => Rejection::TableNotFound(table),
            };
            return Ok(CommitOutcome::Rejected { index, reason });
        }
        Err(r.corrupt(0, "a commit was refused for no reason"))
    }
}

/// The `commitInfo` of a commit of ours, unless its first line holds it, whatever its timestamp.
fn apart(part: &TableCommit) -> Option<&str> {
    let line = part.first_line.render(TimestampMs(0));
    let in_first_line = commit_info_object(&line).is_some();
    part.index.commit_info.as_deref().filter(|_| !in_first_line)
}

/// A sum as a 64-bit column holds it.
fn clamped(variable: &str) -> String {
    format!(
        "CASE WHEN {variable} > 9223372036854775807 THEN 9223372036854775807 WHEN {variable} < \
         -9223372036854775807 THEN -9223372036854775807 ELSE CAST({variable} AS BIGINT) END"
    )
}
