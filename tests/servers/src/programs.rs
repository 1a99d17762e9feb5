//! Finding the programs of the servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What a server is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// PostgreSQL.
    Postgres,
    /// MariaDB, or MySQL.
    MariaDb,
    /// MariaDB with the Galera provider, and `rsync` to copy a node to another.
    Galera,
    /// PgBouncer.
    PgBouncer,
    /// Prometheus.
    Prometheus,
}

impl Software {
    /// Its packages on Debian and Ubuntu.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Software::Postgres => &["postgresql"],
            Software::MariaDb => &["mariadb-server"],
            Software::Galera => &["mariadb-server", "galera-4", "rsync"],
            Software::PgBouncer => &["pgbouncer"],
            Software::Prometheus => &["prometheus"],
        }
    }

    /// Whether it is installed.
    ///
    /// # Errors
    /// If not: what is missing, and the command that installs it.
    pub fn check(self) -> Result<()> {
        match self {
            Software::Postgres => PostgresPrograms::find(None).map(drop),
            Software::MariaDb => MariaDbPrograms::find().map(drop),
            Software::Galera => galera_provider().map(drop),
            Software::PgBouncer => pgbouncer().map(drop),
            Software::Prometheus => prometheus().map(drop),
        }
    }

    fn missing(self, what: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "{what} not found: install it with `apt-get install -y --no-install-recommends {}`",
            self.packages().join(" ")
        )
    }
}

/// Where one version of PostgreSQL has its programs.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms {
    folder: PathBuf,
    /// Major version.
    pub(crate) version: u32,
}

impl PostgresPrograms {
    /// Finds the newest version, or the wanted one.
    pub(crate) fn find(wanted: Option<u32>) -> Result<PostgresPrograms> {
        let mut found: Vec<PostgresPrograms> = Vec::new();
        // Debian and Ubuntu; Red Hat; what is on the path.
        let mut folders = versions(Path::new("/usr/lib/postgresql"), "");
        folders.extend(versions(Path::new("/usr"), "pgsql-"));
        let mut bins: Vec<PathBuf> = folders.into_iter().map(|f| f.join("bin")).collect();
        bins.extend(path());
        // The last of several of one version is chosen: prefer those of packages.
        bins.reverse();
        for folder in bins {
            // A folder may have the programs of a client only, or of a server only.
            let complete =
                ["initdb", "psql", "pg_basebackup"].iter().all(|p| folder.join(p).is_file());
            if complete && let Ok(version) = postgres_version(&folder.join("postgres")) {
                found.push(PostgresPrograms { folder, version });
            }
        }
        let versions: Vec<String> = found.iter().map(|f| f.version.to_string()).collect();
        let chosen = found
            .into_iter()
            .filter(|f| wanted.is_none_or(|w| w == f.version))
            .max_by_key(|f| f.version);
        match (chosen, wanted) {
            (Some(chosen), _) => Ok(chosen),
            (None, Some(wanted)) if !versions.is_empty() => bail!(
                "PostgreSQL {wanted} not found (there is {}): install it with \
                 `apt-get install -y --no-install-recommends postgresql-{wanted}`",
                versions.join(", ")
            ),
            (None, _) => Err(Software::Postgres.missing(
                "PostgreSQL (initdb and psql, in /usr/lib/postgresql/*/bin or on the path)",
            )),
        }
    }

    /// A command for one of its programs.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(name))
    }
}

fn postgres_version(program: &Path) -> Result<u32> {
    let text = crate::process::run(Command::new(program).arg("--version"), None)?;
    // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let version = text.split(") ").nth(1).context("no version")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no version in {text}"))
}

/// Folders whose names are `prefix` and a number.
fn versions(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|e| {
            e.file_name()
                .to_str()
                .and_then(|n| n.strip_prefix(prefix))
                .is_some_and(|n| n.parse::<u32>().is_ok())
        })
        .map(|e| e.path())
        .collect()
}

/// Which of the two the installed server is: their programs and settings differ in places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    MariaDb,
    MySql,
}

/// The programs of MariaDB or MySQL.
#[derive(Debug, Clone)]
pub(crate) struct MariaDbPrograms {
    pub(crate) flavor: Flavor,
    /// The server.
    pub(crate) server: PathBuf,
    /// The command-line client.
    pub(crate) client: PathBuf,
    /// What makes the data folder of a MariaDB server; MySQL does that itself.
    pub(crate) installer: Option<PathBuf>,
}

impl MariaDbPrograms {
    pub(crate) fn find() -> Result<MariaDbPrograms> {
        let missing = |what: &str| Software::MariaDb.missing(what);
        let server = which(&["mariadbd", "mysqld"])
            .ok_or_else(|| missing("MariaDB or MySQL (mariadbd or mysqld)"))?;
        let version = crate::process::run(Command::new(&server).arg("--version"), None)?;
        let flavor = if version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
        let client = which(&["mariadb", "mysql"])
            .ok_or_else(|| missing("the client of MariaDB or MySQL (mariadb or mysql)"))?;
        let installer = match flavor {
            Flavor::MariaDb => Some(
                which(&["mariadb-install-db", "mysql_install_db"])
                    .ok_or_else(|| missing("mariadb-install-db"))?,
            ),
            Flavor::MySql => None,
        };
        Ok(MariaDbPrograms { flavor, server, client, installer })
    }
}

/// The library that makes a MariaDB server a node of a cluster.
pub(crate) fn galera_provider() -> Result<PathBuf> {
    if MariaDbPrograms::find()?.flavor != Flavor::MariaDb {
        bail!("a Galera cluster needs MariaDB, and MySQL is installed");
    }
    which(&["rsync"]).ok_or_else(|| Software::Galera.missing("rsync"))?;
    let folders =
        ["/usr/lib/galera", "/usr/lib64/galera-4", "/usr/lib64/galera", "/usr/lib/galera-4"];
    folders
        .iter()
        .map(|f| Path::new(f).join("libgalera_smm.so"))
        .find(|p| p.is_file())
        .ok_or_else(|| Software::Galera.missing("the Galera provider (libgalera_smm.so)"))
}

/// PgBouncer.
pub(crate) fn pgbouncer() -> Result<PathBuf> {
    which(&["pgbouncer"]).ok_or_else(|| Software::PgBouncer.missing("PgBouncer"))
}

/// Prometheus.
pub(crate) fn prometheus() -> Result<PathBuf> {
    which(&["prometheus"]).ok_or_else(|| Software::Prometheus.missing("Prometheus"))
}

/// Where `cargo xtask` installs the emulators of object stores: `emulators` in cargo's target folder.
///
/// # Errors
/// If it is not known where that is.
pub fn emulators() -> Result<PathBuf> {
    let servers = crate::folder::home()?;
    Ok(servers.with_file_name("emulators"))
}

fn emulator(place: &str, name: &str) -> Result<PathBuf> {
    let installed = emulators()?.join(place).join(name);
    if installed.is_file() {
        return Ok(installed);
    }
    which(&[name]).ok_or_else(|| {
        anyhow::anyhow!(
            "{name} not found: `cargo xtask servers up` installs it, if there is {}",
            if name == "moto_server" { "a Python with the module venv" } else { "npm" }
        )
    })
}

/// The S3 emulator.
pub(crate) fn moto() -> Result<PathBuf> {
    emulator("venv/bin", "moto_server")
}

/// A Python with the classes of OTLP.
pub(crate) fn otlp_python() -> Result<PathBuf> {
    let python = emulators()?.join("otlp/bin/python");
    if python.is_file() && emulators()?.join("otlp/installed.txt").is_file() {
        return Ok(python);
    }
    bail!(
        "the Python package opentelemetry-proto not found: `cargo xtask servers up` installs it, if there is a Python \
         with the module venv"
    )
}

/// The emulator of Azure Blob Storage.
pub(crate) fn azurite() -> Result<PathBuf> {
    emulator("node_modules/.bin", "azurite-blob")
}

/// Node.js, which Azurite runs on.
pub(crate) fn node() -> Result<PathBuf> {
    which(&["node"]).ok_or_else(|| {
        anyhow::anyhow!("Node.js (node) not found: install it with `apt-get install -y nodejs npm`")
    })
}

/// The first of these programs that there is.
fn which(names: &[&str]) -> Option<PathBuf> {
    let path = path();
    names.iter().find_map(|name| path.iter().map(|p| p.join(name)).find(|p| p.is_file()))
}

/// The folders of programs: a user's path often leaves out those of servers.
fn path() -> Vec<PathBuf> {
    let given = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&given).collect();
    folders
        .extend(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from));
    folders
}
