//! The frame of gzip, RFC 1952: a head before the deflated data, a checksum and a length after it.

use flate2::Crc;

use super::DecodeFault;

/// A head is ten bytes; a name, a comment and extra fields may follow, and no web server writes them.
const HEAD_MAX: usize = 4 * 1024;

const HAS_CHECK: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Reads a head byte by byte.
#[derive(Default)]
pub(super) struct Head {
    taken: usize,
    /// What the head still has, as its flags say.
    parts: u8,
    field: Field,
}

#[derive(Clone, Copy, Default)]
enum Field {
    #[default]
    Fixed,
    ExtraLength(Option<u8>),
    Extra(u16),
    Name,
    Comment,
    /// Not compared: the checksum of the content follows.
    Check(u8),
}

impl Head {
    pub(super) fn is_untouched(&self) -> bool {
        self.taken == 0
    }

    /// Takes a byte; true if it was the last one.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, DecodeFault> {
        let place = self.taken;
        self.taken += 1;
        let field = match (self.field, byte) {
            (Field::Fixed, _) => {
                match (place, byte) {
                    (0, 0x1f) | (1, 0x8b) | (2, 8) | (4..=9, _) => {}
                    (3, flags) if flags & RESERVED == 0 => self.parts = flags,
                    _ => return Err(DecodeFault::Corrupt),
                }
                (place < 9).then_some(Field::Fixed)
            }
            (Field::ExtraLength(None), low) => Some(Field::ExtraLength(Some(low))),
            (Field::ExtraLength(Some(low)), high) => match u16::from_le_bytes([low, high]) {
                0 => None,
                length => Some(Field::Extra(length)),
            },
            (Field::Extra(1), _) | (Field::Name | Field::Comment, 0) | (Field::Check(1), _) => None,
            (Field::Extra(left), _) => Some(Field::Extra(left - 1)),
            (Field::Check(left), _) => Some(Field::Check(left - 1)),
            (field @ (Field::Name | Field::Comment), _) => Some(field),
        };
        if self.taken > HEAD_MAX {
            return Err(DecodeFault::Corrupt);
        }
        match field.or_else(|| self.next_part()) {
            Some(field) => self.field = field,
            None => return Ok(true),
        }
        Ok(false)
    }

    fn next_part(&mut self) -> Option<Field> {
        let parts = [
            (HAS_EXTRA, Field::ExtraLength(None)),
            (HAS_NAME, Field::Name),
            (HAS_COMMENT, Field::Comment),
            (HAS_CHECK, Field::Check(2)),
        ];
        let (flag, field) = parts.into_iter().find(|(flag, _)| self.parts & flag != 0)?;
        self.parts &= !flag;
        Some(field)
    }
}

/// Reads a trailer byte by byte.
#[derive(Default)]
pub(super) struct Trailer {
    bytes: [u8; 8],
    taken: usize,
}

impl Trailer {
    /// Takes a byte; the trailer if it was the last one.
    pub(super) fn take(&mut self, byte: u8) -> Option<u64> {
        self.bytes[self.taken] = byte;
        self.taken += 1;
        (self.taken == self.bytes.len()).then(|| u64::from_le_bytes(self.bytes))
    }
}

/// What a trailer has to say.
#[derive(Default)]
pub(super) struct Check(Crc);

impl Check {
    pub(super) fn add(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub(super) fn compare(&self, trailer: u64) -> Result<(), DecodeFault> {
        if trailer == u64::from(self.0.amount()) << 32 | u64::from(self.0.sum()) {
            Ok(())
        } else {
            Err(DecodeFault::Corrupt)
        }
    }
}
