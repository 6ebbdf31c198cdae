//! `[tls]`: the second listener, for SDKs that insist on `https://` and `wss://`.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustls_pki_types::ServerName;

use super::reader::Fields;

/// Where apps that insist on TLS reach the agent unless the file says otherwise.
const LISTEN: &str = "127.0.0.1:4143";
/// Where the agent leaves its certificate authority for them: a directory of its own, which a pod shares with its apps read-only.
const CA_FILE: &str = "/run/tacit-agent/ca.pem";

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where apps connect with TLS.
    pub listen: SocketAddr,
    /// The file that the agent writes its CA certificate to.
    pub ca_file: PathBuf,
}

impl Tls {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let listen = fields.parse("listen", LISTEN, "must be ADDRESS:PORT");
        let ca_file = PathBuf::from(fields.text("ca_file").unwrap_or_else(|| CA_FILE.to_owned()));
        if !ca_file.is_absolute() || ca_file.file_name().is_none() {
            fields.refuse("ca_file", "must be the absolute path of a file to write");
            return None;
        }
        Some(Self {
            listen: listen?,
            ca_file,
        })
    }
}

/// Whether a certificate can be made out to every one of these names.
pub(super) fn certifiable(hosts: &[String]) -> bool {
    hosts
        .iter()
        .all(|host| ServerName::try_from(host.as_str()).is_ok())
}
