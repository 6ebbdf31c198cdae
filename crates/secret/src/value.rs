//! The type whose content nobody prints by accident.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A secret on the heap: wiped when dropped, never printed, never cloned.
///
/// Boxed, so that a move leaves no copy behind, and of fixed size, so that it cannot regrow and leave its old
/// allocation unwiped.
pub struct Secret<T: Zeroize + ?Sized>(Box<T>);

impl<T: Zeroize + ?Sized> Secret<T> {
    /// Takes ownership of a boxed value. The caller's own copies, if any, are the caller's to wipe.
    pub fn new(value: Box<T>) -> Self {
        Self(value)
    }

    /// The secret itself. Each call site must be argued for: `clippy.toml` disallows it elsewhere.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The secret itself, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl Secret<[u8]> {
    /// Length in bytes. Lengths are not secret here: they show in ciphertexts anyway.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret<[u8]> {
    /// Moves the bytes into a box of exactly their length and wipes the vector's own allocation.
    fn from(mut bytes: Vec<u8>) -> Self {
        let boxed: Box<[u8]> = bytes.as_slice().into();
        bytes.zeroize();
        Self(boxed)
    }
}

impl<const N: usize> Secret<[u8; N]> {
    /// A zeroed secret of `N` bytes, to be filled through [`Secret::expose_mut`].
    pub fn zeroed() -> Self {
        Self(Box::new([0; N]))
    }
}

impl<T: Zeroize + ?Sized> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize + ?Sized> fmt::Debug for Secret<T> {
    /// Says that something is there, and nothing about it: derived `Debug` of a struct around it stays safe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Zeroize + ?Sized + AsRef<[u8]>> PartialEq for Secret<T> {
    /// Constant-time in the content, so that comparing is never an oracle, not even in a test helper.
    fn eq(&self, other: &Self) -> bool {
        self.0
            .as_ref()
            .as_ref()
            .ct_eq(other.0.as_ref().as_ref())
            .into()
    }
}

/// The rule that a credential breaks when it cannot stand in an HTTP header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More bytes than any provider's key has.
    #[error("it is longer than {max} bytes")]
    TooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// CR, LF, NUL or another control character: it would split the head of the request.
    #[error("it contains a control character (a line break inside, or a binary file?)")]
    Control,
    /// A space or tab: a header would carry it, but no provider's key has one, so it is a copying mistake.
    #[error("it contains white space")]
    WhiteSpace,
    /// Bytes outside ASCII.
    #[error("it contains a character that is not ASCII")]
    NotAscii,
}

/// Longest credential accepted: Bedrock's bearer tokens are the longest known, at about 1,400 bytes.
pub(crate) const CREDENTIAL_MAX_BYTES: usize = 8 * 1024;

/// Checks that `bytes` can be sent as a credential in a header value; the error names the rule, never the value.
///
/// # Errors
/// The first [`Rule`] broken.
pub fn check_header_safe(bytes: &[u8]) -> Result<(), Rule> {
    if bytes.is_empty() {
        return Err(Rule::Empty);
    }
    if bytes.len() > CREDENTIAL_MAX_BYTES {
        return Err(Rule::TooLong {
            max: CREDENTIAL_MAX_BYTES,
        });
    }
    for byte in bytes {
        match byte {
            b' ' | b'\t' => return Err(Rule::WhiteSpace),
            0..=0x1f | 0x7f => return Err(Rule::Control),
            0x80.. => return Err(Rule::NotAscii),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the tests of the types that open secrets open them"
)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing_of_the_value() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "only its Debug is looked at")]
        struct Around {
            key: Secret<[u8]>,
        }
        let around = Around {
            key: Secret::from(b"sk-not-a-key".to_vec()),
        };
        let printed = format!("{around:?} {around:#?}");
        assert!(!printed.contains("sk-not"), "{printed}");
        assert!(printed.contains("redacted"));
    }

    #[test]
    fn header_rule_passes_a_key_and_refuses_its_neighbours() {
        assert_eq!(check_header_safe(b"sk-proj-abc_DEF-123"), Ok(()));
        assert_eq!(check_header_safe(b""), Err(Rule::Empty));
        assert_eq!(check_header_safe(b"sk-a\r\nx: y"), Err(Rule::Control));
        assert_eq!(check_header_safe(b"sk-a\0"), Err(Rule::Control));
        assert_eq!(check_header_safe(b"sk a"), Err(Rule::WhiteSpace));
        assert_eq!(
            check_header_safe("sk-\u{e9}".as_bytes()),
            Err(Rule::NotAscii)
        );
        assert!(matches!(
            check_header_safe(&vec![b'a'; CREDENTIAL_MAX_BYTES + 1]),
            Err(Rule::TooLong { .. })
        ));
        assert_eq!(check_header_safe(&vec![b'a'; CREDENTIAL_MAX_BYTES]), Ok(()));
    }

    #[test]
    fn comparison_sees_equal_and_different() {
        let one = Secret::from(b"same".to_vec());
        assert!(one == Secret::from(b"same".to_vec()));
        assert!(one != Secret::from(b"sama".to_vec()));
        assert!(one != Secret::from(b"same!".to_vec()));
    }
}
