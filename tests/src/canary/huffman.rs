//! The Huffman code of HPACK, RFC 7541 appendix B: how HTTP/2 writes a header value.

/// Code and length in bits of each printable ASCII character, from the blank on.
#[rustfmt::skip]
const CODES: [(u32, u32); 95] = [
    (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12), (0x1ff9, 13), (0x15, 6), (0xf8, 8), (0x7fa, 11),
    (0x3fa, 10), (0x3fb, 10), (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
    (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6), (0x1c, 6), (0x1d, 6),
    (0x1e, 6), (0x1f, 6), (0x5c, 7), (0xfb, 8), (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10),
    (0x1ffa, 13), (0x21, 6), (0x5d, 7), (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7),
    (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7), (0x68, 7), (0x69, 7), (0x6a, 7),
    (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7), (0x6f, 7), (0x70, 7), (0x71, 7), (0x72, 7),
    (0xfc, 8), (0x73, 7), (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
    (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5), (0x25, 6), (0x26, 6),
    (0x27, 6), (0x6, 5), (0x74, 7), (0x75, 7), (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5),
    (0x2b, 6), (0x76, 7), (0x2c, 6), (0x8, 5), (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7),
    (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11), (0x3ffd, 14), (0x1ffd, 13),
];

/// A secret in the middle of a longer value begins at any of eight places of a byte. The bits at both ends mix with the
/// neighbours; whole bytes between them are the same whatever stands beside. Nothing for a secret that is no ASCII text.
pub(super) fn in_every_place(secret: &[u8]) -> Vec<Vec<u8>> {
    (0..8)
        .filter_map(|shift| {
            let bits = bits(secret)?;
            let skip = (8 - shift) % 8;
            let whole = bits.get(skip..)?.chunks_exact(8);
            Some(
                whole
                    .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit))
                    .collect(),
            )
        })
        .collect()
}

fn bits(text: &[u8]) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for byte in text {
        let (code, length) = CODES.get(usize::from(byte.checked_sub(b' ')?))?;
        bits.extend((0..*length).rev().map(|at| u8::from(code >> at & 1 == 1)));
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The code of a whole text, padded with ones as on the wire.
    fn encode(text: &[u8]) -> Option<Vec<u8>> {
        let mut bits = bits(text)?;
        bits.resize(bits.len().next_multiple_of(8), 1);
        let bytes = bits.chunks_exact(8);
        Some(
            bytes
                .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit))
                .collect(),
        )
    }

    #[test]
    fn the_examples_of_the_specification() {
        // RFC 7541, C.4.1, C.4.2 and C.6.1.
        for (text, wanted) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
            (
                "https://www.example.com",
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
            ),
        ] {
            assert_eq!(
                hex::encode(encode(text.as_bytes()).unwrap()),
                wanted,
                "{text}"
            );
        }
        assert_eq!(encode(b"no ASCII: \xe9"), None);
    }

    #[test]
    fn a_secret_is_found_behind_a_value_of_any_length_in_bits() {
        let secret = b"sk-proj-nokey-0123456789-abcdef";
        let forms = in_every_place(secret);
        for before in ["", "B", "Be", "Bearer ", "!", "!!", "x-api-key: ", "~"] {
            let value = encode(&[before.as_bytes(), secret, b" ;"].concat()).unwrap();
            let found = forms
                .iter()
                .any(|form| value.windows(form.len()).any(|one| one == form));
            assert!(found, "{before}");
        }
        let other = encode(b"Bearer sk-proj-nokey-0123456789-bbcdef").unwrap();
        assert!(
            !forms
                .iter()
                .any(|form| other.windows(form.len()).any(|one| one == form))
        );
    }
}
