//! Certificates of a server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::folder::Folder;

/// PEM files that a test has made; they are copied into the folder of the server.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate of the server (and of what lies between it and the CA).
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA that certificates of clients are checked against.
    pub ca: Option<PathBuf>,
}

impl Tls {
    /// Copies the files to where the server may read them, and nobody else the key.
    pub(crate) fn copy(&self, folder: &Folder) -> Result<Tls> {
        let copy = |from: &Path, name: &str| {
            let bytes =
                std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            folder.write(name, bytes)
        };
        Ok(Tls {
            cert: copy(&self.cert, "server-cert.pem")?,
            key: copy(&self.key, "server-key.pem")?,
            ca: self.ca.as_deref().map(|ca| copy(ca, "client-ca.pem")).transpose()?,
        })
    }
}
