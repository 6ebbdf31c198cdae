//! Reading a secret from a file or a stream, with a bound, and exactly one line end forgiven.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use crate::value::{CREDENTIAL_MAX_BYTES, Rule, Secret, check_header_safe};

/// Why a secret could not be read. Names the file and the rule, never the content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is not there or may not be read.
    #[error("cannot read the secret file {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The content is not a usable credential.
    #[error("the secret in {path} is refused: {rule}")]
    Rule {
        /// Which file.
        path: PathBuf,
        /// Which rule.
        rule: Rule,
    },
}

/// Reads one credential from `path`: at most 8 KiB, exactly one trailing line end removed, no other white space.
///
/// A trailing newline that became part of a key is a classic outage of gateways, so one (`\n` or `\r\n`) is forgiven;
/// anything more is refused, since guessing would hide a damaged file.
///
/// # Errors
/// [`FileError`] names the file and the rule.
pub fn read_file(path: &Path) -> Result<Secret<[u8]>, FileError> {
    let at = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(at)?;
    let mut buffer = Zeroizing::new(vec![0u8; CREDENTIAL_MAX_BYTES + 3]);
    let length = fill(file, &mut buffer).map_err(at)?;
    let content = strip_line_end(&buffer[..length]);
    check_header_safe(content).map_err(|rule| FileError::Rule {
        path: path.to_owned(),
        rule,
    })?;
    Ok(Secret::from(content.to_vec()))
}

/// Reads until the end or until the buffer is full; the buffer is larger than any accepted secret.
fn fill(mut from: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                buffer.zeroize();
                return Err(error);
            }
        }
    }
    Ok(length)
}

fn strip_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the tests of the types that open secrets open them"
)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(content: &[u8]) -> Result<Secret<[u8]>, FileError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content).expect("written");
        read_file(file.path())
    }

    #[test]
    fn forgives_one_line_end_and_no_more() {
        for good in [&b"sk-x"[..], b"sk-x\n", b"sk-x\r\n"] {
            assert!(read(good).expect("accepted") == Secret::from(b"sk-x".to_vec()));
        }
        for bad in [&b"sk-x\n\n"[..], b"\nsk-x", b"sk-x \n", b"", b"\n", b"a\nb"] {
            assert!(matches!(read(bad), Err(FileError::Rule { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_file(Path::new("/nonexistent/key")).expect_err("refused");
        assert!(error.to_string().contains("/nonexistent/key"));
    }
}
