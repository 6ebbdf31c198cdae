//! The trust file, `custodians.json`: which custodians and which sealers are ours.
//!
//! It pins the SHA-256 of each whole descriptor. A changed descriptor is an error that shows both; only a new pin
//! accepts it. Superseded fingerprints stay, for opening older keys and for nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::codec::FormatError;
use crate::descriptor::{Descriptor, Fingerprint, SignedDescriptor};
use crate::names::CustodianId;
use crate::sealer::SealerKey;
use crate::{CUSTODIANS_MAX, THRESHOLD_MIN};

const FORMAT: &str = "tacit-trust/v1";
const WHAT: &str = "trust file";

/// Longest trust file: 16 custodians with a dozen superseded descriptors each.
pub const TRUST_MAX_BYTES: usize = 1024 * 1024;

/// Why a custodian is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Nobody pinned this descriptor.
    #[error(
        "custodian descriptor {fingerprint:?} is not pinned in the trust file; compare fingerprints over a second channel, then: tacit trust pin"
    )]
    Unpinned {
        /// SHA-256 of the descriptor.
        fingerprint: Fingerprint,
    },
    /// It was pinned once and is replaced now; new material must not go to it.
    #[error("custodian {id} has a newer descriptor; {fingerprint:?} opens older keys only")]
    Superseded {
        /// Its id.
        id: CustodianId,
        /// The old fingerprint.
        fingerprint: Fingerprint,
    },
    /// The custodian presents another descriptor than the pinned one.
    #[error("custodian {id} presents another descriptor than the pinned one; {}", describe(.differences))]
    Changed {
        /// Its id.
        id: CustodianId,
        /// Field, pinned value, presented value.
        differences: Vec<(&'static str, String, String)>,
    },
}

fn describe(differences: &[(&'static str, String, String)]) -> String {
    let fields = differences
        .iter()
        .map(|(field, old, new)| format!("{field}: pinned {old}, presented {new}"));
    fields.collect::<Vec<_>>().join("; ")
}

/// One custodian of the trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedCustodian {
    /// The descriptor in force.
    pub current: SignedDescriptor,
    /// Earlier ones, newest first.
    pub superseded: Vec<SignedDescriptor>,
}

/// A sealer of the trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedSealer {
    /// Whose key it is, for people.
    pub name: String,
    /// The public key.
    pub key: SealerKey,
}

/// The parsed trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Shares needed for keys sealed from now on.
    pub threshold: u8,
    /// Custodians in x order for keys sealed from now on.
    pub custodians: Vec<PinnedCustodian>,
    /// Who may seal.
    pub sealers: Vec<PinnedSealer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    threshold: u8,
    custodians: Vec<FileCustodian>,
    sealers: Vec<FileSealer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCustodian {
    id: String,
    fingerprint: String,
    descriptor: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    superseded: Vec<FileDescriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDescriptor {
    fingerprint: String,
    descriptor: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSealer {
    name: String,
    public_key: String,
}

fn refuse(field: &'static str, rule: &'static str) -> FormatError {
    FormatError::Field {
        what: WHAT,
        field,
        rule,
    }
}

fn read_descriptor(fingerprint: &str, descriptor: &str) -> Result<SignedDescriptor, FormatError> {
    let bytes = STANDARD
        .decode(descriptor)
        .map_err(|_| refuse("descriptor", "is not base64"))?;
    let signed = SignedDescriptor::parse(&bytes)?;
    let pinned: Fingerprint = fingerprint.parse()?;
    if signed.descriptor.fingerprint() == pinned {
        Ok(signed)
    } else {
        Err(refuse(
            "fingerprint",
            "is not that of the descriptor beside it",
        ))
    }
}

impl Trust {
    /// Parses the JSON form and checks every pin against the descriptor beside it.
    ///
    /// # Errors
    /// [`FormatError`] names the field and the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > TRUST_MAX_BYTES {
            return Err(refuse("file", "is too long"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|_| {
            refuse(
                "file",
                "is not the JSON of a trust file, or has an unknown field",
            )
        })?;
        if file.format != FORMAT {
            return Err(refuse("format", "is not known to this build: upgrade it"));
        }
        let custodian = |entry: &FileCustodian| {
            let current = read_descriptor(&entry.fingerprint, &entry.descriptor)?;
            if current.descriptor.id.as_str() != entry.id {
                return Err(refuse("id", "is not that of the descriptor beside it"));
            }
            let superseded = entry
                .superseded
                .iter()
                .map(|old| read_descriptor(&old.fingerprint, &old.descriptor));
            Ok(PinnedCustodian {
                current,
                superseded: superseded.collect::<Result<_, _>>()?,
            })
        };
        let sealer = |entry: &FileSealer| {
            Ok(PinnedSealer {
                name: entry.name.clone(),
                key: SealerKey::from_hex(&entry.public_key)?,
            })
        };
        let trust = Self {
            threshold: file.threshold,
            custodians: file
                .custodians
                .iter()
                .map(custodian)
                .collect::<Result<_, FormatError>>()?,
            sealers: file
                .sealers
                .iter()
                .map(sealer)
                .collect::<Result<_, FormatError>>()?,
        };
        trust.check()?;
        Ok(trust)
    }

    fn check(&self) -> Result<(), FormatError> {
        let n = self.custodians.len();
        // Fewer custodians than t are no error: where several daemons drive them, each writes a file of its own, and they are
        // pinned together afterwards. Nothing can be sealed before that: the header's rule is 2 <= t <= n <= 16.
        if n > usize::from(CUSTODIANS_MAX)
            || !(THRESHOLD_MIN..=CUSTODIANS_MAX).contains(&self.threshold)
        {
            return Err(refuse("threshold", "breaks 2 <= t <= 16, n <= 16"));
        }
        let ids: Vec<_> = self
            .custodians
            .iter()
            .map(|one| &one.current.descriptor.id)
            .collect();
        if ids
            .iter()
            .enumerate()
            .any(|(at, id)| ids[..at].contains(id))
        {
            return Err(refuse("custodians", "has one id twice"));
        }
        for (at, one) in self.custodians.iter().enumerate() {
            let own = &one.current.descriptor;
            let mut others = self.custodians[..at]
                .iter()
                .map(|one| &one.current.descriptor);
            if others.any(|other| own.shares_a_key_with(other)) {
                return Err(refuse(
                    "custodians",
                    "has one key in two descriptors: that token would hold two shares",
                ));
            }
            let fits =
                |old: &SignedDescriptor| old.descriptor.id == own.id && old.descriptor != *own;
            if !one.superseded.iter().all(fits) {
                return Err(refuse(
                    "superseded",
                    "has a descriptor that is in force, or is another custodian's",
                ));
            }
        }
        Ok(())
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        let pair = |signed: &SignedDescriptor| {
            (
                hex::encode(signed.descriptor.fingerprint().as_bytes()),
                STANDARD.encode(signed.encode()),
            )
        };
        let custodian = |one: &PinnedCustodian| {
            let (fingerprint, descriptor) = pair(&one.current);
            let old = |signed| {
                let (fingerprint, descriptor) = pair(signed);
                FileDescriptor {
                    fingerprint,
                    descriptor,
                }
            };
            let superseded = one.superseded.iter().map(old).collect();
            FileCustodian {
                id: one.current.descriptor.id.to_string(),
                fingerprint,
                descriptor,
                superseded,
            }
        };
        let sealer = |one: &PinnedSealer| FileSealer {
            name: one.name.clone(),
            public_key: one.key.to_string(),
        };
        let file = File {
            format: FORMAT.to_owned(),
            threshold: self.threshold,
            custodians: self.custodians.iter().map(custodian).collect(),
            sealers: self.sealers.iter().map(sealer).collect(),
        };
        serde_json::to_string_pretty(&file).expect("strings and numbers always serialise") + "\n"
    }

    /// Any pinned descriptor of that fingerprint, superseded ones included: for opening.
    ///
    /// # Errors
    /// [`TrustError::Unpinned`].
    pub fn any(&self, fingerprint: &Fingerprint) -> Result<&Descriptor, TrustError> {
        let all = self
            .custodians
            .iter()
            .flat_map(|one| std::iter::once(&one.current).chain(&one.superseded));
        all.map(|signed| &signed.descriptor)
            .find(|descriptor| descriptor.fingerprint() == *fingerprint)
            .ok_or(TrustError::Unpinned {
                fingerprint: *fingerprint,
            })
    }

    /// The descriptor of that fingerprint, if it is one in force: for sealing and ingesting.
    ///
    /// # Errors
    /// [`TrustError::Superseded`] or [`TrustError::Unpinned`].
    pub fn current(&self, fingerprint: &Fingerprint) -> Result<&Descriptor, TrustError> {
        let descriptor = self.any(fingerprint)?;
        let in_force = self
            .custodians
            .iter()
            .any(|one| one.current.descriptor.fingerprint() == *fingerprint);
        if in_force {
            Ok(descriptor)
        } else {
            Err(TrustError::Superseded {
                id: descriptor.id.clone(),
                fingerprint: *fingerprint,
            })
        }
    }

    /// Compares what a custodian presents with its pin.
    ///
    /// # Errors
    /// [`TrustError::Changed`] with every field that differs, or [`TrustError::Unpinned`] for an unknown id.
    pub fn check_presented(&self, presented: &Descriptor) -> Result<(), TrustError> {
        let pinned = self
            .custodians
            .iter()
            .find(|one| one.current.descriptor.id == presented.id);
        let pinned = pinned.ok_or(TrustError::Unpinned {
            fingerprint: presented.fingerprint(),
        })?;
        if pinned.current.descriptor.fingerprint() == presented.fingerprint() {
            return Ok(());
        }
        let differences = pinned.current.descriptor.differences(presented);
        Err(TrustError::Changed {
            id: presented.id.clone(),
            differences,
        })
    }

    /// Accepts a descriptor: new custodians are appended, a changed one supersedes the old.
    ///
    /// # Errors
    /// [`FormatError`] when the result would break the file's rules.
    pub fn pin(&mut self, presented: SignedDescriptor) -> Result<(), FormatError> {
        let before = self.clone();
        match self
            .custodians
            .iter_mut()
            .find(|one| one.current.descriptor.id == presented.descriptor.id)
        {
            Some(pinned) if pinned.current.descriptor == presented.descriptor => {}
            Some(pinned) => {
                let old = std::mem::replace(&mut pinned.current, presented);
                let now = &pinned.current.descriptor;
                pinned
                    .superseded
                    .retain(|earlier| earlier.descriptor != *now);
                pinned.superseded.insert(0, old);
            }
            None => self.custodians.push(PinnedCustodian {
                current: presented,
                superseded: Vec::new(),
            }),
        }
        self.check().inspect_err(|_| *self = before)
    }

    /// Adds a sealer, or renames one that is there.
    pub fn pin_sealer(&mut self, name: &str, key: SealerKey) {
        match self.sealers.iter_mut().find(|one| one.key == key) {
            Some(known) => name.clone_into(&mut known.name),
            None => self.sealers.push(PinnedSealer {
                name: name.to_owned(),
                key,
            }),
        }
    }

    /// The name under which a sealer is pinned.
    pub fn sealer_name(&self, key: &SealerKey) -> Option<&str> {
        self.sealers
            .iter()
            .find(|one| one.key == *key)
            .map(|one| one.name.as_str())
    }

    /// Descriptors in x order, for sealing.
    pub fn descriptors(&self) -> Vec<&Descriptor> {
        self.custodians
            .iter()
            .map(|one| &one.current.descriptor)
            .collect()
    }
}
