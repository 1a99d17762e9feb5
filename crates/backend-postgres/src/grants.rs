//! What a login needs (<https://www.postgresql.org/docs/current/sql-grant.html>).

use deltalakedb_catalog_core::error::{CatalogError, Result};
pub use deltalakedb_catalog_core::support::GrantRole;
use deltalakedb_catalog_core::support::quoted;

use crate::options::PostgresOptions;
use crate::schema::TABLES;

/// The statements that give an existing role what it needs, on our tables and nothing else.
///
/// # Errors
/// `InvalidInput` for options or a login that are not well formed.
pub fn grants(options: &PostgresOptions, role: GrantRole, login: &str) -> Result<Vec<String>> {
    options.validate()?;
    if login.is_empty() || login.chars().any(char::is_control) {
        return Err(CatalogError::invalid(format!(
            "bad login {login:?}: it is the name of a role"
        )));
    }
    let (database, grantee) = (quoted(&options.database, '"'), quoted(login, '"'));
    let schema = quoted(options.schema.as_deref().unwrap_or("public"), '"');
    let prefix = &options.table_prefix;
    let mut statements = vec![
        format!("GRANT CONNECT ON DATABASE {database} TO {grantee};"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {grantee};"),
    ];
    for table in TABLES {
        let rights = if table == "schema" { Some("SELECT") } else { role.rights_on(table) };
        let Some(rights) = rights else { continue };
        statements.push(format!("GRANT {rights} ON TABLE {schema}.{prefix}{table} TO {grantee};"));
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_tables_are_ours() {
        let mut options = PostgresOptions::new("h", 5432, "la\"ke", "postgres");
        options.schema = Some("Lake".to_owned());
        let writer = grants(&options, GrantRole::Writer, "w\"r").unwrap();
        for expected in [
            "GRANT CONNECT ON DATABASE \"la\"\"ke\" TO \"w\"\"r\";",
            "GRANT USAGE ON SCHEMA \"Lake\" TO \"w\"\"r\";",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"Lake\".dl_files TO \"w\"\"r\";",
            "GRANT SELECT ON TABLE \"Lake\".dl_schema TO \"w\"\"r\";",
            "GRANT SELECT, INSERT ON TABLE \"Lake\".dl_audit TO \"w\"\"r\";",
        ] {
            assert!(writer.iter().any(|s| s == expected), "{writer:?}");
        }
        let registry = |role| {
            let statements = grants(&options, role, "x").unwrap();
            statements.into_iter().find(|s| s.contains("dl_registry"))
        };
        for (role, rights) in [
            (GrantRole::Admin, Some("SELECT, INSERT, UPDATE, DELETE")),
            (GrantRole::Writer, Some("SELECT")),
            (GrantRole::Reader, None),
        ] {
            let want = rights.map(|r| format!("GRANT {r} ON TABLE \"Lake\".dl_registry TO \"x\";"));
            assert_eq!(registry(role), want, "{role:?}");
        }
        let reader = grants(&options, GrantRole::Reader, "r").unwrap();
        assert!(reader[2..].iter().all(|s| s.starts_with("GRANT SELECT ON TABLE ")), "{reader:?}");
        assert!(grants(&options, GrantRole::Reader, "").is_err());
    }
}
