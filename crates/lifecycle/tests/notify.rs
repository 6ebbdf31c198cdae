//! What systemd hears: this test binary, started again with a notification socket.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifecycle::drain::{Reason, Trigger};
use lifecycle::notify;
use lifecycle::readiness::Readiness;

/// Not a test: the process that notifies. A line on standard input is the next step of its life.
#[test]
#[ignore = "the process under test, started by the other"]
fn the_process() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let step = || {
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()).unwrap())
        };
        let trigger = Trigger::new();
        let readiness = Readiness::new(&trigger);
        let task = readiness.task("tokens");
        notify::spawn(readiness, trigger.clone());
        step().await.unwrap();
        task.ready();
        step().await.unwrap();
        trigger.start(Reason::Request);
        step().await.unwrap();
    });
}

#[test]
fn systemd_hears_ready_watchdog_and_stopping() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process", "--ignored"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "20000")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let n = socket.recv(&mut buffer).unwrap();
            let message = std::str::from_utf8(&buffer[..n]).unwrap();
            if message.lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    for wanted in ["STATUS=ready", "STOPPING=1"] {
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        hear(wanted);
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
