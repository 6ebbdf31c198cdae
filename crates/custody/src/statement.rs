//! The statement of `tacit key verify`: what the daemon and its tokens assert about a key, signed by the tokens.
//!
//! It says what it is. A daemon that lies can have a lie signed; for proof against that there is the receipt.

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};
use crate::descriptor::{Descriptor, Fingerprint, verify_p256};
use crate::names::KeyId;

const WHAT: &str = "statement";
const MAGIC: [u8; 4] = *b"TCST";
const FORMAT: u8 = 1;
const DOMAIN: &str = "tacit/statement/v1";

/// What one custodian found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The token recomputed the check value that the sealer signed.
    Holds,
    /// The token computed another one, or refused the row.
    Differs,
    /// The token did not answer.
    NoAnswer,
    /// The share was never ingested.
    NotIngested,
}

impl Finding {
    fn id(self) -> u8 {
        match self {
            Finding::Holds => 1,
            Finding::Differs => 2,
            Finding::NoAnswer => 3,
            Finding::NotIngested => 4,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        [
            Finding::Holds,
            Finding::Differs,
            Finding::NoAnswer,
            Finding::NotIngested,
        ]
        .into_iter()
        .find(|one| one.id() == id)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Finding::Holds => "holds its share",
            Finding::Differs => "does not hold the sealed share",
            Finding::NoAnswer => "did not answer",
            Finding::NotIngested => "has not ingested its share",
        }
    }
}

/// What is asserted, about one key version at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Which key.
    pub key_id: KeyId,
    /// Its version.
    pub version: u32,
    /// Its generation.
    pub generation: u32,
    /// SHA-256 of the header.
    pub header_hash: [u8; 32],
    /// SHA-256 of the envelope.
    pub envelope_hash: [u8; 32],
    /// Shares needed.
    pub threshold: u8,
    /// Descriptor fingerprint and finding, in x order.
    pub findings: Vec<(Fingerprint, Finding)>,
    /// Chosen by whoever asked.
    pub nonce: Vec<u8>,
    /// Position in the audit log: number of records, and the SHA-256 over the last one.
    pub audit_records: u64,
    /// SHA-256 of the last audit record.
    pub audit_hash: [u8; 32],
    /// Store revision.
    pub revision: u64,
    /// Unix time in seconds, by the daemon's clock.
    pub made_at: u64,
}

impl Statement {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.text(self.key_id.as_str())
            .u32(self.version)
            .u32(self.generation);
        out.fixed(&self.header_hash)
            .fixed(&self.envelope_hash)
            .u8(self.threshold);
        out.u8(
            u8::try_from(self.findings.len()).expect("at most CUSTODIANS_MAX: taken from a header")
        );
        for (fingerprint, finding) in &self.findings {
            out.fixed(fingerprint.as_bytes()).u8(finding.id());
        }
        out.bytes(&self.nonce)
            .u64(self.audit_records)
            .fixed(&self.audit_hash)
            .u64(self.revision)
            .u64(self.made_at);
        out.finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let key_id = from
            .text("key id", 128)?
            .parse()
            .map_err(|_| from.field("key id", "breaks the rule for names"))?;
        let (version, generation) = (from.u32()?, from.u32()?);
        let (header_hash, envelope_hash, threshold) = (from.array()?, from.array()?, from.u8()?);
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("findings", "are more than 16"));
        }
        let mut findings = Vec::with_capacity(count.into());
        for _ in 0..count {
            let fingerprint = Fingerprint::new(from.array()?);
            let finding = Finding::from_id(from.u8()?)
                .ok_or_else(|| from.field("findings", "has an unknown value"))?;
            findings.push((fingerprint, finding));
        }
        let nonce = from.bytes("nonce", 64)?.to_vec();
        let (audit_records, audit_hash, revision, made_at) =
            (from.u64()?, from.array()?, from.u64()?, from.u64()?);
        from.end()?;
        Ok(Self {
            key_id,
            version,
            generation,
            header_hash,
            envelope_hash,
            threshold,
            findings,
            nonce,
            audit_records,
            audit_hash,
            revision,
            made_at,
        })
    }

    /// Whether a token's signature over an encoded statement verifies under its pinned descriptor.
    pub fn verify_signature(descriptor: &Descriptor, encoded: &[u8], signature: &[u8]) -> bool {
        verify_p256(
            &descriptor.sign_statement,
            &signing_message(encoded),
            signature,
        )
    }
}

/// What a token signs for an encoded statement; the token process adds the prefix.
pub fn signing_message(encoded: &[u8]) -> Vec<u8> {
    Writer::domain(DOMAIN).bytes(encoded).finish()
}
