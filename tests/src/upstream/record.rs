//! What the provider remembers: raw bytes per connection, a line per request, tokens served.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::json;

use super::{Provider, lock};

/// One request, as the provider saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which API it was taken for.
    pub provider: Provider,
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, if any.
    pub query: Option<String>,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Why the credential was refused; `None` when it was right.
    pub refused: Option<String>,
    /// The status that was answered.
    pub status: u16,
}

impl Seen {
    /// The values of all headers of this name.
    pub fn header(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(have, _)| have == name)
            .map(|(_, value)| value.as_slice())
            .collect()
    }
}

/// Tokens by the provider's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input tokens that were neither read from nor written to a cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache.
    pub cache_write: u64,
}

impl Tokens {
    pub(super) fn add(&mut self, other: Tokens) {
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write += other.cache_write;
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Everything remembered.
pub(super) struct Record {
    requests: Mutex<Vec<Seen>>,
    tokens: Mutex<HashMap<Provider, Tokens>>,
    connections: Mutex<Vec<Bytes>>,
    wire_file: Option<Arc<Mutex<File>>>,
    requests_file: Option<Mutex<File>>,
}

impl Record {
    pub fn open(wire: Option<&Path>, requests: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Record {
            requests: Mutex::default(),
            tokens: Mutex::default(),
            connections: Mutex::default(),
            wire_file: wire
                .map(append)
                .transpose()?
                .map(|file| Arc::new(Mutex::new(file))),
            requests_file: requests.map(append).transpose()?.map(Mutex::new),
        })
    }

    /// A tape for a new connection.
    pub fn tape(&self) -> Tape {
        let bytes = Bytes::default();
        lock(&self.connections).push(Arc::clone(&bytes));
        Tape {
            bytes,
            file: self.wire_file.clone(),
        }
    }

    pub fn request(&self, seen: Seen) {
        if let Some(file) = &self.requests_file {
            let line = json!({
                "provider": seen.provider.name(), "method": seen.method, "path": seen.path,
                "accepted": seen.refused.is_none(), "refused": seen.refused, "status": seen.status,
            });
            // A full disk must not look like a refused request; the in-memory record stays complete.
            let _ = writeln!(lock(file), "{line}");
        }
        lock(&self.requests).push(seen);
    }

    pub fn served(&self, provider: Provider, tokens: Tokens) {
        lock(&self.tokens).entry(provider).or_default().add(tokens);
    }

    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.requests).clone()
    }

    pub fn tokens(&self, provider: Provider) -> Tokens {
        lock(&self.tokens)
            .get(&provider)
            .copied()
            .unwrap_or_default()
    }

    pub fn wire(&self) -> Vec<Vec<u8>> {
        lock(&self.connections)
            .iter()
            .map(|bytes| lock(bytes).clone())
            .collect()
    }
}

fn append(path: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Keeps what one connection receives.
pub(super) struct Tape {
    bytes: Bytes,
    file: Option<Arc<Mutex<File>>>,
}

impl Tape {
    pub fn add(&mut self, bytes: &[u8]) {
        lock(&self.bytes).extend_from_slice(bytes);
        if let Some(file) = &self.file {
            let _ = lock(file).write_all(bytes);
        }
    }
}
