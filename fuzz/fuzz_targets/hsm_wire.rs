//! The token process's protocol, from both sides: never a panic, and one encoding per value.
#![no_main]

use hsm::wire::{parse_answer, parse_frame, parse_request, write_answer, write_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(frame)) = parse_frame(rest) {
        assert!(frame.taken > frame.body.len() && frame.taken <= rest.len());
        let read = &rest[..frame.taken];
        let mut out = Vec::new();
        if let Ok(request) = parse_request(frame.body) {
            write_request(&mut out, frame.id, &request)
                .expect("what was read is not too long to be written");
            assert_eq!(out, read);
        }
        out.clear();
        if let Ok(answer) = parse_answer(frame.body) {
            write_answer(&mut out, frame.id, &answer)
                .expect("what was read is not too long to be written");
            assert_eq!(out, read);
        }
        rest = &rest[frame.taken..];
    }
    let _ = (parse_request(bytes), parse_answer(bytes));
});
