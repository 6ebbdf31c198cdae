//! Request targets: what passes has one reading, is sent as it was matched, and carries no credential.
#![no_main]

use agent::http1::target;
use libfuzzer_sys::fuzz_target;

/// Percent-decodes once; anything broken stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match (
            bytes[at],
            digit(bytes.get(at + 1)),
            digit(bytes.get(at + 2)),
        ) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).expect("two hexadecimal digits"));
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fuzz_target!(|text: &str| {
    if let Ok((path, query)) = target::parse(text) {
        assert!(path.starts_with('/') && path.is_ascii());
        assert!(
            !path
                .bytes()
                .any(|byte| byte.is_ascii_control() || matches!(byte, b' ' | b'?' | b'#' | b'\\'))
        );
        assert!(!path.contains("//"));
        for segment in path.split('/') {
            // However often another server decodes, the segment stays one and names itself.
            let mut seen = segment.as_bytes().to_vec();
            for _ in 0..3 {
                seen = decoded(&String::from_utf8_lossy(&seen));
                let slashes = seen.contains(&b'/');
                assert!(!slashes || target::has_encoded_slash(segment), "{segment}");
                assert!(!seen.contains(&b'\\'), "{segment}");
                for part in seen.split(|byte| *byte == b'/') {
                    let name = part.split(|byte| *byte == b';').next().unwrap_or_default();
                    assert!(name != b"." && name != b"..", "{segment}");
                }
            }
        }
        // Canonical: parsing it again changes nothing.
        assert_eq!(target::parse(&path), Ok((path.clone(), "")));
        assert!(query.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let kept = target::without_credentials(text);
    assert_eq!(target::without_credentials(&kept), kept);
    for part in kept.split(['&', ';']) {
        let name = part.split('=').next().unwrap_or_default();
        assert!(
            !providers::is_credential_parameter(&decoded(name)),
            "{part}"
        );
    }
});
