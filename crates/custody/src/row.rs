//! What the MAC of a stored row covers, so that rows can be neither edited nor moved.

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};
use crate::descriptor::Fingerprint;
use crate::names::KeyId;
use crate::sealer::SealerKey;

const WHAT: &str = "share row";
const MAGIC: [u8; 4] = *b"TCRW";
const FORMAT: u8 = 1;

/// Which share a wrapped blob is: everything but the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowIdentity {
    /// Which key.
    pub key_id: KeyId,
    /// Its version.
    pub version: u32,
    /// Its generation.
    pub generation: u32,
    /// The share's index.
    pub x: u8,
    /// Whose KEK (or seal key) it is under.
    pub compartment: String,
    /// The custodian's descriptor.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the header.
    pub header_hash: [u8; 32],
    /// Who sealed it.
    pub sealer: SealerKey,
}

fn refuse(field: &'static str, rule: &'static str) -> FormatError {
    FormatError::Field {
        what: WHAT,
        field,
        rule,
    }
}

impl RowIdentity {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.text(self.key_id.as_str())
            .u32(self.version)
            .u32(self.generation)
            .u8(self.x)
            .text(&self.compartment);
        out.fixed(self.fingerprint.as_bytes())
            .fixed(&self.header_hash)
            .fixed(self.sealer.as_bytes());
        out.finish()
    }

    /// Parses strictly, with the rules of the header from which all of it is taken.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let key_id = from
            .text("key id", 128)?
            .parse()
            .map_err(|_| from.field("key id", "breaks the rule for names"))?;
        let (version, generation, x) = (from.u32()?, from.u32()?, from.u8()?);
        let compartment = from.text("compartment", 128)?.to_owned();
        let fingerprint = Fingerprint::new(from.array()?);
        let header_hash = from.array()?;
        let sealer = SealerKey::new(from.array()?);
        from.end()?;
        if version == 0 || generation == 0 {
            return Err(refuse("version", "and generation count from 1"));
        }
        if !(1..=CUSTODIANS_MAX).contains(&x) {
            return Err(refuse("x", "is not 1 to 16"));
        }
        if compartment.parse::<KeyId>().is_err() {
            return Err(refuse("compartment", "breaks the rule for names"));
        }
        Ok(Self {
            key_id,
            version,
            generation,
            x,
            compartment,
            fingerprint,
            header_hash,
            sealer,
        })
    }

    /// What the custodian's MAC key signs for this row: identity and SHA-256(wrapped share).
    pub fn mac_message(&self, wrapped_hash: &[u8; 32]) -> Vec<u8> {
        Writer::domain("tacit/mac/share/v1")
            .bytes(&self.encode())
            .fixed(wrapped_hash)
            .finish()
    }
}

/// What the custodian's MAC key signs for any other record of the store. The token process adds the prefix, so that
/// no caller can have a share row signed through this door.
pub fn record_mac_message(record: &[u8]) -> Vec<u8> {
    Writer::domain("tacit/mac/record/v1").bytes(record).finish()
}
