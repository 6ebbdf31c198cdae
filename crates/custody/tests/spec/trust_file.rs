//! The trust file: pinning, superseding, and what is shown when a custodian presents something else.

use custody::descriptor::SealKeys;
use custody::trust::{PinnedCustodian, TrustError};
use custody::{
    Descriptor, FormatError, Kdf, OaepHash, Profile, SealerKey, SignedDescriptor, Trust,
};

use crate::support::{self, CounterRng, ShareKeys, Token, World, key_pair};

fn world(seed: &str) -> (World, CounterRng) {
    let mut rng = CounterRng::new(seed);
    (World::ecdh(2, 3, Kdf::NullCbc, &mut rng), rng)
}

fn renewed(id: &str, rng: &mut CounterRng) -> Token {
    Token::new(id, ShareKeys::ecdh(Kdf::NullCbc, rng), rng)
}

#[test]
fn the_pinned_descriptor_passes_and_an_unknown_one_does_not() {
    let (world, mut rng) = world("pinned");
    for token in &world.tokens {
        let own = token.descriptor();
        assert_eq!(world.trust.check_presented(own), Ok(()));
        assert_eq!(world.trust.current(&own.fingerprint()), Ok(own));
        assert_eq!(world.trust.any(&own.fingerprint()), Ok(own));
    }
    let stranger = renewed("z", &mut rng);
    let unpinned = TrustError::Unpinned {
        fingerprint: stranger.fingerprint(),
    };
    let presented = world.trust.check_presented(stranger.descriptor());
    assert_eq!(presented, Err(unpinned.clone()));
    assert_eq!(
        world.trust.any(&stranger.fingerprint()).err(),
        Some(unpinned.clone())
    );
    assert_eq!(
        world.trust.current(&stranger.fingerprint()).err(),
        Some(unpinned)
    );
}

#[test]
fn a_changed_descriptor_is_an_error_that_lists_every_field_that_differs() {
    let (world, mut rng) = world("changed");
    let pinned = world.tokens[0].descriptor();
    let other = *key_pair(&rng.array()).public();
    let changed = |change: &dyn Fn(&mut Descriptor)| {
        let mut presented = pinned.clone();
        change(&mut presented);
        match world.trust.check_presented(&presented) {
            Err(TrustError::Changed { id, differences }) => {
                assert_eq!(id, pinned.id);
                for (field, old, new) in &differences {
                    assert_ne!(old, new, "{field}");
                }
                let text = TrustError::Changed {
                    id,
                    differences: differences.clone(),
                }
                .to_string();
                for (field, old, new) in &differences {
                    assert!(
                        text.contains(&format!("{field}: pinned {old}, presented {new}")),
                        "{text}"
                    );
                }
                differences.iter().map(|one| one.0).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(changed(&|d| d.serial.push('x')), ["serial"]);
    assert_eq!(changed(&|d| d.label.push('x')), ["label"]);
    assert_eq!(
        changed(&|d| d.profile = Profile::EcdhKw(Kdf::X963Sha256)),
        ["mechanisms"]
    );
    assert_eq!(
        changed(&|d| d.sign_descriptor = other),
        ["sign-descriptor key"]
    );
    assert_eq!(
        changed(&|d| d.sign_statement = other),
        ["sign-statement key"]
    );
    assert_eq!(
        changed(&|d| d.sign_checkpoint = other),
        ["sign-checkpoint key"]
    );
    let seal_keys = |seal: bool| {
        changed(&|d| {
            if let SealKeys::Ecdh {
                seal: s,
                transport: t,
            } = &mut d.seal
            {
                *(if seal { s } else { t }) = other;
            }
        })
    };
    assert_eq!(seal_keys(true), ["seal key"]);
    assert_eq!(seal_keys(false), ["transport key"]);
    assert_eq!(
        changed(&|d| {
            d.serial.push('x');
            d.sign_statement = other;
        }),
        ["serial", "sign-statement key"]
    );
    let whole = support::World::new(
        2,
        vec![
            ShareKeys::rsa(OaepHash::Sha1, 0),
            ShareKeys::rsa(OaepHash::Sha1, 1),
        ],
        &mut rng,
    );
    let rsa = whole.tokens[0].descriptor();
    assert_eq!(
        changed(&|d| (d.profile, d.seal) = (rsa.profile, rsa.seal.clone())),
        ["profile", "mechanisms", "seal key", "transport key"]
    );
}

#[test]
fn no_two_descriptors_differ_without_a_difference_to_show() {
    let mut rng = CounterRng::new("shown");
    let keys = |one: &str, two: &str| ShareKeys::Rsa {
        hash: OaepHash::Sha256,
        seal: vec![
            (one.to_owned(), support::RSA_KEYS[0].clone()),
            (two.to_owned(), support::RSA_KEYS[1].clone()),
        ],
    };
    let token = Token::new("a", keys("anthropic", "openai"), &mut rng);
    let pinned = token.descriptor();
    let mut moved = token.keys.clone();
    // The same keys for other compartments.
    moved.shares = keys("gemini", "openai");
    let presented = Token::describe("a", &moved);
    assert_ne!(presented, *pinned);
    let fields: Vec<_> = pinned
        .differences(&presented)
        .into_iter()
        .map(|one| one.0)
        .collect();
    assert_eq!(fields, ["seal key"]);

    // The mirror image of a point: the same x, the other y. What is shown must not be x alone.
    let mut presented = pinned.clone();
    let mut mirrored = *pinned.sign_statement.as_bytes();
    negate(&mut mirrored);
    presented.sign_statement = custody::p256::Point::parse(&mirrored).expect("on the curve, too");
    let fields: Vec<_> = pinned
        .differences(&presented)
        .into_iter()
        .map(|one| one.0)
        .collect();
    assert_eq!(fields, ["sign-statement key"]);
}

/// y := p - y.
fn negate(point: &mut [u8; 65]) {
    let p =
        hex::decode("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff").unwrap();
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let mut digit = i16::from(p[at]) - i16::from(point[33 + at]) - borrow;
        borrow = i16::from(digit < 0);
        if digit < 0 {
            digit += 256;
        }
        point[33 + at] = u8::try_from(digit).unwrap();
    }
}

#[test]
fn pinning_supersedes_and_the_old_one_opens_older_keys_alone() {
    let (world, mut rng) = world("supersede");
    let mut trust = world.trust.clone();
    let old = &world.tokens[1];
    let (second, third) = (renewed("b", &mut rng), renewed("b", &mut rng));
    trust.pin(second.signed.clone()).unwrap();
    trust.pin(third.signed.clone()).unwrap();
    assert_eq!(trust.custodians.len(), 3, "the place in x order stays");
    assert_eq!(trust.custodians[1].current, third.signed);
    assert_eq!(
        trust.custodians[1].superseded,
        [second.signed.clone(), old.signed.clone()]
    );
    for earlier in [&second, old] {
        assert!(trust.any(&earlier.fingerprint()).is_ok());
        assert_eq!(
            trust.current(&earlier.fingerprint()).err(),
            Some(TrustError::Superseded {
                id: "b".parse().unwrap(),
                fingerprint: earlier.fingerprint()
            })
        );
        assert!(matches!(
            trust.check_presented(earlier.descriptor()),
            Err(TrustError::Changed { .. })
        ));
    }
    assert!(trust.current(&third.fingerprint()).is_ok());
    assert_eq!(
        Trust::parse(trust.to_json().as_bytes()).as_ref(),
        Ok(&trust)
    );

    // The same again changes nothing, whatever its signature's bytes (ECDSA has many for one message).
    let before = trust.clone();
    let message = third.descriptor().signing_message();
    let again = SignedDescriptor {
        descriptor: third.descriptor().clone(),
        signature: support::sign_p256(&third.keys.sign_descriptor, &message),
    };
    trust.pin(again).unwrap();
    assert_eq!(trust, before);

    // Going back to an earlier one on purpose: it is in force, and stands in the file once.
    trust.pin(old.signed.clone()).unwrap();
    assert_eq!(trust.custodians[1].current, old.signed);
    assert_eq!(
        trust.custodians[1].superseded,
        [third.signed.clone(), second.signed.clone()]
    );
    assert_eq!(
        Trust::parse(trust.to_json().as_bytes()).as_ref(),
        Ok(&trust)
    );
}

#[test]
fn pinning_that_would_break_the_file_changes_nothing() {
    let mut rng = CounterRng::new("full");
    let mut world = World::ecdh(2, 16, Kdf::NullCbc, &mut rng);
    let before = world.trust.clone();
    world.trust.pin(renewed("z", &mut rng).signed).unwrap_err();
    assert_eq!(world.trust, before);
    world.trust.pin(renewed("a", &mut rng).signed).unwrap();
    assert_ne!(world.trust, before);
}

#[test]
fn a_file_that_contradicts_itself_is_refused() {
    let (world, mut rng) = world("contradiction");
    let refused = |trust: &Trust, name: &str| {
        let outcome = Trust::parse(trust.to_json().as_bytes());
        assert!(
            matches!(outcome, Err(FormatError::Field { field, .. }) if field == name),
            "{outcome:?}"
        );
    };
    // Two custodians of one id.
    let mut trust = world.trust.clone();
    trust.custodians[2].current = renewed("b", &mut rng).signed;
    refused(&trust, "custodians");
    // A superseded descriptor of another custodian.
    let mut trust = world.trust.clone();
    trust.custodians[0].superseded = vec![renewed("b", &mut rng).signed];
    refused(&trust, "superseded");
    // One descriptor both in force and superseded: whether new keys may go to it would be a matter of reading order.
    let mut trust = world.trust.clone();
    trust.custodians[0].superseded = vec![trust.custodians[0].current.clone()];
    refused(&trust, "superseded");
    // One token under two names would hold two shares of every key.
    let mut trust = world.trust.clone();
    let twin = Token::new("d", world.tokens[0].keys.shares.clone(), &mut rng);
    trust.custodians.push(PinnedCustodian {
        current: twin.signed,
        superseded: Vec::new(),
    });
    refused(&trust, "custodians");
    trust.custodians[3].current = renewed("d", &mut rng).signed;
    assert!(Trust::parse(trust.to_json().as_bytes()).is_ok());

    // A fingerprint that is not that of the descriptor beside it.
    let text = world.trust.to_json();
    let digits = hex::encode(world.tokens[0].fingerprint().as_bytes());
    let other = hex::encode(world.tokens[1].fingerprint().as_bytes());
    assert!(Trust::parse(text.replace(&digits, &digits.to_uppercase()).as_bytes()).is_ok());
    assert!(Trust::parse(text.replace(&digits, &other).as_bytes()).is_err());
}

#[test]
fn descriptors_that_break_a_rule_are_refused() {
    let (world, _) = world("descriptor rules");
    let good = world.tokens[0].descriptor();
    assert!(Descriptor::parse(&good.encode()).is_ok());
    type Change = fn(&mut Descriptor);
    let table: [(&str, Change); 11] = [
        ("signing keys", |d| d.sign_statement = d.sign_descriptor),
        ("signing keys", |d| d.sign_checkpoint = d.sign_descriptor),
        ("signing keys", |d| d.sign_statement = d.sign_checkpoint),
        ("keys", |d| {
            if let SealKeys::Ecdh { seal, transport } = &mut d.seal {
                *transport = *seal;
            }
        }),
        ("keys", |d| {
            if let SealKeys::Ecdh { seal, .. } = &mut d.seal {
                *seal = d.sign_statement;
            }
        }),
        // What a person compares on a terminal must not be able to redraw the terminal.
        ("label", |d| d.label = "a\u{1b}[2K".to_owned()),
        ("label", |d| d.label = "a\nb  as pinned".to_owned()),
        ("label", |d| d.label = "a\u{202e}b".to_owned()),
        ("label", |d| d.label = "a\u{200b}b".to_owned()),
        ("serial", |d| d.serial = "1\r2".to_owned()),
        ("serial", |d| d.serial = "1\u{9b}2K".to_owned()),
    ];
    for (name, change) in table {
        let mut other = good.clone();
        change(&mut other);
        let outcome = Descriptor::parse(&other.encode());
        assert!(
            matches!(outcome, Err(FormatError::Field { field, .. }) if field == name),
            "{name}: {outcome:?}"
        );
    }
    let mut other = good.clone();
    other.label = "Prüf-Token 3 (links)".to_owned();
    assert!(Descriptor::parse(&other.encode()).is_ok());
}

#[test]
fn a_token_of_one_rsa_key_has_one_compartment_for_it() {
    let mut rng = CounterRng::new("rsa rules");
    let of = |names: [&str; 2], at: [usize; 2]| {
        let seal = names.iter().zip(at);
        let shares = ShareKeys::Rsa {
            hash: OaepHash::Sha256,
            seal: seal
                .map(|(name, at)| ((*name).to_owned(), support::RSA_KEYS[at].clone()))
                .collect(),
        };
        Token::new("a", shares, &mut CounterRng::new("same"))
            .signed
            .descriptor
    };
    assert!(Descriptor::parse(&of(["*", "openai"], [0, 1]).encode()).is_ok());
    for bad in [
        of(["openai", "*"], [0, 1]),
        of(["openai", "openai"], [0, 1]),
        of(["", "openai"], [0, 1]),
        of(["a b", "openai"], [0, 1]),
        of(["*", "openai"], [0, 0]),
    ] {
        assert!(Descriptor::parse(&bad.encode()).is_err(), "{bad:?}");
    }
    let mut none = of(["*", "openai"], [0, 1]);
    none.seal = SealKeys::Rsa { seal: Vec::new() };
    assert!(Descriptor::parse(&none.encode()).is_err());
    let mut odd = renewed("a", &mut rng).signed.descriptor;
    odd.profile = Profile::RsaOaep(OaepHash::Sha1);
    assert!(
        Descriptor::parse(&odd.encode()).is_err(),
        "points under the RSA profile"
    );
}

#[test]
fn a_descriptor_is_signed_by_its_own_descriptor_key() {
    let (world, _) = world("signed");
    let token = &world.tokens[0];
    let message = token.descriptor().signing_message();
    let with = |signature| {
        SignedDescriptor {
            descriptor: token.descriptor().clone(),
            signature,
        }
        .encode()
    };
    let sign = |scalar: &[u8; 32], message: &[u8]| with(support::sign_p256(scalar, message));
    let keys = &token.keys;
    assert!(SignedDescriptor::parse(&sign(&keys.sign_descriptor, &message)).is_ok());
    for bad in [
        sign(&keys.sign_statement, &message),
        sign(&keys.sign_descriptor, &token.descriptor().encode()),
        sign(
            &keys.sign_descriptor,
            &custody::statement::signing_message(&token.descriptor().encode()),
        ),
        with([0; 64]),
    ] {
        assert!(SignedDescriptor::parse(&bad).is_err());
    }
}

#[test]
fn sealers_are_pinned_by_key_and_named() {
    let (world, _) = world("sealers");
    let mut trust = world.trust.clone();
    let (alice, bob) = (trust.sealers[0].key, SealerKey::new([5; 32]));
    assert_eq!(
        (trust.sealer_name(&alice), trust.sealer_name(&bob)),
        (Some("alice"), None)
    );
    trust.pin_sealer("bob", bob);
    trust.pin_sealer("alice-2", alice);
    assert_eq!(trust.sealers.len(), 2);
    assert_eq!(
        (trust.sealer_name(&alice), trust.sealer_name(&bob)),
        (Some("alice-2"), Some("bob"))
    );
    assert_eq!(SealerKey::from_hex(&bob.to_string()), Ok(bob));
    assert!(SealerKey::from_hex(&bob.to_string()[1..]).is_err());
}
