//! A backup from anybody: never a panic, one encoding per head, and pieces of any size find the same.
#![no_main]

use custody::backup::{Acceptance, Accepted, Checker, Head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((head, used))) = Head::parse(bytes) {
        assert_eq!(head.encode(), bytes[..used]);
    }
    if let Ok(acceptance) = Acceptance::parse(bytes) {
        assert_eq!(acceptance.encode(), bytes);
    }
    if let Ok(accepted) = Accepted::parse(bytes) {
        assert_eq!(accepted.encode(), bytes);
    }
    let check = |piece: usize| {
        let mut checker = Checker::new();
        for piece in bytes.chunks(piece) {
            checker.feed(piece)?;
        }
        checker.finish()
    };
    assert_eq!(check(7), check(bytes.len().max(1)));
});
