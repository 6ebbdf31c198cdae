//! Certificates: good ones, and each kind that must not be believed.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// What a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by the authority that the agent trusts, for the names that it is called by.
    Good,
    /// Signed well, for somebody else.
    OtherName,
    /// Signed well, no longer valid.
    Expired,
    /// Signed well, not yet valid.
    Future,
    /// For the right name, signed by an authority of its own.
    UnknownAuthority,
    /// For the right name, signed by nobody but itself.
    SelfSigned,
}

/// Names that a good certificate is for: those in agent configurations of this suite.
pub const NAMES: [&str; 4] = [
    "localhost",
    "127.0.0.1",
    "rebound.example",
    "rebound-again.example",
];

/// One certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let key = KeyPair::generate().expect("a key pair can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params
            .self_signed(&key)
            .expect("an authority can sign itself");
        Authority {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }
}

impl Authority {
    /// What the agent trusts, as `ca_file`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A TLS server end that shows this kind of certificate.
    pub fn server(&self, kind: Certificate) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key pair can be made");
        let names = match kind {
            Certificate::OtherName => vec!["attacker.example".to_owned()],
            _ => NAMES.map(str::to_owned).to_vec(),
        };
        let mut params = CertificateParams::new(names).expect("our names are valid");
        match kind {
            Certificate::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Certificate::Future => params.not_before = date_time_ymd(4000, 1, 1),
            _ => {}
        }
        let stranger = Authority::default;
        let certificate = match kind {
            Certificate::SelfSigned => params.self_signed(&key),
            Certificate::UnknownAuthority => params.signed_by(&key, &stranger().issuer),
            _ => params.signed_by(&key, &self.issuer),
        }
        .expect("a certificate can be signed");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("certificate and key belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
