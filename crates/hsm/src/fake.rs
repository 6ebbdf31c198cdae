//! A token in software, for tests and for the contract suite. **No security whatever**: its keys lie in this process's memory.
//!
//! Nothing shipped makes one; it exists so that the kernel and the daemon can be tested without a module, under the same
//! contract suite as the real thing. It comes with handles to make it fail.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom as Source};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custody::p256::{KeyPair, Point};
use custody::rsa::{RsaKeyPair, RsaPublic};
use custody::session::WrappingKey;
use custody::{Kdf, Profile, ShareRecord, SystemRandom};
use secret::Secret;

use crate::error::{ErrorClass, HsmError};
use crate::fips::{Service, parameter};
use crate::token::{
    DataObject, Fault, Hsm, Identity, Kind, MacKey, Outcome, Public, Reaction, Resident, Wrapper,
};

enum Held {
    Share(ShareRecord),
    SessionKey(WrappingKey),
    Agent(RsaPublic),
}

/// The software token.
#[derive(Default)]
pub struct Fake {
    ec: HashMap<Resident, KeyPair>,
    signers: HashMap<Resident, EcdsaKeyPair>,
    rsa: Option<RsaKeyPair>,
    mac: Option<hmac::Key>,
    keks: HashMap<String, WrappingKey>,
    held: HashMap<u64, Held>,
    data: HashMap<DataObject, Vec<Vec<u8>>>,
    next: u64,
    epoch: u64,
    /// Profiles that this token refuses to run, by mechanism: `ecdh` and `rsa`.
    pub refuses: Vec<&'static str>,
    /// Mechanisms that its list does not have.
    pub lacks: Vec<Service>,
    /// Parameters that it refuses, by the names of [`parameter`].
    pub refuses_parameters: Vec<&'static str>,
    /// Whether its signing keys want a hash that was made outside.
    pub hashes_outside: bool,
    /// Faults to give, one per call of any method, before it works again.
    pub faults: VecDeque<Fault>,
    /// Whether it ignores CKA_SENSITIVE, as one module does.
    pub ignores_attributes: bool,
    /// Its serial number.
    pub serial: String,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

impl Fake {
    /// An empty token with this serial.
    #[must_use]
    pub fn new(serial: &str) -> Fake {
        Fake {
            serial: serial.to_owned(),
            ..Fake::default()
        }
    }

    /// How many session objects exist: shares must not pile up.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Loses all session objects, as a token does whose sessions were closed.
    pub fn drop_sessions(&mut self) {
        self.held.clear();
    }

    fn step(&mut self) -> Outcome<()> {
        self.faults.pop_front().map_or(Ok(()), Err)
    }

    fn hold(&mut self, held: Held) -> u64 {
        self.next += 1;
        self.held.insert(self.next, held);
        self.next
    }

    fn object(&self, object: u64) -> Outcome<&Held> {
        self.held.get(&object).ok_or_else(|| Fault {
            reaction: Reaction::NewSession,
            error: HsmError::new(ErrorClass::Device, "CKR_OBJECT_HANDLE_INVALID"),
        })
    }

    fn share(&self, object: u64) -> Outcome<&ShareRecord> {
        match self.object(object)? {
            Held::Share(share) => Ok(share),
            _ => Err(Fault::refuse(
                ErrorClass::Device,
                "CKR_KEY_TYPE_INCONSISTENT",
            )),
        }
    }

    fn wrapping(&self, wrapper: Wrapper<'_, u64>) -> Outcome<&WrappingKey> {
        match wrapper {
            Wrapper::Kek(compartment) => self
                .keks
                .get(compartment)
                .ok_or_else(|| missing(compartment)),
            Wrapper::Session(object) => match self.object(object)? {
                Held::SessionKey(key) => Ok(key),
                _ => Err(Fault::refuse(
                    ErrorClass::Device,
                    "CKR_KEY_TYPE_INCONSISTENT",
                )),
            },
            Wrapper::RsaSeal(_) | Wrapper::RsaAgent(..) => {
                Err(Fault::refuse(ErrorClass::Device, "CKR_MECHANISM_INVALID"))
            }
        }
    }

    fn mac_key(&self) -> Outcome<&hmac::Key> {
        self.mac.as_ref().ok_or_else(|| missing("tacit/mac"))
    }
}

fn missing(label: &str) -> Fault {
    Fault::refuse(
        ErrorClass::ObjectsMissing,
        format!("the object {label} is missing on the token: run `hsmd init --config FILE`"),
    )
}

/// What SoftHSM says of a blob that does not open.
fn unopened() -> Fault {
    Fault {
        reaction: Reaction::SelfTest,
        error: HsmError::new(ErrorClass::Device, "C_UnwrapKey returned CKR_GENERAL_ERROR"),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    Source::new()
        .fill(&mut bytes)
        .expect("aws-lc's generator does not fail once it is seeded");
    bytes
}

impl Hsm for Fake {
    type Object = u64;

    fn ready(&mut self) -> Outcome<Identity> {
        self.step()?;
        Ok(Identity {
            label: "fake".into(),
            serial: self.serial.clone(),
            module: "fake (no security)".into(),
        })
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn recover(&mut self, _reaction: Reaction) -> Outcome<()> {
        self.held.clear();
        self.epoch += 1;
        Ok(())
    }

    fn unlatch(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn offers(&mut self, service: Service) -> Outcome<bool> {
        self.step()?;
        Ok(!self.lacks.contains(&service))
    }

    fn rehearse(&mut self, profile: Profile) -> Outcome<()> {
        self.step()?;
        if self.refuses_parameters.contains(&parameter(profile)) {
            return Err(Fault::refuse(
                ErrorClass::Device,
                "CKR_MECHANISM_PARAM_INVALID",
            ));
        }
        Ok(())
    }

    fn hashes(&mut self, _key: Resident) -> Outcome<bool> {
        Ok(!self.hashes_outside)
    }

    fn create(&mut self, key: Resident) -> Outcome<()> {
        self.step()?;
        match key {
            Resident::Seal | Resident::Transport if self.refuses.contains(&"ecdh") => {
                return Err(Fault::refuse(ErrorClass::Device, "CKR_MECHANISM_INVALID"));
            }
            Resident::RsaSeal if self.refuses.contains(&"rsa") => {
                return Err(Fault::refuse(ErrorClass::Device, "CKR_MECHANISM_INVALID"));
            }
            Resident::Seal | Resident::Transport => {
                self.ec
                    .entry(key)
                    .or_insert_with(|| KeyPair::generate(&mut SystemRandom::new()));
            }
            Resident::RsaSeal => {
                if self.rsa.is_none() {
                    self.rsa =
                        Some(RsaKeyPair::generate().map_err(|error| {
                            Fault::refuse(ErrorClass::Device, error.to_string())
                        })?);
                }
            }
            Resident::SignDescriptor | Resident::SignStatement | Resident::SignCheckpoint => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                    .expect("aws-lc generates P-256 keys");
                self.signers.entry(key).or_insert(pair);
            }
        }
        Ok(())
    }

    fn create_mac(&mut self) -> Outcome<()> {
        self.step()?;
        self.mac
            .get_or_insert_with(|| hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()));
        Ok(())
    }

    fn create_kek(&mut self, compartment: &str) -> Outcome<()> {
        self.step()?;
        let fresh = || {
            WrappingKey::from_shared(&Secret::new(Box::new(random())), Kdf::X963Sha256, &random())
        };
        self.keks
            .entry(compartment.to_owned())
            .or_insert_with(fresh);
        Ok(())
    }

    fn public(&mut self, key: Resident) -> Outcome<Public> {
        self.step()?;
        let lost = || missing(key.label());
        match key {
            Resident::Seal | Resident::Transport => self
                .ec
                .get(&key)
                .map(|pair| Public::Ec(*pair.public()))
                .ok_or_else(lost),
            Resident::RsaSeal => self
                .rsa
                .as_ref()
                .map(|pair| Public::Rsa(pair.public().clone()))
                .ok_or_else(lost),
            Resident::SignDescriptor | Resident::SignStatement | Resident::SignCheckpoint => {
                let pair = self.signers.get(&key).ok_or_else(lost)?;
                let point = Point::parse(pair.public_key().as_ref())
                    .expect("aws-lc writes uncompressed points");
                Ok(Public::Ec(point))
            }
        }
    }

    fn derive(
        &mut self,
        own: Resident,
        peer: &Point,
        kdf: Kdf,
        context: &[u8; 32],
    ) -> Outcome<u64> {
        self.step()?;
        if self
            .refuses_parameters
            .contains(&parameter(Profile::EcdhKw(kdf)))
        {
            return Err(Fault::refuse(
                ErrorClass::Device,
                "CKR_MECHANISM_PARAM_INVALID",
            ));
        }
        let pair = self.ec.get(&own).ok_or_else(|| missing(own.label()))?;
        let key = WrappingKey::derive(pair, peer, kdf, context);
        Ok(self.hold(Held::SessionKey(key)))
    }

    fn import(&mut self, agent: &RsaPublic) -> Outcome<u64> {
        self.step()?;
        Ok(self.hold(Held::Agent(agent.clone())))
    }

    fn generate_probe(&mut self) -> Outcome<u64> {
        self.step()?;
        let share = ShareRecord::from_secret(Secret::new(Box::new(random())));
        Ok(self.hold(Held::Share(share)))
    }

    fn unwrap(&mut self, wrapper: Wrapper<'_, u64>, wrapped: &[u8]) -> Outcome<u64> {
        self.step()?;
        let record = match wrapper {
            Wrapper::RsaSeal(hash) => self
                .rsa
                .as_ref()
                .ok_or_else(|| missing("tacit/rsa-seal/*"))?
                .decrypt(hash, wrapped),
            other => self.wrapping(other)?.unwrap(wrapped),
        };
        let record = ShareRecord::from_secret(record.ok_or_else(unopened)?);
        Ok(self.hold(Held::Share(record)))
    }

    fn wrap(&mut self, wrapper: Wrapper<'_, u64>, share: u64) -> Outcome<Vec<u8>> {
        self.step()?;
        let share = self.share(share)?;
        let Wrapper::RsaAgent(agent, hash) = wrapper else {
            return Ok(self.wrapping(wrapper)?.wrap(share.as_secret()).to_vec());
        };
        let Held::Agent(agent) = self.object(agent)? else {
            return Err(Fault::refuse(
                ErrorClass::Device,
                "CKR_KEY_TYPE_INCONSISTENT",
            ));
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the fake has no inside to keep the share in"
        )]
        let record = share.as_secret().expose();
        agent
            .encrypt(hash, record)
            .map_err(|error| Fault::refuse(ErrorClass::Device, error.to_string()))
    }

    fn read_back(&mut self, object: u64, _kind: Kind) -> Outcome<()> {
        self.step()?;
        self.object(object)?;
        if self.ignores_attributes {
            return Err(Fault::refuse(
                ErrorClass::ModuleUnfit,
                "the module ignores Sensitive(true) of an unwrapped share",
            ));
        }
        Ok(())
    }

    fn destroy(&mut self, object: u64) -> Outcome<()> {
        self.object(object)?;
        self.held.remove(&object);
        Ok(())
    }

    fn hmac(&mut self, key: MacKey<u64>, message: &[u8]) -> Outcome<[u8; 32]> {
        self.step()?;
        match key {
            MacKey::Share(share) => Ok(self.share(share)?.hmac(message)),
            MacKey::Own => {
                let tag = hmac::sign(self.mac_key()?, message);
                Ok(tag.as_ref().try_into().expect("HMAC-SHA256 is 32 bytes"))
            }
        }
    }

    fn hmac_matches(&mut self, message: &[u8], mac: &[u8; 32]) -> Outcome<bool> {
        self.step()?;
        Ok(hmac::verify(self.mac_key()?, message, mac).is_ok())
    }

    fn sign(&mut self, key: Resident, message: &[u8]) -> Outcome<[u8; 64]> {
        self.step()?;
        let pair = self.signers.get(&key).ok_or_else(|| missing(key.label()))?;
        let signature = pair
            .sign(&Source::new(), message)
            .expect("aws-lc signs with its own keys");
        Ok(signature
            .as_ref()
            .try_into()
            .expect("a fixed P-256 signature is 64 bytes"))
    }

    fn read_data(&mut self, name: DataObject) -> Outcome<Vec<Vec<u8>>> {
        self.step()?;
        Ok(self.data.get(&name).cloned().unwrap_or_default())
    }

    fn replace_data(&mut self, name: DataObject, value: &[u8]) -> Outcome<()> {
        self.step()?;
        self.data.insert(name, vec![value.to_vec()]);
        Ok(())
    }
}
