//! Asking for a lease and opening what comes: from the daemon's answer to a key in the arena.

use std::sync::Arc;
use std::time::Duration;

use custody::Trust;
use custody::open::{self, Delivered, Expectation, Material};
use proto::v1::{LeaseRequest, LeaseResponse};
use secret::check_header_safe;

use super::error::Again;
use super::session::fingerprint;
use super::{Connected, Hsmd, HsmdError, Settings, timed};
use crate::config;
use crate::keys::{Lease, Wanted};

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
        let mut slot = self.arena.slot(checked.plaintext_len())?;
        checked.open(
            trust,
            &connected.keys,
            &connected.session_id,
            &deliveries,
            slot.expose_mut(),
        )?;
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
            secret: slot,
        })
    }
}
