//! The store's key: what opens it, and what must not.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{Fingerprint, SystemRandom};

fn key(byte: u8) -> Secret<[u8; 32]> {
    Secret::new(Box::new([byte; 32]))
}

fn wrapped(store: &StoreKey, threshold: u8, parts: &[Part]) -> Vec<WrappedPart> {
    let mut random = SystemRandom::new();
    let wrap = |part: &Part| {
        let part_key = key(part.x);
        let holder = Holder {
            custodian: Fingerprint::new([part.x; 32]),
            salt: [7; 32],
            part_key: &part_key,
        };
        store.wrap(threshold, part, &holder, &mut random)
    };
    parts.iter().map(wrap).collect()
}

fn opened<'a>(parts: &'a [WrappedPart], which: &[usize]) -> Vec<(&'a WrappedPart, Part)> {
    let open = |at: &usize| (&parts[*at], parts[*at].open(&key(parts[*at].x)).unwrap());
    which.iter().map(open).collect()
}

#[test]
fn any_t_parts_make_the_key_again_and_one_fewer_does_not() {
    let (arena, mut random) = (Arena::new(4096).unwrap(), SystemRandom::new());
    for (t, n) in [(1, 1), (1, 3), (2, 2), (2, 3), (3, 5), (16, 16)] {
        let store = StoreKey::generate(1, &arena, &mut random).unwrap();
        let parts = store.deal(t, n, &mut random).unwrap();
        let parts = wrapped(&store, t, &parts);
        let all: Vec<usize> = (0..n).rev().take(t.into()).collect();
        let again = StoreKey::combine(&opened(&parts, &all), &arena).unwrap();
        assert_eq!(again.commitment(), store.commitment());
        let fewer = StoreKey::combine(&opened(&parts, &all[1..]), &arena);
        assert!(
            matches!(fewer, Err(StoreKeyError::Count { .. })),
            "{t} of {n}"
        );
    }
    let store = StoreKey::generate(1, &arena, &mut random).unwrap();
    for (t, n) in [(0, 3), (4, 3), (2, 17)] {
        let dealt = store.deal(t, n, &mut random);
        assert_eq!(
            dealt.map(|_| ()),
            Err(StoreKeyError::Threshold),
            "{t} of {n}"
        );
    }
}

#[test]
fn a_custodian_that_comes_later_gets_a_part_of_the_same_deal() {
    let (arena, mut random) = (Arena::new(4096).unwrap(), SystemRandom::new());
    let store = StoreKey::generate(1, &arena, &mut random).unwrap();
    let mut parts = store.deal(2, 2, &mut random).unwrap();
    parts.push(StoreKey::another_part(2, &parts, 9).unwrap());
    let parts = wrapped(&store, 2, &parts);
    let again = StoreKey::combine(&opened(&parts, &[2, 0]), &arena).unwrap();
    assert_eq!(again.commitment(), store.commitment());
    let twice = StoreKey::combine(&opened(&parts, &[2, 2]), &arena);
    assert!(matches!(twice, Err(StoreKeyError::Count { .. })));
}

#[test]
fn a_part_of_another_key_another_token_or_another_place_is_refused() {
    let arena = Arena::new(4096).unwrap();
    let make = |epoch| {
        let mut random = SystemRandom::new();
        let store = StoreKey::generate(epoch, &arena, &mut random).unwrap();
        let parts = store.deal(2, 3, &mut random).unwrap();
        wrapped(&store, 2, &parts)
    };
    let (one, two) = (make(1), make(1));
    let mixed = [opened(&one, &[0]), opened(&two, &[1])]
        .into_iter()
        .flatten();
    let mixed = StoreKey::combine(&mixed.collect::<Vec<_>>(), &arena);
    assert_eq!(mixed.map(|_| ()), Err(StoreKeyError::Commitment));
    assert!(one[0].open(&key(2)).is_err(), "another token's key");
    let moved = WrappedPart {
        commitment: two[0].commitment,
        ..one[0].clone()
    };
    assert!(
        moved.open(&key(1)).is_err(),
        "it is bound to what it commits to"
    );
    let encoded = one[0].encode();
    assert_eq!(WrappedPart::parse(&encoded), Ok(one[0].clone()));
    assert!(WrappedPart::parse(&encoded[..encoded.len() - 1]).is_err());
    let mut zero = encoded;
    zero[5..9].fill(0);
    assert!(WrappedPart::parse(&zero).is_err(), "epochs count from 1");
}

#[test]
fn a_row_opens_in_its_own_place_under_its_own_key_alone() {
    let (arena, mut random) = (Arena::new(4096).unwrap(), SystemRandom::new());
    let store = StoreKey::generate(3, &arena, &mut random).unwrap();
    let other = StoreKey::generate(3, &arena, &mut random).unwrap();
    let name = store.name("record", b"one");
    assert_ne!(name, store.name("record", b"two"));
    assert_ne!(name, other.name("record", b"one"));
    let sealed = store.seal_row("record", &name, b"content", &mut random);
    assert_eq!(claimed_epoch(&sealed), Ok(3));
    assert_eq!(
        store.open_row("record", &name, &sealed).unwrap(),
        b"content"
    );
    assert!(store.open_row("used", &name, &sealed).is_err());
    assert!(store.open_row("record", b"other", &sealed).is_err());
    assert!(other.open_row("record", &name, &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(
            store.open_row("record", &name, &changed).is_err(),
            "byte {at}"
        );
    }
}
