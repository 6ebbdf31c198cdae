//! The dresses of a secret, and a search for all of them in one pass.

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::{Hit, huffman};

/// Shortest secret that can be hunted without false alarms.
const SECRET_MIN: usize = 16;
/// Raw pieces of this length are hunted too: half of a key is a leak as well.
const PIECE: usize = 16;

/// All needles of all secrets, found by their first two bytes.
pub(super) struct Needles {
    needles: Vec<Needle>,
    /// Indices of the needles that begin with these two bytes.
    starts: Vec<Vec<u16>>,
    /// The same as a yes or no, which is what the inner loop asks for nearly every byte.
    is_start: Vec<bool>,
}

struct Needle {
    secret: String,
    form: &'static str,
    bytes: Vec<u8>,
}

impl Needles {
    pub fn of(secrets: &[(&str, &[u8])]) -> anyhow::Result<Self> {
        let mut needles: Vec<Needle> = Vec::new();
        for (name, secret) in secrets {
            ensure!(secret.len() >= SECRET_MIN, "{name} is too short to hunt");
            let pieces = secret
                .chunks_exact(PIECE)
                .map(|piece| ("raw (a piece)", piece.to_vec()));
            for (form, bytes) in dressed(secret).into_iter().chain(pieces) {
                if needles.iter().all(|needle| needle.bytes != bytes) {
                    needles.push(Needle {
                        secret: (*name).to_owned(),
                        form,
                        bytes,
                    });
                }
            }
        }
        let (mut starts, mut is_start) = (vec![Vec::new(); 1 << 16], vec![false; 1 << 16]);
        for (index, needle) in needles.iter().enumerate() {
            let start = usize::from(u16::from_be_bytes([needle.bytes[0], needle.bytes[1]]));
            starts[start].push(u16::try_from(index)?);
            is_start[start] = true;
        }
        Ok(Needles {
            needles,
            starts,
            is_start,
        })
    }

    pub fn longest(&self) -> usize {
        self.needles
            .iter()
            .map(|needle| needle.bytes.len())
            .max()
            .unwrap_or(1)
    }

    /// The dresses of this secret that none of these hits wears. Another secret of the same name may have more: one whose base64 has no `+` and
    /// no `/` is the same in both alphabets.
    pub fn missed(&self, secret: &[u8], hits: &[Hit]) -> Vec<&'static str> {
        let worn = |needle: &&Needle| {
            hits.iter()
                .any(|hit| hit.secret == needle.secret && hit.form == needle.form)
        };
        let dresses = dressed(secret);
        let is_own = |needle: &&Needle| dresses.iter().any(|(_, bytes)| *bytes == needle.bytes);
        let own = self.needles.iter().filter(is_own);
        own.filter(|needle| !worn(needle))
            .map(|needle| needle.form)
            .collect()
    }

    /// Adds every needle in `bytes`, whose first byte stands at `base` of `place`.
    pub fn find(&self, bytes: &[u8], base: u64, place: &str, hits: &mut Vec<Hit>) {
        for (offset, pair) in bytes.windows(2).enumerate() {
            let start = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            if !self.is_start[start] {
                continue;
            }
            for index in &self.starts[start] {
                let needle = &self.needles[usize::from(*index)];
                if bytes[offset..].starts_with(&needle.bytes) {
                    hits.push(Hit {
                        secret: needle.secret.clone(),
                        form: needle.form,
                        place: place.to_owned(),
                        at: base + offset as u64,
                    });
                }
            }
        }
    }
}

/// The whole secret in every dress.
pub(super) fn dressed(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |show: fn(u8) -> String| {
        secret
            .iter()
            .map(|byte| show(*byte))
            .collect::<Vec<String>>()
    };
    let mut forms = vec![
        ("raw", secret.to_vec()),
        ("hex", hex::encode(secret).into_bytes()),
        ("HEX", hex::encode_upper(secret).into_bytes()),
        (
            "percent",
            each(|byte| format!("%{byte:02X}")).concat().into_bytes(),
        ),
        (
            "percent (lower case)",
            each(|byte| format!("%{byte:02x}")).concat().into_bytes(),
        ),
        ("percent (reserved only)", percent_reserved(secret)),
        (
            "JSON escapes",
            each(|byte| format!("\\u{byte:04x}")).concat().into_bytes(),
        ),
        (
            "list of numbers",
            each(|byte| byte.to_string()).join(", ").into_bytes(),
        ),
        (
            "list of numbers (compact)",
            each(|byte| byte.to_string()).join(",").into_bytes(),
        ),
        (
            "UTF-16",
            secret.iter().flat_map(|byte| [*byte, 0]).collect(),
        ),
        ("escaped", secret.escape_ascii().to_string().into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push((
            "JSON",
            serde_json::Value::from(text)
                .to_string()
                .trim_matches('"')
                .as_bytes()
                .to_vec(),
        ));
    }
    let places = huffman::in_every_place(secret).into_iter();
    forms.extend(places.map(|bytes| ("HPACK-Huffman", bytes)));
    // Inside a longer text the secret begins at any of three places of a base64 group. The characters
    // at both ends mix with the neighbours; the middle is the same whatever stands beside it.
    for alignment in 0..3 {
        let mut padded = vec![0; alignment];
        padded.extend_from_slice(secret);
        let skip = if alignment == 0 { 0 } else { alignment + 1 };
        let whole = padded.len() / 3 * 4;
        for (form, text) in [
            ("base64", STANDARD_NO_PAD.encode(&padded)),
            ("base64 (URL)", URL_SAFE_NO_PAD.encode(&padded)),
        ] {
            forms.push((form, text.as_bytes()[skip..whole].to_vec()));
        }
    }
    forms
}

fn percent_reserved(secret: &[u8]) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    secret
        .iter()
        .flat_map(|byte| {
            if plain(*byte) {
                vec![*byte]
            } else {
                format!("%{byte:02X}").into_bytes()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECRET: &[u8] = b"sk-proj-nokey-0123456789-abcdef-+/5-anywhere-qq7-o3Xt";

    fn found(bytes: &[u8]) -> Vec<&'static str> {
        let needles = Needles::of(&[("key", SECRET)]).unwrap();
        let mut hits = Vec::new();
        needles.find(bytes, 0, "here", &mut hits);
        hits.into_iter().map(|hit| hit.form).collect()
    }

    #[test]
    fn finds_base64_at_every_alignment() {
        for before in 0..7 {
            for after in 0..4 {
                let mut text = vec![b'x'; before];
                text.extend_from_slice(SECRET);
                text.extend(vec![b'y'; after]);
                let encoded = STANDARD_NO_PAD.encode(&text);
                assert!(
                    found(encoded.as_bytes()).contains(&"base64"),
                    "{before} before, {after} after"
                );
            }
        }
    }

    #[test]
    fn a_secret_is_held_to_its_own_dresses_and_not_to_those_of_its_namesakes() {
        // The base64 of the first has no `+` and no `/`; that of the second has.
        let (plain, other) = ([0x41; 32], [0xfb; 32]);
        let needles = Needles::of(&[("share", &plain), ("share", &other)]).unwrap();
        let mut hits = Vec::new();
        for (_, bytes) in dressed(&plain) {
            needles.find(&bytes, 0, "here", &mut hits);
        }
        assert_eq!(needles.missed(&plain, &hits), Vec::<&str>::new());
        assert!(needles.missed(&other, &hits).contains(&"base64 (URL)"));
    }

    #[test]
    fn finds_half_a_key_but_not_its_mask() {
        assert!(!found(&SECRET[..24]).is_empty());
        assert!(!found(&SECRET[32..]).is_empty());
        assert_eq!(
            found(b"sk-proj-********************************o3Xt"),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn refuses_secrets_that_would_be_found_by_chance() {
        assert!(Needles::of(&[("short", b"0123456789abcde")]).is_err());
        assert!(Needles::of(&[("long enough", b"0123456789abcdef")]).is_ok());
    }
}
