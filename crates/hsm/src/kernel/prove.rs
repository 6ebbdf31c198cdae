//! Proof by doing: the known-answer run that picks a profile, and the self-test that trusts a module no further than it works.
//!
//! Both read attributes back: a module that ignores them would hand shares out in clear, and is refused by name.

use aws_lc_rs::rand::{SecureRandom, SystemRandom as Source};
use custody::descriptor::SealKeys;
use custody::p256::KeyPair;
use custody::rsa::RsaKeyPair;
use custody::seal::seal_share;
use custody::session::{WrappingKey, deliver_context};
use custody::share::check_message;
use custody::{Kdf, Profile, ShareRecord, SystemRandom};
use secret::Secret;

use super::Kernel;
use crate::error::ErrorClass;
use crate::token::{Fault, Hsm, Kind, MacKey, Outcome, Public, Resident, Wrapper};

/// The compartment of self-tests; no provider is called so.
pub(super) const SELF_TEST: &str = "*self-test";
const SELF_TEST_SESSION: [u8; 16] = *b"tacit self-test.";

impl<H: Hsm> Kernel<H> {
    /// Seal, ingest, check, deliver, open, with the kernel's own code for a profile that was put in place.
    pub(super) fn run_known_answer(&mut self, profile: Profile) -> Outcome<()> {
        let (record, header_hash) = random_record();
        let own = self.own()?.signed.descriptor.clone();
        let sealed = seal_share(
            &own,
            SELF_TEST,
            &record,
            &header_hash,
            &mut SystemRandom::new(),
        )
        .map_err(|error| Fault::refuse(ErrorClass::ModuleUnfit, error.to_string()))?;
        let share = self.open_sealed(&header_hash, &sealed)?;
        let result = self.compare_share(profile, share, &record, &header_hash, &sealed);
        let destroyed = self.hsm.destroy(share);
        result?;
        destroyed
    }

    fn compare_share(
        &mut self,
        profile: Profile,
        share: H::Object,
        record: &ShareRecord,
        header_hash: &[u8; 32],
        sealed: &[u8],
    ) -> Outcome<()> {
        self.hsm.read_back(share, Kind::Share)?;
        let check = self
            .hsm
            .hmac(MacKey::Share(share), &check_message(header_hash))?;
        if check != record.check_value(header_hash) {
            return Err(differs("the check value of an ingested share"));
        }
        let (at_rest, wrapper) = match profile {
            Profile::EcdhKw(_) => (
                self.hsm.wrap(Wrapper::Kek(SELF_TEST), share)?,
                Wrapper::Kek(SELF_TEST),
            ),
            Profile::RsaOaep(hash) => (sealed.to_vec(), Wrapper::RsaSeal(hash)),
        };
        let again = self.hsm.unwrap(wrapper, &at_rest)?;
        let delivered = self.deliver_to_ourselves(profile, again);
        let destroyed = self.hsm.destroy(again);
        let delivered = delivered?;
        destroyed?;
        if delivered.check_value(header_hash) == record.check_value(header_hash) {
            Ok(())
        } else {
            Err(differs("a delivered share"))
        }
    }

    /// Delivers a self-test's share to a key of our own and opens it.
    fn deliver_to_ourselves(&mut self, profile: Profile, share: H::Object) -> Outcome<ShareRecord> {
        let opened = match profile {
            Profile::EcdhKw(kdf) => {
                let agent = KeyPair::generate(&mut SystemRandom::new());
                let Public::Ec(transport) = self.hsm.public(Resident::Transport)? else {
                    return Err(differs("the transport key"));
                };
                let context =
                    deliver_context(&self.settings.custodian, &SELF_TEST_SESSION, agent.public());
                let key = self
                    .hsm
                    .derive(Resident::Transport, agent.public(), kdf, &context)?;
                let wrapped = self
                    .hsm
                    .read_back(key, Kind::SessionKey)
                    .and_then(|()| self.hsm.wrap(Wrapper::Session(key), share));
                self.hsm.destroy(key)?;
                WrappingKey::derive(&agent, &transport, kdf, &context).unwrap(&wrapped?)
            }
            Profile::RsaOaep(hash) => {
                let agent = RsaKeyPair::generate()
                    .map_err(|error| Fault::refuse(ErrorClass::ModuleUnfit, error.to_string()))?;
                let object = self.hsm.import(agent.public())?;
                let wrapped = self.hsm.wrap(Wrapper::RsaAgent(object, hash), share);
                self.hsm.destroy(object)?;
                agent.decrypt(hash, &wrapped?)
            }
        };
        opened
            .map(ShareRecord::from_secret)
            .ok_or_else(|| differs("a delivered share"))
    }

    /// Generates a share-like secret inside the token, takes it through the wrapping that shares take, and reads the
    /// attributes of what comes out back: a module that ignores them is refused by name.
    pub(super) fn self_test(&mut self) -> Outcome<()> {
        match self.profile()? {
            Profile::EcdhKw(kdf) => {
                self.hsm.create_kek(SELF_TEST)?;
                self.probe_session_key(kdf)?;
                let probe = self.hsm.generate_probe()?;
                let result = self.round_trip(probe);
                self.hsm.destroy(probe)?;
                result
            }
            Profile::RsaOaep(_) => {
                let (record, header_hash) = random_record();
                let own = self.own()?.signed.descriptor.clone();
                let sealed = seal_share(
                    &own,
                    SELF_TEST,
                    &record,
                    &header_hash,
                    &mut SystemRandom::new(),
                )
                .map_err(|error| Fault::refuse(ErrorClass::ModuleUnfit, error.to_string()))?;
                let share = self.open_sealed(&header_hash, &sealed)?;
                let check = self.hsm.read_back(share, Kind::Share).and_then(|()| {
                    self.hsm
                        .hmac(MacKey::Share(share), &check_message(&header_hash))
                });
                self.hsm.destroy(share)?;
                if check? == record.check_value(&header_hash) {
                    Ok(())
                } else {
                    Err(differs("a check value"))
                }
            }
        }
    }

    fn probe_session_key(&mut self, kdf: Kdf) -> Outcome<()> {
        // The token agrees with a key of its own, as secret as their private halves, so that a start draws no randomness
        // (see `create_secret`).
        let SealKeys::Ecdh { seal: peer, .. } = self.own()?.signed.descriptor.seal else {
            return Err(differs("its profile"));
        };
        let context = deliver_context(&self.settings.custodian, &SELF_TEST_SESSION, &peer);
        let key = self.hsm.derive(Resident::Transport, &peer, kdf, &context)?;
        let result = self.hsm.read_back(key, Kind::SessionKey);
        self.hsm.destroy(key)?;
        result
    }

    fn round_trip(&mut self, probe: H::Object) -> Outcome<()> {
        let message = check_message(&[0; 32]);
        let before = self.hsm.hmac(MacKey::Share(probe), &message)?;
        let wrapped = self.hsm.wrap(Wrapper::Kek(SELF_TEST), probe)?;
        let again = self.hsm.unwrap(Wrapper::Kek(SELF_TEST), &wrapped)?;
        let after = self
            .hsm
            .read_back(again, Kind::Share)
            .and_then(|()| self.hsm.hmac(MacKey::Share(again), &message));
        self.hsm.destroy(again)?;
        if after? == before {
            Ok(())
        } else {
            Err(differs("an unwrapped share"))
        }
    }
}

/// A record that protects nothing, and a header hash for it.
fn random_record() -> (ShareRecord, [u8; 32]) {
    let (mut y, mut header_hash) = ([0; 32], [0; 32]);
    let source = Source::new();
    let filled = source
        .fill(&mut y)
        .and_then(|()| source.fill(&mut header_hash));
    filled.expect("aws-lc's generator does not fail once it is seeded");
    let y = Secret::new(Box::new(y));
    (ShareRecord::new(1, &y, &header_hash), header_hash)
}

pub(super) fn differs(what: &str) -> Fault {
    Fault::refuse(
        ErrorClass::ModuleUnfit,
        format!("the token does not agree with our software about {what}"),
    )
}
