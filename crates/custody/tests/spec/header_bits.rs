//! A header changed in any single bit opens in no way: neither as it came, nor with hash and manifest made to fit and
//! signed by a stranger, nor signed by the right sealer over the old envelope and shares, nor under the right data key.

use custody::combine::{CombineError, combine};
use custody::dek::Envelope;
use custody::open::OpenError;
use custody::sealed::ProvenanceError;
use custody::share::RecordFault;
use custody::{FileSealer, Header, Kdf, Manifest, SealedKey, Sealer};

use crate::support::{
    CounterRng, FAKE_KEY, Parcel, Session, World, hmac_sha256, record, record_bytes, sha256,
};

struct Story {
    world: World,
    key: SealedKey,
    session: Session,
    parcels: Vec<Parcel>,
    stranger: FileSealer,
}

fn story() -> Story {
    let mut rng = CounterRng::new("header bits");
    let world = World::ecdh(2, 3, Kdf::X963Sha256, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let session = Session::new(&mut rng);
    let parcels = world.deliver(&key, &session, &[1, 3]);
    assert_eq!(world.open(&key, &session, &parcels).unwrap(), FAKE_KEY);
    let stranger = FileSealer::from_seed(&FileSealer::generate_seed(&mut rng)).unwrap();
    Story {
        world,
        key,
        session,
        parcels,
        stranger,
    }
}

fn flipped(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit, changed)
    })
}

fn manifest_for(key: &SealedKey, header: &[u8]) -> Manifest {
    let mut manifest = Manifest::parse(&key.manifest).unwrap();
    manifest.header_hash = sha256(header);
    manifest
}

fn signed(key: &SealedKey, header: Vec<u8>, manifest: &Manifest, sealer: &dyn Sealer) -> SealedKey {
    SealedKey {
        header,
        manifest: manifest.encode(),
        signature: sealer.sign(&manifest.signing_message()).unwrap(),
        ..key.clone()
    }
}

#[test]
fn as_it_came() {
    let Story {
        world,
        key,
        session,
        parcels,
        ..
    } = story();
    for (bit, header) in flipped(&key.header) {
        let changed = SealedKey {
            header,
            ..key.clone()
        };
        let error = world.open(&changed, &session, &parcels).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Provenance(
                    ProvenanceError::Header
                        | ProvenanceError::Format(_)
                        | ProvenanceError::UnknownSealer { .. }
                        | ProvenanceError::Signature
                )
            ),
            "bit {bit}: {error}"
        );
        assert!(changed.verify(&world.trust).is_err(), "bit {bit}");
    }
}

#[test]
fn signed_by_a_stranger() {
    let Story {
        world,
        key,
        session,
        parcels,
        stranger,
    } = story();
    for (bit, header) in flipped(&key.header) {
        let manifest = manifest_for(&key, &header);
        let changed = signed(&key, header.clone(), &manifest, &stranger);
        let error = world.open(&changed, &session, &parcels).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Provenance(
                    ProvenanceError::Signature
                        | ProvenanceError::Format(_)
                        | ProvenanceError::UnknownSealer { .. }
                )
            ),
            "bit {bit}: {error}"
        );
        // The stranger puts its own name in, too.
        if let Ok(mut own) = Header::parse(&header) {
            own.sealer = stranger.public();
            let manifest = manifest_for(&key, &own.encode());
            let changed = signed(&key, own.encode(), &manifest, &stranger);
            let error = world.open(&changed, &session, &parcels).unwrap_err();
            assert!(
                matches!(
                    error,
                    OpenError::Provenance(ProvenanceError::UnknownSealer { .. })
                ),
                "bit {bit}: {error}"
            );
        }
    }
}

#[test]
fn signed_by_the_right_sealer_over_the_old_envelope_and_shares() {
    let Story {
        world,
        key,
        session,
        parcels,
        ..
    } = story();
    let mut reached_the_shares = 0;
    for (bit, header) in flipped(&key.header) {
        let manifest = manifest_for(&key, &header);
        let changed = signed(&key, header, &manifest, &world.sealer);
        let error = world.open(&changed, &session, &parcels).unwrap_err();
        match error {
            OpenError::Combine(CombineError::Record { x, fault }) => {
                assert_eq!((x, fault), (1, RecordFault::Header), "bit {bit}");
                reached_the_shares += 1;
            }
            OpenError::Provenance(_)
            | OpenError::OtherKey { .. }
            | OpenError::OtherProvider { .. }
            | OpenError::UpstreamNotAllowed { .. }
            | OpenError::OtherCustodian { .. }
            | OpenError::Combine(CombineError::Count { .. }) => {}
            other => panic!("bit {bit}: {other}"),
        }
    }
    assert!(
        reached_the_shares > 500,
        "version, creation time and commitment parse whatever they are: {reached_the_shares}"
    );
}

#[test]
fn with_records_and_check_values_made_to_fit() {
    // The strongest forger: holds the right sealer's key and t shares, and rewrites the tag of every record. What still
    // stands is the commitment and the envelope's associated data.
    let Story { world, key, .. } = story();
    let ys: Vec<[u8; 32]> = world
        .records(&key)
        .iter()
        .map(|record| record[4..36].try_into().unwrap())
        .collect();
    let envelope = Envelope::parse(&key.envelope).unwrap();
    let mut out = vec![0; envelope.plaintext_len()];
    let mut opened_keys = 0;
    for (bit, header) in flipped(&key.header) {
        let Ok(parsed) = Header::parse(&header) else {
            continue;
        };
        let hash = sha256(&header);
        let records: Vec<_> = (1..)
            .zip(&ys)
            .map(|(x, y)| record_bytes(x, y, &hash))
            .collect();
        let mut manifest = manifest_for(&key, &header);
        for (entry, record) in manifest.entries.iter_mut().zip(&records) {
            entry.check = hmac_sha256(record, &[&b"tacit/check/v1"[..], &hash].concat());
        }
        let given: Vec<_> = (1u8..)
            .zip(&records)
            .take(parsed.threshold.into())
            .map(|(x, bytes)| (x, record(*bytes)))
            .collect();
        match combine(&parsed, &hash, &manifest, &given) {
            Err(error) => assert_eq!(error, CombineError::Commitment, "bit {bit}"),
            Ok(dek) => {
                opened_keys += 1;
                assert!(
                    dek.open_envelope(&header, &envelope, &mut out).is_err(),
                    "bit {bit}"
                );
                assert!(out.iter().all(|byte| *byte == 0), "bit {bit}");
                dek.open_envelope(&key.header, &envelope, &mut out)
                    .expect("the header that was sealed");
                assert_eq!(out, FAKE_KEY);
                out.fill(0);
            }
        }
    }
    assert!(opened_keys > 500, "the data key was reached: {opened_keys}");
}
