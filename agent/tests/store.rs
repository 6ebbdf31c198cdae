//! Keys from the daemon's store: what it grants reaches the upstream, and what does not open goes nowhere.
#![allow(clippy::unwrap_used)]

mod support;

use proto::v1::{Command, LeaseResponse, TestKey, command, watch_response::Kind};
use support::daemon::Script;
use support::store::{ID, refused, set};
use support::{KEY, OK, fields};

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_reaches_the_upstream_and_is_leased_once() {
    let set = set("", OK).await;
    let daemon = set.daemon(set.script());
    for _ in 0..3 {
        assert_eq!(set.ask().await, (200, None));
    }
    assert_eq!(
        fields(&set.upstream.received(), "authorization"),
        vec![format!("Bearer {KEY}"); 3]
    );
    assert_eq!(daemon.script.lock().unwrap().leases, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_every_request_is_a_lease() {
    let set = set("ttl = \"0s\"", OK).await;
    let daemon = set.daemon(set.script());
    for _ in 0..3 {
        assert_eq!(set.ask().await, (200, None));
    }
    assert_eq!(daemon.script.lock().unwrap().leases, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_start_before_its_daemon() {
    let set = set("", OK).await;
    assert_eq!(set.ask().await, refused(503, "hsm_unavailable"));
    assert_eq!(set.upstream.received(), "", "never sent bare");
    let daemon = set.daemon(set.script());
    daemon.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_is_refused_by_name_and_goes_nowhere() {
    let set = set("", OK).await;
    let by = |sealed| Script {
        revision: 5,
        keys: [(ID.to_owned(), (sealed, 1))].into(),
        ..Script::default()
    };
    let forged = |forge: fn(&mut LeaseResponse)| Script {
        forge: Some(forge),
        ..set.script()
    };
    let unavailable = refused(503, "hsm_unavailable");
    let cases = [
        (
            "a foreign origin",
            by(set.office.seal(ID, 1, "https://api.openai.com", KEY)),
            refused(403, "upstream_not_allowed"),
        ),
        (
            "an unknown sealer",
            by(set.office.seal_by_stranger(ID, 1, &set.origin, KEY)),
            unavailable.clone(),
        ),
        (
            "another key",
            by(set.office.seal("other", 1, &set.origin, KEY)),
            unavailable.clone(),
        ),
        (
            "another version",
            forged(|answer| answer.version = 2),
            unavailable.clone(),
        ),
        (
            "a changed header",
            forged(|answer| answer.header[20] ^= 1),
            unavailable.clone(),
        ),
        (
            "a changed envelope",
            forged(|answer| *answer.envelope.last_mut().unwrap() ^= 1),
            unavailable.clone(),
        ),
        (
            "a changed delivery",
            forged(|answer| answer.deliveries[0].wrapped[5] ^= 1),
            unavailable.clone(),
        ),
        (
            "one share",
            forged(|answer| answer.deliveries.truncate(1)),
            unavailable.clone(),
        ),
        (
            "one share twice",
            forged(|answer| answer.deliveries[1] = answer.deliveries[0].clone()),
            unavailable.clone(),
        ),
        (
            "a stranger's custodian",
            forged(|answer| answer.deliveries[0].fingerprint[0] ^= 1),
            unavailable.clone(),
        ),
        (
            "revoked",
            Script {
                refuse: Some("key_revoked"),
                ..set.script()
            },
            refused(403, "key_revoked"),
        ),
        (
            "not permitted",
            Script {
                refuse: Some("permission_denied"),
                ..set.script()
            },
            refused(403, "permission_denied"),
        ),
    ];
    for (name, script, wanted) in cases {
        let daemon = set.daemon(script);
        daemon.until(|script| !script.acks.is_empty()).await;
        assert_eq!(set.ask().await, wanted, "{name}");
    }
    assert_eq!(set.upstream.received(), "");
    // The nearest neighbour of all of them.
    let _daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_costs_no_request() {
    let set = set("ttl = \"0s\"", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.forget_sessions();
    assert_eq!(set.ask().await, (200, None));
    drop(daemon);
    let _daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_store_is_not_believed() {
    let set = set("ttl = \"0s\"", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    drop(daemon);
    let _older = set.daemon(Script {
        revision: 4,
        ..set.script()
    });
    assert_eq!(set.ask().await, refused(503, "hsm_unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_hears_that_a_provider_refused_the_key() {
    const BAD: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
    let set = set("", BAD).await;
    let daemon = set.daemon(set.script());
    assert_eq!(
        set.ask().await,
        refused(502, "upstream_credentials_rejected")
    );
    daemon
        .until(|script| {
            script.usage.iter().any(|usage| {
                usage.key_id == ID && usage.version == 1 && usage.credentials_rejected == 1
            })
        })
        .await;
    daemon.until(|script| !script.acks.is_empty()).await;
    daemon
        .tell(Kind::Command(Command {
            id: 7,
            kind: Some(command::Kind::TestKey(TestKey {
                key_id: ID.to_owned(),
            })),
        }))
        .await;
    daemon
        .until(|script| {
            script
                .results
                .iter()
                .any(|result| result.id == 7 && !result.ok && result.detail.contains("rotate"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_tested_without_using_it_up() {
    let set = set("", OK).await;
    let daemon = set.daemon(set.script());
    daemon.until(|script| !script.acks.is_empty()).await;
    for (id, key) in [(1, ID), (2, "unheard-of")] {
        daemon
            .tell(Kind::Command(Command {
                id,
                kind: Some(command::Kind::TestKey(TestKey {
                    key_id: key.to_owned(),
                })),
            }))
            .await;
        daemon
            .until(|script| {
                script
                    .results
                    .iter()
                    .any(|result| result.id == id && result.ok == (id == 1))
            })
            .await;
    }
}
