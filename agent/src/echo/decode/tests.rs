#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn decode<'a>(
    coding: &str,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, DecodeFault> {
    let mut decoding = Decoding::new(coding.as_bytes()).unwrap().unwrap();
    let mut out = Vec::new();
    for piece in pieces {
        decoding.feed(piece, |slice| {
            assert!(!slice.is_empty() && slice.len() <= SLICE);
            out.extend_from_slice(slice);
        })?;
    }
    decoding.finish()?;
    Ok(out)
}

/// Not too regular, and longer than a few slices.
fn text() -> Vec<u8> {
    (0..60_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 27) as u8 + b'a')
        .collect()
}

#[test]
fn names_of_codings_are_read_as_http_says() {
    for name in ["", "identity", " Identity "] {
        assert!(matches!(Decoding::new(name.as_bytes()), Ok(None)), "{name}");
    }
    for name in ["gzip", "X-GZIP", " deflate"] {
        assert!(
            matches!(Decoding::new(name.as_bytes()), Ok(Some(_))),
            "{name}"
        );
    }
    for name in [
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "identity, gzip",
        "gzip,",
        "gzi",
        "\u{e9}",
    ] {
        assert!(
            matches!(Decoding::new(name.as_bytes()), Err(Unreadable)),
            "{name}"
        );
    }
}

#[test]
fn each_coding_gives_the_text_back_however_it_is_cut() {
    for (coding, encoded) in [
        ("gzip", gzip(&text())),
        ("deflate", zlib(&text())),
        ("deflate", raw(&text())),
    ] {
        for size in [1, 2, 7, 1000, encoded.len()] {
            assert_eq!(
                decode(coding, encoded.chunks(size)).unwrap(),
                text(),
                "{coding} by {size}"
            );
        }
    }
    for empty in [gzip(b""), zlib(b""), raw(b"")] {
        let coding = if empty[0] == 0x1f { "gzip" } else { "deflate" };
        assert_eq!(decode(coding, [&empty[..]]), Ok(Vec::new()));
    }
    // A coding is named, and the body is empty.
    assert_eq!(decode("gzip", [&b""[..]]), Ok(Vec::new()));
    assert_eq!(decode("deflate", []), Ok(Vec::new()));
}

#[test]
fn a_head_with_every_field_is_read_and_an_endless_one_is_not() {
    let build = |name: Vec<u8>| {
        let mut encoder = GzBuilder::new()
            .filename(name)
            .comment("of no use")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"content").unwrap();
        encoder.finish().unwrap()
    };
    let mut encoded = build(b"name".to_vec());
    for size in [1, 3, encoded.len()] {
        assert_eq!(decode("gzip", encoded.chunks(size)).unwrap(), b"content");
    }
    // With the checksum of the head.
    let head = 10 + 2 + 3 + 5 + 10;
    encoded[3] |= 2;
    encoded.splice(head..head, [0, 0]);
    assert_eq!(decode("gzip", encoded.chunks(1)).unwrap(), b"content");
    encoded[3] |= 0x20;
    assert_eq!(decode("gzip", [&encoded[..]]), Err(DecodeFault::Corrupt));
    let endless = build(vec![b'n'; 5000]);
    assert_eq!(decode("gzip", [&endless[..]]), Err(DecodeFault::Corrupt));
}

#[test]
fn members_that_follow_each_other_are_one_text() {
    let encoded = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    for size in [1, 5, encoded.len()] {
        assert_eq!(decode("gzip", encoded.chunks(size)).unwrap(), b"one two");
    }
    let plain_after = [gzip(b"one"), b"two".to_vec()].concat();
    assert_eq!(
        decode("gzip", [&plain_after[..]]),
        Err(DecodeFault::Corrupt)
    );
}

#[test]
fn an_unfinished_body_is_a_fault_wherever_it_breaks_off() {
    for (coding, encoded) in [
        ("gzip", gzip(b"some content")),
        ("deflate", zlib(b"some content")),
        ("deflate", raw(b"some content")),
    ] {
        for length in 1..encoded.len() {
            let result = decode(coding, [&encoded[..length]]);
            assert_eq!(result, Err(DecodeFault::Truncated), "{coding} {length}");
        }
    }
}

#[test]
fn a_wrong_checksum_and_bytes_behind_the_end_are_faults() {
    let mut encoded = gzip(b"some content");
    for place in 1..=8 {
        let end = encoded.len() - place;
        encoded[end] ^= 1;
        assert_eq!(decode("gzip", [&encoded[..]]), Err(DecodeFault::Corrupt));
        encoded[end] ^= 1;
    }
    let mut encoded = zlib(b"some content");
    let last = encoded.len() - 1;
    encoded[last] ^= 1;
    assert_eq!(decode("deflate", [&encoded[..]]), Err(DecodeFault::Corrupt));
    for encoded in [zlib(b"some content"), raw(b"some content")] {
        let longer = [&encoded[..], b"x"].concat();
        assert_eq!(decode("deflate", [&longer[..]]), Err(DecodeFault::Trailing));
    }
    assert_eq!(
        decode("gzip", [&b"plain text"[..]]),
        Err(DecodeFault::Corrupt)
    );
}

#[test]
fn a_bomb_is_stopped_near_the_limit_and_a_dense_answer_is_not() {
    let bomb = gzip(&vec![b'a'; 32 * 1024 * 1024]);
    let mut decoding = Decoding::new(b"gzip").unwrap().unwrap();
    let mut made = 0;
    let fault = bomb
        .chunks(1000)
        .try_for_each(|piece| decoding.feed(piece, |slice| made += slice.len() as u64));
    assert_eq!(fault, Err(DecodeFault::Bomb));
    assert!(made <= EXPANSION_FREE + EXPANSION_MAX * bomb.len() as u64);
    // Just below what is free, at any ratio; and a hundredfold, at any length.
    let free = vec![b'a'; EXPANSION_FREE as usize];
    assert_eq!(
        decode("gzip", [&gzip(&free)[..]]).unwrap().len(),
        free.len()
    );
    let line: Vec<u8> = (0..40_u8).map(|n| b'0' + n).collect();
    let dense: Vec<u8> = (0..8 * 1024_usize)
        .flat_map(|n| [line.repeat(12), n.to_string().into_bytes()].concat())
        .collect();
    let encoded = gzip(&dense);
    assert!(dense.len() / encoded.len() > 50 && dense.len() as u64 > 3 * EXPANSION_FREE);
    assert_eq!(decode("gzip", encoded.chunks(4096)).unwrap(), dense);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_alike_however_they_are_cut(bytes: Vec<u8>, is_gzip: bool, size in 1..9_usize) {
        let coding = if is_gzip { "gzip" } else { "deflate" };
        prop_assert_eq!(decode(coding, [&bytes[..]]).ok(), decode(coding, bytes.chunks(size)).ok());
    }

    #[test]
    fn a_damaged_body_never_gives_another_text(text: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
        let mut encoded = gzip(&text);
        let at = at.index(encoded.len());
        encoded[at] ^= 1_u8 << bit;
        if let Ok(decoded) = decode("gzip", [&encoded[..]]) {
            prop_assert_eq!(decoded, text);
        }
    }
}
