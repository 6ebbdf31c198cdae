//! The binary: exit codes, reload, drain, and a memory that nobody else may read.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const KEY: &str = "sk-process-canary-0123456789";

struct Agent {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(file: &Path, extra: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tacit-agent"))
            .arg("--config")
            .arg(file)
            .args(extra)
            .env("TACIT_LOG", "trace")
            .env("SSL_CERT_FILE", "/nonexistent/evil.pem")
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            log,
            seen: String::new(),
        }
    }

    /// Reads the log until a line contains `text`.
    fn until(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "{text} in\n{}",
                self.seen
            );
            self.seen += &line;
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> (ExitStatus, String) {
        self.log.read_to_string(&mut self.seen).unwrap();
        (self.child.wait().unwrap(), self.seen.clone())
    }
}

fn good(dir: &TempDir) -> String {
    let key = dir.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[providers.openai]\nsecret_key_ref = {{ file = {key:?} }}\nbase_url = \"http://127.0.0.1:9\"\n"
    )
}

fn run(text: &str, extra: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    let (status, log) = Agent::start(&file, extra).end();
    (status.code(), log)
}

#[test]
fn exit_codes_tell_the_file_from_its_surroundings() {
    let dir = TempDir::new().unwrap();
    assert_eq!(run(&good(&dir), &["--check"]).0, Some(0));
    let (code, log) = run("colour = \"sk-secret\"\n[providers.openai]\n", &["--check"]);
    assert_eq!(code, Some(64));
    assert!(
        log.contains("colour: unknown field")
            && log.contains("providers.openai.secret_key_ref")
            && !log.contains("sk-secret"),
        "{log}"
    );
    let store = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ncustodians = \"/nonexistent/custodians.json\"\n[providers.openai]\nsecret_key_ref = { store = \"k\" }\n";
    for extra in [&["--check"][..], &[]] {
        let (code, log) = run(store, extra);
        assert_eq!(code, Some(78), "{log}");
        assert!(
            log.contains("/nonexistent/custodians.json") && log.contains("hsmd init"),
            "{log}"
        );
    }
    assert_eq!(run("", &["--unheard-of"]).0, Some(64));
}

#[test]
fn a_bad_file_on_reload_changes_nothing_and_says_so() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, good(&dir)).unwrap();
    let mut agent = Agent::start(&file, &[]);
    agent.until("serving");
    std::fs::write(&file, "listen = 1").unwrap();
    agent.signal(Signal::SIGHUP);
    agent.until("the configuration in force stays");
    std::fs::write(&file, good(&dir)).unwrap();
    agent.signal(Signal::SIGHUP);
    agent.until("read again and in force");
    agent.signal(Signal::SIGTERM);
    let (status, log) = agent.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains(KEY), "not even at trace level");
}

#[test]
fn the_announcement_names_the_address_for_tls_if_there_is_one() {
    let dir = TempDir::new().unwrap();
    let (file, announced) = (dir.path().join("agent.toml"), dir.path().join("where.json"));
    let ca_file = dir.path().join("ca.pem");
    let tls = format!("[tls]\nlisten = \"127.0.0.1:0\"\nca_file = {ca_file:?}\n");
    for (text, expected) in [(good(&dir), false), (good(&dir) + &tls, true)] {
        std::fs::write(&file, text).unwrap();
        let mut agent = Agent::start(&file, &["--announce", announced.to_str().unwrap()]);
        agent.until("serving");
        let began = std::time::Instant::now();
        // The line comes before the file.
        let said = loop {
            match std::fs::read_to_string(&announced) {
                Ok(said) => break said,
                Err(_) => assert!(began.elapsed().as_secs() < 20, "no announcement"),
            }
            std::thread::yield_now();
        };
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let address = said.get("tls_listen").and_then(|address| address.as_str());
        assert_eq!(address.is_some(), expected, "{said}");
        if let Some(address) = address {
            std::net::TcpStream::connect(address).unwrap();
        }
        assert_eq!(ca_file.exists(), expected);
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.end().0.code(), Some(0));
        std::fs::remove_file(&announced).unwrap();
    }
}

#[test]
fn the_process_cannot_be_dumped_and_leaves_no_core() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, good(&dir)).unwrap();
    let mut agent = Agent::start(&file, &[]);
    agent.until("serving");
    let proc = format!("/proc/{}", agent.child.id());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0.code(), Some(0));
}
