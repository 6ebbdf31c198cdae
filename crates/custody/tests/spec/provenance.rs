//! Every part of a sealed key that can be swapped has its own named refusal, beside the neighbour that passes.

use custody::descriptor::Fingerprint;
use custody::sealed::ProvenanceError;
use custody::trust::TrustError;
use custody::{FileSealer, FormatError, Kdf, Manifest, SealedKey, Sealer};

use crate::support::{CounterRng, ShareKeys, Token, World, sha256};

fn resign(sealed: &mut SealedKey, sealer: &dyn Sealer) {
    let manifest = &sealed.manifest;
    let length = u32::try_from(manifest.len()).unwrap().to_be_bytes();
    let message = [&b"tacit/manifest/v1"[..], &length, manifest].concat();
    sealed.signature = sealer.sign(&message).unwrap();
}

#[test]
fn every_swap_has_its_own_name() {
    let mut rng = CounterRng::new("provenance");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let (good, _) = world.seal(&mut rng);
    let (twin, _) = world.seal(&mut rng);
    assert!(good.verify(&world.trust).is_ok() && twin.verify(&world.trust).is_ok());

    type Change = fn(&mut SealedKey, &SealedKey);
    let table: [(&str, Change, ProvenanceError); 12] = [
        (
            "the twin's header",
            |k, t| k.header.clone_from(&t.header),
            ProvenanceError::Header,
        ),
        (
            "the twin's envelope",
            |k, t| k.envelope.clone_from(&t.envelope),
            ProvenanceError::Envelope,
        ),
        (
            "the twin's first share",
            |k, t| k.shares[0].clone_from(&t.shares[0]),
            ProvenanceError::Share { x: 1 },
        ),
        (
            "the twin's last share",
            |k, t| k.shares[2].clone_from(&t.shares[2]),
            ProvenanceError::Share { x: 3 },
        ),
        (
            "two shares exchanged",
            |k, _| k.shares.swap(0, 1),
            ProvenanceError::Share { x: 1 },
        ),
        (
            "a share less",
            |k, _| k.shares.truncate(2),
            ProvenanceError::Counts,
        ),
        (
            "a share more",
            |k, t| k.shares.push(t.shares[0].clone()),
            ProvenanceError::Counts,
        ),
        (
            "the twin's manifest",
            |k, t| k.manifest.clone_from(&t.manifest),
            ProvenanceError::Signature,
        ),
        (
            "the twin's signature",
            |k, t| k.signature = t.signature,
            ProvenanceError::Signature,
        ),
        (
            "no signature",
            |k, _| k.signature = [0; 64],
            ProvenanceError::Signature,
        ),
        (
            "a manifest cut short",
            |k, _| k.manifest.truncate(k.manifest.len() - 1),
            ProvenanceError::Format(FormatError::Short { what: "manifest" }),
        ),
        (
            "a longer envelope",
            |k, _| k.envelope.push(0),
            ProvenanceError::Format(FormatError::Trailing { what: "envelope" }),
        ),
    ];
    for (name, change, error) in table {
        let mut key = good.clone();
        change(&mut key, &twin);
        assert_eq!(key.verify(&world.trust), Err(error), "{name}");
    }

    // Header and manifest together, of the twin: the signature is right for them, the envelope is not.
    let mut key = good.clone();
    (key.header, key.manifest, key.signature) =
        (twin.header.clone(), twin.manifest.clone(), twin.signature);
    assert_eq!(key.verify(&world.trust), Err(ProvenanceError::Envelope));

    // Fewer entries than custodians, signed rightly.
    let mut key = good.clone();
    let mut manifest = Manifest::parse(&good.manifest).unwrap();
    manifest.entries.pop();
    key.manifest = manifest.encode();
    resign(&mut key, &world.sealer);
    assert_eq!(key.verify(&world.trust), Err(ProvenanceError::Counts));

    // Signed anew by the same sealer over the same manifest: the neighbour that passes.
    let mut key = good.clone();
    key.signature = [0; 64];
    resign(&mut key, &world.sealer);
    assert_eq!(key.signature, good.signature, "Ed25519 is deterministic");
    assert!(key.verify(&world.trust).is_ok());
}

#[test]
fn a_stranger_cannot_seal_in_our_name() {
    let mut rng = CounterRng::new("stranger");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let stranger = FileSealer::from_seed(&FileSealer::generate_seed(&mut rng)).unwrap();

    // Our header, the stranger's signature.
    let (mut key, _) = world.seal(&mut rng);
    resign(&mut key, &stranger);
    assert_eq!(key.verify(&world.trust), Err(ProvenanceError::Signature));

    // The stranger's own header, signed rightly: the sealer's key is named, to be pinned or not.
    let request = world.request();
    let secret = secret::Secret::from(b"tacit-fake-key-of-a-stranger".to_vec());
    let (key, _) = custody::seal(&request, &secret, &stranger, &mut rng).unwrap();
    let unknown = ProvenanceError::UnknownSealer {
        sealer: stranger.public().to_string(),
    };
    assert_eq!(key.verify(&world.trust), Err(unknown));
    let mut trust = world.trust.clone();
    trust.pin_sealer("bob", stranger.public());
    assert!(key.verify(&trust).is_ok(), "once pinned it passes");
}

#[test]
fn new_keys_go_to_custodians_in_force_alone() {
    let mut rng = CounterRng::new("in force");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let old = world.tokens[1].fingerprint();

    let mut trust = world.trust.clone();
    let renewed = Token::new("b", ShareKeys::ecdh(Kdf::NullCbc, &mut rng), &mut rng);
    trust.pin(renewed.signed).unwrap();
    let superseded = TrustError::Superseded {
        id: "b".parse().unwrap(),
        fingerprint: old,
    };
    assert_eq!(
        key.verify(&trust),
        Err(ProvenanceError::Custodian(superseded))
    );

    trust.custodians[1].superseded.clear();
    let unpinned = TrustError::Unpinned { fingerprint: old };
    assert_eq!(
        key.verify(&trust),
        Err(ProvenanceError::Custodian(unpinned))
    );
    assert!(key.verify(&world.trust).is_ok());
}

#[test]
fn every_bit_of_every_part_is_bound_by_the_signature() {
    let mut rng = CounterRng::new("bits");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (good, _) = world.seal(&mut rng);
    let flips = |length: usize| (0..length * 8).map(|bit| (bit / 8, 1u8 << (bit % 8)));
    let refused = |key: &SealedKey, what: &str, at: usize| {
        assert!(key.verify(&world.trust).is_err(), "{what}, byte {at}");
    };
    let mut key = good.clone();
    for (at, flip) in flips(good.envelope.len()) {
        key.envelope[at] ^= flip;
        refused(&key, "envelope", at);
        key.envelope[at] ^= flip;
    }
    for (at, flip) in flips(good.manifest.len()) {
        key.manifest[at] ^= flip;
        refused(&key, "manifest", at);
        key.manifest[at] ^= flip;
    }
    for (at, flip) in flips(64) {
        key.signature[at] ^= flip;
        refused(&key, "signature", at);
        key.signature[at] ^= flip;
    }
    for (at, flip) in flips(good.shares[1].len()) {
        key.shares[1][at] ^= flip;
        refused(&key, "share", at);
        key.shares[1][at] ^= flip;
    }
    assert!(key.verify(&world.trust).is_ok());
    assert_eq!(key, good);
}

#[test]
fn the_manifest_names_every_part_by_its_sha256() {
    let mut rng = CounterRng::new("hashes");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let manifest = Manifest::parse(&key.manifest).unwrap();
    assert_eq!(manifest.header_hash, sha256(&key.header));
    assert_eq!(manifest.envelope_hash, sha256(&key.envelope));
    let hashes: Vec<_> = key.shares.iter().map(|share| sha256(share)).collect();
    let named: Vec<_> = manifest.entries.iter().map(|one| one.sealed_hash).collect();
    assert_eq!(named, hashes);
    let provenance = key.verify(&world.trust).unwrap();
    let named: Vec<_> = world.tokens.iter().map(Token::fingerprint).collect();
    assert_eq!(provenance.header().custodians, named);
    assert_eq!(provenance.header().index_of(&named[2]), Some(3));
    assert_eq!(
        provenance.header().index_of(&Fingerprint::new([0; 32])),
        None
    );
}
