//! Bodies in passing: chunked coding gives the same content however the bytes arrive, takes no byte behind its end, and is never complete
//! without one; and what the encoder writes, the decoder reads.
#![no_main]

use agent::http1::{Decoder, Encoder, Framing};
use libfuzzer_sys::fuzz_target;

/// Decodes `bytes`, cut into pieces of the lengths that `cuts` gives, again and again.
fn decode(framing: Framing, bytes: &[u8], cuts: &[u8]) -> Option<(Vec<u8>, usize, bool)> {
    let (mut decoder, mut content, mut taken) = (Decoder::new(framing), Vec::new(), 0);
    let mut cuts = cuts.iter().cycle();
    while taken < bytes.len() && !decoder.is_done() {
        let piece = usize::from(*cuts.next().unwrap_or(&0)).max(1);
        let end = bytes.len().min(taken + piece);
        let took = decoder
            .decode(&bytes[taken..end], |part| content.extend_from_slice(part))
            .ok()?;
        assert!(took == end - taken || decoder.is_done());
        taken += took;
    }
    Some((content, taken, decoder.is_done()))
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>, u16)| {
    let (bytes, cuts, length) = input;
    let whole = decode(Framing::Chunked, &bytes, &[255]);
    assert_eq!(whole, decode(Framing::Chunked, &bytes, &cuts));
    assert_eq!(whole, decode(Framing::Chunked, &bytes, &[1]));
    if let Some((content, taken, done)) = &whole {
        assert!(content.len() <= *taken && *taken <= bytes.len());
        if *done {
            assert!(bytes[..*taken].ends_with(b"\r\n"));
            // One byte less is not the end.
            let short = decode(Framing::Chunked, &bytes[..*taken - 1], &cuts);
            assert!(matches!(short, Some((_, _, false))));
        }
    }

    let by_length = decode(Framing::Length(u64::from(length)), &bytes, &cuts);
    let (content, taken, done) = by_length.expect("a length cannot be malformed");
    let expected = bytes.len().min(usize::from(length));
    assert!(content == bytes[..expected] && taken == expected);
    assert_eq!(done, expected == usize::from(length));

    let mut wire = Vec::new();
    for piece in bytes.chunks(usize::from(*cuts.first().unwrap_or(&7)).max(1)) {
        Encoder::Chunked.piece(piece, &mut wire);
    }
    Encoder::Chunked.end(&mut wire);
    wire.extend_from_slice(b"GET /");
    let (content, taken, done) = decode(Framing::Chunked, &wire, &cuts).expect("our own coding");
    assert!(content == bytes && done && taken == wire.len() - 5);
});
