//! A source of leases for tests, and the handle that scripts it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secret::Arena;
use tokio::sync::Semaphore;

use super::{KeySource, Lease, Leasing, Terms, Wanted};
use crate::respond::Refusal;

/// What the fake answers next: version and revision of a lease, or a refusal.
pub type Answer = Result<(u32, u64), Refusal>;

/// The source. Clones are the same source, so a clone is its own handle.
#[derive(Clone)]
pub struct Fake {
    script: Arc<Mutex<VecDeque<Answer>>>,
    calls: Arc<AtomicUsize>,
    /// A grant takes a permit; without one it hangs.
    gate: Arc<Semaphore>,
    arena: Arena,
    ttl: Duration,
    grace: Duration,
    terms: Arc<Mutex<Arc<Terms>>>,
    sources: Arc<Mutex<Vec<usize>>>,
}

impl Fake {
    /// Leases of this life; the last answer of a script is repeated, version 1 when there is none.
    pub fn new(ttl: Duration, grace: Duration) -> Self {
        Self {
            script: Arc::default(),
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            arena: Arena::new(64 * 1024).expect("a test may lock 64 KiB"),
            ttl,
            grace,
            terms: Arc::new(Mutex::new(Arc::new(Terms::open()))),
            sources: Arc::new(Mutex::new(vec![0])),
        }
    }

    /// Grants with shares of these daemons from now on.
    pub fn set_sources(&self, sources: &[usize]) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources.to_vec();
    }

    fn sources(&self) -> Vec<usize> {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Grants under these terms from now on.
    pub fn set_terms(&self, terms: Terms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }

    /// Adds an answer.
    pub fn then(&self, answer: Answer) {
        self.lock().push_back(answer);
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Lets nothing through until [`Fake::open`].
    pub fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.gate.add_permits(1024);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Answer>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeySource for Fake {
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let answer = {
                let mut script = self.lock();
                match script.len() {
                    0 => Ok((1, 1)),
                    1 => script[0],
                    _ => script.pop_front().expect("two or more: matched above"),
                }
            };
            // As of the moment when it was asked: a grant that is held back is an old one.
            let terms = Arc::clone(&self.terms.lock().unwrap_or_else(PoisonError::into_inner));
            let _permit = self.gate.acquire().await.expect("the gate is never closed");
            let (version, revision) = answer?;
            Ok(Arc::new(Lease {
                key_id: wanted.key_id.clone(),
                version,
                sources: self
                    .sources()
                    .iter()
                    .map(|source| (*source, revision))
                    .collect(),
                provider: wanted.provider.clone(),
                upstreams: Vec::new(),
                ttl: self.ttl,
                offline_grace: self.grace,
                terms,
                secret: self
                    .arena
                    .slot(16)
                    .expect("the arena has room for a test's leases"),
            }))
        })
    }
}
