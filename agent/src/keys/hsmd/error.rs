//! Why a daemon gave no lease: one name each for the log, one of a few fixed texts for the app, and whether asking again can help.

use std::path::PathBuf;

use custody::combine::CombineError;
use custody::open::OpenError;
use custody::sealed::ProvenanceError;
use custody::trust::TrustError;
use tonic::Status;

use super::connect::ConnectError;
use crate::keys::terms::TermsError;
use crate::respond::{Code, Refusal};

/// Why a daemon gave no lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HsmdError {
    /// No socket answers.
    #[error("cannot connect to hsmd at {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// What the system or the peer check said.
        #[source]
        source: ConnectError,
    },
    /// It answered no, or not at all.
    #[error("hsmd refused: {text}")]
    Refused {
        /// Its own sentence, for the log alone.
        text: String,
        /// What that is for the app.
        code: Code,
        /// What may help.
        again: Again,
    },
    /// Its store is older than what it told us before.
    #[error(
        "hsmd has an older store than before (revision {now} after {seen}); a restored backup? See tacit doctor"
    )]
    Older {
        /// What we have seen.
        seen: u64,
        /// What it says now.
        now: u64,
    },
    /// Its answer is not what the contract says.
    #[error("hsmd's answer breaks the contract: {0}")]
    Contract(&'static str),
    /// The daemons that answer have too few shares together.
    #[error(
        "the daemons that answer have {available} shares of the key, {needed} are needed; see tacit status of each"
    )]
    Short {
        /// How many different shares came.
        available: usize,
        /// The key's threshold.
        needed: u8,
    },
    /// There would be enough shares, and those who sent them say different things of the key.
    #[error(
        "the daemons disagree about the key's {what}: {daemons}; bring them to the same state, see tacit key show at each"
    )]
    Disagree {
        /// About what.
        what: &'static str,
        /// Their sockets.
        daemons: String,
    },
    /// What the key may be used for cannot be kept to here.
    #[error("hsmd's terms for the key cannot be kept to")]
    Terms(#[from] TermsError),
    /// Its answer does not open.
    #[error("the lease does not open")]
    Open(#[from] OpenError),
    /// The arena is full.
    #[error("no room for the key")]
    Arena(#[from] secret::ArenaError),
    /// The RSA key for an `rsa-oaep` custodian could not be made.
    #[error("cannot make the session's RSA key")]
    Rsa(#[source] custody::FormatError),
}

/// What may help after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// A new session: this one is not known any more, or its connection is gone.
    NewSession,
    /// Another daemon, or a later time; the session here is good.
    OtherDaemon,
    /// Nothing.
    No,
}

impl HsmdError {
    /// What may help.
    pub(crate) fn again(&self) -> Again {
        match self {
            Self::Refused { again, .. } => *again,
            Self::Connect { .. } => Again::NewSession,
            Self::Older { .. }
            | Self::Contract(_)
            | Self::Terms(_)
            | Self::Short { .. }
            | Self::Disagree { .. } => Again::OtherDaemon,
            // Deliveries of a token that was restarted in between; everything else about provenance is final.
            Self::Open(OpenError::Delivery { .. }) => Again::NewSession,
            Self::Open(_) | Self::Arena(_) | Self::Rsa(_) => Again::No,
        }
    }

    /// What a daemon refused with.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the daemon, or what it needs, is away: it is asked after the others then.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Connect { .. }) || self.code() == Some(Code::HsmUnavailable)
    }

    /// How much a failure says about why there is no lease: what a daemon decided before what did not fit, and both before what is away.
    fn weight(&self) -> u8 {
        match self {
            Self::Refused { code, .. } => match code {
                Code::KeyRevoked => 0,
                Code::UpstreamNotAllowed => 1,
                Code::PermissionDenied => 2,
                _ => 7,
            },
            Self::Disagree { .. } => 3,
            Self::Open(_) | Self::Terms(_) => 4,
            Self::Older { .. } | Self::Contract(_) | Self::Arena(_) | Self::Rsa(_) => 5,
            Self::Short { .. } => 6,
            Self::Connect { .. } => 8,
        }
    }

    /// The name of the failure, for those who search logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "not_connected",
            Self::Refused { code, .. } => code.name(),
            Self::Older { .. } => "store_older",
            Self::Contract(_) => "contract_broken",
            Self::Terms(_) => "terms_not_kept",
            Self::Short { .. } => "too_few_shares",
            Self::Disagree { .. } => "daemons_disagree",
            Self::Open(error) => fault(error),
            Self::Arena(_) => "arena_full",
            Self::Rsa(_) => "no_rsa_key",
        }
    }

    /// What the app is told: nothing of the daemon's words, of custodians or of what did not fit.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused {
                code: Code::KeyRevoked,
                ..
            } => Refusal::new(
                Code::KeyRevoked,
                "the key was revoked; ask your security team",
            ),
            Self::Refused {
                code: Code::UpstreamNotAllowed,
                ..
            }
            | Self::Open(OpenError::UpstreamNotAllowed { .. }) => Refusal::new(
                Code::UpstreamNotAllowed,
                "the key's sealed header does not name this route's provider and origin; seal it with --upstream, or correct base_url",
            ),
            Self::Open(OpenError::OtherProvider { .. }) => Refusal::new(
                Code::UpstreamNotAllowed,
                "the key was sealed for another provider than this route: a route's key is sealed with --provider and the route's own name",
            ),
            Self::Refused {
                code: Code::PermissionDenied,
                ..
            } => Refusal::new(
                Code::PermissionDenied,
                "this workload may not use the key, or there is no such key; see tacit key show",
            ),
            Self::Open(_) => Refusal::new(
                Code::HsmUnavailable,
                "the lease did not open; see the agent's log",
            ),
            Self::Connect { .. } => Refusal::new(Code::HsmUnavailable, "hsmd cannot be reached"),
            Self::Refused { .. }
            | Self::Older { .. }
            | Self::Contract(_)
            | Self::Short { .. }
            | Self::Disagree { .. }
            | Self::Terms(_)
            | Self::Arena(_)
            | Self::Rsa(_) => Refusal::new(
                Code::HsmUnavailable,
                "hsmd cannot grant a lease now; see the agent's log",
            ),
        }
    }
}

/// The failure that says most.
pub(super) fn worst(failures: impl Iterator<Item = HsmdError>) -> HsmdError {
    failures
        .min_by_key(HsmdError::weight)
        .unwrap_or(HsmdError::Contract("no socket is configured"))
}

/// The name of what did not open.
fn fault(error: &OpenError) -> &'static str {
    match error {
        OpenError::Provenance(error) => match error {
            ProvenanceError::Format(_) => "format",
            ProvenanceError::UnknownSealer { .. } => "unknown_sealer",
            ProvenanceError::Signature => "signature",
            ProvenanceError::Header => "header_changed",
            ProvenanceError::Envelope => "envelope_swapped",
            ProvenanceError::Share { .. } => "share_changed",
            ProvenanceError::Counts => "custodian_counts",
            ProvenanceError::Custodian(error) => custodian(error),
            // These enums may grow with the format; the log line has the whole text beside the name.
            _ => "provenance",
        },
        OpenError::Custodian(error) => custodian(error),
        OpenError::OtherKey { .. } => "other_key",
        OpenError::OtherProvider { .. } => "other_provider",
        OpenError::UpstreamNotAllowed { .. } => "upstream_not_allowed",
        OpenError::OtherCustodian { .. } => "other_custodian",
        OpenError::Delivery { .. } => "delivery",
        OpenError::NoRsaKey { .. } => "session_without_rsa_key",
        OpenError::Combine(error) => match error {
            CombineError::Threshold { .. } => "threshold",
            CombineError::Count { .. } => "share_count",
            CombineError::UnknownIndex { .. } => "share_index",
            CombineError::Duplicate { .. } => "share_twice",
            CombineError::Record { .. } => "share_record",
            CombineError::Check { .. } => "share_check",
            CombineError::Commitment => "commitment",
            _ => "shares",
        },
        OpenError::Envelope(_) => "envelope_changed",
        _ => "not_opened",
    }
}

fn custodian(error: &TrustError) -> &'static str {
    match error {
        TrustError::Unpinned { .. } => "custodian_unpinned",
        TrustError::Superseded { .. } => "custodian_superseded",
        TrustError::Changed { .. } => "custodian_changed",
        _ => "custodian",
    }
}

impl From<Status> for HsmdError {
    /// The stable code travels in metadata; the text is hsmd's own and goes to the log alone.
    fn from(status: Status) -> Self {
        let code = status
            .metadata()
            .get(proto::ERROR_KEY)
            .and_then(|code| code.to_str().ok());
        let (code, again) = match code {
            Some("key_revoked") => (Code::KeyRevoked, Again::No),
            Some("upstream_not_allowed") => (Code::UpstreamNotAllowed, Again::No),
            Some("permission_denied" | "not_found") => (Code::PermissionDenied, Again::No),
            // Without a code it was not the daemon that spoke: it hangs, or the connection is gone.
            None if matches!(
                status.code(),
                tonic::Code::DeadlineExceeded | tonic::Code::Cancelled
            ) =>
            {
                (Code::HsmUnavailable, Again::OtherDaemon)
            }
            Some("session_unknown") | None => (Code::HsmUnavailable, Again::NewSession),
            Some(_) => (Code::HsmUnavailable, Again::OtherDaemon),
        };
        Self::Refused {
            text: status.message().to_owned(),
            code,
            again,
        }
    }
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn not_opened() -> Vec<OpenError> {
        let fingerprint = custody::Fingerprint::new([7; 32]);
        let id = || "secret-custodian".parse().unwrap();
        vec![
            OpenError::Provenance(ProvenanceError::UnknownSealer {
                sealer: "secret-sealer".to_owned(),
            }),
            OpenError::Provenance(ProvenanceError::Signature),
            OpenError::Provenance(ProvenanceError::Header),
            OpenError::Provenance(ProvenanceError::Envelope),
            OpenError::Provenance(ProvenanceError::Share { x: 1 }),
            OpenError::Provenance(ProvenanceError::Counts),
            OpenError::Custodian(TrustError::Unpinned { fingerprint }),
            OpenError::Custodian(TrustError::Superseded {
                id: id(),
                fingerprint,
            }),
            OpenError::Custodian(TrustError::Changed {
                id: id(),
                differences: Vec::new(),
            }),
            OpenError::OtherKey {
                asked: "a".parse().unwrap(),
                found: "secret-key".parse().unwrap(),
            },
            OpenError::OtherProvider {
                key: "a".parse().unwrap(),
                asked: "openai".to_owned(),
                found: "secret-provider".to_owned(),
            },
            OpenError::UpstreamNotAllowed {
                key: "a".parse().unwrap(),
                origin: "https://secret.example".to_owned(),
                allowed: "https://secret-too.example".to_owned(),
            },
            OpenError::OtherCustodian { x: 1 },
            OpenError::Delivery { x: 1 },
            OpenError::NoRsaKey { x: 1 },
            OpenError::Combine(CombineError::Count {
                found: 1,
                needed: 2,
            }),
            OpenError::Combine(CombineError::UnknownIndex { x: 9 }),
            OpenError::Combine(CombineError::Duplicate { x: 1 }),
            OpenError::Combine(CombineError::Check { x: 1 }),
            OpenError::Combine(CombineError::Commitment),
            OpenError::Envelope(custody::dek::EnvelopeChanged),
        ]
    }

    #[test]
    fn every_failure_has_a_name_of_its_own_in_the_log_and_none_of_its_words_reach_the_app() {
        let mut names = BTreeSet::new();
        for error in not_opened() {
            let error = HsmdError::Open(error);
            assert!(names.insert(error.name()), "{} twice", error.name());
            let refusal = error.refusal();
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
            let foreign = matches!(error.name(), "upstream_not_allowed" | "other_provider");
            assert_eq!(refusal.code == Code::UpstreamNotAllowed, foreign);
            assert_eq!(refusal.code == Code::HsmUnavailable, !foreign);
        }
        // Those that only a newer custody could add have no names yet.
        for general in ["provenance", "shares", "custodian", "not_opened"] {
            assert!(!names.contains(general));
        }
    }

    #[test]
    fn the_daemons_own_words_stay_in_the_log() {
        let with = |code: Option<&'static str>| {
            let mut status = Status::unavailable("secret words");
            if let Some(code) = code {
                status
                    .metadata_mut()
                    .insert(proto::ERROR_KEY, code.parse().unwrap());
            }
            HsmdError::from(status)
        };
        for (code, wanted, again) in [
            (Some("key_revoked"), Code::KeyRevoked, Again::No),
            (Some("not_found"), Code::PermissionDenied, Again::No),
            (
                Some("upstream_not_allowed"),
                Code::UpstreamNotAllowed,
                Again::No,
            ),
            (
                Some("session_unknown"),
                Code::HsmUnavailable,
                Again::NewSession,
            ),
            (
                Some("hsm_unavailable"),
                Code::HsmUnavailable,
                Again::OtherDaemon,
            ),
            (None, Code::HsmUnavailable, Again::NewSession),
        ] {
            let error = with(code);
            assert_eq!((error.refusal().code, error.again()), (wanted, again));
            assert!(!error.refusal().to_string().contains("secret"));
            assert!(chain(&error).contains("secret words"));
        }
    }
}
