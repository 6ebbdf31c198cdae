//! What the daemon says happens at once, and the agent says what it holds: revokes, successors, reloads and new sessions.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use proto::v1::{Change, Command, Reload, command, watch_response::Kind};
use support::daemon::{self, Daemon, Script, state};
use support::office::Office;
use support::store::{ASK, ID, refused, revoke, set};
use support::{KEY, OK, Running, Upstream, field, fields, patient, status};
use tempfile::TempDir;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_is_acted_on_and_acknowledged() {
    let set = set("offline_grace = \"1h\"", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.until(|script| !script.acks.is_empty()).await;
    revoke(&daemon).await;
    assert_eq!(set.ask().await, refused(403, "key_revoked"));
}

/// Tells the agent to read its file again, as `tacit agent reload` does, and waits for its answer.
async fn reload(daemon: &Daemon, id: u64) {
    let kind = Some(command::Kind::Reload(Reload {}));
    daemon.tell(Kind::Command(Command { id, kind })).await;
    daemon
        .until(|script| script.results.iter().any(|result| result.id == id))
        .await;
    let script = daemon.script.lock().unwrap();
    let result = script
        .results
        .iter()
        .find(|result| result.id == id)
        .unwrap();
    assert!(result.ok, "{}", result.detail);
}

fn in_use(ack: &proto::v1::Ack) -> Vec<(&str, u32)> {
    ack.in_use
        .iter()
        .map(|key| (key.key_id.as_str(), key.version))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_told_without_being_asked() {
    let set = set("", OK).await;
    let daemon = set.daemon(set.script());
    daemon.until(|script| !script.acks.is_empty()).await;
    assert_eq!(set.ask().await, (200, None));
    daemon
        .until(|script| script.acks.iter().any(|ack| in_use(ack) == [(ID, 1)]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_changes_nothing_keeps_session_stream_and_lease() {
    for (ttl, leases) in [("60s", 1), ("0s", 2)] {
        let set = set(&format!("ttl = {ttl:?}"), OK).await;
        let daemon = set.daemon(set.script());
        assert_eq!(set.ask().await, (200, None));
        daemon.until(|script| !script.acks.is_empty()).await;
        reload(&daemon, 1).await;
        assert_eq!(set.ask().await, (200, None));
        revoke(&daemon).await;
        assert_eq!(set.ask().await, refused(403, "key_revoked"));
        let script = daemon.script.lock().unwrap();
        assert_eq!((script.opened.len(), script.watches), (1, 1));
        assert_eq!(script.leases, leases + 1, "and the one that was refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_announces_new_keys_at_once_and_keeps_what_is_leased() {
    let set = set("", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.until(|script| !script.acks.is_empty()).await;
    set.edit(|text| {
        format!("{text}[providers.anthropic]\nsecret_key_ref = {{ store = \"anthropic-prod\" }}\n")
    });
    reload(&daemon, 1).await;
    daemon
        .until(|script| {
            script.watches == 2
                && script
                    .acks
                    .last()
                    .is_some_and(|ack| in_use(ack) == [(ID, 1)])
        })
        .await;
    {
        let script = daemon.script.lock().unwrap();
        let announced: Vec<&[String]> = script
            .opened
            .iter()
            .map(|hello| hello.key_ids.as_slice())
            .collect();
        assert_eq!(announced.len(), 2, "one more session");
        assert!(announced[1].contains(&"anthropic-prod".to_owned()));
    }
    assert_eq!(set.ask().await, (200, None));
    assert_eq!(daemon.script.lock().unwrap().leases, 1);
    revoke(&daemon).await;
    assert_eq!(set.ask().await, refused(403, "key_revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_request_had_to_open_is_watched_at_once() {
    let set = set("ttl = \"0s\"", OK).await;
    let daemon = set.daemon(set.script());
    daemon.until(|script| !script.acks.is_empty()).await;
    daemon.forget_sessions();
    assert_eq!(set.ask().await, (200, None));
    daemon
        .until(|script| script.watches == 2 && script.acks.len() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_ttl_holds_for_leases_that_are_held() {
    let set = set("ttl = \"1h\"", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.until(|script| !script.acks.is_empty()).await;
    set.edit(|text| text.replace("\"1h\"", "\"0s\""));
    reload(&daemon, 1).await;
    daemon
        .until(|script| script.acks.last().is_some_and(|ack| ack.in_use.is_empty()))
        .await;
    for leases in [2, 3] {
        assert_eq!(set.ask().await, (200, None));
        assert_eq!(daemon.script.lock().unwrap().leases, leases);
    }
    assert_eq!(daemon.script.lock().unwrap().opened.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_arrives_after_its_revoke_is_never_used() {
    for ttl in ["ttl = \"60s\"", "ttl = \"0s\""] {
        let set = set(ttl, OK).await;
        let daemon = set.daemon(set.script());
        daemon.until(|script| !script.acks.is_empty()).await;
        let hold = Arc::new(Semaphore::new(0));
        daemon.script.lock().unwrap().hold = Some(Arc::clone(&hold));
        let mut app = set.agent.connect().await;
        app.send(ASK).await;
        daemon.until(|script| script.leases == 1).await;
        // The answer of version 1 is made and on its way; the revoke overtakes it.
        revoke(&daemon).await;
        hold.add_permits(10);
        let (head, _) = patient(app.response()).await;
        assert_eq!(
            (status(&head), field(&head, "x-tacit-error").as_deref()),
            (403, Some("key_revoked")),
            "{ttl}"
        );
        assert_eq!(set.upstream.received(), "", "{ttl}");
        let script = daemon.script.lock().unwrap();
        assert!(script.acks.last().unwrap().in_use.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_ends_in_peace_and_none_begins_after_the_acknowledgement() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while conn.head().await.is_some() {
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")
                .await;
            conn.body(4).await;
            conn.write("done").await;
        }
    })
    .await;
    let office = Arc::new(Office::new());
    let (text, socket) = daemon::config(dir.path(), &office, &upstream, "");
    let origin = format!("https://localhost:{}", upstream.port);
    let script = Script {
        revision: 5,
        keys: [(ID.to_owned(), (office.seal(ID, 1, &origin, KEY), 1))].into(),
        ..Script::default()
    };
    let daemon = Daemon::start(&socket, &office, script);
    let agent = Running::from_text(&text).await;
    daemon.until(|script| !script.acks.is_empty()).await;
    let mut app = agent.connect().await;
    app.send("POST /openai/v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
        .await;
    patient(app.until(b"half")).await.unwrap();
    revoke(&daemon).await;
    let (head, _) = agent.ask(ASK).await;
    assert_eq!(status(&head), 403);
    app.send("body").await;
    assert_eq!(patient(app.exactly(4)).await, b"done");
    assert_eq!(upstream.received().matches(KEY).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_is_in_use_before_anybody_asks() {
    let set = set("", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.until(|script| !script.acks.is_empty()).await;
    {
        let mut script = daemon.script.lock().unwrap();
        script.revision = 6;
        script.keys.insert(
            ID.to_owned(),
            (set.office.seal(ID, 2, &set.origin, "sk-successor"), 2),
        );
    }
    daemon
        .tell(Kind::Change(Change {
            revision: 6,
            keys: vec![state(ID, 2, &[], true)],
        }))
        .await;
    daemon
        .until(|script| {
            script
                .acks
                .iter()
                .any(|ack| ack.in_use.iter().any(|key| key.version == 2))
        })
        .await;
    assert_eq!(daemon.script.lock().unwrap().leases, 2);
    assert_eq!(set.ask().await, (200, None));
    assert_eq!(
        fields(&set.upstream.received(), "authorization"),
        [format!("Bearer {KEY}"), "Bearer sk-successor".to_owned()]
    );
}
