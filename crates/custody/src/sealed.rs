//! A sealed key as it leaves the operator's machine: ciphertext, hashes and a signature, nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer, sha256};
use crate::dek::{ENVELOPE_MAX_BYTES, Envelope};
use crate::header::{HEADER_MAX_BYTES, Header};
use crate::manifest::{MANIFEST_MAX_BYTES, Manifest};
use crate::trust::{Trust, TrustError};

const WHAT: &str = "sealed key";
const MAGIC: [u8; 4] = *b"TCSK";
const FORMAT: u8 = 1;

/// Longest sealed share: RSA-4096.
pub const SEALED_SHARE_MAX_BYTES: usize = 512;
/// Longest encoded sealed key; fits a gRPC message.
pub const SEALED_KEY_MAX_BYTES: usize = 48 * 1024;

const ARMOR_BEGIN: &str = "-----BEGIN TACIT SEALED KEY-----";
const ARMOR_END: &str = "-----END TACIT SEALED KEY-----";

/// All parts of one sealed key version, as written by [`crate::seal()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Canonical header.
    pub header: Vec<u8>,
    /// Envelope (ciphertext).
    pub envelope: Vec<u8>,
    /// One sealed share per custodian, in x order.
    pub shares: Vec<Vec<u8>>,
    /// Canonical manifest.
    pub manifest: Vec<u8>,
    /// The sealer's Ed25519 signature over the manifest.
    pub signature: [u8; 64],
}

/// Why header, envelope, manifest and signature do not belong together, or are not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvenanceError {
    /// A part does not parse.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The header names a sealer that the trust file does not pin.
    #[error(
        "the key was sealed by {sealer}, which the trust file does not list; if it is yours: tacit trust pin --sealer NAME={sealer}"
    )]
    UnknownSealer {
        /// Its public key, hex.
        sealer: String,
    },
    /// The signature is not the sealer's over this manifest.
    #[error(
        "the sealer's signature does not verify: the manifest was changed, or signed by another key"
    )]
    Signature,
    /// The manifest names another header.
    #[error("the header is not the one that was signed")]
    Header,
    /// The manifest names another envelope.
    #[error("the envelope is not the one that was signed")]
    Envelope,
    /// A sealed share is not the one that was signed.
    #[error("the sealed share of custodian {x} is not the one that was signed")]
    Share {
        /// 1-based index in the header.
        x: u8,
    },
    /// Numbers of custodians, shares and manifest entries differ.
    #[error("header, manifest and shares name different numbers of custodians")]
    Counts,
    /// A custodian of the header is not pinned, or superseded.
    #[error(transparent)]
    Custodian(#[from] TrustError),
}

/// Header and manifest that were verified together against a trust file. The check is the only way to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    header: Header,
    header_hash: [u8; 32],
    manifest: Manifest,
}

impl Provenance {
    /// The header, now believed.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash.
    pub fn header_hash(&self) -> &[u8; 32] {
        &self.header_hash
    }

    /// The manifest, now believed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Checks that header and envelope are those of a manifest signed by a sealer that `trust` pins.
///
/// # Errors
/// [`ProvenanceError`], one variant per thing that can be swapped.
pub fn verify_provenance(
    trust: &Trust,
    header: &[u8],
    envelope: &[u8],
    manifest: &[u8],
    signature: &[u8; 64],
) -> Result<Provenance, ProvenanceError> {
    let parsed = Header::parse(header)?;
    Envelope::parse(envelope)?;
    let manifest = Manifest::parse(manifest)?;
    if trust.sealer_name(&parsed.sealer).is_none() {
        return Err(ProvenanceError::UnknownSealer {
            sealer: parsed.sealer.to_string(),
        });
    }
    if !parsed.sealer.verify(&manifest.signing_message(), signature) {
        return Err(ProvenanceError::Signature);
    }
    let header_hash = sha256(header);
    if manifest.header_hash != header_hash {
        return Err(ProvenanceError::Header);
    }
    if manifest.envelope_hash != sha256(envelope) {
        return Err(ProvenanceError::Envelope);
    }
    if manifest.entries.len() != parsed.custodians.len() {
        return Err(ProvenanceError::Counts);
    }
    Ok(Provenance {
        header: parsed,
        header_hash,
        manifest,
    })
}

impl SealedKey {
    /// The binary encoding, as submitted.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.bytes(&self.header).bytes(&self.envelope);
        out.u8(u8::try_from(self.shares.len())
            .expect("at most CUSTODIANS_MAX: checked by the builder and the parser"));
        for share in &self.shares {
            out.bytes(share);
        }
        out.bytes(&self.manifest).fixed(&self.signature);
        out.finish()
    }

    /// Parses strictly; see [`SealedKey::verify`] for belief.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let header = from.bytes("header", HEADER_MAX_BYTES)?.to_vec();
        let envelope = from.bytes("envelope", ENVELOPE_MAX_BYTES)?.to_vec();
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("shares", "are more than 16"));
        }
        let shares = (0..count)
            .map(|_| {
                from.bytes("shares", SEALED_SHARE_MAX_BYTES)
                    .map(<[u8]>::to_vec)
            })
            .collect::<Result<_, _>>()?;
        let manifest = from.bytes("manifest", MANIFEST_MAX_BYTES)?.to_vec();
        let signature = from.array()?;
        from.end()?;
        Ok(Self {
            header,
            envelope,
            shares,
            manifest,
            signature,
        })
    }

    /// Verifies everything that can be verified without opening a share, for ingesting: the custodians must be
    /// pinned and current.
    ///
    /// # Errors
    /// [`ProvenanceError`].
    pub fn verify(&self, trust: &Trust) -> Result<Provenance, ProvenanceError> {
        let provenance = verify_provenance(
            trust,
            &self.header,
            &self.envelope,
            &self.manifest,
            &self.signature,
        )?;
        if self.shares.len() != provenance.header.custodians.len() {
            return Err(ProvenanceError::Counts);
        }
        for (x, (share, entry)) in (1u8..).zip(self.shares.iter().zip(&provenance.manifest.entries))
        {
            if sha256(share) != entry.sealed_hash {
                return Err(ProvenanceError::Share { x });
            }
        }
        for fingerprint in &provenance.header.custodians {
            trust.current(fingerprint)?;
        }
        Ok(provenance)
    }

    /// Text form for files and mail: base64 between two marker lines.
    pub fn to_armor(&self) -> String {
        let encoded = STANDARD.encode(self.encode());
        let mut out = String::from(ARMOR_BEGIN);
        for (at, digit) in encoded.chars().enumerate() {
            if at % 64 == 0 {
                out.push('\n');
            }
            out.push(digit);
        }
        format!("{out}\n{ARMOR_END}\n")
    }

    /// Parses the text form; white space around it and between its digits is forgiven (mail adds some), nothing else.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_armor(text: &str) -> Result<Self, FormatError> {
        let refuse = |rule| FormatError::Field {
            what: WHAT,
            field: "armor",
            rule,
        };
        let inner = text
            .trim()
            .strip_prefix(ARMOR_BEGIN)
            .ok_or_else(|| refuse("does not begin with its marker line"))?;
        let inner = inner
            .strip_suffix(ARMOR_END)
            .ok_or_else(|| refuse("does not end with its marker line"))?;
        let digits: String = inner.split_ascii_whitespace().collect();
        if digits.len() > SEALED_KEY_MAX_BYTES * 2 {
            return Err(refuse("is too long"));
        }
        let bytes = STANDARD
            .decode(digits)
            .map_err(|_| refuse("is not base64"))?;
        Self::parse(&bytes)
    }
}
