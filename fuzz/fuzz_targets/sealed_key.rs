//! Sealed keys, as bytes and as text, and what is verified about them.
#![no_main]

use custody::{SealedKey, Trust};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let trust = Trust {
        threshold: 2,
        custodians: Vec::new(),
        sealers: Vec::new(),
    };
    if let Ok(key) = SealedKey::parse(bytes) {
        assert_eq!(key.encode(), bytes);
        assert_eq!(SealedKey::from_armor(&key.to_armor()), Ok(key.clone()));
        assert!(key.verify(&trust).is_err(), "nobody is trusted");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(key) = SealedKey::from_armor(text) {
        assert_eq!(SealedKey::from_armor(&key.to_armor()), Ok(key));
    }
});
