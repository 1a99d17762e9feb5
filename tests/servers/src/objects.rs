//! Emulators of object stores: S3 by moto, Azure Blob Storage by Azurite.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::folder::Folder;
use crate::ports;
use crate::process::{self, Process};
use crate::programs;
use crate::wait::{PATIENCE, wait_until};

/// Which store is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectStoreKind {
    /// S3. moto's put-if-absent is right under races.
    S3,
    /// Azure Blob Storage. Azurite's listings ignore where they are to begin.
    Azure,
}

/// The account that Azurite has from the start, and its key: both are public.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container on Azurite: a request that is signed with the account's key.
const MAKE_CONTAINER: &str = r"
const [port, account, key, name] = process.argv.slice(1);
const date = new Date().toUTCString();
const headers = `x-ms-date:${date}\nx-ms-version:2021-08-06\n`;
const text = 'PUT' + '\n'.repeat(12) + headers + `/${account}/${account}/${name}\nrestype:container`;
const sign = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8');
const request = require('http').request({
  host: '127.0.0.1', port, method: 'PUT', path: `/${account}/${name}?restype=container`,
  headers: { 'x-ms-date': date, 'x-ms-version': '2021-08-06', 'content-length': 0,
    authorization: `SharedKey ${account}:${sign.digest('base64')}` },
}, response => { response.resume(); process.exitCode = response.statusCode == 201 ? 0 : 1;
  if (process.exitCode) console.error(response.statusCode, response.headers); });
request.end();
";

/// A running emulator, which keeps everything in memory. Dropping it ends it.
pub struct ObjectStore {
    kind: ObjectStoreKind,
    port: u16,
    /// Before the folder: a server ends before its folder goes.
    process: Option<Process>,
    folder: Folder,
}

impl std::fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStore")
            .field("kind", &self.kind)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// Starts an emulator and waits until it accepts connections.
    ///
    /// # Errors
    /// If it is not installed, with the command that installs it; or if it does not start, with the
    /// end of its log.
    pub fn start(kind: ObjectStoreKind) -> Result<ObjectStore> {
        let program = program(kind)?;
        // They were installed for us, maybe where no other account may look.
        let folder = Folder::make("os", Account::ourselves()?)?;
        let port = ports::free()?;
        let mut command = Command::new(program);
        let number = port.to_string();
        match kind {
            ObjectStoreKind::S3 => command.args(["-H", "127.0.0.1", "-p", &number]),
            ObjectStoreKind::Azure => command
                .args(["--blobHost", "127.0.0.1", "--blobPort", &number, "--inMemoryPersistence"])
                .args(["--skipApiVersionCheck", "--silent", "--disableTelemetry"]),
        };
        command.current_dir(folder.path());
        let mut process = Process::start(command, folder.path(), "KILL")?;
        let ready = wait_until("the emulator accepts connections", PATIENCE, || {
            if !process.is_running() {
                bail!("the emulator ended by itself");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        });
        let store = ObjectStore { kind, port, process: Some(process), folder };
        match ready {
            Ok(()) => Ok(store),
            Err(error) => Err(error
                .context(process::log_tail(store.folder.path()))
                .context(format!("the emulator of {kind:?} does not start"))),
        }
    }

    /// Which store it is.
    #[must_use]
    pub fn kind(&self) -> ObjectStoreKind {
        self.kind
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for [`EmulatedStore`].
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process::kill_in(self.folder.path(), Some(process.id()));
        }
    }
}

/// Where an emulator is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedStore {
    /// Which store it is.
    pub kind: ObjectStoreKind,
    /// `http://127.0.0.1:port`, of the emulator or of a proxy before it.
    pub endpoint: String,
}

impl EmulatedStore {
    /// Makes a bucket or container of this name: lower-case letters, digits and hyphens.
    ///
    /// # Errors
    /// What the emulator says.
    pub fn make_bucket(&self, name: &str) -> Result<()> {
        let address = self.endpoint.trim_start_matches("http://");
        match self.kind {
            ObjectStoreKind::S3 => {
                let mut stream = TcpStream::connect(address).context("no S3 emulator")?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                let head = format!(
                    "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\
                     Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                     SignedHeaders=host, Signature=0\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes())?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                match answer.split_whitespace().nth(1) {
                    Some("200") => Ok(()),
                    _ => bail!("cannot make the bucket {name}: {answer}"),
                }
            }
            ObjectStoreKind::Azure => {
                let port = address.rsplit(':').next().unwrap_or_default();
                let mut command = Command::new(programs::node()?);
                command.args(["-e", MAKE_CONTAINER, port, AZURITE_ACCOUNT, AZURITE_KEY, name]);
                process::run(&mut command, None)
                    .map(drop)
                    .with_context(|| format!("cannot make the container {name}"))
            }
        }
    }

    /// The URL of a bucket or container.
    #[must_use]
    pub fn url(&self, bucket: &str) -> String {
        match self.kind {
            ObjectStoreKind::S3 => format!("s3://{bucket}"),
            ObjectStoreKind::Azure => format!("az://{bucket}"),
        }
    }

    /// Options of the `object_store` crate, and of what is built on it, that lead to it.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        let options = match self.kind {
            ObjectStoreKind::S3 => vec![
                ("aws_endpoint", self.endpoint.clone()),
                ("aws_region", "us-east-1".to_owned()),
                ("aws_access_key_id", "test".to_owned()),
                ("aws_secret_access_key", "test".to_owned()),
                ("aws_allow_http", "true".to_owned()),
            ],
            ObjectStoreKind::Azure => vec![
                ("azure_endpoint", format!("{}/{AZURITE_ACCOUNT}", self.endpoint)),
                ("azure_storage_account_name", AZURITE_ACCOUNT.to_owned()),
                ("azure_storage_account_key", AZURITE_KEY.to_owned()),
                ("azure_allow_http", "true".to_owned()),
            ],
        };
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn program(kind: ObjectStoreKind) -> Result<PathBuf> {
    match kind {
        ObjectStoreKind::S3 => programs::moto(),
        ObjectStoreKind::Azure => {
            programs::node()?;
            programs::azurite()
        }
    }
}

/// Whether an emulator can be started here.
///
/// # Errors
/// If not: what is missing, and the command that installs it.
pub fn check_object_store(kind: ObjectStoreKind) -> Result<()> {
    program(kind).map(drop)
}
