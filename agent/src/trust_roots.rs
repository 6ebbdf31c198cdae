//! Trust roots for TLS to the providers: the system's, read from its well-known places, and what the configuration adds.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` are not looked at: whoever can set a variable of the agent's environment must not be able to name the
//! certificate authority that vouches for the provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Where distributions keep their bundle: Debian, Fedora and RHEL, SUSE, Alpine and FreeBSD.
pub(crate) const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// `ca_file` cannot be used.
    #[error("cannot read certificates from ca_file {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// `ca_file` is readable and has nothing in it that could be trusted.
    #[error("ca_file {path} contains no usable PEM certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Neither the system nor the configuration has any root.
    #[error(
        "no trust roots: install the system's CA bundle (Debian: ca-certificates) or set ca_file"
    )]
    None,
    /// The TLS library refused our own settings.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// The system's roots, read once per configuration.
pub fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for bundle in BUNDLES {
        let found = rustls_native_certs::load_certs_from_paths(Some(Path::new(bundle)), None);
        if !found.certs.is_empty() {
            roots.add_parsable_certificates(found.certs);
            break;
        }
    }
    roots
}

/// A client configuration: HTTP/1.1 over TLS 1.2 or 1.3, verified against `system` and the certificates in `ca_file`.
pub fn client_config(
    mut roots: RootCertStore,
    ca_file: Option<&Path>,
) -> Result<Arc<ClientConfig>, RootsError> {
    if let Some(path) = ca_file {
        let at = |source| RootsError::CaFile {
            path: path.to_owned(),
            source,
        };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .map_err(at)?
            .collect::<Result<_, _>>()
            .map_err(at)?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(RootsError::Empty {
                path: path.to_owned(),
            });
        }
    }
    if roots.is_empty() {
        return Err(RootsError::None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Early data could be replayed.
    config.enable_early_data = false;
    Ok(Arc::new(config))
}
