//! The test authority: a CA and a server certificate, made at run time and kept in memory only.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// A CA of our own and one server identity below it, for `localhost`, `127.0.0.1` and `::1`.
#[derive(Clone)]
pub struct Authority {
    ca_pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// Makes both. The CA's private key is gone when this returns.
    pub fn new() -> anyhow::Result<Self> {
        Self::for_names(&["localhost", "127.0.0.1", "::1"])
    }

    /// The same with other names in the server's certificate (for the story of a wrong host).
    pub fn for_names(names: &[&str]) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate().context("cannot make the test CA's key")?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name
            .push(DnType::CommonName, "Tacit test CA");
        let ca_cert = ca.self_signed(&ca_key).context("cannot sign the test CA")?;

        let key = KeyPair::generate().context("cannot make the test server's key")?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut leaf = CertificateParams::new(names).context("bad name for the test server")?;
        leaf.distinguished_name
            .push(DnType::CommonName, "Tacit test provider");
        // Python's strict verification wants the authority's key identifier in the leaf.
        leaf.use_authority_key_identifier_extension = true;
        let cert = leaf
            .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
            .context("cannot sign the test server")?;

        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Authority {
            ca_pem: ca_cert.pem(),
            server: Arc::new(server),
        })
    }

    /// What clients must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What serves with that identity.
    pub fn server(&self) -> anyhow::Result<TlsAcceptor> {
        Ok(TlsAcceptor::from(Arc::clone(&self.server)))
    }
}
