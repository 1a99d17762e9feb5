//! PgBouncer.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use anyhow::{Result, bail};

use crate::account::Account;
use crate::folder::Folder;
use crate::ports;
use crate::postgres::Postgres;
use crate::process::{self, Process};
use crate::programs;
use crate::wait::{PATIENCE, wait_until};

/// How long a client keeps a connection to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// Until it leaves.
    Session,
    /// For one transaction.
    Transaction,
    /// For one statement: transactions of several are refused.
    Statement,
}

/// A running pooler in front of a PostgreSQL server.
///
/// It has the settings that PgBouncer has by itself: it refuses start-up parameters that it does not
/// know (such as `extra_float_digits`). Any role of the server logs in with its own password.
/// Dropping it ends it.
pub struct PgBouncer {
    port: u16,
    password: String,
    user: &'static str,
    superuser: &'static str,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for PgBouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgBouncer")
            .field("port", &self.port)
            .field("folder", &self.folder.path())
            .finish_non_exhaustive()
    }
}

impl PgBouncer {
    /// Starts a pooler in front of `server`, and waits until it accepts connections.
    ///
    /// # Errors
    /// If PgBouncer is not installed, with the command that installs it; or if it does not start,
    /// with the end of its log.
    pub fn start(server: &Postgres, mode: PoolMode) -> Result<PgBouncer> {
        programs::pgbouncer()?;
        let account = Account::choose(&["postgres"])?;
        let mut pooler = PgBouncer {
            port: ports::free()?,
            password: server.password().to_owned(),
            user: server.user(),
            superuser: server.superuser(),
            process: None,
            folder: Folder::make("pb", account)?,
        };
        let users = format!("\"{}\" \"{}\"\n", pooler.superuser, pooler.password);
        let users = pooler.folder.write("users.txt", users)?;
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
            PoolMode::Statement => "statement",
        };
        let lines = [
            "[databases]".to_owned(),
            format!("* = host=127.0.0.1 port={}", server.port()),
            "[pgbouncer]".to_owned(),
            "listen_addr = 127.0.0.1".to_owned(),
            format!("listen_port = {}", pooler.port),
            "unix_socket_dir =".to_owned(),
            format!("pool_mode = {mode}"),
            "default_pool_size = 20".to_owned(),
            "max_client_conn = 500".to_owned(),
            "auth_type = scram-sha-256".to_owned(),
            format!("auth_file = {}", users.display()),
            // Roles that are not in the file: it asks the server, and passes their proof on.
            format!("auth_user = {}", pooler.superuser),
            "auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1".to_owned(),
        ];
        pooler.folder.write("pgbouncer.ini", lines.join("\n") + "\n")?;
        pooler.start_again()?;
        Ok(pooler)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database through the pooler, as the role of [`Postgres::url`].
    pub fn url(&self, database: &str) -> String {
        self.url_as(self.user, &self.password, database)
    }

    /// The URL of a database through the pooler, as the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_as(self.superuser, &self.password, database)
    }

    /// The URL of a database through the pooler, as any role of the server. User and password stand
    /// as they are given: no character that a URL would escape.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// A crash: all connections are cut.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
            process.reap();
        }
    }

    /// Starts it after [`PgBouncer::kill`]. Nothing happens if it runs.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = Command::new(programs::pgbouncer()?);
        command.arg(self.folder.join("pgbouncer.ini")).current_dir(self.folder.path());
        self.folder.account().apply(&mut command);
        let mut process = Process::start(command, self.folder.path(), "KILL")?;
        let ready = wait_until("PgBouncer accepts connections", PATIENCE, || {
            if !process.is_running() {
                bail!("PgBouncer ended by itself");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok())
        });
        self.process = Some(process);
        ready.map_err(|error| {
            let error = error.context(process::log_tail(self.folder.path()));
            self.kill();
            error.context("PgBouncer does not start")
        })
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}
