//! Skipping indexes: bytes by their key.

use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{
    FileCursor, FileRecord, NewSkipSegment, SkipIndex, SkipPage, SkipSegment,
};
use rusqlite::{OptionalExtension, params};

use bytes::Bytes;

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Reader, file_columns, file_record};
use crate::session::Db;
use crate::tables::find;

statements! {
    FILE_AT: concat!("SELECT ", file_columns!(), " FROM {p}files
        WHERE table_key = ?1 AND added_version = ?2 AND ordinal = ?3
          AND added_version <= ?4 AND removed_version > ?4"),
    GENERATION: "SELECT generation FROM {p}skip_index WHERE table_key = ?1",
    SEGMENTS: "SELECT segment_id, after_version, after_ordinal, through_version,
            through_ordinal, built_version, num_files, root
        FROM {p}skip_segments WHERE table_key = ?1
        ORDER BY through_version, through_ordinal",
    /// The head, if no file comes after a cursor.
    COMPLETE_TO: "SELECT head_version FROM {p}tables WHERE table_key = ?1 AND NOT EXISTS (
            SELECT 1 FROM {p}files
            WHERE table_key = ?1 AND (added_version, ordinal) > (?2, ?3))",
    PAGE: "SELECT body FROM {p}skip_pages
        WHERE table_key = ?1 AND segment_id = ?2 AND page_no = ?3",
    ADVANCE: "INSERT INTO {p}skip_index (table_key, generation) VALUES (?1, ?2)
        ON CONFLICT (table_key) DO UPDATE SET generation = excluded.generation",
    REMOVE_PAGES: "DELETE FROM {p}skip_pages WHERE table_key = ?1 AND segment_id = ?2",
    REMOVE_SEGMENT: "DELETE FROM {p}skip_segments WHERE table_key = ?1 AND segment_id = ?2",
    INSERT_SEGMENT: "INSERT INTO {p}skip_segments (table_key, segment_id, after_version,
            after_ordinal, through_version, through_ordinal, built_version, num_files, root)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    INSERT_PAGE: "INSERT INTO {p}skip_pages (table_key, segment_id, page_no, body)
        VALUES (?1, ?2, ?3, ?4)",
}

/// Single files by their key.
pub(crate) fn files_at(
    db: Db<'_>,
    id: TableId,
    version: Version,
    cursors: &[FileCursor],
) -> DbResult<Vec<FileRecord>> {
    let Some((table, _)) = find(db, id)? else { return Ok(Vec::new()) };
    let mut statement = db.prepare(FILE_AT)?;
    let mut files = Vec::with_capacity(cursors.len());
    for cursor in cursors {
        let key = params![table.key, cursor.added_version.get(), cursor.ordinal, version.get()];
        let mut rows = statement.query(key)?;
        if let Some(row) = rows.next()? {
            files.push(file_record(row, table)?);
        }
    }
    Ok(files)
}

/// All statements are in one read transaction.
pub(crate) fn index(db: Db<'_>, id: TableId) -> DbResult<SkipIndex> {
    let Some((table, _)) = find(db, id)? else {
        return Ok(SkipIndex { generation: 0, segments: Vec::new(), complete_to: None });
    };
    let generation = db.prepare(GENERATION)?.query_row([table.key], |row| row.get(0)).optional()?;
    let mut statement = db.prepare(SEGMENTS)?;
    let mut rows = statement.query([table.key])?;
    let mut segments = Vec::new();
    while let Some(row) = rows.next()? {
        let r = Reader::new(row, &table, None);
        let after = r.version_opt(1)?.map(|added_version| {
            Ok::<_, crate::errors::DbError>(FileCursor { added_version, ordinal: r.get(2)? })
        });
        segments.push(SkipSegment {
            id: r.get(0)?,
            after: after.transpose()?,
            through: FileCursor { added_version: r.version(3)?, ordinal: r.get(4)? },
            version: r.version(5)?,
            files: r.get(6)?,
            root: Bytes::from(r.get::<Vec<u8>>(7)?),
        });
    }
    let mut complete_to = None;
    if let Some(SkipSegment { through, .. }) = segments.last() {
        let mut statement = db.prepare(COMPLETE_TO)?;
        let mut rows =
            statement.query(params![table.key, through.added_version.get(), through.ordinal])?;
        if let Some(row) = rows.next()? {
            complete_to = Reader::new(row, &table, None).version_opt(0)?;
        }
    }
    Ok(SkipIndex { generation: generation.unwrap_or(0), segments, complete_to })
}

pub(crate) fn pages(db: Db<'_>, id: TableId, pages: &[SkipPage]) -> DbResult<Vec<Option<Bytes>>> {
    let Some((table, _)) = find(db, id)? else { return Ok(vec![None; pages.len()]) };
    let mut statement = db.prepare(PAGE)?;
    let mut found = Vec::with_capacity(pages.len());
    for page in pages {
        let body: Option<Vec<u8>> = statement
            .query_row(params![table.key, page.segment, page.page], |row| row.get(0))
            .optional()?;
        found.push(body.map(Bytes::from));
    }
    Ok(found)
}

/// The write lock is held: nobody else changes the generation in between.
pub(crate) fn replace(
    db: Db<'_>,
    id: TableId,
    generation: i64,
    remove: &[i64],
    segment: &NewSkipSegment,
) -> DbResult<bool> {
    // No generation is that of a table that is gone.
    let Some((table, _)) = find(db, id)? else { return Ok(false) };
    let stored: Option<i64> =
        db.prepare(GENERATION)?.query_row([table.key], |row| row.get(0)).optional()?;
    if stored.unwrap_or(0) != generation {
        return Ok(false);
    }
    let next = generation.saturating_add(1);
    db.execute(ADVANCE, params![table.key, next])?;
    for old in remove {
        db.execute(REMOVE_PAGES, params![table.key, old])?;
        db.execute(REMOVE_SEGMENT, params![table.key, old])?;
    }
    db.execute(
        INSERT_SEGMENT,
        params![
            table.key,
            next,
            segment.after.map(|after| after.added_version.get()),
            segment.after.map(|after| after.ordinal),
            segment.through.added_version.get(),
            segment.through.ordinal,
            segment.version.get(),
            segment.files,
            &*segment.root,
        ],
    )?;
    let mut insert = db.prepare(INSERT_PAGE)?;
    for (number, page) in (0_i64..).zip(&segment.pages) {
        insert.execute(params![table.key, next, number, &**page])?;
    }
    Ok(true)
}
