//! Reading a backup as it comes, in pieces of any size: head, then each part against its hash, to the last byte.

use super::{BackupManifest, HEAD_MAX_BYTES, Head};
use crate::codec::{FormatError, Sha256};

/// Why a file is no whole backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The head is not one.
    #[error("backup_edited: {0}")]
    Head(#[from] FormatError),
    /// A part is another one.
    #[error("backup_edited: the part {0} is not the one that the manifest names")]
    Part(String),
    /// The end is missing.
    #[error("backup_edited: the file is cut short")]
    Short,
    /// Something was added.
    #[error("backup_edited: the file has bytes after its end")]
    Trailing,
}

/// Where the reading stands.
#[derive(Debug, Default)]
pub struct Checker {
    /// The head, as far as it has come; later the number of its bytes alone.
    start: Vec<u8>,
    head: Option<(Head, usize)>,
    /// The part being read, and how much of it is missing.
    part: usize,
    left: u64,
    hasher: Sha256,
}

impl Checker {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`Defect`]; the rest needs no reading.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Defect> {
        if self.head.is_none() {
            let room = HEAD_MAX_BYTES.saturating_sub(self.start.len());
            let (taken, rest) = bytes.split_at(bytes.len().min(room));
            self.start.extend_from_slice(taken);
            let Some((head, used)) = Head::parse(&self.start)? else {
                return Ok(());
            };
            // What was taken too much for the head belongs to the parts.
            let over = self.start.split_off(used);
            self.head = Some((head, used));
            self.open_part()?;
            self.parts(&over)?;
            bytes = rest;
        }
        self.parts(bytes)
    }

    fn manifest(&self) -> Option<&BackupManifest> {
        self.head.as_ref().map(|(head, _)| &head.manifest)
    }

    /// Begins the next part; an empty one is over at once.
    fn open_part(&mut self) -> Result<(), Defect> {
        loop {
            let next = self.manifest().and_then(|one| one.parts.get(self.part));
            let next = next.map(|part| part.length);
            self.left = next.unwrap_or(0);
            if next.is_none() || self.left > 0 {
                return Ok(());
            }
            self.close_part()?;
        }
    }

    fn close_part(&mut self) -> Result<(), Defect> {
        let hash = std::mem::take(&mut self.hasher).finish();
        let part = self.manifest().and_then(|one| one.parts.get(self.part));
        match part {
            Some(part) if part.hash != hash => return Err(Defect::Part(part.name.clone())),
            _ => self.part += 1,
        }
        Ok(())
    }

    fn parts(&mut self, mut bytes: &[u8]) -> Result<(), Defect> {
        while !bytes.is_empty() {
            if self.left == 0 {
                return Err(Defect::Trailing);
            }
            let take = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (taken, rest) = bytes.split_at(take);
            self.hasher.update(taken);
            self.left -= u64::try_from(take).unwrap_or(0);
            bytes = rest;
            if self.left == 0 {
                self.close_part()?;
                self.open_part()?;
            }
        }
        Ok(())
    }

    /// The head, and where the parts begin, once every byte was there.
    ///
    /// # Errors
    /// [`Defect::Short`].
    pub fn finish(self) -> Result<(Head, usize), Defect> {
        let (head, used) = self.head.ok_or(Defect::Short)?;
        if self.part == head.manifest.parts.len() {
            Ok((head, used))
        } else {
            Err(Defect::Short)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::{PartEntry, STORE, TRUST, TokenEntry};
    use super::*;
    use crate::descriptor::Fingerprint;
    use crate::sha256;

    fn file() -> (Vec<u8>, usize) {
        let contents: [(&str, &[u8]); 4] = [
            (STORE, b"the store"),
            (TRUST, b"the pins"),
            ("audit/audit-2026-01-01.jsonl", b""),
            ("audit/audit-2026-01-02.jsonl", b"{}\n"),
        ];
        let parts = contents.iter().map(|(name, bytes)| PartEntry {
            name: (*name).to_owned(),
            length: bytes.len() as u64,
            hash: sha256(bytes),
        });
        let token = |id: &str| TokenEntry {
            id: id.parse().unwrap(),
            serial: String::new(),
            label: String::new(),
            fingerprint: Fingerprint::new([1; 32]),
        };
        let head = Head {
            manifest: BackupManifest {
                version: "0".into(),
                made_at: 0,
                revision: 1,
                digest: [0; 32],
                epoch: 1,
                audit_records: 1,
                audit_hash: [0; 32],
                threshold: 2,
                tokens: vec![token("a"), token("b")],
                parts: parts.collect(),
            },
            signatures: Vec::new(),
        };
        let mut bytes = head.encode();
        let used = bytes.len();
        for (_, content) in contents {
            bytes.extend_from_slice(content);
        }
        (bytes, used)
    }

    fn check(bytes: &[u8], piece: usize) -> Result<usize, Defect> {
        let mut checker = Checker::new();
        for piece in bytes.chunks(piece) {
            checker.feed(piece)?;
        }
        checker.finish().map(|(_, used)| used)
    }

    #[test]
    fn a_whole_file_passes_in_pieces_of_any_size_and_any_other_does_not() {
        let (bytes, used) = file();
        for piece in [1, 2, 7, used, used + 1, bytes.len()] {
            assert_eq!(check(&bytes, piece), Ok(used), "pieces of {piece}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(check(&bytes[..cut], 5), Err(Defect::Short), "cut at {cut}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(check(&longer, 5), Err(Defect::Trailing));
        for at in used..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(
                matches!(check(&changed, 5), Err(Defect::Part(_))),
                "byte {at}"
            );
        }
    }
}
