//! What is inside the store's sealed rows. Each content begins with a magic of its own, so that one kind of row never reads
//! as another, whatever the store says that it is.

use crate::codec::{FormatError, Reader, Writer};
use crate::storekey::ROW_MAX_BYTES;

const FORMAT: u8 = 1;
/// As many custodians may vouch for a record, with room for replaced ones.
const MACS_MAX: u8 = 64;
const NAME_MAX: usize = 300;

/// A custodian's MAC.
pub type Vouched = (String, [u8; 32]);

/// A record with its MACs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Kind by name; a newer build may know more of them.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The encoded record.
    pub record: Vec<u8>,
    /// Who vouches.
    pub macs: Vec<Vouched>,
}

/// The inventory with its MACs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInventory {
    /// The encoded inventory.
    pub inventory: Vec<u8>,
    /// Who vouches.
    pub macs: Vec<Vouched>,
}

/// A number about a name: when a key was last used; what leases may last (without a name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNumber {
    /// About what.
    pub name: String,
    /// The number.
    pub value: u64,
}

fn write_macs(out: &mut Writer, macs: &[Vouched]) {
    out.u8(u8::try_from(macs.len()).expect("one MAC per custodian: at most MACS_MAX"));
    for (custodian, mac) in macs {
        out.text(custodian).fixed(mac);
    }
}

fn read_macs(from: &mut Reader<'_>) -> Result<Vec<Vouched>, FormatError> {
    let count = from.u8()?;
    if count > MACS_MAX {
        return Err(from.field("macs", "are more than 64"));
    }
    (0..count)
        .map(|_| Ok((from.text("custodian", NAME_MAX)?.to_owned(), from.array()?)))
        .collect()
}

impl StoredRecord {
    const MAGIC: [u8; 4] = *b"TCVR";

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(Self::MAGIC, FORMAT);
        out.text(&self.kind).text(&self.id).bytes(&self.record);
        write_macs(&mut out, &self.macs);
        out.finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new("stored record", Self::MAGIC, FORMAT, bytes)?;
        let stored = Self {
            kind: from.text("kind", NAME_MAX)?.to_owned(),
            id: from.text("id", NAME_MAX)?.to_owned(),
            record: from.bytes("record", ROW_MAX_BYTES)?.to_vec(),
            macs: read_macs(&mut from)?,
        };
        from.end()?;
        Ok(stored)
    }
}

impl StoredInventory {
    const MAGIC: [u8; 4] = *b"TCVI";

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(Self::MAGIC, FORMAT);
        out.bytes(&self.inventory);
        write_macs(&mut out, &self.macs);
        out.finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new("stored inventory", Self::MAGIC, FORMAT, bytes)?;
        let stored = Self {
            inventory: from.bytes("inventory", ROW_MAX_BYTES)?.to_vec(),
            macs: read_macs(&mut from)?,
        };
        from.end()?;
        Ok(stored)
    }
}

impl StoredNumber {
    const MAGIC: [u8; 4] = *b"TCVN";

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(Self::MAGIC, FORMAT)
            .text(&self.name)
            .u64(self.value)
            .finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new("stored number", Self::MAGIC, FORMAT, bytes)?;
        let stored = Self {
            name: from.text("name", NAME_MAX)?.to_owned(),
            value: from.u64()?,
        };
        from.end()?;
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_content_has_one_encoding_and_reads_as_nothing_else() {
        let macs = vec![("a".to_owned(), [1; 32]), ("b".to_owned(), [2; 32])];
        let record = StoredRecord {
            kind: "key".into(),
            id: "one".into(),
            record: vec![1, 2, 3],
            macs: macs.clone(),
        };
        let inventory = StoredInventory {
            inventory: vec![4],
            macs,
        };
        let number = StoredNumber {
            name: "one".into(),
            value: 5,
        };
        let (one, two, three) = (record.encode(), inventory.encode(), number.encode());
        assert_eq!(StoredRecord::parse(&one).unwrap(), record);
        assert_eq!(StoredInventory::parse(&two).unwrap(), inventory);
        assert_eq!(StoredNumber::parse(&three).unwrap(), number);
        assert!(StoredInventory::parse(&one).is_err());
        assert!(StoredNumber::parse(&two).is_err());
        for bytes in [&one, &two, &three] {
            for cut in 0..bytes.len() {
                assert!(StoredRecord::parse(&bytes[..cut]).is_err());
                assert!(StoredInventory::parse(&bytes[..cut]).is_err());
                assert!(StoredNumber::parse(&bytes[..cut]).is_err());
            }
        }
    }
}
