//! Where a front finds its catalog: flag, environment, config file.
//!
//! The first of these that names a catalog wins:
//!
//! 1. `--catalog`
//! 2. the environment variable `DELTA_DB_CONNECTION`
//! 3. the file that `DELTA_DB_CONNECTION_FILE` names, with a URL in it (a mounted secret)
//! 4. the environment variable `DATABASE_URL`, which many platforms set
//! 5. the config file: `$DL_CONFIG` and no other, if set; else `./dl.toml`, and for keys that it
//!    lacks `$XDG_CONFIG_HOME/dl/config.toml` (`~/.config/dl/config.toml`)
//!
//! ```toml
//! catalog = "sqlite:///lake/catalog.db"   # relative paths are relative to this file
//! format = "table"                        # or "json"
//! foreign_check_interval = "5m"           # how often workers look at idle tables; "0" = never
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use figment::providers::{Format, Toml};
use figment::{Figment, Source};
use serde::Deserialize;

use crate::uri::{CatalogUri, parse_duration, read_secret};

/// Environment variable that names the catalog.
pub const CATALOG_VARIABLE: &str = "DELTA_DB_CONNECTION";
/// Environment variable that names a file with the catalog's URL in it.
pub const CATALOG_FILE_VARIABLE: &str = "DELTA_DB_CONNECTION_FILE";
/// Environment variable that platforms set for the one database of a program.
pub const DATABASE_VARIABLE: &str = "DATABASE_URL";
/// Environment variable that names the config file.
pub const CONFIG_VARIABLE: &str = "DL_CONFIG";
/// Config file of a project, in the working directory.
const PROJECT_FILE: &str = "dl.toml";

/// The keys of a config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    catalog: Option<String>,
    format: Option<String>,
    foreign_check_interval: Option<String>,
}

/// What environment and config files say.
#[derive(Clone, Default)]
pub struct Config {
    catalog: Option<Origin>,
    format: Option<String>,
    foreign_check_interval: Option<String>,
}

/// A catalog's URL and where it was found.
#[derive(Clone)]
struct Origin {
    url: String,
    found: String,
    folder: Option<PathBuf>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL is not shown: it may be wrong, and then hold anything.
        f.debug_struct("Config")
            .field("catalog_from", &self.catalog.as_ref().map(|o| o.found.as_str()))
            .field("format", &self.format)
            .field("foreign_check_interval", &self.foreign_check_interval)
            .finish()
    }
}

impl Config {
    /// Reads the environment of this process and its config files.
    ///
    /// # Errors
    /// `InvalidInput` for a config file that cannot be read or has a key that is not known.
    pub fn load() -> Result<Config> {
        Config::load_from(&|name| std::env::var(name).ok(), Path::new(""))
    }

    /// The same with an environment from outside; `folder` is the working directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(variable: &dyn Fn(&str) -> Option<String>, folder: &Path) -> Result<Config> {
        // A variable that is set to nothing counts as not set.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut files = Figment::new();
        if let Some(file) = variable(CONFIG_VARIABLE) {
            let file = folder.join(file);
            if !file.is_file() {
                return Err(CatalogError::invalid(format!(
                    "the config file '{}' that {CONFIG_VARIABLE} names does not exist",
                    file.display()
                )));
            }
            files = files.merge(Toml::file_exact(file));
        } else {
            let home = variable("HOME").or_else(|| variable("USERPROFILE"));
            let user = variable("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| Path::new(&home).join(".config")));
            let user = user.map(|user| user.join("dl").join("config.toml"));
            for file in user.into_iter().chain([folder.join(PROJECT_FILE)]) {
                if file.is_file() {
                    files = files.merge(Toml::file_exact(file));
                }
            }
        }
        let keys: Keys = files.extract().map_err(|error| {
            let place = match error.metadata.as_ref().and_then(|m| m.source.as_ref()) {
                Some(Source::File(file)) => format!("config file {}", file.display()),
                _ => "config file".to_owned(),
            };
            CatalogError::invalid(format!("{place}: {}", error.kind.to_string().trim_end()))
        })?;
        let from_environment = |name: &'static str| {
            let found = format!("environment variable {name}");
            variable(name).map(|url| Origin { url, found, folder: None })
        };
        let from_secret = || {
            let Some(file) = variable(CATALOG_FILE_VARIABLE) else { return Ok(None) };
            let file = folder.join(file);
            let url = read_secret(CATALOG_FILE_VARIABLE, &file)?.expose().trim().to_owned();
            let found = format!("the file '{}' ({CATALOG_FILE_VARIABLE})", file.display());
            Ok::<_, CatalogError>(Some(Origin { url, found, folder: None }))
        };
        let from_file = || {
            let url = keys.catalog.clone()?;
            let file = files.find_metadata("catalog").and_then(|m| match &m.source {
                Some(Source::File(file)) => Some(file.clone()),
                _ => None,
            });
            Some(Origin {
                url,
                found: file.as_ref().map_or_else(
                    || "config file".into(),
                    |f| format!("config file {}", f.display()),
                ),
                folder: file.as_deref().and_then(Path::parent).map(Path::to_path_buf),
            })
        };
        let catalog = match from_environment(CATALOG_VARIABLE) {
            Some(origin) => Some(origin),
            None => from_secret()?,
        };
        let catalog = catalog.or_else(|| from_environment(DATABASE_VARIABLE)).or_else(from_file);
        let Keys { format, foreign_check_interval, .. } = keys;
        Ok(Config { catalog, format, foreign_check_interval })
    }

    /// The catalog to use: `flag` if there is one, else what the environment or a file says.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` for a bad URL (saying where it stands); `InvalidInput` that
    /// tells the ways if there is none.
    pub fn catalog(&self, flag: Option<&str>) -> Result<CatalogUri> {
        if let Some(url) = flag {
            return url.parse().map_err(|e| placed(e, "--catalog"));
        }
        let Some(origin) = &self.catalog else {
            return Err(CatalogError::invalid(format!(
                "no catalog given. Name it in one of these ways:\n  \
                 --catalog sqlite:///path/catalog.db\n  \
                 {CATALOG_VARIABLE}=postgresql://user@host/database in the environment\n  \
                 {CATALOG_FILE_VARIABLE}=/run/secrets/catalog-url, a file with the URL in it\n  \
                 catalog = \"sqlite:///path/catalog.db\" in ./{PROJECT_FILE} or \
                 ~/.config/dl/config.toml"
            )));
        };
        let uri: CatalogUri = origin.url.parse().map_err(|e| placed(e, &origin.found))?;
        Ok(match &origin.folder {
            Some(folder) => uri.relative_to(folder),
            None => uri,
        })
    }

    /// How often a worker that watches looks at idle tables for commits of other programs: `flag` if
    /// there is one, else `foreign_check_interval` of the config file. None: nobody says; zero: never.
    ///
    /// # Errors
    /// `InvalidInput` for what is no duration.
    pub fn foreign_check_interval(&self, flag: Option<&str>) -> Result<Option<Duration>> {
        let (place, text) = match (flag, &self.foreign_check_interval) {
            (Some(flag), _) => ("--foreign-check-interval", flag),
            (None, Some(text)) => ("foreign_check_interval of the config file", text.as_str()),
            (None, None) => return Ok(None),
        };
        parse_duration(text).map(Some).ok_or_else(|| {
            CatalogError::invalid(format!(
                "{place} must be a duration of at most 365d: a whole number of seconds, or one with a \
                 unit such as 500ms, 30s, 5m, 2h; 0 = never"
            ))
        })
    }

    /// `format` of the config file, as written.
    #[must_use]
    pub fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }
}

fn placed(error: CatalogError, place: &str) -> CatalogError {
    match error {
        CatalogError::InvalidInput(text) => CatalogError::InvalidInput(format!("{place}: {text}")),
        CatalogError::Unsupported(text) => CatalogError::Unsupported(format!("{place}: {text}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        variables: BTreeMap<String, String>,
    }

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let mut world = World { dir, variables: BTreeMap::new() };
            for folder in ["work", "home/.config/dl", "xdg/dl"] {
                fs::create_dir_all(world.dir.path().join(folder)).unwrap();
            }
            world.set("HOME", &world.path("home"));
            world
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).to_str().unwrap().to_owned()
        }

        fn set(&mut self, name: &str, value: &str) {
            self.variables.insert(name.to_owned(), value.to_owned());
        }

        fn file(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
        }

        fn load(&self) -> Result<Config> {
            Config::load_from(
                &|name| self.variables.get(name).cloned(),
                &self.dir.path().join("work"),
            )
        }

        fn catalog(&self) -> String {
            self.load().unwrap().catalog(None).unwrap().to_string()
        }
    }

    #[test]
    fn flag_before_variable_before_files() {
        let mut world = World::new();
        let none = world.load().unwrap().catalog(None).unwrap_err().to_string();
        for way in ["--catalog", "DELTA_DB_CONNECTION=", "DELTA_DB_CONNECTION_FILE=", "dl.toml"] {
            assert!(none.contains(way), "{none}");
        }
        world.file("home/.config/dl/config.toml", "catalog = 'sqlite:///home.db'");
        assert_eq!(world.catalog(), "sqlite:///home.db");
        world.set("XDG_CONFIG_HOME", &world.path("xdg"));
        world.file("xdg/dl/config.toml", "catalog = 'sqlite:///xdg.db'\nformat = 'json'");
        assert_eq!(world.catalog(), "sqlite:///xdg.db");
        world.file("work/dl.toml", "catalog = 'sqlite:///project.db'");
        assert_eq!(world.catalog(), "sqlite:///project.db");
        assert_eq!(world.load().unwrap().format(), Some("json"), "files complete each other");
        world.file("given.toml", "catalog = 'sqlite:///given.db'");
        world.set("DL_CONFIG", &world.path("given.toml"));
        assert_eq!(world.catalog(), "sqlite:///given.db");
        assert_eq!(world.load().unwrap().format(), None, "DL_CONFIG stands alone");
        world.set("DATABASE_URL", "postgres://ann:geheim@h/db");
        assert_eq!(world.catalog(), "postgresql://ann@h/db");
        world.file("url", "mysql://ann@h/db\n");
        world.set("DELTA_DB_CONNECTION_FILE", &world.path("url"));
        assert_eq!(world.catalog(), "mysql://ann@h/db");
        world.set("DELTA_DB_CONNECTION", "sqlite:///variable.db");
        assert_eq!(world.catalog(), "sqlite:///variable.db");
        let uri = world.load().unwrap().catalog(Some("sqlite:///flag.db")).unwrap();
        assert_eq!(uri.to_string(), "sqlite:///flag.db");
        for name in ["DELTA_DB_CONNECTION", "DELTA_DB_CONNECTION_FILE", "DATABASE_URL"] {
            world.set(name, "");
        }
        assert_eq!(world.catalog(), "sqlite:///given.db");
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let mut world = World::new();
        world.file("given.toml", "catalog = 'sqlite://c.db'");
        world.set("DL_CONFIG", &world.path("given.toml"));
        assert_eq!(world.catalog(), format!("sqlite://{}", world.path("c.db")));
        world.file("given.toml", "catalog = 'mysql://u@h/d?password_file=pw'");
        let at = format!("mysql://u@h/d?password_file={}", world.path("pw"));
        assert_eq!(world.catalog(), at);
    }

    #[test]
    fn errors_say_where_and_keep_secrets() {
        let mut world = World::new();
        world.file("work/dl.toml", "catalogue = 'x'");
        let e = world.load().unwrap_err().to_string();
        assert!(e.contains("dl.toml") && e.contains("catalogue"), "{e}");
        world.file("work/dl.toml", "catalog = ");
        assert!(world.load().unwrap_err().to_string().contains("dl.toml"));
        for url in ["oracle://u:geheim@h/d", "mysql://u:gehe/im@h/d", "mysql://u:geheim@h"] {
            world.file("work/dl.toml", &format!("catalog = '{url}'"));
            let e = world.load().unwrap().catalog(None).unwrap_err().to_string();
            assert!(e.contains("dl.toml") && !e.contains("gehe"), "{e}");
        }
        world.set("DELTA_DB_CONNECTION_FILE", &world.path("no-secret"));
        let e = world.load().unwrap_err().to_string();
        assert!(e.contains("DELTA_DB_CONNECTION_FILE") && e.contains("no-secret"), "{e}");
        world.file("url", "u:geheim@h");
        world.set("DELTA_DB_CONNECTION_FILE", &world.path("url"));
        let e = world.load().unwrap().catalog(None).unwrap_err().to_string();
        assert!(e.contains("DELTA_DB_CONNECTION_FILE") && !e.contains("geheim"), "{e}");
        world.set("DELTA_DB_CONNECTION", "u:geheim@h");
        let config = world.load().unwrap();
        let e = config.catalog(None).unwrap_err().to_string();
        assert!(e.contains("DELTA_DB_CONNECTION") && !e.contains("geheim"), "{e}");
        assert!(!format!("{config:?}").contains("geheim"));
        world.set("DL_CONFIG", "missing.toml");
        assert!(world.load().unwrap_err().to_string().contains("missing.toml"));
    }
}
