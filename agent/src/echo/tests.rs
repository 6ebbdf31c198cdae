//! What must be found and what must not, one by one; that cutting the text changes nothing; and what a pause lets go.

#![allow(clippy::unwrap_used)]

mod property;
mod table;
mod time;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::{Guard, mask_whole};

/// A key that nobody has: `prefix`, then letters and digits from a fixed sequence.
pub(super) fn key(prefix: &str, length: usize) -> Vec<u8> {
    const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwyz0123456789-_";
    let mut state = 0x9e37_79b9_u64;
    let mut key = prefix.as_bytes().to_vec();
    while key.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        key.push(SIGNS[(state >> 33) as usize % SIGNS.len()]);
    }
    // Neither in prose nor in what follows a mask by chance.
    let end = key.len() - 4;
    key[end..].copy_from_slice(b"Q7wZ");
    key
}

pub(super) fn percent(key: &[u8], encode: impl Fn(usize) -> bool, lower: bool) -> Vec<u8> {
    let unit = |(at, &byte): (usize, &u8)| match (encode(at), lower) {
        (false, _) => vec![byte],
        (true, true) => format!("%{byte:02x}").into_bytes(),
        (true, false) => format!("%{byte:02X}").into_bytes(),
    };
    key.iter().enumerate().flat_map(unit).collect()
}

pub(super) fn json(key: &[u8], encode: impl Fn(usize) -> bool, backslashes: &str) -> Vec<u8> {
    let unit = |(at, &byte): (usize, &u8)| match encode(at) {
        true => format!("{backslashes}u{byte:04x}").into_bytes(),
        false => vec![byte],
    };
    key.iter().enumerate().flat_map(unit).collect()
}

/// In hex; `upper` says which digits are upper case.
pub(super) fn hex(key: &[u8], upper: impl Fn(usize) -> bool) -> Vec<u8> {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let case = |(at, digit): (usize, u8)| match upper(at) {
        true => digit.to_ascii_uppercase(),
        false => digit,
    };
    digits.bytes().enumerate().map(case).collect()
}

/// In base64, with `before` and `after` encoded together with it.
pub(super) fn base64(before: &[u8], key: &[u8], after: &[u8], url: bool) -> Vec<u8> {
    let all = [before, key, after].concat();
    match url {
        true => URL_SAFE_NO_PAD.encode(all).into_bytes(),
        false => STANDARD.encode(all).into_bytes(),
    }
}

/// What the app gets of a body that comes in these pieces.
pub(super) fn guarded<'a>(
    key: &[u8],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, u32) {
    let (mut guard, mut out) = (Guard::new(), Vec::new());
    for piece in pieces {
        guard.feed(key, piece, &mut out);
    }
    guard.finish(key, &mut out);
    assert!(!guard.holding());
    (out, guard.hits())
}

/// Beyond this length, not every cut is tried: the generated texts have them all.
const CUTS_MAX: usize = 250;

/// As one piece; asserts that cuts in two, and single bytes, give the same: every cut of a text of ordinary length, and many of a long one.
pub(super) fn however_cut(key: &[u8], text: &[u8]) -> (Vec<u8>, u32) {
    let whole = guarded(key, [text]);
    assert_eq!(whole.0.len(), text.len());
    for at in (0..=text.len()).step_by(1 + text.len() / CUTS_MAX) {
        let (one, two) = text.split_at(at);
        assert_eq!(guarded(key, [one, two]), whole, "cut at {at}");
    }
    assert_eq!(guarded(key, text.chunks(1)), whole, "in single bytes");
    let mut value = text.to_vec();
    assert_eq!(mask_whole(key, &mut value), whole.1 > 0);
    assert_eq!(value, whole.0);
    whole
}

#[test]
fn a_masked_copy_is_never_the_beginning_of_another_one() {
    // Eight stars, and what follows them in the key once more.
    let (out, hits) = however_cut(b"*???????", b"*??????????????");
    assert_eq!((out.as_slice(), hits), (&b"########???????"[..], 1));
    let (out, hits) = however_cut(b"#???????", b"#??????????????");
    assert_eq!((out.as_slice(), hits), (&b"********???????"[..], 1));
}

/// `text` stands between innocent text and is masked from its first to its last byte, and nothing else is.
pub(super) fn assert_masked(key: &[u8], text: &[u8], name: &str) {
    assert_part_masked(key, text, 0..text.len(), name);
}

pub(super) fn assert_part_masked(
    key: &[u8],
    text: &[u8],
    part: std::ops::Range<usize>,
    name: &str,
) {
    for (before, after) in [
        ("", ""),
        ("{\"error\":\"got ", " as a key\"}"),
        ("a=", "&b=c"),
    ] {
        let body = [before.as_bytes(), text, after.as_bytes()].concat();
        let mut expected = body.clone();
        expected[before.len() + part.start..before.len() + part.end].fill(b'*');
        let (out, hits) = however_cut(key, &body);
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&expected),
            "{name}"
        );
        assert_eq!(hits, 1, "{name}");
    }
}

pub(super) fn assert_passes(key: &[u8], text: &[u8], name: &str) {
    let (out, hits) = however_cut(key, text);
    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(text),
        "{name}"
    );
    assert_eq!(hits, 0, "{name}");
}

/// `key` with the byte at `at` changed.
pub(super) fn changed(key: &[u8], at: usize) -> Vec<u8> {
    let mut key = key.to_vec();
    key[at] = if key[at] == b'q' { b'r' } else { b'q' };
    key
}

#[test]
fn the_encodings_of_the_tests_are_what_they_say() {
    assert_eq!(percent(b"a-b", |at| at == 1, true), b"a%2db");
    assert_eq!(json(b"a-b", |at| at == 1, "\\"), b"a\\u002db");
    assert_eq!(hex(b"jk", |at| at == 1), b"6A6b");
    assert_eq!(
        base64(b"x", b"key", b"", false),
        STANDARD_NO_PAD
            .encode("xkey")
            .as_bytes()
            .iter()
            .copied()
            .chain(*b"==")
            .collect::<Vec<_>>()
    );
}
