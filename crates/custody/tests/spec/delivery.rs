//! Sealing, ingesting, delivering and opening in every profile, and every refusal of opening told apart.

use custody::combine::CombineError;
use custody::names::OriginError;
use custody::open::OpenError;
use custody::p256::KeyPair;
use custody::seal::{SealError, seal_share};
use custody::sealed::ProvenanceError;
use custody::session::{WrappingKey, deliver_context, seal_context};
use custody::share::RecordFault;
use custody::trust::TrustError;
use custody::{Fingerprint, FormatError, Kdf, OaepHash, Origin, SealedKey};
use proptest::prelude::*;
use secret::Secret;

use crate::support::{
    self, Ask, CounterRng, FAKE_KEY, Session, ShareKeys, Token, World, open_across, open_as,
    record, sha256,
};

fn mixed(t: u8, rng: &mut CounterRng) -> World {
    let shares = vec![
        ShareKeys::ecdh(Kdf::NullCbc, rng),
        ShareKeys::rsa(OaepHash::Sha256, 0),
        ShareKeys::ecdh(Kdf::X963Sha256, rng),
    ];
    World::new(t, shares, rng)
}

#[test]
fn shares_that_came_by_two_sessions_open_each_in_its_own() {
    let mut rng = CounterRng::new("two daemons");
    for world in [
        World::ecdh(2, 3, Kdf::NullCbc, &mut rng),
        mixed(2, &mut rng),
    ] {
        let (key, _) = world.seal(&mut rng);
        let (one, two) = (Session::with_rsa(&mut rng), Session::with_rsa(&mut rng));
        let first = &world.deliver(&key, &one, &[1])[0];
        let second = &world.deliver(&key, &two, &[2])[0];
        let open = |parcels: &[(&Session, &support::Parcel)]| {
            open_across(&world.trust, &key, parcels, &Ask::default())
        };
        assert_eq!(open(&[(&one, first), (&two, second)]).unwrap(), FAKE_KEY);
        // The one taken for the other, and one of them alone.
        let crossed = open(&[(&two, first), (&one, second)]).unwrap_err();
        assert_eq!(
            (crossed.custodian(), crossed),
            (Some(1), OpenError::Delivery { x: 1 })
        );
        let crossed = open(&[(&one, first), (&one, second)]).unwrap_err();
        assert_eq!(crossed.custodian(), Some(2));
        let alone = open(&[(&one, first)]).unwrap_err();
        assert_eq!(alone.custodian(), None);
        assert!(matches!(
            alone,
            OpenError::Combine(CombineError::Count { .. })
        ));
    }
}

#[test]
fn every_profile_and_a_mixed_set_opens() {
    let mut rng = CounterRng::new("profiles");
    let rsa = |hash| (0..3).map(|at| ShareKeys::rsa(hash, at)).collect();
    let worlds = [
        World::ecdh(2, 3, Kdf::NullCbc, &mut rng),
        World::ecdh(2, 3, Kdf::X963Sha256, &mut rng),
        World::new(2, rsa(OaepHash::Sha1), &mut rng),
        World::new(3, rsa(OaepHash::Sha256), &mut rng),
        mixed(2, &mut rng),
        mixed(3, &mut rng),
    ];
    let session = Session::with_rsa(&mut rng);
    for world in worlds {
        let (key, _) = world.seal(&mut rng);
        assert!(key.verify(&world.trust).is_ok());
        for xs in [&[1u8, 2][..], &[3, 1], &[2, 3], &[3, 2, 1]] {
            let parcels = world.deliver(&key, &session, xs);
            let outcome = world.open(&key, &session, &parcels);
            if xs.len() == usize::from(world.trust.threshold) {
                assert_eq!(outcome.unwrap(), FAKE_KEY);
            } else {
                assert!(matches!(
                    outcome,
                    Err(OpenError::Combine(CombineError::Count { .. }))
                ));
            }
        }
    }
}

#[test]
fn a_changed_bit_in_a_delivery_or_a_sealed_share_never_passes() {
    let mut rng = CounterRng::new("delivery bits");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let session = Session::new(&mut rng);
    let parcels = world.deliver(&key, &session, &[1, 2]);
    for bit in 0..72 * 8 {
        let mut changed = parcels.clone();
        changed[1].wrapped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            world.open(&key, &session, &changed),
            Err(OpenError::Delivery { x: 2 })
        );
    }
    let hash = sha256(&key.header);
    for bit in 65 * 8..key.shares[0].len() * 8 {
        let mut changed = key.shares[0].clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(world.tokens[0].ingest(&changed, &hash).is_none());
    }
}

#[test]
fn every_refusal_of_opening_has_its_own_name() {
    let mut rng = CounterRng::new("open");
    let world = mixed(2, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let session = Session::with_rsa(&mut rng);
    let parcels = world.deliver(&key, &session, &[1, 2]);
    let open = |parcels: &[support::Parcel]| world.open(&key, &session, parcels);
    assert_eq!(
        open(&parcels).unwrap(),
        FAKE_KEY,
        "the neighbour that passes"
    );

    // What the request is about.
    let ask = |key_id: &str, provider: &str, origin: &str| {
        let ask = Ask {
            key_id: key_id.to_owned(),
            provider: provider.to_owned(),
            origin: origin.to_owned(),
        };
        open_as(&world.trust, &key, &session, &parcels, &ask)
    };
    let home = "https://api.openai.com";
    assert!(ask("openai-prod", "openai", "https://gateway.example:8443").is_ok());
    assert!(matches!(
        ask("openai-prod2", "openai", home),
        Err(OpenError::OtherKey { asked, found })
            if asked.as_str() == "openai-prod2" && found.as_str() == "openai-prod"
    ));
    assert!(matches!(
        ask("openai-prod", "anthropic", home),
        Err(OpenError::OtherProvider { asked, found, .. }) if asked == "anthropic" && found == "openai"
    ));
    for foreign in [
        "https://gateway.example",
        "https://api.openai.com:8443",
        "https://api.openai.com.evil.example",
        "https://xapi.openai.com",
        "http://127.0.0.1:443",
    ] {
        assert!(
            matches!(
                ask("openai-prod", "openai", foreign),
                Err(OpenError::UpstreamNotAllowed { origin, .. }) if origin == foreign
            ),
            "{foreign}"
        );
    }

    // Whose delivery it is.
    let with = |change: &dyn Fn(&mut Vec<support::Parcel>)| {
        let mut changed = parcels.clone();
        change(&mut changed);
        open(&changed)
    };
    assert_eq!(
        with(&|p| p[0].x = 3),
        Err(OpenError::OtherCustodian { x: 3 })
    );
    assert_eq!(
        with(&|p| p[0].x = 0),
        Err(OpenError::OtherCustodian { x: 0 })
    );
    assert_eq!(
        with(&|p| p[0].fingerprint = Fingerprint::new([7; 32])),
        Err(OpenError::OtherCustodian { x: 1 })
    );
    assert_eq!(
        with(&|p| p[0].wrapped.truncate(71)),
        Err(OpenError::Delivery { x: 1 })
    );
    assert_eq!(
        with(&|p| p[1].wrapped.push(0)),
        Err(OpenError::Delivery { x: 2 })
    );
    assert_eq!(
        with(&|p| p[1].wrapped[7] ^= 1),
        Err(OpenError::Delivery { x: 2 })
    );
    assert_eq!(
        with(&|p| p[1] = p[0].clone()),
        Err(OpenError::Combine(CombineError::Duplicate { x: 1 }))
    );
    assert_eq!(
        with(&|p| drop(p.pop())),
        Err(OpenError::Combine(CombineError::Count {
            found: 1,
            needed: 2
        }))
    );

    // A session without RSA.
    let plain = Session::new(&mut rng);
    let mut changed = world.deliver(&key, &plain, &[1, 3]);
    assert!(world.open(&key, &plain, &changed).is_ok());
    changed[1] = parcels[1].clone();
    assert_eq!(
        world.open(&key, &plain, &changed),
        Err(OpenError::NoRsaKey { x: 2 })
    );

    // A custodian that is no longer pinned; one that is superseded still opens what it holds.
    let mut trust = world.trust.clone();
    let renewed = Token::new("a", ShareKeys::ecdh(Kdf::NullCbc, &mut rng), &mut rng);
    trust.pin(renewed.signed).unwrap();
    assert!(open_as(&trust, &key, &session, &parcels, &Ask::default()).is_ok());
    trust.custodians[0].superseded.clear();
    let fingerprint = world.tokens[0].fingerprint();
    assert_eq!(
        open_as(&trust, &key, &session, &parcels, &Ask::default()),
        Err(OpenError::Custodian(TrustError::Unpinned { fingerprint }))
    );

    // Provenance stands before everything else.
    let swapped = SealedKey {
        envelope: world.seal(&mut rng).0.envelope,
        ..key.clone()
    };
    assert_eq!(
        world.open(&swapped, &session, &parcels),
        Err(OpenError::Provenance(ProvenanceError::Envelope))
    );

    // The envelope of another key that the right sealer signed beside this header.
    let mut manifest = custody::Manifest::parse(&key.manifest).unwrap();
    manifest.envelope_hash = sha256(&swapped.envelope);
    let resigned = SealedKey {
        manifest: manifest.encode(),
        signature: custody::Sealer::sign(&world.sealer, &manifest.signing_message()).unwrap(),
        ..swapped
    };
    assert!(matches!(
        world.open(&resigned, &session, &parcels),
        Err(OpenError::Envelope(_))
    ));
}

#[test]
fn a_buffer_of_another_length_is_refused() {
    let mut rng = CounterRng::new("length");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let records = world.records(&key);
    let given: Vec<_> = (1..).zip(&records).map(|(x, r)| (x, record(*r))).collect();
    let manifest = custody::Manifest::parse(&key.manifest).unwrap();
    let header = support::header(&key);
    let dek = custody::combine::combine(&header, &header.hash(), &manifest, &given).unwrap();
    let envelope = custody::dek::Envelope::parse(&key.envelope).unwrap();
    for (length, opens) in [
        (FAKE_KEY.len(), true),
        (FAKE_KEY.len() - 1, false),
        (FAKE_KEY.len() + 1, false),
        (0, false),
    ] {
        let mut out = vec![0; length];
        let outcome = dek.open_envelope(&key.header, &envelope, &mut out);
        assert_eq!(outcome.is_ok(), opens, "{length}");
        assert!(opens || out.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_delivery_opens_in_its_own_session_from_its_own_custodian_alone() {
    let mut rng = CounterRng::new("sessions");
    for kdf in [Kdf::NullCbc, Kdf::X963Sha256] {
        let world = World::ecdh(2, 3, kdf, &mut rng);
        let (key, _) = world.seal(&mut rng);
        let session = Session::new(&mut rng);
        let parcels = world.deliver(&key, &session, &[1, 2]);
        assert!(world.open(&key, &session, &parcels).is_ok());

        // Another session id under the same key pair: the same Z, another context.
        let mut id = session.id;
        id[15] ^= 1;
        let mut replayed = Session { id, ..session };
        assert_eq!(
            world.open(&key, &replayed, &parcels),
            Err(OpenError::Delivery { x: 1 })
        );
        replayed.id[15] ^= 1;
        assert!(world.open(&key, &replayed, &parcels).is_ok());
        let session = replayed;

        // Another agent.
        let other = Session {
            id: session.id,
            ..Session::new(&mut rng)
        };
        assert_eq!(
            world.open(&key, &other, &parcels),
            Err(OpenError::Delivery { x: 1 })
        );

        // What one custodian delivered, passed off as another's.
        let mut crossed = parcels.clone();
        crossed[1].wrapped.clone_from(&parcels[0].wrapped);
        assert_eq!(
            world.open(&key, &session, &crossed),
            Err(OpenError::Delivery { x: 2 })
        );

        // A record of custodian 1 that custodian 2's token was made to deliver.
        let records = world.records(&key);
        crossed[1].wrapped = world.tokens[1].deliver(&records[0], &session);
        assert_eq!(
            world.open(&key, &session, &crossed),
            Err(OpenError::Combine(CombineError::Record {
                x: 2,
                fault: RecordFault::Index
            }))
        );

        // A sealed share fed to the agent as a delivery, and the reverse.
        crossed[1].wrapped = key.shares[1][65..].to_vec();
        assert_eq!(
            world.open(&key, &session, &crossed),
            Err(OpenError::Delivery { x: 2 })
        );
        let agent = session.keys.p256.public().as_bytes();
        let hash = sha256(&key.header);
        let reflected = [&agent[..], &parcels[0].wrapped].concat();
        assert!(world.tokens[0].ingest(&reflected, &hash).is_none());
    }
}

#[test]
fn a_sealed_share_opens_at_its_own_custodian_under_its_own_header_alone() {
    let mut rng = CounterRng::new("sealed share");
    for kdf in [Kdf::NullCbc, Kdf::X963Sha256] {
        let world = World::ecdh(2, 3, kdf, &mut rng);
        let (key, _) = world.seal(&mut rng);
        let hash = sha256(&key.header);
        for (at, token) in world.tokens.iter().enumerate() {
            for (of, share) in key.shares.iter().enumerate() {
                assert_eq!(token.ingest(share, &hash).is_some(), at == of);
            }
            assert!(token.ingest(&key.shares[at], &[0; 32]).is_none());
        }
        // The same private keys under another custodian id.
        let mut renamed = world.tokens[0].clone();
        renamed.signed.descriptor.id = "z".parse().unwrap();
        assert!(renamed.ingest(&key.shares[0], &hash).is_none());
        // The same under the other KDF.
        let mut other = world.tokens[0].clone();
        if let ShareKeys::Ecdh { kdf, .. } = &mut other.keys.shares {
            *kdf = match kdf {
                Kdf::NullCbc => Kdf::X963Sha256,
                Kdf::X963Sha256 => Kdf::NullCbc,
            };
        }
        assert!(other.ingest(&key.shares[0], &hash).is_none());
    }
}

#[test]
fn rsa_deliveries_are_bound_by_hash_and_key() {
    let mut rng = CounterRng::new("rsa");
    let shares = |hash| vec![ShareKeys::rsa(hash, 0), ShareKeys::rsa(hash, 1)];
    let world = World::new(2, shares(OaepHash::Sha1), &mut rng);
    let (key, _) = world.seal(&mut rng);
    let session = Session::with_rsa(&mut rng);
    let mut parcels = world.deliver(&key, &session, &[1, 2]);
    assert!(world.open(&key, &session, &parcels).is_ok());
    let records = world.records(&key);
    let mut sha256 = world.tokens[1].clone();
    sha256.keys.shares = ShareKeys::rsa(OaepHash::Sha256, 1);
    parcels[1].wrapped = sha256.deliver(&records[1], &session);
    assert_eq!(
        world.open(&key, &session, &parcels),
        Err(OpenError::Delivery { x: 2 })
    );
    let other = Session::with_rsa(&mut rng);
    parcels[1].wrapped = world.tokens[1].deliver(&records[1], &other);
    assert_eq!(
        world.open(&key, &session, &parcels),
        Err(OpenError::Delivery { x: 2 })
    );
}

#[test]
fn rsa_shares_go_to_the_key_of_their_compartment() {
    let mut rng = CounterRng::new("compartments");
    let keys = |names: &[(&str, usize)]| ShareKeys::Rsa {
        hash: OaepHash::Sha256,
        seal: names
            .iter()
            .map(|(name, at)| ((*name).to_owned(), support::RSA_KEYS[*at].clone()))
            .collect(),
    };
    let own = Token::new("a", keys(&[("openai", 0), ("zzz", 1)]), &mut rng);
    let general = Token::new("b", keys(&[("*", 0), ("zzz", 1)]), &mut rng);
    let none = Token::new("c", keys(&[("anthropic", 0), ("zzz", 1)]), &mut rng);
    let (hash, share) = ([3; 32], record([9; 64]));
    for token in [&own, &general] {
        let sealed = seal_share(token.descriptor(), "openai", &share, &hash, &mut rng).unwrap();
        assert_eq!(token.ingest(&sealed, &hash), Some([9; 64]));
    }
    let refused = seal_share(none.descriptor(), "openai", &share, &hash, &mut rng);
    assert!(matches!(
        refused,
        Err(SealError::Compartment { custodian, compartment }) if custodian == "c" && compartment == "openai"
    ));
    // A descriptor whose keys do not fit its profile.
    let mut odd = own.descriptor().clone();
    odd.profile = custody::Profile::EcdhKw(Kdf::NullCbc);
    assert!(matches!(
        seal_share(&odd, "openai", &share, &hash, &mut rng),
        Err(SealError::Format(FormatError::Field { .. }))
    ));
}

#[test]
fn sealing_refuses_what_no_header_or_request_may_hold() {
    let mut rng = CounterRng::new("sealing");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let fake = || Secret::from(FAKE_KEY.to_vec());
    let try_with = |secret: &Secret<[u8]>, change: &dyn Fn(&mut custody::SealRequest<'_>)| {
        let mut request = world.request();
        change(&mut request);
        custody::seal(&request, secret, &world.sealer, &mut CounterRng::new("x")).map(|_| ())
    };
    assert!(try_with(&fake(), &|_| ()).is_ok());
    for bad in [
        &b""[..],
        b"two words",
        b"line\nbreak",
        b"nul\0",
        b"\xffx",
        &[b'a'; 8193],
    ] {
        let outcome = try_with(&Secret::from(bad.to_vec()), &|_| ());
        assert!(matches!(outcome, Err(SealError::Secret(_))), "{bad:?}");
    }
    assert!(try_with(&Secret::from(vec![b'a'; 8192]), &|_| ()).is_ok());
    type Change = fn(&mut custody::SealRequest<'_>);
    let table: [(&str, Change); 9] = [
        ("version 0", |r| r.version = 0),
        ("generation 0", |r| r.generation = 0),
        ("t = 0", |r| r.threshold = 0),
        ("t = 1", |r| r.threshold = 1),
        ("t > n", |r| r.threshold = 4),
        ("one custodian twice", |r| r.custodians[1] = r.custodians[0]),
        ("no upstream", |r| r.upstreams.clear()),
        ("65 upstreams", |r| {
            r.upstreams = vec![r.upstreams[0].clone(); 65]
        }),
        ("a provider that is no name", |r| {
            r.provider = "open ai".to_owned()
        }),
    ];
    for (name, change) in table {
        let outcome = try_with(&fake(), &change);
        assert!(matches!(outcome, Err(SealError::Format(_))), "{name}");
    }
    let many = |count: usize| {
        let mut request = world.request();
        request.upstreams = (0..count)
            .map(|at| {
                format!("https://{at}.{}.example", "x".repeat(60))
                    .parse()
                    .unwrap()
            })
            .collect();
        custody::seal(&request, &fake(), &world.sealer, &mut CounterRng::new("x")).map(|_| ())
    };
    assert!(many(64).is_ok() && many(300).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_crate_derives_and_wraps_as_the_format_says(
        seed in any::<u64>(), id in "[A-Za-z0-9._-]{1,128}", bytes in any::<[[u8; 32]; 2]>(),
    ) {
        let mut rng = CounterRng::new(&seed.to_string());
        let (own, peer) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let (hash, session): ([u8; 32], [u8; 16]) = (rng.array(), rng.array());
        let named = id.parse().unwrap();
        let seal = seal_context(&named, &hash, own.public());
        prop_assert_eq!(seal, support::seal_context(&id, &hash, own.public().as_bytes()));
        let deliver = deliver_context(&named, &session, own.public());
        prop_assert_eq!(deliver, support::deliver_context(&id, &session, own.public().as_bytes()));
        let z = *own.agree(peer.public()).expose();
        let plain = record(bytes.concat().try_into().unwrap());
        for kdf in [Kdf::NullCbc, Kdf::X963Sha256] {
            for context in [seal, deliver] {
                let expected = support::aes_kw_wrap(&support::wrapping_key(kdf, &z, &context), &bytes.concat());
                let key = WrappingKey::derive(&own, peer.public(), kdf, &context);
                let wrapped = key.wrap(plain.as_secret());
                prop_assert_eq!(&wrapped[..], &expected[..]);
                let far = WrappingKey::derive(&peer, own.public(), kdf, &context);
                prop_assert!(far.unwrap(&wrapped).is_some_and(|found| found == *plain.as_secret()));
                for length in 0..72 {
                    prop_assert!(far.unwrap(&wrapped[..length]).is_none());
                }
                prop_assert!(far.unwrap(&[&wrapped[..], &[0; 8]].concat()).is_none());
            }
        }
    }
}

#[test]
fn plain_http_leaves_the_machine_nowhere() {
    for (text, outcome) in [
        ("http://127.0.0.1:9000", Ok(())),
        ("http://127.8.9.10", Ok(())),
        ("http://[::1]:80", Ok(())),
        ("http://localhost:1", Ok(())),
        ("http://localhost.evil.example", Err(OriginError::PlainHttp)),
        ("http://127.0.0.1.evil.example", Err(OriginError::PlainHttp)),
        ("http://[::ffff:10.0.0.1]", Err(OriginError::PlainHttp)),
        ("http://0.0.0.0", Err(OriginError::PlainHttp)),
        ("http://128.0.0.1", Err(OriginError::PlainHttp)),
        ("http://0177.0.0.1", Err(OriginError::Host)),
        ("https://api.openai.com.", Err(OriginError::Host)),
        ("HTTPS://api.openai.com", Err(OriginError::Scheme)),
    ] {
        assert_eq!(text.parse::<Origin>().map(|_| ()), outcome, "{text}");
    }
}
