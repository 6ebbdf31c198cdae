//! What systemd hears from a real process.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::Life;

#[test]
fn systemd_hears_ready_watchdog_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // A bound on the whole test, not a wait: what is awaited is a message.
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
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

    let env = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "20000"),
    ];
    let mut life = Life::serving(&env);
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    life.say();
    hear("STATUS=ready");
    life.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    life.let_go();
    assert!(life.end().success());
}
