//! Leases are kept for their time, refreshed once however many ask, and dropped the moment they are revoked.
//!
//! A lease is refreshed in the background at four fifths of its life, so that a request meets the HSM only after a pause. It is kept until it
//! expires, not until a refresh fails: a short HSM outage must not become an outage of the app. Past its end it is used only within
//! `offline_grace`, and only while the daemon is *unreachable*: a daemon that says no has said no.
//!
//! What each daemon says of a key ([`Word`]) is remembered beside the lease: a grant that was on its way meanwhile, and that a word forbids, is
//! neither kept nor used, however late it arrives. A version that one daemon revokes is used no more, whoever granted it.

mod entry;
mod refresh;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custody::KeyId;
use tokio::sync::watch;

use super::{KeySource, Lease, Leasing, Wanted};
use crate::clock::Clock;
use crate::respond::{Code, Refusal};
use entry::{Entry, Held, Look};
pub use word::Word;

/// How long after a failed refresh the next one waits. A dead daemon is asked once a second per key, not once per request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A cache around another source. Clones share it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
    /// In milliseconds; zero: nothing is kept, every request is a grant.
    ttl_ms: AtomicU64,
    /// One entry per route; those of routes that are gone leave with the sweep.
    entries: Mutex<HashMap<Wanted, Arc<Entry>>>,
    /// Versions that each daemon says are revoked, by key. It is heard before anybody asks for the key, and holds for the grants of all.
    revoked: Mutex<HashMap<KeyId, BTreeMap<usize, Vec<u32>>>>,
    /// Ticks when a version begins or ceases to be held.
    changes: watch::Sender<()>,
}

impl Cache {
    /// A cache that keeps leases for at most `ttl`.
    pub fn new(source: Arc<dyn KeySource>, clock: Arc<dyn Clock>, ttl: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                clock,
                ttl_ms: AtomicU64::new(ms(ttl)),
                entries: Mutex::default(),
                revoked: Mutex::default(),
                changes: watch::Sender::new(()),
            }),
        }
    }

    /// Ticks whenever a version begins or ceases to be held.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// Lets go of everything that is held, and keeps leases for at most `ttl` from now on.
    pub fn begin_anew(&self, ttl: Duration) {
        // First the number: a grant that comes in between is kept by it, or dropped below.
        self.inner.ttl_ms.store(ms(ttl), Ordering::SeqCst);
        self.inner.drop_where(|_| true);
    }

    /// Gets a lease in advance, or one of a newer version; what is held stays until the new one is there.
    pub async fn prefetch(&self, wanted: &Wanted) -> Result<(), Refusal> {
        if self.inner.ttl().is_zero() {
            return Ok(());
        }
        let entry = self.inner.entry(wanted);
        let _refreshing = entry.refreshing.lock().await;
        self.inner.refresh(&entry, wanted).await.map(drop)
    }

    /// Takes a daemon at its word: ends what it forbids at once, and remembers it for grants that are on their way. What was held and ended.
    pub fn hear(&self, key_id: &KeyId, word: &Word) -> Vec<Wanted> {
        self.inner.remember_revoked(key_id, word);
        let mut ended = Vec::new();
        for (wanted, entry) in self.inner.entries_of(key_id) {
            let mut state = entry.lock();
            state.words.hear(word);
            if state
                .held
                .as_ref()
                .is_some_and(|held| !word.keeps(&held.lease))
            {
                state.held = None;
                ended.push(wanted);
            }
        }
        if !ended.is_empty() {
            self.inner.changes.send_replace(());
        }
        ended
    }

    /// Whether the key was ever asked for, as far as is remembered.
    pub fn knows(&self, key_id: &KeyId) -> bool {
        self.inner
            .lock()
            .keys()
            .any(|wanted| wanted.key_id == *key_id)
    }

    /// Ends leases with shares of this daemon, of keys for which `keep` is false: it says, at this revision, that they are not for us.
    pub fn retain(&self, (source, revision): (usize, u64), keep: impl Fn(&KeyId) -> bool) {
        let ids: Vec<KeyId> = self
            .inner
            .lock()
            .keys()
            .map(|wanted| wanted.key_id.clone())
            .collect();
        for id in ids.iter().filter(|id| !keep(id)) {
            let word = Word {
                source,
                revision,
                usable: false,
                ..Word::default()
            };
            self.hear(id, &word);
        }
    }

    /// What is held of the key in another version than `current`.
    pub fn behind(&self, key_id: &KeyId, current: u32) -> Vec<Wanted> {
        let entries = self.inner.lock();
        let behind = entries.iter().filter(|(wanted, entry)| {
            wanted.key_id == *key_id
                && entry
                    .lock()
                    .held
                    .as_ref()
                    .is_some_and(|held| held.lease.version != current)
        });
        behind.map(|(wanted, _)| wanted.clone()).collect()
    }

    /// The versions held now, expired ones left out.
    pub fn in_use(&self) -> Vec<(KeyId, u32)> {
        let now = self.inner.clock.now();
        let entries: Vec<Arc<Entry>> = self.inner.lock().values().cloned().collect();
        let mut list: Vec<(KeyId, u32)> = entries
            .iter()
            .filter_map(|entry| entry.lock().held.clone())
            .filter(|held| now < held.grace_until.max(held.expires_at))
            .map(|held| (held.lease.key_id.clone(), held.lease.version))
            .collect();
        list.sort();
        list.dedup();
        list
    }

    /// Drops leases that are past their grace, so that a key that nobody uses any more does not stay in memory.
    pub fn sweep(&self) {
        let now = self.inner.clock.now();
        self.inner.drop_where(|held| now >= held.grace_until);
        // An entry that nobody holds has no grant on its way. What was said of revoked versions stays, for grants of other daemons.
        self.inner
            .lock()
            .retain(|_, entry| Arc::strong_count(entry) > 1 || entry.lock().held.is_some());
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl KeySource for Cache {
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a> {
        // Nearly always it is here: then nothing is made that could wait.
        match self.inner.at_hand(wanted) {
            Some(lease) => Box::pin(std::future::ready(Ok(lease))),
            None => Box::pin(self.inner.lease(wanted)),
        }
    }
}

impl Inner {
    /// A lease that is held and needs no refresh.
    fn at_hand(&self, wanted: &Wanted) -> Option<Arc<Lease>> {
        if self.ttl().is_zero() {
            return None;
        }
        let entry = self.lock().get(wanted).cloned()?;
        match self.look(&entry) {
            Look::Fresh(lease) => Some(lease),
            Look::Stale(_) | Look::Nothing { .. } => None,
        }
    }

    async fn lease(self: &Arc<Self>, wanted: &Wanted) -> Result<Arc<Lease>, Refusal> {
        let entry = self.entry(wanted);
        if self.ttl().is_zero() {
            return self.grant_once(&entry, wanted).await;
        }
        let attempts = match self.look(&entry) {
            Look::Fresh(lease) => return Ok(lease),
            Look::Stale(lease) => {
                self.refresh_behind(&entry, wanted);
                return Ok(lease);
            }
            Look::Nothing { attempts } => attempts,
        };
        let _refreshing = entry.refreshing.lock().await;
        // Whoever was before us may have answered our question too, with a lease or with a failure.
        match self.look(&entry) {
            Look::Fresh(lease) | Look::Stale(lease) => return Ok(lease),
            Look::Nothing { attempts: now } if now != attempts => {
                // In a statement of its own: the guard must be gone before `grace` takes it again.
                let failure = entry.lock().failure;
                if let Some((_, refusal)) = failure {
                    return self.grace(&entry, refusal);
                }
            }
            Look::Nothing { .. } => {}
        }
        if let Some(lease) = self.waits_for_retry(&entry) {
            return Ok(lease);
        }
        match self.refresh(&entry, wanted).await {
            Ok(lease) => Ok(lease),
            Err(refusal) => self.grace(&entry, refusal),
        }
    }

    /// A lease that may still be used although the daemon cannot be asked.
    fn grace(&self, entry: &Entry, refusal: Refusal) -> Result<Arc<Lease>, Refusal> {
        let now = self.clock.now();
        match &entry.lock().held {
            Some(held) if refusal.code == Code::HsmUnavailable && now < held.grace_until => {
                Ok(Arc::clone(&held.lease))
            }
            _ => Err(refusal),
        }
    }

    /// While a lease can still be used and the last refresh failed a moment ago: that lease.
    fn waits_for_retry(&self, entry: &Entry) -> Option<Arc<Lease>> {
        let now = self.clock.now();
        let state = entry.lock();
        let (failed_at, _) = state.failure?;
        let held = state.held.as_ref()?;
        (now < failed_at.saturating_add(RETRY_AFTER) && now < held.grace_until)
            .then(|| Arc::clone(&held.lease))
    }

    fn look(&self, entry: &Entry) -> Look {
        let now = self.clock.now();
        let state = entry.lock();
        match &state.held {
            Some(held) if now < held.refresh_at => Look::Fresh(Arc::clone(&held.lease)),
            Some(held) if now < held.expires_at => Look::Stale(Arc::clone(&held.lease)),
            _ => Look::Nothing {
                attempts: state.attempts,
            },
        }
    }

    /// Before the leases are looked at: whoever puts one down looks here while it has the entry. A daemon that leaves a key out of its snapshot
    /// has not taken back what it revoked.
    fn remember_revoked(&self, key_id: &KeyId, word: &Word) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if !word.revoked.is_empty() {
            let by_daemon = revoked.entry(key_id.clone()).or_default();
            by_daemon.insert(word.source, word.revoked.clone());
        }
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.load(Ordering::SeqCst))
    }

    fn drop_where(&self, drops: impl Fn(&Held) -> bool) {
        let entries: Vec<Arc<Entry>> = self.lock().values().cloned().collect();
        let mut dropped = false;
        for entry in entries {
            let mut state = entry.lock();
            if state.held.as_ref().is_some_and(&drops) {
                state.held = None;
                dropped = true;
            }
        }
        if dropped {
            self.changes.send_replace(());
        }
    }

    fn entry(&self, wanted: &Wanted) -> Arc<Entry> {
        let mut entries = self.lock();
        match entries.get(wanted) {
            Some(entry) => Arc::clone(entry),
            None => Arc::clone(entries.entry(wanted.clone()).or_default()),
        }
    }

    fn entries_of(&self, key_id: &KeyId) -> Vec<(Wanted, Arc<Entry>)> {
        let entries = self.lock();
        entries
            .iter()
            .filter(|(wanted, _)| wanted.key_id == *key_id)
            .map(|(wanted, entry)| (wanted.clone(), Arc::clone(entry)))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Wanted, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
