//! What rests in the store: parts of keys, sealed rows, and what is inside them. Never a panic, one encoding per value.
#![no_main]

use custody::storekey::{WrappedPart, claimed_epoch};
use custody::stored::{StoredInventory, StoredNumber, StoredRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(part) = WrappedPart::parse(bytes) {
        assert_eq!(part.encode(), bytes);
    }
    let _ = claimed_epoch(bytes);
    if let Ok(stored) = StoredRecord::parse(bytes) {
        assert_eq!(stored.encode(), bytes);
    }
    if let Ok(stored) = StoredInventory::parse(bytes) {
        assert_eq!(stored.encode(), bytes);
    }
    if let Ok(stored) = StoredNumber::parse(bytes) {
        assert_eq!(stored.encode(), bytes);
    }
});
