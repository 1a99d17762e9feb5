//! The tables of a catalog: their names, checks of their version, and the rights of logins.

use crate::error::{CatalogError, Result};

/// Tables of a catalog besides `{p}schema`, without prefix.
pub const TABLES: [&str; 14] = [
    "tables",
    "commits",
    "commit_chunks",
    "files",
    "protocols",
    "metadata",
    "txns",
    "domain_metadata",
    "batches",
    "mirror",
    "mirror_status",
    "skip_index",
    "skip_segments",
    "skip_pages",
];

/// The table of the audit, without prefix. A backend without an audit has none.
pub const AUDIT: &str = "audit";
/// The table of the registry, without prefix. A backend without a registry has none.
pub const REGISTRY: &str = "registry";

/// The error of a database that keeps no audit.
#[must_use]
pub fn no_audit(database: &str, schema_version: u32) -> CatalogError {
    CatalogError::Unsupported(format!(
        "catalogs in {database} keep no audit: they have schema version {schema_version}, and the audit came with \
         version 4. The history of a table still says who made its commits (`dl history`)"
    ))
}

/// Checks that a catalog has the schema version that this program works with. `at` is the database, `nothing`
/// says why it is known to hold no catalog where `found` is 0.
///
/// # Errors
/// `Schema`, with what to do.
pub fn check_schema_version(found: u32, supported: u32, at: &str, nothing: &str) -> Result<()> {
    if found == supported {
        return Ok(());
    }
    if found > supported {
        return Err(schema_too_new(found, supported, at));
    }
    Err(CatalogError::Schema(if found == 0 {
        format!("database '{at}' holds no catalog yet ({nothing}): run `dl init` first")
    } else {
        format!(
            "the catalog in database '{at}' has schema version {found}, this program works with \
             {supported}: make a backup and run `dl init`, which upgrades it"
        )
    }))
}

/// The error of a catalog that a newer program has upgraded.
#[must_use]
pub fn schema_too_new(found: u32, supported: u32, at: &str) -> CatalogError {
    CatalogError::Schema(format!(
        "the catalog in database '{at}' has schema version {found}, this program knows versions up to \
         {supported}: use a newer version of this program. Nothing was changed"
    ))
}

/// What a login may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantRole {
    /// Everything that a writer may, and changes of the registry.
    Admin,
    /// Everything but changes of the registry, and creating and upgrading the tables.
    Writer,
    /// Every read, but for the registry.
    Reader,
}

impl GrantRole {
    /// The rights on a table, without prefix, as they stand in a `GRANT`; none: no right. Nobody alters or deletes
    /// rows of the audit. The registry has hashes of keys: a reader sees none of it.
    #[must_use]
    pub fn rights_on(self, table: &str) -> Option<&'static str> {
        match (self, table) {
            (GrantRole::Admin | GrantRole::Writer, AUDIT) => Some("SELECT, INSERT"),
            (GrantRole::Writer, REGISTRY) => Some("SELECT"),
            (GrantRole::Reader, REGISTRY) => None,
            (role, _) => Some(role.rights()),
        }
    }

    /// The rights on each table but those of the audit and the registry, as they stand in a `GRANT`.
    #[must_use]
    pub fn rights(self) -> &'static str {
        match self {
            GrantRole::Admin | GrantRole::Writer => "SELECT, INSERT, UPDATE, DELETE",
            GrantRole::Reader => "SELECT",
        }
    }
}

/// An identifier between quotes; a quote inside of it is doubled.
#[must_use]
pub fn quoted(name: &str, quote: char) -> String {
    let doubled = name.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
