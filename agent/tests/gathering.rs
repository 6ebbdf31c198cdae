//! Shares of one key from several daemons: as long as t custodians answer, and only what all who gave a share agree on.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::v1::{Change, CustodiansUp, Terms, watch_response::Kind};
use support::daemon::{self, Daemon, Script, state};
use support::office::{KW, Office};
use support::{KEY, OK, Running, Upstream, field, patient, status};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const ID: &str = "openai-prod";
const ASK: &str = "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Far below the deadline of a call to a daemon, far above what anything here takes.
const AT_ONCE: Duration = Duration::from_millis(1500);

struct Set {
    dir: TempDir,
    office: Arc<Office>,
    upstream: Upstream,
    text: String,
}

/// `t` of `n` custodians, behind as many daemons as `sockets` says.
async fn set(t: u8, n: usize, sockets: usize, lease: &str) -> Set {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let office = Arc::new(Office::with(t, &[KW; 5][..n]));
    let (text, _) = daemon::config(dir.path(), &office, &upstream, lease);
    let paths: Vec<_> = (0..sockets)
        .map(|at| dir.path().join(format!("{at}.sock")))
        .collect();
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.split_once('=') {
            Some(("hsmd ", _)) => format!("hsmd = {paths:?}"),
            _ => line.to_owned(),
        })
        .collect();
    Set {
        dir,
        office,
        upstream,
        text: lines.join("\n") + "\n",
    }
}

impl Set {
    fn sealed(&self, version: u32) -> custody::SealedKey {
        let origin = format!("https://localhost:{}", self.upstream.port);
        self.office.seal(ID, version, &origin, KEY)
    }

    /// One daemon for each list of custodians; all have the same sealed key.
    fn daemons(&self, drive: &[&[usize]]) -> Vec<Daemon> {
        let sealed = self.sealed(1);
        let start = |(at, drives): (usize, &&[usize])| {
            let script = Script {
                revision: 5,
                keys: [(ID.to_owned(), (sealed.clone(), 1))].into(),
                drives: drives.to_vec(),
                ..Script::default()
            };
            let socket = self.dir.path().join(format!("{at}.sock"));
            Daemon::start(&socket, &self.office, script)
        };
        drive.iter().enumerate().map(start).collect()
    }
}

/// One daemon for each custodian.
const EACH: [&[usize]; 5] = [&[0], &[1], &[2], &[3], &[4]];

async fn ask(agent: &Running) -> (u16, Option<String>) {
    let (head, _) = agent.ask(ASK).await;
    (status(&head), field(&head, "x-tacit-error"))
}

fn no(code: u16, name: &str) -> (u16, Option<String>) {
    (code, Some(name.to_owned()))
}

async fn watched(daemons: &[Daemon]) {
    for daemon in daemons {
        daemon.until(|script| !script.acks.is_empty()).await;
    }
}

/// A metric's value.
fn metric(agent: &Running, name: &str) -> Option<i64> {
    let text = agent.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

async fn margin_becomes(agent: &Running, margin: i64) {
    patient(async {
        while metric(agent, "tacit_agent_quorum_margin{threshold=\"2\"} ") != Some(margin) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_rows_with_t_healthy_custodians_serve() {
    let mut rows = 0;
    for n in 2..=5usize {
        for t in 2..=u8::try_from(n).unwrap() {
            let set = set(t, n, n, "ttl = \"0s\"").await;
            let daemons = set.daemons(&EACH[..n]);
            let agent = Running::from_text(&set.text).await;
            watched(&daemons).await;
            for failing in 0..1u32 << n {
                for (at, daemon) in daemons.iter().enumerate() {
                    let fails = failing >> at & 1 == 1;
                    daemon.script.lock().unwrap().refuse = fails.then_some("hsm_unavailable");
                }
                let healthy = n - usize::try_from(failing.count_ones()).unwrap();
                let wanted = if healthy >= usize::from(t) {
                    (200, None)
                } else {
                    no(503, "hsm_unavailable")
                };
                assert_eq!(ask(&agent).await, wanted, "{t} of {n}, failing {failing:b}");
                rows += 1;
            }
        }
    }
    assert_eq!(rows, 4 + 2 * 8 + 3 * 16 + 4 * 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn custodians_may_be_spread_in_any_way() {
    for drive in [
        &[&[0, 1][..], &[2, 3], &[4]][..],
        &[&[0, 1, 2, 3, 4]],
        &[&[0, 1, 2, 3], &[3, 4]],
    ] {
        let set = set(3, 5, drive.len(), "ttl = \"0s\"").await;
        let daemons = set.daemons(drive);
        let agent = Running::from_text(&set.text).await;
        assert_eq!(ask(&agent).await, (200, None), "{drive:?}");
        drop(daemons);
    }
    // Two daemons that drive one custodian have one share.
    for (drive, serves) in [([&[0][..], &[0]], false), ([&[0], &[1]], true)] {
        let set = set(2, 3, 2, "ttl = \"0s\"").await;
        let _daemons = set.daemons(&drive);
        let agent = Running::from_text(&set.text).await;
        assert_eq!(ask(&agent).await.0 == 200, serves, "{drive:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_that_hangs_costs_no_request_and_little_time() {
    let set = set(2, 3, 3, "ttl = \"0s\"").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    for hangs in [0, 1, 2] {
        daemons[hangs].script.lock().unwrap().hold = Some(Arc::new(Semaphore::new(0)));
        let start = Instant::now();
        assert_eq!(ask(&agent).await, (200, None), "{hangs}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        // The next ones ask it last.
        assert_eq!(ask(&agent).await, (200, None), "{hangs}");
        daemons[hangs].script.lock().unwrap().hold = None;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_share_in_the_lease_may_revoke_it_and_is_acknowledged() {
    let set = set(2, 3, 3, "ttl = \"1h\"").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    assert_eq!(ask(&agent).await, (200, None));
    let last = &daemons[2];
    last.until(|script| script.acks.iter().any(|ack| !ack.in_use.is_empty()))
        .await;
    assert_eq!(last.script.lock().unwrap().leases, 0);
    {
        let mut script = last.script.lock().unwrap();
        script.refuse = Some("key_revoked");
        script.revision = 6;
    }
    let keys = vec![state(ID, 0, &[1], false)];
    last.tell(Kind::Change(Change { revision: 6, keys })).await;
    last.until(|script| {
        let mut acks = script.acks.iter();
        acks.any(|ack| ack.revision == 6 && ack.in_use.is_empty())
    })
    .await;
    // The two others still would.
    assert_eq!(ask(&agent).await, no(403, "key_revoked"));
    for daemon in &daemons[..2] {
        daemon
            .until(|script| {
                script
                    .acks
                    .last()
                    .is_some_and(|ack| ack.in_use.is_empty() && ack.revision == 5)
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_anybody_asked_is_not_leased_of_the_others() {
    let set = set(2, 3, 3, "").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    let keys = vec![state(ID, 0, &[1], false)];
    daemons[2]
        .tell(Kind::Change(Change { revision: 6, keys }))
        .await;
    daemons[2]
        .until(|script| script.acks.iter().any(|ack| ack.revision == 6))
        .await;
    assert_eq!(ask(&agent).await, no(403, "key_revoked"));
}

fn terms(model: &str, digest: u8) -> Option<Terms> {
    Some(Terms {
        permissions: vec!["*".to_owned()],
        models: vec![model.to_owned()],
        attributes: Vec::new(),
        digest: vec![digest; 32],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_say_different_terms_give_no_lease_together() {
    let set = set(2, 3, 3, "ttl = \"0s\"").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    let say = |at: usize, terms| daemons[at].script.lock().unwrap().terms = terms;
    let stop = |at: usize| daemons[at].script.lock().unwrap().refuse = Some("hsm_unavailable");
    say(0, terms("*", 1));
    say(1, terms("*", 2));
    say(2, terms("*", 2));
    // One differs: those that agree suffice.
    assert_eq!(ask(&agent).await, (200, None));
    stop(2);
    assert_eq!(ask(&agent).await, no(503, "hsm_unavailable"));
    // Claimed to be the same and yet not the same.
    say(1, terms("gpt-4o", 1));
    assert_eq!(ask(&agent).await, no(503, "hsm_unavailable"));
    say(1, terms("*", 1));
    assert_eq!(ask(&agent).await, (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_versions_the_one_with_t_shares_is_used() {
    let set = set(2, 3, 3, "ttl = \"0s\"").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    let next = set.sealed(2);
    for rotated in [0, 1, 2] {
        // At any moment of a rotation.
        assert_eq!(ask(&agent).await, (200, None), "{rotated} rotated");
        let mut script = daemons[rotated].script.lock().unwrap();
        script.keys.insert(ID.to_owned(), (next.clone(), 2));
    }
    assert_eq!(ask(&agent).await, (200, None));
    // Sealed anew under the same number is another key.
    let other = set.sealed(2);
    daemons[0].script.lock().unwrap().refuse = Some("hsm_unavailable");
    daemons[1]
        .script
        .lock()
        .unwrap()
        .keys
        .insert(ID.to_owned(), (other, 2));
    assert_eq!(ask(&agent).await, no(503, "hsm_unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_gives_a_bad_share_is_passed_over() {
    let set = set(2, 3, 3, "ttl = \"0s\"").await;
    let daemons = set.daemons(&EACH[..3]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    type Forge = fn(&mut proto::v1::LeaseResponse);
    let forgeries: [Forge; 4] = [
        |answer| answer.deliveries[0].wrapped[9] ^= 1,
        |answer| answer.deliveries[0].x = 2,
        |answer| answer.header[40] ^= 1,
        |answer| answer.envelope.clear(),
    ];
    for forge in forgeries {
        daemons[0].script.lock().unwrap().forge = Some(forge);
        assert_eq!(ask(&agent).await, (200, None));
        daemons[2].script.lock().unwrap().refuse = Some("hsm_unavailable");
        assert_eq!(
            ask(&agent).await.0,
            503,
            "with its share alone it would be two"
        );
        daemons[2].script.lock().unwrap().refuse = None;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_margin_over_all_daemons_is_measured_and_readiness_waits_for_t() {
    let set = set(2, 3, 3, "").await;
    let mut daemons = set.daemons(&EACH[..1]);
    let agent = Running::from_text(&set.text).await;
    watched(&daemons).await;
    margin_becomes(&agent, -1).await;
    assert!(!agent.readiness.is_ready(), "one custodian of two");
    drop(daemons.remove(0));
    margin_becomes(&agent, -2).await;
    for at in 0..3 {
        let _ = std::fs::remove_file(set.dir.path().join(format!("{at}.sock")));
    }
    let daemons = set.daemons(&EACH[..3]);
    margin_becomes(&agent, 1).await;
    patient(async {
        while !agent.readiness.is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A token that goes away behind a daemon that stays.
    watched(&daemons).await;
    let none = CustodiansUp::default();
    daemons[1].tell(Kind::CustodiansUp(none)).await;
    margin_becomes(&agent, 0).await;
    assert_eq!(metric(&agent, "tacit_agent_custodians_available "), Some(2));
    assert_eq!(metric(&agent, "tacit_agent_hsmd_connected "), Some(3));
}
