//! What other people have done to our tables: what is kept, and what an upgrade refuses.

use deltalakedb_catalog_core::error::CatalogError;
use sqlx::Row;

use crate::errors::{DbError, DbResult};
use crate::layout::CHILDREN;
use crate::session::{Args, Call};

use super::{Place, SUFFIX};

/// What stands on the tables $1 that is not ours, a line each. $2 are the names of our indexes and constraints, $3 of
/// our columns.
const OTHERS: &str = "
WITH ours AS (
    SELECT c.oid, c.relname::text AS relname, n.nspname::text AS nspname, c.relrowsecurity
    FROM unnest($1::text[]) AS name
    JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
)
SELECT 'view ' || v.oid::regclass::text AS line
FROM ours o
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = o.oid
    AND d.classid = 'pg_catalog.pg_rewrite'::regclass
JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.oid <> o.oid
UNION SELECT 'rule ' || r.rulename::text || ' on ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_rewrite r ON r.ev_class = o.oid
UNION SELECT 'trigger ' || t.tgname::text || ' on ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_trigger t ON t.tgrelid = o.oid AND NOT t.tgisinternal
UNION SELECT 'foreign key ' || k.conname::text || ' of ' || k.conrelid::regclass::text
FROM ours o JOIN pg_catalog.pg_constraint k ON k.contype = 'f' AND o.oid IN (k.conrelid, k.confrelid)
UNION SELECT 'constraint ' || k.conname::text || ' of ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_constraint k ON k.conrelid = o.oid AND k.contype IN ('c', 'u', 'x')
WHERE k.conname::text <> ALL ($2::text[])
UNION SELECT 'index ' || i.indexrelid::regclass::text
FROM ours o JOIN pg_catalog.pg_index i ON i.indrelid = o.oid
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE c.relname::text <> ALL ($2::text[])
UNION SELECT 'column ' || a.attname::text || ' of ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE o.relname || '.' || a.attname::text <> ALL ($3::text[])
UNION SELECT 'publication ' || p.pubname::text || ' with ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_publication_tables p
    ON p.schemaname::text = o.nspname AND p.tablename::text = o.relname
UNION SELECT 'policy ' || y.polname::text || ' on ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_policy y ON y.polrelid = o.oid
UNION SELECT 'row security on ' || o.oid::regclass::text FROM ours o WHERE o.relrowsecurity
UNION SELECT 'inheritance of ' || h.inhrelid::regclass::text
FROM ours o JOIN pg_catalog.pg_inherits h ON o.oid IN (h.inhparent, h.inhrelid)
UNION SELECT 'statistics ' || s.stxname::text || ' on ' || o.oid::regclass::text
FROM ours o JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = o.oid
ORDER BY 1";

/// Fails if somebody has added to the tables that are replaced what a copy would not have.
pub(super) async fn refuse(call: &mut Call, place: &Place) -> DbResult<()> {
    let tables = place.replaced("");
    let (mut names, mut columns) = (Vec::new(), Vec::new());
    for child in &CHILDREN {
        let table = format!("{}{}", place.prefix, child.name);
        names.extend(child.index_names().into_iter().map(|name| format!("{}{name}", place.prefix)));
        columns.push(format!("{table}.table_id"));
        columns.extend(child.copied("").split(", ").map(|column| format!("{table}.{column}")));
    }
    names.extend(
        ["mirror_mode_check", "mirror_status_state_check"]
            .map(|name| format!("{}{name}", place.prefix)),
    );
    let args = Args::new().bind(&tables).bind(&names).bind(&columns);
    let mut lines: Vec<String> = Vec::new();
    for row in &call.fetch_text(OTHERS.to_owned(), args).await? {
        lines.push(row.try_get(0)?);
    }
    if lines.is_empty() {
        return Ok(());
    }
    Err(refused(place, &lines.join(", ")))
}

fn refused(place: &Place, what: &str) -> DbError {
    CatalogError::Schema(format!(
        "the upgrade of the catalog in database '{}' to schema version 3 makes its tables anew, and others have added \
         to them what would be lost: {what}. Drop it, run `dl init` again, and make it again after that (rows name \
         their table by table_key then). Nothing was changed",
        place.at
    ))
    .into()
}

/// The error of a DROP that something else stands in the way of.
pub(super) fn stands_on_it(error: DbError, place: &Place) -> DbError {
    // dependent_objects_still_exist.
    if error.code() == Some("2BP01") {
        let what = error.detail().unwrap_or("an object that depends on them").to_owned();
        return refused(place, &what);
    }
    error
}

/// Rows of one column of text.
async fn lines(call: &mut Call, sql: String, args: Args) -> DbResult<Vec<String>> {
    let mut lines = Vec::new();
    for row in &call.fetch_text(sql, args).await? {
        lines.push(row.try_get(0)?);
    }
    Ok(lines)
}

/// Pairs of a table and its copy.
const PAIRS: &str = "
    SELECT o.oid, o.relowner, o.relacl, o.reltablespace, o.reloptions, o.reltoastrelid, c.oid AS copy, c.relacl AS copy_acl, c.relowner AS copy_owner, names.old AS name
    FROM unnest($1::text[], $2::text[]) AS names (old, copy)
    JOIN pg_catalog.pg_class o ON o.oid = pg_catalog.to_regclass(names.old)
    JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(names.copy)";

fn pairs(place: &Place) -> Args {
    Args::new().bind(place.replaced("")).bind(place.replaced(SUFFIX))
}

/// Gives the copies, which are empty, the tablespaces and parameters of the tables.
pub(super) async fn give_storage(call: &mut Call, place: &Place) -> DbResult<()> {
    let sql = format!(
        "WITH pairs AS ({PAIRS})
        SELECT format('ALTER TABLE %s SET TABLESPACE %I', p.copy::regclass, s.spcname)
        FROM pairs p JOIN pg_catalog.pg_tablespace s ON s.oid = p.reltablespace
        UNION ALL
        SELECT format('ALTER TABLE %s SET (%s)', p.copy::regclass, array_to_string(p.reloptions, ', '))
        FROM pairs p WHERE cardinality(p.reloptions) > 0
        UNION ALL
        SELECT format('ALTER TABLE %s SET (%s)', p.copy::regclass, (
            SELECT string_agg('toast.' || o, ', ') FROM unnest(t.reloptions) AS o))
        FROM pairs p JOIN pg_catalog.pg_class t ON t.oid = p.reltoastrelid
        WHERE cardinality(t.reloptions) > 0"
    );
    let statements = lines(call, sql, pairs(place)).await?;
    call.simple(statements.join(";\n")).await
}

/// What gives the copies, once they have the names of the tables, the owners, rights and comments of these. Rights
/// that a copy has by default and the table has not are taken away.
pub(super) async fn rights(call: &mut Call, place: &Place) -> DbResult<Vec<String>> {
    let sql = format!(
        "WITH pairs AS ({PAIRS}), held AS (
            SELECT p.name, p.relowner, a.* FROM pairs p
            CROSS JOIN LATERAL aclexplode(p.relacl) a
        ), of_columns AS (
            SELECT p.name, CASE a.attname WHEN 'table_id' THEN 'table_key' ELSE a.attname END AS col, x.*
            FROM pairs p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attacl IS NOT NULL
            CROSS JOIN LATERAL aclexplode(a.attacl) x
        )
        SELECT line FROM (
            SELECT 1 AS place, format('ALTER TABLE %s OWNER TO %I', p.name, pg_get_userbyid(p.relowner)) AS line
            FROM pairs p WHERE p.relowner <> p.copy_owner
            UNION ALL
            SELECT DISTINCT 2, format('REVOKE ALL ON TABLE %s FROM %s', p.name, CASE a.grantee
                WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(CASE a.grantee
                    WHEN p.copy_owner THEN p.relowner ELSE a.grantee END)) END)
            FROM pairs p CROSS JOIN LATERAL aclexplode(coalesce(p.copy_acl,
                CASE WHEN p.relacl IS NOT NULL THEN acldefault('r', p.copy_owner) END)) a
            WHERE p.relacl IS NOT NULL OR a.grantee <> p.copy_owner
            UNION ALL
            SELECT 3, format('GRANT %s ON TABLE %s TO %s%s', h.privilege_type, h.name,
                CASE h.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(h.grantee)) END,
                CASE WHEN h.is_grantable AND h.grantee <> h.relowner THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM held h
            UNION ALL
            SELECT 4, format('GRANT %s (%I) ON TABLE %s TO %s%s', c.privilege_type, c.col, c.name,
                CASE c.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(c.grantee)) END,
                CASE WHEN c.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM of_columns c
            UNION ALL
            SELECT 5, format('COMMENT ON TABLE %s IS %L', p.name, obj_description(p.oid, 'pg_class'))
            FROM pairs p WHERE obj_description(p.oid, 'pg_class') IS NOT NULL
        ) AS gifts ORDER BY place, line"
    );
    lines(call, sql, pairs(place)).await
}

/// What gives the indexes and constraints of the copies, which have the names of the tables by now, the names that
/// they have in a catalog that is made anew.
pub(super) async fn renames(call: &mut Call, place: &Place) -> DbResult<Vec<String>> {
    let sql = "WITH ours AS (
            SELECT c.oid, c.relname::text AS old, c.relname::text || $2 AS copy
            FROM unnest($1::text[]) AS name JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)
        )
        SELECT format('ALTER INDEX %s RENAME TO %I', i.indexrelid::regclass,
            o.old || substr(c.relname::text, length(o.copy) + 1))
        FROM ours o JOIN pg_catalog.pg_index i ON i.indrelid = o.oid
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        WHERE left(c.relname::text, length(o.copy)) = o.copy
        UNION ALL
        SELECT format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', o.oid::regclass, k.conname,
            o.old || substr(k.conname::text, length(o.copy) + 1))
        FROM ours o JOIN pg_catalog.pg_constraint k ON k.conrelid = o.oid AND k.contype NOT IN ('p', 'u', 'x')
        WHERE left(k.conname::text, length(o.copy)) = o.copy";
    let args = Args::new().bind(place.replaced("")).bind(SUFFIX);
    lines(call, sql.to_owned(), args).await
}

/// The transactions that hold these tables, for a message.
pub(super) async fn holders(call: &mut Call, tables: &[&str]) -> DbResult<String> {
    let sql = "SELECT DISTINCT format('process %s of %s (%s, %s, in a transaction since %s)', a.pid,
            coalesce(a.usename, 'a login that is not shown'), coalesce(nullif(a.application_name, ''), 'no name'),
            coalesce(a.state, 'state not shown'), coalesce(a.xact_start::text, 'a time that is not shown'))
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE l.granted AND l.pid <> pg_backend_pid() AND l.locktype = 'relation'
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND l.relation IN (SELECT to_regclass(n)::oid FROM unnest($1::text[]) AS n)
        ORDER BY 1 LIMIT 10";
    let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
    let found = lines(call, sql.to_owned(), Args::new().bind(&tables)).await?;
    Ok(if found.is_empty() { "they are free by now".to_owned() } else { found.join("; ") })
}
