//! The built command without a daemon: sealing, the sealer, the trust file, exit codes, and where secrets go.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use custody::{Receipt, SealedKey, Trust};

mod support;

/// Shaped like a provider's key, so that the pattern check has nothing to say.
fn secret() -> String {
    format!("sk-proj-{0}T3BlbkFJ{0}", "Canary7".repeat(5))
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    /// A directory with a trust file and no sealer.
    fn new() -> Self {
        let desk = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let trust = support::trust(&support::three(), &[]);
        fs::write(desk.path("custodians.json"), trust.to_json()).unwrap();
        desk
    }

    fn with_sealer() -> Self {
        let desk = Self::new();
        assert!(
            desk.run(&["sealer", "new", "--pin", "alice"], None)
                .status
                .success()
        );
        desk
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tacit"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("TACIT_TRUST", self.path("custodians.json"))
            .env("TACIT_SEALER", self.path("sealer.key"))
            .env("TACIT_ADMIN_SOCKET", self.path("admin.sock"))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], stdin: Option<&str>) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        if let Some(text) = stdin {
            // A command that refuses before it reads closes the pipe: that is its right.
            let _ = input.write_all(text.as_bytes());
        }
        drop(input);
        child.wait_with_output().unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::parse(&fs::read(self.path("custodians.json")).unwrap()).unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_is_sealed_offline_parses_and_verifies_under_the_trust_file() {
    let desk = Desk::with_sealer();
    let arguments = [
        "key",
        "seal",
        "openai-prod",
        "--provider",
        "openai",
        "--version",
        "3",
    ];
    let output = desk.run(&arguments, Some(&format!("{}\n", secret())));
    assert!(output.status.success(), "{}", err(&output));
    let sealed = SealedKey::from_armor(&out(&output)).unwrap();
    let provenance = sealed.verify(&desk.trust()).unwrap();
    let header = provenance.header();
    assert_eq!(
        (header.key_id.as_str(), header.version, header.threshold),
        ("openai-prod", 3, 2)
    );
    assert_eq!(
        header.upstreams,
        ["https://api.openai.com".parse().unwrap()]
    );
    assert_eq!(header.custodians.len(), 3);
}

#[test]
fn the_secret_shows_nowhere_not_even_when_it_is_refused() {
    let desk = Desk::with_sealer();
    let key = secret();
    let seal = [
        "key",
        "seal",
        "k",
        "--provider",
        "openai",
        "--output",
        "json",
    ];
    let wrong_provider = [
        "key",
        "seal",
        "k",
        "--provider",
        "anthropic",
        "--receipt",
        "r.json",
    ];
    for (arguments, stdin, passes) in [
        (&seal[..], key.clone(), true),
        (&wrong_provider[..], key.clone(), true),
        (&seal[..], format!("{key} {key}"), false),
        (&seal[..], format!("{key}\n{key}\n"), false),
    ] {
        let output = desk.run(arguments, Some(&stdin));
        assert_eq!(output.status.success(), passes, "{}", err(&output));
        let said = out(&output) + &err(&output);
        assert!(!said.contains("Canary7"), "{said}");
    }
    for entry in fs::read_dir(desk.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let content = fs::read(&path).unwrap();
            let found = content.windows(7).any(|part| part == b"Canary7");
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
fn a_key_that_looks_strange_is_sealed_with_a_warning() {
    let desk = Desk::with_sealer();
    let output = desk.run(
        &["key", "seal", "k", "--provider", "gemini"],
        Some(&secret()),
    );
    assert!(output.status.success());
    assert!(err(&output).contains("warning: this does not look like a key of gemini"));
    let output = desk.run(
        &["key", "seal", "k", "--provider", "openai"],
        Some(&secret()),
    );
    assert_eq!(err(&output), "");
}

#[test]
fn a_file_is_read_with_its_length_and_pattern_told() {
    let desk = Desk::with_sealer();
    fs::write(desk.path("key.txt"), secret() + "\n").unwrap();
    let arguments = [
        "key",
        "seal",
        "k",
        "--provider",
        "openai",
        "--from-file",
        "key.txt",
    ];
    let output = desk.run(&arguments, None);
    assert!(output.status.success(), "{}", err(&output));
    let length = secret().len();
    assert!(
        err(&output).contains(&format!("a key of {length} characters")),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("looks like a key of openai"));
    assert!(!err(&output).contains("Canary7"));
}

#[test]
fn a_receipt_is_private_and_never_overwritten() {
    let desk = Desk::with_sealer();
    let arguments = [
        "key",
        "seal",
        "k",
        "--provider",
        "openai",
        "--receipt",
        "r.json",
        "--receipt-uses",
        "2",
    ];
    assert!(desk.run(&arguments, Some(&secret())).status.success());
    let path = desk.path("r.json");
    let receipt = Receipt::parse(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(receipt.remaining(), 2);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let output = desk.run(&arguments, Some(&secret()));
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("never overwritten"));
    assert_eq!(Receipt::parse(&fs::read(&path).unwrap()).unwrap(), receipt);
}

#[test]
fn a_sealer_that_nobody_pinned_does_not_seal() {
    let desk = Desk::new();
    let made = desk.run(&["sealer", "new", "--output", "json"], None);
    assert!(made.status.success(), "{}", err(&made));
    let seal = ["key", "seal", "k", "--provider", "openai"];
    let refused = desk.run(&seal, Some(&secret()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("is not pinned"), "{}", err(&refused));

    // The command that `sealer new` prints is the next step, word for word.
    let made: serde_json::Value = serde_json::from_str(&out(&made)).unwrap();
    let next = made["next"].as_str().unwrap();
    let words: Vec<_> = next.split_whitespace().skip(1).collect();
    let pinned = desk.run(&words, None);
    assert!(pinned.status.success(), "{next}: {}", err(&pinned));
    assert!(desk.run(&seal, Some(&secret())).status.success());
}

#[test]
fn a_sealer_that_others_can_read_does_not_seal() {
    let desk = Desk::with_sealer();
    fs::set_permissions(desk.path("sealer.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = desk.run(
        &["key", "seal", "k", "--provider", "openai"],
        Some(&secret()),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("mode 644"), "{}", err(&output));
}

#[test]
fn refusals_tell_cause_and_next_step_in_both_forms() {
    let desk = Desk::new();
    let output = desk.run(&["status"], None);
    assert_eq!(output.status.code(), Some(1));
    let said = err(&output);
    assert!(
        said.contains("no admin socket at") && said.contains("next: start hsmd"),
        "{said}"
    );
    let output = desk.run(&["status", "--output", "json"], None);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!(said["error"]["code"], "daemon_unreachable");
    assert!(said["error"]["next"].is_string());
}

#[test]
fn usage_errors_exit_with_2() {
    let desk = Desk::with_sealer();
    let own = ["key", "seal", "k", "--provider", "llm-internal"];
    for arguments in [
        &["key", "add", "k"][..],
        &["nonsense"],
        &own,
        &["trust", "pin", "--sealer", "no-equals-sign"],
    ] {
        let output = desk.run(arguments, Some(&secret()));
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            err(&output)
        );
    }
    let named = [&own[..], &["--upstream", "https://llm.internal.example"]].concat();
    assert!(desk.run(&named, Some(&secret())).status.success());
}

#[test]
fn the_trust_file_is_shown_without_a_daemon() {
    let desk = Desk::with_sealer();
    let output = desk.run(&["trust", "show", "--output", "json"], None);
    let shown: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(shown["custodians"].as_array().unwrap().len(), 3);
    assert_eq!(shown["sealers"][0]["name"], "alice");
    assert!(shown["presented"].is_null());
}

#[test]
fn pinning_without_a_terminal_needs_a_yes() {
    let desk = Desk::new();
    let other = support::trust(&support::three(), &[]);
    fs::write(desk.path("other.json"), other.to_json()).unwrap();
    let before = desk.trust();
    let mut command = desk.command(&["trust", "pin", "--from", "other.json"]);
    // Without a controlling terminal there is nobody to ask.
    let output = detached(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("--yes"), "{}", err(&output));
    assert_eq!(desk.trust(), before);
    let output = desk.run(&["trust", "pin", "--from", "other.json", "--yes"], None);
    assert!(output.status.success(), "{}", err(&output));
    let after = desk.trust();
    assert_eq!(after.descriptors(), other.descriptors());
    assert_eq!(after.custodians[0].superseded.len(), 1);
}

/// Runs the command in a session of its own (`setsid` of util-linux), so that a developer's terminal is not asked.
fn detached(command: &mut Command) -> Output {
    let mut wrapped = Command::new("setsid");
    wrapped
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    wrapped.stdin(Stdio::null()).output().unwrap()
}
