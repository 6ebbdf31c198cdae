//! The echo guard: for any key and any text, every cut in two and any cut in many give the same, of the same length; the key as it is never
//! comes through; what has no hit is not changed; and what a pause lets go is never taken back.
#![no_main]

use agent::echo::{Guard, mask_whole};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Signs that keys, and what is done to keys, are made of.
const SIGNS: &[u8] = b"ab-_~?/%\\ux0125 \"*.#X=\xe2\x80\xa6";
const KEY_MIN: usize = 8;
/// Short, because every place to cut it is tried.
const TEXT_MAX: usize = 400;

#[derive(Arbitrary, Debug)]
enum Part {
    Bytes(Vec<u8>),
    Signs(Vec<u8>),
    Raw { from: u8, to: u8 },
    Percent { touch: u64, lower: bool },
    Json { touch: u64, backslashes: u8 },
    Hex { touch: u64 },
    Base64 { before: u8, url: bool },
    Mask { shown: u8 },
}

#[derive(Arbitrary, Debug)]
struct Input {
    key: Vec<u8>,
    parts: Vec<Part>,
    cuts: Vec<u8>,
}

fn signs(picks: &[u8]) -> Vec<u8> {
    let pick = |pick: &u8| SIGNS[usize::from(*pick) % SIGNS.len()];
    picks.iter().map(pick).collect()
}

fn base64(bytes: &[u8], url: bool) -> Vec<u8> {
    let signs = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let (plus, slash) = if url { (b'-', b'_') } else { (b'+', b'/') };
    let mut out = Vec::new();
    for group in bytes.chunks(3) {
        let mut value = 0_u32;
        for at in 0..3 {
            value = value << 8 | u32::from(*group.get(at).unwrap_or(&0));
        }
        for at in 0..=group.len() {
            let sextet = (value >> (18 - 6 * at)) as usize & 63;
            out.push(
                *signs
                    .get(sextet)
                    .unwrap_or(if sextet == 62 { &plus } else { &slash }),
            );
        }
    }
    out
}

fn render(part: &Part, key: &[u8], text: &mut Vec<u8>) {
    let touched = |touch: u64| move |at: usize| touch >> (at % 64) & 1 == 1;
    match part {
        Part::Bytes(bytes) => text.extend_from_slice(bytes),
        Part::Signs(picks) => text.extend(signs(picks)),
        Part::Raw { from, to } => {
            let (from, to) = (
                usize::from(*from) % key.len(),
                usize::from(*to) % (key.len() + 1),
            );
            text.extend_from_slice(&key[from.min(to)..from.max(to)]);
        }
        Part::Percent { touch, lower } => {
            for (at, byte) in key.iter().enumerate() {
                match (touched(*touch)(at), lower) {
                    (false, _) => text.push(*byte),
                    (true, true) => text.extend(format!("%{byte:02x}").bytes()),
                    (true, false) => text.extend(format!("%{byte:02X}").bytes()),
                }
            }
        }
        Part::Json { touch, backslashes } => {
            let backslashes = "\\".repeat(usize::from(*backslashes % 4) + 1);
            for (at, byte) in key.iter().enumerate() {
                match touched(*touch)(at) {
                    false => text.push(*byte),
                    true => text.extend(format!("{backslashes}u{byte:04x}").bytes()),
                }
            }
        }
        Part::Hex { touch } => {
            for (at, byte) in key.iter().enumerate() {
                match touched(*touch)(at) {
                    false => text.extend(format!("{byte:02x}").bytes()),
                    true => text.extend(format!("{byte:02X}").bytes()),
                }
            }
        }
        Part::Base64 { before, url } => {
            let before = &b"xyzxyz"[..usize::from(*before) % 4];
            text.extend(base64(&[before, key, b":"].concat(), *url));
        }
        Part::Mask { shown } => {
            let shown = usize::from(*shown) % key.len();
            text.extend_from_slice(&key[..shown % 9]);
            text.extend_from_slice(
                [&b"***"[..], b"...", b"\xe2\x80\xa6", b"\\u2026", b"*"][shown % 5],
            );
            text.extend_from_slice(&key[key.len() - shown % 6..]);
        }
    }
}

fn guarded<'a>(key: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let (mut guard, mut out) = (Guard::new(), Vec::new());
    for piece in pieces {
        guard.feed(key, piece, &mut out);
    }
    guard.finish(key, &mut out);
    assert!(!guard.holding());
    (out, guard.hits() > 0)
}

/// Pieces of the lengths that `cuts` gives, again and again.
fn cut<'a>(text: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let (mut rest, mut cuts) = (text, cuts.iter().cycle());
    std::iter::from_fn(move || {
        let length = usize::from(*cuts.next().unwrap_or(&1)).clamp(1, rest.len().max(1));
        let piece = rest.get(..length)?;
        rest = &rest[length..];
        Some(piece)
    })
}

fuzz_target!(|input: Input| {
    let key = signs(&input.key);
    // A key that ends in a backslash or a percent sign can be read as an escape that goes on.
    let ends_open = key.ends_with(b"\\") || key.ends_with(b"%");
    if key.len() < KEY_MIN || key.contains(&b' ') || !key.is_ascii() || ends_open {
        return;
    }
    let mut text = Vec::new();
    for part in &input.parts {
        render(part, &key, &mut text);
    }
    text.truncate(TEXT_MAX);

    let whole = guarded(&key, std::iter::once(&text[..]));
    assert_eq!(whole.0.len(), text.len());
    assert!(!whole.0.windows(key.len()).any(|window| window == key));
    assert!(whole.1 || whole.0 == text);
    let changed = text
        .iter()
        .zip(&whole.0)
        .filter(|(before, after)| before != after);
    let mask = b"*#~^".iter().find(|sign| !key.contains(sign));
    assert!(changed.into_iter().all(|(_, after)| Some(after) == mask));
    for at in 0..=text.len() {
        let (one, two) = text.split_at(at);
        assert_eq!(guarded(&key, [one, two].into_iter()), whole, "cut at {at}");
    }
    assert_eq!(guarded(&key, text.chunks(1)), whole);
    assert_eq!(guarded(&key, cut(&text, &input.cuts)), whole);
    let mut value = text.clone();
    assert_eq!(mask_whole(&key, &mut value), whole.1);
    assert_eq!(value, whole.0);

    // With a pause after each piece nothing is withheld, and nothing is masked that would not have been but for fragments.
    let (mut guard, mut out, mut fed) = (Guard::new(), Vec::new(), 0);
    for piece in cut(&text, &input.cuts) {
        guard.feed(&key, piece, &mut out);
        guard.flush(&key, &mut out);
        fed += piece.len();
        assert!(out.len() == fed && !guard.holding());
    }
    guard.finish(&key, &mut out);
    assert_eq!(out.len(), text.len());
});
