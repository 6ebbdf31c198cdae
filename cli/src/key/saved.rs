//! A statement with its signatures as a file: what `--statement-out` writes and `verify-statement` reads.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::files;

const FORMAT: &str = "tacit-statement/v1";
/// Sixteen signatures and a statement of under 1 KiB, in base64 and hex.
const FILE_MAX_BYTES: usize = 64 * 1024;

/// One token's signature over the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    /// Descriptor of the token.
    pub(super) fingerprint: Fingerprint,
    /// ECDSA P-256, r ‖ s.
    pub(super) signature: Vec<u8>,
}

/// An encoded statement and who signed it. Nothing of it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedStatement {
    /// Canonical encoding.
    pub(super) statement: Vec<u8>,
    /// One per token that could sign.
    pub(super) signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    statement: String,
    signatures: Vec<FileSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSignature {
    fingerprint: String,
    signature: String,
}

impl SavedStatement {
    /// The JSON form.
    pub(super) fn to_json(&self) -> String {
        let signature = |one: &Signature| FileSignature {
            fingerprint: format!("{:?}", one.fingerprint),
            signature: STANDARD.encode(&one.signature),
        };
        let file = File {
            format: FORMAT.to_owned(),
            statement: STANDARD.encode(&self.statement),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        serde_json::to_string_pretty(&file).expect("strings always serialise") + "\n"
    }

    /// Reads a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = files::read(path, FILE_MAX_BYTES)?;
        Self::parse(&bytes).with_context(|| format!("{} is refused", path.display()))
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let file: File = serde_json::from_slice(bytes).context("it is not a saved statement")?;
        anyhow::ensure!(
            file.format == FORMAT,
            "it has a format that this build does not read: upgrade tacit"
        );
        let signature = |one: &FileSignature| {
            Ok(Signature {
                fingerprint: one.fingerprint.parse()?,
                signature: STANDARD
                    .decode(&one.signature)
                    .context("a signature is not base64")?,
            })
        };
        Ok(Self {
            statement: STANDARD
                .decode(&file.statement)
                .context("the statement is not base64")?,
            signatures: file
                .signatures
                .iter()
                .map(signature)
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_a_stranger_does_not() {
        let saved = SavedStatement {
            statement: vec![1, 2, 3],
            signatures: vec![Signature {
                fingerprint: Fingerprint::new([7; 32]),
                signature: vec![9; 64],
            }],
        };
        let json = saved.to_json();
        assert_eq!(
            SavedStatement::parse(json.as_bytes()).expect("parses"),
            saved
        );
        for bad in [
            "{}",
            "",
            &json.replace("/v1", "/v2"),
            &json.replace("\"statement\"", "\"x\""),
        ] {
            assert!(SavedStatement::parse(bad.as_bytes()).is_err());
        }
    }
}
