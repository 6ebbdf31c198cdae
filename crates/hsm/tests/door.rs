//! The door of a token process that is a service of its own: its directory, its mode, and what it survives.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Service;

/// A token process of its own that needs no token: what it answers to a foreign protocol version is all that is asked.
fn doorman(dir: &Path, socket: &Path, program: &mut Command) -> std::process::Child {
    program
        .args(["--id", "a", "--token-label", "none", "--module", "/none"])
        .args(["--pin-file", "/none", "--state-dir"])
        .arg(dir.join("state"))
        .arg("--listen")
        .arg(socket)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_served(stream: &mut UnixStream) -> bool {
    let mut frame = Vec::new();
    hsm::wire::write_request(&mut frame, 1, &hsm::wire::Request::Hello { version: 0 }).unwrap();
    let mut answer = [0; 4];
    stream.write_all(&frame).is_ok() && stream.read_exact(&mut answer).is_ok()
}

fn connect(socket: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_token_service_without_descriptors_left_goes_on_and_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("token.sock");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 11; exec \"$0\" \"$@\"",
        support::TOKEN_PROGRAM,
    ]);
    let mut service = Service(doorman(dir.path(), &socket, &mut shell));
    let lines = BufReader::new(service.0.stderr.take().unwrap()).lines();
    let mut streams: Vec<_> = (0..8).map(|_| connect(&socket)).collect();
    assert!(is_served(&mut streams[0]));
    let mut words = lines.map(|line| line.unwrap());
    let said = words
        .find(|line| !line.contains("hardening"))
        .expect("it says what is wrong");
    assert!(said.contains("Too many open files"), "{said}");
    assert!(is_served(&mut streams[0]), "those inside are still served");
    // Two places are free again: the one that waited longest comes in.
    let waiting = streams.split_off(7);
    streams.clear();
    for mut stream in waiting {
        assert!(is_served(&mut stream));
    }
    assert!(is_served(&mut connect(&socket)));
    assert!(service.0.try_wait().unwrap().is_none());
}

#[test]
fn a_token_socket_has_its_mode_and_stands_in_no_open_directory() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("token.sock");
    let _service = Service(doorman(
        dir.path(),
        &socket,
        &mut Command::new(support::TOKEN_PROGRAM),
    ));
    drop(connect(&socket));
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);

    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for (way, rule) in [(&open, "writable by others"), (&link, "symbolic link")] {
        let socket = way.join("other.sock");
        let refused = doorman(
            &dir.path().join("other"),
            &socket,
            &mut Command::new(support::TOKEN_PROGRAM),
        );
        let output = refused.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(rule), "{said}");
        assert_eq!(output.status.code(), Some(hsm::exit::USAGE));
        assert!(!socket.exists());
    }
}
