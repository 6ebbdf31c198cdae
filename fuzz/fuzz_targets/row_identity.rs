//! Row identities: never a panic, and one encoding per value.
#![no_main]

use custody::RowIdentity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = RowIdentity::parse(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
