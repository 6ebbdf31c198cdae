//! The request target: one canonical path, matched and sent as the same bytes, and a query without credentials.

use super::Reject;

/// Splits an origin-form target into a canonical path and the query, or says why it is refused.
///
/// Canonical: percent-encoded letters, digits, `-`, `_` and `~` are decoded, everything else is left. Refused: anything that another parser
/// could resolve to a different path (dots, empty segments, encoded backslashes, dots and percent signs). An encoded slash stays encoded, and
/// only a route whose API has names with slashes in its paths takes it: see [`has_encoded_slash`].
pub fn parse(target: &str) -> Result<(String, &str), Reject> {
    if !target.starts_with('/') {
        return Err(Reject::Bad(
            "the request target must be a path (origin-form)",
        ));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return Err(Reject::Bad(
            "the query contains a character that must be percent-encoded",
        ));
    }
    Ok((canonical(path)?, query))
}

/// Whether a canonical path has a slash within a segment.
pub fn has_encoded_slash(path: &str) -> bool {
    path.contains("%2F")
}

fn canonical(path: &str) -> Result<String, Reject> {
    if path.bytes().all(is_plain) {
        check_segments(path)?;
        return Ok(path.to_owned());
    }
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let decoded = hex(bytes.next())
                    .zip(hex(bytes.next()))
                    .map(|(high, low)| high << 4 | low);
                encoded(
                    decoded.ok_or(Reject::Bad("the path contains a broken percent-encoding"))?,
                    &mut out,
                )?;
            }
            _ if is_plain(byte) => out.push(char::from(byte)),
            _ => {
                return Err(Reject::Bad(
                    "the path contains a character that must be percent-encoded",
                ));
            }
        }
    }
    // However often another server decodes: an encoded slash must not make a segment that a plain one may not.
    if has_encoded_slash(&out) {
        check_segments(&out.replace("%2F", "/"))?;
    }
    check_segments(&out)?;
    Ok(out)
}

/// What stands for itself in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

fn check_segments(path: &str) -> Result<(), Reject> {
    const EMPTY: Reject = Reject::Bad("the path contains an empty or a dot segment");
    if path.as_bytes().windows(2).any(|pair| pair == b"//") {
        return Err(EMPTY);
    }
    for segment in path.split('/').filter(|segment| segment.starts_with('.')) {
        if matches!(segment, "." | "..") {
            return Err(EMPTY);
        }
        // `;` begins path parameters for some servers: `/v1/..;/admin`.
        if segment.starts_with("..;") || segment.starts_with(".;") {
            return Err(Reject::Bad("the path contains a dot segment"));
        }
    }
    Ok(())
}

fn encoded(byte: u8, out: &mut String) -> Result<(), Reject> {
    match byte {
        b'\\' | b'.' | b'%' | b';' | 0..=0x1f | 0x7f => Err(Reject::Bad(
            "the path percent-encodes a backslash, dot, semicolon, percent sign or control character",
        )),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
            out.push(char::from(byte));
            Ok(())
        }
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
            Ok(())
        }
    }
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let digit = char::from(digit?).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// The query without parameters that could carry a credential, compared after percent-decoding. Kept parameters keep their bytes.
pub fn without_credentials(query: &str) -> String {
    if query.is_empty() {
        return String::new();
    }
    let kept: Vec<&str> = query
        .split('&')
        // Some servers also split at `;`: a parameter with a credential behind one goes as a whole.
        .filter(|parameter| {
            !parameter
                .split(';')
                .any(|part| providers::is_credential_parameter(&name(part)))
        })
        .collect();
    kept.join("&")
}

fn name(parameter: &str) -> Vec<u8> {
    let raw = parameter.split('=').next().unwrap_or_default();
    let mut name = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        match (byte, hex(rest.next()).zip(hex(rest.next()))) {
            (b'%', Some((high, low))) => {
                name.push(high << 4 | low);
                bytes = rest;
            }
            (byte, _) => name.push(byte),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_that_pass_and_what_is_sent_for_them() {
        for (target, path, query) in [
            (
                "/openai/v1/chat/completions",
                "/openai/v1/chat/completions",
                "",
            ),
            (
                "/gemini/v1/models/g:generateContent?alt=sse",
                "/gemini/v1/models/g:generateContent",
                "alt=sse",
            ),
            (
                "/openai/v1/%6Dodels/ft%3aorg",
                "/openai/v1/models/ft%3Aorg",
                "",
            ),
            (
                "/openai/v1/files/a.b.jsonl",
                "/openai/v1/files/a.b.jsonl",
                "",
            ),
            (
                "/bedrock/model/a%2fb/invoke",
                "/bedrock/model/a%2Fb/invoke",
                "",
            ),
            ("/x/...", "/x/...", ""),
            ("/x?", "/x", ""),
        ] {
            assert_eq!(parse(target).unwrap(), (path.to_owned(), query), "{target}");
        }
    }

    #[test]
    fn paths_that_another_parser_could_read_differently_are_refused() {
        for target in [
            "http://evil/openai/v1",
            "*",
            "evil/v1",
            "@evil/v1",
            "//evil/v1",
            "/\\evil",
            "/openai//v1",
            "/openai/v1/../admin",
            "/openai/./v1",
            "/openai/v1/..",
            "/openai/v1/%2e%2e/admin",
            "/openai/v1/.%2E/admin",
            "/bedrock/model/a%2f../invoke",
            "/bedrock/model/a%2F%2Fb/invoke",
            "/bedrock/model/..%2Fadmin",
            "/openai/v1%5cadmin",
            "/openai/v1/%252e",
            "/openai/v1/..;/admin",
            "/openai/v1/%00",
            "/openai/v1/%0d%0a",
            "/openai/v1/%4",
            "/openai/v1/%zz",
            "/openai/v1/<x>",
            "/openai/v1/\u{e9}",
            "/openai/v1#x",
            "/openai/v1?a#b",
        ] {
            assert!(parse(target).is_err(), "{target}");
        }
    }

    #[test]
    fn queries_lose_credentials_however_they_are_spelled() {
        for (query, left) in [
            ("key=a", ""),
            ("alt=sse&key=a", "alt=sse"),
            ("%6Bey=a&alt=sse", "alt=sse"),
            ("%6bEy=a", ""),
            ("KEY=a&keys=b", "keys=b"),
            ("a=1;key=x&b=2", "b=2"),
            ("access_token=a&api-key=b&api%2Dkey=c&model=m", "model=m"),
            ("$httpHeaders=Authorization:x&pageSize=2", "pageSize=2"),
            ("%24httpHeaders=x", ""),
            ("key", ""),
            ("monkey=1&k%65%79s=2", "monkey=1&k%65%79s=2"),
        ] {
            assert_eq!(without_credentials(query), left, "{query}");
        }
    }
}
