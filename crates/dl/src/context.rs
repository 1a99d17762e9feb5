//! What every command works with: the catalog to use, the voice, the progress bar, Ctrl-C.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltalakedb::config::Maintenance;
use deltalakedb::core::error::{CatalogError, Result as CoreResult};
use deltalakedb::core::ids::{TableName, TableRef};
use deltalakedb::core::signature::UserName;
use deltalakedb::{CatalogUri, Config, Db, PublisherConfig, TableUri};
use tokio::sync::watch;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::Output;
use crate::progress::Bar;
use crate::user::user;

/// A command's surroundings.
pub(crate) struct Context {
    pub(crate) out: Output,
    pub(crate) progress: Bar,
    flag: Option<String>,
    user: CoreResult<Option<UserName>>,
    user_flag: Option<String>,
    config: CoreResult<Config>,
    stop: watch::Receiver<bool>,
    stops_by_itself: AtomicBool,
    grace: OnceLock<Duration>,
    going_on: OnceLock<String>,
    warned_of_password: AtomicBool,
}

/// What stands where a TABLE is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TableArgument {
    Uri(TableUri),
    Reference(TableRef),
}

impl TableArgument {
    fn parse(text: &str) -> CoreResult<TableArgument> {
        if TableUri::is_one(text) {
            return Ok(TableArgument::Uri(text.parse()?));
        }
        if text.contains("://") {
            // Not repeated: it may hold a password.
            return Err(CatalogError::invalid(
                "a table is namespace.table, its id, or a URL that begins with delta+sql://, as \
                 delta+sql://postgresql://user@host/database/sales.orders",
            ));
        }
        Ok(TableArgument::Reference(text.parse()?))
    }
}

impl Context {
    /// How long a command that ends its step by itself may take after Ctrl-C, if it says nothing else.
    const GRACE: Duration = Duration::from_secs(10);

    pub(crate) fn new(
        global: Global,
        config: CoreResult<Config>,
        out: Output,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Context {
            out,
            progress: Bar::new(global.quiet),
            flag: global.catalog,
            user: user(global.user.as_deref()),
            user_flag: global.user,
            config,
            stop,
            stops_by_itself: AtomicBool::new(false),
            grace: OnceLock::new(),
            going_on: OnceLock::new(),
            warned_of_password: AtomicBool::new(false),
        }
    }

    /// Becomes true on Ctrl-C. Whoever asks for it ends by itself soon after.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.stops_by_itself.store(true, Ordering::SeqCst);
        self.stop.clone()
    }

    pub(crate) fn stops_by_itself(&self) -> bool {
        self.stops_by_itself.load(Ordering::SeqCst)
    }

    /// It serves until it is told to stop, which is no failure, and may take this time to do so. The first call counts.
    #[cfg(feature = "serve")]
    pub(crate) fn serves(&self, grace: Duration) {
        let _ = self.grace.set(grace);
    }

    /// Whether being told to stop is how it ends.
    pub(crate) fn is_service(&self) -> bool {
        self.grace.get().is_some()
    }

    pub(crate) fn grace(&self) -> Duration {
        self.grace.get().copied().unwrap_or(Self::GRACE)
    }

    /// What a person does to go on after Ctrl-C; the first call counts.
    pub(crate) fn to_go_on(&self, text: impl Into<String>) {
        let _ = self.going_on.set(text.into());
    }

    /// The error of a command that Ctrl-C ended.
    pub(crate) fn interrupted(&self) -> Failure {
        let next = self.going_on.get().cloned();
        Failure::Interrupted(
            next.unwrap_or_else(|| "the same command again goes on from there".to_owned()),
        )
    }

    /// The catalog that flag, environment or config file name.
    pub(crate) fn catalog_uri(&self) -> Result<CatalogUri> {
        if let Some(flag) = self.flag()? {
            return Ok(flag);
        }
        match &self.config {
            Ok(config) => Ok(config.catalog(None)?),
            Err(error) => Err(Failure::invalid(error.to_string())),
        }
    }

    /// The catalog of `--catalog`. It needs no config file, not even a right one.
    fn flag(&self) -> Result<Option<CatalogUri>> {
        let Some(flag) = self.flag.as_deref() else { return Ok(None) };
        let uri = Config::default().catalog(Some(flag))?;
        self.warn_of_password(&uri);
        match &self.config {
            Ok(config) => Ok(Some(config.catalog(Some(flag))?)),
            Err(_) => Ok(Some(uri)),
        }
    }

    /// How often a worker looks at idle tables: by flag or config file.
    pub(crate) fn foreign_check_interval(&self, flag: Option<&str>) -> Result<Option<Duration>> {
        match &self.config {
            Ok(config) => Ok(config.foreign_check_interval(flag)?),
            // As for the catalog: a flag needs no config file, not even a right one.
            Err(_) => Ok(Config::default().foreign_check_interval(flag)?),
        }
    }

    /// The settings of a worker: these, but for what the configuration says.
    pub(crate) fn publisher_config(&self, default: PublisherConfig) -> PublisherConfig {
        match &self.config {
            Ok(config) => config.publisher(default),
            Err(_) => default,
        }
    }

    /// The catalog of the command line, as it is written.
    pub(crate) fn catalog_flag(&self) -> Option<&str> {
        self.flag.as_deref()
    }

    /// Says once that the password of a URL from the command line is no secret.
    pub(crate) fn warn_of_password(&self, uri: &CatalogUri) {
        if uri.has_password() && !self.warned_of_password.swap(true, Ordering::SeqCst) {
            self.out.warn(
                "a password on the command line is visible to every user of this machine, and in \
                 the shell's history. Leave it out of the URL and put it into the environment \
                 variable DELTA_DB_PASSWORD or a file (password_file=… in the URL, \
                 DELTA_DB_PASSWORD_FILE), or give the whole URL in DELTA_DB_CONNECTION or \
                 DELTA_DB_CONNECTION_FILE",
            );
        }
    }

    /// Opens the catalog.
    pub(crate) async fn db(&self) -> Result<Db> {
        self.open(&self.catalog_uri()?).await
    }

    /// Opens a catalog, to commit to it on behalf of the user.
    pub(crate) async fn open(&self, uri: &CatalogUri) -> Result<Db> {
        // First: a name that cannot be one is wrong usage, whatever there is.
        let user = self.user()?;
        Ok(self.watched(Db::open(uri).await?).with_user(user))
    }

    /// Makes a catalog, or upgrades it, to commit to it on behalf of the user.
    pub(crate) async fn create(&self, uri: &CatalogUri) -> Result<Db> {
        let user = self.user()?;
        Ok(self.watched(Db::create(uri).await?).with_user(user))
    }

    /// With what the configuration says on slow calls.
    fn watched(&self, db: Db) -> Db {
        match self.config.as_ref().ok().and_then(Config::slow_call) {
            Some(threshold) => db.with_slow_call_warning(threshold),
            None => db,
        }
    }

    /// What the section `maintenance` says. A configuration that is wrong says nothing by halves: what deletes must
    /// not fall back to defaults.
    pub(crate) fn maintenance(&self) -> Result<Maintenance> {
        match &self.config {
            Ok(config) => Ok(config.maintenance()),
            Err(error) => Err(Failure::invalid(error.to_string())),
        }
    }

    /// Where the configuration lets a worker that watches tell how it is.
    pub(crate) fn listen(&self) -> Option<String> {
        Some(self.config.as_ref().ok()?.listen()?.to_string())
    }

    /// The user of `--user`, and of nothing else.
    pub(crate) fn user_flag(&self) -> Option<&str> {
        self.user_flag.as_deref()
    }

    fn user(&self) -> Result<Option<UserName>> {
        match &self.user {
            Ok(user) => Ok(user.clone()),
            Err(error) => Err(Failure::invalid(error.to_string())),
        }
    }

    /// The catalog of a table URI; one given by flag must be the same. If flag, environment or
    /// config file name the same catalog, they say how to log in to it.
    fn catalog_of(&self, uri: &TableUri) -> Result<CatalogUri> {
        let uri = uri.catalog();
        self.warn_of_password(uri);
        if let Some(flag) = self.flag()? {
            if !flag.same_catalog(uri) {
                return Err(Failure::invalid(format!(
                    "the table's URL names the catalog {uri}, --catalog another: {flag}"
                )));
            }
            return Ok(flag);
        }
        // What is wrong with the configuration is no concern of a table that does without it.
        let configured = self.config.as_ref().ok().and_then(|config| config.catalog(None).ok());
        match configured.filter(|configured| configured.same_catalog(uri)) {
            Some(configured) if configured.has_password() && !uri.has_password() => Ok(configured),
            _ => Ok(uri.clone()),
        }
    }

    /// Where a TABLE is: its catalog and what it is called there.
    fn locate(&self, text: &str) -> Result<(CatalogUri, TableRef)> {
        match TableArgument::parse(text)? {
            TableArgument::Uri(uri) => Ok((self.catalog_of(&uri)?, uri.table_ref())),
            TableArgument::Reference(table) => Ok((self.catalog_uri()?, table)),
        }
    }

    /// Opens the catalog of a TABLE.
    pub(crate) async fn table(&self, text: &str) -> Result<(Db, TableRef)> {
        let (catalog, table) = self.locate(text)?;
        Ok((self.open(&catalog).await?, table))
    }

    /// Opens the one catalog of several TABLEs.
    pub(crate) async fn tables<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Db, Vec<TableRef>)> {
        let mut catalog: Option<CatalogUri> = None;
        let mut tables = Vec::new();
        for text in texts {
            let (found, table) = self.locate(text)?;
            if let Some(first) = catalog.as_ref().filter(|first| !first.same_catalog(&found)) {
                return Err(Failure::invalid(format!(
                    "one transaction cannot span two catalogs: {first} and {found}"
                )));
            }
            catalog = Some(found);
            tables.push(table);
        }
        let catalog = match catalog {
            Some(catalog) => catalog,
            None => self.catalog_uri()?,
        };
        Ok((self.open(&catalog).await?, tables))
    }

    /// A name for a new table, and the catalog it goes to.
    pub(crate) fn new_name(&self, text: &str) -> Result<(CatalogUri, TableName)> {
        match self.locate(text)? {
            (catalog, TableRef::Name(name)) => Ok((catalog, name)),
            (_, TableRef::Id(id)) => Err(Failure::invalid(format!(
                "'{id}' has the form of a table id: a new table is named namespace.table"
            ))),
        }
    }
}

/// A TABLE as an error may repeat it: a URL could hold a password.
pub(crate) fn shown(table: &str) -> &str {
    if table.contains("://") || table.contains('@') { "a URL" } else { table }
}

/// Reads `key=value` options.
///
/// # Errors
/// `InvalidInput` for one without `=`, without a key, or given twice. The value is not shown: it
/// may be a secret.
pub(crate) fn key_values(what: &str, pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty())
        else {
            return Err(CatalogError::invalid(format!("{what} takes KEY=VALUE")).into());
        };
        if map.insert(key.trim().to_owned(), value.to_owned()).is_some() {
            return Err(
                CatalogError::invalid(format!("{what} {} is given twice", key.trim())).into()
            );
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_name_an_id_or_a_url() {
        let name = TableArgument::parse("sales.orders").unwrap();
        assert_eq!(name, TableArgument::Reference(TableRef::Name("sales.orders".parse().unwrap())));
        let id = "7f2c1f64-5717-4562-b3fc-2c963f66afa6";
        assert!(matches!(
            TableArgument::parse(id).unwrap(),
            TableArgument::Reference(TableRef::Id(_))
        ));
        assert!(matches!(
            TableArgument::parse(&format!("default.{id}")).unwrap(),
            TableArgument::Reference(TableRef::Name(_))
        ));
        assert!(matches!(
            TableArgument::parse("delta+sql://sqlite:///c.db/t").unwrap(),
            TableArgument::Uri(_)
        ));
        assert!(TableArgument::parse("a..b").is_err());
        let e = TableArgument::parse("postgresql://u:geheim@h/db/t").unwrap_err().to_string();
        assert!(e.contains("delta+sql://") && !e.contains("geheim"), "{e}");
        assert!(TableArgument::parse("delta+sql://sqlite:///t").is_err());
    }

    #[test]
    fn options_are_pairs_and_stay_secret() {
        let map = key_values("--property", &["a=1".into(), "b=x=y".into(), "c=".into()]).unwrap();
        assert_eq!(map["b"], "x=y");
        assert_eq!(map["c"], "");
        for bad in [
            vec!["geheim".to_owned()],
            vec!["=geheim".into()],
            vec!["a=1".into(), "a=geheim".into()],
        ] {
            let e = key_values("--storage-option", &bad).unwrap_err().to_string();
            assert!(e.contains("--storage-option") && !e.contains("geheim"), "{e}");
        }
    }
}
