//! The header of one key version: everything about it that is not secret, authenticated as a whole.

use crate::codec::{FormatError, Reader, Writer, sha256};
use crate::descriptor::Fingerprint;
use crate::names::{KeyId, Upstream};
use crate::sealer::SealerKey;
use crate::{CUSTODIANS_MAX, THRESHOLD_MIN};

const WHAT: &str = "key header";
const MAGIC: [u8; 4] = *b"TCHD";
const FORMAT: u8 = 1;

/// Most upstreams of one key: a handful of regional hosts and gateways.
const UPSTREAMS_MAX: usize = 64;
/// Longest encoded header: 64 upstreams of 280 bytes and 16 fingerprints fit.
pub const HEADER_MAX_BYTES: usize = 20 * 1024;

/// The algorithms of an envelope. The id stands in the header, so that another suite can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM-SIV (RFC 8452) under HKDF-SHA-256 of the DEK; Shamir over GF(2^8), 0x11d.
    Aes256GcmSiv,
}

impl Suite {
    fn id(self) -> u8 {
        match self {
            Suite::Aes256GcmSiv => 1,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        (id == 1).then_some(Suite::Aes256GcmSiv)
    }
}

/// Public parts of a sealed key version; the associated data of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Algorithms of the envelope.
    pub suite: Suite,
    /// Which key.
    pub key_id: KeyId,
    /// Version of the key, from 1.
    pub version: u32,
    /// How often this version was dealt anew (custodians replaced, t or n changed), from 1.
    pub generation: u32,
    /// Provider that the key belongs to, such as `openai`.
    pub provider: String,
    /// Origins that this key may ever be sent to. Invariant: not empty.
    pub upstreams: Vec<Upstream>,
    /// Shares needed. Invariant: 2 ≤ t ≤ n ≤ 16.
    pub threshold: u8,
    /// Descriptor fingerprints in x order: the share of `custodians[i]` has x = i + 1. Invariant: distinct.
    pub custodians: Vec<Fingerprint>,
    /// Public key of the operator's sealer.
    pub sealer: SealerKey,
    /// Unix time in seconds at which it was sealed.
    pub created_at: u64,
    /// HKDF(DEK, "commit"): the combiner knows a wrong DEK before it touches the envelope.
    pub commitment: [u8; 32],
}

impl Header {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.u8(self.suite.id());
        out.text(self.key_id.as_str())
            .u32(self.version)
            .u32(self.generation)
            .text(&self.provider);
        out.u8(u8::try_from(self.upstreams.len())
            .expect("at most UPSTREAMS_MAX: checked by the builder and the parser"));
        for upstream in &self.upstreams {
            out.text(&upstream.to_string());
        }
        out.u8(self.threshold);
        out.u8(u8::try_from(self.custodians.len())
            .expect("at most CUSTODIANS_MAX: checked by the builder and the parser"));
        for fingerprint in &self.custodians {
            out.fixed(fingerprint.as_bytes());
        }
        out.fixed(self.sealer.as_bytes())
            .u64(self.created_at)
            .fixed(&self.commitment);
        out.finish()
    }

    /// SHA-256 of the canonical encoding: the name under which everything else refers to this header.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.encode())
    }

    /// Parses and checks every rule of a header.
    ///
    /// # Errors
    /// [`FormatError`] names the field and the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let suite = Suite::from_id(from.u8()?)
            .ok_or_else(|| from.field("suite", "is not known to this build"))?;
        let key_id = from.text("key id", 128)?;
        let key_id = key_id
            .parse()
            .map_err(|_| from.field("key id", "breaks the rule for names"))?;
        let version = from.u32()?;
        let generation = from.u32()?;
        let provider = from.text("provider", 128)?.to_owned();
        let upstreams = read_upstreams(&mut from)?;
        let threshold = from.u8()?;
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("custodians", "are more than 16"));
        }
        let custodians = (0..count)
            .map(|_| from.array().map(Fingerprint::new))
            .collect::<Result<Vec<_>, _>>()?;
        let sealer = SealerKey::new(from.array()?);
        let created_at = from.u64()?;
        let commitment = from.array()?;
        from.end()?;
        let header = Self {
            suite,
            key_id,
            version,
            generation,
            provider,
            upstreams,
            threshold,
            custodians,
            sealer,
            created_at,
            commitment,
        };
        header.check()?;
        Ok(header)
    }

    /// The rules between fields, for parser and builder alike.
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        let field = |field, rule| {
            Err(FormatError::Field {
                what: WHAT,
                field,
                rule,
            })
        };
        if self.version == 0 || self.generation == 0 {
            return field("version", "and generation count from 1");
        }
        if self.provider.parse::<KeyId>().is_err() {
            return field("provider", "breaks the rule for names");
        }
        if self.upstreams.is_empty() || self.upstreams.len() > UPSTREAMS_MAX {
            return field("upstreams", "must be 1 to 64");
        }
        let n = self.custodians.len();
        if n > usize::from(CUSTODIANS_MAX)
            || self.threshold < THRESHOLD_MIN
            || usize::from(self.threshold) > n
        {
            return field("threshold", "breaks 2 <= t <= n <= 16");
        }
        if self
            .custodians
            .iter()
            .enumerate()
            .any(|(at, own)| self.custodians[..at].contains(own))
        {
            return field("custodians", "names one custodian twice");
        }
        Ok(())
    }

    /// 1-based index of the custodian with this fingerprint.
    pub fn index_of(&self, fingerprint: &Fingerprint) -> Option<u8> {
        let at = self.custodians.iter().position(|own| own == fingerprint)?;
        u8::try_from(at + 1).ok()
    }
}

fn read_upstreams(from: &mut Reader<'_>) -> Result<Vec<Upstream>, FormatError> {
    let count = from.u8()?;
    (0..count)
        .map(|_| {
            let text = from.text("upstreams", 300)?;
            let upstream: Upstream = text
                .parse()
                .map_err(|_| from.field("upstreams", "has an entry that is no origin"))?;
            // One value, one encoding: "https://HOST:443" would be the same origin under another hash.
            if upstream.to_string() == text {
                Ok(upstream)
            } else {
                Err(from.field("upstreams", "is not canonical"))
            }
        })
        .collect()
}
