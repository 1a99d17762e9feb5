//! The configuration: config files, environment, flags.
//!
//! Each value comes from the strongest source that has it:
//!
//! 1. flags, such as `--catalog`
//! 2. the environment: each key `section.name` has the variable `DELTA_SECTION_NAME`, some have others too,
//!    such as `DELTA_DB_CONNECTION`, `DATABASE_URL`, `DB_POOL_SIZE`, `LOG_LEVEL`; for a secret, `NAME_FILE`
//!    names a file with it
//! 3. the config file, YAML if it ends in `.yaml` or `.yml`, else TOML: the one that `$DELTA_CONFIG_PATH` or `$DL_CONFIG` names and
//!    no other, if one is set; else `./dl.toml`, `./dl.yaml` or `./dl.yml`, and for keys that it lacks
//!    `$XDG_CONFIG_HOME/dl/config.toml` (`~/.config/dl/config.toml`; `.yaml`, `.yml` too)
//! 4. defaults
//!
//! In a file, what the chosen profile says (`[profiles.NAME.section]`) goes before the rest. The profile is
//! `$DELTA_PROFILE`, else `$ENVIRONMENT` if it names one, else the key `profile`. Values may have `${VAR}` and
//! `${VAR:-default}` in them; `$$` is a dollar sign.
//!
//! ```toml
//! catalog = "sqlite:///lake/catalog.db"   # relative paths are relative to this file
//! format = "table"                        # or "json"
//!
//! [cache]
//! size = "256MiB"
//!
//! [profiles.production.database]
//! type = "postgresql"
//! host = "db.example"
//! ```
//!
//! [`example`] is a file with all keys, [`json_schema`] describes it to editors.

mod catalog;
mod example;
mod file;
mod interpolate;
mod layer;
mod logging;
mod maintenance;
mod model;
mod names;
mod otlp;
mod receiver;
mod report;
mod sources;
mod values;

use std::path::Path;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_engine::retry::RetryPolicy;
use deltalakedb_mirror::publish::PublisherConfig;
use figment::Figment;
use figment::providers::Serialized;

use crate::uri::{CatalogUri, parse_duration};
use layer::{Rank, Values};
use model::Settings;
use sources::Sources;

pub use example::{Syntax, example, json_schema};
pub use layer::{Origin, Problem};
pub use logging::{LogLevel, LogSettings};
pub use maintenance::Maintenance;
pub use otlp::OtlpSettings;
pub use report::{Inspection, KeyInfo, Shown, keys, unknown_variables};
pub use sources::{CONFIG_PATH_VARIABLE, CONFIG_VARIABLE};

/// Environment variable that names the catalog.
pub const CATALOG_VARIABLE: &str = "DELTA_DB_CONNECTION";
/// Environment variable that names a file with the catalog's URL in it.
pub const CATALOG_FILE_VARIABLE: &str = "DELTA_DB_CONNECTION_FILE";
/// Environment variable that platforms set for the one database of a program.
pub const DATABASE_VARIABLE: &str = "DATABASE_URL";

/// What environment and config files say.
#[derive(Clone, Default)]
pub struct Config {
    values: Values,
    settings: Settings,
    /// A file names a catalog, whether that one is used or another.
    file_names_catalog: bool,
    warnings: Vec<Problem>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No value is shown: one may be wrong, and then hold anything.
        let mut map = f.debug_map();
        for (key, found) in &self.values {
            map.entry(key, &found.origin.to_string());
        }
        map.finish()
    }
}

impl Config {
    /// Reads the environment of this process and its config files.
    ///
    /// # Errors
    /// `InvalidInput` with all that is wrong: a config file that cannot be read, keys that are not known,
    /// values that cannot be, variables that are not set.
    pub fn load() -> Result<Config> {
        Config::load_from(&|name| std::env::var(name).ok(), Path::new(""))
    }

    /// The same with an environment from outside; `folder` is the working directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(variable: &dyn Fn(&str) -> Option<String>, folder: &Path) -> Result<Config> {
        Config::of(read(variable, folder, None))
    }

    fn of(sources: Sources) -> Result<Config> {
        if !sources.problems.is_empty() {
            let all: Vec<String> = sources.problems.iter().map(ToString::to_string).collect();
            return Err(CatalogError::invalid(all.join("\n")));
        }
        let values = sources.values;
        let mut figment = Figment::new();
        for (key, found) in &values {
            figment = figment.merge(Serialized::default(key, &found.text));
        }
        let settings: Settings =
            figment.extract().map_err(|error| CatalogError::invalid(error.kind.to_string()))?;
        let retry_timeout =
            settings.retry.deadline.map_or(RetryPolicy::default().timeout, |span| span.0);
        maintenance::expiry(&settings.maintenance.expire).check(retry_timeout)?;
        Ok(Config {
            values,
            settings,
            file_names_catalog: sources.file_names_catalog,
            warnings: sources.warnings,
        })
    }

    /// What is likely a slip, and is no error: `$ENVIRONMENT` names none of the profiles that there are.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The catalog to use: `flag` if there is one, else what the environment or a file says; with all that
    /// the configuration says about connections, cache, repetitions and pages in its options.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` for a bad URL (saying where it stands); `InvalidInput` for keys that
    /// do not fit it, and, telling the ways, if there is none.
    pub fn catalog(&self, flag: Option<&str>) -> Result<CatalogUri> {
        if let Some(url) = flag {
            let uri = url.parse().map_err(|e| catalog::placed(e, "--catalog"))?;
            return catalog::complete(uri, Rank::Flag, &self.values, self.file_names_catalog);
        }
        let Some((uri, found)) = catalog::place(&self.values, &self.settings)? else {
            return Err(CatalogError::invalid(format!(
                "no catalog given. Name it in one of these ways:\n  \
                 --catalog sqlite:///path/catalog.db\n  \
                 {CATALOG_VARIABLE}=postgresql://user@host/database in the environment\n  \
                 {CATALOG_FILE_VARIABLE}=/run/secrets/catalog-url, a file with the URL in it\n  \
                 catalog = \"sqlite:///path/catalog.db\" in ./dl.toml or ~/.config/dl/config.toml"
            )));
        };
        catalog::complete(uri, found.rank, &self.values, self.file_names_catalog)
    }

    /// How often a worker that watches looks at idle tables for commits of other programs: `flag` if
    /// there is one, else `mirror.foreign_check_interval`. None: nobody says; zero: never.
    ///
    /// # Errors
    /// `InvalidInput` for what is no duration.
    pub fn foreign_check_interval(&self, flag: Option<&str>) -> Result<Option<Duration>> {
        let Some(flag) = flag else {
            return Ok(self.settings.mirror.foreign_check_interval.map(|time| time.0));
        };
        parse_duration(flag).map(Some).ok_or_else(|| {
            CatalogError::invalid(
                "--foreign-check-interval must be a duration of at most 365d: a whole number of seconds, or \
                 one with a unit such as 500ms, 30s, 5m, 2h; 0 = never",
            )
        })
    }

    /// The settings of a worker: what the section `mirror` says, else those of `default`.
    #[must_use]
    pub fn publisher(&self, default: PublisherConfig) -> PublisherConfig {
        let mirror = &self.settings.mirror;
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let count = |count: Option<values::Count>, default: usize| {
            count.map_or(default, |count| usize::try_from(count.0).unwrap_or(usize::MAX))
        };
        let pause =
            |time: Option<values::Pause>, default: i64| time.map_or(default, |time| ms(time.0));
        PublisherConfig {
            lease_ms: pause(mirror.lease, default.lease_ms),
            max_versions: count(mirror.max_versions, default.max_versions),
            concurrency: count(mirror.concurrency, default.concurrency),
            complete_batch: count(mirror.batch, default.complete_batch),
            first_backoff_ms: pause(mirror.first_backoff, default.first_backoff_ms),
            max_backoff_ms: pause(mirror.max_backoff, default.max_backoff_ms),
            poll_ms: pause(mirror.poll_interval, default.poll_ms),
            foreign_check_ms: mirror
                .foreign_check_interval
                .map_or(default.foreign_check_ms, |time| ms(time.0)),
        }
    }

    /// `monitoring.listen`: where a worker that watches serves its health and metrics.
    #[must_use]
    pub fn listen(&self) -> Option<std::net::SocketAddr> {
        self.settings.monitoring.listen.map(|address| address.0)
    }

    /// `monitoring.slow_call_threshold`: calls of the database that take longer are logged as slow, see
    /// [`Db::with_slow_call_warning`](crate::Db::with_slow_call_warning). `Duration::MAX`: none is, which a file
    /// says by 0. None: nobody says.
    #[must_use]
    pub fn slow_call(&self) -> Option<Duration> {
        let threshold = self.settings.monitoring.slow_call_threshold?.0;
        Some(if threshold.is_zero() { Duration::MAX } else { threshold })
    }

    /// What the section `logging` says.
    #[must_use]
    pub fn logging(&self) -> LogSettings {
        LogSettings::of(&self.settings.logging)
    }

    /// What the section `logging.otlp` says. None: traces are not sent.
    #[must_use]
    pub fn otlp(&self) -> Option<OtlpSettings> {
        OtlpSettings::of(&self.settings.logging.otlp)
    }

    /// What the section `maintenance` says.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::of(&self.settings.maintenance)
    }

    /// `format`: how results are printed, `table` or `json`.
    #[must_use]
    pub fn format(&self) -> Option<&str> {
        self.settings.format.map(values::Format::word)
    }
}

/// All sources; a variable that is set to nothing counts as not set.
fn read(variable: &dyn Fn(&str) -> Option<String>, folder: &Path, only: Option<&Path>) -> Sources {
    Sources::read(&|name| variable(name).filter(|value| !value.is_empty()), folder, only)
}

#[cfg(test)]
mod tests;
