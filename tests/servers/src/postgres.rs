//! PostgreSQL.

mod replica;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::folder::Folder;
use crate::ports;
use crate::process::{self, Process};
use crate::programs::PostgresPrograms;
use crate::tls::Tls;
use crate::wait::{PATIENCE, wait_until};

/// The role that may do everything.
const SUPERUSER: &str = "postgres";

/// The role that owns the databases made by [`Postgres::create_database`], and nothing else.
const OWNER: &str = "dl_owner";

/// What a server is to be like.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Accepts TLS connections (and others, unless `hba` says otherwise).
    pub tls: Option<Tls>,
    /// Lines of `postgresql.conf`; they win over ours.
    pub config: Vec<String>,
    /// Lines of `pg_hba.conf` instead of ours, which accept any role from this machine by its
    /// password (SCRAM). They must let `psql` in as the superuser with its password (with TLS, if
    /// there is any), and, for a [replica](Postgres::replica), also for `replication`.
    pub hba: Option<Vec<String>>,
    /// Major version; the newest that is installed if not given.
    pub version: Option<u32>,
}

/// A running server.
///
/// Dropping it ends it and removes its folder.
pub struct Postgres {
    options: PostgresOptions,
    programs: PostgresPrograms,
    port: u16,
    password: String,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("version", &self.programs.version)
            .field("port", &self.port)
            .field("folder", &self.folder.path())
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Makes and starts a server, and waits until it accepts connections.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, with the command that installs it; or if the server does
    /// not start, with the end of its log.
    pub fn start(options: PostgresOptions) -> Result<Postgres> {
        let mut server = Postgres::new(options, ports::password()?)?;
        let password = server.folder.write("password", &server.password)?;
        let mut initdb = server.command("initdb");
        initdb.arg("--pgdata").arg(server.data()).arg("--pwfile").arg(&password);
        initdb.args(["--username", SUPERUSER, "--auth", "scram-sha-256"]);
        // Not flushed to disk: it is made anew for each server anyway.
        initdb.args(["--encoding", "UTF8", "--locale", "C", "--no-sync"]);
        process::run(&mut initdb, None).context("making a PostgreSQL server")?;
        server.first_start()?;
        server.psql(&format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{}';", server.password))?;
        Ok(server)
    }

    fn new(options: PostgresOptions, password: String) -> Result<Postgres> {
        let programs = PostgresPrograms::find(options.version)?;
        let account = Account::choose(&["postgres"])?;
        let folder = Folder::make("pg", account)?;
        let port = ports::free()?;
        Ok(Postgres { options, programs, port, password, process: None, folder })
    }

    /// Starts on the port chosen, or, if another process took it meanwhile, on another.
    fn first_start(&mut self) -> Result<()> {
        let tls = self.options.tls.as_ref().map(|t| t.copy(&self.folder)).transpose()?;
        let mut attempts = 0;
        loop {
            self.configure(tls.as_ref())?;
            let Err(error) = self.start_again() else { return Ok(()) };
            attempts += 1;
            if attempts == 5 || !self.log().contains("Address already in use") {
                return Err(error);
            }
            self.port = ports::free()?;
        }
    }

    fn configure(&self, tls: Option<&Tls>) -> Result<()> {
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {}", self.port),
            // The path of a socket is limited to some hundred bytes, ours is not.
            "unix_socket_directories = ''".to_owned(),
            "fsync = on".to_owned(),
            "synchronous_commit = on".to_owned(),
            "full_page_writes = on".to_owned(),
            "wal_level = replica".to_owned(),
            "hot_standby = on".to_owned(),
            "max_wal_senders = 8".to_owned(),
            "max_connections = 300".to_owned(),
            "shared_buffers = '128MB'".to_owned(),
            // In the folder of the server, so that a crash leaves nothing in /dev/shm.
            "dynamic_shared_memory_type = mmap".to_owned(),
            "password_encryption = 'scram-sha-256'".to_owned(),
            "timezone = 'UTC'".to_owned(),
            "log_timezone = 'UTC'".to_owned(),
            // What a replica that was down has missed.
            if self.programs.version >= 13 {
                "wal_keep_size = '512MB'".to_owned()
            } else {
                "wal_keep_segments = 32".to_owned()
            },
        ];
        if let Some(tls) = tls {
            lines.push("ssl = on".to_owned());
            lines.push(format!("ssl_cert_file = '{}'", tls.cert.display()));
            lines.push(format!("ssl_key_file = '{}'", tls.key.display()));
            if let Some(ca) = &tls.ca {
                lines.push(format!("ssl_ca_file = '{}'", ca.display()));
            }
        }
        lines.extend(self.options.config.iter().cloned());
        self.folder.write("data/postgresql.conf", lines.join("\n") + "\n")?;
        let hba = self.options.hba.clone().unwrap_or_else(|| {
            vec![
                "host all all 127.0.0.1/32 scram-sha-256".to_owned(),
                "host replication all 127.0.0.1/32 scram-sha-256".to_owned(),
            ]
        });
        self.folder.write("data/pg_hba.conf", hba.join("\n") + "\n")?;
        Ok(())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Major version.
    pub fn version(&self) -> u32 {
        self.programs.version
    }

    /// The URL of a database, as the role that owns those made by [`Postgres::create_database`].
    pub fn url(&self, database: &str) -> String {
        self.url_as(OWNER, &self.password, database)
    }

    /// The URL of a database, as the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, &self.password, database)
    }

    /// The URL of a database, as any role. User and password stand as they are given: no
    /// character that a URL would escape.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Name of the role in [`Postgres::url`].
    pub fn user(&self) -> &'static str {
        OWNER
    }

    /// Name of the superuser.
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// Password of both roles.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Makes a database that the role of [`Postgres::url`] owns.
    ///
    /// # Errors
    /// What `psql` says.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.psql(&format!("CREATE DATABASE \"{name}\" OWNER {OWNER};")).map(drop)
    }

    /// Makes a role that may log in, and do nothing else.
    ///
    /// # Errors
    /// What `psql` says.
    pub fn create_role(&self, name: &str, password: &str) -> Result<()> {
        let password = password.replace('\'', "''");
        self.psql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}';")).map(drop)
    }

    /// Runs SQL as the superuser in the database `postgres`; the rows, one a line, columns
    /// separated by `|`.
    ///
    /// # Errors
    /// What `psql` says, at the first statement that fails.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// As [`Postgres::psql`].
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.programs.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--host", "127.0.0.1", "--username", SUPERUSER]);
        psql.arg("--port").arg(self.port.to_string()).args(["--dbname", database]);
        forget_other_server(&mut psql);
        psql.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "30");
        psql.current_dir("/");
        Ok(process::run(&mut psql, Some(sql))?.trim_end().to_owned())
    }

    /// Ends the server in order and starts it again. Open connections are closed.
    ///
    /// # Errors
    /// If it does not end or start, with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Ends the server in order (`fast` shutdown): open transactions are rolled back.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.end("INT", PATIENCE).with_context(|| self.log_tail())?;
        }
        Ok(())
    }

    /// A crash: all processes of the server are killed at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
            process.reap();
        }
    }

    /// Starts the server after [`Postgres::stop`] or [`Postgres::kill`], on the same port, and
    /// waits until it accepts connections. Nothing happens if it runs.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        // A quick end that still returns the shared memory.
        let mut process = Process::start(command, self.folder.path(), "QUIT")?;
        let id = process.id();
        let ready = wait_until("PostgreSQL accepts connections", PATIENCE, || {
            if !process.is_running() {
                bail!("the server ended by itself");
            }
            Ok(self.says_ready(id))
        });
        self.process = Some(process);
        if let Err(error) = ready {
            let error = error.context(self.log_tail());
            self.kill();
            return Err(error.context("PostgreSQL does not start"));
        }
        Ok(())
    }

    /// The last line of `postmaster.pid` is the state of the server (since version 10).
    fn says_ready(&self, id: u32) -> bool {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        lines.next() == Some(&id.to_string())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    /// Stops all processes of the server where they are: connections stay open, nothing answers.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process::signal("STOP", &[process.id()]);
            process::signal("STOP", &process::working_in(self.folder.path()));
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        process::signal("CONT", &process::working_in(self.folder.path()));
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(process::log_of(self.folder.path())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        process::log_tail(self.folder.path())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of the server, as its account, in its folder.
    fn command(&self, name: &str) -> Command {
        let mut command = self.programs.command(name);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        forget_other_server(&mut command);
        command.env("LC_ALL", "C");
        self.folder.account().apply(&mut command);
        command
    }

    /// A server that was killed leaves a few bytes of System V shared memory, which its next start
    /// would return: line 7 of `postmaster.pid` has their key and number.
    fn return_memory(&self) {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let number = text.lines().nth(6).and_then(|l| l.split_whitespace().nth(1));
        if let Some(number) = number {
            let _ = Command::new("ipcrm")
                .args(["-m", number])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let killed = self.process.is_none();
        if let Some(mut process) = self.process.take() {
            self.resume();
            // `immediate` shutdown: no time lost, and the shared memory is returned.
            if process.end("QUIT", Duration::from_secs(5)).is_err() {
                process::kill_in(self.folder.path(), Some(process.id()));
            }
        }
        if killed {
            self.return_memory();
        }
    }
}

/// Variables such as `PGDATA` or `PGOPTIONS` are about another server.
fn forget_other_server(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PG") {
            command.env_remove(key);
        }
    }
}
