//! `init`: creates what is missing, picks the profile by running it against our own software, and signs the descriptor.
//!
//! Resumable: each object is created only if it is missing, the descriptor is written last, and once it is there a second run
//! changes nothing. The same known-answer run, on the token alone, is the self-test.

use custody::descriptor::SealKeys;
use custody::p256::Point;
use custody::{Descriptor, Kdf, OaepHash, Profile, SignedDescriptor};

use super::approve::decided;
use super::prove::{SELF_TEST, differs};
use super::{Kernel, Own};
use crate::error::ErrorClass;
use crate::token::{DataObject, Fault, Hsm, Identity, Outcome, Public, Reaction, Resident};

/// In order of preference.
const CANDIDATES: [Profile; 4] = [
    Profile::EcdhKw(Kdf::X963Sha256),
    Profile::EcdhKw(Kdf::NullCbc),
    Profile::RsaOaep(OaepHash::Sha256),
    Profile::RsaOaep(OaepHash::Sha1),
];

impl<H: Hsm> Kernel<H> {
    pub(super) fn init(&mut self) -> Outcome<Vec<u8>> {
        let identity = self.hsm.ready()?;
        match self.own().map(|own| own.encoded.clone()) {
            Ok(encoded) => return Ok(encoded),
            Err(fault)
                if fault.error.class == ErrorClass::ObjectsMissing && !self.has_descriptor()? => {}
            Err(fault) => return Err(fault),
        }
        let mut candidates = self.candidates();
        if self.settings.fips {
            candidates = self.approved(&identity, &candidates)?;
        }
        let made = self.make_what_all_need();
        made.map_err(|fault| unable(&identity, fault))?;
        let profile = self.pick_profile(&identity, &candidates)?;
        let descriptor = self.describe(&identity, profile)?;
        let signature = self
            .hsm
            .sign(Resident::SignDescriptor, &descriptor.signing_message())?;
        let signed = SignedDescriptor {
            descriptor,
            signature,
        };
        let encoded = signed.encode();
        SignedDescriptor::parse(&encoded).map_err(|error| {
            Fault::refuse(
                ErrorClass::ModuleUnfit,
                format!("the token's own signature is wrong: {error}"),
            )
        })?;
        self.hsm.replace_data(DataObject::Descriptor, &encoded)?;
        self.own = None;
        Ok(self.own()?.encoded.clone())
    }

    fn make_what_all_need(&mut self) -> Outcome<()> {
        self.hsm.create_mac()?;
        for key in [
            Resident::SignDescriptor,
            Resident::SignStatement,
            Resident::SignCheckpoint,
        ] {
            self.hsm.create(key)?;
        }
        Ok(())
    }

    fn has_descriptor(&mut self) -> Outcome<bool> {
        Ok(!self.hsm.read_data(DataObject::Descriptor)?.is_empty())
    }

    /// The profiles that the operator leaves open.
    fn candidates(&self) -> Vec<Profile> {
        let pinned = self.settings.profile.as_deref();
        CANDIDATES
            .into_iter()
            .filter(|profile| pinned.is_none_or(|name| name == profile.name()))
            .collect()
    }

    /// The first profile that works on this token, both directions, byte for byte.
    fn pick_profile(&mut self, identity: &Identity, candidates: &[Profile]) -> Outcome<Profile> {
        let mut reasons = Vec::new();
        for profile in candidates {
            let reason = match self.known_answer(identity, *profile) {
                Ok(()) => return Ok(*profile),
                // What may pass when it is tried again must not decide the profile for good.
                Err(fault) => decided(fault)?,
            };
            let (name, mechanisms) = (profile.name(), profile.mechanisms());
            reasons.push(format!("{name} ({mechanisms}): {reason}"));
        }
        let pinned = self.settings.profile.as_deref().unwrap_or("any");
        Err(Fault::refuse(
            ErrorClass::ModuleUnfit,
            format!(
                "no profile ({pinned}) works on {}: {}",
                identity.module,
                reasons.join("; ")
            ),
        ))
    }

    /// Seal, ingest, check, deliver, open: a random record, our software on one side, the token on the other.
    fn known_answer(&mut self, identity: &Identity, profile: Profile) -> Outcome<()> {
        match profile {
            Profile::EcdhKw(_) => {
                self.hsm.create(Resident::Seal)?;
                self.hsm.create(Resident::Transport)?;
                self.hsm.create_kek(SELF_TEST)?;
            }
            Profile::RsaOaep(_) => self.hsm.create(Resident::RsaSeal)?,
        }
        let descriptor = self.describe(identity, profile)?;
        let fingerprint = descriptor.fingerprint();
        let signed = SignedDescriptor {
            descriptor,
            signature: [0; 64],
        };
        // The kernel's own code runs, as it will later; only the signature is still missing.
        self.own = Some(Own {
            encoded: Vec::new(),
            signed,
            fingerprint,
        });
        let result = self.run_known_answer(profile);
        self.own = None;
        result
    }

    fn describe(&mut self, identity: &Identity, profile: Profile) -> Outcome<Descriptor> {
        let seal = match profile {
            Profile::EcdhKw(_) => SealKeys::Ecdh {
                seal: self.point(Resident::Seal)?,
                transport: self.point(Resident::Transport)?,
            },
            Profile::RsaOaep(_) => match self.hsm.public(Resident::RsaSeal)? {
                Public::Rsa(key) => SealKeys::Rsa {
                    seal: vec![("*".to_owned(), key)],
                },
                Public::Ec(_) => return Err(differs("the RSA seal key")),
            },
        };
        Ok(Descriptor {
            id: self.settings.custodian.clone(),
            serial: identity.serial.clone(),
            label: identity.label.clone(),
            profile,
            seal,
            sign_descriptor: self.point(Resident::SignDescriptor)?,
            sign_statement: self.point(Resident::SignStatement)?,
            sign_checkpoint: self.point(Resident::SignCheckpoint)?,
        })
    }

    fn point(&mut self, key: Resident) -> Outcome<Point> {
        match self.hsm.public(key)? {
            Public::Ec(point) => Ok(point),
            Public::Rsa(_) => Err(differs(key.label())),
        }
    }

    /// The descriptor on the token, if it describes this token and the keys that are on it.
    pub(super) fn load_own(&mut self, identity: &Identity) -> Outcome<Own> {
        let stored = self.hsm.read_data(DataObject::Descriptor)?;
        let encoded = match stored.as_slice() {
            [] => {
                return Err(Fault::refuse(
                    ErrorClass::ObjectsMissing,
                    "the token has no descriptor: run `hsmd init --config FILE`",
                ));
            }
            [encoded] => encoded.clone(),
            _ => {
                return Err(Fault::refuse(
                    ErrorClass::DuplicateObject,
                    "two descriptors are on the token: remove the one that custodians.json does not pin",
                ));
            }
        };
        let signed = SignedDescriptor::parse(&encoded).map_err(|error| {
            Fault::refuse(
                ErrorClass::ObjectsMissing,
                format!("the descriptor on the token: {error}"),
            )
        })?;
        let described = &signed.descriptor;
        if described.id != self.settings.custodian || described.serial != identity.serial {
            let text = format!(
                "the token (serial {}) holds the descriptor of custodian {} on serial {}, not of {}: another token is in the slot, or it was copied",
                identity.serial, described.id, described.serial, self.settings.custodian
            );
            return Err(Fault::refuse(ErrorClass::WrongToken, text));
        }
        if self.settings.fips {
            self.is_approved(described.profile)?;
        }
        let mut present = self.describe(identity, described.profile)?;
        // A label may be changed by the vendor's tools; the serial and the keys say who the token is.
        present.label.clone_from(&described.label);
        if present != *described {
            let changed: Vec<_> = described
                .differences(&present)
                .into_iter()
                .map(|(field, ..)| field)
                .collect();
            let text = format!(
                "the token's keys are not those of its descriptor ({} differ): restore the token from its backup",
                changed.join(", ")
            );
            return Err(Fault::refuse(ErrorClass::ObjectsMissing, text));
        }
        let fingerprint = described.fingerprint();
        Ok(Own {
            signed,
            encoded,
            fingerprint,
        })
    }
}

/// A module that refuses what every profile stands on serves no custodian, and is named.
fn unable(identity: &Identity, fault: Fault) -> Fault {
    if fault.reaction != Reaction::Refuse || fault.error.class != ErrorClass::Device {
        return fault;
    }
    Fault::refuse(
        ErrorClass::ModuleUnfit,
        format!(
            "the module ({}) cannot make the keys that every custodian has: {}",
            identity.module, fault.error.text
        ),
    )
}
