//! Names, origins and fingerprints: never a panic, and one form per value.
#![no_main]

use custody::{Fingerprint, KeyId, Origin, SealerKey, Upstream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(origin) = text.parse::<Origin>() {
        assert_eq!(origin.to_string().parse(), Ok(origin.clone()));
        assert!(
            origin.tls()
                || matches!(origin.host(), "localhost" | "::1")
                || origin.host().starts_with("127.")
        );
        assert!(Upstream::Origin(origin.clone()).allows(&origin));
    }
    if let Ok(print) = text.parse::<Fingerprint>() {
        assert_eq!(print.to_string().parse(), Ok(print));
    }
    if let Ok(key) = SealerKey::from_hex(text) {
        assert_eq!(SealerKey::from_hex(&key.to_string()), Ok(key));
    }
});
