//! What the tests of this crate share: a reproducible source of randomness and custodians in software.
//!
//! The custodians follow the written formats with primitives of their own (AES-KW and CBC over the bare block cipher,
//! HKDF over HMAC, Shamir by schoolbook multiplication), so that a mistake in the crate does not cancel itself out.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "shared by several test binaries; tests look at secrets and may panic"
)]

use std::convert::Infallible;
use std::sync::LazyLock;

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom as AwsRandom;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use aws_lc_rs::{digest, hmac};
use custody::descriptor::SealKeys;
use custody::open::{Delivered, Expectation, Material, OpenError, SessionKeys, check};
use custody::p256::{KeyPair, Point};
use custody::rsa::{RsaKeyPair, RsaPublic};
use custody::trust::{PinnedCustodian, PinnedSealer};
use custody::{
    Descriptor, FileSealer, Fingerprint, Header, Kdf, OaepHash, Profile, Receipt, SealRequest,
    SealedKey, Sealer, ShareRecord, SignedDescriptor, Trust, seal,
};
use rand_core::{TryCryptoRng, TryRng};
use secret::Secret;

/// A key that nobody can mistake for a real one.
pub const FAKE_KEY: &[u8] = b"tacit-test-vector-this-is-not-a-real-key-0001";

// --- randomness -----------------------------------------------------------------------------------------------------

/// SHA-256(seed ‖ counter as u64, big-endian), counter from 0; the blocks one after another, no byte skipped.
pub struct CounterRng {
    seed: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl CounterRng {
    pub fn new(seed: &str) -> Self {
        Self {
            seed: sha256(seed.as_bytes()),
            counter: 0,
            block: [0; 32],
            used: 32,
        }
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let Ok(()) = self.try_fill_bytes(&mut out);
        out
    }
}

impl TryRng for CounterRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.array()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.array()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            if self.used == 32 {
                self.block = sha256(&[&self.seed[..], &self.counter.to_be_bytes()].concat());
                self.counter += 1;
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for CounterRng {}

/// Gives one scalar: makes a [`KeyPair`] of a known private key.
struct Given([u8; 32]);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("a key pair draws bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("a key pair draws bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Given {}

pub fn key_pair(scalar: &[u8; 32]) -> KeyPair {
    KeyPair::generate(&mut Given(*scalar))
}

// --- primitives that are not the crate's ----------------------------------------------------------------------------

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .unwrap()
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().try_into().unwrap()
}

/// RFC 5869 with SHA-256, one block at most.
pub fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8]) -> [u8; 32] {
    let prk = hmac_sha256(salt, ikm);
    hmac_sha256(&prk, &[info, &[1]].concat())
}

/// ANSI X9.63 with SHA-256, one block at most.
pub fn x963_sha256(z: &[u8], info: &[u8]) -> [u8; 32] {
    sha256(&[z, &[0, 0, 0, 1], info].concat())
}

/// CBC (SP 800-38A, 6.2) over the bare block cipher, whole blocks only.
pub fn cbc_encrypt(key: &[u8; 32], iv: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let cipher = Aes256::new(key.into());
    let mut last = *iv;
    let mut out = Vec::new();
    for block in plain.chunks(16) {
        for (byte, other) in last.iter_mut().zip(block) {
            *byte ^= other;
        }
        let mut block = last.into();
        cipher.encrypt_block(&mut block);
        last = block.into();
        out.extend_from_slice(&last);
    }
    out
}

/// RFC 3394, 2.2.1 (the index version).
pub fn aes_kw_wrap(key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let cipher = Aes256::new(key.into());
    let mut a = [0xa6u8; 8];
    let mut r: Vec<[u8; 8]> = plain.chunks(8).map(|c| c.try_into().unwrap()).collect();
    let mut t = 0u64;
    for _ in 0..6 {
        for r in &mut r {
            t += 1;
            let mut block = [0u8; 16];
            block[..8].copy_from_slice(&a);
            block[8..].copy_from_slice(r);
            let mut block = block.into();
            cipher.encrypt_block(&mut block);
            a = (u64::from_be_bytes(block[..8].try_into().unwrap()) ^ t).to_be_bytes();
            *r = block[8..].try_into().unwrap();
        }
    }
    [&a[..], &r.concat()].concat()
}

/// RFC 3394, 2.2.2.
pub fn aes_kw_unwrap(key: &[u8; 32], wrapped: &[u8]) -> Option<Vec<u8>> {
    let cipher = Aes256::new(key.into());
    let mut a: [u8; 8] = wrapped[..8].try_into().unwrap();
    let mut r: Vec<[u8; 8]> = wrapped[8..]
        .chunks(8)
        .map(|c| c.try_into().unwrap())
        .collect();
    let mut t = 6 * u64::try_from(r.len()).unwrap();
    for _ in 0..6 {
        for r in r.iter_mut().rev() {
            let mut block = [0u8; 16];
            block[..8].copy_from_slice(&(u64::from_be_bytes(a) ^ t).to_be_bytes());
            block[8..].copy_from_slice(r);
            let mut block = block.into();
            cipher.decrypt_block(&mut block);
            a = block[..8].try_into().unwrap();
            *r = block[8..].try_into().unwrap();
            t -= 1;
        }
    }
    (a == [0xa6; 8]).then(|| r.concat())
}

/// Multiplication modulo x^8 + x^4 + x^3 + x^2 + 1 by long division.
pub fn gf_multiply(a: u8, b: u8) -> u8 {
    let mut wide = (0..8).fold(0u16, |wide, bit| {
        wide ^ (u16::from(b >> bit & 1) * (u16::from(a) << bit))
    });
    for bit in (8..16).rev() {
        if wide >> bit & 1 == 1 {
            wide ^= 0x11d << (bit - 8);
        }
    }
    u8::try_from(wide).unwrap()
}

fn gf_invert(a: u8) -> u8 {
    (1..=255)
        .find(|b| gf_multiply(a, *b) == 1)
        .expect("every element but zero has an inverse")
}

/// Shamir's dealing, from the paper: a polynomial of degree t - 1 per byte, its value at x = 1..=n.
pub fn deal(secret: &[u8; 32], t: u8, n: u8, rng: &mut CounterRng) -> Vec<[u8; 32]> {
    let polynomials: Vec<Vec<u8>> = secret
        .iter()
        .map(|byte| {
            let mut coefficients = vec![*byte];
            coefficients.extend((1..t).map(|_| rng.array::<1>()[0]));
            coefficients
        })
        .collect();
    (1..=n)
        .map(|x| {
            let mut y = [0; 32];
            for (out, polynomial) in y.iter_mut().zip(&polynomials) {
                let mut power = 1;
                for coefficient in polynomial {
                    *out ^= gf_multiply(*coefficient, power);
                    power = gf_multiply(power, x);
                }
            }
            y
        })
        .collect()
}

/// Lagrange at 0, by the book.
pub fn interpolate(shares: &[(u8, [u8; 32])]) -> [u8; 32] {
    let mut secret = [0; 32];
    for (x, y) in shares {
        let mut weight = 1;
        for (other, _) in shares {
            if other != x {
                weight = gf_multiply(weight, gf_multiply(*other, gf_invert(other ^ x)));
            }
        }
        for (out, y) in secret.iter_mut().zip(y) {
            *out ^= gf_multiply(weight, *y);
        }
    }
    secret
}

pub fn record_bytes(x: u8, y: &[u8; 32], header_hash: &[u8; 32]) -> [u8; 64] {
    [&b"TS\x01"[..], &[x], y, &header_hash[..28]]
        .concat()
        .try_into()
        .unwrap()
}

pub fn record(bytes: [u8; 64]) -> ShareRecord {
    ShareRecord::from_secret(Secret::new(Box::new(bytes)))
}

pub fn bytes_of(record: &ShareRecord) -> [u8; 64] {
    *record.as_secret().expose()
}

pub fn again(record: &ShareRecord) -> ShareRecord {
    self::record(bytes_of(record))
}

fn text(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    [&length.to_be_bytes()[..], value.as_bytes()].concat()
}

/// SHA-256 of the sealing context, as written in the format.
pub fn seal_context(id: &str, header_hash: &[u8; 32], ephemeral: &[u8]) -> [u8; 32] {
    sha256(&[b"tacit/seal/v1", &text(id)[..], header_hash, ephemeral].concat())
}

/// SHA-256 of the delivery context, as written in the format.
pub fn deliver_context(id: &str, session: &[u8; 16], agent: &[u8]) -> [u8; 32] {
    sha256(&[b"tacit/deliver/v1", &text(id)[..], session, agent].concat())
}

pub fn wrapping_key(kdf: Kdf, z: &[u8; 32], context: &[u8; 32]) -> [u8; 32] {
    match kdf {
        Kdf::NullCbc => cbc_encrypt(z, &[0; 16], context).try_into().unwrap(),
        Kdf::X963Sha256 => x963_sha256(z, context),
    }
}

fn ecdh(scalar: &[u8; 32], peer: &[u8]) -> [u8; 32] {
    let private = PrivateKey::from_private_key(&ECDH_P256, scalar).unwrap();
    agree(
        &private,
        UnparsedPublicKey::new(&ECDH_P256, peer),
        (),
        |z| Ok(z.try_into().unwrap()),
    )
    .unwrap()
}

fn oaep(hash: OaepHash) -> &'static OaepAlgorithm {
    match hash {
        OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
    }
}

// --- custodians in software -----------------------------------------------------------------------------------------

/// Three RSA-2048 keys (PKCS #8), made once per process: they take a tenth of a second each.
pub static RSA_KEYS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    [(); 3].map(|()| {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'static>>::as_der(&key)
            .unwrap()
            .as_ref()
            .to_vec()
    })
});

pub fn rsa_public(pkcs8: &[u8]) -> RsaPublic {
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8).unwrap();
    RsaPublic::parse(key.public_key().as_der().unwrap().as_ref()).unwrap()
}

/// The private keys of one custodian.
#[derive(Clone)]
pub struct TokenKeys {
    pub sign_descriptor: [u8; 32],
    pub sign_statement: [u8; 32],
    pub sign_checkpoint: [u8; 32],
    pub shares: ShareKeys,
}

#[derive(Clone)]
pub enum ShareKeys {
    Ecdh {
        kdf: Kdf,
        seal: [u8; 32],
        transport: [u8; 32],
    },
    /// Compartment and PKCS #8.
    Rsa {
        hash: OaepHash,
        seal: Vec<(String, Vec<u8>)>,
    },
}

impl ShareKeys {
    pub fn ecdh(kdf: Kdf, rng: &mut CounterRng) -> Self {
        Self::Ecdh {
            kdf,
            seal: rng.array(),
            transport: rng.array(),
        }
    }

    /// The `at`-th of [`RSA_KEYS`], for every compartment.
    pub fn rsa(hash: OaepHash, at: usize) -> Self {
        Self::Rsa {
            hash,
            seal: vec![("*".to_owned(), RSA_KEYS[at].clone())],
        }
    }
}

/// A custodian: descriptor and the keys behind it.
#[derive(Clone)]
pub struct Token {
    pub keys: TokenKeys,
    pub signed: SignedDescriptor,
}

pub fn sign_p256(scalar: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let public = key_pair(scalar);
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        scalar,
        public.public().as_bytes(),
    )
    .unwrap();
    let signature = pair.sign(&AwsRandom::new(), message).unwrap();
    signature.as_ref().try_into().unwrap()
}

fn public(scalar: &[u8; 32]) -> Point {
    *key_pair(scalar).public()
}

impl Token {
    pub fn new(id: &str, shares: ShareKeys, rng: &mut CounterRng) -> Self {
        let keys = TokenKeys {
            sign_descriptor: rng.array(),
            sign_statement: rng.array(),
            sign_checkpoint: rng.array(),
            shares,
        };
        let descriptor = Self::describe(id, &keys);
        let message = [
            b"tacit/descriptor/v1",
            &u32::try_from(descriptor.encode().len())
                .unwrap()
                .to_be_bytes()[..],
            &descriptor.encode(),
        ]
        .concat();
        let signature = sign_p256(&keys.sign_descriptor, &message);
        Self {
            signed: SignedDescriptor {
                descriptor,
                signature,
            },
            keys,
        }
    }

    pub fn describe(id: &str, keys: &TokenKeys) -> Descriptor {
        let (profile, seal) = match &keys.shares {
            ShareKeys::Ecdh {
                kdf,
                seal,
                transport,
            } => (
                Profile::EcdhKw(*kdf),
                SealKeys::Ecdh {
                    seal: public(seal),
                    transport: public(transport),
                },
            ),
            ShareKeys::Rsa { hash, seal } => {
                let key = |(name, key): &(String, Vec<u8>)| (name.clone(), rsa_public(key));
                (
                    Profile::RsaOaep(*hash),
                    SealKeys::Rsa {
                        seal: seal.iter().map(key).collect(),
                    },
                )
            }
        };
        Descriptor {
            id: id.parse().unwrap(),
            serial: format!("serial-{id}"),
            label: format!("tacit-{id}"),
            profile,
            seal,
            sign_descriptor: public(&keys.sign_descriptor),
            sign_statement: public(&keys.sign_statement),
            sign_checkpoint: public(&keys.sign_checkpoint),
        }
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.signed.descriptor
    }

    pub fn id(&self) -> &str {
        self.descriptor().id.as_str()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.descriptor().fingerprint()
    }

    /// Opens a share that was sealed to this custodian.
    pub fn ingest(&self, sealed: &[u8], header_hash: &[u8; 32]) -> Option<[u8; 64]> {
        let record = match &self.keys.shares {
            ShareKeys::Ecdh { kdf, seal, .. } => {
                let (ephemeral, wrapped) = sealed.split_at_checked(65)?;
                if wrapped.len() != 72 {
                    return None;
                }
                let context = seal_context(self.id(), header_hash, ephemeral);
                let key = wrapping_key(*kdf, &ecdh(seal, ephemeral), &context);
                aes_kw_unwrap(&key, wrapped)?
            }
            ShareKeys::Rsa { hash, seal } => {
                let key = PrivateDecryptingKey::from_pkcs8(&seal[0].1).unwrap();
                let key = OaepPrivateDecryptingKey::new(key).unwrap();
                let mut out = vec![0; key.min_output_size()];
                key.decrypt(oaep(*hash), sealed, &mut out, None)
                    .ok()?
                    .to_vec()
            }
        };
        record.try_into().ok()
    }

    /// The wrapping key towards one agent session (`ecdh-kw`).
    pub fn session_key(&self, session: &[u8; 16], agent: &Point) -> [u8; 32] {
        let ShareKeys::Ecdh { kdf, transport, .. } = &self.keys.shares else {
            unreachable!("asked of ecdh-kw custodians only")
        };
        let context = deliver_context(self.id(), session, agent.as_bytes());
        wrapping_key(*kdf, &ecdh(transport, agent.as_bytes()), &context)
    }

    /// Delivers a record to an agent's session.
    pub fn deliver(&self, record: &[u8; 64], session: &Session) -> Vec<u8> {
        match &self.keys.shares {
            ShareKeys::Ecdh { .. } => {
                let key = self.session_key(&session.id, session.keys.p256.public());
                aes_kw_wrap(&key, record)
            }
            ShareKeys::Rsa { hash, .. } => {
                let agent = session.keys.rsa.as_ref().expect("a session with RSA");
                agent.public().encrypt(*hash, record).unwrap()
            }
        }
    }
}

/// An agent's session.
pub struct Session {
    pub keys: SessionKeys,
    pub id: [u8; 16],
}

impl Session {
    pub fn new(rng: &mut CounterRng) -> Self {
        Self {
            keys: SessionKeys {
                p256: KeyPair::generate(rng),
                rsa: None,
            },
            id: rng.array(),
        }
    }

    pub fn with_rsa(rng: &mut CounterRng) -> Self {
        let mut session = Self::new(rng);
        session.keys.rsa = Some(RsaKeyPair::generate().unwrap());
        session
    }
}

/// A share as the daemon forwards it.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub x: u8,
    pub fingerprint: Fingerprint,
    pub wrapped: Vec<u8>,
}

/// Custodians, a sealer and the trust file that pins them.
pub struct World {
    pub tokens: Vec<Token>,
    pub sealer: FileSealer,
    pub trust: Trust,
}

impl World {
    pub fn new(threshold: u8, shares: Vec<ShareKeys>, rng: &mut CounterRng) -> Self {
        let tokens = (b'a'..)
            .zip(shares)
            .map(|(id, keys)| Token::new(&char::from(id).to_string(), keys, rng))
            .collect();
        Self::of(threshold, tokens, rng)
    }

    pub fn of(threshold: u8, tokens: Vec<Token>, rng: &mut CounterRng) -> Self {
        let sealer = FileSealer::from_seed(&FileSealer::generate_seed(rng)).unwrap();
        let trust = Trust {
            threshold,
            custodians: tokens
                .iter()
                .map(|token| PinnedCustodian {
                    current: token.signed.clone(),
                    superseded: Vec::new(),
                })
                .collect(),
            sealers: vec![PinnedSealer {
                name: "alice".to_owned(),
                key: sealer.public(),
            }],
        };
        Self {
            tokens,
            sealer,
            trust,
        }
    }

    /// t of n custodians with `ecdh-kw`.
    pub fn ecdh(t: u8, n: u8, kdf: Kdf, rng: &mut CounterRng) -> Self {
        let shares = (0..n).map(|_| ShareKeys::ecdh(kdf, rng)).collect();
        Self::new(t, shares, rng)
    }

    pub fn request(&self) -> SealRequest<'_> {
        SealRequest {
            key_id: "openai-prod".parse().unwrap(),
            version: 3,
            generation: 1,
            provider: "openai".to_owned(),
            upstreams: vec![
                "https://api.openai.com".parse().unwrap(),
                "https://gateway.example:8443".parse().unwrap(),
            ],
            threshold: self.trust.threshold,
            custodians: self.tokens.iter().map(Token::descriptor).collect(),
            created_at: 1_767_225_600,
            challenges: 2,
        }
    }

    pub fn seal(&self, rng: &mut CounterRng) -> (SealedKey, Receipt) {
        seal(
            &self.request(),
            &Secret::from(FAKE_KEY.to_vec()),
            &self.sealer,
            rng,
        )
        .unwrap()
    }

    /// What each custodian finds in its sealed share.
    pub fn records(&self, sealed: &SealedKey) -> Vec<[u8; 64]> {
        let hash = sha256(&sealed.header);
        let tokens = self.tokens.iter().zip(&sealed.shares);
        tokens
            .map(|(token, share)| token.ingest(share, &hash).expect("its own share"))
            .collect()
    }

    /// Deliveries of the custodians `xs` to `session`.
    pub fn deliver(&self, sealed: &SealedKey, session: &Session, xs: &[u8]) -> Vec<Parcel> {
        let records = self.records(sealed);
        let parcel = |x: &u8| {
            let at = usize::from(*x) - 1;
            Parcel {
                x: *x,
                fingerprint: self.tokens[at].fingerprint(),
                wrapped: self.tokens[at].deliver(&records[at], session),
            }
        };
        xs.iter().map(parcel).collect()
    }

    /// What an agent does, from the forwarded material to the provider key.
    pub fn open(
        &self,
        sealed: &SealedKey,
        session: &Session,
        parcels: &[Parcel],
    ) -> Result<Vec<u8>, OpenError> {
        open_as(&self.trust, sealed, session, parcels, &Ask::default())
    }
}

/// What the request of an agent is about.
pub struct Ask {
    pub key_id: String,
    pub provider: String,
    pub origin: String,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            key_id: "openai-prod".to_owned(),
            provider: "openai".to_owned(),
            origin: "https://api.openai.com".to_owned(),
        }
    }
}

pub fn open_as(
    trust: &Trust,
    sealed: &SealedKey,
    session: &Session,
    parcels: &[Parcel],
    ask: &Ask,
) -> Result<Vec<u8>, OpenError> {
    let by: Vec<_> = parcels.iter().map(|parcel| (session, parcel)).collect();
    open_across(trust, sealed, &by, ask)
}

/// Opens what came by several sessions.
pub fn open_across(
    trust: &Trust,
    sealed: &SealedKey,
    parcels: &[(&Session, &Parcel)],
    ask: &Ask,
) -> Result<Vec<u8>, OpenError> {
    let checked = check(
        trust,
        Material {
            header: &sealed.header,
            envelope: &sealed.envelope,
            manifest: &sealed.manifest,
            signature: &sealed.signature,
        },
        Expectation {
            key_id: &ask.key_id.parse().unwrap(),
            provider: &ask.provider,
            origin: &ask.origin.parse().unwrap(),
        },
    )?;
    let deliveries: Vec<_> = parcels
        .iter()
        .map(|(session, parcel)| Delivered {
            session: custody::open::Session {
                keys: &session.keys,
                id: &session.id,
            },
            x: parcel.x,
            fingerprint: parcel.fingerprint,
            wrapped: &parcel.wrapped,
        })
        .collect();
    let mut out = vec![0; checked.plaintext_len()];
    let outcome = checked.open(trust, &deliveries, &mut out);
    if let Err(error) = outcome {
        assert!(
            out.iter().all(|byte| *byte == 0),
            "a refusal leaves nothing in the buffer: {error}"
        );
        return Err(error);
    }
    Ok(out)
}

pub fn header(sealed: &SealedKey) -> Header {
    Header::parse(&sealed.header).unwrap()
}
