//! Who may be a caller: evidence is gathered here and judged in the `attest` crate, before a session is opened.
//!
//! What needs a connection (the issuer's keys, the kubelet's list, the API server's opinion) is fetched and kept here, so that the crate that
//! judges opens none. Whatever cannot be had is a refusal by name, never a weaker check.

pub mod config;
mod fetch;
mod sources;
pub mod witnesses;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use attest::facts::Evidence;
use attest::replay::Bearers;
use attest::{Attestor, Facts, Peer, Refused, Requirements};

use config::{AttestConfig, Rules};
use sources::{KeySource, PodSource, Review};

/// What a daemon requires, and where it finds out.
#[derive(Debug)]
pub struct Attestation {
    rules: Arc<Rules>,
    keys: Option<KeySource>,
    pods: Option<PodSource>,
    review: Option<Review>,
    /// Survives reloads.
    bearers: Arc<Mutex<Bearers>>,
}

impl Attestation {
    /// From a checked configuration.
    #[must_use]
    pub fn new(config: &AttestConfig, rules: Arc<Rules>, bearers: Arc<Mutex<Bearers>>) -> Self {
        Self {
            keys: KeySource::new(config),
            pods: PodSource::new(config),
            review: Review::new(config),
            rules,
            bearers,
        }
    }

    /// The rules that it goes by.
    #[must_use]
    pub fn requirements(&self) -> &Requirements {
        &self.rules.requirements
    }

    /// Which tokens were presented by whom, for a successor of this one.
    #[must_use]
    pub fn bearers(&self) -> Arc<Mutex<Bearers>> {
        Arc::clone(&self.bearers)
    }

    /// What can be proven of the caller.
    ///
    /// # Errors
    /// [`Refused`]: something that is required cannot.
    pub async fn admit(&self, peer: &Arc<Peer>, token: &[u8]) -> Result<Facts, Refused> {
        if self.requirements().has(Attestor::K8sToken) && token.is_empty() {
            return Err(Refused::TokenMissing);
        }
        let mut keys = match &self.keys {
            Some(source) => Some(source.known().await?),
            None => None,
        };
        let mut pods = match &self.pods {
            Some(source) => Some(source.known().await?),
            None => None,
        };
        // A key that is new, a pod that started just now: each source is asked again once, no more often than it may be.
        for _again in 0..2 {
            let refused = match self.examine(peer, token, keys.as_deref(), pods.as_deref()) {
                Ok(facts) => {
                    if let (Some(review), Some(claims)) = (&self.review, &facts.claims) {
                        review.confirm(token, claims).await?;
                        peer.check_alive()?;
                    }
                    return Ok(facts);
                }
                Err(refused) => refused,
            };
            let fresher = match (&refused, &self.keys, &self.pods) {
                (Refused::TokenKeyUnknown, Some(source), _) => {
                    let fresh = source.newer().await;
                    fresh.map(|fresh| keys = Some(fresh)).is_some()
                }
                (Refused::PodUnknown | Refused::ContainerUnknown, _, Some(source)) => {
                    let fresh = source.newer().await;
                    fresh.map(|fresh| pods = Some(fresh)).is_some()
                }
                _ => false,
            };
            if !fresher {
                return Err(refused);
            }
        }
        self.examine(peer, token, keys.as_deref(), pods.as_deref())
    }

    /// The same for callers of whom nothing but the kernel's word is required: no session is needed for that.
    ///
    /// # Errors
    /// [`Refused`], or `None` when more is required.
    pub fn by_kernel(&self, peer: &Arc<Peer>) -> Option<Result<Facts, Refused>> {
        let kernel_alone = self
            .requirements()
            .attestors
            .iter()
            .all(|one| *one == Attestor::Unix);
        kernel_alone.then(|| self.examine(peer, b"", None, None))
    }

    fn examine(
        &self,
        peer: &Arc<Peer>,
        token: &[u8],
        keys: Option<&attest::token::KeySet>,
        pods: Option<&attest::pods::Pods>,
    ) -> Result<Facts, Refused> {
        let evidence = Evidence {
            peer,
            token,
            keys,
            pods,
            now: SystemTime::now(),
        };
        let mut bearers = self.bearers.lock().unwrap_or_else(PoisonError::into_inner);
        let wants_unit = self.rules.policy.wants_unit();
        attest::examine(self.requirements(), wants_unit, &evidence, &mut bearers)
    }
}
