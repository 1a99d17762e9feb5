//! Prometheus.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::account::Account;
use crate::folder::Folder;
use crate::ports;
use crate::process::{self, Process};
use crate::programs;
use crate::wait::{PATIENCE, wait_until};

/// A running Prometheus, which asks its targets each second. Dropping it ends it.
pub struct Prometheus {
    port: u16,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Prometheus {
    /// Starts it with one job, called `job`, whose targets are `host:port` each, and with the rules of a file.
    ///
    /// # Errors
    /// If it is not installed, with the command that installs it; or if it does not start, with the end of its log.
    pub fn start(job: &str, targets: &[String], rules: Option<&Path>) -> Result<Prometheus> {
        let program = programs::prometheus()?;
        let folder = Folder::make("pr", Account::ourselves()?)?;
        let port = ports::free()?;
        let mut config =
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
                .to_owned();
        if let Some(rules) = rules {
            let text = std::fs::read_to_string(rules)
                .with_context(|| format!("cannot read {}", rules.display()))?;
            folder.write("rules.yaml", text)?;
            config.push_str("rule_files: [rules.yaml]\n");
        }
        // JSON is YAML.
        let jobs = serde_json::json!([{"job_name": job, "static_configs": [{"targets": targets}]}]);
        config += "scrape_configs: ";
        config += &jobs.to_string();
        let config = folder.write("prometheus.yaml", config)?;
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.current_dir(folder.path());
        let process = Process::start(command, folder.path(), "KILL")?;
        let mut server = Prometheus { port, process: Some(process), folder };
        let ready = wait_until("Prometheus is ready", PATIENCE, || {
            if !server.process.as_mut().is_some_and(Process::is_running) {
                bail!("Prometheus ended by itself");
            }
            Ok(server.get("/-/ready").is_ok())
        });
        match ready {
            Ok(()) => Ok(server),
            Err(error) => Err(error
                .context(process::log_tail(server.folder.path()))
                .context("Prometheus does not start")),
        }
    }

    /// The answer to a query: its `data`.
    ///
    /// # Errors
    /// What Prometheus says of the query.
    pub fn query(&self, query: &str) -> Result<Value> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer = self.get(&path).with_context(|| format!("query {query}"))?;
        let answer: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
        ensure!(answer["status"] == "success", "{query}: {}", answer["error"]);
        Ok(answer["data"].clone())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Of version 1.0, so that the body comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
        let code = head.split_whitespace().nth(1).unwrap_or_default();
        ensure!(code == "200", "HTTP {code}: {body}");
        Ok(body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
        }
    }
}

/// Percent-encodes all but letters and digits.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
