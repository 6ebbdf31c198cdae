//! Percent-encoding of one path segment or query parameter: decoded once, never twice.

/// Decodes once. `None`: a broken escape, or bytes that are no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(bytes.next()?)? << 4 | digit(bytes.next()?)?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Encodes a name for a path segment or a query value. `:` and `@` stay, as the gate leaves them in the paths of apps.
pub(crate) fn encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'@') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    out
}

/// Whether a decoded name is one and the same thing for every parser behind us: not empty, no dot segment, nothing that splits a path, ends
/// it or would be decoded again.
pub(crate) fn is_safe(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#' | ';' | ' '))
}

/// The same for a name of several segments: `vendor/model`, an ARN.
pub(crate) fn is_safe_path(name: &str) -> bool {
    name.split('/').all(is_safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_refuses_what_is_broken() {
        assert_eq!(decode("a%3Ab%2fc").as_deref(), Some("a:b/c"));
        assert_eq!(decode("%252F").as_deref(), Some("%2F"));
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
        for text in ["a/b c", "m\u{fc}", "x:1@2", "%2F"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!(encode("a/b:0"), "a%2Fb:0");
    }

    #[test]
    fn safe_names_are_one_segment() {
        assert!(is_safe("gpt-5.6") && is_safe("anthropic.claude-v1:0") && is_safe("..."));
        for name in [
            "", ".", "..", "a/b", "a\\b", "a%2F", "a\n", "a?b", "a#b", "a;b", "a b",
        ] {
            assert!(!is_safe(name), "{name:?}");
        }
        assert!(is_safe_path("meta/llama-4"));
        assert!(
            !is_safe_path("meta//llama") && !is_safe_path("meta/../admin") && !is_safe_path("/x")
        );
    }
}
