//! Leases are kept for their time, refreshed once however many ask, and dropped the moment they are revoked.
//!
//! A lease is refreshed in the background at four fifths of its life, so that a request meets the HSM only after a pause. It is kept until it
//! expires, not until a refresh fails: a short HSM outage must not become an outage of the app. Past its end it is used only within
//! `offline_grace`, and only while the daemon is *unreachable*: a daemon that says no has said no.
//!
//! What a daemon says of a key ([`Word`]) is remembered beside the lease: a grant that was on its way meanwhile, and that the word forbids, is
//! neither kept nor used, however late it arrives.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use custody::KeyId;
use tokio::sync::watch;

use super::{KeySource, Lease, Leasing, Wanted};
use crate::clock::Clock;
use crate::respond::{Code, Refusal};

/// How long after a failed refresh the next one waits. A dead daemon is asked once a second per key, not once per request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a grant may take. Tokens answer within milliseconds; a network HSM in trouble must not hold the app for longer.
const LEASE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Ticks when a version begins or ceases to be held.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Held by whoever refreshes; the others wait here and then take its result.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// How often a refresh ended, and when and how the last failed one did.
    attempts: u64,
    failure: Option<(Duration, Refusal)>,
    /// The last that was heard about the key. Grants that it forbids crossed with it on the way.
    word: Word,
}

/// What a daemon says of a key.
#[derive(Clone, Debug)]
pub struct Word {
    /// Which daemon.
    pub source: usize,
    /// Its store's revision: what it granted before that may be outdated.
    pub revision: u64,
    /// Whether this agent may use the key at all.
    pub usable: bool,
    /// Versions that must not be used any more, whichever daemon grants them.
    pub revoked: Vec<u32>,
}

impl Default for Word {
    /// Nothing was heard yet.
    fn default() -> Self {
        Self {
            source: 0,
            revision: 0,
            usable: true,
            revoked: Vec::new(),
        }
    }
}

impl Word {
    /// Whether a lease that is held may go on.
    fn keeps(&self, lease: &Lease) -> bool {
        self.usable && !self.revoked.contains(&lease.version)
    }

    /// Whether a lease that has just come was granted in knowledge of this. Revisions of different daemons cannot be compared: of another
    /// daemon's grants those are refused that this word would have ended.
    fn admits(&self, lease: &Lease) -> bool {
        if lease.source == self.source {
            lease.revision >= self.revision && !self.revoked.contains(&lease.version)
        } else {
            self.keeps(lease)
        }
    }
}

#[derive(Clone)]
struct Held {
    lease: Arc<Lease>,
    refresh_at: Duration,
    expires_at: Duration,
    grace_until: Duration,
}

/// A grant that was overtaken by a revoke or rotation more often than can be chance.
const OVERTAKEN: Refusal = Refusal::new(
    Code::HsmUnavailable,
    "the key is changing right now; try again",
);

impl Cache {
    /// A cache that keeps leases for at most `ttl`.
    pub fn new(source: Arc<dyn KeySource>, clock: Arc<dyn Clock>, ttl: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                clock,
                ttl_ms: AtomicU64::new(ms(ttl)),
                entries: Mutex::default(),
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

    /// Takes a daemon at its word: ends what it forbids at once, and remembers it for grants that are on their way. Whether a lease ended.
    pub fn hear(&self, key_id: &KeyId, word: &Word) -> bool {
        let mut ended = false;
        for entry in self.inner.entries_of(key_id) {
            let mut state = entry.lock();
            state.word = word.clone();
            if state
                .held
                .as_ref()
                .is_some_and(|held| !word.keeps(&held.lease))
            {
                state.held = None;
                ended = true;
            }
        }
        if ended {
            self.inner.changes.send_replace(());
        }
        ended
    }

    /// Ends every lease of keys for which `keep` is false: this daemon says, at this revision, that they are not for us.
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
                revoked: Vec::new(),
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
        self.inner.lock().retain(|_, entry| {
            let state = entry.lock();
            Arc::strong_count(entry) > 1 || state.held.is_some() || !state.word.revoked.is_empty()
        });
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl KeySource for Cache {
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a> {
        Box::pin(self.inner.lease(wanted))
    }
}

impl Inner {
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

    /// One grant from the source, under the deadline.
    async fn grant(&self, wanted: &Wanted) -> Result<Arc<Lease>, Refusal> {
        let late = Refusal::new(
            Code::HsmUnavailable,
            "no lease within 5 s; is hsmd up? see /ready of the agent",
        );
        tokio::time::timeout(LEASE_TIMEOUT, self.source.lease(wanted))
            .await
            .unwrap_or(Err(late))
    }

    /// A grant for one request.
    async fn grant_once(&self, entry: &Entry, wanted: &Wanted) -> Result<Arc<Lease>, Refusal> {
        // Two rounds: a grant that a change overtook is asked for once more.
        for _ in 0..2 {
            let lease = self.grant(wanted).await?;
            if entry.lock().word.admits(&lease) {
                return Ok(lease);
            }
        }
        Err(OVERTAKEN)
    }

    /// Replaces what is held. The caller holds `refreshing`.
    async fn refresh(&self, entry: &Entry, wanted: &Wanted) -> Result<Arc<Lease>, Refusal> {
        // Two rounds, as above.
        for _ in 0..2 {
            let granted = self.grant(wanted).await;
            // The word is looked at and the lease is put down under one lock: whatever is said later finds it there.
            if let Some(result) = self.install(&mut entry.lock(), granted) {
                return result;
            }
        }
        Err(OVERTAKEN)
    }

    /// Puts down what was granted; nothing when it was overtaken.
    fn install(
        &self,
        state: &mut State,
        granted: Result<Arc<Lease>, Refusal>,
    ) -> Option<Result<Arc<Lease>, Refusal>> {
        let now = self.clock.now();
        let before = state.held.as_ref().map(|held| held.lease.version);
        state.attempts += 1;
        let result = match granted {
            Ok(lease) if !state.word.admits(&lease) => {
                state.failure = Some((now, OVERTAKEN));
                None
            }
            Ok(lease) => {
                let ttl = lease.ttl.min(self.ttl());
                let expires_at = now.saturating_add(ttl);
                state.held = (!ttl.is_zero()).then(|| Held {
                    refresh_at: now.saturating_add(ttl / 5 * 4),
                    expires_at,
                    grace_until: expires_at.saturating_add(lease.offline_grace),
                    lease: Arc::clone(&lease),
                });
                state.failure = None;
                Some(Ok(lease))
            }
            Err(refusal) => {
                if refusal.code != Code::HsmUnavailable {
                    state.held = None;
                }
                state.failure = Some((now, refusal));
                Some(Err(refusal))
            }
        };
        if before != state.held.as_ref().map(|held| held.lease.version) {
            self.changes.send_replace(());
        }
        result
    }

    fn refresh_behind(self: &Arc<Self>, entry: &Arc<Entry>, wanted: &Wanted) {
        let (inner, entry, wanted): (Weak<Self>, _, _) =
            (Arc::downgrade(self), Arc::clone(entry), wanted.clone());
        // Bounded: `try_lock` admits one at a time per route, and each has the deadline of a grant.
        tokio::spawn(async move {
            let (Some(inner), Ok(_refreshing)) = (inner.upgrade(), entry.refreshing.try_lock())
            else {
                return;
            };
            if matches!(inner.look(&entry), Look::Stale(_))
                && inner.waits_for_retry(&entry).is_none()
                && let Err(refusal) = inner.refresh(&entry, &wanted).await
            {
                tracing::warn!(key = %wanted.key_id, code = refusal.code.name(), "lease not refreshed");
            }
        });
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

    fn entries_of(&self, key_id: &KeyId) -> Vec<Arc<Entry>> {
        let entries = self.lock();
        entries
            .iter()
            .filter(|(wanted, _)| wanted.key_id == *key_id)
            .map(|(_, entry)| Arc::clone(entry))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Wanted, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look {
    Fresh(Arc<Lease>),
    Stale(Arc<Lease>),
    Nothing { attempts: u64 },
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
