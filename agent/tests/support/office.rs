//! Operator and tokens in software: custodians whose keys are held here, and keys sealed to them with `custody`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    dead_code,
    reason = "test support"
)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custody::descriptor::SealKeys;
use custody::p256::{KeyPair, Point};
use custody::rsa::{RsaKeyPair, RsaPublic};
use custody::session::{WrappingKey, deliver_context, seal_context};
use custody::trust::PinnedCustodian;
use custody::{
    Descriptor, FileSealer, Kdf, Profile, SealRequest, SealedKey, Sealer, SignedDescriptor,
    SystemRandom, Trust, seal,
};
use secret::Secret;

pub const KW: Profile = Profile::EcdhKw(Kdf::NullCbc);

/// A token's private halves.
enum Keys {
    Ecdh { seal: KeyPair, transport: KeyPair },
    Rsa(RsaKeyPair),
}

/// The public keys of an agent's session.
#[derive(Clone)]
pub struct AgentKeys {
    pub p256: Point,
    pub rsa: Option<RsaPublic>,
}

pub struct Custodian {
    pub descriptor: SignedDescriptor,
    keys: Keys,
}

impl Custodian {
    fn new(id: &str, profile: Profile) -> Self {
        let random = &mut SystemRandom::new();
        let signer = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = |key: &EcdsaKeyPair| Point::parse(key.public_key().as_ref()).unwrap();
        let sign = signer();
        let keys = match profile {
            Profile::EcdhKw(_) => Keys::Ecdh {
                seal: KeyPair::generate(random),
                transport: KeyPair::generate(random),
            },
            Profile::RsaOaep(_) => Keys::Rsa(RsaKeyPair::generate().unwrap()),
        };
        let seal = match &keys {
            Keys::Ecdh { seal, transport } => SealKeys::Ecdh {
                seal: *seal.public(),
                transport: *transport.public(),
            },
            Keys::Rsa(seal) => SealKeys::Rsa {
                seal: vec![("*".to_owned(), seal.public().clone())],
            },
        };
        let descriptor = Descriptor {
            id: id.parse().unwrap(),
            serial: format!("serial-{id}"),
            label: format!("tacit-{id}"),
            profile,
            seal,
            sign_descriptor: point(&sign),
            sign_statement: point(&signer()),
            sign_checkpoint: point(&signer()),
        };
        let signature = sign
            .sign(
                &aws_lc_rs::rand::SystemRandom::new(),
                &descriptor.signing_message(),
            )
            .unwrap();
        let signature = signature.as_ref().try_into().unwrap();
        Self {
            descriptor: SignedDescriptor {
                descriptor,
                signature,
            },
            keys,
        }
    }

    /// What the token does for a lease: out of the seal, into the session.
    pub fn deliver(
        &self,
        sealed: &[u8],
        header_hash: &[u8; 32],
        session: &[u8; 16],
        agent: &AgentKeys,
    ) -> Vec<u8> {
        let Descriptor { id, profile, .. } = &self.descriptor.descriptor;
        match (&self.keys, profile) {
            (Keys::Ecdh { seal, transport }, Profile::EcdhKw(kdf)) => {
                let ephemeral = Point::parse(&sealed[..65]).unwrap();
                let context = seal_context(id, header_hash, &ephemeral);
                let opened = WrappingKey::derive(seal, &ephemeral, *kdf, &context)
                    .unwrap(&sealed[65..])
                    .expect("the share opens");
                let context = deliver_context(id, session, &agent.p256);
                WrappingKey::derive(transport, &agent.p256, *kdf, &context)
                    .wrap(&opened)
                    .to_vec()
            }
            (Keys::Rsa(seal), Profile::RsaOaep(hash)) => {
                let opened = seal.decrypt(*hash, sealed).expect("the share opens");
                let rsa = agent.rsa.as_ref().expect("the session has an RSA key");
                rsa.encrypt(*hash, opened.expose()).unwrap()
            }
            _ => unreachable!("keys are made for the profile"),
        }
    }
}

/// Operator and tokens: makes sealed keys.
pub struct Office {
    pub custodians: Vec<Custodian>,
    sealer: FileSealer,
    pub trust: Trust,
}

impl Office {
    pub fn new() -> Self {
        Self::of([KW; 3])
    }

    pub fn of(profiles: [Profile; 3]) -> Self {
        Self::with(2, &profiles)
    }

    /// As many custodians as profiles, of which any `threshold` open a key.
    pub fn with(threshold: u8, profiles: &[Profile]) -> Self {
        let custodians: Vec<Custodian> = ["a", "b", "c", "d", "e"]
            .into_iter()
            .zip(profiles)
            .map(|(id, profile)| Custodian::new(id, *profile))
            .collect();
        let sealer = sealer();
        let pinned = |one: &Custodian| PinnedCustodian {
            current: one.descriptor.clone(),
            superseded: Vec::new(),
        };
        let mut trust = Trust {
            threshold,
            custodians: custodians.iter().map(pinned).collect(),
            sealers: Vec::new(),
        };
        trust.pin_sealer("office", sealer.public());
        Self {
            custodians,
            sealer,
            trust,
        }
    }

    pub fn seal(&self, id: &str, version: u32, origin: &str, secret: &str) -> SealedKey {
        self.seal_by(&self.sealer, id, version, origin, secret)
    }

    pub fn seal_by_stranger(
        &self,
        id: &str,
        version: u32,
        origin: &str,
        secret: &str,
    ) -> SealedKey {
        self.seal_by(&sealer(), id, version, origin, secret)
    }

    fn seal_by(
        &self,
        sealer: &FileSealer,
        id: &str,
        version: u32,
        origin: &str,
        secret: &str,
    ) -> SealedKey {
        let request = SealRequest {
            key_id: id.parse().unwrap(),
            version,
            generation: 1,
            provider: "openai".to_owned(),
            upstreams: vec![origin.parse().unwrap()],
            threshold: self.trust.threshold,
            custodians: self.trust.descriptors(),
            created_at: 1,
            challenges: 0,
        };
        let secret = Secret::from(secret.as_bytes().to_vec());
        seal(&request, &secret, sealer, &mut SystemRandom::new())
            .unwrap()
            .0
    }
}

fn sealer() -> FileSealer {
    FileSealer::from_seed(&FileSealer::generate_seed(&mut SystemRandom::new())).unwrap()
}
