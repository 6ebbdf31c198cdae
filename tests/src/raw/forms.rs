//! The dresses in which an upstream could hand a key back, and the hunt that sees through them.
//!
//! The hunt shares no code with whatever guards against echoes: it decodes what it is shown the way an attacker would, and looks for the
//! key in the clear.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Every dress: what it is called, and how a key looks in it.
pub fn all(key: &str) -> Vec<(&'static str, String)> {
    vec![
        ("raw", key.to_owned()),
        ("base64", STANDARD.encode(key)),
        ("base64 without padding", STANDARD_NO_PAD.encode(key)),
        ("base64url", URL_SAFE.encode(key)),
        ("base64url without padding", URL_SAFE_NO_PAD.encode(key)),
        (
            "base64 of the header value",
            STANDARD.encode(format!("Bearer {key}")),
        ),
        ("hex", hex::encode(key)),
        ("upper-case hex", hex::encode_upper(key)),
        ("percent, every byte", escaped(key, "%", "", true)),
        (
            "percent, every byte, lower case",
            escaped(key, "%", "", false),
        ),
        ("percent, where it must be", percent(key, true)),
        ("percent, where it must be, lower case", percent(key, false)),
        ("JSON, every byte", escaped(key, "\\u00", "", false)),
        (
            "JSON, every byte, upper case",
            escaped(key, "\\u00", "", true),
        ),
        ("JSON, where it may be", json(key)),
    ]
}

fn escaped(key: &str, before: &str, after: &str, upper: bool) -> String {
    key.bytes()
        .map(|byte| {
            if upper {
                format!("{before}{byte:02X}{after}")
            } else {
                format!("{before}{byte:02x}{after}")
            }
        })
        .collect()
}

/// As `encodeURIComponent` does.
fn percent(key: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else if upper {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

/// As a careful JSON writer does, slashes escaped as PHP has it.
fn json(key: &str) -> String {
    key.chars()
        .flat_map(|char| match char {
            '"' | '\\' | '/' => vec!['\\', char],
            char => vec![char],
        })
        .collect()
}

/// What OpenAI's 401 shows of a key: eight characters, stars, four characters, as long as the key.
pub fn mask(key: &str) -> String {
    let hidden = key.len() - 12;
    format!(
        "{}{}{}",
        &key[..8],
        "*".repeat(hidden),
        &key[key.len() - 4..]
    )
}

/// Whether the key stands in `bytes` in any dress, and in which.
pub fn hunt(bytes: &[u8], key: &[u8]) -> Option<&'static str> {
    let folded = |bytes: &[u8]| bytes.to_ascii_lowercase();
    let has = |bytes: &[u8]| super::find(bytes, key).is_some();
    if super::find(&folded(bytes), &folded(key)).is_some() {
        Some("raw")
    } else if has(&unescape(bytes, b"%")) {
        Some("percent")
    } else if has(&unescape(&unslash(bytes), b"\\u00")) || has(&unslash(bytes)) {
        Some("JSON")
    } else if runs(bytes, |byte| byte.is_ascii_hexdigit(), key.len() * 2)
        .any(|run| (0..2).any(|skip| has(&unhex(&run[skip..]))))
    {
        Some("hex")
    } else if runs(bytes, is_base64, key.len() * 4 / 3)
        .any(|run| (0..4).any(|skip| has(&unbase64(run.get(skip..).unwrap_or_default()))))
    {
        Some("base64")
    } else {
        None
    }
}

/// Decodes every `BEFORExx`; everything else stays.
fn unescape(bytes: &[u8], before: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes[at..]
            .strip_prefix(before)
            .and_then(|rest| rest.get(..2));
        match digits.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                out.extend(byte);
                at += before.len() + 2;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Takes the backslash from every `\"`, `\\` and `\/`.
fn unslash(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match (first, tail.first()) {
            (b'\\', Some(escaped @ (b'"' | b'\\' | b'/'))) => {
                out.push(*escaped);
                rest = &tail[1..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn runs(bytes: &[u8], of: impl Fn(u8) -> bool, least: usize) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(move |byte| !of(*byte))
        .filter(move |run| run.len() >= least)
}

fn unhex(run: &[u8]) -> Vec<u8> {
    hex::decode(&run[..run.len() & !1]).unwrap_or_default()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn unbase64(run: &[u8]) -> Vec<u8> {
    let whole: Vec<u8> = run[..run.len() - run.len() % 4]
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    let mut bytes = STANDARD.decode(whole).unwrap_or_default();
    // What is left of a run that has no padding: two or three letters are one or two bytes.
    let tail: Vec<u8> = run[run.len() - run.len() % 4..].to_vec();
    let mut padded = tail;
    padded.resize(padded.len().next_multiple_of(4), b'=');
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    bytes.extend(lenient.decode(padded).unwrap_or_default());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hunt_finds_every_dress_and_accuses_nothing_else() {
        for key in [
            "sk-proj-AbCdEf0123456789T3BlbkFJ9876",
            "k/+=\"q\\z0123456789abcdefghijk",
        ] {
            for (form, dressed) in all(key) {
                for (before, after) in [("", ""), ("xyz", "."), ("{\"k\":\"", "\"}")] {
                    let text = format!("{before}{dressed}{after}");
                    assert!(
                        hunt(text.as_bytes(), key.as_bytes()).is_some(),
                        "{form}: {text}"
                    );
                }
                let stars = "*".repeat(dressed.len());
                assert_eq!(hunt(stars.as_bytes(), key.as_bytes()), None, "{form}");
            }
            let other = format!("{}x", &key[..key.len() - 1]);
            for (form, dressed) in all(&other) {
                assert_eq!(hunt(dressed.as_bytes(), key.as_bytes()), None, "{form}");
            }
        }
    }

    #[test]
    fn a_mask_is_as_long_as_its_key() {
        let key = "sk-proj-AbCdEf0123456789";
        assert_eq!(mask(key), "sk-proj-************6789");
    }
}
