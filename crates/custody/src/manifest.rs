//! The manifest: everything of a sealed key by hash, signed by the operator's sealer.

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};
use crate::share::CheckValue;

const WHAT: &str = "manifest";
const MAGIC: [u8; 4] = *b"TCMF";
const FORMAT: u8 = 1;
const DOMAIN: &str = "tacit/manifest/v1";

/// Longest encoded manifest: 16 entries of 64 bytes and 70 bytes of frame.
pub const MANIFEST_MAX_BYTES: usize = 2 * 1024;

/// What is signed about one custodian's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// HMAC under the share record; the token recomputes it at ingest.
    pub check: CheckValue,
    /// SHA-256 of the sealed share.
    pub sealed_hash: [u8; 32],
}

/// The list of hashes that the sealer signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of the header.
    pub header_hash: [u8; 32],
    /// SHA-256 of the envelope.
    pub envelope_hash: [u8; 32],
    /// One entry per custodian, in x order.
    pub entries: Vec<ManifestEntry>,
}

impl Manifest {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.fixed(&self.header_hash).fixed(&self.envelope_hash);
        out.u8(u8::try_from(self.entries.len())
            .expect("at most CUSTODIANS_MAX: checked by the builder and the parser"));
        for entry in &self.entries {
            out.fixed(&entry.check).fixed(&entry.sealed_hash);
        }
        out.finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let (header_hash, envelope_hash) = (from.array()?, from.array()?);
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("entries", "are more than 16"));
        }
        let entry = |from: &mut Reader<'_>| {
            Ok(ManifestEntry {
                check: from.array()?,
                sealed_hash: from.array()?,
            })
        };
        let entries = (0..count)
            .map(|_| entry(&mut from))
            .collect::<Result<_, FormatError>>()?;
        from.end()?;
        Ok(Self {
            header_hash,
            envelope_hash,
            entries,
        })
    }

    /// What the sealer signs.
    pub fn signing_message(&self) -> Vec<u8> {
        Writer::domain(DOMAIN).bytes(&self.encode()).finish()
    }
}
