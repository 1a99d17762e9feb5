//! Skipping indexes: bytes by their key.

use bytes::Bytes;
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::model::{
    FileCursor, NewSkipSegment, SkipIndex, SkipPage, SkipSegment,
};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::{Reader, key};
use crate::session::{Args, Call, statements};

// Statements on `{p}skip_index`, `{p}skip_segments` and `{p}skip_pages`.
statements! {
    /// One statement, so that all is of one moment. Not `NOT EXISTS`, of which the planner may make a
    /// join with all files.
    INDEX: concat!("SELECT i.generation, s.segment_id, s.after_version, s.after_ordinal,
            s.through_version, s.through_ordinal, s.built_version, s.num_files, s.root,
            CASE WHEN (SELECT f.ordinal FROM {p}files f WHERE f.table_key = s.table_key
                AND (f.added_version, f.ordinal) > (s.through_version, s.through_ordinal)
                ORDER BY f.added_version, f.ordinal LIMIT 1) IS NULL
                THEN (SELECT t.head_version FROM {p}tables t WHERE t.table_key = s.table_key) END
        FROM {p}skip_index i LEFT JOIN {p}skip_segments s ON s.table_key = i.table_key
        WHERE i.table_key = ", key!(), "
        ORDER BY s.through_version, s.through_ordinal"),
    PAGES: concat!("SELECT f.body FROM unnest($2::int8[], $3::int8[])
            WITH ORDINALITY AS k (key_segment, key_page, place)
        LEFT JOIN LATERAL (SELECT p.body FROM {p}skip_pages p
            WHERE p.table_key = ", key!(), " AND p.segment_id = k.key_segment
              AND p.page_no = k.key_page
            OFFSET 0) f ON true
        ORDER BY k.place"),
    BEGIN: "INSERT INTO {p}skip_index (table_key, generation)
        SELECT table_key, 0 FROM {p}tables WHERE id = $1
        ON CONFLICT (table_key) DO NOTHING",
    /// Of two at once the second waits here, and then finds another generation.
    ADVANCE: concat!("UPDATE {p}skip_index SET generation = generation + 1
        WHERE table_key = ", key!(), " AND generation = $2"),
    REMOVE_PAGES: concat!("DELETE FROM {p}skip_pages
        WHERE table_key = ", key!(), " AND segment_id = ANY ($2::int8[])"),
    REMOVE_SEGMENTS: concat!("DELETE FROM {p}skip_segments
        WHERE table_key = ", key!(), " AND segment_id = ANY ($2::int8[])"),
    INSERT_SEGMENT: concat!("INSERT INTO {p}skip_segments (table_key, segment_id, after_version,
            after_ordinal, through_version, through_ordinal, built_version, num_files, root)
        VALUES (", key!(), ", $2, $3, $4, $5, $6, $7, $8, $9)"),
    INSERT_PAGES: concat!("INSERT INTO {p}skip_pages (table_key, segment_id, page_no, body)
        SELECT ", key!(), ", $2, k.page_no, k.body
        FROM unnest($3::int8[], $4::bytea[]) AS k (page_no, body)"),
}

pub(crate) async fn index(call: &mut Call, id: TableId) -> DbResult<SkipIndex> {
    let table = id.to_string();
    let mut index = SkipIndex::default();
    for row in &call.fetch(INDEX, Args::of(id)).await? {
        let r = Reader::new(row, &table, None);
        index.generation = r.get(0)?;
        let Some(segment) = r.get::<Option<i64>>(1)? else { continue };
        // The last row decides.
        index.complete_to = r.version_opt(9)?;
        let after = match r.version_opt(2)? {
            Some(added_version) => Some(FileCursor { added_version, ordinal: r.get(3)? }),
            None => None,
        };
        index.segments.push(SkipSegment {
            id: segment,
            after,
            through: FileCursor { added_version: r.version(4)?, ordinal: r.get(5)? },
            version: r.version(6)?,
            files: r.get(7)?,
            root: r.get::<Vec<u8>>(8)?.into(),
        });
    }
    Ok(index)
}

pub(crate) async fn pages(
    call: &mut Call,
    id: TableId,
    pages: &[SkipPage],
) -> DbResult<Vec<Option<Bytes>>> {
    let segments: Vec<i64> = pages.iter().map(|page| page.segment).collect();
    let numbers: Vec<i64> = pages.iter().map(|page| page.page.into()).collect();
    let rows = call.fetch(PAGES, Args::of(id).bind(segments).bind(numbers)).await?;
    let body = |row| Ok(Row::try_get::<Option<Vec<u8>>, _>(row, 0)?.map(Bytes::from));
    rows.iter().map(body).collect()
}

/// The row of `{p}skip_index` is what is compared and set; it stays locked to the end.
pub(crate) async fn replace(
    call: &mut Call,
    id: TableId,
    generation: i64,
    remove: &[i64],
    segment: &NewSkipSegment,
) -> DbResult<bool> {
    if generation == 0 {
        call.execute(BEGIN, Args::of(id)).await?;
    }
    if call.execute(ADVANCE, Args::of(id).bind(generation)).await? != 1 {
        return Ok(false);
    }
    let next = generation.saturating_add(1);
    if !remove.is_empty() {
        call.execute(REMOVE_PAGES, Args::of(id).bind(remove)).await?;
        call.execute(REMOVE_SEGMENTS, Args::of(id).bind(remove)).await?;
    }
    let args = Args::of(id)
        .bind(next)
        .bind(segment.after.map(|after| after.added_version.get()))
        .bind(segment.after.map(|after| after.ordinal))
        .bind(segment.through.added_version.get())
        .bind(segment.through.ordinal)
        .bind(segment.version.get())
        .bind(segment.files)
        .bind(&*segment.root);
    call.execute(INSERT_SEGMENT, args).await?;
    let numbers: Vec<i64> = (0_i64..).take(segment.pages.len()).collect();
    let bodies: Vec<&[u8]> = segment.pages.iter().map(|page| &**page).collect();
    call.execute(INSERT_PAGES, Args::of(id).bind(next).bind(numbers).bind(bodies)).await?;
    Ok(true)
}
