//! Tokens and key sets that others wrote: never a panic, and nothing passes that was not signed.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use attest::requirements::TokenRules;
use attest::token::{KeySet, verify};
use libfuzzer_sys::fuzz_target;

/// The public half of a key pair that was thrown away.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k1","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let _ = (KeySet::parse(bytes), attest::pods::Pods::parse(bytes));
    let keys = KeySet::parse(KEYS.as_bytes()).expect("a good key set");
    let rules = TokenRules {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audience: "tacit".to_owned(),
        lifetime_max: Duration::from_secs(3600),
        node: None,
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert!(verify(bytes, &keys, &rules, now).is_err());
});
