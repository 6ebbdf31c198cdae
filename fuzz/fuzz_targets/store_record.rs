//! Store records and inventories: never a panic, and one encoding per value.
#![no_main]

use custody::record::{Inventory, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(record.encode(), bytes);
    }
    if let Ok(inventory) = Inventory::parse(bytes) {
        assert_eq!(inventory.encode(), bytes);
        for entry in &inventory.entries {
            assert_eq!(inventory.find(entry.kind, &entry.id), Some(entry));
        }
    }
});
