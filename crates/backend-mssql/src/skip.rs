//! Skipping indexes: bytes by their key.

use std::collections::BTreeMap;

use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{
    FileCursor, FileRecord, NewSkipSegment, SkipIndex, SkipPage, SkipSegment,
};
use tiberius::ColumnData;

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Reader, big, big_opt, bytes, file_columns, file_record, id as table_key};
use crate::session::batch::Batch;
use crate::session::{Lease, Sets};
use crate::tables::first;

/// Keys in one request, two parameters each.
const KEYS: usize = 500;
/// Pages in one request.
const PAGES: usize = 200;

statements! {
    /// One statement. Where it takes locks instead of reading row versions, a change may come
    /// between two of its rows; a reader of the segments sees when they do not fit together.
    INDEX: "SELECT i.generation, s.segment_id, s.after_version, s.after_ordinal,
            s.through_version, s.through_ordinal, s.built_version, s.num_files, s.root
        FROM {p}skip_index i LEFT JOIN {p}skip_segments s ON s.table_id = i.table_id
        WHERE i.table_id = @P1
        ORDER BY s.through_version, s.through_ordinal",
    BEGIN: "INSERT INTO {p}skip_index (table_id, generation)
        SELECT @P1, 0 WHERE NOT EXISTS (
            SELECT 1 FROM {p}skip_index WHERE table_id = @P1)",
    /// Of two at once the second waits here, and then finds another generation.
    ADVANCE: "UPDATE {p}skip_index SET generation = generation + 1
        WHERE table_id = @P1 AND generation = @P2;
        SELECT CAST(@@ROWCOUNT AS BIGINT) AS changed",
    REMOVE: "DELETE FROM {p}skip_pages WHERE table_id = @P1 AND segment_id = @P2;
        DELETE FROM {p}skip_segments WHERE table_id = @P1 AND segment_id = @P2",
    INSERT_SEGMENT: "INSERT INTO {p}skip_segments (table_id, segment_id, after_version,
            after_ordinal, through_version, through_ordinal, built_version, num_files, root)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9)",
}

/// Rows that have these keys, in any order.
async fn by_keys(
    lease: &mut Lease,
    keys: &[(i64, i64)],
    values: &[ColumnData<'static>],
    text: impl Fn(&str) -> String,
) -> DbResult<Sets> {
    let mut sets = Sets::new();
    for some in keys.chunks(KEYS) {
        let mut batch = Batch::new();
        for value in values {
            batch.bind(value.clone());
        }
        let pairs: Vec<String> = some
            .iter()
            .map(|key| {
                let (first, second) = (batch.bind(big(key.0)), batch.bind(big(key.1)));
                format!("({first}, {second})")
            })
            .collect();
        let list = format!("(VALUES {}) AS k (key_1, key_2)", pairs.join(", "));
        batch.write(format_args!("{}", text(&list)));
        sets.extend(lease.run(&batch.sql, batch.values).await?);
    }
    Ok(sets)
}

/// Single files by their key.
pub(crate) async fn files_at(
    lease: &mut Lease,
    id: TableId,
    version: Version,
    cursors: &[FileCursor],
) -> DbResult<Vec<FileRecord>> {
    let keys: Vec<_> = cursors.iter().map(|c| (c.added_version.get(), c.ordinal)).collect();
    let sets = by_keys(lease, &keys, &[table_key(id), big(version.get())], |list| {
        format!(
            concat!(
                "SELECT ",
                file_columns!(),
                " FROM {} INNER JOIN {{p}}files f ON f.added_version = k.key_1 \
                 AND f.ordinal = k.key_2 WHERE f.table_id = @P1 AND f.added_version <= @P2 AND f.removed_version > @P2"
            ),
            list
        )
    })
    .await?;
    let table = id.to_string();
    let mut files: Vec<FileRecord> =
        sets.iter().flatten().map(|row| file_record(row, &table)).collect::<DbResult<_>>()?;
    files.sort_by_key(|file| file.cursor);
    Ok(files)
}

pub(crate) async fn index(lease: &mut Lease, id: TableId) -> DbResult<SkipIndex> {
    let sets = lease.run(INDEX, vec![table_key(id)]).await?;
    let table = id.to_string();
    let mut index = SkipIndex::default();
    for row in sets.iter().flatten() {
        let r = Reader::new(row, &table, None);
        index.generation = r.i64(0)?;
        let Some(segment) = r.opt_i64(1)? else { continue };
        let after = match r.opt_version(2)? {
            Some(added_version) => Some(FileCursor { added_version, ordinal: r.i64(3)? }),
            None => None,
        };
        // `complete_to` stays none: without row versions one statement reads rows of several
        // moments.
        index.segments.push(SkipSegment {
            id: segment,
            after,
            through: FileCursor { added_version: r.version(4)?, ordinal: r.i64(5)? },
            version: r.version(6)?,
            files: r.i64(7)?,
            root: Bytes::copy_from_slice(r.opt_bytes(8)?.unwrap_or_default()),
        });
    }
    Ok(index)
}

pub(crate) async fn pages(
    lease: &mut Lease,
    id: TableId,
    pages: &[SkipPage],
) -> DbResult<Vec<Option<Bytes>>> {
    let keys: Vec<_> = pages.iter().map(|page| (page.segment, i64::from(page.page))).collect();
    let sets = by_keys(lease, &keys, &[table_key(id)], |list| {
        format!(
            "SELECT p.segment_id, p.page_no, p.body FROM {list} INNER JOIN {{p}}skip_pages p \
             ON p.segment_id = k.key_1 AND p.page_no = k.key_2 WHERE p.table_id = @P1"
        )
    })
    .await?;
    let table = id.to_string();
    let mut found = BTreeMap::new();
    for row in sets.iter().flatten() {
        let r = Reader::new(row, &table, None);
        let body = Bytes::copy_from_slice(r.opt_bytes(2)?.unwrap_or_default());
        found.insert((r.i64(0)?, r.i64(1)?), body);
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// The row of `{p}skip_index` is what is compared and set; it stays locked to the end.
pub(crate) async fn replace(
    lease: &mut Lease,
    id: TableId,
    generation: i64,
    remove: &[i64],
    segment: &NewSkipSegment,
) -> DbResult<bool> {
    if generation == 0 {
        match lease.run(BEGIN, vec![table_key(id)]).await {
            // Another program begins at the same moment.
            Err(error) if error.is_duplicate() => {
                let message = format!("another program indexes table {id}");
                return Err(CatalogError::busy(message, WriteState::NotApplied).into());
            }
            other => other?,
        };
    }
    let sets = lease.run(ADVANCE, vec![table_key(id), big(generation)]).await?;
    let changed = first(&sets).map(|row| Reader::new(row, "index", None).i64(0)).transpose()?;
    if changed != Some(1) {
        return Ok(false);
    }
    let next = generation.saturating_add(1);
    for old in remove {
        lease.run(REMOVE, vec![table_key(id), big(*old)]).await?;
    }
    let values = vec![
        table_key(id),
        big(next),
        big_opt(segment.after.map(|after| after.added_version.get())),
        big_opt(segment.after.map(|after| after.ordinal)),
        big(segment.through.added_version.get()),
        big(segment.through.ordinal),
        big(segment.version.get()),
        big(segment.files),
        bytes(&segment.root),
    ];
    lease.run(INSERT_SEGMENT, values).await?;
    let numbered: Vec<(i64, &Bytes)> = (0_i64..).zip(&segment.pages).collect();
    for some in numbered.chunks(PAGES) {
        let mut batch = Batch::new();
        let (table, segment) = (batch.bind(table_key(id)), batch.bind(big(next)));
        let mut rows = Vec::with_capacity(some.len());
        for (number, page) in some {
            let (number, body) = (batch.bind(big(*number)), batch.bind(bytes(page)));
            rows.push(format!("({table}, {segment}, {number}, {body})"));
        }
        batch.write(format_args!(
            "INSERT INTO {{p}}skip_pages (table_id, segment_id, page_no, body) VALUES {}",
            rows.join(", ")
        ));
        lease.run(&batch.sql, batch.values).await?;
    }
    Ok(true)
}
