//! Statements: never a panic, and one encoding per value.
#![no_main]

use custody::Statement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = Statement::parse(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
