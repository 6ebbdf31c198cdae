//! HTTP/1.1 heads as apps and upstreams send them: never a panic, and the same verdict however the bytes arrive.
#![no_main]

use agent::http1::{RequestHead, ResponseHead, target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = RequestHead::parse(bytes, 0);
    if let Ok(Some((_, length))) = &whole {
        assert!(*length <= bytes.len());
        // Byte by byte: not yet, not yet, then the same head.
        for at in 0..*length {
            assert!(matches!(
                RequestHead::parse(&bytes[..at], at.saturating_sub(1)),
                Ok(None)
            ));
        }
        assert!(
            matches!(RequestHead::parse(&bytes[..*length], length - 1), Ok(Some((_, same))) if same == *length)
        );
    }
    let _ = ResponseHead::parse(bytes, 0, "GET");
    let _ = ResponseHead::parse(bytes, 0, "HEAD");
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = target::parse(text);
        let kept = target::without_credentials(text);
        assert_eq!(target::without_credentials(&kept), kept);
    }
});
