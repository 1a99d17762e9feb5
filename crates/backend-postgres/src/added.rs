//! Tables that a version added beside the others, made in a catalog that had none.

use deltalakedb_catalog_core::error::CatalogError;
use sqlx::Row;

use crate::ddl::for_speed;
use crate::errors::DbResult;
use crate::session::{Args, Call};
use crate::upgrade::Place;

/// A table that a version added.
pub(crate) struct Added {
    /// Without prefix.
    pub(crate) name: &'static str,
    /// The version.
    pub(crate) version: u32,
    /// What makes it.
    pub(crate) text: &'static str,
    /// What is done without where it cannot be had.
    pub(crate) for_speed: Option<&'static str>,
    /// Rights on the catalog's other tables, and those on this one that come with them.
    pub(crate) rights: &'static [(&'static str, &'static str)],
}

/// What gives the table the owner of the other tables, and logins rights on it. Nobody else has any.
const RIGHTS: &str = "
WITH t AS (
    SELECT o.relowner, o.relacl, a.oid AS added, a.relowner AS added_owner, a.relacl AS added_acl
    FROM pg_catalog.pg_class o, pg_catalog.pg_class a
    WHERE o.oid = $1::text::regclass AND a.oid = $2::text::regclass
), held AS (
    SELECT t.added, x.grantee, w.gives
    FROM t CROSS JOIN LATERAL aclexplode(t.relacl) x
    JOIN unnest($3::text[], $4::text[]) AS w (has, gives) ON w.has = x.privilege_type
    WHERE x.grantee <> t.relowner
)
SELECT line FROM (
    SELECT 1 AS place, format('REVOKE ALL ON TABLE %s FROM %s', t.added::regclass, CASE x.grantee
        WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END) AS line
    FROM t CROSS JOIN LATERAL aclexplode(t.added_acl) x WHERE x.grantee <> t.added_owner
    UNION
    SELECT 2, format('GRANT %s ON TABLE %s TO %s', h.gives, h.added::regclass,
        CASE h.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(h.grantee)) END)
    FROM held h
    UNION
    SELECT 3, format('ALTER TABLE %s OWNER TO %I', t.added::regclass, pg_get_userbyid(t.relowner))
    FROM t WHERE t.relowner <> t.added_owner
) AS gifts ORDER BY place, line";

/// Whether a name is taken beside the catalog's tables.
const TAKEN: &str =
    "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_class t ON t.relnamespace = c.relnamespace
    WHERE t.oid = $1::text::regclass AND c.relname::text = $2";

/// Makes tables in a catalog that had none of them: inside of the caller's transaction.
///
/// # Errors
/// `Schema` if there is one of that name, which is not ours.
pub(crate) async fn add(call: &mut Call, added: &Added) -> DbResult<()> {
    let place = Place::of(call).await?;
    let (tables, table) = (place.fill("{p}tables"), format!("{}{}", place.start, added.name));
    let name = format!("{}{}", place.prefix, added.name);
    let args = Args::new().bind(tables.as_str()).bind(name.as_str());
    if !call.fetch_text(TAKEN.to_owned(), args).await?.is_empty() {
        return Err(CatalogError::Schema(format!(
            "the upgrade of the catalog in database '{}' to schema version {} makes a table {table}, and there is \
             one of that name which is not ours: rename or drop it, then run `dl init` again. Nothing was changed",
            place.at, added.version
        ))
        .into());
    }
    // Beside the other tables, also where a new table without a schema in its name would stand elsewhere.
    call.simple(place.fill(added.text)).await?;
    if let Some(text) = added.for_speed {
        for_speed(call, &place.fill(text)).await?;
    }
    let (has, gives): (Vec<&str>, Vec<&str>) = added.rights.iter().copied().unzip();
    let args = Args::new().bind(tables.as_str()).bind(table.as_str()).bind(has).bind(gives);
    let mut gifts: Vec<String> = Vec::new();
    for row in &call.fetch_text(RIGHTS.to_owned(), args).await? {
        gifts.push(row.try_get(0)?);
    }
    call.simple(gifts.join(";\n")).await
}
