//! Readiness of the built daemon: whoever waits for it hears of it when it is true, and not before.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A daemon whose only custodians have no module, so that none ever comes up.
fn start(dir: &Path, notices: &Path) -> Child {
    let custodian = |id: &str| {
        format!(
            "[[custodian]]\nid = \"{id}\"\nmodule = \"{0}/none.so\"\ntoken_label = \"t\"\npin_file = \"{0}/none\"\n",
            dir.display()
        )
    };
    let config = format!(
        "state_dir = \"{0}/state\"\nworkload_socket = \"{0}/w.sock\"\nadmin_socket = \"{0}/a.sock\"\n\
         admin_listen = \"127.0.0.1:0\"\nthreshold = 2\n\n{1}{2}",
        dir.display(),
        custodian("a"),
        custodian("b"),
    );
    std::fs::write(dir.join("hsmd.toml"), config).unwrap();
    std::fs::create_dir(dir.join("state")).unwrap();
    // It must be there; what it says is looked at when a custodian comes up.
    std::fs::write(dir.join("state/custodians.json"), "{}").unwrap();
    Command::new(env!("CARGO_BIN_EXE_hsmd"))
        .arg("--config")
        .arg(dir.join("hsmd.toml"))
        .arg("--announce")
        .arg(dir.join("bound.json"))
        .env("NOTIFY_SOCKET", notices)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_daemon_without_custodians_is_bound_and_never_said_to_be_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notices");
    let notices = UnixDatagram::bind(&path).unwrap();
    notices
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut daemon = start(dir.path(), &path);
    let mut heard = String::new();
    let mut hear = |until: &str| {
        while !heard.contains(until) {
            let mut buffer = [0; 512];
            let count = notices.recv(&mut buffer).unwrap();
            heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            heard.push('\n');
        }
        heard.clone()
    };
    hear("READY=1");

    let bound: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("bound.json")).unwrap()).unwrap();
    let mut page = TcpStream::connect(bound["admin_listen"].as_str().unwrap()).unwrap();
    page.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("store: "), "{answer}");
    assert!(answer.contains("quorum: "), "{answer}");

    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let heard = hear("STATUS=draining");
    assert!(!heard.contains("STATUS=ready"), "{heard}");
    assert!(daemon.wait().unwrap().success());
}
