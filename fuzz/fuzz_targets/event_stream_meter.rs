//! Amazon's event streams in passing: any cut gives the same counts, the app gets every byte, and a frame with a wrong checksum counts for
//! nothing. The frames are made from structured input, since no fuzzer finds two checksums.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use providers::{Meter, Shape};

#[path = "support/metering.rs"]
mod metering;
use metering::meter;

#[derive(Arbitrary, Debug)]
enum Headers {
    Event,
    Exception,
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Frame {
    headers: Headers,
    payload: Vec<u8>,
    /// Which bit of the frame is turned, and whether one is.
    spoiled: Option<u16>,
}

/// The checksum, bit by bit: not the code that is under test.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len)
        .expect("fuzz inputs are small")
        .to_be_bytes()
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let headers: &[u8] = match &self.headers {
            Headers::Event => b"\x0d:message-type\x07\x00\x05event",
            Headers::Exception => b"\x0d:message-type\x07\x00\x09exception",
            Headers::Any(headers) => headers,
        };
        let mut frame = Vec::new();
        frame.extend_from_slice(&length(16 + headers.len() + self.payload.len()));
        frame.extend_from_slice(&length(headers.len()));
        frame.extend_from_slice(&crc32(&frame).to_be_bytes());
        frame.extend_from_slice(headers);
        frame.extend_from_slice(&self.payload);
        frame.extend_from_slice(&crc32(&frame).to_be_bytes());
        if let Some(bit) = self.spoiled {
            let bit = usize::from(bit) % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        frame
    }
}

fuzz_target!(|input: (bool, bool, Vec<u8>, Vec<Frame>, Vec<u8>)| {
    let (invoke, complete, cuts, frames, noise) = input;
    let shape = if invoke {
        Shape::BedrockInvoke
    } else {
        Shape::BedrockConverse
    };
    let new = || Meter::new(shape, "application/vnd.amazon.eventstream", false);
    let whole_frames = frames.iter().take_while(|frame| frame.spoiled.is_none());
    let good: Vec<u8> = whole_frames.flat_map(Frame::bytes).collect();
    let mut body: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    body.extend_from_slice(&noise);

    let whole = meter(new(), &body, &[255], complete);
    assert_eq!(whole.1, body);
    assert_eq!(whole, meter(new(), &body, &cuts, complete));
    assert_eq!(whole, meter(new(), &body, &[1], complete));
    // What follows a spoiled frame adds nothing.
    if frames.iter().any(|frame| frame.spoiled.is_some()) {
        let until = meter(new(), &good, &[255], false).0;
        assert_eq!(whole.0.usage, until.usage);
        assert_eq!(whole.0.failed, until.failed);
    }
});
