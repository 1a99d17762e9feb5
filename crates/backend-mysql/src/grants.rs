//! What a login needs (<https://dev.mysql.com/doc/refman/8.0/en/grant.html>).

use deltalakedb_catalog_core::error::{CatalogError, Result};
pub use deltalakedb_catalog_core::support::GrantRole;
use deltalakedb_catalog_core::support::quoted;

use crate::options::MySqlOptions;
use crate::schema::tables;

/// The statements that give an existing login what it needs, on our tables and nothing else.
/// `login` is `user` (from any host) or `user@host`.
///
/// # Errors
/// `InvalidInput` for options or a login that are not well formed.
pub fn grants(options: &MySqlOptions, role: GrantRole, login: &str) -> Result<Vec<String>> {
    options.validate()?;
    let (user, host) = login.rsplit_once('@').unwrap_or((login, "%"));
    if user.is_empty() || host.is_empty() || login.chars().any(char::is_control) {
        return Err(CatalogError::invalid(format!(
            "bad login {login:?}: it is a user, or user@host"
        )));
    }
    let (database, grantee) =
        (quoted(&options.database, '`'), format!("{}@{}", quoted(user, '`'), quoted(host, '`')));
    let prefix = &options.table_prefix;
    let mut statements = vec![format!("GRANT SELECT ON {database}.`{prefix}schema` TO {grantee};")];
    for table in tables() {
        let Some(rights) = role.rights_on(table) else { continue };
        statements.push(format!("GRANT {rights} ON {database}.`{prefix}{table}` TO {grantee};"));
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_tables_are_ours() {
        let options = MySqlOptions::new("h", 3306, "la`ke", "root");
        let writer = grants(&options, GrantRole::Writer, "w`r@10.%").unwrap();
        assert!(
            writer.iter().any(|s| s
                == "GRANT SELECT, INSERT, UPDATE, DELETE ON `la``ke`.`dl_files` TO `w``r`@`10.%`;"),
            "{writer:?}"
        );
        let audit = "GRANT SELECT, INSERT ON `la``ke`.`dl_audit` TO `w``r`@`10.%`;";
        assert!(writer.iter().any(|s| s == audit), "{writer:?}");
        let registry = |role| {
            let statements = grants(&options, role, "x").unwrap();
            statements.into_iter().find(|s| s.contains("dl_registry"))
        };
        for (role, rights) in [
            (GrantRole::Admin, Some("SELECT, INSERT, UPDATE, DELETE")),
            (GrantRole::Writer, Some("SELECT")),
            (GrantRole::Reader, None),
        ] {
            let want = rights.map(|r| format!("GRANT {r} ON `la``ke`.`dl_registry` TO `x`@`%`;"));
            assert_eq!(registry(role), want, "{role:?}");
        }
        let reader = grants(&options, GrantRole::Reader, "r").unwrap();
        // All but the registry, and the schema.
        assert_eq!(reader.len(), tables().count());
        assert!(reader.iter().all(|s| s.starts_with("GRANT SELECT ON") && s.ends_with("`r`@`%`;")));
        assert!(grants(&options, GrantRole::Reader, "").is_err());
    }
}
