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
    /// Output tokens, those of reasoning included.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache.
    pub cache_write: u64,
    /// How many of the output tokens were spent on reasoning.
    pub reasoning: u64,
}

impl Tokens {
    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Tokens) -> Tokens {
        Tokens {
            input: self.input - before.input,
            output: self.output - before.output,
            cache_read: self.cache_read - before.cache_read,
            cache_write: self.cache_write - before.cache_write,
            reasoning: self.reasoning - before.reasoning,
        }
    }

    fn add(&mut self, other: Tokens) {
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write += other.cache_write;
        self.reasoning += other.reasoning;
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Served to its end.
    Complete,
    /// The client left before the end.
    Cancelled,
    /// Refused, or broken off by the provider.
    Failed,
}

/// Calls of one outcome and what they really cost: a provider bills what it wrote, read or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there were.
    pub calls: u64,
    /// Their tokens.
    pub tokens: Tokens,
}

impl Tally {
    fn since(&self, before: &Tally) -> Tally {
        Tally {
            calls: self.calls - before.calls,
            tokens: self.tokens.since(&before.tokens),
        }
    }
}

/// What was really served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Calls that came to their end.
    pub complete: Tally,
    /// Calls that the client left.
    pub cancelled: Tally,
    /// Calls that were refused or broke off.
    pub failed: Tally,
}

impl Served {
    /// The tokens of all calls, whatever became of them.
    pub fn tokens(&self) -> Tokens {
        let mut sum = self.complete.tokens;
        sum.add(self.cancelled.tokens);
        sum.add(self.failed.tokens);
        sum
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Served) -> Served {
        Served {
            complete: self.complete.since(&before.complete),
            cancelled: self.cancelled.since(&before.cancelled),
            failed: self.failed.since(&before.failed),
        }
    }

    fn add(&mut self, outcome: Outcome, tokens: Tokens) {
        let tally = match outcome {
            Outcome::Complete => &mut self.complete,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Failed => &mut self.failed,
        };
        tally.calls += 1;
        tally.tokens.add(tokens);
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Everything remembered.
pub(super) struct Record {
    requests: Mutex<Vec<Seen>>,
    served: Mutex<HashMap<Provider, Served>>,
    connections: Mutex<Vec<Bytes>>,
    wire_file: Option<Arc<Mutex<File>>>,
    requests_file: Option<Mutex<File>>,
}

impl Record {
    pub fn open(wire: Option<&Path>, requests: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Record {
            requests: Mutex::default(),
            served: Mutex::default(),
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

    /// The key was found where it must not be, after the last request had been taken for good.
    pub fn leaked(&self, provider: Provider) {
        let mut requests = lock(&self.requests);
        if let Some(seen) = requests.iter_mut().rfind(|seen| seen.provider == provider) {
            seen.refused = Some("the key stands in a frame".to_owned());
        }
    }

    /// A call has ended like this, at this price.
    pub fn settle(&self, provider: Provider, outcome: Outcome, tokens: Tokens) {
        lock(&self.served)
            .entry(provider)
            .or_default()
            .add(outcome, tokens);
    }

    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.requests).clone()
    }

    pub fn served(&self, provider: Provider) -> Served {
        lock(&self.served)
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
