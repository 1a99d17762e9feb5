//! MariaDB and MySQL.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::folder::Folder;
use crate::process::{self, Process};
use crate::programs::{Flavor, MariaDbPrograms};
use crate::tls::Tls;
use crate::wait::{PATIENCE, wait_until};
use crate::{ports, system};

/// The user that may do everything.
const SUPERUSER: &str = "dl_admin";

/// The user that owns the databases made by [`MariaDb::create_database`], and nothing else.
const OWNER: &str = "dl_owner";

/// The longest path of a socket is 107 bytes; the server itself adds some in error messages only.
const SOCKET_BYTES: usize = 100;

/// What a server is to be like.
#[derive(Debug, Clone, Default)]
pub struct MariaDbOptions {
    /// Accepts TLS connections (and others, unless `config` says `require_secure_transport=ON`).
    pub tls: Option<Tls>,
    /// Lines of the section `[mysqld]`; they win over ours.
    pub config: Vec<String>,
}

/// A running MariaDB server; a MySQL server, where that is what is installed.
///
/// Dropping it ends it and removes its folder.
pub struct MariaDb {
    options: MariaDbOptions,
    programs: MariaDbPrograms,
    port: u16,
    password: String,
    /// In the folder of the server, unless that makes its path too long.
    socket: PathBuf,
    /// The folder of the socket, where it is not that of the server.
    _socket_folder: Option<Folder>,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for MariaDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MariaDb")
            .field("flavor", &self.programs.flavor)
            .field("port", &self.port)
            .field("folder", &self.folder.path())
            .finish_non_exhaustive()
    }
}

impl MariaDb {
    /// Makes and starts a server, and waits until it accepts connections.
    ///
    /// # Errors
    /// If neither MariaDB nor MySQL is installed, with the command that installs it; or if the
    /// server does not start, with the end of its log.
    pub fn start(options: MariaDbOptions) -> Result<MariaDb> {
        let mut server = MariaDb::prepare(options, ports::password()?)?;
        server.install()?;
        let first = server.first_arguments()?;
        let mut attempts = 0;
        while let Err(error) = server.start_with(&first, "SELECT 1", "1") {
            attempts += 1;
            if attempts == 5 || !server.log().contains("Address already in use") {
                return Err(error);
            }
            server.port = ports::free()?;
            server.configure()?;
        }
        Ok(server)
    }

    /// A folder with a configuration, and no data yet.
    pub(crate) fn prepare(options: MariaDbOptions, password: String) -> Result<MariaDb> {
        let programs = MariaDbPrograms::find()?;
        let account = Account::choose(&["mysql"])?;
        let folder = Folder::make("my", account)?;
        let mut socket = folder.join("sock");
        let mut socket_folder = None;
        if socket.as_os_str().len() > SOCKET_BYTES {
            let made = Folder::make_short("so", account)?;
            socket = made.join("sock");
            socket_folder = Some(made);
        }
        let server = MariaDb {
            options,
            programs,
            port: ports::free()?,
            password,
            socket,
            _socket_folder: socket_folder,
            process: None,
            folder,
        };
        server.folder.subfolder("tmp")?;
        server.folder.subfolder("data")?;
        server.configure()?;
        Ok(server)
    }

    /// Makes the system tables.
    pub(crate) fn install(&self) -> Result<()> {
        let mut command;
        if let Some(installer) = &self.programs.installer {
            command = self.command(installer);
            command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
            command.args(["--skip-test-db", "--innodb-log-file-size=16M"]);
        } else {
            command = self.command(&self.programs.server);
            command.args(["--no-defaults", "--initialize-insecure"]);
        }
        command.arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--tmpdir={}", self.folder.join("tmp").display()));
        process::run(&mut command, None).context("making a MariaDB server").map(drop)
    }

    /// Arguments of the first start: it makes the users.
    pub(crate) fn first_arguments(&self) -> Result<Vec<String>> {
        let password = &self.password;
        let mut lines = Vec::new();
        if self.programs.flavor == Flavor::MariaDb {
            // Without a password, on each name of this machine. Only root through the socket stays.
            lines.push(
                "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
                    .to_owned(),
            );
            lines.push("FLUSH PRIVILEGES;".to_owned());
        }
        lines
            .push(format!("CREATE USER IF NOT EXISTS {SUPERUSER}@'%' IDENTIFIED BY '{password}';"));
        lines.push(format!("GRANT ALL PRIVILEGES ON *.* TO {SUPERUSER}@'%' WITH GRANT OPTION;"));
        lines.push(format!("CREATE USER IF NOT EXISTS {OWNER}@'%' IDENTIFIED BY '{password}';"));
        let file = self.folder.write("first.sql", lines.join("\n") + "\n")?;
        Ok(vec![format!("--init-file={}", file.display())])
    }

    fn configure(&self) -> Result<()> {
        let folder = self.folder.path().display();
        let mut lines = vec![
            "[mysqld]".to_owned(),
            format!("datadir={folder}/data"),
            format!("tmpdir={folder}/tmp"),
            format!("pid-file={folder}/pid"),
            format!("socket={}", self.socket.display()),
            "bind-address=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "skip-name-resolve".to_owned(),
            // The defaults, and what the tests rely on.
            "innodb_flush_log_at_trx_commit=1".to_owned(),
            "innodb_doublewrite=ON".to_owned(),
            "innodb_buffer_pool_size=128M".to_owned(),
            "max_connections=300".to_owned(),
            "max_allowed_packet=64M".to_owned(),
            "character-set-server=utf8mb4".to_owned(),
            // Failed logins of a test are no attack.
            "max_connect_errors=1000000".to_owned(),
        ];
        match self.programs.flavor {
            Flavor::MariaDb => lines.push("innodb_log_file_size=96M".to_owned()),
            Flavor::MySql => lines.extend(["mysqlx=OFF".to_owned(), "skip-log-bin".to_owned()]),
        }
        if let Some(tls) = &self.options.tls {
            let tls = tls.copy(&self.folder)?;
            lines.push(format!("ssl-cert={}", tls.cert.display()));
            lines.push(format!("ssl-key={}", tls.key.display()));
            if let Some(ca) = &tls.ca {
                lines.push(format!("ssl-ca={}", ca.display()));
            }
        }
        lines.extend(self.options.config.iter().cloned());
        self.folder.write("my.cnf", lines.join("\n") + "\n").map(drop)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is MySQL, and not MariaDB.
    pub fn is_mysql(&self) -> bool {
        self.programs.flavor == Flavor::MySql
    }

    /// The URL of a database, as the user that owns those made by [`MariaDb::create_database`].
    pub fn url(&self, database: &str) -> String {
        self.url_as(OWNER, &self.password, database)
    }

    /// The URL of a database, as the user that may do everything.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, &self.password, database)
    }

    /// The URL of a database, as any user. User and password stand as they are given: no character
    /// that a URL would escape.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("mysql://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Name of the user in [`MariaDb::url`].
    pub fn user(&self) -> &'static str {
        OWNER
    }

    /// Name of the user that may do everything.
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// Password of both users.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Makes a database on which the user of [`MariaDb::url`] may do everything.
    ///
    /// # Errors
    /// What the client says.
    pub fn create_database(&self, name: &str) -> Result<()> {
        // In the name of a database `_` and `%` are wildcards of GRANT.
        let pattern = name.replace('_', "\\_").replace('%', "\\%");
        self.sql(&format!(
            "CREATE DATABASE `{name}`; GRANT ALL PRIVILEGES ON `{pattern}`.* TO {OWNER}@'%';"
        ))
        .map(drop)
    }

    /// Makes a user that may log in, and do nothing else.
    ///
    /// # Errors
    /// What the client says.
    pub fn create_user(&self, name: &str, password: &str) -> Result<()> {
        let password = password.replace('\\', "\\\\").replace('\'', "''");
        self.sql(&format!("CREATE USER `{name}`@'%' IDENTIFIED BY '{password}';")).map(drop)
    }

    /// Runs SQL as the user that may do everything, through the server's socket; the rows, one a
    /// line, columns separated by tabs.
    ///
    /// # Errors
    /// What the client says, at the first statement that fails.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let mut client = Command::new(&self.programs.client);
        client.args(["--no-defaults", "--batch", "--skip-column-names", "--connect-timeout=30"]);
        client.args(["--protocol=socket", "--default-character-set=utf8mb4", "--user", SUPERUSER]);
        client.arg(format!("--socket={}", self.socket.display()));
        client.env("MYSQL_PWD", &self.password).current_dir("/");
        Ok(process::run(&mut client, Some(sql))?.trim_end().to_owned())
    }

    /// Ends the server in order and starts it again. Open connections are closed.
    ///
    /// # Errors
    /// If it does not end or start, with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Ends the server in order: open transactions are rolled back.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.end("TERM", PATIENCE).with_context(|| self.log_tail())?;
        }
        Ok(())
    }

    /// A crash: the server is killed.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
            process.reap();
        }
    }

    /// Starts the server after [`MariaDb::stop`] or [`MariaDb::kill`], on the same port, and waits
    /// until it accepts connections. Nothing happens if it runs.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_with(&[], "SELECT 1", "1")
    }

    /// Starts with more arguments, and waits until `question` is answered with `answer`.
    pub(crate) fn start_with(
        &mut self,
        arguments: &[String],
        question: &str,
        answer: &str,
    ) -> Result<()> {
        self.spawn(arguments)?;
        self.wait_ready(question, answer)
    }

    /// Starts the server's process, if it does not run.
    pub(crate) fn spawn(&mut self, arguments: &[String]) -> Result<()> {
        if self.process.is_none() {
            let mut command = self.command(&self.programs.server);
            command.arg(format!("--defaults-file={}", self.folder.join("my.cnf").display()));
            command.args(arguments);
            self.process = Some(Process::start(command, self.folder.path(), "KILL")?);
        }
        Ok(())
    }

    pub(crate) fn wait_ready(&mut self, question: &str, answer: &str) -> Result<()> {
        let Some(mut process) = self.process.take() else { bail!("the server does not run") };
        let ready = wait_until("MariaDB accepts connections", PATIENCE, || {
            if !process.is_running() {
                bail!("the server ended by itself");
            }
            // No client is started for a server that does not listen yet.
            let listens = system::listens(&self.socket);
            Ok(listens && self.sql(question).is_ok_and(|said| said == answer))
        });
        self.process = Some(process);
        if let Err(error) = ready {
            let error = error.context(self.log_tail());
            self.kill();
            return Err(error.context("MariaDB does not start"));
        }
        Ok(())
    }

    /// Asks the tables of a Galera node that does not run how far it had come.
    pub(crate) fn recovered_position(&self) -> Result<Option<String>> {
        let mut command = self.command(&self.programs.server);
        command.arg(format!("--defaults-file={}", self.folder.join("my.cnf").display()));
        let log = self.folder.join("recover.log");
        command.args(["--wsrep-recover", &format!("--log-error={}", log.display())]);
        process::run(&mut command, None).context("recovering the position of a Galera node")?;
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let position = text.lines().rev().find_map(|l| l.split_once("Recovered position: "));
        Ok(position.map(|(_, p)| p.trim().to_owned()))
    }

    /// Stops the server where it is: connections stay open, nothing answers.
    pub fn pause(&self) {
        process::signal("STOP", &process::working_in(self.folder.path()));
    }

    /// Lets it go on.
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

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of the server, as its account, in its folder.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env("LC_ALL", "C").env_remove("MYSQL_PWD").env_remove("MYSQL_HOME");
        self.folder.account().apply(&mut command);
        command
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // Nothing of it outlives its folder: no time lost with an end in order.
        self.kill();
    }
}
