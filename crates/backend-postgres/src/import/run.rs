//! Runs of imported commits that only add files: written together, a handful of statements for all of
//! them, where each by itself takes as many.

use std::collections::{HashMap, HashSet};

use deltalakedb_catalog_core::backend::ImportedCommit;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::support::{body_len, count, stored_commit_info};
use sqlx::Row;

use crate::commit::columns::{BODY_BYTES, Chunks};
use crate::errors::DbResult;
use crate::files::{Adds, Digest, Keys, ROWS, big, reported};
use crate::rows::key;
use crate::session::{Args, Call, statements};

use super::{Head, move_head};

/// Most commits in one run.
const MOST: usize = 2_000;

// Statements that write several versions of one table; see `FilesSql` for the table's id.
statements! {
    REPLACE: concat!("WITH ended AS (
            UPDATE {p}files f SET removed_version = a.version
            FROM unnest($2::int8[], $3::bytea[], $4::text[], $5::text[])
                AS a (version, key, path, dv_id)
            WHERE f.table_key = ", key!(), " AND f.file_key = a.key
              AND f.removed_version = 9223372036854775807
              AND f.path = a.path AND f.dv_id = a.dv_id
            RETURNING a.version, f.size)
        SELECT version, count(*), sum(size)::text FROM ended GROUP BY version"),
    INSERT: concat!("INSERT INTO {p}files (table_key, added_version, ordinal, removed_version,
            is_tombstone, file_key, size, modification_time, data_change, base_row_id,
            default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
            clustering_provider, stats)
        SELECT ", key!(), ", a.version, a.ordinal, 9223372036854775807, false, a.key, a.size,
            a.modification_time, a.data_change, a.base_row_id, a.default_row_commit_version,
            a.path, a.dv_id, a.partition_values, a.tags, a.deletion_vector,
            a.clustering_provider, a.stats
        FROM unnest($2::int8[], $3::int8[], $4::bytea[], $5::int8[], $6::int8[], $7::bool[],
            $8::int8[], $9::int8[], $10::text[], $11::text[], $12::text[], $13::text[],
            $14::text[], $15::text[], $16::text[]) AS a (version, ordinal, key, size,
            modification_time, data_change, base_row_id, default_row_commit_version, path,
            dv_id, partition_values, tags, deletion_vector, clustering_provider, stats)"),
    COMMITS: concat!("INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added, num_removed,
            bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files,
            total_bytes, has_body, body_len, first_line, commit_info)
        SELECT ", key!(), ", c.version, c.timestamp_ms, c.num_added, 0, c.bytes_added, 0, false, false,
            c.total_files, c.total_bytes, true, c.body_len, c.first_line, c.commit_info
        FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],
            $8::int8[], $9::text[], $10::text[]) AS c (version, timestamp_ms, num_added,
            bytes_added, total_files, total_bytes, body_len, first_line, commit_info)"),
    CHUNKS: concat!("INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body)
        SELECT ", key!(), ", k.version, k.chunk_no, k.body
        FROM unnest($2::int8[], $3::int8[], $4::bytea[]) AS k (version, chunk_no, body)"),
}

/// Commits that follow each other.
pub(crate) struct Run<'c> {
    commits: &'c [ImportedCommit],
    keys: Vec<Keys>,
}

impl<'c> Run<'c> {
    /// The commits at the beginning that may be written together: those up to the first that is not applied,
    /// does more than add files, adds one again, or is too much. None if they are fewer than two.
    pub(crate) fn at(
        commits: &'c [ImportedCommit],
        applied: impl Fn(Version) -> bool,
    ) -> Option<Run<'c>> {
        let (mut files, mut bytes) = (0_usize, 0_usize);
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut keys = Vec::new();
        for commit in commits.iter().take(MOST) {
            let index = &commit.index;
            let plain = index.removes.is_empty()
                && index.protocol.is_none()
                && index.metadata.is_none()
                && index.txns.is_empty()
                && index.domain_metadata.is_empty()
                && commit.later.is_none()
                && commit.token.is_none();
            files = files.saturating_add(index.adds.len());
            bytes = bytes.saturating_add(commit.body.rest.zstd.len());
            if !plain || !applied(commit.version) || files > ROWS || bytes > BODY_BYTES {
                break;
            }
            let of = Keys::of(&index.adds, &index.removes);
            if !of.adds().iter().all(|key| seen.insert(*key)) {
                break;
            }
            keys.push(of);
        }
        let commits = commits.get(..keys.len())?;
        (commits.len() > 1).then_some(Run { commits, keys })
    }

    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }

    /// Writes them, and moves the head to the last one.
    pub(crate) async fn apply(
        &self,
        call: &mut Call,
        id: TableId,
        head: &mut Head,
    ) -> DbResult<()> {
        let session = call.session.clone();
        session.note_size(head.files);
        let table = || Args::of(id);
        let mut adds = Adds::default();
        let mut versions: Vec<i64> = Vec::new();
        for (commit, keys) in self.commits.iter().zip(&self.keys) {
            adds.push(0, &commit.index.adds, keys, 0, 0)?;
            versions.resize(adds.ordinals.len(), commit.version.get());
        }
        let args = table()
            .bind(&versions)
            .bind(&adds.keys)
            .texts("the path of an add", &adds.paths)
            .owned_texts("the deletion vector of an add", &adds.dv_ids);
        let mut ended: HashMap<i64, (i64, i128)> = HashMap::new();
        for row in &call.fetch(REPLACE, args).await? {
            ended.insert(row.try_get(0)?, (row.try_get(1)?, big(row.try_get(2)?)?));
        }
        let args = adds.bind_values(table().bind(&versions).bind(&adds.ordinals));
        call.execute(INSERT, args).await?;

        let mut columns = Columns::default();
        let mut chunks = Chunks::default();
        let expected = head.version;
        for (commit, keys) in self.commits.iter().zip(&self.keys) {
            let version = commit.version.get();
            let (files, bytes) = ended.get(&version).copied().unwrap_or_default();
            head.files = head.files.saturating_add(keys.live_files).saturating_sub(files);
            head.bytes += keys.live_bytes - bytes;
            head.version = Some(commit.version);
            columns.push(commit, head);
            chunks.push(version, &commit.body.rest.zstd);
        }
        call.execute(COMMITS, columns.bind(table())).await?;
        let args = table().bind(&chunks.commits).bind(&chunks.positions).bind(&chunks.bodies);
        call.execute(CHUNKS, args).await?;
        match self.commits.last() {
            Some(last) => move_head(call, id, head, last, expected).await,
            None => Ok(()),
        }
    }
}

/// Columns of `{p}commits`.
#[derive(Default)]
struct Columns<'c> {
    versions: Vec<i64>,
    timestamps: Vec<i64>,
    num_added: Vec<i64>,
    bytes_added: Vec<i64>,
    total_files: Vec<i64>,
    total_bytes: Vec<i64>,
    body_lens: Vec<i64>,
    first_lines: Vec<Option<&'c str>>,
    commit_infos: Vec<Option<&'c str>>,
}

impl<'c> Columns<'c> {
    fn push(&mut self, commit: &'c ImportedCommit, head: &Head) {
        let index = &commit.index;
        self.versions.push(commit.version.get());
        self.timestamps.push(commit.timestamp.0);
        self.num_added.push(count(index.adds.len()));
        self.bytes_added.push(reported(index.adds.iter().map(|add| i128::from(add.size)).sum()));
        self.total_files.push(head.files);
        self.total_bytes.push(reported(head.bytes));
        self.body_lens.push(body_len(&commit.body));
        self.first_lines.push(commit.body.first_line.as_deref());
        self.commit_infos.push(stored_commit_info(&commit.body, index));
    }

    fn bind(&self, args: Args) -> Args {
        args.bind(&self.versions)
            .bind(&self.timestamps)
            .bind(&self.num_added)
            .bind(&self.bytes_added)
            .bind(&self.total_files)
            .bind(&self.total_bytes)
            .bind(&self.body_lens)
            .texts_opt("the first line of the commit", &self.first_lines)
            .texts_opt("commitInfo", &self.commit_infos)
    }
}
