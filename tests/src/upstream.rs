//! A provider for tests, any of fifteen, behind TLS on loopback.
//!
//! It does what a real provider cannot be asked to do: it accepts only the real key, in the slot
//! where the provider wants it, exactly once in the whole request and with no second credential
//! beside it; it keeps every byte that it received; and it counts the tokens that it "really" served,
//! to compare with what others metered. It never helps a request that the real provider would refuse.

mod anthropic;
mod bedrock;
mod chat;
mod cohere;
mod credential;
mod eventstream;
mod flavour;
mod fleet;
mod form;
mod gemini;
mod live;
mod openai;
mod provider;
mod realtime;
mod record;
mod reply;
mod responses;
mod serve;
mod tls;
mod turn;
mod upload;
mod websocket;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use fleet::Fleet;
pub use provider::Provider;
pub use record::{Seen, Served, Tally, Tokens};
pub use tls::Authority;

/// Where a key may stand. Several providers take it in more than one place; an agent that injects has to choose one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slots {
    /// Only the slot that the agent is expected to write: `x-api-key` for Anthropic, `api-key` for Azure.
    #[default]
    Canonical,
    /// Also the slots that the provider itself takes: `Authorization: Bearer` for those two, `?key=` for Gemini,
    /// a subprotocol for OpenAI.
    AsTheProvider,
}

/// How the next requests are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As the provider would.
    #[default]
    Normal,
    /// The provider's own "bad key" answer, whatever key arrived.
    KeyRejected,
    /// Streams break off, without an end, after this many events.
    CutStreamAfter(usize),
    /// The provider's own error body for this status (429, 500, 529 …).
    Status(u16),
}

/// Where a valid key comes from: fixed by a test, or a file that is read again at every request.
#[derive(Clone)]
enum KeySource {
    Fixed(Vec<u8>),
    File(PathBuf),
}

/// What the acceptor, the connections and the test share.
struct Shared {
    keys: Mutex<HashMap<Provider, Vec<KeySource>>>,
    /// The one provider that this is; `None` for those that are told apart.
    alone: Option<Provider>,
    mode: Mutex<Mode>,
    slots: Slots,
    /// True while streams may run past their first event.
    gate: watch::Sender<bool>,
    /// How many streams stand at the closed gate.
    waiting: watch::Sender<usize>,
    record: record::Record,
}

impl Shared {
    fn mode(&self) -> Mode {
        *lock(&self.mode)
    }

    /// The keys that `provider` accepts now. A file that cannot be read is no key.
    fn keys(&self, provider: Provider) -> Vec<Vec<u8>> {
        let keys = lock(&self.keys);
        let sources = keys.get(&provider).map(Vec::as_slice).unwrap_or_default();
        sources.iter().filter_map(KeySource::read).collect()
    }
}

impl KeySource {
    fn read(&self) -> Option<Vec<u8>> {
        match self {
            KeySource::Fixed(key) => Some(key.clone()),
            KeySource::File(path) => {
                let key = std::fs::read(path).ok()?.trim_ascii().to_vec();
                (!key.is_empty()).then_some(key)
            }
        }
    }
}

/// A poisoned lock means that another test thread already panicked; its data is still the best report.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A running provider. Dropping it closes the listener and every connection.
pub struct Upstream {
    address: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
    acceptor: tokio::task::JoinHandle<()>,
}

/// What a provider is started with.
#[derive(Default)]
pub struct Options {
    keys: Vec<(Provider, KeySource)>,
    alone: Option<Provider>,
    slots: Slots,
    wire_file: Option<PathBuf>,
    requests_file: Option<PathBuf>,
    authority: Option<Authority>,
}

impl Options {
    /// Accepts `key` for `provider`; may be said several times.
    #[must_use]
    pub fn key(mut self, provider: Provider, key: impl Into<Vec<u8>>) -> Self {
        self.keys.push((provider, KeySource::Fixed(key.into())));
        self
    }

    /// Accepts for `provider` whatever key the file holds when a request comes.
    #[must_use]
    pub fn key_file(mut self, provider: Provider, path: impl Into<PathBuf>) -> Self {
        self.keys.push((provider, KeySource::File(path.into())));
        self
    }

    /// Is `provider` for every request. Without this the three of `Provider::SHARED` are told apart.
    #[must_use]
    pub fn alone(mut self, provider: Provider) -> Self {
        self.alone = Some(provider);
        self
    }

    /// Which slots count as right.
    #[must_use]
    pub fn slots(mut self, slots: Slots) -> Self {
        self.slots = slots;
        self
    }

    /// Appends every received byte to this file too.
    #[must_use]
    pub fn wire_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.wire_file = Some(path.into());
        self
    }

    /// Appends one JSON line per request to this file (never with the credential).
    #[must_use]
    pub fn requests_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.requests_file = Some(path.into());
        self
    }

    /// Uses this authority, so that several providers share one `ca.pem`.
    #[must_use]
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }
}

impl Upstream {
    /// Starts a provider on a free port of loopback.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_on("127.0.0.1:0", options).await
    }

    /// Starts a provider on `listen`.
    pub async fn start_on(listen: &str, options: Options) -> anyhow::Result<Self> {
        let authority = match options.authority {
            Some(authority) => authority,
            None => Authority::new()?,
        };
        let tls = authority.server()?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let mut keys: HashMap<Provider, Vec<KeySource>> = HashMap::new();
        for (provider, source) in options.keys {
            keys.entry(provider).or_default().push(source);
        }
        let shared = Arc::new(Shared {
            keys: Mutex::new(keys),
            alone: options.alone,
            mode: Mutex::default(),
            slots: options.slots,
            gate: watch::Sender::new(true),
            waiting: watch::Sender::new(0),
            record: record::Record::open(
                options.wire_file.as_deref(),
                options.requests_file.as_deref(),
            )?,
        });
        let acceptor = tokio::spawn(serve::accept(listener, tls, Arc::clone(&shared)));
        Ok(Upstream {
            address,
            authority,
            shared,
            acceptor,
        })
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate that clients must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// Writes the certificate to `path`.
    pub fn write_ca(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.ca_pem())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// From now on `provider` accepts `key` too (the successor in a rotation).
    pub fn accept_key(&self, provider: Provider, key: impl Into<Vec<u8>>) {
        lock(&self.shared.keys)
            .entry(provider)
            .or_default()
            .push(KeySource::Fixed(key.into()));
    }

    /// From now on `provider` refuses `key`.
    pub fn refuse_key(&self, provider: Provider, key: &[u8]) {
        if let Some(sources) = lock(&self.shared.keys).get_mut(&provider) {
            sources.retain(|source| source.read().as_deref() != Some(key));
        }
    }

    /// How the next requests are answered.
    pub fn set_mode(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
    }

    /// Streams that start now stop after their first event, until `release_streams`.
    pub fn hold_streams(&self) {
        self.shared.gate.send_replace(false);
    }

    /// Lets all streams run.
    pub fn release_streams(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Returns when `count` streams have sent their first event and stand at the closed gate.
    pub async fn streams_held(&self, count: usize) {
        let mut waiting = self.shared.waiting.subscribe();
        // The sender lives in `self.shared`, so the wait cannot fail while we are borrowed.
        let _ = waiting.wait_for(|now| *now >= count).await;
    }

    /// How many requests were read whole, refused ones included.
    pub fn request_count(&self) -> usize {
        self.shared.record.requests().len()
    }

    /// Every request in order: what it was and what became of it.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.record.requests()
    }

    /// The last request to `path` (without query).
    pub fn last_request(&self, path: &str) -> Option<Seen> {
        self.shared
            .record
            .requests()
            .into_iter()
            .rfind(|seen| seen.path == path)
    }

    /// The tokens that were really served for `provider`, whatever became of the calls.
    pub fn tokens(&self, provider: Provider) -> Tokens {
        self.served(provider).tokens()
    }

    /// What was really served for `provider`, by what became of the calls.
    pub fn served(&self, provider: Provider) -> Served {
        self.shared.record.served(provider)
    }

    /// Every byte that was received, one entry per connection, in order of acceptance.
    pub fn wire(&self) -> Vec<Vec<u8>> {
        self.shared.record.wire()
    }

    /// How many connections were accepted and finished their handshake.
    pub fn connection_count(&self) -> usize {
        self.shared.record.wire().len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
