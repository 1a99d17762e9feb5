//! `cargo xtask servers`: throwaway database servers, for as long as they are wanted.
//!
//! One process holds them and does nothing else. When it ends, however it ends, they end.

mod emulators;
pub(crate) mod install;

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use deltalakedb_test_servers::{
    Galera, MariaDb, MariaDbOptions, ObjectStore, ObjectStoreKind, PgBouncer, PoolMode, Postgres,
    PostgresOptions, Software, folders_of, home, wait_until,
};

use crate::tally::Tally;

/// How long the servers may take to start, on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(300);

/// How long they may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Options of `cargo xtask servers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Start PostgreSQL with a replica and PgBouncer, MariaDB, and emulators of S3 and Azure Blob
    /// Storage, unless they run.
    ///
    /// Missing packages are installed if that is possible without a password.
    Up {
        /// A MariaDB Galera cluster of three nodes, too.
        #[arg(long)]
        galera: bool,
    },
    /// End them and remove their data.
    Down,
    /// Print the variables that lead tests to them: eval "$(cargo xtask servers env)".
    Env,
    /// What `up` leaves running.
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        galera: bool,
    },
}

/// Runs the command. Whether it succeeded.
pub(crate) fn main(args: &Args) -> Result<bool> {
    match args.action {
        Action::Up { galera } => up(galera),
        Action::Down => down(),
        Action::Env => env(),
        Action::Hold { galera } => hold(galera),
    }
}

// ---- the process that holds the servers ----

/// The folder of the process that holds the servers: its number, what it prints, the variables.
fn place(name: &str) -> Result<PathBuf> {
    let folder = home()?.join("dev");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    // The variables have passwords in them.
    #[cfg(unix)]
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", folder.display()))?;
    Ok(folder.join(name))
}

/// The file that is locked as long as the servers are held. Its contents: the number of the holder.
fn lock_file() -> Result<File> {
    let path = place("holder")?;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Takes the lock, or says that a holder has it.
fn lock(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the holder's file"),
    }
}

/// Number of the process that holds the servers, if there is one.
fn holder() -> Result<Option<u32>> {
    let mut file = lock_file()?;
    if lock(&file)? {
        return Ok(None);
    }
    let mut text = String::new();
    file.read_to_string(&mut text).context("cannot read the holder's number")?;
    Ok(text.trim().parse().ok())
}

fn up(galera: bool) -> Result<bool> {
    let variables = place("env")?;
    if holder()?.is_none() {
        let mut wanted = vec![Software::Postgres, Software::MariaDb, Software::PgBouncer];
        wanted.extend(galera.then_some(Software::Galera));
        // What cannot be had is named by the holder, with the command that installs it.
        install::missing(&wanted);
        emulators::missing(&[ObjectStoreKind::S3, ObjectStoreKind::Azure]);
        emulators::receiver();
        let log_path = place("log")?;
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        // Those of an earlier holder.
        if variables.exists() {
            std::fs::remove_file(&variables).context("cannot remove the old variables")?;
        }
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(["servers", "hold"]).args(galera.then_some("--galera"));
        command.stdin(Stdio::null()).stderr(log.try_clone().context("cannot share the log")?);
        command.stdout(log);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().context("cannot start the holder")?;
        wait_until("the servers start", START_LIMIT, || {
            let ended = child.try_wait().context("waiting for the holder")?.is_some();
            let ready = variables.exists();
            ensure!(ready || !ended, "{}", std::fs::read_to_string(&log_path).unwrap_or_default());
            Ok(ready)
        })?;
    } else if galera && !std::fs::read_to_string(&variables)?.contains("GALERA") {
        bail!("the servers run without Galera: `cargo xtask servers down` first");
    }
    // What does not run, and why.
    print!("{}", std::fs::read_to_string(place("log")?).unwrap_or_default());
    print!("{}", std::fs::read_to_string(&variables).context("cannot read the variables")?);
    println!("# in a shell: eval \"$(cargo xtask servers env)\"");
    Ok(true)
}

fn down() -> Result<bool> {
    let Some(pid) = holder()? else {
        println!("no servers run");
        return Ok(true);
    };
    let ended = Command::new("sh").args(["-c", &format!("kill {pid}")]).status();
    ensure!(ended.is_ok_and(|s| s.success()), "cannot end the process {pid} that holds them");
    wait_until("the holder ends", END_LIMIT, || Ok(holder()?.is_none()))?;
    // Its servers are ended by their watchers, which remove their folders last.
    wait_until("the servers end", END_LIMIT, || Ok(folders_of(pid)?.is_empty()))?;
    let _ = std::fs::remove_file(place("env")?);
    println!("the servers are gone");
    Ok(true)
}

fn env() -> Result<bool> {
    if holder()?.is_none() {
        eprintln!("no servers run: `cargo xtask servers up` starts them");
        return Ok(false);
    }
    print!("{}", std::fs::read_to_string(place("env")?).context("the servers are starting")?);
    Ok(true)
}

fn hold(galera: bool) -> Result<bool> {
    let mut file = lock_file()?;
    // Whoever asks for the holder has the lock for a moment.
    wait_until("no other process holds the servers", Duration::from_secs(2), || lock(&file))?;
    file.set_len(0).context("cannot write the holder's number")?;
    write!(file, "{}", std::process::id()).context("cannot write the holder's number")?;
    let servers = Servers::start(&Given::default(), galera);
    for (name, why) in &servers.absent {
        println!("# no {name}: {why}");
    }
    if servers.postgres.is_none() && servers.maria.is_none() {
        return Ok(false);
    }
    let mut lines = String::new();
    for (name, value) in servers.variables() {
        let _ = writeln!(lines, "export {name}='{value}'");
    }
    // Under its name once it is complete.
    let unfinished = place("env.part")?;
    std::fs::write(&unfinished, lines).context("cannot write the variables")?;
    std::fs::rename(&unfinished, place("env")?).context("cannot write the variables")?;
    loop {
        std::thread::park();
    }
}

// ---- the servers ----

/// What the environment names already: people test against servers of their own.
#[derive(Debug, Default)]
pub(crate) struct Given {
    postgres: bool,
    mysql: bool,
    galera: bool,
    s3: bool,
    azure: bool,
}

impl Given {
    /// What the variables say.
    pub(crate) fn from_env() -> Given {
        let given = |name: &str| std::env::var(name).is_ok_and(|v| !v.trim().is_empty());
        Given {
            postgres: given("DL_TEST_POSTGRES_URL"),
            mysql: given("DL_TEST_MYSQL_URL"),
            galera: given("DL_TEST_GALERA_URL"),
            s3: given("DL_TEST_S3_ENDPOINT"),
            azure: given("DL_TEST_AZURE_ENDPOINT"),
        }
    }
}

impl Given {
    /// Object stores that are not given.
    fn stores(&self) -> Vec<ObjectStoreKind> {
        let stores = [(self.s3, ObjectStoreKind::S3), (self.azure, ObjectStoreKind::Azure)];
        stores.into_iter().filter(|(given, _)| !given).map(|(_, kind)| kind).collect()
    }
}

/// Servers that run until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    pgbouncer: Option<PgBouncer>,
    replica: Option<Postgres>,
    postgres: Option<Postgres>,
    maria: Option<MariaDb>,
    galera: Option<Galera>,
    s3: Option<ObjectStore>,
    azure: Option<ObjectStore>,
    /// What does not run and was not given, and why.
    absent: Vec<(&'static str, String)>,
}

impl Servers {
    /// Starts what is not given, all at once.
    fn start(given: &Given, galera: bool) -> Servers {
        let mut servers = Servers::default();
        std::thread::scope(|scope| {
            let postgres = (!given.postgres).then(|| {
                scope.spawn(|| {
                    let server = Postgres::start(PostgresOptions::default())?;
                    let replica = server.replica();
                    let pgbouncer = PgBouncer::start(&server, PoolMode::Transaction);
                    Ok((server, replica, pgbouncer))
                })
            });
            let maria =
                (!given.mysql).then(|| scope.spawn(|| MariaDb::start(MariaDbOptions::default())));
            let galera = (galera && !given.galera).then(|| scope.spawn(|| Galera::start(3)));
            let s3 = (!given.s3).then(|| scope.spawn(|| ObjectStore::start(ObjectStoreKind::S3)));
            let azure =
                (!given.azure).then(|| scope.spawn(|| ObjectStore::start(ObjectStoreKind::Azure)));
            if let Some(thread) = postgres {
                match joined(thread.join()) {
                    Ok((server, replica, pgbouncer)) => {
                        servers.postgres = Some(server);
                        servers.replica = servers.kept("replica", replica);
                        servers.pgbouncer = servers.kept("pgbouncer", pgbouncer);
                    }
                    Err(why) => {
                        let why = format!("{why:#}");
                        servers.absent.extend(
                            ["postgres", "replica", "pgbouncer"].map(|name| (name, why.clone())),
                        );
                    }
                }
            }
            if let Some(thread) = maria {
                servers.maria = servers.kept("mysql", joined(thread.join()));
            }
            if let Some(thread) = galera {
                servers.galera = servers.kept("galera", joined(thread.join()));
            }
            if let Some(thread) = s3 {
                servers.s3 = servers.kept("s3", joined(thread.join()));
            }
            if let Some(thread) = azure {
                servers.azure = servers.kept("azure", joined(thread.join()));
            }
        });
        servers
    }

    /// Keeps the reason where there is no server.
    fn kept<S>(&mut self, name: &'static str, server: Result<S>) -> Option<S> {
        server.map_err(|why| self.absent.push((name, format!("{why:#}")))).ok()
    }

    /// For a run of the tests: installs what is missing, starts what is not given, and counts what
    /// cannot be had as skipped.
    pub(crate) fn for_tests(quick: bool, tally: &mut Tally) -> Servers {
        let given = Given::from_env();
        let mut wanted = vec![Software::Prometheus];
        if !given.postgres {
            wanted.extend([Software::Postgres, Software::PgBouncer]);
        }
        if !given.mysql {
            wanted.push(Software::MariaDb);
        }
        if !given.galera && !quick {
            wanted.push(Software::Galera);
        }
        install::missing(&wanted);
        emulators::missing(&given.stores());
        emulators::receiver();
        println!("starting database servers and emulators of object stores");
        let mut servers = Servers::start(&given, !quick);
        for (name, why) in servers.absent.drain(..) {
            tally.skip(name, why);
        }
        if quick && !given.galera {
            tally.skip("galera", "left out by --quick");
        }
        servers
    }

    /// For other engines alone: emulators of object stores.
    pub(crate) fn for_interop(tally: &mut Tally) -> Servers {
        let from_env = Given::from_env();
        emulators::missing(&from_env.stores());
        let given = Given { postgres: true, mysql: true, galera: true, ..from_env };
        let mut servers = Servers::start(&given, false);
        for (name, why) in servers.absent.drain(..) {
            tally.skip(name, why);
        }
        servers
    }

    /// What leads tests to the servers.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = Vec::new();
        if let Some(server) = &self.postgres {
            variables.push(("DL_TEST_POSTGRES_URL", server.superuser_url("postgres")));
        }
        if let Some(server) = &self.replica {
            variables.push(("DL_TEST_POSTGRES_REPLICA_URL", server.superuser_url("postgres")));
        }
        if let Some(server) = &self.pgbouncer {
            variables.push(("DL_TEST_PGBOUNCER_URL", server.superuser_url("postgres")));
        }
        if let Some(server) = &self.maria {
            variables.push(("DL_TEST_MYSQL_URL", server.superuser_url("mysql")));
        }
        if let Some(cluster) = &self.galera {
            variables.push(("DL_TEST_GALERA_URL", cluster.superuser_urls("mysql").join(" ")));
        }
        for (name, store) in
            [("DL_TEST_S3_ENDPOINT", &self.s3), ("DL_TEST_AZURE_ENDPOINT", &self.azure)]
        {
            variables.extend(store.as_ref().map(|store| (name, store.endpoint())));
        }
        variables
    }
}

/// The outcome of a thread; one that panicked has said why.
fn joined<T>(outcome: std::thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|_| bail!("its start panicked"))
}
