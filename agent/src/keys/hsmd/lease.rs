//! A lease: t shares gathered from the daemons that have them, opened into the arena.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use custody::Trust;
use custody::open::{self, Delivered, Expectation, Material, Session};
use proto::v1::LeaseRequest;
use secret::check_header_safe;
use tokio::time::Instant;

use super::error::{Again, worst};
use super::following::terms_digest;
use super::gather::{Blame, Plan, gather};
use super::shares::{Answer, Quorum, Shares};
use super::{Connected, Hsmd, HsmdError, Settings, timed};
use crate::config;
use crate::keys::terms::{Attributes, Models, Permissions, TermsError};
use crate::keys::{Lease, Terms, Wanted};

/// How long daemons that contradict each other are given: an operator's command reaches them one after another.
const SETTLE: Duration = Duration::from_millis(50);

type Answered = Answer<Arc<Connected>>;

impl Hsmd {
    /// A lease of t shares, from one daemon or from several.
    pub(super) async fn grant(&self, wanted: &Wanted) -> Result<Arc<Lease>, HsmdError> {
        match self.grant_once(wanted).await {
            Err(HsmdError::Disagree { .. }) => {
                tokio::time::sleep(SETTLE).await;
                self.grant_once(wanted).await
            }
            other => other,
        }
    }

    async fn grant_once(&self, wanted: &Wanted) -> Result<Arc<Lease>, HsmdError> {
        let settings = self.settings();
        let mut shares = Shares::default();
        let gathered = gather(
            &self.plan(&settings.trust),
            |source| self.ask(source, wanted),
            |source, answer| self.take(&settings, wanted, &mut shares, source, answer),
            |source| {
                self.daemons[source].is_late();
                self.gauge();
            },
        )
        .await;
        gathered.map(Arc::new).map_err(|failed| {
            for Blame { source, error } in &failed {
                tracing::debug!(daemon = %self.name_of(*source), error = super::chain(error), "no share");
            }
            let short = shares.shortage(|source| self.name_of(source));
            worst(failed.into_iter().map(|blame| blame.error).chain(short))
        })
    }

    /// The daemons in order, and how many of them should have t shares. One that nothing is known of is taken for one that has them all.
    fn plan(&self, trust: &Trust) -> Plan {
        let mut order: Vec<usize> = (0..self.daemons.len()).collect();
        order.sort_by_key(|source| self.daemons[*source].late());
        let (mut hoped, mut first) = (BTreeSet::new(), 0);
        let mut hedge = Duration::ZERO;
        for source in &order {
            let daemon = &self.daemons[*source];
            first += 1;
            hedge = hedge.max(daemon.hedge());
            hoped.extend(daemon.up());
            let unknown = daemon.session().is_none() || !daemon.is_part();
            if unknown || hoped.len() >= usize::from(trust.threshold) {
                break;
            }
        }
        Plan {
            order,
            first,
            hedge,
        }
    }

    /// One daemon's answer; once more in a new session when the old one went stale while it was not used.
    async fn ask(&self, source: usize, wanted: &Wanted) -> Result<Answered, HsmdError> {
        let mut fresh = false;
        loop {
            let connected = self.connected(source).await?;
            match self.ask_in(&connected, wanted).await {
                Err(error) if error.again() == Again::NewSession => {
                    self.forget(&connected);
                    if fresh {
                        return Err(error);
                    }
                    fresh = true;
                }
                other => return other,
            }
        }
    }

    async fn ask_in(
        &self,
        connected: &Arc<Connected>,
        wanted: &Wanted,
    ) -> Result<Answered, HsmdError> {
        let Settings { lease, .. } = self.settings();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = LeaseRequest {
            session_id: connected.session_id.to_vec(),
            key_id: wanted.key_id.to_string(),
            provider: wanted.provider.clone(),
            upstream: wanted.origin.to_string(),
            ttl_ms: ms(lease.ttl),
            offline_grace_ms: ms(lease.offline_grace),
            partial: true,
        };
        let daemon = &self.daemons[connected.source];
        let (before, start) = (daemon.seen(), Instant::now());
        let mut client = connected.client.clone();
        let said = client.lease(timed(request)).await?.into_inner();
        daemon.took(start.elapsed());
        daemon.not_older(before, said.revision)?;
        Ok(Answer {
            source: connected.source,
            session: Arc::clone(connected),
            terms: terms(said.terms.as_ref())?,
            said,
        })
    }

    /// Puts an answer to the others, and opens the key as soon as t shares are there.
    fn take(
        &self,
        settings: &Settings,
        wanted: &Wanted,
        shares: &mut Shares<Arc<Connected>>,
        source: usize,
        answer: Answered,
    ) -> Result<Option<Lease>, Blame> {
        shares
            .take(&settings.trust, answer)
            .map_err(|error| Blame { source, error })?;
        let Some(quorum) = shares.quorum() else {
            return Ok(None);
        };
        let error = match self.open(settings, wanted, &quorum) {
            Ok(lease) => return Ok(Some(lease)),
            Err(error) => error,
        };
        // One bad delivery speaks against who sent it; anything else against all who said the same.
        let at_fault = match &error {
            HsmdError::Open(error) => error.custodian().and_then(|x| quorum.source_of(x)),
            _ => None,
        };
        let sessions: Vec<_> = quorum
            .answers()
            .into_iter()
            .filter(|one| at_fault.is_none_or(|source| source == one.source))
            .map(|one| Arc::clone(&one.session))
            .collect();
        for session in &sessions {
            shares.drop_of(session.source);
            if error.again() == Again::NewSession {
                self.forget(session);
            }
        }
        Err(Blame {
            source: at_fault.unwrap_or(source),
            error,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the opened key is written straight into its slot in the arena, and checked there"
    )]
    fn open(
        &self,
        Settings {
            trust,
            lease: asked,
            ..
        }: &Settings,
        wanted: &Wanted,
        quorum: &Quorum<'_, Arc<Connected>>,
    ) -> Result<Lease, HsmdError> {
        let answers = quorum.answers();
        let first = quorum
            .any()
            .ok_or(HsmdError::Contract("no share was delivered"))?;
        let said = &first.said;
        let signature: &[u8; 64] = said
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| HsmdError::Contract("signature is not 64 bytes"))?;
        let material = Material {
            header: &said.header,
            envelope: &said.envelope,
            manifest: &said.manifest,
            signature,
        };
        let expect = Expectation {
            key_id: &wanted.key_id,
            provider: &wanted.provider,
            origin: &wanted.origin,
        };
        let checked = open::check(trust, material, expect)?;
        let deliveries: Vec<Delivered<'_>> = quorum
            .shares
            .iter()
            .map(|(answer, share)| Delivered {
                session: Session {
                    keys: &answer.session.keys,
                    id: &answer.session.session_id,
                },
                x: share.x,
                fingerprint: share.fingerprint,
                wrapped: answer.wrapped(*share),
            })
            .collect();
        let mut slot = self.arena.slot(checked.plaintext_len())?;
        let opened = checked.open(trust, &deliveries, slot.expose_mut());
        // Whatever came of it: the combiner and the cipher have worked here.
        secret::stack::wipe_below();
        opened?;
        check_header_safe(slot.expose())
            .map_err(|_| HsmdError::Contract("the opened key cannot stand in a header"))?;
        let header = checked.provenance().header();
        Ok(Lease {
            key_id: wanted.key_id.clone(),
            version: header.version,
            sources: answers
                .iter()
                .map(|one| (one.source, one.said.revision))
                .collect(),
            provider: header.provider.clone(),
            upstreams: header.upstreams.clone(),
            ttl: shortest(&answers, asked, |one| one.ttl_ms, |asked| asked.ttl),
            offline_grace: shortest(
                &answers,
                asked,
                |one| one.offline_grace_ms,
                |asked| asked.offline_grace,
            ),
            terms: Arc::new(first.terms.clone()),
            secret: slot,
        })
    }
}

/// As long as each of the daemons grants, and never longer than was asked for.
fn shortest(
    answers: &[&Answered],
    asked: &config::Lease,
    granted: impl Fn(&proto::v1::LeaseResponse) -> u64,
    most: impl Fn(&config::Lease) -> Duration,
) -> Duration {
    let granted = answers
        .iter()
        .map(|one| Duration::from_millis(granted(&one.said)));
    granted.fold(most(asked), Duration::min)
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
