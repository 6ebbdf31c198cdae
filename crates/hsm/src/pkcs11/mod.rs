//! A token behind PKCS#11: the only room that names `cryptoki`.
//!
//! One thread calls the module. Objects are found by class and label, never by slot or handle number, and two matches are
//! refused. Two sessions: `home` owns the derived session keys and does nothing else, since objects die with the session that
//! made them; `work` does the calls, and can be replaced when an unfinished operation blocks it.

mod data;
mod find;
mod initialise;
mod login;
mod make;
mod objects;
mod rehearse;
mod rv;

use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::ekdf::AesCbcDeriveParams;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use custody::p256::Point;
use custody::rsa::RsaPublic;
use custody::{Kdf, OaepHash, Profile, sha256};
use subtle::ConstantTimeEq;

use crate::error::ErrorClass;
use crate::fips::Service;
use crate::pin::PinFile;
use crate::token::{
    DataObject, Fault, Hsm, Identity, Kind, MacKey, Outcome, Public, Reaction, Resident, Wrapper,
};

const MAC_LABEL: &str = "tacit/mac";

/// Which module, which token, which PIN.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The initialisation string of modules that want one (NSS).
    pub init_args: Option<CString>,
    /// The token's label.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// Whether only approved algorithms may be called.
    pub fips: bool,
    /// The PIN file and its latch.
    pub pin: PinFile,
}

/// An open token.
struct Live {
    identity: Identity,
    home: Session,
    work: Session,
}

/// A token behind a PKCS#11 module.
pub struct Token {
    settings: TokenSettings,
    module: Option<Pkcs11>,
    initialised: bool,
    live: Option<Live>,
    epoch: u64,
    /// Handles of resident objects, by label. Dropped with the sessions: handles may change then.
    handles: HashMap<String, ObjectHandle>,
    /// Which resident keys sign with CKM_ECDSA_SHA256; looked up once for each.
    hashing: HashMap<Resident, bool>,
    /// Whether this module keeps data as secrets' ids, once that is known; see `data`.
    carries: Option<bool>,
    /// Whether this process has read an agreed secret's attributes back.
    agreed_proven: bool,
    share_template: Vec<Attribute>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("module", &self.settings.module)
            .finish_non_exhaustive()
    }
}

/// Names a failed call.
trait During<T> {
    fn during(self, what: &str) -> Outcome<T>;
}

impl<T> During<T> for cryptoki::error::Result<T> {
    fn during(self, what: &str) -> Outcome<T> {
        self.map_err(|error| rv::fault(what, &error))
    }
}

impl Token {
    /// A token that is not reached yet.
    #[must_use]
    pub fn new(settings: TokenSettings) -> Token {
        Token {
            settings,
            module: None,
            initialised: false,
            live: None,
            epoch: 0,
            handles: HashMap::new(),
            hashing: HashMap::new(),
            carries: None,
            agreed_proven: false,
            share_template: objects::share(),
        }
    }

    fn live(&mut self) -> Outcome<&Live> {
        if self.live.is_none() {
            self.connect()?;
        }
        Ok(self.live.as_ref().expect("connected just above"))
    }

    fn work(&mut self) -> Outcome<&Session> {
        Ok(&self.live()?.work)
    }

    /// Session objects are gone, and handles may be others.
    fn lost_objects(&mut self) {
        self.epoch += 1;
        self.handles.clear();
        self.hashing.clear();
    }

    /// What signing keys are made for.
    fn signature(&self) -> MechanismType {
        if self.settings.fips {
            MechanismType::ECDSA_SHA256
        } else {
            MechanismType::ECDSA
        }
    }

    fn private_key(&mut self, key: Resident) -> Outcome<ObjectHandle> {
        self.resident(ObjectClass::PRIVATE_KEY, key.label())
    }

    fn kek(&mut self, compartment: &str) -> Outcome<ObjectHandle> {
        self.resident(ObjectClass::SECRET_KEY, &kek_label(compartment))
    }

    fn mac_key(&mut self) -> Outcome<ObjectHandle> {
        self.resident(ObjectClass::SECRET_KEY, MAC_LABEL)
    }

    fn create_secret(
        &mut self,
        label: &str,
        mechanism: &Mechanism<'_>,
        template: fn(&str, &[u8; 16]) -> Vec<Attribute>,
    ) -> Outcome<()> {
        // The id is drawn only for an object that is made: the first randomness of a process has to seed aws-lc's generator,
        // from CPU jitter, and that costs more than all the rest of a start.
        if self.find(ObjectClass::SECRET_KEY, label)?.is_none() {
            self.make(
                "generate a resident key",
                [template(label, &random_id())],
                |work, [template]| work.generate_key(mechanism, template),
            )?;
        }
        self.resident(ObjectClass::SECRET_KEY, label).map(|_| ())
    }

    /// Reads the first agreed secret of a process back: it is destroyed at once, and would be every share in transit.
    fn prove_agreed(&mut self, agreed: ObjectHandle) -> Outcome<()> {
        if self.agreed_proven {
            return Ok(());
        }
        if let Err(fault) = self.read_back(agreed, Kind::Agreed) {
            let _ = self.live()?.home.destroy_object(agreed);
            return Err(fault);
        }
        self.agreed_proven = true;
        Ok(())
    }

    fn hmac_with(&mut self, key: ObjectHandle, message: &[u8]) -> Outcome<[u8; 32]> {
        let mac = self
            .work()?
            .sign(&Mechanism::Sha256Hmac, key, message)
            .during("compute a MAC")?;
        mac.try_into().map_err(|_| {
            Fault::refuse(
                ErrorClass::ModuleUnfit,
                "the module's HMAC-SHA256 is not 32 bytes",
            )
        })
    }
}

impl Hsm for Token {
    type Object = ObjectHandle;

    fn ready(&mut self) -> Outcome<Identity> {
        let known = self.live.is_some();
        let live = self.live()?;
        if known {
            // A heartbeat on an idle token must notice that it was taken away.
            live.home
                .get_session_info()
                .during("ask after the session")?;
        }
        Ok(live.identity.clone())
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn recover(&mut self, reaction: Reaction) -> Outcome<()> {
        self.recover_from(reaction)
    }

    fn unlatch(&mut self) -> Outcome<()> {
        self.settings.pin.unlatch().map_err(|error| Fault {
            reaction: Reaction::Refuse,
            error,
        })
    }

    fn offers(&mut self, service: Service) -> Outcome<bool> {
        self.has(service)
    }

    fn rehearse(&mut self, profile: Profile) -> Outcome<()> {
        self.try_parameter(profile)
    }

    /// The key itself says it, since its allowed mechanisms were settled when it was made; where a module does not keep
    /// them, either would do.
    fn hashes(&mut self, key: Resident) -> Outcome<bool> {
        if let Some(known) = self.hashing.get(&key) {
            return Ok(*known);
        }
        let object = self.private_key(key)?;
        let found = self
            .work()?
            .get_attributes(object, &[AttributeType::AllowedMechanisms])
            .during("read a key's mechanisms")?;
        let allowed = found.into_iter().find_map(|attribute| match attribute {
            Attribute::AllowedMechanisms(list) if !list.is_empty() => Some(list),
            _ => None,
        });
        let hashes = allowed.map_or(self.settings.fips, |list| {
            list.contains(&MechanismType::ECDSA_SHA256)
        });
        self.hashing.insert(key, hashes);
        Ok(hashes)
    }

    fn create(&mut self, key: Resident) -> Outcome<()> {
        if self.find(ObjectClass::PRIVATE_KEY, key.label())?.is_none() {
            let mechanism = match key {
                Resident::RsaSeal => Mechanism::RsaPkcsKeyPairGen,
                _ => Mechanism::EccKeyPairGen,
            };
            let id = random_id();
            let templates = [
                objects::public(key, &id),
                objects::private(key, &id, self.signature()),
            ];
            self.make(
                "generate a resident key pair",
                templates,
                |work, [public, private]| work.generate_key_pair(&mechanism, public, private),
            )?;
        }
        self.private_key(key).map(|_| ())
    }

    fn create_mac(&mut self) -> Outcome<()> {
        self.create_secret(MAC_LABEL, &Mechanism::GenericSecretKeyGen, objects::mac)
    }

    fn create_kek(&mut self, compartment: &str) -> Outcome<()> {
        let label = kek_label(compartment);
        if self.handles.contains_key(&label) {
            return Ok(());
        }
        self.create_secret(&label, &Mechanism::AesKeyGen, objects::kek)
    }

    fn public(&mut self, key: Resident) -> Outcome<Public> {
        let private = self.private_key(key)?;
        let work = self.work()?;
        // The pair is joined by CKA_ID: a public object of the same name that an intruder made is not read.
        let id = work
            .get_attributes(private, &[AttributeType::Id])
            .during("read a key's id")?;
        let template: Vec<_> = id
            .into_iter()
            .chain([
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Token(true),
            ])
            .collect();
        let found = work.find_objects(&template).during("find a public key")?;
        let [public] = found.as_slice() else {
            let class = if found.is_empty() {
                ErrorClass::ObjectsMissing
            } else {
                ErrorClass::DuplicateObject
            };
            return Err(Fault::refuse(
                class,
                format!(
                    "{} public keys belong to {} on the token, not one",
                    found.len(),
                    key.label()
                ),
            ));
        };
        let wanted = [
            AttributeType::EcPoint,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
        ];
        let attributes = work
            .get_attributes(*public, &wanted)
            .during("read a public key")?;
        find::read_public(key, attributes)
    }

    fn derive(
        &mut self,
        own: Resident,
        peer: &Point,
        kdf: Kdf,
        context: &[u8; 32],
    ) -> Outcome<ObjectHandle> {
        let base = self.private_key(own)?;
        let home = &self.live()?.home;
        match kdf {
            Kdf::X963Sha256 => {
                let params = Ecdh1DeriveParams::new(EcKdf::sha256(context), peer.as_bytes());
                home.derive_key(
                    &Mechanism::Ecdh1Derive(params),
                    base,
                    &objects::session_key(),
                )
                .during("derive a session key")
            }
            Kdf::NullCbc => {
                let params = Ecdh1DeriveParams::new(EcKdf::null(), peer.as_bytes());
                let agreed = home
                    .derive_key(&Mechanism::Ecdh1Derive(params), base, &objects::agreed())
                    .during("agree on a secret")?;
                self.prove_agreed(agreed)?;
                let home = &self.live()?.home;
                let bind = Mechanism::AesCbcEncryptData(AesCbcDeriveParams::new([0; 16], context));
                let key = home
                    .derive_key(&bind, agreed, &objects::session_key())
                    .during("derive a session key");
                let destroyed = home
                    .destroy_object(agreed)
                    .during("destroy an agreed secret");
                let key = key?;
                destroyed?;
                Ok(key)
            }
        }
    }

    fn import(&mut self, agent: &RsaPublic) -> Outcome<ObjectHandle> {
        let (modulus, exponent) = agent.components();
        self.live()?
            .home
            .create_object(&objects::agent_key(modulus, exponent))
            .during("import an agent's key")
    }

    fn generate_probe(&mut self) -> Outcome<ObjectHandle> {
        let mut template = objects::share();
        template.push(Attribute::ValueLen(objects::ulong(objects::SHARE_LEN)));
        self.work()?
            .generate_key(&Mechanism::GenericSecretKeyGen, &template)
            .during("generate a self-test's secret")
    }

    fn unwrap(
        &mut self,
        wrapper: Wrapper<'_, ObjectHandle>,
        wrapped: &[u8],
    ) -> Outcome<ObjectHandle> {
        let (key, mechanism) = match wrapper {
            Wrapper::Kek(compartment) => (self.kek(compartment)?, Mechanism::AesKeyWrap),
            Wrapper::Session(key) => (key, Mechanism::AesKeyWrap),
            Wrapper::RsaSeal(hash) => (self.private_key(Resident::RsaSeal)?, oaep(hash)),
            Wrapper::RsaAgent(..) => {
                return Err(Fault::refuse(
                    ErrorClass::Device,
                    "an agent's public key cannot unwrap",
                ));
            }
        };
        self.live()?;
        let live = self.live.as_ref().expect("connected just above");
        live.work
            .unwrap_key(&mechanism, key, wrapped, &self.share_template)
            .during("unwrap a share")
    }

    fn wrap(
        &mut self,
        wrapper: Wrapper<'_, ObjectHandle>,
        share: ObjectHandle,
    ) -> Outcome<Vec<u8>> {
        let (key, mechanism, length) = match wrapper {
            Wrapper::Kek(compartment) => (
                self.kek(compartment)?,
                Mechanism::AesKeyWrap,
                Some(custody::session::WRAPPED_RECORD_BYTES),
            ),
            Wrapper::Session(key) => (
                key,
                Mechanism::AesKeyWrap,
                Some(custody::session::WRAPPED_RECORD_BYTES),
            ),
            Wrapper::RsaAgent(key, hash) => (key, oaep(hash), None),
            Wrapper::RsaSeal(_) => {
                return Err(Fault::refuse(
                    ErrorClass::Device,
                    "shares are never wrapped to the seal key",
                ));
            }
        };
        let mut wrapped = self
            .work()?
            .wrap_key(&mechanism, key, share)
            .during("wrap a share")?;
        // The binding returns its whole buffer, sized by the module's first answer, which may be larger than what was written.
        if let Some(length) = length {
            if wrapped.len() < length {
                return Err(Fault::refuse(
                    ErrorClass::ModuleUnfit,
                    "the module wraps a 64-byte share to less than 72 bytes",
                ));
            }
            wrapped.truncate(length);
        }
        Ok(wrapped)
    }

    fn read_back(&mut self, object: ObjectHandle, kind: Kind) -> Outcome<()> {
        let what = match kind {
            Kind::Share => "an unwrapped share",
            Kind::SessionKey => "a derived session key",
            Kind::Agreed => "an agreed secret",
        };
        self.compare(object, &objects::expected(kind), what)
    }

    fn destroy(&mut self, object: ObjectHandle) -> Outcome<()> {
        self.work()?
            .destroy_object(object)
            .during("destroy a session object")
    }

    fn hmac(&mut self, key: MacKey<ObjectHandle>, message: &[u8]) -> Outcome<[u8; 32]> {
        let key = match key {
            MacKey::Own => self.mac_key()?,
            MacKey::Share(share) => share,
        };
        self.hmac_with(key, message)
    }

    fn hmac_matches(&mut self, message: &[u8], mac: &[u8; 32]) -> Outcome<bool> {
        use cryptoki::error::{Error, RvError};
        let key = self.mac_key()?;
        let verified = self
            .work()?
            .verify(&Mechanism::Sha256Hmac, key, message, mac);
        let error = match verified {
            Ok(()) => return Ok(true),
            Err(Error::Pkcs11(RvError::SignatureInvalid | RvError::SignatureLenRange, _)) => {
                return Ok(false);
            }
            Err(error) => error,
        };
        // NSS answers a MAC that differs with whatever error came last. Where it could be that, the MAC is made again and
        // compared here; it is not told to anyone.
        let fault = rv::fault("verify a MAC", &error);
        if fault.reaction == Reaction::SelfTest
            && let Ok(right) = self.hmac_with(key, message)
            && !bool::from(right.ct_eq(mac))
        {
            return Ok(false);
        }
        Err(fault)
    }

    fn sign(&mut self, key: Resident, message: &[u8]) -> Outcome<[u8; 64]> {
        let hashes = self.hashes(key)?;
        let key = self.private_key(key)?;
        let work = self.work()?;
        let signature = if hashes {
            work.sign(&Mechanism::EcdsaSha256, key, message)
        } else {
            work.sign(&Mechanism::Ecdsa, key, &sha256(message))
        }
        .during("sign")?;
        signature.try_into().map_err(|_| {
            Fault::refuse(
                ErrorClass::ModuleUnfit,
                "the module's ECDSA signature is not r and s of 32 bytes",
            )
        })
    }

    fn read_data(&mut self, name: DataObject) -> Outcome<Vec<Vec<u8>>> {
        self.read_kept(name)
    }

    fn replace_data(&mut self, name: DataObject, value: &[u8]) -> Outcome<()> {
        self.replace_kept(name, value)
    }
}

fn kek_label(compartment: &str) -> String {
    format!("tacit/kek/{compartment}")
}

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .expect("aws-lc's generator does not fail once it is seeded");
    id
}

fn oaep(hash: OaepHash) -> Mechanism<'static> {
    let (hash, mgf) = match hash {
        OaepHash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        OaepHash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()))
}
