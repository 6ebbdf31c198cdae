//! One contract for every token: the fake and SoftHSM, in both profiles.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use custody::{Kdf, OaepHash, Profile, ShareRecord};
use hsm::error::{ErrorClass, HsmError};
use hsm::fake::Fake;
use hsm::fips::{self, Service};
use hsm::kernel::{Journal, Kernel, Settings};
use hsm::token::{Fault, Reaction};
use hsm::wire::{Answer, Presented, Request, Revoked, ShareRow};
use support::{Agent, Process, Subject, nss_config, seal, token};

impl Subject for Kernel<Fake> {
    fn ask(&mut self, request: &Request<'_>) -> Answer {
        let answer = self.handle(request);
        // Whatever happened, no share stays behind.
        answer
    }
}

fn fake(profile: Option<&str>) -> Kernel<Fake> {
    fake_with(profile, false)
}

fn fake_with(profile: Option<&str>, fips: bool) -> Kernel<Fake> {
    let settings = Settings {
        custodian: "a".parse().unwrap(),
        profile: profile.map(str::to_owned),
        fips,
    };
    Kernel::new(Fake::new("0042"), settings, Journal::forgetful())
}

/// The whole contract on one token.
fn contract(subject: &mut dyn Subject, profile: &str) {
    assert_eq!(
        subject.class(&Request::Describe),
        ErrorClass::ObjectsMissing
    );
    let descriptor = subject.init();
    assert_eq!(descriptor.descriptor.profile.name(), profile);
    assert_eq!(subject.init(), descriptor, "a second run changes nothing");
    assert!(matches!(subject.ask(&Request::SelfTest), Answer::Done));
    shares_go_in_and_out(subject, &descriptor);
    rows_cannot_be_edited_or_swapped(subject, &descriptor);
    bad_inputs_are_told_apart(subject, &descriptor);
    revoked_versions_stay_in(subject, &descriptor);
    records_and_statements(subject, &descriptor);
}

fn open(subject: &mut dyn Subject, session: &[u8; 16], agent: &Agent) {
    let public = agent.public();
    let answer = subject.ask(&Request::OpenSession {
        session,
        agent: &public,
        evidence: Presented::default(),
    });
    assert!(matches!(answer, Answer::Done), "{answer:?}");
}

fn deliver(subject: &mut dyn Subject, session: &[u8; 16], row: ShareRow<'_>) -> Vec<u8> {
    match subject.ask(&Request::Deliver { session, row }) {
        Answer::Delivered(wrapped) => wrapped,
        other => panic!("deliver: {other:?}"),
    }
}

fn same(one: &ShareRecord, two: &ShareRecord) -> bool {
    one.check_value(&[1; 32]) == two.check_value(&[1; 32])
}

fn shares_go_in_and_out(subject: &mut dyn Subject, descriptor: &custody::SignedDescriptor) {
    let sealed = seal(descriptor, "openai-prod", 1);
    let stored = sealed.ingest_into(subject);
    let (agent, session, other) = (Agent::new(descriptor.descriptor.profile), [1; 16], [2; 16]);
    open(subject, &session, &agent);
    open(subject, &session, &agent);
    open(subject, &other, &agent);
    let wrapped = deliver(subject, &session, stored.row());
    assert!(same(
        &agent.open(descriptor, &session, &wrapped).unwrap(),
        &sealed.record
    ));
    if matches!(descriptor.descriptor.profile, Profile::EcdhKw(_)) {
        assert!(
            agent.open(descriptor, &other, &wrapped).is_none(),
            "the wrapping key binds the session"
        );
    }
    let stranger = Agent::new(descriptor.descriptor.profile);
    assert!(stranger.open(descriptor, &session, &wrapped).is_none());
    let public = stranger.public();
    assert_eq!(
        subject.class(&Request::OpenSession {
            session: &session,
            agent: &public,
            evidence: Presented::default(),
        }),
        ErrorClass::BadRequest
    );

    assert!(matches!(
        subject.ask(&Request::CloseSession { session: &session }),
        Answer::Done
    ));
    assert_eq!(
        subject.class(&Request::Deliver {
            session: &session,
            row: stored.row()
        }),
        ErrorClass::UnknownSession
    );

    let hash = sealed.header.hash();
    assert_eq!(
        subject.ask(&Request::Check { row: stored.row() }),
        Answer::Digest(sealed.check)
    );
    let challenge = [5; 32];
    let expected = sealed
        .record
        .hmac(&custody::share::answer_message(&hash, &challenge));
    assert_eq!(
        subject.ask(&Request::Answer {
            row: stored.row(),
            challenge: &challenge
        }),
        Answer::Digest(expected)
    );
}

fn rows_cannot_be_edited_or_swapped(
    subject: &mut dyn Subject,
    descriptor: &custody::SignedDescriptor,
) {
    let one = seal(descriptor, "row-one", 1).ingest_into(subject);
    let two = seal(descriptor, "row-two", 1).ingest_into(subject);
    assert!(matches!(
        subject.ask(&Request::Check { row: one.row() }),
        Answer::Digest(_)
    ));
    let mut edited = one.clone();
    *edited.wrapped.last_mut().unwrap() ^= 1;
    let mut mac = one.clone();
    mac.mac[0] ^= 1;
    let swapped = ShareRow {
        wrapped: &two.wrapped,
        ..one.row()
    };
    let renamed = ShareRow {
        identity: &two.identity,
        ..one.row()
    };
    for row in [edited.row(), mac.row(), swapped, renamed] {
        assert_eq!(
            subject.class(&Request::Check { row }),
            ErrorClass::MacMismatch
        );
    }
    let truncated = ShareRow {
        identity: &one.identity[..10],
        ..one.row()
    };
    assert_eq!(
        subject.class(&Request::Check { row: truncated }),
        ErrorClass::BadRequest
    );
}

fn bad_inputs_are_told_apart(subject: &mut dyn Subject, descriptor: &custody::SignedDescriptor) {
    let good = seal(descriptor, "inputs", 1);
    for compartment in ["*self-test", "", "a/b"] {
        let mut ingest = good.ingest();
        ingest.compartment = compartment;
        assert_eq!(
            subject.class(&Request::Ingest(ingest)),
            ErrorClass::BadRequest,
            "compartment {compartment:?}"
        );
    }
    let mut wrong_check = good.ingest();
    wrong_check.check = &[0; 32];
    assert_eq!(
        subject.class(&Request::Ingest(wrong_check)),
        ErrorClass::CheckMismatch
    );

    let mut corrupt = good.share.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut ingest = good.ingest();
    ingest.sealed = &corrupt;
    assert_eq!(
        subject.class(&Request::Ingest(ingest)),
        ErrorClass::BadRecord
    );
    ingest.sealed = &good.share[..20];
    assert_eq!(
        subject.class(&Request::Ingest(ingest)),
        ErrorClass::BadRecord
    );

    if matches!(descriptor.descriptor.profile, Profile::EcdhKw(_)) {
        let mut off_curve = good.share.clone();
        off_curve[64] ^= 1;
        ingest.sealed = &off_curve;
        assert_eq!(
            subject.class(&Request::Ingest(ingest)),
            ErrorClass::BadPoint
        );
    }
    for agent in [&[][..], &[4; 65], &[0]] {
        assert_eq!(
            subject.class(&Request::OpenSession {
                session: &[9; 16],
                agent,
                evidence: Presented::default(),
            }),
            ErrorClass::BadPoint
        );
    }
    // Sealed to others: the header does not name this custodian.
    let mut foreign = good.header.clone();
    foreign.custodians[0] = custody::Fingerprint::new([3; 32]);
    let encoded = foreign.encode();
    let mut ingest = good.ingest();
    ingest.header = &encoded;
    assert_eq!(
        subject.class(&Request::Ingest(ingest)),
        ErrorClass::BadRequest
    );
    good.ingest_into(subject);
}

fn revoked_versions_stay_in(subject: &mut dyn Subject, descriptor: &custody::SignedDescriptor) {
    let (one, two) = (
        seal(descriptor, "revoked", 1),
        seal(descriptor, "revoked", 2),
    );
    let (first, second) = (one.ingest_into(subject), two.ingest_into(subject));
    let (agent, session) = (Agent::new(descriptor.descriptor.profile), [7; 16]);
    open(subject, &session, &agent);
    deliver(subject, &session, first.row());

    let entry = Revoked {
        key_id: "revoked".into(),
        version: 1,
    };
    let write = |revision, revoked: Vec<Revoked>| Request::WriteState {
        revision,
        digest: &[4; 32],
        revoked: revoked.into_iter().collect(),
    };
    assert!(matches!(
        subject.ask(&write(3, vec![entry.clone()])),
        Answer::Done
    ));
    assert_eq!(
        subject.class(&Request::Deliver {
            session: &session,
            row: first.row()
        }),
        ErrorClass::Revoked
    );
    assert_eq!(
        subject.class(&Request::Ingest(one.ingest())),
        ErrorClass::Revoked
    );
    deliver(subject, &session, second.row());

    assert_eq!(subject.class(&write(2, vec![])), ErrorClass::StateOlder);
    assert!(
        matches!(subject.ask(&write(4, vec![])), Answer::Done),
        "a set that is left out is kept"
    );
    let Answer::State(state) = subject.ask(&Request::ReadState) else {
        panic!("a state")
    };
    assert_eq!(
        (state.revision, state.digest, state.revoked),
        (4, [4; 32], [entry].into_iter().collect())
    );
}

fn records_and_statements(subject: &mut dyn Subject, descriptor: &custody::SignedDescriptor) {
    let Answer::Digest(mac) = subject.ask(&Request::MacRecord { bytes: b"record" }) else {
        panic!("a MAC")
    };
    assert!(matches!(
        subject.ask(&Request::VerifyRecord {
            bytes: b"record",
            mac: &mac
        }),
        Answer::Done
    ));
    assert_eq!(
        subject.class(&Request::VerifyRecord {
            bytes: b"recorD",
            mac: &mac
        }),
        ErrorClass::MacMismatch
    );
    // A row's message handed in as a record does not give a row's MAC: the purpose is added inside.
    let row = seal(descriptor, "oracle", 1).ingest_into(subject);
    let identity = custody::RowIdentity::parse(&row.identity).unwrap();
    let message = identity.mac_message(&custody::sha256(&row.wrapped));
    assert_ne!(
        subject.ask(&Request::MacRecord { bytes: &message }),
        Answer::Digest(row.mac)
    );

    // Nor is the key of a store's part to be had through the door for records, whose MACs rest in clear.
    let part = |subject: &mut dyn Subject, salt| match subject.ask(&Request::StorePart { salt }) {
        Answer::PartKey(key) => key,
        other => panic!("{other:?} is no key of a part"),
    };
    let (one, two) = (part(subject, &[1; 32]), part(subject, &[2; 32]));
    assert!(one != two && one == part(subject, &[1; 32]));
    for bytes in [&[1; 32][..], &custody::storekey::part_key_message(&[1; 32])] {
        let Answer::Digest(mac) = subject.ask(&Request::MacRecord { bytes }) else {
            panic!("a MAC")
        };
        assert!(*one != secret::Secret::new(Box::new(mac)));
    }

    let Answer::Signature(signature) = subject.ask(&Request::SignStatement {
        bytes: b"statement",
    }) else {
        panic!("a signature")
    };
    let message = custody::statement::signing_message(b"statement");
    let own = &descriptor.descriptor;
    assert!(custody::descriptor::verify_p256(
        &own.sign_statement,
        &message,
        &signature
    ));
    assert!(!custody::descriptor::verify_p256(
        &own.sign_descriptor,
        &message,
        &signature
    ));
    possession_is_proved_afresh(subject, own);
}

/// The descriptor's key answers this very challenge, and neither its descriptor nor a statement is an answer.
fn possession_is_proved_afresh(subject: &mut dyn Subject, own: &custody::Descriptor) {
    let challenge = [0x5a; 32];
    let ask = Request::ProvePossession {
        challenge: &challenge,
    };
    let Answer::Signature(signature) = subject.ask(&ask) else {
        panic!("a signature")
    };
    assert!(own.verify_possession(&challenge, &signature));
    assert!(!own.verify_possession(&[0x5b; 32], &signature));
    let mut impostor = own.clone();
    impostor.sign_descriptor = own.sign_statement;
    assert!(!impostor.verify_possession(&challenge, &signature));

    let Answer::Signature(statement) = subject.ask(&Request::SignStatement {
        bytes: &custody::descriptor::possession_message(&challenge),
    }) else {
        panic!("a signature")
    };
    assert!(!own.verify_possession(&challenge, &statement));
    assert!(!impostor.verify_possession(&challenge, &statement));
}

#[test]
fn the_fake_keeps_the_contract_with_ecdh() {
    let mut kernel = fake(None);
    contract(&mut kernel, "ecdh-kw");
    // The two sessions that are still open, and not one share.
    assert_eq!(kernel.hsm_mut().held(), 2);
}

#[test]
fn the_fake_keeps_the_contract_with_rsa() {
    let mut kernel = fake(Some("rsa-oaep"));
    contract(&mut kernel, "rsa-oaep");
    assert_eq!(kernel.hsm_mut().held(), 2);
}

#[test]
fn softhsm_keeps_the_contract_with_ecdh() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    contract(
        &mut Process::start(&token, &dir.path().join("state"), &[]),
        "ecdh-kw",
    );
}

#[test]
fn softhsm_keeps_the_contract_with_rsa() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    contract(
        &mut Process::start(
            &token,
            &dir.path().join("state"),
            &["--profile", "rsa-oaep"],
        ),
        "rsa-oaep",
    );
}

/// Another vendor's module, with nothing but the configuration changed.
#[test]
fn nss_softokn_keeps_the_contract_with_ecdh() {
    let dir = tempfile::tempdir().unwrap();
    let token = softhsm::nss::up(dir.path(), "n").unwrap();
    let config = nss_config(&token, &dir.path().join("state"));
    let mut process = Process::on(&config, &[]);
    contract(&mut process, "ecdh-kw");
    assert_eq!(
        process.init().descriptor.profile,
        Profile::EcdhKw(Kdf::X963Sha256),
        "the key derivation that the standard names comes first where it works"
    );
}

#[test]
fn nss_softokn_keeps_the_contract_with_approved_calls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let token = softhsm::nss::up(dir.path(), "n").unwrap();
    let mut config = nss_config(&token, &dir.path().join("state"));
    config.fips = true;
    contract(&mut Process::on(&config, &[]), "ecdh-kw");
    // It stays so: the next process examines the token again.
    let mut again = Process::on(&config, &[]);
    assert_eq!(
        again.init().descriptor.profile,
        Profile::EcdhKw(Kdf::X963Sha256)
    );
}

#[test]
fn the_fake_keeps_the_contract_with_approved_calls_alone() {
    contract(&mut fake_with(None, true), "ecdh-kw");
    contract(&mut fake_with(Some("rsa-oaep"), true), "rsa-oaep");
}

#[test]
fn under_fips_all_that_is_missing_is_named_at_once_and_nothing_is_made() {
    let mut kernel = fake_with(None, true);
    kernel.hsm_mut().lacks = vec![Service::Ecdsa, Service::RsaOaep];
    kernel.hsm_mut().refuses_parameters = vec![fips::parameter(Profile::EcdhKw(Kdf::X963Sha256))];
    let error = kernel.error(&Request::Init);
    assert_eq!(error.class, ErrorClass::ModuleUnfit);
    for part in [
        "CKM_ECDSA_SHA256",
        "CKD_SHA256_KDF",
        "CKM_RSA_PKCS_OAEP",
        "NULL",
        "Nothing was made",
    ] {
        assert!(error.text.contains(part), "{part} in {error}");
    }
    assert_eq!(kernel.class(&Request::Describe), ErrorClass::ObjectsMissing);

    // One approved profile is enough, whatever the other lacks.
    let mut kernel = fake_with(None, true);
    kernel.hsm_mut().lacks = vec![Service::AesKeyWrap];
    assert_eq!(
        kernel.init().descriptor.profile,
        Profile::RsaOaep(OaepHash::Sha256)
    );
}

#[test]
fn a_policy_that_changes_after_init_is_noticed_at_the_next_start() {
    let mut kernel = fake_with(None, true);
    kernel.init();
    assert!(matches!(kernel.ask(&Request::SelfTest), Answer::Done));
    for (lacks, outside, named) in [
        (vec![Service::Ecdh], false, "CKM_ECDH1_DERIVE"),
        (vec![], true, "CKM_ECDSA over a hash from outside"),
    ] {
        kernel.hsm_mut().lacks = lacks;
        kernel.hsm_mut().hashes_outside = outside;
        // What a lost token does: everything that was read from it is read again.
        kernel.hsm_mut().faults.push_back(Fault {
            reaction: Reaction::Reinitialise,
            error: HsmError::new(ErrorClass::TokenMissing, "taken away"),
        });
        let error = kernel.error(&Request::SignStatement { bytes: b"x" });
        assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
        assert!(error.text.contains(named), "{error}");
    }
}

#[test]
fn what_a_token_holds_survives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let (token, state) = (token(dir.path()), dir.path().join("state"));
    let mut first = Process::start(&token, &state, &[]);
    let descriptor = first.init();
    let sealed = seal(&descriptor, "survivor", 1);
    let stored = sealed.ingest_into(&mut first);
    let write = Request::WriteState {
        revision: 9,
        digest: &[1; 32],
        revoked: [Revoked {
            key_id: "x".into(),
            version: 1,
        }]
        .into_iter()
        .collect(),
    };
    assert!(matches!(first.ask(&write), Answer::Done));
    assert_eq!(first.end(), Some(0));

    let mut second = Process::start(&token, &state, &[]);
    assert_eq!(second.init(), descriptor);
    assert_eq!(
        second.ask(&Request::Check { row: stored.row() }),
        Answer::Digest(sealed.check)
    );
    let Answer::State(state) = second.ask(&Request::ReadState) else {
        panic!("a state")
    };
    assert_eq!((state.revision, state.revoked.contains("x", 1)), (9, true));
    assert_eq!(
        second.class(&Request::Deliver {
            session: &[1; 16],
            row: stored.row()
        }),
        ErrorClass::UnknownSession
    );
}

#[test]
fn the_profile_is_picked_by_running_it() {
    let mut kernel = fake(None);
    kernel.hsm_mut().refuses = vec!["ecdh"];
    assert_eq!(kernel.init().descriptor.profile.name(), "rsa-oaep");
    let mut kernel = fake(None);
    kernel.hsm_mut().refuses = vec!["ecdh", "rsa"];
    let error = kernel.error(&Request::Init);
    assert_eq!(error.class, ErrorClass::ModuleUnfit);
    assert!(
        error.text.contains("ecdh-kw") && error.text.contains("rsa-oaep"),
        "{error}"
    );
}

#[test]
fn a_module_that_ignores_attributes_is_refused_by_name() {
    let mut kernel = fake(None);
    kernel.hsm_mut().ignores_attributes = true;
    assert_eq!(kernel.class(&Request::Init), ErrorClass::ModuleUnfit);
}

#[test]
fn a_lost_session_object_is_derived_again() {
    let mut kernel = fake(None);
    let descriptor = kernel.init();
    let sealed = seal(&descriptor, "again", 1);
    let stored = sealed.ingest_into(&mut kernel);
    let (agent, session) = (Agent::new(descriptor.descriptor.profile), [1; 16]);
    open(&mut kernel, &session, &agent);
    kernel.hsm_mut().drop_sessions();
    let wrapped = deliver(&mut kernel, &session, stored.row());
    assert!(same(
        &agent.open(&descriptor, &session, &wrapped).unwrap(),
        &sealed.record
    ));
}
