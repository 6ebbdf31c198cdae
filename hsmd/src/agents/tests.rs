//! Sessions, leases and how far changes have come.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn caller(uid: u32) -> Caller {
    let rule = crate::config::CallerRule {
        uid,
        environments: Vec::new(),
        teams: Vec::new(),
    };
    Caller::from_rules(&[rule], uid, 7).unwrap()
}

fn open(agents: &Agents, id: u8, uid: u32) -> [u8; 16] {
    let seed = SessionSeed {
        id: [id; 16],
        p256: Vec::new(),
        rsa: None,
        evidence: hsm::client::Evidence::default(),
    };
    let hello = Introduction {
        name: String::new(),
        version: "1".into(),
        instance: [id; 16],
        key_ids: Vec::new(),
        keeps_terms: id != 9,
    };
    agents.opened(seed, caller(uid), hello).unwrap();
    [id; 16]
}

#[test]
fn a_session_belongs_to_its_user() {
    let agents = Agents::default();
    let id = open(&agents, 1, 1000);
    assert!(agents.seed(&id, &caller(1000)).is_ok());
    assert_eq!(
        agents.seed(&id, &caller(1001)).unwrap_err().code,
        Code::SessionUnknown
    );
    assert_eq!(
        agents.seed(&[9; 16], &caller(1000)).unwrap_err().code,
        Code::SessionUnknown
    );
}

#[test]
fn a_change_is_complete_when_the_last_holder_acknowledged_or_its_lease_ended() {
    let agents = Agents::default();
    let (one, two, other) = (
        open(&agents, 1, 1000),
        open(&agents, 2, 1000),
        open(&agents, 3, 1000),
    );
    agents.leased(&one, "k", 1, Duration::from_secs(60));
    agents.leased(&two, "k", 1, Duration::ZERO);
    agents.leased(&other, "k", 2, Duration::from_secs(60));
    let affected = agents.affected("k", &[1], 5);
    let reach = agents.reach(&affected);
    assert_eq!(
        (reach.agents, reach.acknowledged, reach.not_connected),
        (1, 0, 1)
    );
    assert!(!reach.complete());
    agents.acknowledge(&one, 4, vec![("k".into(), 1)]);
    assert!(
        !agents.reach(&affected).complete(),
        "an older acknowledgement says nothing of this change"
    );
    agents.acknowledge(&one, 5, vec![("k".into(), 1)]);
    assert!(
        !agents.reach(&affected).complete(),
        "heard, and still in use until the successor is there"
    );
    agents.acknowledge(&one, 5, Vec::new());
    let reach = agents.reach(&affected);
    assert_eq!((reach.acknowledged, reach.complete()), (1, true));
}

#[test]
fn a_change_of_terms_is_complete_when_it_was_heard_though_the_version_stays_in_use() {
    let agents = Agents::default();
    let one = open(&agents, 1, 1000);
    agents.leased(&one, "k", 1, Duration::from_secs(60));
    let affected = agents.affected_by_terms("k", &[1], 5);
    let in_use = || vec![("k".to_owned(), 1)];
    agents.acknowledge(&one, 4, in_use());
    assert!(!agents.reach(&affected).complete());
    agents.acknowledge(&one, 5, in_use());
    let reach = agents.reach(&affected);
    assert_eq!((reach.acknowledged, reach.complete()), (1, true));
}

#[test]
fn connected_agents_that_know_no_terms_are_named() {
    let agents = Agents::default();
    let (newer, older) = (open(&agents, 1, 1000), open(&agents, 9, 1001));
    assert!(agents.without_terms().is_empty(), "nobody is connected");
    let _streams =
        [(newer, 1000), (older, 1001)].map(|(id, uid)| agents.connect(&id, &caller(uid)));
    assert_eq!(agents.without_terms(), ["1001-7"]);
}

#[test]
fn sessions_of_one_user_are_bounded() {
    let agents = Agents::default();
    for at in 0..SESSIONS_PER_UID_MAX {
        agents.admit(1000).unwrap();
        open(&agents, u8::try_from(at).unwrap(), 1000);
    }
    assert_eq!(agents.admit(1000).unwrap_err().code, Code::RateLimited);
    assert!(agents.admit(1001).is_ok());
}
