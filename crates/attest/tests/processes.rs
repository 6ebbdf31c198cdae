//! Real processes at the other end of a socket: alive, dead, replaced, inherited, elsewhere.
//!
//! The other processes are this program again: a test that is ignored unless it is called by name is what they run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests; another process is told in its environment what to do"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use attest::facts::Evidence;
use attest::replay::Bearers;
use attest::{Attestor, Facts, OldKernel, Peer, Refused, Requirements, examine};

const SOCKET: &str = "TACIT_TEST_SOCKET";

/// This program, doing what `helper` says.
fn helper(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_helper(&mut command, name);
    command
}

fn as_helper(command: &mut Command, name: &str) {
    command
        .args(["--ignored", "--exact", name, "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
}

/// The rest of the first line that begins with `mark`.
fn said(lines: &mut BufReader<ChildStdout>, mark: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(
            lines.read_line(&mut line).unwrap(),
            0,
            "it ended before {mark}"
        );
        // The test runner writes its own beginning of a line before ours.
        if let Some((_, rest)) = line.split_once(mark) {
            return rest.trim().to_owned();
        }
    }
}

/// Connects, says so, and stays until its input ends.
#[test]
#[ignore = "run by other tests, as another process"]
fn helper_connects() {
    let socket = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    println!("CONNECTED {}", own.replace('\n', "|"));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(socket);
}

/// Connects and leaves the connection to a process that it starts, as its standard input.
#[test]
#[ignore = "run by other tests, as another process"]
#[expect(
    clippy::zombie_processes,
    reason = "the heir outlives this process, which is the point"
)]
fn helper_bequeaths() {
    let socket = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
    let heir = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    println!("HEIR {}", heir.id());
}

/// Takes the peer of the connection that it got as its standard input.
#[test]
#[ignore = "run by other tests, as another process"]
fn helper_takes_its_input() {
    let stdin = std::io::stdin();
    let taken = Peer::take(stdin.as_fd(), OldKernel::Refuse).map(Arc::new);
    let outcome = taken.and_then(|peer| prove(&Requirements::default(), &peer));
    println!(
        "TAKEN {}",
        outcome.map_or_else(|refused| refused.name(), |_| "ok")
    );
}

struct Connected {
    child: Child,
    socket: UnixStream,
    /// What the other side says of itself.
    own_words: String,
    _dir: tempfile::TempDir,
}

fn connected_by(mut command: Command) -> Connected {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = command.env(SOCKET, &path).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let own_words = said(&mut lines, "CONNECTED ");
    let (socket, _) = listener.accept().unwrap();
    Connected {
        child,
        socket,
        own_words,
        _dir: dir,
    }
}

fn connected() -> Connected {
    connected_by(helper("helper_connects"))
}

fn take(socket: &UnixStream) -> Result<Arc<Peer>, Refused> {
    Peer::take(socket.as_fd(), OldKernel::Refuse).map(Arc::new)
}

fn prove(requirements: &Requirements, peer: &Arc<Peer>) -> Result<Facts, Refused> {
    let evidence = Evidence {
        peer,
        token: b"",
        keys: None,
        pods: None,
        now: SystemTime::now(),
    };
    examine(requirements, true, &evidence, &mut Bearers::default())
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A process of exactly this id, which must be free; `None` where we may not ask the kernel for that.
fn reborn_as(pid: u32) -> Option<Child> {
    // Others take ids meanwhile, so it is tried more than once.
    for _ in 0..1000 {
        let asked = fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string());
        if asked.is_err() {
            eprintln!("not run: ns_last_pid cannot be written, which takes root");
            return None;
        }
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        if child.id() == pid {
            return Some(child);
        }
        end(&mut child);
    }
    panic!("process id {pid} never came up again");
}

#[test]
fn a_process_that_lives_is_known_and_one_that_ended_is_refused() {
    let mut one = connected();
    let peer = take(&one.socket).unwrap();
    let facts = prove(&Requirements::default(), &peer).unwrap();
    assert_eq!(
        (facts.uid, facts.pid),
        (nix::unistd::geteuid().as_raw(), one.child.id())
    );
    assert_eq!(
        take(&one.socket).unwrap().process(),
        peer.process(),
        "the same process"
    );
    let mut other = connected();
    assert_ne!(take(&other.socket).unwrap().process(), peer.process());
    end(&mut other.child);

    one.child.kill().unwrap();
    // A zombie: its id is not free yet, and it is dead all the same.
    nix::sys::wait::waitid(
        nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(one.child.id() as i32)),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    )
    .unwrap();
    assert_eq!(
        prove(&Requirements::default(), &peer),
        Err(Refused::DeadPeer)
    );
    assert_eq!(take(&one.socket).unwrap_err(), Refused::DeadPeer);
    one.child.wait().unwrap();
    assert_eq!(
        prove(&Requirements::default(), &peer),
        Err(Refused::DeadPeer)
    );
    assert_eq!(
        take(&one.socket).unwrap_err(),
        Refused::DeadPeer,
        "after it was reaped"
    );
}

#[test]
fn a_process_that_got_the_peers_id_is_not_taken_for_it() {
    let mut one = connected();
    let peer = take(&one.socket).unwrap();
    end(&mut one.child);
    let Some(mut reborn) = reborn_as(peer.process().pid) else {
        return;
    };
    assert!(
        Path::new(&format!("/proc/{}/cgroup", reborn.id())).exists(),
        "the id is in use"
    );
    assert_eq!(
        prove(&Requirements::default(), &peer),
        Err(Refused::DeadPeer)
    );
    assert_eq!(
        peer.cgroup(),
        Err(Refused::DeadPeer),
        "what stands under that id is another's"
    );
    // And before anybody had looked: the connection was waiting while its maker died.
    assert_eq!(take(&one.socket).unwrap_err(), Refused::DeadPeer);
    end(&mut reborn);
}

#[test]
fn a_connection_that_was_inherited_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut parent = helper("helper_bequeaths")
        .env(SOCKET, &path)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap());
    let heir: i32 = said(&mut lines, "HEIR ").parse().unwrap();
    parent.wait().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    socket
        .write_all(b"x")
        .expect("the heir holds the other end");
    assert_eq!(take(&socket).unwrap_err(), Refused::DeadPeer);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(heir),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

/// `unshare`, with a user namespace where we are not root; `None` where that is not allowed.
fn unshare(flags: &[&str]) -> Option<Command> {
    let mut all = flags.to_vec();
    if !nix::unistd::geteuid().is_root() {
        all.extend(["--user", "--map-root-user"]);
    }
    let works = Command::new("unshare").args(&all).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("not run: unshare {all:?} is not allowed here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(&all);
    Some(command)
}

#[test]
fn a_peer_of_another_pid_namespace_is_refused_by_name() {
    let Some(mut command) = unshare(&["--pid", "--fork", "--mount-proc"]) else {
        return;
    };
    let one = connected();
    command.arg(std::env::current_exe().unwrap());
    as_helper(&mut command, "helper_takes_its_input");
    let socket = OwnedFd::from(one.socket.try_clone().unwrap());
    let mut inside = command.stdin(Stdio::from(socket)).spawn().unwrap();
    let mut lines = BufReader::new(inside.stdout.take().unwrap());
    assert_eq!(
        said(&mut lines, "TAKEN "),
        Refused::OtherPidNamespace.name()
    );
    inside.wait().unwrap();
    // The nearest neighbour: the same peer, asked about where its process can be seen.
    assert!(prove(&Requirements::default(), &take(&one.socket).unwrap()).is_ok());
    let mut one = one;
    end(&mut one.child);
}

#[test]
fn mounts_that_forge_a_cgroup_convince_nobody_outside() {
    let Some(mut command) = unshare(&["--mount"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let forged = dir.path().join("cgroup");
    let path = format!(
        "/kubepods/besteffort/pod2c48913c-b29f-41e7-9350-020968147796/{}",
        "a".repeat(64)
    );
    fs::write(&forged, format!("0::{path}\n")).unwrap();
    fs::create_dir_all(dir.path().join(&path[1..])).unwrap();
    // Both ways: a file of its own over what the kernel says, and a mount whose root is named like a pod's cgroup.
    let script = "mount --bind \"$1\" /proc/$$/cgroup && mount --bind \"$2\" /sys/fs/cgroup && shift 2 && exec \"$@\"";
    command
        .args(["sh", "-c", script, "sh"])
        .arg(&forged)
        .arg(dir.path().join(&path[1..]));
    command.arg(std::env::current_exe().unwrap());
    as_helper(&mut command, "helper_connects");
    let mut one = connected_by(command);
    assert!(
        one.own_words.contains(&path),
        "inside, the forgery works: {}",
        one.own_words
    );
    let requirements = Requirements {
        attestors: [Attestor::K8sCgroup].into(),
        ..Requirements::default()
    };
    let peer = take(&one.socket).unwrap();
    assert!(!peer.cgroup().unwrap().contains("kubepods"));
    assert_eq!(prove(&requirements, &peer), Err(Refused::NotInPod));
    end(&mut one.child);
}

#[test]
fn a_token_is_good_for_one_process_until_that_has_ended() {
    let now = SystemTime::now();
    let later = now + std::time::Duration::from_secs(600);
    let (mut one, mut two) = (connected(), connected());
    let (first, second) = (take(&one.socket).unwrap(), take(&two.socket).unwrap());
    let mut bearers = Bearers::default();
    let mut bind = |peer| bearers.bind([7; 32], later, peer, now);
    assert_eq!(bind(&first), Ok(()));
    assert_eq!(
        bind(&first),
        Ok(()),
        "the same process may open another session"
    );
    assert_eq!(bind(&second), Err(Refused::TokenReplayed));
    end(&mut one.child);
    assert_eq!(bind(&second), Ok(()), "a container that was restarted");
    assert_eq!(bind(&first), Err(Refused::TokenReplayed));
    end(&mut two.child);
}
