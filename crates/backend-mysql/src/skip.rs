//! Skipping indexes: bytes by their key.

use std::collections::BTreeMap;

use bytes::Bytes;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{
    FileCursor, FileRecord, NewSkipSegment, SkipIndex, SkipPage,
};
use deltalakedb_catalog_core::support::{file_record, skip_index};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::{MySqlFormat, TableKey, file_columns};
use crate::session::literals::Value;
use crate::session::writer::Writer;
use crate::session::{Call, Session, Set};

/// Keys in one statement; see `NEXT_KEY`.
const KEYS: usize = 200;
/// What a statement with keys begins with, and goes on with for each other key: each is looked up,
/// whatever the optimizer thinks of lists of pairs.
const FIRST_KEY: &str = "(SELECT ? AS key_1, ? AS key_2";
const NEXT_KEY: &str = " UNION ALL SELECT ?, ?";
const FILES_AT: [&str; 2] = [
    concat!("SELECT ", file_columns!(), " FROM "),
    ") k STRAIGHT_JOIN {p}files f
        ON f.table_key = {key} AND f.added_version = k.key_1 AND f.ordinal = k.key_2
    WHERE f.added_version <= ? AND f.removed_version > ?",
];
const PAGES: [&str; 2] = [
    "SELECT p.segment_id, p.page_no, p.body FROM ",
    ") k STRAIGHT_JOIN {p}skip_pages p
        ON p.table_key = {key} AND p.segment_id = k.key_1 AND p.page_no = k.key_2",
];
/// One statement, so that all is of one moment. Whether a file comes after a segment is asked of the last file:
/// of files after a place that another table gives, the server would look at each file. Values: table, twice.
const INDEX: &str = "SELECT i.generation, s.segment_id, s.after_version, s.after_ordinal,
        s.through_version, s.through_ordinal, s.built_version, s.num_files, s.root,
        CASE WHEN l.added_version IS NULL OR l.added_version < s.through_version
                OR (l.added_version = s.through_version AND l.ordinal <= s.through_ordinal)
            THEN t.head_version END
    FROM {p}tables t JOIN {p}skip_index i ON i.table_key = t.table_key
    LEFT JOIN {p}skip_segments s ON s.table_key = i.table_key
    LEFT JOIN (SELECT f.added_version, f.ordinal FROM {p}files f WHERE f.table_key = {key}
        ORDER BY f.added_version DESC, f.ordinal DESC LIMIT 1) l ON 1 = 1
    WHERE t.id = ?
    ORDER BY s.through_version, s.through_ordinal";
const BEGIN: &str = "INSERT INTO {p}skip_index (table_key, generation)
    SELECT table_key, 0 FROM {p}tables WHERE id = ?
    ON DUPLICATE KEY UPDATE generation = generation";
/// Of two at once the second waits here, and then finds another generation.
const ADVANCE: &str = "UPDATE {p}skip_index SET generation = generation + 1 WHERE table_key = {key} AND generation = ?";
const KEY: &str = "SELECT table_key FROM {p}tables WHERE id = ?";
const REMOVE_PAGES: &str = "DELETE FROM {p}skip_pages WHERE table_key = ? AND segment_id = ?";
const REMOVE_SEGMENT: &str = "DELETE FROM {p}skip_segments WHERE table_key = ? AND segment_id = ?";
const INSERT_SEGMENT: &str = "INSERT INTO {p}skip_segments (table_key, segment_id, after_version,
        after_ordinal, through_version, through_ordinal, built_version, num_files, root) VALUES ";
const INSERT_PAGE: &str =
    "INSERT INTO {p}skip_pages (table_key, segment_id, page_no, body) VALUES ";

/// A statement for each some of the keys; `tail` are the values after the keys.
fn by_keys(
    session: &Session,
    text: [&str; 2],
    keys: &[(i64, i64)],
    tail: &[Value<'_>],
) -> Vec<String> {
    let pair = |text: &str, key: &(i64, i64)| session.sql(text, &[key.0.into(), key.1.into()]);
    keys.chunks(KEYS)
        .map(|some| {
            let mut sql = session.sql(text[0], &[]);
            for (number, key) in some.iter().enumerate() {
                sql.push_str(&pair(if number == 0 { FIRST_KEY } else { NEXT_KEY }, key));
            }
            sql.push_str(&session.sql(text[1], tail));
            sql
        })
        .collect()
}

/// Runs them, as few messages as the server takes.
async fn read(call: &mut Call, statements: Vec<String>) -> DbResult<Vec<Set>> {
    let limit = call.session.message_bytes();
    let mut sets = Vec::with_capacity(statements.len());
    let mut message = String::new();
    for statement in statements {
        if !message.is_empty() && message.len() + statement.len() + 2 > limit {
            sets.extend(call.read(&std::mem::take(&mut message)).await?);
        }
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&statement);
    }
    if !message.is_empty() {
        sets.extend(call.read(&message).await?);
    }
    Ok(sets)
}

/// Single files by their key.
pub(crate) async fn files_at(
    call: &mut Call,
    id: TableId,
    version: Version,
    cursors: &[FileCursor],
) -> DbResult<Vec<FileRecord>> {
    let session = call.session.clone();
    let keys: Vec<_> = cursors.iter().map(|c| (c.added_version.get(), c.ordinal)).collect();
    let version = Value::from(version.get());
    let sets =
        read(call, by_keys(&session, FILES_AT, &keys, &[id.into(), version, version])).await?;
    let table = id.to_string();
    let rows = sets.iter().flat_map(|set| &set.rows);
    let mut files: Vec<FileRecord> =
        rows.map(|row| file_record::<MySqlFormat>(row, &table)).collect::<Result<_>>()?;
    files.sort_by_key(|file| file.cursor);
    Ok(files)
}

pub(crate) async fn index(call: &mut Call, id: TableId) -> DbResult<SkipIndex> {
    let sets = call.query(INDEX, &[id.into(), id.into()]).await?;
    let rows = sets.iter().flat_map(|set| &set.rows);
    Ok(skip_index::<MySqlFormat>(rows, &id.to_string())?)
}

pub(crate) async fn pages(
    call: &mut Call,
    id: TableId,
    pages: &[SkipPage],
) -> DbResult<Vec<Option<Bytes>>> {
    let session = call.session.clone();
    let keys: Vec<_> = pages.iter().map(|page| (page.segment, i64::from(page.page))).collect();
    let sets = read(call, by_keys(&session, PAGES, &keys, &[id.into()])).await?;
    let mut found = BTreeMap::new();
    for row in sets.iter().flat_map(|set| &set.rows) {
        let key: (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        found.insert(key, Bytes::from(row.try_get::<Vec<u8>, _>(2)?));
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// The row of `{p}skip_index` is what is compared and set; it stays locked to the end.
pub(crate) async fn replace(
    call: &mut Call,
    id: TableId,
    generation: i64,
    remove: &[i64],
    segment: &NewSkipSegment,
) -> DbResult<bool> {
    let session = call.session.clone();
    let mut statements =
        vec![session.sql(ADVANCE, &[id.into(), generation.into()]), session.sql(KEY, &[id.into()])];
    if generation == 0 {
        statements.insert(0, session.sql(BEGIN, &[id.into()]));
    }
    let sets = call.open(&statements.join("; ")).await?;
    let [.., advanced, keys] = sets.as_slice() else { return Ok(false) };
    let Some(key) = keys.rows.first().filter(|_| advanced.affected == 1) else {
        return Ok(false);
    };
    let table = Value::from(TableKey::Is(key.try_get(0)?));
    let next = generation.saturating_add(1);
    let mut writer = Writer::new(call);
    for old in remove {
        writer.push(REMOVE_PAGES, &[table, (*old).into()]).await?;
        writer.push(REMOVE_SEGMENT, &[table, (*old).into()]).await?;
    }
    let values = [
        table,
        next.into(),
        segment.after.map(|after| after.added_version.get()).into(),
        segment.after.map(|after| after.ordinal).into(),
        segment.through.added_version.get().into(),
        segment.through.ordinal.into(),
        segment.version.get().into(),
        segment.files.into(),
        Value::from(&*segment.root),
    ];
    writer.row(INSERT_SEGMENT, &values).await?;
    for (number, page) in (0_i64..).zip(&segment.pages) {
        let values = [table, next.into(), number.into(), Value::from(&**page)];
        writer.row(INSERT_PAGE, &values).await?;
    }
    writer.finish().await?;
    Ok(true)
}
