//! Authenticated records: how the daemon's store holds everything that is not a wrapped share.
//!
//! A record embeds its own identity and the store revision that wrote it, so that one which stands in another's place,
//! or comes from an older store, is seen for what it is. The inventory lists every record of one store revision by hash;
//! custodians MAC it and keep its digest on the token, so that a deleted row or a whole older store is seen too.

use crate::codec::{FormatError, Reader, Writer, sha256};

const RECORD: &str = "store record";
const RECORD_MAGIC: [u8; 4] = *b"TCRC";
const INVENTORY: &str = "store inventory";
const INVENTORY_MAGIC: [u8; 4] = *b"TCIN";
const FORMAT: u8 = 1;

/// Longest body of a record, in bytes.
pub const BODY_MAX_BYTES: usize = 128 * 1024;

/// What a record is about; the first half of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A provider key: policy and which version is in use.
    Key,
    /// One version of a key: header, envelope, manifest, state.
    Version,
    /// One custodian's wrapped share of one version.
    Share,
}

impl Kind {
    fn id(self) -> u8 {
        match self {
            Kind::Key => 1,
            Kind::Version => 2,
            Kind::Share => 3,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        [Kind::Key, Kind::Version, Kind::Share]
            .into_iter()
            .find(|kind| kind.id() == id)
    }

    /// The name used in the store and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::Version => "version",
            Kind::Share => "share",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Kind::Key, Kind::Version, Kind::Share]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// Which one: `openai-prod`, `openai-prod/2`, `openai-prod/2/1`.
    pub id: String,
    /// The store revision that wrote it.
    pub revision: u64,
    /// Its content, in the encoding of its kind.
    pub body: Vec<u8>,
}

impl Record {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(RECORD_MAGIC, FORMAT);
        out.u8(self.kind.id())
            .text(&self.id)
            .u64(self.revision)
            .bytes(&self.body)
            .finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(RECORD, RECORD_MAGIC, FORMAT, bytes)?;
        let kind = Kind::from_id(from.u8()?)
            .ok_or_else(|| from.field("kind", "is not known to this build"))?;
        let id = from.text("id", 300)?.to_owned();
        let revision = from.u64()?;
        let body = from.bytes("body", BODY_MAX_BYTES)?.to_vec();
        from.end()?;
        Ok(Self {
            kind,
            id,
            revision,
            body,
        })
    }
}

/// What custodians MAC for an encoded record or inventory: its hash, so that the message stays small.
pub fn mac_bytes(encoded: &[u8]) -> Vec<u8> {
    sha256(encoded).to_vec()
}

/// One line of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Kind of the record.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// The revision that wrote it.
    pub revision: u64,
    /// SHA-256 of its encoding.
    pub hash: [u8; 32],
}

/// Every record of the store at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The store's revision.
    pub revision: u64,
    /// Sorted by kind and id. Invariant: no identity twice.
    pub entries: Vec<Entry>,
}

impl Inventory {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(INVENTORY_MAGIC, FORMAT);
        let count =
            u32::try_from(self.entries.len()).expect("a store holds far fewer than 2^32 records");
        out.u64(self.revision).u32(count);
        for entry in &self.entries {
            out.u8(entry.kind.id())
                .text(&entry.id)
                .u64(entry.revision)
                .fixed(&entry.hash);
        }
        out.finish()
    }

    /// Parses strictly: sorted, nothing twice, no entry newer than the inventory.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(INVENTORY, INVENTORY_MAGIC, FORMAT, bytes)?;
        let revision = from.u64()?;
        let count = from.u32()?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let kind = Kind::from_id(from.u8()?)
                .ok_or_else(|| from.field("kind", "is not known to this build"))?;
            let id = from.text("id", 300)?.to_owned();
            let entry = Entry {
                kind,
                id,
                revision: from.u64()?,
                hash: from.array()?,
            };
            if entries
                .last()
                .is_some_and(|last| (last.kind, &last.id) >= (entry.kind, &entry.id))
            {
                return Err(from.field("entries", "are not sorted, or name one record twice"));
            }
            if entry.revision > revision {
                return Err(from.field("entries", "are newer than the inventory"));
            }
            entries.push(entry);
        }
        from.end()?;
        Ok(Self { revision, entries })
    }

    /// SHA-256 of the encoding: what tokens remember.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.encode())
    }

    /// The line of that record.
    pub fn find(&self, kind: Kind, id: &str) -> Option<&Entry> {
        let found = self
            .entries
            .binary_search_by(|entry| (entry.kind, entry.id.as_str()).cmp(&(kind, id)));
        found.ok().map(|at| &self.entries[at])
    }

    /// Adds or replaces a line.
    pub fn put(&mut self, record: &Record) {
        let hash = sha256(&record.encode());
        let entry = Entry {
            kind: record.kind,
            id: record.id.clone(),
            revision: record.revision,
            hash,
        };
        let key = (record.kind, record.id.as_str());
        match self
            .entries
            .binary_search_by(|own| (own.kind, own.id.as_str()).cmp(&key))
        {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Removes a line; an absent one is no error.
    pub fn remove(&mut self, kind: Kind, id: &str) {
        self.entries
            .retain(|entry| !(entry.kind == kind && entry.id == id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, revision: u64) -> Record {
        Record {
            kind: Kind::Key,
            id: id.to_owned(),
            revision,
            body: b"{}".to_vec(),
        }
    }

    #[test]
    fn records_and_inventories_have_one_encoding() {
        let one = record("a", 3);
        assert_eq!(Record::parse(&one.encode()), Ok(one.clone()));
        let mut inventory = Inventory {
            revision: 3,
            entries: Vec::new(),
        };
        inventory.put(&record("b", 1));
        inventory.put(&one);
        assert_eq!(Inventory::parse(&inventory.encode()), Ok(inventory.clone()));
        assert!(inventory.find(Kind::Key, "a").is_some());
        assert!(inventory.find(Kind::Version, "a").is_none());
        let before = inventory.digest();
        inventory.put(&record("a", 2));
        assert_ne!(inventory.digest(), before);
        inventory.remove(Kind::Key, "a");
        assert_eq!(inventory.entries.len(), 1);
    }

    #[test]
    fn an_unsorted_doubled_or_newer_entry_is_refused() {
        let mut inventory = Inventory {
            revision: 3,
            entries: Vec::new(),
        };
        inventory.put(&record("a", 1));
        inventory.put(&record("b", 1));
        let mut swapped = inventory.clone();
        swapped.entries.reverse();
        assert!(Inventory::parse(&swapped.encode()).is_err());
        let mut doubled = inventory.clone();
        doubled.entries.push(doubled.entries[1].clone());
        assert!(Inventory::parse(&doubled.encode()).is_err());
        let mut newer = inventory;
        newer.entries[0].revision = 4;
        assert!(Inventory::parse(&newer.encode()).is_err());
    }
}
