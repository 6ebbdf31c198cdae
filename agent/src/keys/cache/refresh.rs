//! Getting leases: one grant under a deadline, put down in its entry unless a change overtook it.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::entry::{Entry, Held, Look, State};
use super::{Inner, Lease, Wanted};
use crate::respond::{Code, Refusal};

/// How long a grant may take. Tokens answer within milliseconds; a network HSM in trouble must not hold the app for longer.
const LEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A grant that was overtaken by a revoke, a rotation or other terms more often than can be chance.
const OVERTAKEN: Refusal = Refusal::new(
    Code::HsmUnavailable,
    "the key is changing right now; try again",
);

/// A version that daemons still grant, and another one has revoked.
const REVOKED: Refusal = Refusal::new(
    Code::KeyRevoked,
    "the key was revoked; ask your security team",
);

impl Inner {
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
    pub(super) async fn grant_once(
        &self,
        entry: &Entry,
        wanted: &Wanted,
    ) -> Result<Arc<Lease>, Refusal> {
        // Two rounds: a grant that a change overtook is asked for once more.
        let mut refusal = OVERTAKEN;
        for _ in 0..2 {
            let heard = entry.heard();
            let lease = self.grant(wanted).await?;
            if self.admits(&entry.lock(), &lease, heard) {
                return Ok(lease);
            }
            refusal = self.why_not(&lease);
        }
        Err(refusal)
    }

    /// Replaces what is held. The caller holds `refreshing`.
    pub(super) async fn refresh(
        &self,
        entry: &Entry,
        wanted: &Wanted,
    ) -> Result<Arc<Lease>, Refusal> {
        // Two rounds, as above.
        for _ in 0..2 {
            let heard = entry.heard();
            let granted = self.grant(wanted).await;
            // The word is looked at and the lease is put down under one lock: whatever is said later finds it there.
            if let Some(result) = self.install(&mut entry.lock(), granted, heard) {
                return result;
            }
        }
        let failure = entry.lock().failure;
        Err(failure.map_or(OVERTAKEN, |(_, refusal)| refusal))
    }

    /// Puts down what was granted; nothing when it was overtaken.
    fn install(
        &self,
        state: &mut State,
        granted: Result<Arc<Lease>, Refusal>,
        heard: u64,
    ) -> Option<Result<Arc<Lease>, Refusal>> {
        let now = self.clock.now();
        let before = state.held.as_ref().map(|held| held.lease.version);
        state.attempts += 1;
        let result = match granted {
            Ok(lease) if !self.admits(state, &lease, heard) => {
                state.failure = Some((now, self.why_not(&lease)));
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

    /// Whether no daemon's word is against a lease that was asked for when `heard` words had been heard.
    fn admits(&self, state: &State, lease: &Lease, heard: u64) -> bool {
        !self.is_revoked(lease) && state.words.admit(lease, heard)
    }

    /// Whether any daemon has revoked the version, be it one that gave no share.
    fn is_revoked(&self, lease: &Lease) -> bool {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.get(&lease.key_id).is_some_and(|said| {
            said.values()
                .any(|versions| versions.contains(&lease.version))
        })
    }

    /// Why a lease is not let in.
    fn why_not(&self, lease: &Lease) -> Refusal {
        if self.is_revoked(lease) {
            REVOKED
        } else {
            OVERTAKEN
        }
    }

    pub(super) fn refresh_behind(self: &Arc<Self>, entry: &Arc<Entry>, wanted: &Wanted) {
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
}
