//! Certificates, with an authority that is made here.

use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::options;
use super::peer::Peer;
use crate::MssqlBackend;
use crate::options::Encrypt;

/// An authority's certificate (PEM), and a server that has one of it for the host `scripted`.
fn authority() -> (String, Arc<Peer>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["scripted".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], private)
        .unwrap();
    (certificate.pem(), Peer::with_tls(config, []))
}

/// Connects with TLS, trusting this authority.
async fn connect(peer: &Arc<Peer>, authority: Option<&str>, trust: bool) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.tls.mode = Encrypt::Strict;
    options.tls.trust_server_certificate = trust;
    options.tls.ca_file = authority.map(|pem| {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        path
    });
    MssqlBackend::connect_over(options, peer.clone()).await.map(|_| ())
}

#[tokio::test]
async fn the_authority_that_is_named_is_accepted_and_others_are_refused() {
    let (ours, peer) = authority();
    connect(&peer, Some(&ours), false).await.unwrap();
    let (other, _) = authority();
    for named in [Some(other.as_str()), None] {
        let (_, peer) = authority();
        let error = connect(&peer, named, false).await.unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable { .. }), "{error:?}");
        assert!(!error.is_retryable(), "it stays wrong: {error:?}");
        assert!(error.to_string().contains("trust_server_certificate_ca"), "{error}");
        assert_eq!(peer.asked().len(), 0, "nothing was sent to it");
    }
    let (_, peer) = authority();
    connect(&peer, None, true).await.unwrap();
}
