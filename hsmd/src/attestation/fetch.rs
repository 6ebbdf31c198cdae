//! One HTTP/1.1 exchange with the kubelet or the API server: bounded in time and size, no redirect, no proxy.
//!
//! TLS with the roots that the operator named; plain HTTP to this host alone. A token goes along from a file that is read each time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// One exchange. An agent waits two seconds for its session; both of these servers are a few milliseconds away.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Longest token of our own.
const TOKEN_MAX: u64 = 16 * 1024;

/// Where to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
}

impl Endpoint {
    /// `https://HOST[:PORT][/PATH]`, or `http://` to this host.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let (host, authority) = (uri.host()?, uri.authority()?);
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" if matches!(host, "127.0.0.1" | "[::1]") => false,
            _ => return None,
        };
        if authority.as_str().contains('@') {
            return None;
        }
        Some(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query()?.as_str().to_owned(),
            ca_file: None,
            token_file: None,
        })
    }

    /// The same server, another path.
    pub(super) fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// GET.
    pub(super) async fn get(&self, bytes_max: usize) -> Result<Bytes, String> {
        self.exchange(http::Method::GET, Bytes::new(), bytes_max)
            .await
    }

    /// POST of JSON.
    pub(super) async fn post(&self, json: Bytes, bytes_max: usize) -> Result<Bytes, String> {
        self.exchange(http::Method::POST, json, bytes_max).await
    }

    async fn exchange(
        &self,
        method: http::Method,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, String> {
        let exchange = async {
            let failed =
                |error: &dyn std::fmt::Display| format!("{}:{}: {error}", self.host, self.port);
            let tcp = TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map_err(|error| failed(&error))?;
            if !self.tls {
                return self.speak(tcp, method, body, bytes_max).await;
            }
            let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(&error))?;
            let config = self.tls_config().map_err(|error| failed(&error))?;
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await
                .map_err(|error| failed(&error))?;
            self.speak(stream, method, body, bytes_max).await
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "{}:{}: no answer within {DEADLINE:?}",
                    self.host, self.port
                ))
            })
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: http::Method,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("{}:{}: {error}", self.host, self.port);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(&self.path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("connection", "close");
        if let Some(bearer) = self.bearer().map_err(|error| failed(&error))? {
            request = request.header("authorization", bearer.as_str());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| failed(&error))?;
            let status = response.status();
            if !status.is_success() {
                return Err(failed(&format!("answers {}", status.as_u16())));
            }
            let body = Limited::new(response.into_body(), bytes_max)
                .collect()
                .await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(|error| failed(&error))
        };
        // The connection is driven beside its one exchange, and dropped with it.
        tokio::pin!(connection);
        tokio::pin!(answer);
        let mut open = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = &mut connection, if open => open = false,
            }
        }
    }

    fn bearer(&self) -> io::Result<Option<Zeroizing<String>>> {
        use std::io::Read as _;
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let mut token = Zeroizing::new(String::new());
        std::fs::File::open(path)?
            .take(TOKEN_MAX)
            .read_to_string(&mut token)?;
        Ok(Some(Zeroizing::new(format!("Bearer {}", token.trim_end()))))
    }

    fn tls_config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                let unread = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                for one in CertificateDer::pem_file_iter(path).map_err(|error| unread(&error))? {
                    let one = one.map_err(|error| unread(&error))?;
                    roots.add(one).map_err(|error| unread(&error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn servers_are_asked_over_tls_or_on_this_host() {
        let good = Endpoint::parse("https://kubernetes.default.svc/openid/v1/jwks").unwrap();
        assert_eq!(
            (good.port, good.tls, good.path.as_str()),
            (443, true, "/openid/v1/jwks")
        );
        assert!(!Endpoint::parse("http://127.0.0.1:10255/pods").unwrap().tls);
        assert_eq!(Endpoint::parse("http://[::1]:1/pods").unwrap().host, "::1");
        for bad in [
            "http://10.0.0.1/pods",
            "http://localhost/pods",
            "https://",
            "ftp://x/y",
            "/pods",
            "https://u:p@h/x",
        ] {
            assert!(Endpoint::parse(bad).is_none(), "{bad}");
        }
    }
}
