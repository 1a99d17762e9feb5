//! Where the password of a server comes from when its URL has none.
//!
//! The first of these that there is:
//!
//! 1. the URL itself; option `password_file` of the URL
//! 2. the environment variable `DELTA_DB_PASSWORD`
//! 3. the file that `DELTA_DB_PASSWORD_FILE` names
//! 4. what the database's own clients use: `PGPASSWORD`, then the password file `PGPASSFILE` or
//!    `~/.pgpass`; `MYSQL_PWD`

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use deltalakedb_catalog_core::error::{CatalogError, Result};

use super::{Scheme, ServerUri};

/// Environment variable with a server's password.
const PASSWORD_VARIABLE: &str = "DELTA_DB_PASSWORD";
/// Environment variable that names a file with it.
const PASSWORD_FILE_VARIABLE: &str = "DELTA_DB_PASSWORD_FILE";
/// A file with one secret, or a password file, is never longer, bytes.
const LONGEST_FILE: u64 = 1024 * 1024;

/// Text that neither `Debug` nor anything else shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this text to itself.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for the login and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl ServerUri {
    /// The password to log in with, if any source has one; `variable` is the environment.
    ///
    /// # Errors
    /// `InvalidInput` for a password file that is named and cannot be read, or is empty.
    pub fn find_password(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Secret>> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(password) = self.password() {
            return Ok(Some(password.clone()));
        }
        if let Some(file) = self.password_file() {
            return read_secret("password_file", file).map(Some);
        }
        if let Some(password) = variable(PASSWORD_VARIABLE) {
            return Ok(Some(Secret::new(password)));
        }
        if let Some(file) = variable(PASSWORD_FILE_VARIABLE) {
            return read_secret(PASSWORD_FILE_VARIABLE, Path::new(&file)).map(Some);
        }
        Ok(match self.scheme() {
            Scheme::Postgres => match variable("PGPASSWORD") {
                Some(password) => Some(Secret::new(password)),
                None => self.pgpass_password(&variable)?,
            },
            Scheme::MySql => variable("MYSQL_PWD").map(Secret::new),
            Scheme::Mssql | Scheme::Sqlite | Scheme::Memory => None,
        })
    }

    /// The user to log in as: the URL's, else what the database's own clients take, which is the
    /// system's user in the end.
    ///
    /// # Errors
    /// `InvalidInput` if there is none.
    pub fn find_user(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let names: &[&str] = match self.scheme() {
            Scheme::Postgres => &["PGUSER", "USER", "USERNAME"],
            Scheme::MySql => &["USER", "USERNAME"],
            Scheme::Mssql | Scheme::Sqlite | Scheme::Memory => &[],
        };
        let found = self.user().map(str::to_owned);
        found.or_else(|| names.iter().find_map(|name| variable(name))).ok_or_else(|| {
            CatalogError::invalid(format!(
                "the catalog's URL names no user: write {}://user@host/database",
                self.scheme().as_str()
            ))
        })
    }

    /// <https://www.postgresql.org/docs/current/libpq-pgpass.html>
    fn pgpass_password(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Secret>> {
        let named = variable("PGPASSFILE").map(PathBuf::from);
        let usual = || {
            if cfg!(windows) {
                let folder = variable("APPDATA")?;
                return Some(Path::new(&folder).join("postgresql").join("pgpass.conf"));
            }
            Some(Path::new(&variable("HOME")?).join(".pgpass"))
        };
        let Some(file) = named.or_else(usual).filter(|file| file.is_file()) else {
            return Ok(None);
        };
        if readable_by_others(&file) {
            // As libpq does. A login without a password fails soon, and says so.
            tracing::warn!(
                "password file '{}' is not used: others may read it (chmod 600)",
                file.display()
            );
            return Ok(None);
        }
        let user = self.find_user(variable)?;
        let host = match self.socket() {
            Some(_) => "localhost".to_owned(),
            None => self.host().to_owned(),
        };
        let port = self.port().to_string();
        let wanted = [host.as_str(), &port, self.database(), &user];
        let text = read_text("PGPASSFILE or ~/.pgpass", &file)?;
        Ok(text.lines().find_map(|line| pgpass_line(line, &wanted)).map(Secret::new))
    }
}

/// Text of a file with a connection URL or a password; without the line's end.
pub(crate) fn read_secret(what: &str, file: &Path) -> Result<Secret> {
    let text = read_text(what, file)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(CatalogError::invalid(format!(
            "{what}: the file '{}' is empty",
            file.display()
        )));
    }
    Ok(Secret::new(text))
}

fn read_text(what: &str, file: &Path) -> Result<String> {
    let trouble = |why: String| {
        CatalogError::invalid(format!("{what}: cannot read the file '{}': {why}", file.display()))
    };
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| trouble(e.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LONGEST_FILE {
        return Err(trouble("it is longer than a megabyte".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| trouble("it is not UTF-8".to_owned()))?;
    // Some editors put a byte order mark in front.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The password of a line `host:port:database:user:password`, if it is for these four. `*` stands
/// for anything; `\` keeps the next character.
fn pgpass_line(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut literal = vec![false];
    let mut chars = line.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                literal.push(false);
                continue;
            }
            _ => {}
        }
        let (c, kept) = match c {
            '\\' => (chars.next().unwrap_or('\\'), true),
            c => (c, false),
        };
        fields.last_mut()?.push(c);
        *literal.last_mut()? |= kept;
    }
    let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
    let fits = [host, port, database, user]
        .iter()
        .zip(&literal)
        .zip(wanted)
        .all(|((field, literal), wanted)| field == wanted || (field == "*" && !literal));
    fits.then_some(password).filter(|password| !password.is_empty())
}

#[cfg(unix)]
fn readable_by_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::uri::CatalogUri;

    struct World {
        dir: tempfile::TempDir,
        variables: BTreeMap<&'static str, String>,
    }

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().to_str().unwrap().to_owned();
            World { dir, variables: BTreeMap::from([("HOME", home)]) }
        }

        fn file(&self, name: &str, text: &str) -> String {
            let path = self.dir.path().join(name);
            fs::write(&path, text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            path.to_str().unwrap().to_owned()
        }

        fn password(&self, url: &str) -> Result<Option<String>> {
            let uri: CatalogUri = url.parse().unwrap();
            let found =
                uri.server().unwrap().find_password(&|name| self.variables.get(name).cloned())?;
            Ok(found.map(|secret| secret.expose().to_owned()))
        }
    }

    #[test]
    fn the_nearest_source_wins() {
        let mut world = World::new();
        let url = "postgresql://ann@h/db";
        assert_eq!(world.password(url).unwrap(), None);
        world.file(".pgpass", "h:5432:db:ann:from-pgpass\n");
        assert_eq!(world.password(url).unwrap().unwrap(), "from-pgpass");
        let other = world.file("other", "*:*:*:*:from-passfile\n");
        world.variables.insert("PGPASSFILE", other);
        assert_eq!(world.password(url).unwrap().unwrap(), "from-passfile");
        world.variables.insert("PGPASSWORD", "from-pg".into());
        assert_eq!(world.password(url).unwrap().unwrap(), "from-pg");
        let secret = world.file("secret", "from file \r\n");
        world.variables.insert("DELTA_DB_PASSWORD_FILE", secret.clone());
        assert_eq!(world.password(url).unwrap().unwrap(), "from file ");
        world.variables.insert("DELTA_DB_PASSWORD", "from-variable".into());
        assert_eq!(world.password(url).unwrap().unwrap(), "from-variable");
        let with_file = format!("{url}?password_file={secret}");
        assert_eq!(world.password(&with_file).unwrap().unwrap(), "from file ");
        assert_eq!(world.password("postgresql://ann:own@h/db").unwrap().unwrap(), "own");
        assert_eq!(world.password("mysql://ann@h/db").unwrap().unwrap(), "from-variable");
    }

    #[test]
    fn each_database_has_its_own_variables() {
        let mut world = World::new();
        world.variables.insert("PGPASSWORD", "pg".into());
        world.variables.insert("MYSQL_PWD", "my".into());
        assert_eq!(world.password("postgres://ann@h/db").unwrap().unwrap(), "pg");
        assert_eq!(world.password("mariadb://ann@h/db").unwrap().unwrap(), "my");
        assert_eq!(world.password("mssql://ann@h/db").unwrap(), None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_not_shown() {
        let mut world = World::new();
        let missing = world.dir.path().join("missing");
        let e = world
            .password(&format!("mysql://ann@h/db?password_file={}", missing.display()))
            .unwrap_err()
            .to_string();
        assert!(e.contains("password_file") && e.contains("missing"), "{e}");
        let empty = world.file("empty", "\n");
        world.variables.insert("DELTA_DB_PASSWORD_FILE", empty);
        let e = world.password("mysql://ann@h/db").unwrap_err().to_string();
        assert!(e.contains("DELTA_DB_PASSWORD_FILE") && e.contains("is empty"), "{e}");
        let secret = Secret::new("geheim");
        assert!(!format!("{secret:?}").contains("geheim"));
    }

    #[test]
    fn lines_of_pgpass_are_matched_as_libpq_does() {
        let wanted = ["h", "5432", "db", "ann"];
        for (line, password) in [
            ("h:5432:db:ann:secret", Some("secret")),
            ("*:*:*:*:s:e:c", Some("s:e:c")),
            ("*:5432:db:ann:a\\:b\\\\c", Some("a:b\\c")),
            ("h:5432:db:ann:secret\r", Some("secret")),
            ("\\*:5432:db:ann:secret", None),
            ("h:5433:db:ann:secret", None),
            ("h:5432:db:bob:secret", None),
            ("# h:5432:db:ann:secret", None),
            ("h:5432:db:ann:", None),
            ("h:5432", None),
            ("", None),
        ] {
            assert_eq!(pgpass_line(line, &wanted).as_deref(), password, "{line}");
        }
        let escaped = ["::1", "5432", "d:b", "ann"];
        assert_eq!(pgpass_line("\\:\\:1:*:d\\:b:ann:x", &escaped).as_deref(), Some("x"));
    }

    #[cfg(unix)]
    #[test]
    fn a_pgpass_that_others_may_read_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        let file = world.file(".pgpass", "*:*:*:*:secret\n");
        assert_eq!(world.password("postgres://ann@h/db").unwrap().unwrap(), "secret");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(world.password("postgres://ann@h/db").unwrap(), None);
    }

    #[test]
    fn users_default_as_in_the_databases_own_clients() {
        let find = |url: &str, variables: &[(&str, &str)]| {
            let uri: CatalogUri = url.parse().unwrap();
            uri.server().unwrap().find_user(&|name| {
                let found = variables.iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            })
        };
        let system = [("PGUSER", "pg"), ("USER", "sys")];
        assert_eq!(find("postgres://ann@h/db", &system).unwrap(), "ann");
        assert_eq!(find("postgres://h/db", &system).unwrap(), "pg");
        assert_eq!(find("mysql://h/db", &system).unwrap(), "sys");
        for (url, variables) in [("mssql://h/db", &system[..]), ("mysql://h/db", &[])] {
            let e = find(url, variables).unwrap_err().to_string();
            assert!(e.contains("names no user"), "{e}");
        }
    }
}
