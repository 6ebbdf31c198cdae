//! A token, its process and its module fail in every way the shim knows; each failure ends in the documented reaction.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use custody::SignedDescriptor;
use hsm::client::{Evidence, Revoked};
use hsm::error::ErrorClass;
use hsm::wire::Ingested;
use hsm::{Health, TokenClient, TokenConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use softhsm::TokenDir;
use support::{Agent, Sealed, Service, config, seal, shim, token};

const SESSION: [u8; 16] = [1; 16];

/// A token behind the shim, and a client.
struct Rig {
    dir: tempfile::TempDir,
    token: TokenDir,
    config: TokenConfig,
    client: TokenClient,
}

/// What an initialised rig holds.
struct Held {
    descriptor: SignedDescriptor,
    sealed: Sealed,
    stored: Ingested,
    agent: Agent,
}

impl Rig {
    fn prepare() -> (tempfile::TempDir, TokenDir, TokenConfig) {
        let dir = tempfile::tempdir().unwrap();
        let token = token(&dir.path().join("tokens"));
        let mut config = config(&token, &dir.path().join("state"));
        config.module = shim();
        for (name, value) in [
            ("TACIT_SHIM_MODULE", token.module.clone()),
            ("TACIT_SHIM_SCRIPT", dir.path().join("script")),
            ("TACIT_SHIM_LOG", dir.path().join("log")),
        ] {
            config.env.insert(name.into(), value.display().to_string());
        }
        config.call_timeout = Duration::from_millis(1500);
        (dir, token, config)
    }

    fn new() -> Rig {
        Rig::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&TokenDir, &mut TokenConfig)) -> Rig {
        let (dir, token, mut config) = Rig::prepare();
        change(&token, &mut config);
        let client = TokenClient::start(config.clone());
        Rig {
            dir,
            token,
            config,
            client,
        }
    }

    async fn initialised() -> (Rig, Held) {
        let rig = Rig::new();
        let held = rig.fill().await;
        (rig, held)
    }

    async fn fill(&self) -> Held {
        let descriptor = SignedDescriptor::parse(&self.client.init().await.unwrap()).unwrap();
        let sealed = seal(&descriptor, "openai-prod", 1);
        let stored = self.client.ingest(sealed.ingest()).await.unwrap();
        let agent = Agent::new(descriptor.descriptor.profile);
        self.client
            .open_session(&SESSION, &agent.public(), &Evidence::default())
            .await
            .unwrap();
        Held {
            descriptor,
            sealed,
            stored,
            agent,
        }
    }

    /// Puts a script in force, atomically.
    fn script(&self, text: &str) {
        let fresh = self.dir.path().join("script.new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.dir.path().join("script")).unwrap();
    }

    fn calls(&self, function: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.split(' ').next() == Some(function))
            .count()
    }

    async fn wait(&self, what: &str, wanted: impl FnMut(&Health) -> bool) -> Health {
        let mut health = self.client.health();
        match tokio::time::timeout(Duration::from_secs(20), health.wait_for(wanted)).await {
            Ok(health) => health.unwrap().clone(),
            Err(_) => panic!(
                "waiting for {what}, the health is {:?}",
                self.client.snapshot().health
            ),
        }
    }

    async fn up(&self) {
        self.wait("up", Health::is_up).await;
    }

    /// The process that serves now, which is not `old`.
    async fn pid_after(&self, old: Option<u32>) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.client.snapshot().pid {
                Some(pid) if Some(pid) != old => return pid,
                _ if Instant::now() > deadline => panic!("no new token process"),
                _ => tokio::task::yield_now().await,
            }
        }
    }

    async fn delivers(&self, held: &Held) {
        let wrapped = self
            .client
            .deliver(&SESSION, held.stored.row())
            .await
            .unwrap();
        let opened = held
            .agent
            .open(&held.descriptor, &SESSION, &wrapped)
            .unwrap();
        assert_eq!(
            opened.check_value(&[0; 32]),
            held.sealed.record.check_value(&[0; 32])
        );
    }

    /// As the daemon does: when the session is gone, open it again.
    async fn delivers_again(&self, held: &Held) {
        self.up().await;
        let error = self
            .client
            .deliver(&SESSION, held.stored.row())
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::UnknownSession, "{error}");
        self.client
            .open_session(&SESSION, &held.agent.public(), &Evidence::default())
            .await
            .unwrap();
        self.delivers(held).await;
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// One CK_RV per reaction and call; what the caller sees, and which recovery the module saw.
#[tokio::test]
async fn every_class_of_ck_rv_ends_in_its_reaction() {
    let (rig, held) = Rig::initialised().await;
    let ok = None;
    let cases = [
        // Sessions and handles: new sessions, no new login, and the caller sees nothing.
        ("C_UnwrapKey fail 0xb3 times 1", "C_OpenSession", ok),
        ("C_UnwrapKey fail 0xb0 times 1", "C_OpenSession", ok),
        ("C_WrapKey fail 0x60 times 1", "C_OpenSession", ok),
        ("C_WrapKey fail 0x82 times 1", "C_OpenSession", ok),
        ("C_VerifyInit fail 0x90 times 1", "C_OpenSession", ok),
        // The login is gone.
        ("C_UnwrapKey fail 0x101 times 1", "C_Login", ok),
        // The library or token was reset.
        ("C_UnwrapKey fail 0x190 times 1", "C_Initialize", ok),
        ("C_UnwrapKey fail 0x32 times 1", "C_Initialize", ok),
        ("C_UnwrapKey fail 0xe0 times 1", "C_Initialize", ok),
        // Twice is once too often.
        (
            "C_UnwrapKey fail 0xb3 times 2",
            "C_OpenSession",
            Some(ErrorClass::Device),
        ),
        (
            "C_UnwrapKey fail 0xe0 times 2",
            "C_Initialize",
            Some(ErrorClass::TokenMissing),
        ),
        // The module found the input wrong.
        (
            "C_UnwrapKey fail 0x40 times 1",
            "",
            Some(ErrorClass::BadRecord),
        ),
        (
            "C_UnwrapKey fail 0x110 times 1",
            "",
            Some(ErrorClass::BadRecord),
        ),
        // It could be either: the self-test passes, so it is the record.
        (
            "C_UnwrapKey fail 0x5 times 1",
            "C_GenerateKey",
            Some(ErrorClass::BadRecord),
        ),
        (
            "C_UnwrapKey fail 0x30 times 1",
            "C_GenerateKey",
            Some(ErrorClass::BadRecord),
        ),
        (
            "C_UnwrapKey fail 0x80000001 times 1",
            "C_GenerateKey",
            Some(ErrorClass::BadRecord),
        ),
        (
            "C_UnwrapKey fail 0x7777 times 1",
            "C_GenerateKey",
            Some(ErrorClass::BadRecord),
        ),
        // A limit, and a refusal.
        ("C_UnwrapKey fail 0xb1 times 1", "", Some(ErrorClass::Busy)),
        (
            "C_UnwrapKey fail 0x70 times 1",
            "",
            Some(ErrorClass::Device),
        ),
        ("C_WrapKey fail 0x69 times 1", "", Some(ErrorClass::Device)),
    ];
    for (script, recovery, expected) in cases {
        rig.delivers(&held).await;
        let before = (
            rig.calls(recovery),
            rig.calls("C_Login"),
            rig.client.snapshot().restarts,
        );
        rig.script(script);
        let result = rig.client.deliver(&SESSION, held.stored.row()).await;
        assert_eq!(
            result.as_ref().err().map(|error| error.class),
            expected,
            "{script}: {result:?}"
        );
        if !recovery.is_empty() {
            assert!(
                rig.calls(recovery) > before.0,
                "{script} should lead to {recovery}"
            );
        }
        if recovery == "C_OpenSession" {
            assert_eq!(rig.calls("C_Login"), before.1, "{script} needs no login");
        }
        assert_eq!(
            rig.client.snapshot().restarts,
            before.2,
            "{script} needs no new process"
        );
        rig.script("");
    }
    rig.client.shutdown().await;
}

#[tokio::test]
async fn a_token_that_fails_its_self_test_gets_a_new_process() {
    let (rig, held) = Rig::initialised().await;
    let pid = rig.pid_after(None).await;
    rig.script("C_UnwrapKey fail 0x5");
    let error = rig
        .client
        .deliver(&SESSION, held.stored.row())
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Device, "{error}");
    assert!(
        error.text.contains("CKR_GENERAL_ERROR") && error.text.contains("self-test"),
        "{error}"
    );
    rig.script("");
    assert_ne!(rig.pid_after(Some(pid)).await, pid);
    rig.delivers_again(&held).await;
    assert_eq!(rig.client.snapshot().restarts, 1);
}

#[tokio::test]
async fn a_wrong_pin_costs_one_login_over_three_restarts() {
    let rig = Rig::new();
    rig.client.init().await.unwrap();
    rig.client.shutdown().await;
    let right = fs::read(&rig.token.pin_file).unwrap();
    fs::write(&rig.token.pin_file, "wrong-pin").unwrap();
    let before = rig.calls("C_Login");
    let rig = Rig {
        client: TokenClient::start(rig.config.clone()),
        ..rig
    };
    let latched = |health: &Health| matches!(health, Health::Latched { .. });
    rig.wait("latched", latched).await;
    let mut pid = rig.pid_after(None).await;
    for _ in 0..3 {
        signal(pid, Signal::SIGKILL);
        pid = rig.pid_after(Some(pid)).await;
        rig.wait("latched again", latched).await;
        let error = rig.client.describe().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::PinLatched, "{error}");
    }
    assert_eq!(rig.calls("C_Login"), before + 1);
    // `unlatch` is one more attempt, and the right PIN in the file another.
    assert_eq!(
        rig.client.unlatch().await.unwrap_err().class,
        ErrorClass::PinIncorrect
    );
    assert_eq!(rig.calls("C_Login"), before + 2);
    fs::write(&rig.token.pin_file, right).unwrap();
    rig.up().await;
    assert_eq!(rig.calls("C_Login"), before + 3);
}

/// A login that never answered may have been an attempt: two, and no more until the PIN file changes or `unlatch`.
#[tokio::test]
async fn logins_that_die_unanswered_are_bounded_for_a_pin_that_was_never_accepted() {
    let rig = Rig::new();
    rig.script("C_Login crash");
    let latched = |health: &Health| matches!(health, Health::Latched { .. });
    let Health::Latched { reason } = rig.wait("latched", latched).await else {
        panic!("latched")
    };
    assert!(reason.contains("unlatch"), "{reason}");
    assert_eq!(rig.calls("C_Login"), 2);
    let pid = rig.pid_after(None).await;
    signal(pid, Signal::SIGKILL);
    rig.pid_after(Some(pid)).await;
    rig.wait("latched again", latched).await;
    assert_eq!(rig.calls("C_Login"), 2, "also over a restart");
    rig.script("");
    rig.client.unlatch().await.unwrap();
    assert_eq!(rig.calls("C_Login"), 3);
    rig.client.init().await.unwrap();
}

/// A PIN that the token accepted before is not latched by an outage in the middle of logins.
#[tokio::test]
async fn an_outage_during_logins_does_not_latch_a_pin_that_was_accepted() {
    let (rig, held) = Rig::initialised().await;
    let before = rig.calls("C_Login");
    rig.script("C_Login crash");
    let mut pid = rig.pid_after(None).await;
    signal(pid, Signal::SIGKILL);
    for _ in 0..4 {
        pid = rig.pid_after(Some(pid)).await;
    }
    assert!(rig.calls("C_Login") >= before + 3);
    rig.script("");
    rig.delivers_again(&held).await;
}

#[tokio::test]
async fn a_locked_pin_is_told_from_a_wrong_one() {
    let rig = Rig::new();
    rig.script("C_Login fail 0xa4");
    let error = rig.client.init().await.unwrap_err();
    assert!(
        matches!(error.class, ErrorClass::PinLocked | ErrorClass::PinLatched),
        "{error}"
    );
    assert!(error.text.contains("CKR_PIN_LOCKED"), "{error}");
    assert_eq!(
        rig.client.init().await.unwrap_err().class,
        ErrorClass::PinLatched
    );
    assert_eq!(rig.calls("C_Login"), 1);
}

#[tokio::test]
async fn sigkill_sigstop_crash_and_hang_are_survived() {
    let (rig, held) = Rig::initialised().await;
    let mut pid = rig.pid_after(None).await;
    for fault in ["kill", "stop", "crash", "hang"] {
        match fault {
            "kill" => signal(pid, Signal::SIGKILL),
            "stop" => signal(pid, Signal::SIGSTOP),
            "crash" => rig.script("C_UnwrapKey crash times 1"),
            _ => rig.script("C_UnwrapKey hang times 1"),
        }
        let started = Instant::now();
        let error = rig
            .client
            .deliver(&SESSION, held.stored.row())
            .await
            .unwrap_err();
        assert!(
            matches!(
                error.class,
                ErrorClass::Lost | ErrorClass::Timeout | ErrorClass::Down
            ),
            "{fault}: {error}"
        );
        assert!(
            started.elapsed() < rig.config.call_timeout + Duration::from_millis(700),
            "{fault}: the caller is freed"
        );
        rig.script("");
        pid = rig.pid_after(Some(pid)).await;
        rig.delivers_again(&held).await;
    }
    assert_eq!(rig.client.snapshot().restarts, 4);
}

#[tokio::test]
async fn an_input_that_killed_twice_is_refused_and_its_neighbour_is_not() {
    let (rig, held) = Rig::initialised().await;
    let other = seal(&held.descriptor, "neighbour", 1);
    let neighbour = rig.client.ingest(other.ingest()).await.unwrap();
    let mut pid = rig.pid_after(None).await;
    for _ in 0..2 {
        rig.script("C_WrapKey crash");
        let error = rig
            .client
            .deliver(&SESSION, held.stored.row())
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Lost, "{error}");
        rig.script("");
        pid = rig.pid_after(Some(pid)).await;
        rig.up().await;
        rig.client
            .open_session(&SESSION, &held.agent.public(), &Evidence::default())
            .await
            .unwrap();
    }
    let error = rig
        .client
        .deliver(&SESSION, held.stored.row())
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Poisoned, "{error}");
    rig.client.deliver(&SESSION, neighbour.row()).await.unwrap();
    rig.client.unlatch().await.unwrap();
    rig.delivers(&held).await;
}

/// A token that hangs for everyone says nothing about the row that was in work: when it is well again, so is the row.
#[tokio::test]
async fn an_outage_of_the_token_is_not_blamed_on_the_rows_that_were_in_work() {
    let (rig, held) = Rig::initialised().await;
    for fault in ["C_UnwrapKey hang", "C_UnwrapKey crash"] {
        rig.script(fault);
        // The first death meets the row in work; in the second process the self-test already fails.
        for _ in 0..2 {
            rig.up().await;
            let pid = rig.pid_after(None).await;
            let error = rig
                .client
                .deliver(&SESSION, held.stored.row())
                .await
                .unwrap_err();
            assert!(
                matches!(error.class, ErrorClass::Lost | ErrorClass::Timeout),
                "{fault}: {error}"
            );
            rig.pid_after(Some(pid)).await;
        }
        rig.script("");
        rig.delivers_again(&held).await;
    }
}

#[tokio::test]
async fn a_token_that_is_taken_away_is_missed_and_comes_back() {
    let (rig, held) = Rig::initialised().await;
    rig.script("lose-token");
    let error = rig
        .client
        .deliver(&SESSION, held.stored.row())
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TokenMissing, "{error}");
    rig.wait("down", |health| matches!(health, Health::Down { .. }))
        .await;
    rig.script("renumber");
    rig.up().await;
    rig.delivers(&held).await;
    assert_eq!(
        rig.client.snapshot().restarts,
        0,
        "no new process was needed"
    );
}

#[tokio::test]
async fn dropped_sessions_are_reopened_and_their_keys_derived_again() {
    let (rig, held) = Rig::initialised().await;
    rig.script("drop-sessions");
    rig.delivers(&held).await;
    rig.script("drop-sessions\nrenumber");
    rig.delivers(&held).await;
}

#[tokio::test]
async fn a_module_that_lies_or_ignores_is_refused_by_name() {
    for script in ["lie-sensitive", "ignore-sensitive"] {
        let rig = Rig::new();
        rig.script(script);
        let error = rig.client.init().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::ModuleUnfit, "{script}: {error}");
        assert!(
            error.text.contains("Sensitive") || error.text.contains("clear"),
            "{error}"
        );
    }
    // Also when it begins to after `init`: the next process refuses it.
    let (rig, held) = Rig::initialised().await;
    let pid = rig.pid_after(None).await;
    rig.script("ignore-sensitive");
    signal(pid, Signal::SIGKILL);
    rig.pid_after(Some(pid)).await;
    rig.up().await;
    let error = rig.client.check(held.stored.row()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
}

#[tokio::test]
async fn wrong_tokens_missing_and_duplicate_objects_are_named() {
    let rig = Rig::with(|_, config| config.serial = Some("feedfacefeedface".into()));
    let error = rig.client.init().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::WrongToken);
    assert!(
        error.text.contains("feedfacefeedface") && error.text.contains("tacit-a"),
        "{error}"
    );

    let rig = Rig::new();
    let error = rig.client.describe().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::ObjectsMissing);
    assert!(error.text.contains("hsmd init"), "{error}");

    let (rig, held) = Rig::initialised().await;
    rig.client.shutdown().await;
    import_aes(&rig, "tacit/kek/openai");
    let client = TokenClient::start(rig.config.clone());
    let error = client.check(held.stored.row()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::DuplicateObject, "{error}");
    assert!(error.text.contains("tacit/kek/openai"), "{error}");

    // The token of one custodian in the place of another.
    let mut config = rig.config.clone();
    config.id = "b".into();
    let error = TokenClient::start(config).describe().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::WrongToken, "{error}");
}

fn import_aes(rig: &Rig, label: &str) {
    let file: PathBuf = rig.dir.path().join("aes");
    fs::write(&file, [7; 32]).unwrap();
    let pin = fs::read_to_string(&rig.token.pin_file).unwrap();
    let status = Command::new("softhsm2-util")
        .args(["--import"])
        .arg(&file)
        .args([
            "--aes",
            "--token",
            &rig.token.label,
            "--label",
            label,
            "--id",
            "aa",
            "--pin",
            &pin,
        ])
        .env("SOFTHSM2_CONF", &rig.token.conf)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn an_interrupted_state_write_leaves_the_newer_one() {
    let (rig, _held) = Rig::initialised().await;
    let entry = |key: &str| Revoked {
        key_id: key.into(),
        version: 1,
    };
    rig.client
        .write_state(1, &[1; 32], &[entry("a")])
        .await
        .unwrap();
    let pid = rig.pid_after(None).await;
    // The process dies between writing the new object and destroying the old one.
    rig.script("C_DestroyObject crash");
    assert_eq!(
        rig.client
            .write_state(2, &[2; 32], &[entry("b")])
            .await
            .unwrap_err()
            .class,
        ErrorClass::Lost
    );
    rig.script("");
    rig.pid_after(Some(pid)).await;
    rig.up().await;
    let state = rig.client.read_state().await.unwrap();
    assert_eq!((state.revision, state.digest), (2, [2; 32]));
    assert_eq!(
        state.revoked,
        [entry("a"), entry("b")].into_iter().collect()
    );
    rig.client.write_state(3, &[3; 32], &[]).await.unwrap();
    assert_eq!(rig.client.read_state().await.unwrap().revision, 3);
}

#[tokio::test]
async fn a_stopped_init_is_resumed() {
    let rig = Rig::new();
    rig.script("C_GenerateKeyPair crash after 3");
    let error = rig.client.init().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Lost, "{error}");
    let pid = rig.client.snapshot().pid;
    rig.script("");
    rig.pid_after(pid.filter(|_| rig.client.snapshot().restarts == 0))
        .await;
    let held = loop {
        match rig.client.init().await {
            Ok(_) => break rig.fill().await,
            Err(error) => assert!(error.class.is_transient(), "{error}"),
        }
    };
    rig.delivers(&held).await;
    assert_eq!(
        rig.calls("C_GenerateKeyPair"),
        4 + 2,
        "three were made before, the fourth crashed, two were missing"
    );
}

/// Another user's process answers at the socket's path: it is refused by its uid, unless the operator named that user, or
/// the directory is that user's own.
#[tokio::test]
async fn a_stranger_behind_the_token_socket_is_refused_by_name() {
    const STRANGER: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "NOT CHECKED: only root can start a process as another user"
        );
        return;
    }
    let own_way = tempfile::Builder::new()
        .prefix("tacit-hsm-")
        .tempdir_in("/run")
        .unwrap();
    let anyones = tempfile::tempdir().unwrap();
    for (way, believed) in [(own_way.path(), true), (anyones.path(), false)] {
        let dir = way.join("a");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(way, fs::Permissions::from_mode(0o755)).unwrap();
        // Nobody may not reach the build's directory.
        let program = way.join("tacit-token");
        fs::copy(support::TOKEN_PROGRAM, &program).unwrap();
        std::os::unix::fs::chown(&dir, Some(STRANGER), Some(STRANGER)).unwrap();
        let (_rig_dir, _token, mut config) = Rig::prepare();
        let socket = dir.join("token.sock");
        let _service = Service(
            Command::new(&program)
                .args(["--id", "a", "--token-label", "none", "--module", "/none"])
                .args(["--pin-file", "/none", "--allow-uid", "0", "--state-dir"])
                .arg(dir.join("state"))
                .arg("--listen")
                .arg(&socket)
                .uid(STRANGER)
                .gid(STRANGER)
                .spawn()
                .unwrap(),
        );
        config.token_socket = Some(socket);
        // What the service itself says, once it is heard: it has no module.
        let heard = |reason: &str| reason.contains("/none");
        let refused = |reason: &str| reason.contains("uid 65534") && reason.contains("token_uid");
        let cases = [
            (None, believed),
            (Some(STRANGER), true),
            (Some(STRANGER - 1), false),
        ];
        for (token_uid, passes) in cases {
            config.token_uid = token_uid;
            let client = TokenClient::start(config.clone());
            let mut health = client.health();
            let settled = |health: &Health| matches!(health, Health::Down { reason } if heard(reason) || refused(reason));
            let found = tokio::time::timeout(Duration::from_secs(20), health.wait_for(settled))
                .await
                .unwrap()
                .unwrap()
                .clone();
            let Health::Down { reason } = found else {
                panic!("down")
            };
            assert_eq!(heard(&reason), passes, "{token_uid:?}: {reason}");
            client.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_token_service_of_its_own_serves_and_survives_its_client() {
    let (dir, token, mut config) = Rig::prepare();
    let socket = dir.path().join("token.sock");
    let mut service = Command::new(support::TOKEN_PROGRAM)
        .args(["--id", "a", "--token-label", &token.label, "--module"])
        .arg(&token.module)
        .arg("--pin-file")
        .arg(&token.pin_file)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg("--listen")
        .arg(&socket)
        .env("SOFTHSM2_CONF", &token.conf)
        .spawn()
        .unwrap();
    config.token_socket = Some(socket.clone());
    for _ in 0..2 {
        let rig = Rig {
            client: TokenClient::start(config.clone()),
            dir: tempfile::tempdir().unwrap(),
            token: token.clone(),
            config: config.clone(),
        };
        let held = loop {
            // Until the service listens, the client says that it is down.
            match rig.client.init().await {
                Ok(_) => break rig.fill().await,
                Err(error) => assert_eq!(error.class, ErrorClass::Down, "{error}"),
            }
        };
        rig.delivers(&held).await;
        rig.client.close_session(&SESSION).await.unwrap();
        rig.client.shutdown().await;
        assert!(service.try_wait().unwrap().is_none(), "the service goes on");
    }
    service.kill().unwrap();
    service.wait().unwrap();
}
