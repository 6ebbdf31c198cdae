//! A backup: one file with the daemon's store (sealed, as it rests), its audit log and its trust file, and a manifest that
//! custodians sign; and the acceptance with which an operator lets it be restored.
//!
//! `magic ‖ format ‖ manifest ‖ signatures ‖ parts`, the parts raw, in the manifest's order and of the lengths that it says,
//! to the last byte of the file. What can be told without a token: that t pinned custodians signed this manifest and that
//! every part is the one it names. What cannot: whether the store inside is believed; that takes t tokens.

mod acceptance;
mod check;

pub use acceptance::{ACCEPTANCE_MAX_BYTES, Acceptance, Accepted};
pub use check::{Checker, Defect};

use crate::codec::{FormatError, Reader, Writer, sha256};
use crate::descriptor::Fingerprint;
use crate::names::CustodianId;
use crate::statement::Statement;
use crate::trust::Trust;
use crate::{CUSTODIANS_MAX, THRESHOLD_MIN};

const FILE: &str = "backup";
const FILE_MAGIC: [u8; 4] = *b"TCBK";
const MANIFEST: &str = "backup manifest";
const MANIFEST_MAGIC: [u8; 4] = *b"TCBM";
const SIGNED_MAGIC: [u8; 4] = *b"TCBS";
const FORMAT: u8 = 1;

/// Parts of one backup: store, trust file, and ten years of audit files.
const PARTS_MAX: u32 = 4096;
/// Longest manifest: as many parts with their names.
const MANIFEST_MAX_BYTES: usize = 512 * 1024;
/// Longest head of a backup file: what has to be read before the parts begin.
pub const HEAD_MAX_BYTES: usize = MANIFEST_MAX_BYTES + 4096;
/// The store's part.
pub const STORE: &str = "store";
/// The trust file's part.
pub const TRUST: &str = "trust";
/// What the names of the audit log's parts begin with.
pub const AUDIT: &str = "audit/";

/// One part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartEntry {
    /// `store`, `trust`, or `audit/audit-YYYY-MM-DD.jsonl`: nothing else is ever a file name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of it.
    pub hash: [u8; 32],
}

/// A token that holds a share of the keys inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The custodian.
    pub id: CustodianId,
    /// The token's serial number.
    pub serial: String,
    /// Its label.
    pub label: String,
    /// Its descriptor.
    pub fingerprint: Fingerprint,
}

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupManifest {
    /// Version of the daemon that made it.
    pub version: String,
    /// Unix seconds, by the daemon's clock.
    pub made_at: u64,
    /// The store's revision.
    pub revision: u64,
    /// Digest of its inventory.
    pub digest: [u8; 32],
    /// Number of the key that its rows are under.
    pub epoch: u32,
    /// Records of the audit log inside.
    pub audit_records: u64,
    /// SHA-256 of the last one.
    pub audit_hash: [u8; 32],
    /// Tokens that a restore takes.
    pub threshold: u8,
    /// All tokens, by id.
    pub tokens: Vec<TokenEntry>,
    /// All parts: store, trust file, then the audit log by day.
    pub parts: Vec<PartEntry>,
}

/// The place of a part in the one order, or nothing when it is no name of ours.
fn rank(name: &str) -> Option<(u8, &str)> {
    match name {
        STORE => Some((0, "")),
        TRUST => Some((1, "")),
        _ => {
            let day = name.strip_prefix("audit/audit-")?.strip_suffix(".jsonl")?;
            let digit = |(at, byte): (usize, u8)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            };
            let fits = day.len() == 10 && day.bytes().enumerate().all(digit);
            fits.then_some((2, day))
        }
    }
}

impl BackupManifest {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MANIFEST_MAGIC, FORMAT);
        out.text(&self.version)
            .u64(self.made_at)
            .u64(self.revision)
            .fixed(&self.digest)
            .u32(self.epoch)
            .u64(self.audit_records)
            .fixed(&self.audit_hash)
            .u8(self.threshold);
        out.u8(u8::try_from(self.tokens.len()).expect("at most CUSTODIANS_MAX: a trust file's"));
        for token in &self.tokens {
            out.text(token.id.as_str())
                .text(&token.serial)
                .text(&token.label)
                .fixed(token.fingerprint.as_bytes());
        }
        out.u32(u32::try_from(self.parts.len()).expect("files of a directory"));
        for part in &self.parts {
            out.text(&part.name).u64(part.length).fixed(&part.hash);
        }
        out.finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(MANIFEST, MANIFEST_MAGIC, FORMAT, bytes)?;
        let mut manifest = Self {
            version: from.text("version", 64)?.to_owned(),
            made_at: from.u64()?,
            revision: from.u64()?,
            digest: from.array()?,
            epoch: from.u32()?,
            audit_records: from.u64()?,
            audit_hash: from.array()?,
            threshold: from.u8()?,
            tokens: Vec::new(),
            parts: Vec::new(),
        };
        let count = from.u8()?;
        if count > CUSTODIANS_MAX
            || manifest.threshold < THRESHOLD_MIN
            || manifest.threshold > count
        {
            return Err(from.field("threshold", "breaks 2 <= t <= n <= 16"));
        }
        for _ in 0..count {
            let token = TokenEntry {
                id: from
                    .text("custodian", 128)?
                    .parse()
                    .map_err(|_| from.field("custodian", "breaks the rule for names"))?,
                serial: from.text("serial", 64)?.to_owned(),
                label: from.text("label", 64)?.to_owned(),
                fingerprint: Fingerprint::new(from.array()?),
            };
            if manifest
                .tokens
                .last()
                .is_some_and(|last| last.id >= token.id)
            {
                return Err(from.field("custodians", "are not sorted, or name one twice"));
            }
            manifest.tokens.push(token);
        }
        let count = from.u32()?;
        if count > PARTS_MAX {
            return Err(from.field("parts", "are more than 4096"));
        }
        for _ in 0..count {
            let part = PartEntry {
                name: from.text("part", 64)?.to_owned(),
                length: from.u64()?,
                hash: from.array()?,
            };
            let place = rank(&part.name).ok_or_else(|| from.field("part", "has no known name"))?;
            let before = manifest.parts.last().and_then(|last| rank(&last.name));
            if before.is_some_and(|before| before >= place) {
                return Err(from.field("parts", "are not in their order, or one is there twice"));
            }
            manifest.parts.push(part);
        }
        from.end()?;
        let has = |name| manifest.parts.iter().any(|part| part.name == name);
        if !has(STORE) || !has(TRUST) {
            return Err(FormatError::Field {
                what: MANIFEST,
                field: "parts",
                rule: "lack the store or the trust file",
            });
        }
        Ok(manifest)
    }

    /// Bytes of all parts together; `None` when that is no number.
    pub fn parts_bytes(&self) -> Option<u64> {
        let mut lengths = self.parts.iter().map(|part| part.length);
        lengths.try_fold(0u64, |sum: u64, length| sum.checked_add(length))
    }

    /// SHA-256 of the encoding: names the backup.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.encode())
    }

    /// What custodians sign, through the door for statements: its magic keeps it from being one.
    pub fn statement(&self) -> Vec<u8> {
        Writer::new(SIGNED_MAGIC, FORMAT)
            .fixed(&self.hash())
            .finish()
    }
}

/// What stands in a backup file before the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub manifest: BackupManifest,
    /// Who signed that, by rising fingerprint.
    pub signatures: Vec<(Fingerprint, [u8; 64])>,
}

/// What signatures under a manifest are worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouchers {
    /// Pinned custodians whose signature verifies.
    pub good: Vec<String>,
    /// Pinned custodians whose signature does not: the manifest is not what they signed.
    pub bad: Vec<String>,
    /// Signatures of custodians that the trust file does not know.
    pub unknown: usize,
}

impl Head {
    /// The bytes before the parts.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(FILE_MAGIC, FORMAT);
        out.bytes(&self.manifest.encode());
        out.u8(u8::try_from(self.signatures.len()).expect("at most CUSTODIANS_MAX"));
        for (custodian, signature) in &self.signatures {
            out.fixed(custodian.as_bytes()).fixed(signature);
        }
        out.finish()
    }

    /// The head at the front of `bytes` and how many of them it takes, or `None` when more are needed. Nobody needs more
    /// than [`HEAD_MAX_BYTES`].
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, FormatError> {
        match Self::parse_whole(bytes) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(FormatError::Short { what: FILE }) if bytes.len() < HEAD_MAX_BYTES => Ok(None),
            Err(FormatError::Magic { what: FILE }) if FILE_MAGIC.starts_with(bytes) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse_whole(bytes: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut from = Reader::new(FILE, FILE_MAGIC, FORMAT, bytes)?;
        let encoded = from.bytes("manifest", MANIFEST_MAX_BYTES)?;
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("signatures", "are more than 16"));
        }
        let mut signatures: Vec<(Fingerprint, [u8; 64])> = Vec::new();
        for _ in 0..count {
            let custodian = Fingerprint::new(from.array()?);
            let last = signatures.last().map(|(last, _)| last.as_bytes());
            if last.is_some_and(|last| last >= custodian.as_bytes()) {
                return Err(from.field("signatures", "are not sorted, or one is there twice"));
            }
            signatures.push((custodian, from.array()?));
        }
        let used = 5 + 4 + encoded.len() + 1 + signatures.len() * 96;
        let manifest = BackupManifest::parse(encoded)?;
        Ok((
            Self {
                manifest,
                signatures,
            },
            used,
        ))
    }

    /// What the signatures are worth under this trust file. A custodian that was replaced still vouches for what it signed.
    pub fn vouchers(&self, trust: &Trust) -> Vouchers {
        let (statement, mut good, mut bad) = (self.manifest.statement(), Vec::new(), Vec::new());
        let mut unknown = 0;
        for (custodian, signature) in &self.signatures {
            match trust.any(custodian) {
                Err(_) => unknown += 1,
                Ok(one) if Statement::verify_signature(one, &statement, signature) => {
                    good.push(one.id.to_string());
                }
                Ok(one) => bad.push(one.id.to_string()),
            }
        }
        good.sort();
        good.dedup();
        Vouchers { good, bad, unknown }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn manifest() -> BackupManifest {
        let token = |id: &str| TokenEntry {
            id: id.parse().unwrap(),
            serial: "s".into(),
            label: "l".into(),
            fingerprint: Fingerprint::new([1; 32]),
        };
        let part = |name: &str| PartEntry {
            name: name.into(),
            length: 3,
            hash: [2; 32],
        };
        BackupManifest {
            version: "0.1.0".into(),
            made_at: 1,
            revision: 2,
            digest: [3; 32],
            epoch: 1,
            audit_records: 4,
            audit_hash: [5; 32],
            threshold: 2,
            tokens: vec![token("a"), token("b")],
            parts: vec![
                part(STORE),
                part(TRUST),
                part("audit/audit-2026-01-01.jsonl"),
                part("audit/audit-2026-01-02.jsonl"),
            ],
        }
    }

    #[test]
    fn a_head_has_one_encoding_and_says_when_more_is_needed() {
        let head = Head {
            manifest: manifest(),
            signatures: vec![
                (Fingerprint::new([1; 32]), [6; 64]),
                (Fingerprint::new([2; 32]), [7; 64]),
            ],
        };
        let mut bytes = head.encode();
        let length = bytes.len();
        bytes.extend_from_slice(b"the parts");
        assert_eq!(Head::parse(&bytes), Ok(Some((head, length))));
        for cut in 0..length {
            assert_eq!(Head::parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        bytes[0] ^= 1;
        assert!(Head::parse(&bytes).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_and_parts_out_of_order_are_refused() {
        let with = |change: &dyn Fn(&mut BackupManifest)| {
            let mut changed = manifest();
            change(&mut changed);
            BackupManifest::parse(&changed.encode())
        };
        assert_eq!(with(&|_| ()), Ok(manifest()));
        for name in [
            "../store",
            "audit/../../etc/passwd",
            "audit/audit-2026-01-0x.jsonl",
            "audit/audit-2026-01-010.jsonl",
            "/store",
            "",
        ] {
            let odd = with(&|manifest| manifest.parts[3].name = name.into());
            assert!(odd.is_err(), "{name}");
        }
        assert!(with(&|manifest| manifest.parts.swap(2, 3)).is_err());
        assert!(with(&|manifest| manifest.parts.swap(0, 1)).is_err());
        assert!(with(&|manifest| drop(manifest.parts.remove(0))).is_err());
        assert!(with(&|manifest| manifest.tokens.swap(0, 1)).is_err());
        assert!(with(&|manifest| manifest.threshold = 3).is_err());
        assert!(with(&|manifest| manifest.threshold = 1).is_err());
    }
}
