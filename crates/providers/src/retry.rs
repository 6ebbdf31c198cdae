//! How long a provider asks to be left alone.

use std::time::Duration;

use serde_json::Value;

/// Nobody asks for longer in earnest, and a broken header must not take a key out of service for a year.
const RETRY_MAX: Duration = Duration::from_secs(24 * 3600);

/// What an error answer says about when to come back: `retry-after-ms`, else `retry-after` in seconds, else Google's `RetryInfo` in the
/// body. A date is not read, because whose clock it is by is anybody's guess. Of several values the longest counts.
pub fn retry_after<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> Option<Duration> {
    let (mut by_ms, mut by_seconds) = (None, None);
    for (name, value) in headers {
        let number = || decimal(std::str::from_utf8(value).ok()?.trim());
        if name.eq_ignore_ascii_case("retry-after-ms") {
            by_ms = by_ms.max(number().map(|ms| ms / 1000));
        } else if name.eq_ignore_ascii_case("retry-after") {
            by_seconds = by_seconds.max(number());
        }
    }
    let wait = by_ms.or(by_seconds).or_else(|| retry_info(body))?;
    Some(wait.min(RETRY_MAX))
}

/// `17`, `0.5`: as a time in seconds.
fn decimal(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    // `f64` also reads signs, exponents, `inf` and `NaN`.
    let number: f64 = is_plain.then(|| text.parse().ok())??;
    Some(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

/// `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17s"}` among the details of an error.
fn retry_info(body: &[u8]) -> Option<Duration> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let document = document.get(0).unwrap_or(&document);
    let details = document.get("error")?.get("details")?.as_array()?;
    let is_retry = |detail: &&Value| {
        let kind = detail.get("@type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("/google.rpc.RetryInfo"))
    };
    let delay = details.iter().find(is_retry)?.get("retryDelay")?.as_str()?;
    decimal(delay.strip_suffix('s')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&str, &str)], body: &str) -> Option<u128> {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        retry_after(headers, body.as_bytes()).map(|wait| wait.as_millis())
    }

    #[test]
    fn reads_what_providers_send_and_nothing_else() {
        for (headers, wanted) in [
            (&[("retry-after", "2")][..], Some(2000)),
            (&[("Retry-After", " 0.5 ")], Some(500)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "2"), ("retry-after-ms", "30")], Some(30)),
            (&[("retry-after-ms", "1500.5")], Some(1500)),
            (&[("retry-after", "2"), ("retry-after", "7")], Some(7000)),
            (
                &[("retry-after", "99999999999999999999999")],
                Some(86_400_000),
            ),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "1e3")], None),
            (&[("retry-after", "")], None),
            (&[("x-retry-after", "2")], None),
        ] {
            assert_eq!(wait(headers, ""), wanted, "{headers:?}");
        }
    }

    #[test]
    fn reads_googles_body_when_no_header_says_it() {
        let body = r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17.25s"}]}}"#;
        assert_eq!(wait(&[], body), Some(17_250));
        assert_eq!(wait(&[], &format!("[{body}]")), Some(17_250));
        assert_eq!(wait(&[("retry-after", "1")], body), Some(1000));
        assert_eq!(wait(&[], &body.replace("17.25s", "soon")), None);
        assert_eq!(wait(&[], &body.replace("RetryInfo", "Other")), None);
        assert_eq!(wait(&[], "no json"), None);
    }
}
