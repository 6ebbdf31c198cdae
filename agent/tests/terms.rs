//! What a key may be used for comes with its lease, and a change of it is acted on like a revoke: at once, and acknowledged.
#![allow(clippy::unwrap_used)]

mod support;

use proto::v1::{Attribute, Change, KeyState, Terms, watch_response::Kind};
use support::OK;
use support::daemon::{Daemon, Script, state};
use support::store::{ID, refused, set};

fn terms(digest: u8) -> Terms {
    Terms {
        permissions: vec!["models".to_owned(), "chat".to_owned()],
        models: vec!["*".to_owned()],
        attributes: Vec::new(),
        digest: vec![digest; 32],
    }
}

/// Says which terms are in force at that revision, and waits for the acknowledgement.
async fn say(daemon: &Daemon, revision: u64, digest: u8) {
    let acks = {
        let mut script = daemon.script.lock().unwrap();
        script.revision = revision;
        script.terms = Some(terms(digest));
        script.acks.len()
    };
    let keys = vec![KeyState {
        terms_digest: vec![digest; 32],
        ..state(ID, 1, &[], true)
    }];
    daemon.tell(Kind::Change(Change { revision, keys })).await;
    daemon
        .until(|script| {
            script.acks[acks..]
                .iter()
                .any(|ack| ack.revision == revision)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_terms_end_the_lease_and_it_is_leased_anew_before_anybody_asks() {
    let set = set("", OK).await;
    let daemon = set.daemon(Script {
        terms: Some(terms(1)),
        ..set.script()
    });
    daemon.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, (200, None));
    // Something else about the key has changed: its terms are the same.
    say(&daemon, 6, 1).await;
    assert_eq!(set.ask().await, (200, None));
    assert_eq!(daemon.script.lock().unwrap().leases, 1);
    // A new definition, and then a configuration that was read again, which makes no revision.
    for (revision, digest, leases) in [(7, 2, 2), (7, 3, 3)] {
        say(&daemon, revision, digest).await;
        daemon.until(|script| script.leases == leases).await;
        assert_eq!(set.ask().await, (200, None));
        assert_eq!(daemon.script.lock().unwrap().leases, leases);
    }
    assert!(daemon.script.lock().unwrap().opened[0].keeps_terms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_before_the_daemon_knew_terms_ends_when_it_does() {
    let set = set("", OK).await;
    let older = set.daemon(set.script());
    older.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, (200, None));
    drop(older);
    let newer = set.daemon(Script {
        terms: Some(terms(1)),
        ..set.script()
    });
    newer.until(|script| script.leases == 1).await;
    assert_eq!(set.ask().await, (200, None));
    drop(newer);
    // And back: an older daemon says nothing of terms, and what is held goes on.
    let older = set.daemon(set.script());
    older.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, (200, None));
    assert_eq!(older.script.lock().unwrap().leases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_that_nobody_here_would_enforce_is_no_lease() {
    let set = set("ttl = \"0s\"", OK).await;
    let pinned = |name: &str| {
        let attribute = Attribute {
            name: name.to_owned(),
            value: "a".to_owned(),
        };
        Some(Terms {
            attributes: vec![attribute],
            ..terms(1)
        })
    };
    let daemon = set.daemon(Script {
        terms: pinned("a-newer-daemons"),
        ..set.script()
    });
    daemon.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, refused(503, "hsm_unavailable"));
    assert_eq!(set.upstream.received(), "");
    daemon.script.lock().unwrap().terms = pinned("project");
    assert_eq!(set.ask().await, (200, None));
}
