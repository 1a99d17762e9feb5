//! From a table's location, as people write it, to an object store.
//!
//! A location is a URL without a trailing slash (`file:///data/my%20table`, `s3://bucket/table`).
//! Bare and relative paths are accepted where people type them, and become `file://` URLs before
//! they are stored. URLs never hold secrets here: credentials in them are refused, and options
//! name the environment variable or the file that holds a secret (`env:NAME`, `file:/path`).

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::paths::{Place, TableRoot};
use deltalakedb_catalog_core::secrets::{ENV_REFERENCE, FILE_REFERENCE};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

/// Folder of the log below a table's root (Delta protocol, "File Types").
pub const LOG_FOLDER: &str = "_delta_log";

/// An opened location.
#[derive(Clone)]
pub struct Store {
    /// The store. Paths in it start at its bucket, container or, for local files, at `/`.
    pub store: Arc<dyn ObjectStore>,
    /// The location inside of the store.
    pub root: Path,
    /// The location as URL, without a trailing slash and without secrets.
    pub url: Url,
    /// The folder, where the location is a local one.
    pub local: Option<PathBuf>,
    /// The Azure account, where options or environment say it and not the URL.
    account: Option<String>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own text may show its configuration.
        f.debug_struct("Store").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// The log folder of a table: where it is in its store, and how people know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDir {
    /// Path in the store.
    pub path: Path,
    shown: String,
}

impl From<Path> for LogDir {
    /// A folder that is known by its path alone.
    fn from(path: Path) -> LogDir {
        LogDir { shown: path.to_string(), path }
    }
}

impl std::fmt::Display for LogDir {
    /// The whole path of a local folder, else the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl LogDir {
    /// A file in it, for messages.
    #[must_use]
    pub fn shown(&self, file: &Path) -> String {
        let Some(parts) = file.prefix_match(&self.path) else { return file.to_string() };
        let mut shown = self.shown.clone();
        for part in parts {
            shown.push('/');
            shown.push_str(part.as_ref());
        }
        shown
    }
}

impl Store {
    /// The log folder of a table whose root this is.
    #[must_use]
    pub fn log_dir(&self) -> Path {
        self.root.clone().join(LOG_FOLDER)
    }

    /// What paths of a table's actions are resolved against, if this is the table's root.
    ///
    /// # Errors
    /// `InvalidInput` for an address of which nobody can tell what else leads there.
    pub fn paths(&self) -> Result<TableRoot> {
        let root = TableRoot::new(self.url.as_str())?;
        Ok(match &self.account {
            Some(account) => root.with_account(account),
            None => root,
        })
    }

    /// Every key below this root that the path of an action may mean, the protocol's meaning first. Where
    /// the root is a local folder, what leads there through links counts too.
    ///
    /// # Errors
    /// `InvalidInput` naming a path that cannot be placed.
    pub fn keys_of(&self, root: &TableRoot, path: &str) -> Result<Vec<String>> {
        let found = root.resolve(path)?;
        let mut keys: Vec<String> = found.keys().map(str::to_owned).collect();
        if let Some(local) = &self.local {
            for place in found.all() {
                let Place::Outside(outside) = place else { continue };
                let file = Url::parse(&outside.url).ok().and_then(|url| url.to_file_path().ok());
                let real = file.and_then(|file| file.canonicalize().ok());
                let (Some(real), Ok(local)) = (real, local.canonicalize()) else { continue };
                let below = real.strip_prefix(&local).ok().and_then(|below| below.to_str());
                keys.extend(below.map(|below| below.replace('\\', "/")));
            }
        }
        Ok(keys)
    }

    /// The same, as messages name it.
    #[must_use]
    pub fn log_folder(&self) -> LogDir {
        let shown = self.shown(&self.log_dir());
        LogDir { path: self.log_dir(), shown }
    }

    /// An object, for messages: its whole path on this machine, else its URL. The paths of a store
    /// begin neither with a slash nor with a bucket.
    #[must_use]
    pub fn shown(&self, object: &Path) -> String {
        let Some(parts) = object.prefix_match(&self.root) else { return object.to_string() };
        let mut shown = match &self.local {
            Some(folder) => folder.display().to_string(),
            None => self.url.as_str().to_owned(),
        };
        let slash = shown.trim_end_matches('/').len();
        shown.truncate(slash);
        for part in parts {
            shown.push('/');
            shown.push_str(part.as_ref());
        }
        shown
    }

    /// URL of this location *with* a trailing slash, as the Delta kernel wants a table root.
    #[must_use]
    pub fn dir_url(&self) -> Url {
        let mut url = self.url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        url
    }

    /// The location of the log folder of a table whose root this is, without a trailing slash.
    #[must_use]
    pub fn log_location(&self) -> String {
        log_location(self.url.as_str())
    }
}

/// Location of the log folder of a table at a (normalized) location.
#[must_use]
pub fn log_location(table_location: &str) -> String {
    format!("{}/{LOG_FOLDER}", table_location.trim_end_matches('/'))
}

/// A location as it is stored: an absolute URL without a trailing slash.
///
/// Accepts URLs, and absolute and relative paths of this machine. The same place always comes out
/// as the same text, apart from symbolic links.
///
/// # Errors
/// `InvalidInput` for what is no location or holds credentials, `Unsupported` for schemes that
/// this build cannot open: the text names the cargo feature that is missing.
pub fn normalize_location(location: &str) -> Result<String> {
    Ok(parse_location(location)?.0.as_str().to_owned())
}

/// A location as the text that all spellings of one place have in common: without symbolic links, with
/// one scheme for each kind of store. Not for opening.
#[must_use]
pub fn place_key(location: &str) -> String {
    let Ok((url, kind)) = parse_location(location) else { return location.to_owned() };
    if kind == Kind::Local
        && let Some(real) = url.to_file_path().ok().and_then(|path| path.canonicalize().ok())
        && let Ok(real) = Url::from_file_path(real)
    {
        return real.into();
    }
    let root = TableRoot::new(url.as_str());
    root.map_or_else(|_| url.into(), |root| root.url())
}

/// How a location is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Memory,
    Cloud,
}

fn parse_location(location: &str) -> Result<(Url, Kind)> {
    if location.trim().is_empty() {
        return Err(CatalogError::invalid("a table's location is empty: give a path or a URL"));
    }
    if !is_url(location) {
        return Ok((file_url(PathBuf::from(location), location)?, Kind::Local));
    }
    // From here on the text is shown only once it is known to hold no credentials.
    let mut url = Url::parse(location)
        .map_err(|e| CatalogError::invalid(format!("a table's location is no valid URL: {e}")))?;
    if url.password().is_some() {
        return Err(CatalogError::invalid(
            "a table's location holds a password: give credentials as storage options \
             (`env:NAME` names an environment variable) or in the environment",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(CatalogError::invalid(
            "a table's location has a '?' or '#' part: write a '?' that belongs to the path as \
             %3F, a '#' as %23, and give signatures and credentials as storage options",
        ));
    }
    let kind = match url.scheme() {
        "file" => {
            let path = url.to_file_path().map_err(|()| {
                CatalogError::invalid(format!(
                    "location '{url}' is no local path: write file:///absolute/path"
                ))
            })?;
            return Ok((file_url(path, location)?, Kind::Local));
        }
        "memory" => Kind::Memory,
        scheme => {
            let scheme = scheme.to_owned();
            check_cloud(&url, &scheme)?;
            Kind::Cloud
        }
    };
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Path::from_url_path(url.path()).map_err(|e| bad_path(url.as_str(), &e))?;
    Ok((url, kind))
}

/// `scheme://…`, or `file:/…`. A lone colon is an ordinary character of file names.
fn is_url(text: &str) -> bool {
    let is_scheme = |s: &str| {
        s.len() > 1
            && s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => {
            rest.starts_with("//") || (scheme.eq_ignore_ascii_case("file") && rest.starts_with('/'))
        }
        _ => false,
    }
}

fn bad_path(location: &str, error: &dyn fmt::Display) -> CatalogError {
    CatalogError::invalid(format!("location '{location}' cannot be used: {error}"))
}

/// A local folder as URL: absolute, without `.`, `..` and doubled slashes.
fn file_url(path: PathBuf, shown: &str) -> Result<Url> {
    let absolute = std::path::absolute(&path).map_err(|e| bad_path(shown, &e))?;
    let mut clean = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                // `link/..` is the parent of the link's target, not of the link.
                if let Ok(real) = clean.canonicalize() {
                    clean = real;
                }
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    // Names that the object store cannot express (control characters, other encodings).
    Path::from_absolute_path(&clean)
        .map_err(|e| bad_path(&shown.escape_debug().to_string(), &e))?;
    Url::from_file_path(&clean).map_err(|()| bad_path(shown, &"it has no form as a file:// URL"))
}

/// Whether this build can open a store of this scheme.
fn check_cloud(url: &Url, scheme: &str) -> Result<()> {
    let kind = ObjectStoreScheme::parse(url).map(|(kind, _)| kind).map_err(|_| {
        CatalogError::Unsupported(format!(
            "location '{url}' cannot be opened: '{scheme}://' with this host is no known object \
             store. Known are local paths, file://, s3://, az:// (abfss://), gs:// and memory://"
        ))
    })?;
    let (feature, there) = match kind {
        ObjectStoreScheme::AmazonS3 => ("s3", cfg!(feature = "s3")),
        ObjectStoreScheme::MicrosoftAzure => ("azure", cfg!(feature = "azure")),
        ObjectStoreScheme::GoogleCloudStorage => ("gcs", cfg!(feature = "gcs")),
        _ => {
            return Err(CatalogError::Unsupported(format!(
                "location '{url}' cannot be opened: a plain web server holds no Delta table. For \
                 a store that speaks S3, use s3:// and the storage option `endpoint`"
            )));
        }
    };
    if there {
        Ok(())
    } else {
        Err(CatalogError::Unsupported(format!(
            "location '{url}' needs the cargo feature `{feature}`, which this build does not have"
        )))
    }
}

/// Opens a location. Nothing is read or written yet; a local folder need not exist.
///
/// `options` are those of the object store (`region`, `endpoint`, `account_name`, …). A value
/// `env:NAME` stands for the value of that environment variable, and `file:/path` for the contents of
/// that file, without the newline at its end. What options do not say is taken
/// from the variables that the vendor's tools use (`AWS_…`, `AZURE_…`, `GOOGLE_…`).
///
/// # Errors
/// Those of [`normalize_location`]; `InvalidInput` for options that the store does not accept.
pub fn open_store(location: &str, options: &BTreeMap<String, String>) -> Result<Store> {
    let (url, kind) = parse_location(location)?;
    let root = Path::from_url_path(url.path()).map_err(|e| bad_path(url.as_str(), &e))?;
    let (store, local): (Arc<dyn ObjectStore>, _) = match kind {
        Kind::Local => {
            let local =
                url.to_file_path().map_err(|()| bad_path(url.as_str(), &"no local path"))?;
            (Arc::new(LocalFileSystem::new()), Some(local))
        }
        Kind::Memory => (memory_store(url.host_str().unwrap_or_default()), None),
        Kind::Cloud => {
            let options = with_environment(&url, options)?;
            let account = azure_account(&url, &options);
            let (store, path) = object_store::parse_url_opts(&url, options).map_err(|e| {
                CatalogError::invalid(format!("cannot open '{url}': {}", redact(&e.to_string())))
            })?;
            // The path of some https:// forms starts behind the bucket.
            return Ok(Store { store: Arc::from(store), root: path, url, local: None, account });
        }
    };
    Ok(Store { store, root, url, local, account: None })
}

/// The root at a location, and its folder where it is a local one, without opening a store.
///
/// # Errors
/// `InvalidInput` for an address of which nobody can tell what else leads there.
pub(crate) fn root_at(
    location: &str,
    options: &BTreeMap<String, String>,
) -> Result<(TableRoot, Option<PathBuf>)> {
    // A scheme that this build cannot open is a place all the same.
    let Ok((url, kind)) = parse_location(location) else {
        return Ok((TableRoot::new(location)?, None));
    };
    let root = TableRoot::new(url.as_str())?;
    if kind == Kind::Local {
        return Ok((root, url.to_file_path().ok()));
    }
    // The account is no secret: a reference that leads nowhere only leaves it open.
    let account = match ObjectStoreScheme::parse(&url) {
        Ok((ObjectStoreScheme::MicrosoftAzure, _)) => {
            let all = with_environment(&url, options).unwrap_or_default();
            azure_account(&url, &all)
        }
        _ => None,
    };
    Ok((account.map_or_else(|| root.clone(), |account| root.clone().with_account(&account)), None))
}

/// Stores of `memory://name/…`, by name: two opens in one process see one store.
fn memory_store(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default();
    Arc::clone(store) as Arc<dyn ObjectStore>
}

/// The account that options name; the last one counts.
fn azure_account(url: &Url, options: &[(String, String)]) -> Option<String> {
    let Ok((ObjectStoreScheme::MicrosoftAzure, _)) = ObjectStoreScheme::parse(url) else {
        return None;
    };
    let is_account = |name: &str| {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("azure_").unwrap_or(&name);
        name.strip_prefix("storage_").unwrap_or(name) == "account_name"
    };
    let named = options.iter().rev().find(|(name, _)| is_account(name));
    named.map(|(_, account)| account.clone())
}

/// Options with their references followed, on top of the vendor's environment variables.
fn with_environment(
    url: &Url,
    options: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>> {
    let prefix = match ObjectStoreScheme::parse(url) {
        Ok((ObjectStoreScheme::AmazonS3, _)) => "AWS_",
        Ok((ObjectStoreScheme::MicrosoftAzure, _)) => "AZURE_",
        Ok((ObjectStoreScheme::GoogleCloudStorage, _)) => "GOOGLE_",
        _ => "\0",
    };
    let mut all: Vec<(String, String)> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    all.sort();
    for (name, value) in options {
        let value = if let Some(variable) = value.strip_prefix(ENV_REFERENCE) {
            env::var(variable).map_err(|_| {
                CatalogError::invalid(format!(
                    "storage option '{name}' of '{url}' refers to the environment variable \
                     '{variable}', which is not set"
                ))
            })?
        } else if let Some(file) = value.strip_prefix(FILE_REFERENCE) {
            let text = std::fs::read_to_string(file).map_err(|e| {
                CatalogError::invalid(format!(
                    "storage option '{name}' of '{url}' refers to the file '{file}', which cannot be \
                     read: {e}"
                ))
            })?;
            // Editors end a file with a newline.
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            value.clone()
        };
        all.push((name.clone(), value));
    }
    Ok(all)
}

/// Cuts queries and credentials out of every URL in a text: signatures stand there.
pub(crate) fn redact(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'`<>)]},".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let url = &after[..after.find(ends).unwrap_or(after.len())];
        let (plain, cut) = match url.split_once('?') {
            Some((plain, _)) => (plain, true),
            None => (url, false),
        };
        // `user:password@host`; a lone user part is a container.
        match plain.split_once('@') {
            Some((user, host)) if user.contains(':') && !user.contains('/') => {
                out.push_str("…@");
                out.push_str(host);
            }
            _ => out.push_str(plain),
        }
        if cut {
            out.push_str("?…");
        }
        rest = &after[url.len()..];
    }
    out.push_str(rest);
    out
}

/// A store's error as ours. `what` is a sentence's beginning: `cannot write 's3://…/x.json'`.
///
/// Errors by which the store says that it refused are `NotApplied`, all others `Unknown`.
pub(crate) fn store_error(what: &str, error: &object_store::Error) -> CatalogError {
    use object_store::Error as E;
    let text = redact(&error.to_string());
    match error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => CatalogError::failed(
            format!("{what}: the store refuses these credentials, or they lack the right: {text}"),
            WriteState::NotApplied,
        ),
        E::NotFound { .. }
        | E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::AlreadyExists { .. }
        | E::Precondition { .. }
        | E::NotModified { .. }
        | E::UnknownConfigurationKey { .. } => {
            CatalogError::failed(format!("{what}: {text}"), WriteState::NotApplied)
        }
        _ => CatalogError::busy(format!("{what}: {text}"), WriteState::Unknown),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
