//! The one encoding of all our binary structures: magic, format byte, then length-prefixed fields in a fixed order.
//!
//! Integers are big-endian and of fixed width; byte strings carry a u32 length. A structure is read to its last byte:
//! trailing bytes are refused, so that one value has one encoding and a hash names one value.

use aws_lc_rs::digest;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-256 of what comes in pieces.
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all pieces.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

/// Why bytes are not the structure that they should be. Names the structure and the field, never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are of another kind altogether.
    #[error("not a {what}")]
    Magic {
        /// The structure expected.
        what: &'static str,
    },
    /// The right kind, made by a newer (or a damaged) writer.
    #[error("{what} of format {found}, this build reads {known}: upgrade the reader")]
    Version {
        /// The structure expected.
        what: &'static str,
        /// The format byte found.
        found: u8,
        /// The format byte that this build writes.
        known: u8,
    },
    /// The bytes end inside a field.
    #[error("{what} is cut short")]
    Short {
        /// The structure expected.
        what: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{what} has bytes after its end")]
    Trailing {
        /// The structure expected.
        what: &'static str,
    },
    /// A field breaks its rule.
    #[error("{what}: field {field} {rule}")]
    Field {
        /// The structure expected.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The rule broken, as a predicate: "is empty".
        rule: &'static str,
    },
}

/// Writes fields one after another.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: [u8; 4], format: u8) -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&magic);
        out.push(format);
        Self(out)
    }

    /// For messages under a MAC or a signature: a domain string instead of a magic.
    pub(crate) fn domain(domain: &str) -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(domain.as_bytes());
        Self(out)
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn fixed(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len())
            .expect("structures are bounded far below 4 GiB by their parsers");
        self.u32(length);
        self.fixed(value)
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads fields one after another; each read names the field, so that an error does too.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        what: &'static str,
        magic: [u8; 4],
        known: u8,
        bytes: &'a [u8],
    ) -> Result<Self, FormatError> {
        let rest = bytes
            .strip_prefix(&magic)
            .ok_or(FormatError::Magic { what })?;
        let (&found, rest) = rest.split_first().ok_or(FormatError::Short { what })?;
        if found != known {
            return Err(FormatError::Version { what, found, known });
        }
        Ok(Self { what, rest })
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(FormatError::Short { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A byte string of at most `max` bytes.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<&'a [u8], FormatError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > max {
            return Err(self.field(field, "is longer than allowed"));
        }
        self.take(length)
    }

    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, FormatError> {
        let bytes = self.bytes(field, max)?;
        std::str::from_utf8(bytes).map_err(|_| self.field(field, "is not UTF-8"))
    }

    pub(crate) fn field(&self, field: &'static str, rule: &'static str) -> FormatError {
        FormatError::Field {
            what: self.what,
            field,
            rule,
        }
    }

    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Trailing { what: self.what })
        }
    }
}
