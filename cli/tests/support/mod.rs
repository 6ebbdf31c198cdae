//! Custodians in software: real descriptors with real signatures, whose private halves the test forgets.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part"
)]

use aws_lc_rs::rand::SystemRandom as AwsRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custody::descriptor::SealKeys;
use custody::p256::{KeyPair, Point};
use custody::trust::{PinnedCustodian, PinnedSealer};
use custody::{Descriptor, Kdf, Profile, SealerKey, SignedDescriptor, SystemRandom, Trust};

/// A custodian that can sign statements.
pub struct SoftCustodian {
    pub signed: SignedDescriptor,
    statement: EcdsaKeyPair,
}

impl SoftCustodian {
    pub fn new(id: &str) -> Self {
        let mut random = SystemRandom::new();
        let descriptor_key = signing_key();
        let statement = signing_key();
        let descriptor = Descriptor {
            id: id.parse().unwrap(),
            serial: format!("0000{id}"),
            label: format!("tacit-{id}"),
            profile: Profile::EcdhKw(Kdf::NullCbc),
            seal: SealKeys::Ecdh {
                seal: *KeyPair::generate(&mut random).public(),
                transport: *KeyPair::generate(&mut random).public(),
            },
            sign_descriptor: point(&descriptor_key),
            sign_statement: point(&statement),
            sign_checkpoint: point(&signing_key()),
        };
        let signature = sign(&descriptor_key, &descriptor.signing_message());
        Self {
            signed: SignedDescriptor {
                descriptor,
                signature,
            },
            statement,
        }
    }

    pub fn sign_statement(&self, encoded: &[u8]) -> Vec<u8> {
        sign(
            &self.statement,
            &custody::statement::signing_message(encoded),
        )
        .to_vec()
    }
}

fn signing_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn point(key: &EcdsaKeyPair) -> Point {
    Point::parse(key.public_key().as_ref()).unwrap()
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> [u8; 64] {
    let signature = key.sign(&AwsRandom::new(), message).unwrap();
    signature.as_ref().try_into().unwrap()
}

/// Custodians a, b and c.
pub fn three() -> Vec<SoftCustodian> {
    ["a", "b", "c"].map(SoftCustodian::new).into()
}

/// A trust file of two of three.
pub fn trust(custodians: &[SoftCustodian], sealers: &[(&str, SealerKey)]) -> Trust {
    Trust {
        threshold: 2,
        custodians: custodians
            .iter()
            .map(|one| PinnedCustodian {
                current: one.signed.clone(),
                superseded: Vec::new(),
            })
            .collect(),
        sealers: sealers
            .iter()
            .map(|(name, key)| PinnedSealer {
                name: (*name).to_owned(),
                key: *key,
            })
            .collect(),
    }
}
