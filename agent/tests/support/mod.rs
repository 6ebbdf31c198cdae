//! A TLS upstream that records every byte it got, and an agent in front of it.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    reason = "test support: each test file uses a part of it"
)]

pub mod daemon;
pub mod office;
pub mod raw_h2;
pub mod store;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::agent::Deps;
use agent::clock::BootClock;
use agent::config::Config;
use lifecycle::drain::Trigger;
use lifecycle::readiness::Readiness;
use prometheus::{Registry, TextEncoder};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The key that no app may see. Long enough that no accident produces it.
pub const KEY: &str = "sk-proj-canary0123456789T3BlbkFJ-never-in-the-app-9876543210";

/// Patience of every wait; only a failing test uses it up.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("within the test's patience")
}

/// One accepted connection of the upstream.
pub struct Conn {
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    wire: Arc<Mutex<Vec<u8>>>,
}

impl Conn {
    /// Reads a head; none when the agent has closed.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|part| part == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads exactly `n` bytes of body.
    pub async fn body(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    /// Reads until `mark` has arrived.
    pub async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(mark.len())
                .position(|part| part == mark)
            {
                return Some(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// What came along with what was read, in the same record.
    pub fn came_along(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether the agent closes without another byte.
    pub async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    pub async fn write(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(n @ 1..) => {
                self.buffer.extend_from_slice(&piece[..n]);
                self.wire.lock().unwrap().extend_from_slice(&piece[..n]);
                true
            }
            _ => false,
        }
    }
}

pub struct Upstream {
    pub port: u16,
    pub ca_file: PathBuf,
    /// All bytes of all connections, in the order of their arrival.
    pub wire: Arc<Mutex<Vec<u8>>>,
    /// Handshakes that ended well.
    pub connections: Arc<std::sync::atomic::AtomicUsize>,
}

impl Upstream {
    /// Serves each connection with `handler`. The certificate is for `names`.
    pub async fn start<F, Fut>(dir: &Path, names: &[&str], handler: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let ca_file = dir.join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).unwrap();

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let upstream = Self {
            port,
            ca_file,
            wire: Arc::clone(&wire),
            connections: Arc::clone(&connections),
        };
        let handler = Arc::new(handler);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, handler, wire) =
                    (acceptor.clone(), Arc::clone(&handler), Arc::clone(&wire));
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        handler(Conn {
                            stream,
                            buffer: Vec::new(),
                            wire,
                        })
                        .await;
                    }
                });
            }
        });
        upstream
    }

    /// Answers every request (with a body by length, or none) with `answer`, for ever.
    pub async fn answering(dir: &Path, answer: &'static str) -> Self {
        Self::start(dir, &["localhost"], move |mut conn| async move {
            while let Some(head) = conn.head().await {
                let length = field(&head, "content-length").map_or(0, |n| n.parse().unwrap());
                if conn.body(length).await.is_none() {
                    return;
                }
                conn.write(answer).await;
            }
        })
        .await
    }

    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.wire.lock().unwrap()).into_owned()
    }
}

pub const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// The value of a header in a head.
pub fn field(head: &str, name: &str) -> Option<String> {
    fields(head, name).into_iter().next()
}

pub fn fields(head: &str, name: &str) -> Vec<String> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// A running agent whose three providers go to one upstream with a key from a file.
pub struct Running {
    pub addr: std::net::SocketAddr,
    /// Where it listens with TLS, if its configuration says so.
    pub tls_addr: Option<std::net::SocketAddr>,
    pub drain: Trigger,
    pub registry: Registry,
    pub readiness: Readiness,
    pub served: tokio::task::JoinHandle<()>,
    /// As SIGHUP does.
    pub reload: mpsc::Sender<()>,
}

pub fn config(dir: &TempDir, upstream: &Upstream) -> String {
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, KEY).unwrap();
    let mut text = String::from("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
    for provider in ["openai", "anthropic", "gemini"] {
        text += &format!(
            "[providers.{provider}]\nbase_url = \"https://localhost:{}\"\nca_file = {:?}\nsecret_key_ref = {{ file = {key_file:?} }}\n",
            upstream.port, upstream.ca_file
        );
    }
    text
}

impl Running {
    pub async fn start(dir: &TempDir, upstream: &Upstream) -> Self {
        Self::from_text(&config(dir, upstream)).await
    }

    pub async fn from_text(text: &str) -> Self {
        Self::build(text, None).await
    }

    /// An agent that reads `file` again when it is told to.
    pub async fn from_file(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        Self::build(&text, Some(file.to_owned())).await
    }

    async fn build(text: &str, config_path: Option<PathBuf>) -> Self {
        let config = Config::parse(text, &mut |_| None).unwrap();
        let (drain, registry) = (Trigger::new(), Registry::new());
        let deps = Deps {
            clock: Arc::new(BootClock),
            drain: drain.clone(),
            registry: registry.clone(),
            config_path,
            confined: None,
        };
        let agent = config.build(deps).await.unwrap();
        let (addr, tls_addr) = (agent.addr(), agent.tls_addr());
        let readiness = agent.readiness().clone();
        let (reload, reloads) = mpsc::channel(1);
        let served = tokio::spawn(agent.serve(reloads));
        Self {
            addr,
            tls_addr,
            drain,
            registry,
            readiness,
            served,
            reload,
        }
    }

    /// A value of a metric, such as `name{label="x"}`; zero if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let value = self.metrics().lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.trim().parse().ok()
        });
        value.unwrap_or(0)
    }

    pub async fn connect(&self) -> App {
        App::new(TcpStream::connect(self.addr).await.unwrap())
    }

    pub fn metrics(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }

    /// Sends one head on a new connection and reads the whole response, whose body must be framed by length.
    pub async fn ask(&self, request: &str) -> (String, String) {
        let mut app = self.connect().await;
        app.send(request).await;
        patient(app.response()).await
    }
}

/// The app's side of a connection.
pub struct App {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl App {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn response(&mut self) -> (String, String) {
        let head = self.until(b"\r\n\r\n").await.expect("a response head");
        let head = String::from_utf8(head).unwrap();
        let length = field(&head, "content-length").map_or(0, |n| n.parse().unwrap());
        let body = self.exactly(length).await;
        (head, String::from_utf8(body).unwrap())
    }

    /// What came along with what was read, in the same packet.
    pub fn came_along(&self) -> &[u8] {
        &self.buffer
    }

    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            assert!(self.more().await, "the connection ended within a body");
        }
        self.buffer.drain(..n).collect()
    }

    pub async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(mark.len())
                .position(|part| part == mark)
            {
                return Some(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Everything until the agent closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(n @ 1..) => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
            _ => false,
        }
    }
}

/// The status line's number.
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}
