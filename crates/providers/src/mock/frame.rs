//! Writes frames of `application/vnd.amazon.eventstream`.

/// Type of a header whose value is text.
const TEXT: u8 = 7;
/// Total length, length of the headers, two checksums.
const AROUND_LEN: usize = 16;

pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// A frame with an event.
pub(super) fn event(name: &str, payload: &serde_json::Value) -> Vec<u8> {
    frame("event", ":event-type", name, payload)
}

/// A frame with an exception.
pub(super) fn exception(name: &str, payload: &serde_json::Value) -> Vec<u8> {
    frame("exception", ":exception-type", name, payload)
}

fn frame(message: &str, kind: &str, name: &str, payload: &serde_json::Value) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (kind, name),
        (":content-type", "application/json"),
        (":message-type", message),
    ] {
        headers.extend_from_slice(&[u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        headers.extend_from_slice(name.as_bytes());
        headers.push(TEXT);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let mut frame = Vec::new();
    frame.extend_from_slice(&length(AROUND_LEN + headers.len() + payload.len()));
    frame.extend_from_slice(&length(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// A length on the wire. Ours are small: a made-up event and three short headers.
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}
