//! `tacit dev` where something is missing or fails: one clear error, and nothing left running.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with this `tacit` alone, or beside daemons that are shell scripts.
struct Bin {
    dir: tempfile::TempDir,
}

impl Bin {
    fn new() -> Self {
        let bin = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::copy(env!("CARGO_BIN_EXE_tacit"), bin.path("tacit")).unwrap();
        bin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn dev(&self) -> Output {
        Command::new(self.path("tacit"))
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--dir"])
            .arg(self.path("state"))
            .output()
            .unwrap()
    }
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn softhsm_is_installed() -> bool {
    Path::new("/usr/bin/softhsm2-util").exists()
}

#[test]
fn a_missing_daemon_is_named_and_what_was_made_stays() {
    if !softhsm_is_installed() {
        return;
    }
    let bin = Bin::new();
    let output = bin.dev();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("hsmd is not beside tacit"),
        "{}",
        err(&output)
    );
    assert!(output.stdout.is_empty());
    let pin = fs::read(bin.path("state/softhsm-c/pin")).unwrap();
    let again = bin.dev();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(fs::read(bin.path("state/softhsm-c/pin")).unwrap(), pin);
}

#[test]
fn the_words_of_a_failed_init_are_shown() {
    if !softhsm_is_installed() {
        return;
    }
    let bin = Bin::new();
    bin.script("hsmd", "echo 'custodian b: the PIN is wrong' >&2; exit 1");
    let output = bin.dev();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("custodian b: the PIN is wrong"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_directory_in_use_is_refused() {
    let bin = Bin::new();
    fs::create_dir_all(bin.path("state/run")).unwrap();
    let lock = fs::File::create(bin.path("state/run/lock")).unwrap();
    lock.try_lock().unwrap();
    let output = bin.dev();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("another tacit dev runs"),
        "{}",
        err(&output)
    );
    assert!(!bin.path("state/softhsm-a").exists());
}
