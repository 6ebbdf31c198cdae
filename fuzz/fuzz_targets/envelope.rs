//! Envelopes: never a panic, never open under a key that did not make them, nothing left in the buffer.
#![no_main]

use custody::dek::{Dek, Envelope};
use libfuzzer_sys::fuzz_target;

#[path = "support/random.rs"]
mod random;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::parse(bytes) else {
        return;
    };
    let dek = Dek::generate(&mut random::Stream::new(7));
    let mut out = vec![0; envelope.plaintext_len()];
    assert!(!out.is_empty());
    assert!(dek.open_envelope(b"header", &envelope, &mut out).is_err());
    assert!(out.iter().all(|byte| *byte == 0));
});
