//! How keys were used, in counts, until the daemon has been told.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::keys::Lease;
use crate::metrics::Outcome;

/// Counts of one key version since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Relayed.
    pub ok: u64,
    /// Refused here.
    pub refused: u64,
    /// Failed at the provider, or canceled by the app.
    pub failed: u64,
    /// The provider refused the key.
    pub credentials_rejected: u64,
    /// Unix time of the last request, in milliseconds.
    pub last_used_ms: u64,
}

/// Which key version was used, and by which route.
pub type Used = (String, u32, String);

/// The counts that wait for the next report. Bounded by key versions × routes.
#[derive(Debug, Default)]
pub struct Usage {
    // A handful, so that looking through them is quicker than to make an owned key for a map.
    counts: Mutex<Vec<(Used, Counts)>>,
    /// Woken when something should be reported soon: a provider refused a key.
    pub urgent: tokio::sync::Notify,
}

impl Usage {
    /// Counts one request.
    pub fn count(&self, lease: &Lease, outcome: Outcome) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.iter().position(|((key_id, version, provider), _)| {
            key_id == lease.key_id.as_str()
                && *version == lease.version
                && *provider == lease.provider
        });
        let at = known.unwrap_or_else(|| {
            let key_id = lease.key_id.to_string();
            let used = (key_id, lease.version, lease.provider.clone());
            counts.push((used, Counts::default()));
            counts.len() - 1
        });
        let (_, entry) = &mut counts[at];
        match outcome {
            Outcome::Ok => entry.ok += 1,
            Outcome::Refused | Outcome::Unleased => entry.refused += 1,
            Outcome::Canceled | Outcome::Failed => entry.failed += 1,
            Outcome::CredentialsRejected => entry.credentials_rejected += 1,
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        entry.last_used_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        drop(counts);
        if outcome == Outcome::CredentialsRejected {
            self.urgent.notify_one();
        }
    }

    /// Takes everything that waits.
    pub fn take(&self) -> Vec<(Used, Counts)> {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be reported.
    pub fn put_back(&self, counts: Vec<(Used, Counts)>) {
        let mut waiting = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (used, more) in counts {
            let Some((_, entry)) = waiting.iter_mut().find(|(other, _)| *other == used) else {
                waiting.push((used, more));
                continue;
            };
            entry.ok += more.ok;
            entry.refused += more.refused;
            entry.failed += more.failed;
            entry.credentials_rejected += more.credentials_rejected;
            entry.last_used_ms = entry.last_used_ms.max(more.last_used_ms);
        }
    }
}
