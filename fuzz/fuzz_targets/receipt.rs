//! Receipts: never a panic, read back as written, and each challenge spent once.
#![no_main]

use custody::Receipt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut receipt) = Receipt::parse(bytes) else {
        return;
    };
    assert_eq!(
        Receipt::parse(receipt.to_json().as_bytes()).as_ref(),
        Ok(&receipt)
    );
    let mut left = receipt.remaining();
    while let Some(spent) = receipt.spend() {
        assert_eq!(spent.len(), receipt.custodians.len());
        assert!(!spent.is_empty());
        left -= 1;
        assert_eq!(receipt.remaining(), left);
    }
    assert_eq!(left, 0);
});
