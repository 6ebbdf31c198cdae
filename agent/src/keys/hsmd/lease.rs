//! Asking for a lease and opening what comes: from the daemon's answer to a key in the arena.

use std::sync::Arc;
use std::time::Duration;

use custody::Trust;
use custody::open::{self, Delivered, Expectation, Material};
use proto::v1::{LeaseRequest, LeaseResponse};
use secret::check_header_safe;

use super::error::Again;
use super::following::terms_digest;
use super::session::fingerprint;
use super::{Connected, Hsmd, HsmdError, Settings, timed};
use crate::config;
use crate::keys::terms::{Attributes, Models, Permissions, TermsError};
use crate::keys::{Lease, Terms, Wanted};

impl Hsmd {
    /// A lease of the first daemon that grants one.
    pub(super) async fn grant(&self, wanted: &Wanted) -> Result<Arc<Lease>, HsmdError> {
        // One round for each daemon, and one more for a session that went stale while it was not used.
        let mut rounds = self.sockets.len() + 1;
        let mut fresh = false;
        loop {
            rounds -= 1;
            let connected = self.connected().await?;
            let error = match self.ask(&connected, wanted).await {
                Ok(lease) => return Ok(Arc::new(lease)),
                Err(error) => error,
            };
            let alone = self.sockets.len() == 1;
            match error.again() {
                Again::No => return Err(error),
                Again::OtherDaemon if alone => return Err(error),
                Again::OtherDaemon => self.turn_from(&connected),
                Again::NewSession if !fresh => {
                    fresh = true;
                    self.forget(&connected);
                }
                // It fails with a new session as well.
                Again::NewSession => self.turn_from(&connected),
            }
            if rounds == 0 {
                return Err(error);
            }
        }
    }

    async fn ask(&self, connected: &Connected, wanted: &Wanted) -> Result<Lease, HsmdError> {
        let Settings { trust, lease, .. } = self.settings();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = LeaseRequest {
            session_id: connected.session_id.to_vec(),
            key_id: wanted.key_id.to_string(),
            provider: wanted.provider.clone(),
            upstream: wanted.origin.to_string(),
            ttl_ms: ms(lease.ttl),
            offline_grace_ms: ms(lease.offline_grace),
        };
        let before = self.seen(connected.socket);
        let answer = connected
            .client
            .clone()
            .lease(timed(request))
            .await?
            .into_inner();
        self.not_older(connected.socket, before, answer.revision)?;
        self.open(connected, &trust, lease, wanted, &answer)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the opened key is written straight into its slot in the arena, and checked there"
    )]
    fn open(
        &self,
        connected: &Connected,
        trust: &Trust,
        asked: config::Lease,
        wanted: &Wanted,
        answer: &LeaseResponse,
    ) -> Result<Lease, HsmdError> {
        let signature: &[u8; 64] = answer
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| HsmdError::Contract("signature is not 64 bytes"))?;
        let material = Material {
            header: &answer.header,
            envelope: &answer.envelope,
            manifest: &answer.manifest,
            signature,
        };
        let expect = Expectation {
            key_id: &wanted.key_id,
            provider: &wanted.provider,
            origin: &wanted.origin,
        };
        let checked = open::check(trust, material, expect)?;
        let header = checked.provenance().header();
        if header.version != answer.version || header.generation != answer.generation {
            return Err(HsmdError::Contract(
                "version or generation is not that of the header",
            ));
        }
        let deliveries = answer
            .deliveries
            .iter()
            .map(|delivery| {
                Some(Delivered {
                    x: u8::try_from(delivery.x).ok()?,
                    fingerprint: fingerprint(&delivery.fingerprint)?,
                    wrapped: &delivery.wrapped,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(HsmdError::Contract(
                "a delivery has no index or fingerprint",
            ))?;
        let terms = terms(answer.terms.as_ref())?;
        let mut slot = self.arena.slot(checked.plaintext_len())?;
        let opened = checked.open(
            trust,
            &connected.keys,
            &connected.session_id,
            &deliveries,
            slot.expose_mut(),
        );
        // Whatever came of it: the combiner and the cipher have worked here.
        secret::stack::wipe_below();
        opened?;
        check_header_safe(slot.expose())
            .map_err(|_| HsmdError::Contract("the opened key cannot stand in a header"))?;
        Ok(Lease {
            key_id: wanted.key_id.clone(),
            version: answer.version,
            source: connected.socket,
            revision: answer.revision,
            provider: header.provider.clone(),
            upstreams: header.upstreams.clone(),
            // Never longer than was asked for.
            ttl: Duration::from_millis(answer.ttl_ms).min(asked.ttl),
            offline_grace: Duration::from_millis(answer.offline_grace_ms).min(asked.offline_grace),
            terms: Arc::new(terms),
            secret: slot,
        })
    }
}

/// What came with the lease. A daemon that knows no terms says none, and its keys are as open as they were before there were any.
fn terms(said: Option<&proto::v1::Terms>) -> Result<Terms, TermsError> {
    let Some(said) = said else {
        return Ok(Terms::open());
    };
    let pairs = said
        .attributes
        .iter()
        .map(|one| (one.name.clone(), one.value.clone()));
    Ok(Terms {
        permissions: Permissions::from_words(said.permissions.iter().map(String::as_str)),
        models: Models::from_names(said.models.iter().cloned()),
        attributes: Attributes::from_pairs(pairs)?,
        digest: terms_digest(&said.digest)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use providers::Permission;

    use super::*;

    fn said() -> proto::v1::Terms {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        proto::v1::Terms {
            permissions: list(&["chat", "a-newer-daemons"]),
            models: list(&["gpt-4o"]),
            attributes: vec![proto::v1::Attribute {
                name: "project".to_owned(),
                value: "proj_1".to_owned(),
            }],
            digest: vec![7; 32],
        }
    }

    #[test]
    fn what_is_said_holds_and_what_is_not_said_is_open() {
        let terms = super::terms(Some(&said())).unwrap();
        assert!(terms.allows_endpoint(Permission::Chat) && terms.allows_model("gpt-4o"));
        assert!(!terms.allows_endpoint(Permission::Models) && !terms.allows_model("gpt-4"));
        assert_eq!(terms.attributes.project(), Some("proj_1"));
        assert_eq!(terms.digest, Some([7; 32]));
        assert_eq!(super::terms(None).unwrap(), Terms::open());
        // Said, and empty: nothing is allowed.
        let nothing = super::terms(Some(&proto::v1::Terms::default())).unwrap();
        assert!(!nothing.allows_endpoint(Permission::Chat) && !nothing.allows_model("gpt-4o"));
    }

    #[test]
    fn terms_that_cannot_be_kept_to_end_the_lease() {
        let mut newer = said();
        newer.attributes[0].name = "a-newer-daemons".to_owned();
        assert_eq!(
            super::terms(Some(&newer)),
            Err(TermsError::UnknownAttribute)
        );
        let mut broken = said();
        broken.digest.pop();
        assert_eq!(super::terms(Some(&broken)), Err(TermsError::Digest));
    }
}
