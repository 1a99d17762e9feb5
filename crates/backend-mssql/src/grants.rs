//! The rights that a login needs, as statements for an administrator.

use deltalakedb_catalog_core::error::{CatalogError, Result};

use crate::options::MssqlOptions;
use crate::schema::TABLES;

/// What a login is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantRole {
    /// Commits, imports, publishes, and reads. It cannot change our tables' definition:
    /// `dl init` and `dl migrate` need more.
    Writer,
    /// Reads everything, writes nothing.
    Reader,
}

/// Statements that give a SQL login the rights of a role, to be run by an administrator in the
/// catalog's database after `dl init`. The first one is a comment, for a login that is not a user
/// of the database yet.
///
/// # Errors
/// `InvalidInput` if the login contains a control character or is empty, or the options are wrong.
pub fn grants(options: &MssqlOptions, role: GrantRole, login: &str) -> Result<Vec<String>> {
    options.validate()?;
    if login.is_empty() || login.chars().count() > 128 || login.chars().any(char::is_control) {
        return Err(CatalogError::invalid(format!(
            "bad login {login:?}: it is 1 to 128 characters, none of them a control character"
        )));
    }
    // A bracket inside of brackets is doubled
    // (https://learn.microsoft.com/sql/relational-databases/databases/database-identifiers).
    let user = format!("[{}]", login.replace(']', "]]"));
    let (schema, prefix) = (&options.schema, &options.table_prefix);
    let mut all = vec![format!("-- if it is not a user yet: CREATE USER {user} FOR LOGIN {user};")];
    for table in TABLES {
        let rights = match role {
            GrantRole::Reader => "SELECT",
            GrantRole::Writer => "SELECT, INSERT, UPDATE, DELETE",
        };
        all.push(format!("GRANT {rights} ON [{schema}].[{prefix}{table}] TO {user};"));
    }
    all.push(format!("GRANT SELECT ON [{schema}].[{prefix}schema] TO {user};"));
    Ok(all)
}
