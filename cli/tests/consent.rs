//! Where a key may go is the operator's choice: what the daemon proposes is shown, and signed only when a person, an
//! option or a development directory says so.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use custody::SealedKey;
use proto::v1::*;

mod scripted;
mod support;

use scripted::{ADD, Desk, SECRET, Script, presented, text};

const OWN: &str = "https://api.openai.com";
const EVIL: &str = "https://evil.example";

/// A daemon that proposes `defaults` to `add`, and shows `openai-prod` as sealed to `upstream`.
fn proposing(
    custodians: &[support::SoftCustodian],
    defaults: &[&str],
    provider: &str,
    upstream: &str,
) -> Script {
    let mut status = presented(custodians);
    status.default_upstreams = defaults.iter().map(|one| (*one).to_owned()).collect();
    Script {
        status,
        known: ShowKeyResponse {
            key: Some(KeySummary {
                key_id: "openai-prod".to_owned(),
                provider: provider.to_owned(),
                current_version: 1,
                ..KeySummary::default()
            }),
            versions: vec![KeyVersion {
                version: 1,
                upstreams: vec![upstream.to_owned()],
                ..KeyVersion::default()
            }],
            usable_by: Vec::new(),
        },
        progress: vec![ChangeProgress {
            done: true,
            ..ChangeProgress::default()
        }],
        ..Script::default()
    }
}

fn sealed_to(desk: &Desk, sealed: &[u8]) -> Vec<String> {
    let trust = custody::Trust::parse(&fs::read(desk.path("custodians.json")).unwrap()).unwrap();
    let sealed = SealedKey::parse(sealed).unwrap();
    let provenance = sealed.verify(&trust).unwrap();
    let upstreams = provenance.header().upstreams.iter();
    upstreams.map(ToString::to_string).collect()
}

const ROTATE: [&str; 4] = ["key", "rotate", "openai-prod", "--no-wait"];

#[tokio::test]
async fn without_a_terminal_add_seals_nothing_that_only_the_daemon_chose() {
    for default in ["*", EVIL] {
        let custodians = support::three();
        let script = proposing(&custodians, &[default], "openai", OWN);
        let added = Arc::clone(&script.added);
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&ADD, SECRET).await;
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("may be sent to") && said.contains(default),
            "{said}"
        );
        assert!(said.contains("--upstream"), "{said}");
        assert!(added.lock().unwrap().is_empty());

        let named = [&ADD[..], &["--upstream", OWN]].concat();
        let output = desk.run(&named, SECRET).await;
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(sealed_to(&desk, &added.lock().unwrap()[0].sealed), [OWN]);
    }
}

#[tokio::test]
async fn the_providers_own_origin_needs_no_question_and_is_told() {
    for defaults in [&[][..], &[OWN]] {
        let custodians = support::three();
        let desk = Desk::new(&custodians, proposing(&custodians, defaults, "openai", OWN)).await;
        let output = desk.run(&ADD, SECRET).await;
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("may be sent to {OWN}")), "{said}");
    }
}

#[tokio::test]
async fn without_a_terminal_rotate_keeps_the_providers_own_origin_alone() {
    for upstream in ["*", EVIL, "https://generativelanguage.googleapis.com"] {
        let custodians = support::three();
        let script = proposing(&custodians, &[], "openai", upstream);
        let rotated = Arc::clone(&script.rotated);
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&ROTATE, SECRET).await;
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("--upstream") && said.contains(upstream),
            "{said}"
        );
        assert!(rotated.lock().unwrap().is_empty());

        let output = desk
            .run(&[&ROTATE[..], &["--upstream", OWN]].concat(), SECRET)
            .await;
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(sealed_to(&desk, &rotated.lock().unwrap()[0].sealed), [OWN]);
    }
    let custodians = support::three();
    let desk = Desk::new(&custodians, proposing(&custodians, &[], "openai", OWN)).await;
    let output = desk.run(&ROTATE, SECRET).await;
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(&format!("version 2 (openai) may be sent to {OWN}")));
}

#[tokio::test]
async fn a_provider_other_than_the_one_named_is_refused() {
    let custodians = support::three();
    let google = "https://generativelanguage.googleapis.com";
    let script = proposing(&custodians, &[], "gemini", google);
    let rotated = Arc::clone(&script.rotated);
    let desk = Desk::new(&custodians, script).await;
    let output = desk
        .run(&[&ROTATE[..], &["--provider", "openai"]].concat(), SECRET)
        .await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gemini") && said.contains("openai"), "{said}");
    assert!(rotated.lock().unwrap().is_empty());
}

/// Makes the desk's directory look like one of `tacit dev`, and moves trust file and sealer to their places there.
fn make_dev(desk: &Desk) -> [(&'static str, String); 2] {
    for directory in ["run", "state"] {
        fs::create_dir(desk.path(directory)).unwrap();
    }
    fs::write(desk.path("run/lock"), "tacit dev\n").unwrap();
    fs::write(desk.path("hsmd.toml"), "").unwrap();
    fs::copy(
        desk.path("custodians.json"),
        desk.path("state/custodians.json"),
    )
    .unwrap();
    [
        ("TACIT_TRUST", desk.path("state/custodians.json")),
        ("TACIT_SEALER", desk.path("sealer.key")),
    ]
    .map(|(name, path)| (name, path.display().to_string()))
}

#[tokio::test]
async fn in_a_development_directory_the_daemons_choice_holds_with_a_note() {
    let custodians = support::three();
    let script = proposing(&custodians, &["*"], "openai", "*");
    let (added, rotated) = (Arc::clone(&script.added), Arc::clone(&script.rotated));
    let desk = Desk::new(&custodians, script).await;
    let environment = make_dev(&desk);
    for line in [&ADD[..], &ROTATE[..]] {
        let output = desk.run_with(line, SECRET, &environment).await;
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("development") && said.contains("may be sent to"),
            "{said}"
        );
    }
    assert_eq!(
        sealed_to(&desk, &added.lock().unwrap()[0].sealed),
        [OWN, "*"]
    );
    assert_eq!(sealed_to(&desk, &rotated.lock().unwrap()[0].sealed), ["*"]);

    // Not believed: without the mark, with a trust file from elsewhere, where others can write.
    let refused = || async {
        let output = desk.run_with(&ADD, SECRET, &environment).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    };
    fs::write(desk.path("run/lock"), "").unwrap();
    refused().await;
    fs::write(desk.path("run/lock"), "tacit dev\n").unwrap();
    let output = desk.run_with(&ADD, SECRET, &environment[1..]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    fs::set_permissions(desk.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    refused().await;
    assert_eq!(added.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_a_person_is_asked() {
    for (line, provider_named) in [(&ADD[..], false), (&ROTATE[..], false), (&ROTATE[..], true)] {
        for (typed, code) in [("yes\n", 0), ("no\n", 1)] {
            let custodians = support::three();
            // Once proposed beyond the provider's own origin; a rotation asks even for that, when the provider is the daemon's word.
            let desk = Desk::new(&custodians, proposing(&custodians, &["*"], "openai", OWN)).await;
            fs::write(desk.path("key.txt"), SECRET).unwrap();
            let mut line = [line, &["--from-file", "key.txt"]].concat();
            if provider_named {
                line.extend(["--provider", "openai"]);
            }
            let (said, status) = tokio::task::block_in_place(|| on_terminal(&desk, &line, typed));
            let asked = said.contains("[yes/no]");
            assert_eq!(asked, !provider_named, "{said}");
            assert_eq!(status, Some(if asked { code } else { 0 }), "{said}");
        }
    }
}

/// Runs the command on a terminal of its own, with `typed` already in the keyboard's buffer.
fn on_terminal(desk: &Desk, line: &[&str], typed: &str) -> (String, Option<i32>) {
    let pair = nix::pty::openpty(None, None).unwrap();
    let mut keyboard = File::from(pair.master);
    keyboard.write_all(typed.as_bytes()).unwrap();
    let terminal = File::from(pair.slave);
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", env!("CARGO_BIN_EXE_tacit")])
        .args(line)
        .env_clear()
        .envs(desk.environment())
        .current_dir(desk.path(""))
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::from(terminal.try_clone().unwrap()))
        .stderr(Stdio::from(terminal));
    let mut child = command.spawn().unwrap();
    drop(command); // the terminal's last copies here: its reader sees the end
    let status = child.wait().unwrap();
    let mut said = Vec::new();
    let _ = keyboard.read_to_end(&mut said); // EIO is how a terminal ends
    (String::from_utf8_lossy(&said).into_owned(), status.code())
}
