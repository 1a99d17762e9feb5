//! What rows of commits are made of, for commits and for imports.

use deltalakedb_catalog_core::action::{DomainMetadata, FileKey, Txn};
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::support::{CHUNK_BYTES, count};

use crate::errors::DbResult;
use crate::files::Digest;
use crate::rows::key;
use crate::session::{Args, Call, statements};

/// Compressed bytes of bodies that travel in one statement; larger ones in their own.
pub(crate) const BODY_BYTES: usize = 16 << 20;

statements! {
    INSERT_CHUNKS: concat!("INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body)
        SELECT ", key!(), ", $2, k.chunk_no, k.body
        FROM unnest($3::int8[], $4::bytea[]) AS k (chunk_no, body)"),
}

/// Stores the bytes of one commit, some at a time.
pub(crate) async fn insert_chunks(
    call: &mut Call,
    table: TableId,
    version: i64,
    zstd: &[u8],
) -> DbResult<()> {
    let chunks: Vec<&[u8]> = zstd.chunks(CHUNK_BYTES).collect();
    let together = BODY_BYTES / CHUNK_BYTES;
    for (group, bodies) in chunks.chunks(together).enumerate() {
        let numbers: Vec<i64> = (0..bodies.len()).map(|n| count(group * together + n)).collect();
        let args = Args::of(table).bind(version).bind(&numbers).bind(bodies);
        call.execute(INSERT_CHUNKS, args).await?;
    }
    Ok(())
}

/// Compressed bytes of several commits, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Chunks<'b, N> {
    /// Number or version of the commit.
    pub(crate) commits: Vec<N>,
    /// Position of the piece in its commit.
    pub(crate) positions: Vec<i64>,
    pub(crate) bodies: Vec<&'b [u8]>,
}

impl<'b, N: Copy> Chunks<'b, N> {
    pub(crate) fn push(&mut self, commit: N, zstd: &'b [u8]) {
        for (position, body) in zstd.chunks(CHUNK_BYTES).enumerate() {
            self.commits.push(commit);
            self.positions.push(count(position));
            self.bodies.push(body);
        }
    }
}

/// The digest under which a name without a length limit is indexed.
fn name_key(name: &str) -> Digest {
    FileKey::digest_of(name, "")
}

/// Columns of application transactions.
#[derive(Default)]
pub(crate) struct TxnColumns<'r> {
    tables: Vec<i32>,
    keys: Vec<Digest>,
    app_ids: Vec<&'r str>,
    versions: Vec<i64>,
    last_updated: Vec<Option<i64>>,
}

impl<'r> TxnColumns<'r> {
    pub(crate) fn push(&mut self, table: i32, txns: &'r [Txn]) {
        for txn in txns {
            self.tables.push(table);
            self.keys.push(name_key(&txn.app_id));
            self.app_ids.push(&txn.app_id);
            self.versions.push(txn.version);
            self.last_updated.push(txn.last_updated);
        }
    }

    pub(super) fn bind(&self, args: Args) -> Args {
        self.bind_values(args.bind(&self.tables))
    }

    /// Without the table's number.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .texts("the appId of a transaction", &self.app_ids)
            .bind(&self.versions)
            .bind(&self.last_updated)
    }
}

/// Columns of domain metadata.
#[derive(Default)]
pub(crate) struct DomainColumns<'r> {
    tables: Vec<i32>,
    keys: Vec<Digest>,
    domains: Vec<&'r str>,
    removed: Vec<bool>,
    configurations: Vec<&'r str>,
}

impl<'r> DomainColumns<'r> {
    pub(crate) fn push(&mut self, table: i32, domains: &'r [DomainMetadata]) {
        for domain in domains {
            self.tables.push(table);
            self.keys.push(name_key(&domain.domain));
            self.domains.push(&domain.domain);
            self.removed.push(domain.removed);
            self.configurations.push(&domain.configuration);
        }
    }

    pub(super) fn bind(&self, args: Args) -> Args {
        self.bind_values(args.bind(&self.tables))
    }

    /// Without the table's number.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .texts("the domain of domain metadata", &self.domains)
            .bind(&self.removed)
            .texts("the configuration of domain metadata", &self.configurations)
    }
}
