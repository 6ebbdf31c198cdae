//! An agent with one store key, its upstream and the operator's office: what the tests about the daemon begin with.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "test support")]

use std::sync::Arc;

use proto::v1::{Change, watch_response::Kind};
use tempfile::TempDir;

use super::daemon::{self, Daemon, Script, state};
use super::office::Office;
use super::{KEY, Running, Upstream, field, status};

pub const ID: &str = "openai-prod";
pub const ASK: &str = "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";

pub struct Set {
    pub dir: TempDir,
    pub office: Arc<Office>,
    pub upstream: Upstream,
    pub agent: Running,
    pub origin: String,
}

pub async fn set(lease: &str, answer: &'static str) -> Set {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), answer).await;
    let office = Arc::new(Office::new());
    let (text, _) = daemon::config(dir.path(), &office, &upstream, lease);
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, &text).unwrap();
    let agent = Running::from_file(&file).await;
    let origin = format!("https://localhost:{}", upstream.port);
    Set {
        dir,
        office,
        upstream,
        agent,
        origin,
    }
}

impl Set {
    pub fn script(&self) -> Script {
        let sealed = self.office.seal(ID, 1, &self.origin, KEY);
        Script {
            revision: 5,
            keys: [(ID.to_owned(), (sealed, 1))].into(),
            ..Script::default()
        }
    }

    pub fn daemon(&self, script: Script) -> Daemon {
        let socket = self.dir.path().join("hsmd.sock");
        // Left over from a daemon before.
        let _ = std::fs::remove_file(&socket);
        Daemon::start(&socket, &self.office, script)
    }

    /// Changes the agent's file.
    pub fn edit(&self, edit: impl Fn(&str) -> String) {
        let file = self.dir.path().join("agent.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, edit(&text)).unwrap();
    }

    pub async fn ask(&self) -> (u16, Option<String>) {
        let (head, _) = self.agent.ask(ASK).await;
        (status(&head), field(&head, "x-tacit-error"))
    }
}

pub fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

/// Revokes version 1 of the key and waits for the acknowledgement.
pub async fn revoke(daemon: &Daemon) {
    {
        let mut script = daemon.script.lock().unwrap();
        script.refuse = Some("key_revoked");
        script.revision = 6;
    }
    let keys = vec![state(ID, 0, &[1], false)];
    daemon
        .tell(Kind::Change(Change { revision: 6, keys }))
        .await;
    daemon
        .until(|script| {
            script
                .acks
                .iter()
                .any(|ack| ack.revision == 6 && ack.in_use.is_empty())
        })
        .await;
}
