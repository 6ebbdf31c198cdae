//! The choice between keys, hostile answers, and the real ssh-agent where it is installed.

use std::process::{Child, Command, Stdio};

use super::*;

fn key(byte: u8) -> SealerKey {
    SealerKey::new([byte; 32])
}

#[test]
fn one_key_is_taken_and_of_several_the_pinned_one() {
    let nobody = |_: &SealerKey| false;
    assert!(matches!(pick(&[], None, nobody), Err(AgentError::NoKey)));
    assert_eq!(pick(&[key(1)], None, nobody).ok(), Some(key(1)));
    let two = [key(1), key(2)];
    assert!(matches!(
        pick(&two, None, nobody),
        Err(AgentError::Ambiguous { .. })
    ));
    assert_eq!(pick(&two, None, |one| *one == key(2)).ok(), Some(key(2)));
    assert!(matches!(
        pick(&two, None, |_| true),
        Err(AgentError::Ambiguous { .. })
    ));
    let named = fingerprint_of(&key(1));
    assert_eq!(pick(&two, Some(&named), nobody).ok(), Some(key(1)));
    let error = pick(&two, Some("SHA256:other"), nobody).expect_err("not held");
    assert!(error.to_string().contains(&named), "{error}");
}

#[test]
fn cut_off_and_lying_answers_do_not_parse() {
    let mut answer = vec![IDENTITIES_ANSWER];
    answer.extend_from_slice(&1u32.to_be_bytes());
    put(&mut answer, &blob(&key(7)));
    put(&mut answer, b"comment");
    assert_eq!(read_identities(&answer), Some(vec![key(7)]));
    for end in 0..answer.len() {
        assert_eq!(read_identities(&answer[..end]), None, "cut at {end}");
    }
    answer[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(read_identities(&answer), None);
    assert_eq!(read_signature(&[5]), None); // SSH_AGENT_FAILURE
}

/// A real agent for one test, ended with it.
struct RealAgent {
    child: Child,
    dir: tempfile::TempDir,
}

impl RealAgent {
    /// `None` where OpenSSH is not installed.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(dir.path().join("agent.sock"))
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let agent = Self { child, dir };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(agent.socket()).is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "ssh-agent never listened"
            );
            std::thread::yield_now();
        }
        Some(agent)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    fn add(&self, kind: &str, name: &str) {
        let file = self.dir.path().join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-C", name, "-f"])
            .arg(&file)
            .status()
            .expect("ssh-keygen comes with ssh-agent");
        assert!(made.success());
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(&file)
            .env("SSH_AUTH_SOCK", self.socket())
            .status()
            .expect("ssh-add comes with ssh-agent");
        assert!(added.success());
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_real_agent_signs_with_its_ed25519_key_and_not_with_an_ecdsa_one() {
    let Some(agent) = RealAgent::start() else {
        return; // not installed here; the tests above need nothing
    };
    let choose = || SshAgentSealer::choose(&agent.socket(), None, |_| false);
    assert!(matches!(choose(), Err(AgentError::NoKey)));
    agent.add("ecdsa", "other");
    assert!(matches!(choose(), Err(AgentError::NoKey)));
    agent.add("ed25519", "sealer");
    let sealer = choose().expect("the only Ed25519 key");
    let signature = sealer.sign(b"a manifest").expect("signed");
    assert!(sealer.public().verify(b"a manifest", &signature));
    assert!(!sealer.public().verify(b"another", &signature));
}
