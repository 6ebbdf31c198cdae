//! Every request and answer survives the wire; every other byte string is refused without a panic.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::error::{ErrorClass, HsmError};
use crate::revoked::RevokedSet;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,128}"
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

fn revoked() -> impl Strategy<Value = RevokedSet> {
    proptest::collection::btree_set((name(), any::<u32>()), 0..5).prop_map(|set| {
        set.into_iter()
            .map(|(key_id, version)| Revoked { key_id, version })
            .collect()
    })
}

fn round_trip(request: &Request<'_>) {
    let mut out = Vec::new();
    write_request(&mut out, 77, request).unwrap();
    let frame = parse_frame(&out).unwrap().unwrap();
    assert_eq!((frame.id, frame.taken), (77, out.len()));
    assert_eq!(&parse_request(frame.body).unwrap(), request);
    // Canonical: no prefix and no extension of it parses.
    for cut in 0..frame.body.len() {
        assert!(parse_request(&frame.body[..cut]).is_err());
    }
    let mut longer = frame.body.to_vec();
    longer.push(0);
    assert!(parse_request(&longer).is_err());
}

fn round_trip_answer(answer: &Answer) {
    let mut out = Vec::new();
    write_answer(&mut out, 1, answer).unwrap();
    let frame = parse_frame(&out).unwrap().unwrap();
    assert_eq!(&parse_answer(frame.body).unwrap(), answer);
    for cut in 0..frame.body.len() {
        assert!(parse_answer(&frame.body[..cut]).is_err());
    }
}

proptest! {
    #[test]
    fn requests_survive_the_wire(compartment in name(), wrapped in blob(), header in blob(),
                                 hash in any::<[u8; 32]>(), session in any::<[u8; 16]>(), version in any::<u32>(), set in revoked()) {
        let row = ShareRow { identity: &header, wrapped: &wrapped, mac: &hash };
        let ingest = Ingest { header: &header, compartment: &compartment, sealed: &wrapped, check: &hash };
        for request in [
            Request::Hello { version }, Request::Init, Request::Describe, Request::OpenSession { session: &session, agent: &wrapped, evidence: Presented { token: &header, witness: version % 2 == 0 } },
            Request::CloseSession { session: &session }, Request::Ingest(ingest), Request::Deliver { session: &session, row },
            Request::Check { row }, Request::Answer { row, challenge: &hash }, Request::MacRecord { bytes: &header },
            Request::VerifyRecord { bytes: &header, mac: &hash }, Request::ReadState,
            Request::WriteState { revision: 9, digest: &hash, revoked: set.clone() }, Request::SignStatement { bytes: &header },
            Request::ProvePossession { challenge: &hash }, Request::StorePart { salt: &hash }, Request::SelfTest, Request::Unlatch, Request::Shutdown,
        ] {
            round_trip(&request);
        }
    }

    #[test]
    fn answers_survive_the_wire(bytes in blob(), text in ".{0,40}", set in revoked(), initialised in any::<bool>()) {
        for answer in [
            Answer::Failed(HsmError::new(ErrorClass::Revoked, text.clone())), Answer::Done,
            Answer::Hello(Hello { version: 1, custodian: text.clone(), serial: text.clone(), module: text.clone(), initialised, fips: !initialised }),
            Answer::Descriptor(bytes.clone()), Answer::Ingested(Ingested { identity: bytes.clone(), wrapped: bytes.clone(), mac: [1; 32] }),
            Answer::Delivered(bytes.clone()), Answer::Digest([3; 32]), Answer::Signature([4; 64]),
            Answer::State(State { revision: 5, digest: [6; 32], revoked: set.clone() }),
            Answer::PartKey(std::sync::Arc::new(secret::Secret::new(Box::new([7; 32])))),
        ] {
            round_trip_answer(&answer);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_parses_is_canonical(bytes in blob()) {
        let _ = parse_frame(&bytes);
        let _ = parse_answer(&bytes);
        if let Ok(request) = parse_request(&bytes) {
            let mut out = Vec::new();
            write_request(&mut out, 0, &request).unwrap();
            prop_assert_eq!(&out[12..], &bytes[..]);
        }
    }
}

#[test]
fn a_frame_at_the_bound_passes_and_one_byte_more_does_not() {
    let overhead = 8 + 1 + 4;
    let bytes = vec![0u8; FRAME_MAX - overhead];
    let mut out = Vec::new();
    write_request(&mut out, 1, &Request::MacRecord { bytes: &bytes }).unwrap();
    assert!(parse_frame(&out).unwrap().is_some());
    let bytes = vec![0u8; FRAME_MAX - overhead + 1];
    let before = out.len();
    assert_eq!(
        write_request(&mut out, 1, &Request::MacRecord { bytes: &bytes }),
        Err(WireError::TooLong)
    );
    assert_eq!(out.len(), before);
    let too_long = u32::try_from(FRAME_MAX + 1).unwrap().to_be_bytes();
    assert_eq!(parse_frame(&too_long), Err(WireError::TooLong));
    assert_eq!(parse_frame(&too_long[..3]), Ok(None));
}

#[test]
fn a_revoked_set_out_of_order_is_refused() {
    let entry = |key: &str| Revoked {
        key_id: key.into(),
        version: 1,
    };
    let write = Request::WriteState {
        revision: 1,
        digest: &[0; 32],
        revoked: [entry("a"), entry("b")].into_iter().collect(),
    };
    let mut out = Vec::new();
    write_request(&mut out, 1, &write).unwrap();
    let mut body = parse_frame(&out).unwrap().unwrap().body.to_vec();
    assert_eq!(parse_request(&body), Ok(write));
    let at = body.iter().position(|byte| *byte == b'a').unwrap();
    body[at] = b'c';
    assert_eq!(parse_request(&body), Err(WireError::Order));
}
