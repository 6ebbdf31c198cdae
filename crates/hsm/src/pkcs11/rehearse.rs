//! What a token offers, found out without leaving anything on it: its list of mechanisms, and one step tried on session objects.
//!
//! Lists do not say which key derivations and OAEP hashes a module takes, so those are run.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::{Mechanism, MechanismInfo, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use custody::{OaepHash, Profile};

use super::{During, Token, find, oaep, objects, rv};
use crate::error::ErrorClass;
use crate::fips::Service;
use crate::token::{Fault, Hsm, Outcome, Public, Resident};

/// Bits of P-256, as CK_MECHANISM_INFO counts them.
const EC_BITS: usize = 256;
/// A trial's RSA key: the smallest that is approved, since it lives for one call.
const TRIAL_RSA_BITS: u64 = 2048;

impl Token {
    pub(super) fn has(&mut self, service: Service) -> Outcome<bool> {
        let module = self.loaded()?;
        let slot = self
            .work()?
            .get_session_info()
            .during("ask after the session")?
            .slot_id();
        match module.get_mechanism_info(slot, mechanism(service)) {
            Ok(info) => Ok(serves(service, &info)),
            Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => Ok(false),
            Err(error) => Err(rv::fault("ask for a mechanism", &error)),
        }
    }

    pub(super) fn try_parameter(&mut self, profile: Profile) -> Outcome<()> {
        match profile {
            Profile::EcdhKw(_) => self.try_kdf(),
            Profile::RsaOaep(hash) => self.try_oaep(hash),
        }
    }

    /// Derives a session key from a pair that lives for this call, with the token agreeing with itself.
    fn try_kdf(&mut self) -> Outcome<()> {
        let (public, private) = self.trial_pair(
            &Mechanism::EccKeyPairGen,
            objects::trial_ec(),
            "generate a trial's EC key",
        )?;
        let derived = (|| {
            let work = self.work()?;
            let attributes = work
                .get_attributes(public, &[AttributeType::EcPoint])
                .during("read a public key")?;
            let Public::Ec(peer) = find::read_public(Resident::Seal, attributes)? else {
                return Err(Fault::refuse(
                    ErrorClass::ModuleUnfit,
                    "a trial's key is not EC",
                ));
            };
            let context = [0; 32];
            let params = Ecdh1DeriveParams::new(EcKdf::sha256(&context), peer.as_bytes());
            work.derive_key(
                &Mechanism::Ecdh1Derive(params),
                private,
                &objects::session_key(),
            )
            .during("derive a session key")
        })();
        self.clear(&[public, private], derived)
    }

    /// Wraps a share-like secret to a pair that lives for this call, and unwraps it.
    fn try_oaep(&mut self, hash: OaepHash) -> Outcome<()> {
        let (public, private) = self.trial_pair(
            &Mechanism::RsaPkcsKeyPairGen,
            objects::trial_rsa(TRIAL_RSA_BITS),
            "generate a trial's RSA key",
        )?;
        let unwrapped = (|| {
            let probe = self.generate_probe()?;
            let work = self.work()?;
            let wrapped = work
                .wrap_key(&oaep(hash), public, probe)
                .during("wrap a share");
            let destroyed = work
                .destroy_object(probe)
                .during("destroy a session object");
            let wrapped = wrapped?;
            destroyed?;
            work.unwrap_key(&oaep(hash), private, &wrapped, &objects::share())
                .during("unwrap a share")
        })();
        self.clear(&[public, private], unwrapped)
    }

    fn trial_pair(
        &mut self,
        mechanism: &Mechanism<'_>,
        (public, private): (Vec<Attribute>, Vec<Attribute>),
        what: &str,
    ) -> Outcome<(ObjectHandle, ObjectHandle)> {
        self.work()?
            .generate_key_pair(mechanism, &public, &private)
            .during(what)
    }

    /// Destroys the pair, and what was made with it.
    fn clear(&mut self, pair: &[ObjectHandle], made: Outcome<ObjectHandle>) -> Outcome<()> {
        let work = self.work()?;
        let mut outcome = Ok(());
        for object in pair.iter().chain(made.as_ref().ok()) {
            let destroyed = work
                .destroy_object(*object)
                .during("destroy a session object");
            outcome = outcome.and(destroyed);
        }
        made.and(outcome)
    }
}

fn mechanism(service: Service) -> MechanismType {
    match service {
        Service::EcKeyPair => MechanismType::ECC_KEY_PAIR_GEN,
        Service::Ecdsa => MechanismType::ECDSA_SHA256,
        Service::SecretKey => MechanismType::GENERIC_SECRET_KEY_GEN,
        Service::Hmac => MechanismType::SHA256_HMAC,
        Service::Ecdh => MechanismType::ECDH1_DERIVE,
        Service::AesKey => MechanismType::AES_KEY_GEN,
        Service::AesKeyWrap => MechanismType::AES_KEY_WRAP,
        Service::RsaKeyPair => MechanismType::RSA_PKCS_KEY_PAIR_GEN,
        Service::RsaOaep => MechanismType::RSA_PKCS_OAEP,
    }
}

/// Whether the mechanism does what we call it for. Sizes are compared where every vendor counts them in bits.
fn serves(service: Service, info: &MechanismInfo) -> bool {
    let reaches = |bits: usize| {
        // A module that does not fill the sizes in leaves zeros.
        info.max_key_size() == 0 || (info.min_key_size() <= bits && bits <= info.max_key_size())
    };
    match service {
        Service::EcKeyPair => info.generate_key_pair() && reaches(EC_BITS),
        Service::RsaKeyPair => {
            info.generate_key_pair()
                && reaches(usize::try_from(objects::RSA_BITS).unwrap_or(usize::MAX))
        }
        Service::Ecdsa => info.sign() && reaches(EC_BITS),
        Service::Ecdh => info.derive() && reaches(EC_BITS),
        Service::SecretKey | Service::AesKey => info.generate(),
        Service::Hmac => info.sign() && info.verify(),
        Service::AesKeyWrap | Service::RsaOaep => info.wrap() && info.unwrap(),
    }
}
