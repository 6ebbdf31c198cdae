//! The scene of the whole stack's stories, with what an operator and an app do on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{self, PLACEHOLDER};
use crate::http;
use crate::seal::{self, Sealed};
use crate::stack::{Route, Sockets, Stack};
use crate::upstream::{Provider, Upstream};

const CHAT: &str = "/openai/v1/chat/completions";

/// Tokens, daemon, agent and a test provider, and an operator who puts keys in.
pub struct Scene {
    /// The processes.
    pub stack: Stack,
    /// The provider.
    pub upstream: Upstream,
    /// What is outside of the stack's own directory: certificate, sealed files, captured output.
    pub outside: TempDir,
}

impl Scene {
    /// Tokens, daemon and agent, with no key yet.
    pub async fn start(lease_ttl: &str) -> anyhow::Result<Self> {
        Self::start_with(lease_ttl, Sockets::Direct).await
    }

    /// The same, with taps on the daemon's sockets or without.
    pub async fn start_with(lease_ttl: &str, sockets: Sockets) -> anyhow::Result<Self> {
        Self::start_where("", lease_ttl, sockets).await
    }

    /// The same, with `more` tables in the agent's file.
    pub async fn start_where(
        more: &str,
        lease_ttl: &str,
        sockets: Sockets,
    ) -> anyhow::Result<Self> {
        let outside = tempfile::tempdir()?;
        let upstream = Upstream::start(fixture::provider()).await?;
        let ca = outside.path().join("ca.pem");
        upstream.write_ca(&ca)?;
        let routes: Vec<Route> = Provider::SHARED
            .iter()
            .map(|provider| Route::store(provider.name(), &id(*provider)))
            .collect();
        let stack = Stack::start_with(more, &routes, &upstream.url(), &ca, lease_ttl, sockets)?;
        Ok(Scene {
            stack,
            upstream,
            outside,
        })
    }

    /// `tacit key add`, with the key on standard input.
    pub fn add(&self, provider: Provider) -> anyhow::Result<Value> {
        let (id, upstream) = (id(provider), self.upstream.url());
        let arguments = [
            "key",
            "add",
            &id,
            "--provider",
            provider.name(),
            "--upstream",
            &upstream,
            "--no-test",
        ];
        self.stack
            .tacit_json(&arguments, fixture::key(provider).as_bytes())
    }

    /// The same, sealed offline with recorded randomness.
    pub fn add_recorded(&self, provider: Provider) -> anyhow::Result<Sealed> {
        let environment = |name: &str| self.stack.environment(name).map(PathBuf::from);
        let sealed = seal::recorded(
            &environment("TACIT_TRUST")?,
            &environment("TACIT_SEALER")?,
            &id(provider),
            1,
            provider.name(),
            &self.upstream.url(),
            fixture::key(provider).as_bytes(),
        )?;
        let file = self.outside.path().join("sealed");
        std::fs::write(&file, &sealed.armor)?;
        let file = file.to_str().context("temporary paths are text")?;
        self.stack.tacit_json(
            &["key", "add", &id(provider), "--sealed", file, "--no-test"],
            b"",
        )?;
        Ok(sealed)
    }

    /// One chat request of an app with a placeholder.
    pub fn chat(&self) -> anyhow::Result<http::Answer> {
        let body =
            json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "one two"}]});
        http::post(
            &format!("{}{CHAT}", self.stack.agent()?),
            &format!("authorization: Bearer {PLACEHOLDER}\r\n"),
            &body,
        )
    }

    /// That many requests over a few connections that stay open, all served; and the connections, still open.
    pub fn load(&self, requests: usize) -> anyhow::Result<Vec<http::Wire>> {
        const CONNECTIONS: usize = 4;
        let agent = self.stack.agent()?;
        let wires: anyhow::Result<Vec<_>> =
            (0..CONNECTIONS).map(|_| http::Wire::open(agent)).collect();
        let mut wires = wires?;
        for n in 0..requests {
            // Of another length each time: a copy in the tail of a buffer shows.
            let text = "one two ".repeat(1 + n * 7 % 40);
            let body =
                json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": text}]});
            let body = body.to_string();
            let wire = &mut wires[n % CONNECTIONS];
            wire.send(format!(
                "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))?;
            let answer = wire.answer()?;
            ensure!(answer.status == 200, "{}: {}", answer.head, answer.text());
        }
        Ok(wires)
    }

    /// The key with which the last request arrived.
    pub fn last_key(&self) -> anyhow::Result<String> {
        let seen = self.upstream.requests().pop().context("nothing arrived")?;
        let value = String::from_utf8(seen.header("authorization")[0].to_vec())?;
        Ok(value.trim_start_matches("Bearer ").to_owned())
    }

    /// Runs `check` while requests go through the agent without pause; all of them must succeed.
    pub fn serving(&self, check: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let traffic = threads.spawn(|| -> anyhow::Result<u32> {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = self.chat()?;
                    ensure!(answer.status == 200, "{}: {}", answer.head, answer.text());
                    served += 1;
                }
                Ok(served)
            });
            let checked = check();
            stop.store(true, Ordering::Relaxed);
            let served = traffic
                .join()
                .map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
            ensure!(served > 0, "nothing was served meanwhile");
            checked
        })
    }
}

/// The id of a provider's key in these stories.
pub fn id(provider: Provider) -> String {
    format!("{}-prod", provider.name())
}
