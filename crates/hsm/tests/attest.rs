//! A token process that judges callers by itself: what a daemon that lies can have of it.
//!
//! The daemon is the test, with the real client; the token process is the real one over SoftHSM; the agent is another process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests; another process is told in its environment what to do"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use custody::p256::KeyPair;
use custody::witness::WitnessedKeys;
use custody::{SignedDescriptor, SystemRandom};
use hsm::client::Evidence;
use hsm::{ErrorClass, HsmError, TokenClient};
use support::{config, seal, token};
use tempfile::TempDir;

const SESSION: [u8; 16] = [7; 16];
const SOCKET: &str = "TACIT_TEST_SOCKET";
const MESSAGE: &str = "TACIT_TEST_MESSAGE";

/// An agent: vouches for a key on a connection of its own, and stays until its input ends.
#[test]
#[ignore = "run by other tests, as another process"]
fn helper_vouches() {
    let mut socket = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
    let message = hex::decode(std::env::var(MESSAGE).unwrap()).unwrap();
    socket.write_all(&message).unwrap();
    println!("VOUCHED");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

struct Agent {
    child: Child,
    keys: KeyPair,
    witness: Arc<OwnedFd>,
}

impl Agent {
    /// A process of that user, or of our own, that vouches for a key pair of its own.
    fn start(dir: &Path, uid: Option<u32>) -> Agent {
        use std::os::unix::process::CommandExt as _;
        let keys = KeyPair::generate(&mut SystemRandom::new());
        let path = dir.join(format!(
            "witness-{}",
            hex::encode(&keys.public().as_bytes()[1..9])
        ));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let message = WitnessedKeys::of(keys.public().as_bytes(), b"").message();
        // Another user may not reach the build's directory.
        let program = dir.join("agent-program");
        if !program.exists() {
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        }
        let mut command = Command::new(program);
        command
            .args(["--ignored", "--exact", "helper_vouches", "--nocapture"])
            .env(SOCKET, &path)
            .env(MESSAGE, hex::encode(message))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines
            .next()
            .expect("the agent vouches")
            .unwrap()
            .contains("VOUCHED")
        {}
        let (socket, _) = listener.accept().unwrap();
        Agent {
            child,
            keys,
            witness: Arc::new(OwnedFd::from(socket)),
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            witness: Some(Arc::clone(&self.witness)),
            ..Evidence::default()
        }
    }

    fn public(&self) -> &[u8] {
        self.keys.public().as_bytes()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Custodian {
    client: TokenClient,
    descriptor: SignedDescriptor,
    dir: TempDir,
}

fn gate(dir: &Path, uid: u32) -> PathBuf {
    let file = dir.join("gate.toml");
    std::fs::write(
        &file,
        format!("require = [\"unix\"]\n[[rule]]\nname = \"agents\"\nuid = {uid}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    file
}

async fn custodian(agents_uid: u32) -> Custodian {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = config(&token(&dir.path().join("token")), &dir.path().join("state"));
    config.attest = Some(gate(dir.path(), agents_uid));
    let client = TokenClient::start(config);
    let descriptor = SignedDescriptor::parse(&client.init().await.unwrap()).unwrap();
    Custodian {
        client,
        descriptor,
        dir,
    }
}

fn refused(result: Result<(), HsmError>, name: &str) {
    let error = result.expect_err(name);
    assert_eq!(error.class, ErrorClass::NotAttested, "{error}");
    assert!(error.text.starts_with(name), "{name} in {error}");
}

#[tokio::test]
async fn a_daemon_that_lies_about_a_caller_gets_no_session() {
    let own = nix::unistd::geteuid().as_raw();
    let custodian = custodian(own).await;
    let agent = Agent::start(custodian.dir.path(), None);
    let liar = KeyPair::generate(&mut SystemRandom::new());
    let open = |key: Vec<u8>, evidence: Evidence| {
        let client = custodian.client.clone();
        async move { client.open_session(&SESSION, &key, &evidence).await }
    };
    // It says that there is a caller.
    refused(
        open(liar.public().as_bytes().to_vec(), Evidence::default()).await,
        "witness_missing",
    );
    // It has a caller, and would have the share for a key of its own.
    refused(
        open(liar.public().as_bytes().to_vec(), agent.evidence()).await,
        "witness_other_key",
    );
    // It shows a connection on which nobody vouched for anything.
    let (silent, _other) = UnixStream::pair().unwrap();
    let evidence = Evidence {
        witness: Some(Arc::new(OwnedFd::from(silent))),
        ..Evidence::default()
    };
    refused(
        open(agent.public().to_vec(), evidence).await,
        "witness_malformed",
    );
    // The nearest neighbour: the truth, also twice.
    for _again in 0..2 {
        open(agent.public().to_vec(), agent.evidence())
            .await
            .unwrap();
    }
    custodian.client.shutdown().await;
}

#[tokio::test]
async fn a_daemon_that_vouches_for_itself_is_no_agent() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: an agent of another user takes root");
        return;
    }
    let custodian = custodian(4242).await;
    let agent = Agent::start(custodian.dir.path(), Some(4242));
    let own = Agent::start(custodian.dir.path(), None);
    let client = &custodian.client;
    refused(
        client
            .open_session(&SESSION, own.public(), &own.evidence())
            .await,
        "no_rule",
    );
    client
        .open_session(&SESSION, agent.public(), &agent.evidence())
        .await
        .unwrap();
    custodian.client.shutdown().await;
}

#[tokio::test]
async fn a_session_ends_with_the_process_that_it_was_opened_for() {
    let own = nix::unistd::geteuid().as_raw();
    let custodian = custodian(own).await;
    let mut agent = Agent::start(custodian.dir.path(), None);
    let client = &custodian.client;
    let sealed = seal(&custodian.descriptor, "openai-prod", 1);
    let row = client.ingest(sealed.ingest()).await.unwrap();
    client
        .open_session(&SESSION, agent.public(), &agent.evidence())
        .await
        .unwrap();
    assert!(client.deliver(&SESSION, row.row()).await.is_ok());
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    let error = client.deliver(&SESSION, row.row()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotAttested, "{error}");
    assert!(error.text.starts_with("dead_peer"), "{error}");
    // Nor is it opened again for the dead, whose connection the daemon still holds.
    refused(
        client
            .open_session(&SESSION, agent.public(), &agent.evidence())
            .await,
        "dead_peer",
    );
    custodian.client.shutdown().await;
}

#[tokio::test]
async fn a_gate_that_changes_acts_at_once_and_a_broken_one_leaves_the_old_in_force() {
    let own = nix::unistd::geteuid().as_raw();
    let custodian = custodian(own).await;
    let agent = Agent::start(custodian.dir.path(), None);
    let client = &custodian.client;
    let open = |session: u8| {
        let (public, evidence) = (agent.public().to_vec(), agent.evidence());
        let client = client.clone();
        async move {
            client
                .open_session(&[session; 16], &public, &evidence)
                .await
        }
    };
    let file = custodian.dir.path().join("gate.toml");
    std::fs::write(
        &file,
        "require = [\"unix\"]\n[[rule]]\nname = \"everybody\"\n",
    )
    .unwrap();
    open(1).await.unwrap();
    gate(custodian.dir.path(), own + 1);
    refused(open(2).await, "no_rule");
    gate(custodian.dir.path(), own);
    open(3).await.unwrap();
    custodian.client.shutdown().await;
}
