//! Which daemon is spoken to, and how: both profiles, a second socket when the first fails, and nobody who only took a daemon's place.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use custody::{OaepHash, Profile};
use proto::v1::{Change, watch_response::Kind};
use support::daemon::{self, Daemon, Script, state};
use support::office::{KW, Office};
use support::{KEY, OK, Running, Upstream, field, fields, status};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const ID: &str = "openai-prod";
const ASK: &str = "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Set {
    dir: TempDir,
    office: Arc<Office>,
    upstream: Upstream,
    text: String,
}

async fn set(office: Office, lease: &str) -> Set {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let office = Arc::new(office);
    let (text, _) = daemon::config(dir.path(), &office, &upstream, lease);
    Set {
        dir,
        office,
        upstream,
        text,
    }
}

impl Set {
    /// A daemon that has the key, at one of the two sockets.
    fn daemon(&self, socket: &str) -> Daemon {
        let origin = format!("https://localhost:{}", self.upstream.port);
        let script = Script {
            revision: 5,
            keys: [(ID.to_owned(), (self.office.seal(ID, 1, &origin, KEY), 1))].into(),
            ..Script::default()
        };
        Daemon::start(&self.dir.path().join(socket), &self.office, script)
    }
}

async fn ask(agent: &Running) -> (u16, Option<String>) {
    let (head, _) = agent.ask(ASK).await;
    (status(&head), field(&head, "x-tacit-error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_through_custodians_of_either_profile() {
    let (sha1, sha256) = (
        Profile::RsaOaep(OaepHash::Sha1),
        Profile::RsaOaep(OaepHash::Sha256),
    );
    for profiles in [[sha1; 3], [sha256, KW, KW], [KW; 3]] {
        let needs_rsa = profiles != [KW; 3];
        let set = set(Office::of(profiles), "ttl = \"0s\"").await;
        let daemon = set.daemon("hsmd.sock");
        let agent = Running::from_text(&set.text).await;
        assert_eq!(ask(&agent).await, (200, None), "{profiles:?}");
        assert_eq!(
            fields(&set.upstream.received(), "authorization"),
            [format!("Bearer {KEY}")]
        );
        let script = daemon.script.lock().unwrap();
        assert_eq!(
            !script.opened[0].rsa_public.is_empty(),
            needs_rsa,
            "an RSA key is made only where it is needed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_delivery_that_was_changed_does_not_open() {
    let set = set(Office::of([Profile::RsaOaep(OaepHash::Sha256); 3]), "").await;
    let daemon = set.daemon("hsmd.sock");
    daemon.script.lock().unwrap().forge = Some(|answer| answer.deliveries[1].wrapped[9] ^= 1);
    let agent = Running::from_text(&set.text).await;
    assert_eq!(ask(&agent).await, (503, Some("hsm_unavailable".to_owned())));
    assert_eq!(set.upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_over_from_one_that_died() {
    let set = set(Office::new(), "ttl = \"0s\"").await;
    let (first, second) = (set.daemon("hsmd.sock"), set.daemon("second.sock"));
    let agent = Running::from_text(&set.text).await;
    first.until(|script| !script.acks.is_empty()).await;
    assert_eq!(ask(&agent).await, (200, None));
    assert_eq!(second.script.lock().unwrap().leases, 0);
    drop(first);
    assert_eq!(ask(&agent).await, (200, None), "no request is lost");
    second.until(|script| !script.acks.is_empty()).await;
    {
        let mut script = second.script.lock().unwrap();
        assert_eq!(script.leases, 1);
        script.refuse = Some("key_revoked");
        script.revision = 6;
    }
    // And it is the second that is obeyed now.
    second
        .tell(Kind::Change(Change {
            revision: 6,
            keys: vec![state(ID, 0, &[1], false)],
        }))
        .await;
    second
        .until(|script| script.acks.iter().any(|ack| ack.revision == 6))
        .await;
    assert_eq!(ask(&agent).await, (403, Some("key_revoked".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_over_from_one_that_hangs_or_has_no_quorum() {
    let set = set(Office::new(), "ttl = \"0s\"").await;
    let (first, second) = (set.daemon("hsmd.sock"), set.daemon("second.sock"));
    let agent = Running::from_text(&set.text).await;
    first.until(|script| !script.acks.is_empty()).await;
    first.script.lock().unwrap().hold = Some(Arc::new(Semaphore::new(0)));
    assert_eq!(ask(&agent).await, (200, None));
    assert_eq!(second.script.lock().unwrap().leases, 1);

    second.script.lock().unwrap().refuse = Some("hsm_unavailable");
    first.script.lock().unwrap().hold = None;
    assert_eq!(ask(&agent).await, (200, None), "and back again");
    assert_eq!(first.script.lock().unwrap().leases, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_quorum_keeps_its_session() {
    let set = set(Office::new(), "ttl = \"0s\"").await;
    let text = set.text.replace("second.sock\"]", "hsmd.sock\"]");
    let text = text.replacen(&format!("{:?}, ", set.dir.path().join("hsmd.sock")), "", 1);
    let daemon = set.daemon("hsmd.sock");
    daemon.script.lock().unwrap().refuse = Some("hsm_unavailable");
    let agent = Running::from_text(&text).await;
    for _ in 0..3 {
        assert_eq!(ask(&agent).await, (503, Some("hsm_unavailable".to_owned())));
    }
    daemon.script.lock().unwrap().refuse = None;
    assert_eq!(ask(&agent).await, (200, None));
    assert_eq!(daemon.script.lock().unwrap().opened.len(), 1);
}

/// A user that no daemon runs as: `nobody` on Debian.
const STRANGER: u32 = 65534;

/// In the process of [`stranger`]: listens, and says how much whoever connects has to tell. As a test of its own it does nothing.
#[test]
fn listen_as_a_stranger() {
    let Some(socket) = std::env::var_os("TACIT_TEST_STRANGER") else {
        return;
    };
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    eprintln!("listening");
    for stream in listener.incoming() {
        let mut said = [0; 64];
        eprintln!("{} bytes", stream.unwrap().read(&mut said).unwrap());
    }
}

struct Stranger {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stranger {
    /// Reads on until `line`, or the other line that it would be.
    fn says(&mut self, line: &str, otherwise: &str) {
        let said = self.lines.by_ref().map_while(Result::ok);
        let mut said = said.filter(|said| said == line || said.ends_with(otherwise));
        assert_eq!(said.next().as_deref(), Some(line));
    }
}

/// Somebody else in the daemon's place.
fn stranger(set: &Set) -> Stranger {
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(set.dir.path(), open).unwrap();
    // The link, since the path to the file may be closed to that user.
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", "listen_as_a_stranger", "--nocapture"])
        .env("TACIT_TEST_STRANGER", set.dir.path().join("hsmd.sock"))
        .uid(STRANGER)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut stranger = Stranger { child, lines };
    stranger.says("listening", "panicked");
    stranger
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_another_user_is_not_spoken_to() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let set = set(Office::new(), "").await;
    let mut stranger = stranger(&set);
    let agent = Running::from_text(&set.text).await;
    assert_eq!(ask(&agent).await, (503, Some("hsm_unavailable".to_owned())));
    stranger.says("0 bytes", "bytes");
    // Its nearest neighbour: our own user.
    let second = set.daemon("second.sock");
    second.until(|script| !script.acks.is_empty()).await;
    assert_eq!(ask(&agent).await, (200, None));
}
