//! TLS for apps whose SDK insists on `https://` or `wss://`: a listener with a certificate of our own, and the file that makes apps trust it.
//!
//! The file holds the authority's certificate and nothing secret. It is written only after every address is bound, so that a second agent
//! started by mistake does not replace what the apps of the first one trust, and in one step, so that an app reads all of it or the old one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Authority, AuthorityError};
use crate::metrics::{Handshake, Metrics};

/// A handshake on loopback takes a millisecond; an app that is being debugged, some seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What an app may speak, by our preference; without ALPN it is HTTP/1.1.
const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// The server side of TLS for apps.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// TLS 1.2 or 1.3 with certificates of `authority`.
    ///
    /// # Errors
    /// The TLS library refused our own settings.
    pub fn new(authority: Authority) -> Result<Self, AuthorityError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(authority));
        config.alpn_protocols = vec![H2.to_vec(), HTTP11.to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Shakes hands; nothing if that fails, which is the app's to notice: most often it does not trust the authority's certificate.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        metrics: &Metrics,
    ) -> Option<TlsStream<TcpStream>> {
        match timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                metrics.handshake(Handshake::Ok);
                Some(stream)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake with an app failed");
                metrics.handshake(Handshake::Failed);
                None
            }
            Err(_) => {
                metrics.handshake(Handshake::TimedOut);
                None
            }
        }
    }
}

/// Whether the app chose HTTP/2.
pub(super) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

/// Writes `pem` to `file`, readable by every user, by way of a second name in the same directory.
///
/// The second name must not exist: whoever may write to the directory could otherwise make it a link to a file of ours.
///
/// # Errors
/// What the system said; an old file stays then.
pub fn publish(file: &Path, pem: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut opened = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o644)
        .open(&new)?;
    opened.write_all(pem.as_bytes())?;
    // Apps run as other users, whatever the umask of this process is.
    opened.set_permissions(fs::Permissions::from_mode(0o644))?;
    opened.sync_all()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_a_link_in_the_way_is_not_followed() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("ca.pem");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("ca.new")).unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        publish(&file, "one").unwrap();
        publish(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert!(publish(&dir.path().join("none/ca.pem"), "x").is_err());
    }
}
