//! Custodian descriptors, plain and signed.
#![no_main]

use custody::{Descriptor, SignedDescriptor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = SignedDescriptor::parse(bytes) {
        assert_eq!(signed.encode(), bytes);
    }
    if let Ok(descriptor) = Descriptor::parse(bytes) {
        assert_eq!(descriptor.encode(), bytes);
        assert!(descriptor.differences(&descriptor).is_empty());
    }
});
