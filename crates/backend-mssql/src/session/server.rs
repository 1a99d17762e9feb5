//! Which server this is, and whether it is new enough.

use deltalakedb_catalog_core::error::CatalogError;
use tiberius::Row;

use super::Session;
use crate::errors::{DbResult, Sent};
use crate::rows::Reader;

/// SQL Server 2019 (<https://learn.microsoft.com/sql/sql-server/sql-server-version-15>).
const OLDEST: u32 = 15;
/// Azure SQL Database and Azure SQL Managed Instance: always new, whatever version they tell
/// (<https://learn.microsoft.com/sql/t-sql/functions/serverproperty-transact-sql>).
const AZURE: [i64; 2] = [5, 8];

const LOOK: &str = "SELECT CAST(@@VERSION AS NVARCHAR(4000)) AS text, \
     CAST(SERVERPROPERTY('ProductMajorVersion') AS NVARCHAR(128)) AS major, \
     CAST(SERVERPROPERTY('ProductVersion') AS NVARCHAR(128)) AS version, \
     CAST(SERVERPROPERTY('EngineEdition') AS INT) AS edition";
const LOOK_AGAIN: &str = "SELECT @@VERSION AS text";

/// Opens the first connections, and returns the server's version text.
///
/// # Errors
/// `Unsupported` with its version and the one needed, if it is too old.
pub(crate) async fn look(session: &Session, min_connections: usize) -> DbResult<String> {
    let mut lease = session.lease().await?;
    let mut more = Vec::new();
    for _ in 1..min_connections {
        more.push(session.lease().await?);
    }
    let found = match lease.batch(LOOK, Sent::Harmless).await {
        Ok(sets) => sets.iter().flatten().next().map(Found::read),
        // A front that does not know these properties.
        Err(error) if error.number().is_some() => {
            let sets = lease.batch(LOOK_AGAIN, Sent::Harmless).await?;
            sets.iter().flatten().next().map(Found::read)
        }
        Err(error) => return Err(error),
    };
    drop(more);
    let found = found.unwrap_or_default();
    found.check(session.place())?;
    Ok(found.shown())
}

/// What a server tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    text: String,
    major: Option<u32>,
    version: Option<String>,
    edition: Option<i64>,
}

impl Found {
    fn read(row: &Row) -> Found {
        let r = Reader::new(row, "server", None);
        let text = |column| r.opt_text(column).ok().flatten();
        let version = text(2);
        let major = text(1).or_else(|| version.clone());
        Found {
            text: text(0).unwrap_or_default(),
            major: major.and_then(|major| major.split('.').next()?.trim().parse().ok()),
            version,
            edition: r.opt_i64(3).ok().flatten(),
        }
    }

    /// The major version, also from text like `Microsoft SQL Server 2019 (RTM) - 15.0.2000.5`.
    fn major(&self) -> Option<u32> {
        self.major.or_else(|| {
            let after = self.text.split(" - ").nth(1)?;
            after.split('.').next()?.trim().parse().ok()
        })
    }

    fn shown(&self) -> String {
        let line = self.text.lines().next().unwrap_or_default().trim();
        match (&self.version, line.is_empty()) {
            (_, false) => line.to_owned(),
            (Some(version), true) => version.clone(),
            (None, true) => "unknown".to_owned(),
        }
    }

    fn check(&self, place: &str) -> Result<(), CatalogError> {
        if self.edition.is_some_and(|edition| AZURE.contains(&edition)) {
            return Ok(());
        }
        // Engines that only speak the protocol tell a version that says little: they are taken as
        // they are.
        let another = !self.text.is_empty() && !self.text.starts_with("Microsoft SQL");
        match self.major().filter(|_| !another) {
            Some(major) if major < OLDEST => Err(CatalogError::Unsupported(format!(
                "SQL Server {place} is version {major} ({}): SQL Server 2019 (version {OLDEST}) or \
                 later, or Azure SQL, is needed",
                self.shown()
            ))),
            Some(_) => Ok(()),
            None => {
                tracing::warn!(
                    server = self.shown(),
                    "the server does not tell a version of SQL Server, of which 2019 or later is needed"
                );
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_with_their_version() {
        let old =
            Found { major: Some(14), text: "Microsoft SQL 2017".to_owned(), ..Found::default() };
        let error = old.check("h:1/d").unwrap_err().to_string();
        assert!(error.contains("14") && error.contains("SQL 2017"), "{error}");
        assert!(error.contains("2019"), "{error}");
        // Azure SQL tells version 12.
        for edition in AZURE {
            let azure = Found { major: Some(12), edition: Some(edition), ..Found::default() };
            azure.check("h:1/d").unwrap();
        }
        for major in [15, 16, 17] {
            Found { major: Some(major), ..Found::default() }.check("h:1/d").unwrap();
        }
    }

    #[test]
    fn the_version_is_also_found_in_the_text() {
        let with = |text: &str| Found { text: text.to_owned(), ..Found::default() };
        let known = with("Microsoft SQL Server 2017 (RTM-CU31) - 14.0.3456.2 (X64) \n\tCopyright");
        assert_eq!(known.major(), Some(14));
        assert!(known.check("h:1/d").is_err());
        for other in ["a front of something else", "Babelfish - 12.0.2000.8"] {
            let other = Found { major: Some(12), ..with(other) };
            other.check("h:1/d").unwrap();
        }
        with("").check("h:1/d").unwrap();
    }
}
