//! What the daemons answered for one lease, and which t of the shares belong together.
//!
//! Pure. Shares are put together only when the daemons that sent them say the same: the sealed parts byte for byte, the version, and the
//! terms. A key is usable as far as every daemon whose share is used says so, and no daemon can add to what another one allows. Nothing
//! is opened here, and nothing is believed: what the daemons agree on is checked against the sealer's signature when it is opened.

use std::collections::BTreeSet;

use custody::open::OpenError;
use custody::sealed::ProvenanceError;
use custody::{Fingerprint, Header, Trust};
use proto::v1::LeaseResponse;

use super::HsmdError;
use super::session::fingerprint;
use crate::keys::Terms;

/// One daemon's answer; `S` is the session by which it came.
#[derive(Debug)]
pub(super) struct Answer<S> {
    /// Index of the daemon.
    pub(super) source: usize,
    pub(super) session: S,
    pub(super) said: LeaseResponse,
    pub(super) terms: Terms,
}

/// One share: whose it is, and where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) x: u8,
    pub(super) fingerprint: Fingerprint,
    /// Index of the delivery in its answer.
    delivery: usize,
}

/// An answer that was looked at.
#[derive(Debug)]
struct Sorted<S> {
    answer: Answer<S>,
    threshold: u8,
    shares: Vec<Share>,
}

/// Exactly t shares that belong together, each with the answer that it stands in.
#[derive(Debug)]
pub(super) struct Quorum<'a, S> {
    pub(super) shares: Vec<(&'a Answer<S>, Share)>,
}

impl<'a, S> Quorum<'a, S> {
    /// An answer that all of them agree with.
    pub(super) fn any(&self) -> Option<&'a Answer<S>> {
        self.shares.first().map(|(answer, _)| *answer)
    }

    /// The daemons whose shares these are, each once.
    pub(super) fn answers(&self) -> Vec<&'a Answer<S>> {
        let mut seen = BTreeSet::new();
        let all = self.shares.iter().map(|(answer, _)| *answer);
        all.filter(|answer| seen.insert(answer.source)).collect()
    }

    /// Who sent the share of this custodian.
    pub(super) fn source_of(&self, x: u8) -> Option<usize> {
        let found = self.shares.iter().find(|(_, share)| share.x == x)?;
        Some(found.0.source)
    }
}

impl<S> Answer<S> {
    /// The ciphertext of one of its shares.
    pub(super) fn wrapped(&self, share: Share) -> &[u8] {
        self.said
            .deliveries
            .get(share.delivery)
            .map_or(&[], |delivery| &delivery.wrapped)
    }

    /// Whether both speak of the same sealed key, as usable for the same.
    fn agrees(&self, other: &Self) -> bool {
        self.differs(other).is_none()
    }

    /// In what they differ.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let (own, others) = (&self.said, &other.said);
        if (own.version, own.generation) != (others.version, others.generation) {
            Some("version in use")
        } else if own.header != others.header
            || own.envelope != others.envelope
            || own.manifest != others.manifest
            || own.signature != others.signature
        {
            Some("sealed parts")
        } else if self.terms != other.terms {
            Some("terms")
        } else {
            None
        }
    }
}

/// All answers to one request for a lease.
#[derive(Debug)]
pub(super) struct Shares<S> {
    sorted: Vec<Sorted<S>>,
}

impl<S> Default for Shares<S> {
    fn default() -> Self {
        Self { sorted: Vec::new() }
    }
}

impl<S> Shares<S> {
    /// Takes one more answer.
    ///
    /// # Errors
    /// What is wrong with it; it counts for nothing then.
    pub(super) fn take(&mut self, trust: &Trust, answer: Answer<S>) -> Result<(), HsmdError> {
        let said = &answer.said;
        let header = Header::parse(&said.header)
            .map_err(|error| OpenError::Provenance(ProvenanceError::from(error)))?;
        if header.version != said.version || header.generation != said.generation {
            return Err(HsmdError::Contract(
                "version or generation is not that of the header",
            ));
        }
        let mut shares: Vec<Share> = Vec::new();
        for (delivery, one) in said.deliveries.iter().enumerate() {
            let (Ok(x), Some(fingerprint)) = (u8::try_from(one.x), fingerprint(&one.fingerprint))
            else {
                return Err(HsmdError::Contract(
                    "a delivery has no index or fingerprint",
                ));
            };
            if header.index_of(&fingerprint) != Some(x) {
                return Err(OpenError::OtherCustodian { x }.into());
            }
            trust.any(&fingerprint).map_err(OpenError::from)?;
            if shares.iter().any(|share| share.x == x) {
                return Err(HsmdError::Contract("two deliveries are of one custodian"));
            }
            shares.push(Share {
                x,
                fingerprint,
                delivery,
            });
        }
        self.drop_of(answer.source);
        self.sorted.push(Sorted {
            threshold: header.threshold,
            answer,
            shares,
        });
        Ok(())
    }

    /// Forgets what a daemon answered.
    pub(super) fn drop_of(&mut self, source: usize) {
        self.sorted.retain(|one| one.answer.source != source);
    }

    /// The first t shares that belong together, of the highest version of which there are so many.
    pub(super) fn quorum(&self) -> Option<Quorum<'_, S>> {
        let mut best: Option<Quorum<'_, S>> = None;
        for lead in &self.sorted {
            let newer = best
                .as_ref()
                .and_then(Quorum::any)
                .is_none_or(|held| lead.answer.said.version > held.said.version);
            if newer && let Some(quorum) = self.quorum_with(lead) {
                best = Some(quorum);
            }
        }
        best
    }

    /// t shares of answers that agree with this one.
    fn quorum_with(&self, lead: &Sorted<S>) -> Option<Quorum<'_, S>> {
        let mut seen = BTreeSet::new();
        let agreeing = self
            .sorted
            .iter()
            .filter(|one| one.answer.agrees(&lead.answer));
        // Two daemons that drive one custodian have the same share; it counts once.
        let shares = agreeing.flat_map(|one| one.shares.iter().map(|share| (&one.answer, *share)));
        let shares: Vec<_> = shares
            .filter(|(_, share)| seen.insert(share.x))
            .take(lead.threshold.into())
            .collect();
        (shares.len() == usize::from(lead.threshold)).then_some(Quorum { shares })
    }

    /// Why there is no quorum, when anything was answered: too few shares, or daemons that contradict each other.
    pub(super) fn shortage(&self, name: impl Fn(usize) -> String) -> Option<HsmdError> {
        let first = self.sorted.first()?;
        let distinct: BTreeSet<u8> = self
            .sorted
            .iter()
            .flat_map(|one| one.shares.iter().map(|share| share.x))
            .collect();
        let difference = self
            .sorted
            .iter()
            .find_map(|one| one.answer.differs(&first.answer));
        let enough = distinct.len() >= usize::from(first.threshold);
        match difference {
            Some(what) if enough => {
                let daemons = self.sorted.iter().map(|one| name(one.answer.source));
                Some(HsmdError::Disagree {
                    what,
                    daemons: daemons.collect::<Vec<_>>().join(", "),
                })
            }
            _ => Some(HsmdError::Short {
                available: distinct.len(),
                needed: first.threshold,
            }),
        }
    }
}
