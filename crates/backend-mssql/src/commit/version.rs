//! The rows of one version, in a transaction of several requests: of a staged commit, and of an
//! import. New files go by the bulk protocol.

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::support::{CHUNK_BYTES, body_len, count, stored_commit_info};
use tiberius::ColumnData;

use crate::errors::DbResult;
use crate::files::{FileWriter, UnknownFile};
use crate::rows::text::statements;
use crate::rows::{big, big_opt, bytes, flag, id, owned, text, text_key, text_opt, to_json};
use crate::session::Lease;

statements! {
    INSERT_COMMIT: "INSERT INTO {p}commits (table_id, version, timestamp_ms, token,
            batch_position, num_added, num_removed, bytes_added, bytes_removed,
            changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len,
            first_line, commit_info)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13, 1, @P14,
            @P15, @P16)",
    INSERT_CHUNK: "INSERT INTO {p}commit_chunks (table_id, version, chunk_no, body)
        VALUES (@P1, @P2, @P3, @P4)",
    INSERT_PROTOCOL: "INSERT INTO {p}protocols (table_id, version, protocol)
        VALUES (@P1, @P2, @P3)",
    INSERT_METADATA: "INSERT INTO {p}metadata (table_id, version, metadata)
        VALUES (@P1, @P2, @P3)",
    INSERT_TXN: "INSERT INTO {p}txns (table_id, app_key, version, app_id, app_version,
            last_updated)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6)",
    INSERT_DOMAIN: "INSERT INTO {p}domain_metadata (table_id, domain_key, version, domain,
            removed, configuration)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6)",
}

/// A table's head, as the transaction sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    /// Version and timestamp; none before the first.
    pub(crate) at: Option<(Version, TimestampMs)>,
    /// Files and bytes in the table.
    pub(crate) total_files: i64,
    pub(crate) total_bytes: i64,
}

/// One version's rows, besides those of the table itself.
pub(crate) struct NewVersion<'v> {
    pub(crate) version: Version,
    pub(crate) timestamp: TimestampMs,
    pub(crate) token: Option<(&'v CommitToken, i64)>,
    pub(crate) body: &'v CommitBody,
    pub(crate) index: &'v CommitIndex,
    pub(crate) unknown: UnknownFile,
}

/// Writes all rows of a version but the table's own. `Err` inside: a remove of a file that is not
/// active.
pub(crate) async fn write_version(
    lease: &mut Lease,
    table: TableId,
    head: Head,
    new: &NewVersion<'_>,
) -> DbResult<Result<Head, FileKey>> {
    let version = new.version.get();
    let index = new.index;
    let writer = FileWriter { table, version };
    let total = head.at.map(|_| head.total_files);
    let delta = match writer.apply(lease, index, new.unknown, total).await? {
        Ok(delta) => delta,
        Err(key) => return Ok(Err(key)),
    };
    write_projection(lease, table, version, index).await?;
    let after = Head {
        at: Some((new.version, new.timestamp)),
        total_files: head.total_files.saturating_add(delta.files),
        total_bytes: head.total_bytes.saturating_add(delta.bytes),
    };
    let values = vec![
        id(table),
        big(version),
        big(new.timestamp.0),
        new.token.map_or(ColumnData::Binary(None), |(token, _)| bytes(token.as_str().as_bytes())),
        big_opt(new.token.map(|(_, position)| position)),
        big(count(index.adds.len())),
        big(count(index.removes.len())),
        big(index.added_bytes()),
        big(delta.bytes_removed),
        flag(index.metadata.is_some()),
        flag(index.protocol.is_some()),
        big(after.total_files),
        big(after.total_bytes),
        big(body_len(new.body)),
        text_opt(new.body.first_line.as_deref()),
        text_opt(stored_commit_info(new.body, index)),
    ];
    lease.run(INSERT_COMMIT, values).await?;
    insert_chunks(lease, table, version, new.body).await?;
    Ok(Ok(after))
}

/// Protocol, metadata, application transactions and domain metadata of a version.
pub(crate) async fn write_projection(
    lease: &mut Lease,
    table: TableId,
    at: i64,
    index: &CommitIndex,
) -> DbResult<()> {
    if let Some(protocol) = &index.protocol {
        let values = vec![id(table), big(at), owned(to_json(protocol)?)];
        lease.run(INSERT_PROTOCOL, values).await?;
    }
    if let Some(metadata) = &index.metadata {
        let values = vec![id(table), big(at), owned(to_json(metadata)?)];
        lease.run(INSERT_METADATA, values).await?;
    }
    for txn in &index.txns {
        let values = vec![
            id(table),
            text_key(&txn.app_id),
            big(at),
            text(&txn.app_id),
            big(txn.version),
            big_opt(txn.last_updated),
        ];
        lease.run(INSERT_TXN, values).await?;
    }
    for domain in &index.domain_metadata {
        let values = vec![
            id(table),
            text_key(&domain.domain),
            big(at),
            text(&domain.domain),
            flag(domain.removed),
            text(&domain.configuration),
        ];
        lease.run(INSERT_DOMAIN, values).await?;
    }
    Ok(())
}

/// Stores a commit's bytes.
pub(crate) async fn insert_chunks(
    lease: &mut Lease,
    table: TableId,
    version: i64,
    body: &CommitBody,
) -> DbResult<()> {
    for (number, chunk) in body.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
        let values = vec![id(table), big(version), big(count(number)), bytes(chunk)];
        lease.run(INSERT_CHUNK, values).await?;
    }
    Ok(())
}
