//! What request and response heads have in common: where they end, and how long the body is.

use super::{Fields, HEAD_MAX_BYTES};

/// Why a head or a body is refused. The text is for the developer of the app and quotes nothing from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Malformed, ambiguous or outside of what we forward: 400.
    Bad(&'static str),
    /// More than [`HEAD_MAX_BYTES`] or [`super::HEADERS_MAX`]: 431.
    TooLarge,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection ends; responses only.
    UntilClose,
}

/// Finds the end of a head in `bytes`, of which the first `seen` are known not to contain it. `Some(n)`: the head is `bytes[..n]`.
///
/// Every line must end in CR LF, go on in no second line, and hold no other control character than a tab: a bare CR or LF is where two parsers begin to disagree about
/// what is a header. Checked as bytes arrive, so that such a head is refused at once and not when its time is up.
pub fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Reject> {
    // A CR at the very end was accepted on trust last time, and so was what follows an LF there.
    let mut at = seen.saturating_sub(1);
    while let Some(passed) = bytes[at..].iter().position(|byte| is_control(*byte)) {
        at += passed;
        let next = bytes.get(at + 1);
        match bytes[at] {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                return Err(Reject::Bad("a line ends without CR LF"));
            }
            b'\n' if at >= 3 && bytes[at - 3] == b'\r' && bytes[at - 2] == b'\n' => {
                return if at < HEAD_MAX_BYTES {
                    Ok(Some(at + 1))
                } else {
                    Err(Reject::TooLarge)
                };
            }
            // obs-fold, which parsers join, drop or take for a header of its own.
            b'\n' if matches!(next, Some(b' ' | b'\t')) => {
                return Err(Reject::Bad("a header is folded over two lines"));
            }
            b'\r' if next.is_some_and(|next| *next != b'\n') => {
                return Err(Reject::Bad("a CR stands alone"));
            }
            b'\n' | b'\t' | b'\r' => {}
            _ => return Err(Reject::Bad("the head contains a control character")),
        }
        at += 1;
    }
    if bytes.len() >= HEAD_MAX_BYTES {
        Err(Reject::TooLarge)
    } else {
        Ok(None)
    }
}

/// What may stand in a head only as a line's end or a tab: all else is passed over at once.
fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// `Content-Length` and `Transfer-Encoding`, read so that no other parser can read them differently: at most one of the two, once, with
/// nothing but digits or exactly `chunked`. `None` when neither is there.
pub fn framing(fields: &Fields) -> Result<Option<Framing>, Reject> {
    let mut lengths = fields.all("content-length");
    let mut codings = fields.all("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Reject::Bad("Content-Length and Transfer-Encoding together")),
        (Some(length), None) if lengths.next().is_none() => decimal(length)
            .map(|length| Some(Framing::Length(length)))
            .ok_or(Reject::Bad("Content-Length is not one decimal number")),
        (Some(_), None) => Err(Reject::Bad("Content-Length occurs twice")),
        (None, Some(coding))
            if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Some(Framing::Chunked))
        }
        (None, Some(_)) => Err(Reject::Bad("Transfer-Encoding is not exactly `chunked`")),
    }
}

/// Digits only: no sign, no list, no blank, and no more than fits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_wherever_the_packets_are_cut() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        for cut in 1..head.len() {
            let first = find_end(&head[..cut], 0);
            let end = match first {
                Ok(None) => find_end(head, cut),
                end => end,
            };
            assert_eq!(end, Ok(Some(head.len() - 4)), "cut at {cut}");
        }
    }

    #[test]
    fn refuses_line_ends_that_parsers_disagree_about() {
        for (head, cut) in [
            (&b"GET / HTTP/1.1\nhost: a\n\n"[..], 3),
            (b"GET / HTTP/1.1\r\nhost: a\n\r\n", 20),
            (b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", 24),
            (b"GET / HTTP/1.1\r\nhost: a\0\r\n\r\n", 5),
            (b"GET / HTTP/1.1\r\nhost: a\r", 5),
        ] {
            let whole = find_end(head, 0);
            let pieces = find_end(&head[..cut], 0).and_then(|_| find_end(head, cut));
            assert_eq!(whole, pieces);
            assert!(whole.is_err() || head.ends_with(b"a\r"), "{head:?}");
        }
    }

    #[test]
    fn a_head_may_fill_the_bound_and_not_pass_it() {
        let head = |fill: usize| {
            [
                b"GET / HTTP/1.1\r\na: ".as_slice(),
                &vec![b'x'; fill],
                b"\r\n\r\n",
            ]
            .concat()
        };
        let frame = head(0).len();
        assert_eq!(
            find_end(&head(HEAD_MAX_BYTES - frame), 0),
            Ok(Some(HEAD_MAX_BYTES))
        );
        assert_eq!(
            find_end(&head(HEAD_MAX_BYTES - frame + 1), 0),
            Err(Reject::TooLarge)
        );
    }

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(
            decimal(b"123456789012345678"),
            Some(123_456_789_012_345_678)
        );
        for bad in [
            &b""[..],
            b"+4",
            b"-1",
            b"4, 4",
            b"0x4",
            b"4 ",
            b"1234567890123456789",
        ] {
            assert_eq!(decimal(bad), None);
        }
    }
}
