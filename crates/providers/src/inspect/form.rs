//! `multipart/form-data` (RFC 7578), read strictly: a form that two parsers could cut into different fields is refused.
//!
//! The app chooses the boundary, the quoting and the order, and the provider's parser is not ours. So lines end with CRLF, the boundary
//! stands nowhere but where it delimits, there is nothing before the first part or behind the last, and names have one way to be read.

use std::ops::Range;

use memchr::memmem;

use super::BodyFault;

/// Parts of one form. Real ones have a dozen.
const PARTS_MAX: usize = 256;

/// The header block of one part. Real ones have two lines; file names may be long.
const PART_HEAD_MAX: usize = 8 * 1024;

/// RFC 2046, section 5.1.1.
const BOUNDARY_MAX: usize = 70;

/// One field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub name: String,
    /// Whether it came with a file name.
    pub is_file: bool,
    /// Its media type, in lower case, as far as it was given.
    pub kind: Option<String>,
    /// Where its content stands in the body.
    pub content: Range<usize>,
}

/// Cuts a body into its parts.
pub(super) fn parts(content_type: &str, body: &[u8]) -> Result<Vec<Part>, BodyFault> {
    let delimiter = format!("--{}", boundary(content_type).ok_or(BodyFault::Form)?);
    let mut cuts = memmem::find_iter(body, delimiter.as_bytes());
    if cuts.next() != Some(0) {
        return Err(BodyFault::Form);
    }
    let mut parts = Vec::new();
    let mut at = delimiter.len();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if let Some(end) = rest.strip_prefix(b"--") {
            let is_end = matches!(end, b"" | b"\r\n") && cuts.next().is_none();
            return is_end.then_some(parts).ok_or(BodyFault::Form);
        }
        if !rest.starts_with(b"\r\n") || parts.len() >= PARTS_MAX {
            return Err(BodyFault::Form);
        }
        let next = cuts.next().ok_or(BodyFault::Form)?;
        parts.push(part(body, at + 2, next).ok_or(BodyFault::Form)?);
        at = next + delimiter.len();
    }
}

/// One part, from behind its delimiter line to the next delimiter.
fn part(body: &[u8], start: usize, next: usize) -> Option<Part> {
    let end = next.checked_sub(2)?;
    let whole = body.get(start..end)?;
    (body.get(end..next)? == b"\r\n").then_some(())?;
    let head_end = memmem::find(whole.get(..whole.len().min(PART_HEAD_MAX))?, b"\r\n\r\n")?;
    let head = std::str::from_utf8(whole.get(..head_end)?).ok()?;
    let mut disposition = None;
    let mut kind = None;
    for line in head.split("\r\n") {
        // A control character is a folded line, a bare CR or LF, or worse.
        if line.chars().any(char::is_control) {
            return None;
        }
        let (name, value) = line.split_once(':')?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let value = value.trim_matches(' ');
        let twice = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => disposition.replace(value).is_some(),
            "content-type" => kind.replace(value).is_some(),
            // Another encoding makes another content.
            "content-transfer-encoding" | "content-encoding" => !is_identity(value),
            _ => false,
        };
        if twice {
            return None;
        }
    }
    let (name, is_file) = field(disposition?)?;
    let kind = kind.map(|kind| {
        kind.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    Some(Part {
        name,
        is_file,
        kind,
        content: start + head_end + 4..end,
    })
}

fn is_identity(encoding: &str) -> bool {
    ["7bit", "8bit", "binary", "identity"]
        .iter()
        .any(|known| encoding.eq_ignore_ascii_case(known))
}

/// Name and presence of a file name in `form-data; name="…"; filename="…"`.
fn field(disposition: &str) -> Option<(String, bool)> {
    let (kind, parameters) = disposition.split_once(';')?;
    kind.trim()
        .eq_ignore_ascii_case("form-data")
        .then_some(())?;
    let mut name = None;
    let (mut files, mut extended) = (0, 0);
    for (key, value) in parameters_of(parameters)? {
        match key.as_str() {
            // Percent signs and backslashes are escapes for some parsers and not for others; `name*` is one for some and none for others.
            "name" if !value.contains(['%', '\\']) => {
                if name.replace(value).is_some() {
                    return None;
                }
            }
            "filename" => files += 1,
            "filename*" => extended += 1,
            _ => return None,
        }
    }
    (files <= 1 && extended <= 1).then_some(())?;
    Some((name?.to_owned(), files + extended > 0))
}

/// `key=value; key="value"`, with keys in lower case. `None`: not exactly that.
fn parameters_of(text: &str) -> Option<Vec<(String, &str)>> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let (key, after) = rest.trim_start_matches(' ').split_once('=')?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'_');
        (!key.is_empty() && key.bytes().all(is_token)).then_some(())?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (quoted.get(..end)?, quoted.get(end + 1..)?)
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let value = after.get(..end)?.trim_end_matches(' ');
                (!value.is_empty() && !value.contains([' ', '"', '\\', ','])).then_some(())?;
                (value, after.get(end..)?)
            }
        };
        out.push((key.to_ascii_lowercase(), value));
        let after = after.trim_start_matches(' ');
        if after.is_empty() {
            return Some(out);
        }
        rest = after.strip_prefix(';')?;
    }
}

/// Where a quoted value ends. Backslashes come in pairs only, so that the end is the same for those who take them for escapes and for
/// those who do not.
fn closing_quote(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' if bytes.next().map(|(_, byte)| byte) != Some(b'\\') => return None,
            _ => {}
        }
    }
    None
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Option<&str> {
    let (_, parameters) = content_type.split_once(';')?;
    let mut boundary = None;
    for (key, value) in parameters_of(parameters)? {
        match key.as_str() {
            "boundary" => {
                if boundary.replace(value).is_some() {
                    return None;
                }
            }
            "charset" if value.eq_ignore_ascii_case("utf-8") => {}
            _ => return None,
        }
    }
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    boundary.filter(|boundary| {
        !boundary.is_empty()
            && boundary.len() <= BOUNDARY_MAX
            && !boundary.ends_with(' ')
            && boundary.bytes().all(is_legal)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    fn names(body: &str) -> Option<Vec<(String, String)>> {
        let parts = parts(TYPE, body.as_bytes()).ok()?;
        let read = |part: Part| (part.name, body[part.content].to_owned());
        Some(parts.into_iter().map(read).collect())
    }

    fn one(head: &str) -> Option<Vec<(String, String)>> {
        names(&format!("--XX\r\n{head}\r\n\r\ngpt-4o\r\n--XX--\r\n"))
    }

    #[test]
    fn reads_forms_as_clients_write_them() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b.wav\"\r\nContent-Type: audio/wav\r\n\r\n\
                    RIFF\r\n--not\r\n\r\n--XX\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\ngpt-4o\r\n--XX--\r\n";
        let pairs = names(body).unwrap();
        assert_eq!(pairs[0], ("file".into(), "RIFF\r\n--not\r\n".into()));
        assert_eq!(pairs[1], ("model".into(), "gpt-4o".into()));
        assert_eq!(names("--XX--\r\n"), Some(vec![]));
        assert_eq!(names("--XX--"), Some(vec![]));
    }

    #[test]
    fn refuses_what_two_parsers_could_cut_differently() {
        let good = "Content-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o";
        assert!(names(&format!("--XX\r\n{good}\r\n--XX--\r\n")).is_some());
        for body in [
            String::new(),
            format!("preamble\r\n--XX\r\n{good}\r\n--XX--\r\n"),
            format!("\r\n--XX\r\n{good}\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\r\n--XX--\r\nepilogue"),
            format!("--XX\r\n{good}\r\n--XX--\r\n\r\n"),
            format!("--XX\r\n{good}\r\n--XX--\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\r\n--XX\r\n"),
            format!("--XX\r\n{good}\r\n--XX"),
            format!("--XX\r\n{good}\r\n"),
            format!("--XX\r\n{good}\n--XX--\r\n"),
            format!("--XX\n{good}\r\n--XX--\r\n"),
            format!("--XX \r\n{good}\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\r\n--XXX\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\r\n --XX\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\n--XX\n{good}\r\n--XX--\r\n"),
            format!("--XX\r\n{good}\r--XX\r\n{good}\r\n--XX--\r\n"),
            format!("--XX\r\n\r\n{good}\r\n--XX--\r\n"),
            "--XX\r\n\r\n--XX--\r\n".to_owned(),
        ] {
            assert_eq!(names(&body), None, "{body:?}");
        }
    }

    #[test]
    fn refuses_part_heads_that_two_parsers_could_read_differently() {
        for head in [
            "Content-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=model",
            "CONTENT-DISPOSITION:form-data;name=\"model\"",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit",
            "Content-Disposition: form-data; name=\"f\"; filename=\"a\\\\b; name=x\"",
            "Content-Disposition: form-data; name=\"f\"; filename=\"x\"; filename*=UTF-8''x",
        ] {
            assert!(one(head).is_some(), "{head:?}");
        }
        for head in [
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; filename=\"model\"",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data; name=\"x\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"x\"; name*=UTF-8''model",
            "Content-Disposition: form-data; name*=UTF-8''model",
            "Content-Disposition: form-data; name=\"x\\\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"f\"; filename=\"a\\\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"mod\\el\"",
            "Content-Disposition: form-data; name=\"mod%65l\"",
            "Content-Disposition: form-data; name=\"model",
            "Content-Disposition: form-data; name=\"model\" x",
            "Content-Disposition: form-data; name=mo del",
            "Content-Disposition: form-data; name=\"model\";",
            "Content-Disposition: form-data; name = \"model\"",
            "Content-Disposition: form-data; other=\"x\"; name=\"model\"",
            "Content-Disposition: form-data;\r\n name=\"model\"",
            "Content-Disposition: form-data;\tname=\"model\"",
            "Content-Disposition : form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"x\"\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain\r\nContent-Type: text/html",
            "no colon",
        ] {
            assert_eq!(one(head), None, "{head:?}");
        }
        let long = |n| {
            format!(
                "Content-Disposition: form-data; name=\"f\"; filename=\"{}\"",
                "a".repeat(n)
            )
        };
        assert!(one(&long(PART_HEAD_MAX - 100)).is_some());
        assert_eq!(one(&long(PART_HEAD_MAX)), None);
    }

    #[test]
    fn boundaries_are_those_of_the_standard() {
        for (content_type, wanted) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            (
                "multipart/form-data; boundary=\"a b'()+_,-./:=?c\"",
                Some("a b'()+_,-./:=?c"),
            ),
            (
                "multipart/form-data; charset=utf-8; boundary=abc",
                Some("abc"),
            ),
            ("multipart/form-data; Boundary=abc", Some("abc")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"\"", None),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; boundary=a; x=b", None),
            ("multipart/form-data; boundary=\"a \"", None),
            ("multipart/form-data; boundary=\"a\\\"b\"", None),
            (
                "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
                None,
            ),
            ("multipart/form-data; boundary*=UTF-8''a", None),
        ] {
            assert_eq!(boundary(content_type), wanted, "{content_type}");
        }
        let long = |n| format!("multipart/form-data; boundary={}", "a".repeat(n));
        assert!(boundary(&long(70)).is_some() && boundary(&long(71)).is_none());
    }

    #[test]
    fn parts_are_bounded() {
        let many = |n: usize| {
            let part = "--XX\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n";
            format!("{}--XX--\r\n", part.repeat(n))
        };
        assert_eq!(
            names(&many(PARTS_MAX)).map(|parts| parts.len()),
            Some(PARTS_MAX)
        );
        assert_eq!(names(&many(PARTS_MAX + 1)), None);
    }
}
