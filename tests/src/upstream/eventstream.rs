//! AWS's event-stream frames, written from the description and not with the agent's code, so that a common
//! misunderstanding would show.

use serde_json::Value;

/// What a stream of them is called.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// A header's type byte for a text value.
const TEXT: u8 = 7;

/// A frame that carries an event.
pub(super) fn event(kind: &str, payload: &Value) -> Vec<u8> {
    frame(
        &[
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// A frame that says that the stream has failed.
pub(super) fn exception(kind: &str, payload: &Value) -> Vec<u8> {
    frame(
        &[
            (":exception-type", kind),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        payload,
    )
}

/// Length, headers' length, checksum of both, headers, payload, checksum of everything.
fn frame(headers: &[(&str, &str)], payload: &Value) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("names are short"));
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend_from_slice(
            &u16::try_from(value.len())
                .expect("values are short")
                .to_be_bytes(),
        );
        head.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    // Two lengths and two checksums of four bytes each.
    let length = 16 + head.len() + payload.len();
    let word = |length: usize| {
        u32::try_from(length)
            .expect("frames are small")
            .to_be_bytes()
    };
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&word(length));
    frame.extend_from_slice(&word(head.len()));
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame
}

/// The CRC of IEEE 802.3, bit by bit: fast enough for a test.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_ne!(crc32(b"123456788"), 0xCBF4_3926);
    }
}
