//! What is kept for one route: the lease that is held, how the last refresh ended, and the last word about the key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::word::Words;
use crate::keys::Lease;
use crate::respond::Refusal;

#[derive(Default)]
pub(super) struct Entry {
    pub(super) state: Mutex<State>,
    /// Held by whoever refreshes; the others wait here and then take its result.
    pub(super) refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// How often a refresh ended, and when and how the last failed one did.
    pub(super) attempts: u64,
    pub(super) failure: Option<(Duration, Refusal)>,
    /// The last that each daemon said about the key. Grants that it forbids crossed with it on the way.
    pub(super) words: Words,
}

#[derive(Clone)]
pub(super) struct Held {
    pub(super) lease: Arc<Lease>,
    pub(super) refresh_at: Duration,
    pub(super) expires_at: Duration,
    pub(super) grace_until: Duration,
}

impl Entry {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often something was heard of the key until now.
    pub(super) fn heard(&self) -> u64 {
        self.lock().words.heard()
    }
}

/// What a glance at an entry shows.
pub(super) enum Look {
    Fresh(Arc<Lease>),
    Stale(Arc<Lease>),
    Nothing { attempts: u64 },
}
