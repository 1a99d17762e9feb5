//! A catalog that Python holds: opened when it is needed, and anew in a forked child.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use deltalakedb::config::{CONFIG_PATH_VARIABLE, Config, keys};
use deltalakedb::core::ids::InvalidId;
use deltalakedb::core::signature::UserName;
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::{CatalogUri, Db, Scheme, TableUri};
use pyo3::prelude::*;

use crate::failure::{CLOSED, FORKED, Failure, Result};
use crate::kept::{Kept, threads_end};
use crate::runtime::{
    Effect, end_threads, forget_calls, go_on, is_forking, wait, wait_at_once, wait_for_fork,
    wait_for_quiet,
};

/// Lease of a publisher that works for one call: short, as only a killed one leaves it behind.
const LEASE_MS: i64 = 10_000;
/// The name under which a program gives a config file.
const FILE: &str = "file";

/// The catalogs of this process. Locked only while Python's lock is held, and never for long: so it is not locked
/// when a process is forked.
static CATALOGS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A catalog, and what is known of it before it is opened.
#[derive(Debug)]
pub(crate) struct Shared {
    uri: CatalogUri,
    user: Option<UserName>,
    slow: Option<Duration>,
    publisher: PublisherConfig,
    /// As [`CATALOGS`]: locked only while Python's lock is held.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Option<Kept<Db>>,
    closed: bool,
    create: bool,
}

impl Shared {
    /// The catalog of a URL, else of the configuration.
    pub(crate) fn new(
        url: Option<&str>,
        create: bool,
        user: Option<&str>,
        settings: &Settings,
    ) -> Result<Arc<Shared>> {
        let given = url.map(str::parse::<CatalogUri>).transpose()?;
        let config = match (configuration(settings), &given) {
            (Ok(config), _) => config,
            // A URL needs no configuration, not even a right one.
            (Err(_), Some(_)) if settings.is_empty() => Config::default(),
            (Err(error), _) => return Err(error),
        };
        let uri = match (given, url) {
            (Some(_), Some(url)) => config.catalog(Some(url))?,
            _ if settings.is_empty() => config.catalog(None).map_err(|_| no_catalog())?,
            _ => config.catalog(None)?,
        };
        Shared::of(uri, &config, create, user)
    }

    /// The catalog and the name in a table's URL. If the configuration names the same catalog, it says how to log
    /// in.
    pub(crate) fn of_table(
        url: &str,
        user: Option<&str>,
        settings: &Settings,
    ) -> Result<(Arc<Shared>, String)> {
        let uri: TableUri = url.parse()?;
        let config = match configuration(settings) {
            Ok(config) => config,
            // What is wrong with the configuration is no concern of a table that does without it.
            Err(_) if settings.is_empty() => Config::default(),
            Err(error) => return Err(error),
        };
        let configured = config.catalog(None).ok();
        let configured = configured.filter(|configured| configured.same_catalog(uri.catalog()));
        let catalog = match configured {
            Some(configured) if configured.has_password() && !uri.catalog().has_password() => {
                configured
            }
            _ => uri.catalog().clone(),
        };
        Ok((Shared::of(catalog, &config, false, user)?, uri.table().to_string()))
    }

    fn of(
        uri: CatalogUri,
        config: &Config,
        create: bool,
        user: Option<&str>,
    ) -> Result<Arc<Shared>> {
        // It must mean the same file in another folder, and in another process.
        let here = std::env::current_dir()
            .map_err(|e| Failure::invalid(format!("the working directory is not there: {e}")))?;
        let publisher =
            config.publisher(PublisherConfig { lease_ms: LEASE_MS, ..PublisherConfig::default() });
        let shared = Arc::new(Shared {
            uri: uri.relative_to(&here),
            user: user.map(str::parse).transpose()?,
            slow: config.slow_call(),
            publisher,
            state: Mutex::new(State { open: None, closed: false, create }),
        });
        let mut all = locked(&CATALOGS);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&shared));
        Ok(shared)
    }

    pub(crate) fn uri(&self) -> &CatalogUri {
        &self.uri
    }

    pub(crate) fn publisher(&self) -> PublisherConfig {
        self.publisher.clone()
    }

    /// The catalog, opened.
    pub(crate) fn db(&self, py: Python<'_>) -> PyResult<Db> {
        loop {
            wait_for_fork(py)?;
            let db = self.db_now(py)?;
            // If it was opened meanwhile, a fork may be waiting to close it.
            if !is_forking() {
                return Ok(db);
            }
        }
    }

    fn db_now(&self, py: Python<'_>) -> PyResult<Db> {
        let create = {
            let mut state = locked(&self.state);
            if state.closed {
                let text = format!("this program has closed the catalog in {}", self.uri);
                return Err(Failure::new(CLOSED, format!("{text}: make a new Catalog")).raise(py));
            }
            match &state.open {
                Some(open) if let Some(db) = open.here() => return Ok(db.clone()),
                Some(_) if self.uri.scheme() == Scheme::Memory => {
                    let text = "a catalog in memory belongs to the process that made it: use a file \
                                or a server for several processes";
                    return Err(Failure::new(FORKED, text).raise(py));
                }
                // Of the parent: it is left alone.
                _ => state.open = None,
            }
            state.create
        };
        let (uri, user, slow) = (self.uri.clone(), self.user.clone(), self.slow);
        let effect = if create { Effect::Writes } else { Effect::Reads };
        let db = wait(py, effect, async move {
            let db = if create { Db::create(&uri).await? } else { Db::open(&uri).await? };
            let program = Some(concat!("deltalakedb (Python) ", env!("CARGO_PKG_VERSION")));
            let db = db.with_user(user).with_origin(None, program)?;
            Ok(match slow {
                Some(threshold) => db.with_slow_call_warning(threshold),
                None => db,
            })
        })?;
        let mut state = locked(&self.state);
        state.create = false;
        // Another thread may have opened it meanwhile: one of the two is enough.
        let open = state.open.get_or_insert_with(|| Kept::new(db));
        open.get().cloned().map_err(|failure| failure.raise(py))
    }

    /// Closes its connections. It may be closed again.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        locked(&self.state).closed = true;
        self.disconnect(py)
    }

    fn disconnect(&self, py: Python<'_>) -> PyResult<()> {
        let open = locked(&self.state).open.take();
        let Some(db) = open.and_then(Kept::take) else { return Ok(()) };
        wait_at_once(py, Effect::Reads, async move { Ok(db.close().await?) })
    }

    /// Whether it is open in a way that does not outlive a fork: connections are served by threads, which end. And
    /// SQLite keeps the locks of a process in its memory, so that a child would take its parent's for its own.
    fn is_left_open(&self) -> bool {
        self.uri.scheme() != Scheme::Memory && locked(&self.state).open.is_some()
    }
}

/// Keys of the configuration and their values, given by the program.
pub(crate) type Settings = BTreeMap<String, String>;

/// The configuration: what the program gives goes before what environment and files say.
fn configuration(settings: &Settings) -> Result<Config> {
    if settings.is_empty() {
        return Ok(Config::load()?);
    }
    let keys = keys();
    // Each name in the environment of a key that is given: the first one has the value, the others nothing.
    let mut given: HashMap<&str, Option<&str>> = HashMap::new();
    for (name, value) in settings {
        // The path of a file is no key of a file.
        if name == FILE {
            given.insert(CONFIG_PATH_VARIABLE, Some(value));
            continue;
        }
        let Some(key) = keys.iter().find(|key| key.key == name) else {
            return Err(Failure::invalid(format!(
                "config has no key '{name}': `dl config example` shows all keys"
            )));
        };
        for (index, variable) in key.variables.iter().enumerate() {
            given.insert(variable, (index == 0).then_some(value.as_str()));
        }
    }
    let variable = |name: &str| match given.get(name) {
        Some(value) => value.map(str::to_owned),
        None => std::env::var(name).ok(),
    };
    Ok(Config::load_from(&variable, Path::new(""))?)
}

fn no_catalog() -> Failure {
    Failure::invalid(
        "no catalog given. Name it in one of these ways: Catalog(\"sqlite:///path/catalog.db\"); \
         DELTA_DB_CONNECTION=postgresql://user@host/database in the environment; catalog = \
         \"sqlite:///path/catalog.db\" in ./dl.toml or ~/.config/dl/config.toml",
    )
}

/// Before a fork: no call is under way, no catalog is open, and no thread of ours is there. Both processes open them
/// again when they need them.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) -> PyResult<()> {
    let quiet = wait_for_quiet(py)?;
    let open: Vec<Arc<Shared>> = locked(&CATALOGS)
        .iter()
        .filter_map(Weak::upgrade)
        .filter(|shared| shared.is_left_open())
        .collect();
    for shared in open {
        shared.disconnect(py)?;
    }
    // A call that takes longer keeps its threads.
    if quiet {
        threads_end();
        end_threads(py);
    }
    Ok(())
}

/// In the parent of a fork.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    go_on();
}

/// In a forked child.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    forget_calls();
    go_on();
}

/// The URL of a table.
pub(crate) fn table_url(catalog: &str, table: &str) -> Result<String> {
    let uri: CatalogUri = catalog.parse()?;
    let name = table.parse().map_err(|e: InvalidId| Failure::invalid(e.to_string()))?;
    Ok(TableUri::new(uri, name).to_string())
}
