//! Trust files: never a panic, and what is written is read back as it was.
#![no_main]

use custody::Trust;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(trust) = Trust::parse(bytes) {
        assert_eq!(
            Trust::parse(trust.to_json().as_bytes()).as_ref(),
            Ok(&trust)
        );
        for descriptor in trust.descriptors() {
            assert_eq!(trust.check_presented(descriptor), Ok(()));
            assert!(trust.current(&descriptor.fingerprint()).is_ok());
        }
    }
});
