//! Sealing, offline: what `tacit key seal` does on the operator's machine with the trust file alone.

use rand_core::CryptoRng;
use secret::{Rule, Secret, check_header_safe};
use sharks::Sharks;
use zeroize::Zeroize;

use crate::codec::{FormatError, sha256};
use crate::dek::Dek;
use crate::descriptor::{Descriptor, Profile, SealKeys};
use crate::header::{Header, Suite};
use crate::manifest::{Manifest, ManifestEntry};
use crate::names::{KeyId, Upstream};
use crate::p256::KeyPair;
use crate::receipt::Receipt;
use crate::sealed::SealedKey;
use crate::sealer::Sealer;
use crate::session::{WrappingKey, seal_context};
use crate::share::ShareRecord;

/// What is to be sealed, and to whom.
#[derive(Debug, Clone)]
pub struct SealRequest<'a> {
    /// Which key.
    pub key_id: KeyId,
    /// Its version, from 1.
    pub version: u32,
    /// Its generation, from 1.
    pub generation: u32,
    /// Provider, such as `openai`. Also the compartment.
    pub provider: String,
    /// Origins that the key may ever be sent to.
    pub upstreams: Vec<Upstream>,
    /// Shares needed to open.
    pub threshold: u8,
    /// Pinned descriptors, in x order.
    pub custodians: Vec<&'a Descriptor>,
    /// Unix time in seconds.
    pub created_at: u64,
    /// One-time challenges per custodian for the operator's receipt; 0 for none.
    pub challenges: usize,
}

/// Why sealing failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The secret cannot stand in a header.
    #[error("the provider key is refused: {0}")]
    Secret(Rule),
    /// A field of the request breaks its rule.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A custodian that seals with RSA has no key for this compartment.
    #[error("custodian {custodian} has no seal key for compartment {compartment}")]
    Compartment {
        /// Its id.
        custodian: String,
        /// The provider's compartment.
        compartment: String,
    },
    /// The sealer did not sign.
    #[error("the sealer did not sign: {0}")]
    Sealer(String),
}

/// Encrypts, deals, seals each share to its custodian, and signs.
///
/// # Errors
/// [`SealError`]. The secret is never part of an error.
pub fn seal(
    request: &SealRequest<'_>,
    secret: &Secret<[u8]>,
    sealer: &dyn Sealer,
    random: &mut impl CryptoRng,
) -> Result<(SealedKey, Receipt), SealError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "checks the provider key before it is sealed"
    )]
    check_header_safe(secret.expose()).map_err(SealError::Secret)?;
    let dek = Dek::generate(random);
    let header = header(request, sealer, &dek);
    header.check()?;
    let (header_bytes, header_hash) = (header.encode(), header.hash());
    let envelope = dek.seal_envelope(&header_bytes, secret, random);

    let records = deal(&dek, &header, &header_hash, random);
    let mut shares = Vec::with_capacity(records.len());
    let mut entries = Vec::with_capacity(records.len());
    for (custodian, record) in request.custodians.iter().zip(&records) {
        let sealed = seal_share(custodian, &request.provider, record, &header_hash, random)?;
        entries.push(ManifestEntry {
            check: record.check_value(&header_hash),
            sealed_hash: sha256(&sealed),
        });
        shares.push(sealed);
    }
    let receipt = Receipt::new(&header, &header_hash, &records, request.challenges, random);

    let manifest = Manifest {
        header_hash,
        envelope_hash: sha256(&envelope),
        entries,
    };
    let signature = sealer
        .sign(&manifest.signing_message())
        .map_err(SealError::Sealer)?;
    let sealed = SealedKey {
        header: header_bytes,
        envelope,
        shares,
        manifest: manifest.encode(),
        signature,
    };
    Ok((sealed, receipt))
}

fn header(request: &SealRequest<'_>, sealer: &dyn Sealer, dek: &Dek) -> Header {
    Header {
        suite: Suite::Aes256GcmSiv,
        key_id: request.key_id.clone(),
        version: request.version,
        generation: request.generation,
        provider: request.provider.clone(),
        upstreams: request.upstreams.clone(),
        threshold: request.threshold,
        custodians: request
            .custodians
            .iter()
            .map(|custodian| custodian.fingerprint())
            .collect(),
        sealer: sealer.public(),
        created_at: request.created_at,
        commitment: dek.commitment(),
    }
}

/// Splits the DEK with `sharks`, which numbers shares from x = 1.
fn deal(
    dek: &Dek,
    header: &Header,
    header_hash: &[u8; 32],
    random: &mut impl CryptoRng,
) -> Vec<ShareRecord> {
    #[expect(clippy::disallowed_methods, reason = "splits the data key into shares")]
    let secret = dek.as_secret().expose();
    let dealer = Sharks(header.threshold).dealer_rng(secret, random);
    dealer
        .take(header.custodians.len())
        .map(|share| {
            let mut bytes: Vec<u8> = (&share).into();
            let mut y = Secret::<[u8; 32]>::zeroed();
            #[expect(
                clippy::disallowed_methods,
                reason = "moves the dealt share into its record"
            )]
            y.expose_mut().copy_from_slice(&bytes[1..]);
            let record = ShareRecord::new(bytes[0], &y, header_hash);
            bytes.zeroize();
            record
        })
        .collect()
}

/// Seals one record to one custodian, as its profile wants.
///
/// # Errors
/// [`SealError::Compartment`] or [`SealError::Format`].
pub fn seal_share(
    custodian: &Descriptor,
    compartment: &str,
    record: &ShareRecord,
    header_hash: &[u8; 32],
    random: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    match (&custodian.seal, custodian.profile) {
        (SealKeys::Ecdh { seal, .. }, Profile::EcdhKw(kdf)) => {
            let ephemeral = KeyPair::generate(random);
            let context = seal_context(&custodian.id, header_hash, ephemeral.public());
            let key = WrappingKey::derive(&ephemeral, seal, kdf, &context);
            Ok([
                &ephemeral.public().as_bytes()[..],
                &key.wrap(record.as_secret()),
            ]
            .concat())
        }
        (SealKeys::Rsa { seal }, Profile::RsaOaep(hash)) => {
            let key_of = |name: &str| seal.iter().find(|(own, _)| own == name).map(|(_, key)| key);
            let key = key_of(compartment).or_else(|| key_of("*")).ok_or_else(|| {
                SealError::Compartment {
                    custodian: custodian.id.to_string(),
                    compartment: compartment.to_owned(),
                }
            })?;
            #[expect(
                clippy::disallowed_methods,
                reason = "seals the record to its custodian"
            )]
            Ok(key.encrypt(hash, record.as_secret().expose())?)
        }
        (SealKeys::Ecdh { .. }, Profile::RsaOaep(_))
        | (SealKeys::Rsa { .. }, Profile::EcdhKw(_)) => Err(FormatError::Field {
            what: "custodian descriptor",
            field: "seal",
            rule: "does not fit its profile",
        }
        .into()),
    }
}
