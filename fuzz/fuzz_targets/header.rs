//! Key headers: never a panic, and one encoding per value.
#![no_main]

use custody::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = Header::parse(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
