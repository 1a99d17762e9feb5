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
    /// Makes a CA, and a certificate for 127.0.0.1 that it has signed, as files in a folder. What a
    /// client trusts is `ca`.
    ///
    /// # Errors
    /// If a file cannot be written.
    #[cfg(feature = "certificates")]
    pub fn made_in(folder: &Path) -> Result<Tls> {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

        let (ca_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut ca = CertificateParams::new(Vec::new())?;
        // The same name as that of what it signs would make that look signed by itself.
        ca.distinguished_name.push(DnType::CommonName, "a CA of the tests");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key)?;
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        let cert = server.signed_by(&key, &Issuer::new(ca, ca_key))?;
        let write = |name: &str, pem: String| {
            let path = folder.join(name);
            std::fs::write(&path, pem)
                .with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Tls {
            cert: write("cert.pem", cert.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            ca: Some(write("ca.pem", ca_cert.pem())?),
        })
    }

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
