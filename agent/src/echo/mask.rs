//! What providers leave of a key when they mask it, as in `sk-proj-****…MxYA` or `****Cr8A`: blanked in errors, whoever's key it is.
//!
//! Nothing here knows a key, on purpose. A guard that blanks the masks of *our* key alone can be asked: an app that has the provider repeat
//! `***a`, `***b` … would see which of them it blanks, and so learn the key from its end, letter by letter.

/// Mask characters that make a mask; `…` counts as the three dots that it stands for.
const WEIGHT_MIN: usize = 3;
/// Most characters of a key that a mask leaves in clear on either side. OpenAI leaves eight and four.
const SHOWN_MAX: usize = 16;
const MASK: u8 = b'*';

/// Blanks up to `SHOWN_MAX` letters, digits, `-` and `_` before and after every run of three or more mask characters.
pub fn blank(text: &mut [u8]) {
    let mut at = 0;
    while at < text.len() {
        let (end, weight) = run(text, at);
        if weight >= WEIGHT_MIN {
            let before = text[..at].iter().rev().take(SHOWN_MAX);
            let before = before.take_while(|&&byte| is_shown(byte)).count();
            let after = text[end..].iter().take(SHOWN_MAX);
            let after = after.take_while(|&&byte| is_shown(byte)).count();
            text[at - before..at].fill(MASK);
            text[end..end + after].fill(MASK);
            at = end + after;
        } else {
            at = end.max(at + 1);
        }
    }
}

/// Where the run of mask characters that begins at `from` ends, and its weight.
fn run(text: &[u8], from: usize) -> (usize, usize) {
    let (mut at, mut weight) = (from, 0);
    loop {
        let (length, more) = match &text[at..] {
            [b'*', ..] => (1, 1),
            // `•` and `…` in UTF-8, and as JSON escapes them.
            [0xe2, 0x80, 0xa2, ..] => (3, 1),
            [0xe2, 0x80, 0xa6, ..] => (3, WEIGHT_MIN),
            [b'\\', b'u', b'2', b'0', b'2', b'2', ..] => (6, 1),
            [b'\\', b'u', b'2', b'0', b'2', b'6', ..] => (6, WEIGHT_MIN),
            _ => return (at, weight),
        };
        at += length;
        weight += more;
    }
}

fn is_shown(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn masks_lose_what_they_show_and_other_text_stays() {
        for (text, left) in [
            (
                "key: sk-proj-****MxYA.",
                "key: ************MxYA.".replace("MxYA", "****"),
            ),
            (
                "api key: ****Cr8A is invalid",
                "api key: ******** is invalid".to_owned(),
            ),
            ("xa***UQ", "*******".to_owned()),
            ("sk-or…890 no", "*****…*** no".to_owned()),
            ("a sk-\\u2026890\"", "a ***\\u2026***\"".to_owned()),
            (
                "two ** stars, an ... ellipsis",
                "two ** stars, an ... ellipsis".to_owned(),
            ),
            ("a *** b", "a *** b".to_owned()),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            blank(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), left, "{text}");
        }
    }

    #[test]
    fn it_tells_nothing_of_any_key() {
        // Whatever stands behind a mask is blanked alike.
        for guess in ["aaaa", "MxYA", "0000"] {
            let mut bytes = format!("***{guess}").into_bytes();
            blank(&mut bytes);
            assert_eq!(bytes, b"*******");
        }
    }
}
