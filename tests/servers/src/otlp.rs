//! A receiver of traces, which decodes with the official classes of the protocol: Python's package
//! `opentelemetry-proto`. No collector is packaged for Debian.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::account::Account;
use crate::folder::Folder;
use crate::ports;
use crate::process::{self, Process};
use crate::programs;
use crate::wait::{PATIENCE, wait_until};

const SCRIPT: &str = include_str!("otlp_receiver.py");

/// A running receiver. Dropping it ends it.
pub struct OtlpReceiver {
    port: u16,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for OtlpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpReceiver").field("port", &self.port).finish_non_exhaustive()
    }
}

impl OtlpReceiver {
    /// Whether its package is installed.
    ///
    /// # Errors
    /// If not: the command that installs it.
    pub fn check() -> Result<()> {
        programs::otlp_python().map(drop)
    }

    /// Starts it; it takes whatever it is sent.
    ///
    /// # Errors
    /// If its package is not installed, with the command that installs it; or if it does not start, with the end of its
    /// log.
    pub fn start() -> Result<OtlpReceiver> {
        let python = programs::otlp_python()?;
        let folder = Folder::make("ot", Account::ourselves()?)?;
        let port = ports::free()?;
        let script = folder.write("receiver.py", SCRIPT)?;
        let (requests, behaviour) = (folder.write("requests", "")?, folder.write("how", "200")?);
        let mut command = Command::new(python);
        command.arg(script).arg(port.to_string()).args([requests, behaviour]);
        command.current_dir(folder.path());
        let process = Process::start(command, folder.path(), "KILL")?;
        let mut receiver = OtlpReceiver { port, process: Some(process), folder };
        let ready = wait_until("the receiver accepts connections", PATIENCE, || {
            if !receiver.process.as_mut().is_some_and(Process::is_running) {
                bail!("the receiver ended by itself");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        });
        match ready {
            Ok(()) => Ok(receiver),
            Err(error) => Err(error
                .context(process::log_tail(receiver.folder.path()))
                .context("the receiver of traces does not start")),
        }
    }

    /// Its address, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it answers so: a status code, `hang`, `partial` (one span is rejected), `retry-after` (429 with
    /// that header), `redirect`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn answers(&self, how: &str) -> Result<()> {
        // Read at any moment: it is never half written.
        let file = self.folder.write("how.new", how)?;
        std::fs::rename(file, self.how()).context("cannot tell the receiver how to answer")
    }

    fn how(&self) -> PathBuf {
        self.folder.join("how")
    }

    /// The requests so far: `path`, `headers`, `answer`, `spans`, and `everything` of the message as text.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join("requests"))?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The spans of all requests so far.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn spans(&self) -> Result<Vec<Value>> {
        let spans = |request: Value| request["spans"].as_array().cloned().unwrap_or_default();
        Ok(self.requests()?.into_iter().flat_map(spans).collect())
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
        }
    }
}
