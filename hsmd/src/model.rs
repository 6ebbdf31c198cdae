//! What the daemon knows of keys: the content of its records, and the state machine of versions.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::record::{Kind, Record};
use custody::{Header, RowIdentity};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::terms::KeyTerms;

/// Bytes that stand as base64 in a record's JSON.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD
            .decode(text)
            .map(Blob)
            .map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// States of a key version, after NIST SP 800-57 part 1, section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Known, not usable yet.
    PreActive,
    /// In use.
    Active,
    /// Not used for the time being; may become active again (a version that a rotation replaced).
    Suspended,
    /// Out of use for good.
    Deactivated,
    /// Out of use for good, and known to others.
    Compromised,
    /// Its material is gone.
    Destroyed,
}

impl VersionState {
    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            VersionState::PreActive => "pre-active",
            VersionState::Active => "active",
            VersionState::Suspended => "suspended",
            VersionState::Deactivated => "deactivated",
            VersionState::Compromised => "compromised",
            VersionState::Destroyed => "destroyed",
        }
    }

    /// Whether the standard's diagram has an arrow to `next`.
    pub fn may_become(self, next: VersionState) -> bool {
        use VersionState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
        match self {
            PreActive => matches!(next, Active | Deactivated | Compromised | Destroyed),
            Active => matches!(next, Suspended | Deactivated | Compromised),
            Suspended => matches!(next, Active | Deactivated | Compromised | Destroyed),
            Deactivated => matches!(next, Compromised | Destroyed),
            Compromised => matches!(next, Destroyed),
            Destroyed => false,
        }
    }

    /// Whether tokens must refuse this version for ever.
    pub fn is_revoked(self) -> bool {
        matches!(
            self,
            VersionState::Deactivated | VersionState::Compromised | VersionState::Destroyed
        )
    }
}

/// Body of a key record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    /// Provider, as in every version's header.
    pub provider: String,
    /// Who may use it; `None` takes the defaults of hsmd.toml, an empty list is nobody.
    pub environments: Option<Vec<String>>,
    /// Likewise.
    pub teams: Option<Vec<String>>,
    /// For people.
    pub description: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The version that leases are granted for; 0 when there is none.
    pub current: u32,
    /// What was done last.
    pub last_action: String,
    /// Unix seconds.
    pub last_action_at: i64,
    /// What it may be used for. Absent from records of builds that knew no terms.
    #[serde(default, skip_serializing_if = "KeyTerms::is_empty")]
    pub terms: KeyTerms,
}

/// Body of a version record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionBody {
    /// Canonical header; stays when the material is destroyed.
    pub header: Blob,
    /// Envelope; empty when destroyed.
    pub envelope: Blob,
    /// Manifest.
    pub manifest: Blob,
    /// The sealer's signature.
    pub signature: Blob,
    /// Sealed shares of custodians that have not ingested theirs, by x.
    pub pending: BTreeMap<u8, Blob>,
    /// State.
    pub state: VersionState,
    /// Why it is in that state.
    pub reason: String,
    /// Unix seconds.
    pub changed_at: i64,
    /// Unix seconds.
    pub ingested_at: i64,
}

/// Body of a share record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareBody {
    /// Custodian that holds it.
    pub custodian: String,
    /// Canonical row identity.
    pub identity: Blob,
    /// The share under the custodian's KEK (or its seal key).
    pub wrapped: Blob,
    /// The custodian's MAC over identity and wrapped share.
    pub mac: Blob,
}

/// One key with its versions, as served from memory.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its record.
    pub body: KeyBody,
    /// Its versions by number.
    pub versions: BTreeMap<u32, Version>,
}

/// One version, parsed.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its record.
    pub body: VersionBody,
    /// The header, parsed.
    pub header: Header,
    /// Ingested shares by x.
    pub shares: BTreeMap<u8, ShareBody>,
}

impl Key {
    /// The version in use, if it is active.
    pub fn active(&self) -> Option<(u32, &Version)> {
        let version = self.versions.get(&self.body.current)?;
        (version.body.state == VersionState::Active).then_some((self.body.current, version))
    }

    /// State shown for the whole key: that of the version in use, else of the newest.
    pub fn state(&self) -> VersionState {
        let shown = self
            .versions
            .get(&self.body.current)
            .or_else(|| self.versions.values().next_back());
        shown.map_or(VersionState::PreActive, |version| version.body.state)
    }
}

/// Id of a version's record.
pub fn version_id(key: &str, version: u32) -> String {
    format!("{key}/{version}")
}

/// Id of a share's record.
pub fn share_id(key: &str, version: u32, x: u8) -> String {
    format!("{key}/{version}/{x}")
}

/// Why a believed record cannot be used: a newer build wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} record {id} {rule}; was it written by a newer hsmd? install that version")]
pub struct ModelError {
    /// Kind of the record.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// What is wrong.
    pub rule: &'static str,
}

/// Everything that is served, by key id.
#[derive(Debug, Clone, Default)]
pub struct Keys(pub BTreeMap<String, Key>);

impl Keys {
    /// Builds the model from records that were verified.
    ///
    /// # Errors
    /// [`ModelError`] when a record has fields or references that this build does not know.
    pub fn from_records<'a>(
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Self, ModelError> {
        let mut keys = BTreeMap::new();
        for record in records.clone().filter(|record| record.kind == Kind::Key) {
            let body: KeyBody = parse(record)?;
            keys.insert(
                record.id.clone(),
                Key {
                    body,
                    versions: BTreeMap::new(),
                },
            );
        }
        let mut built = Self(keys);
        for record in records
            .clone()
            .filter(|record| record.kind == Kind::Version)
        {
            let body: VersionBody = parse(record)?;
            let refuse = |rule| ModelError {
                kind: "version",
                id: record.id.clone(),
                rule,
            };
            let header = Header::parse(&body.header.0)
                .map_err(|_| refuse("has a header that this build does not read"))?;
            if version_id(header.key_id.as_str(), header.version) != record.id {
                return Err(refuse("holds the header of another version"));
            }
            let key = built
                .0
                .get_mut(header.key_id.as_str())
                .ok_or_else(|| refuse("belongs to no key"))?;
            key.versions.insert(
                header.version,
                Version {
                    body,
                    header,
                    shares: BTreeMap::new(),
                },
            );
        }
        for record in records.filter(|record| record.kind == Kind::Share) {
            let body: ShareBody = parse(record)?;
            let refuse = |rule| ModelError {
                kind: "share",
                id: record.id.clone(),
                rule,
            };
            let identity = RowIdentity::parse(&body.identity.0)
                .map_err(|_| refuse("has an identity that this build does not read"))?;
            if share_id(identity.key_id.as_str(), identity.version, identity.x) != record.id {
                return Err(refuse("holds the share of another row"));
            }
            let key = built
                .0
                .get_mut(identity.key_id.as_str())
                .ok_or_else(|| refuse("belongs to no key"))?;
            let version = key
                .versions
                .get_mut(&identity.version)
                .ok_or_else(|| refuse("belongs to no version"))?;
            version.shares.insert(identity.x, body);
        }
        Ok(built)
    }

    /// Key versions that tokens must refuse for ever.
    pub fn revoked(&self) -> Vec<hsm::client::Revoked> {
        let pairs = self.0.iter().flat_map(|(id, key)| {
            key.versions
                .iter()
                .map(move |(number, version)| (id, number, version))
        });
        pairs
            .filter(|(_, _, version)| version.body.state.is_revoked())
            .map(|(id, number, _)| hsm::client::Revoked {
                key_id: id.clone(),
                version: *number,
            })
            .collect()
    }
}

fn parse<T: for<'de> Deserialize<'de>>(record: &Record) -> Result<T, ModelError> {
    serde_json::from_slice(&record.body).map_err(|_| ModelError {
        kind: record.kind.name(),
        id: record.id.clone(),
        rule: "has a field that this build does not know",
    })
}

/// The encoding of a body.
pub fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings, numbers and maps of them always serialise")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::VersionState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
    use super::{KeyBody, KeyTerms, encode};

    /// A key's record as builds wrote it that knew no terms.
    const BEFORE_TERMS: &str = r#"{"provider":"openai","environments":null,"teams":["*"],"description":"","created_at":1,"current":1,"last_action":"added","last_action_at":1}"#;

    #[test]
    fn a_record_from_before_terms_is_read_and_written_as_it_was() {
        let body: KeyBody = serde_json::from_str(BEFORE_TERMS).unwrap();
        assert_eq!(body.terms, KeyTerms::default());
        assert_eq!(encode(&body), BEFORE_TERMS.as_bytes());
    }

    #[test]
    fn terms_come_back_as_they_were_written_and_unknown_ones_are_refused() {
        let terms = r#"{"permissions":["chat"],"models":[],"attributes":{"project":"p"}}"#;
        let with = |terms: &str| BEFORE_TERMS.replace('}', &format!(",\"terms\":{terms}}}"));
        let body: KeyBody = serde_json::from_str(&with(terms)).unwrap();
        assert_eq!(body.terms.models, Some(Vec::new()));
        assert_eq!(encode(&body), with(terms).as_bytes());
        for newer in [r#"{"budget":1}"#, r#"{"attributes":{"zone":"a"}}"#] {
            assert!(
                serde_json::from_str::<KeyBody>(&with(newer)).is_err(),
                "{newer}"
            );
        }
    }

    #[test]
    fn states_follow_the_standards_arrows_and_no_others() {
        let all = [
            PreActive,
            Active,
            Suspended,
            Deactivated,
            Compromised,
            Destroyed,
        ];
        let arrows = [
            (PreActive, Active),
            (PreActive, Deactivated),
            (PreActive, Compromised),
            (PreActive, Destroyed),
            (Active, Suspended),
            (Active, Deactivated),
            (Active, Compromised),
            (Suspended, Active),
            (Suspended, Deactivated),
            (Suspended, Compromised),
            (Suspended, Destroyed),
            (Deactivated, Compromised),
            (Deactivated, Destroyed),
            (Compromised, Destroyed),
        ];
        for from in all {
            for to in all {
                assert_eq!(
                    from.may_become(to),
                    arrows.contains(&(from, to)),
                    "{from:?} -> {to:?}"
                );
            }
        }
    }
}
