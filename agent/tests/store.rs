//! Keys from the daemon's store: what it grants reaches the upstream, what does not open goes nowhere, and what it says happens at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use proto::v1::{Change, Command, LeaseResponse, Reload, TestKey, command, watch_response::Kind};
use support::daemon::{self, Daemon, Script, state};
use support::office::Office;
use support::{KEY, OK, Running, Upstream, field, fields, patient, status};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const ID: &str = "openai-prod";
const ASK: &str = "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Set {
    dir: TempDir,
    office: Arc<Office>,
    upstream: Upstream,
    agent: Running,
    origin: String,
}

async fn set(lease: &str, answer: &'static str) -> Set {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), answer).await;
    let office = Arc::new(Office::new());
    let (text, _) = daemon::config(dir.path(), &office, &upstream, lease);
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, &text).unwrap();
    let agent = Running::from_file(&file).await;
    let origin = format!("https://localhost:{}", upstream.port);
    Set {
        dir,
        office,
        upstream,
        agent,
        origin,
    }
}

impl Set {
    fn script(&self) -> Script {
        let sealed = self.office.seal(ID, 1, &self.origin, KEY);
        Script {
            revision: 5,
            keys: [(ID.to_owned(), (sealed, 1))].into(),
            ..Script::default()
        }
    }

    fn daemon(&self, script: Script) -> Daemon {
        let socket = self.dir.path().join("hsmd.sock");
        // Left over from a daemon before.
        let _ = std::fs::remove_file(&socket);
        Daemon::start(&socket, &self.office, script)
    }

    /// Changes the agent's file.
    fn edit(&self, edit: impl Fn(&str) -> String) {
        let file = self.dir.path().join("agent.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, edit(&text)).unwrap();
    }

    async fn ask(&self) -> (u16, Option<String>) {
        let (head, _) = self.agent.ask(ASK).await;
        (status(&head), field(&head, "x-tacit-error"))
    }
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

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
async fn a_revoke_is_acted_on_and_acknowledged() {
    let set = set("offline_grace = \"1h\"", OK).await;
    let daemon = set.daemon(set.script());
    assert_eq!(set.ask().await, (200, None));
    daemon.until(|script| !script.acks.is_empty()).await;
    revoke(&daemon).await;
    assert_eq!(set.ask().await, refused(403, "key_revoked"));
}

/// Revokes version 1 of the key and waits for the acknowledgement.
async fn revoke(daemon: &Daemon) {
    {
        let mut script = daemon.script.lock().unwrap();
        script.refuse = Some("key_revoked");
        script.revision = 6;
    }
    let keys = vec![state(ID, 0, &[1], false)];
    daemon
        .tell(Kind::Change(Change { revision: 6, keys }))
        .await;
    daemon
        .until(|script| {
            script
                .acks
                .iter()
                .any(|ack| ack.revision == 6 && ack.in_use.is_empty())
        })
        .await;
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
    app.send(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n",
    )
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
