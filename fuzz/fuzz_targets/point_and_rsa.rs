//! Public keys before any token sees them: points on the curve, RSA keys in canonical DER.
#![no_main]

use custody::OaepHash;
use custody::p256::{KeyPair, Point};
use custody::rsa::RsaPublic;
use libfuzzer_sys::fuzz_target;

#[path = "support/random.rs"]
mod random;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(point) = Point::parse(bytes) {
        assert_eq!(point.as_bytes()[..], *bytes);
        let _ = KeyPair::generate(&mut random::Stream::new(1)).agree(&point);
    }
    if let Ok(key) = RsaPublic::parse(bytes) {
        assert_eq!(key.as_der(), bytes);
        let (modulus, exponent) = key.components();
        assert_eq!(
            RsaPublic::from_components(&modulus, &exponent).as_ref(),
            Ok(&key)
        );
        let _ = key.encrypt(OaepHash::Sha256, &[7; 64]);
    }
    let (modulus, exponent) = bytes.split_at(bytes.len().min(256));
    if let Ok(key) = RsaPublic::from_components(modulus, exponent) {
        assert_eq!(RsaPublic::parse(key.as_der()), Ok(key));
    }
});
