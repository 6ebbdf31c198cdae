//! An agent between a hostile app and a scripted upstream, and the property that every attack must leave true.

use std::path::PathBuf;
use std::sync::PoisonError;

use tempfile::TempDir;

use super::agent::{self, Agent, Route, Surroundings};
use super::app::{Answer, App, Heard};
use super::authority::{Authority, Certificate};
use super::request::Seen;
use super::upstream::Upstream;
use super::{count, forms, lines};
use crate::fixture;
use crate::upstream::Provider;

/// Routes of a scene: path prefix, the header that is the credential's slot, what stands before the key in it.
pub const SLOTS: [(Provider, &str, &str); 3] = [
    (Provider::OpenAi, "authorization", "Bearer "),
    (Provider::Anthropic, "x-api-key", ""),
    (Provider::Gemini, "x-goog-api-key", ""),
];

/// Headers that are a credential to some provider, or belong to one hop: none but the filled slot may arrive upstream.
const NEVER_UPSTREAM: [&str; 14] = [
    "api-key",
    "authorization",
    "cookie",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "x-amz-security-token",
    "x-api-key",
    "x-goog-api-key",
    "x-tacit-error",
];

/// One agent, one upstream that all its routes lead to.
pub struct Scene {
    /// The agent under attack.
    pub agent: Agent,
    /// The only place where keys may go.
    pub upstream: Upstream,
    /// The authority that the agent trusts for it.
    pub authority: Authority,
    /// The key of the OpenAI route.
    pub key: String,
    heard: Heard,
    dir: TempDir,
}

impl Scene {
    /// An upstream with a good certificate, the usual surroundings.
    pub async fn start() -> Self {
        Self::start_with(|url| url.to_owned(), Surroundings::default()).await
    }

    /// With `base_url` made from the upstream's own, and these surroundings.
    pub async fn start_with(base_url: impl Fn(&str) -> String, surroundings: Surroundings) -> Self {
        Self::build(
            Certificate::Good,
            fixture::key(Provider::OpenAi).to_owned(),
            base_url,
            surroundings,
        )
        .await
    }

    /// With another certificate at the upstream.
    pub async fn start_before(certificate: Certificate) -> Self {
        let key = fixture::key(Provider::OpenAi).to_owned();
        let surroundings = Surroundings::default();
        Self::build(certificate, key, str::to_owned, surroundings).await
    }

    /// With this key for the OpenAI route.
    pub async fn start_with_key(key: &str) -> Self {
        let surroundings = Surroundings::default();
        Self::build(
            Certificate::Good,
            key.to_owned(),
            str::to_owned,
            surroundings,
        )
        .await
    }

    async fn build(
        certificate: Certificate,
        key: String,
        base_url: impl Fn(&str) -> String,
        surroundings: Surroundings,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let authority = Authority::default();
        let upstream = Upstream::start(&authority, certificate).await;
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).expect("the directory can be written");
        let url = base_url(&upstream.url());
        let files: Vec<(Provider, PathBuf)> = SLOTS
            .iter()
            .map(|(provider, _, _)| {
                let file = dir.path().join(format!("{}.key", provider.name()));
                let key = if *provider == Provider::OpenAi {
                    &key
                } else {
                    fixture::key(*provider)
                };
                secret_file(&file, key);
                (*provider, file)
            })
            .collect();
        let routes: Vec<Route<'_>> = files
            .iter()
            .map(|(provider, file)| Route {
                provider: provider.name(),
                base_url: &url,
                ca: &ca,
                key: file,
            })
            .collect();
        let agent = Agent::start_in(dir.path(), &agent::config(&routes), &surroundings);
        Scene {
            agent,
            upstream,
            authority,
            key,
            heard: Heard::default(),
            dir,
        }
    }

    /// The scene's own directory.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A new connection to the agent.
    pub async fn open(&self) -> App {
        self.try_open().await.expect("the agent takes connections")
    }

    /// The same, which may be refused.
    pub async fn try_open(&self) -> std::io::Result<App> {
        App::open(&self.agent.listen.to_string(), Heard::clone(&self.heard)).await
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let request = request.as_ref();
        let mut app = self.open().await;
        app.send(request).await;
        let method = request.split(|byte| *byte == b' ').next().unwrap_or(b"");
        app.answer(&String::from_utf8_lossy(method))
            .await
            .expect("the agent answers")
    }

    /// These bytes must be refused before anything is sent: one answer, the connection closed, and nothing whole upstream.
    pub async fn refuses(&self, what: &str, request: impl AsRef<[u8]>, status: u16, code: &str) {
        let before = self.whole().len();
        let mut app = self.open().await;
        self.refusal(&mut app, what, request, status, code).await;
        assert!(app.closed().await, "{what}: more than one answer");
        assert_eq!(
            self.whole().len(),
            before,
            "{what}: it reached the upstream"
        );
    }

    /// The answer to these bytes must be a refusal of the agent's own, whatever the upstream said.
    pub async fn blocks(&self, what: &str, request: impl AsRef<[u8]>, status: u16, code: &str) {
        let mut app = self.open().await;
        self.refusal(&mut app, what, request, status, code).await;
        assert!(app.pending().is_empty(), "{what}: more than one answer");
    }

    async fn refusal(
        &self,
        app: &mut App,
        what: &str,
        request: impl AsRef<[u8]>,
        status: u16,
        code: &str,
    ) {
        app.send(request.as_ref()).await;
        let answer = app
            .answer("GET")
            .await
            .unwrap_or_else(|| panic!("{what}: the agent closed without an answer"));
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (status, Some(code)),
            "{what}: {}",
            answer.text()
        );
        assert!(answer.interim.is_empty(), "{what}: {:?}", answer.interim);
        assert!(
            answer.field("x-tacit-request-id").is_some(),
            "{what}: {}",
            answer.head
        );
    }

    /// These bytes must pass: a 200 of the upstream's own, and exactly one request there, which is returned.
    pub async fn passes(&self, what: &str, request: impl AsRef<[u8]>) -> Seen {
        let before = self.whole().len();
        let answer = self.ask(request).await;
        assert_eq!(
            (answer.status, answer.code()),
            (200, None),
            "{what}: {}",
            answer.text()
        );
        let whole = self.whole();
        assert_eq!(whole.len(), before + 1, "{what}: one request");
        whole[before].clone()
    }

    /// The requests that arrived upstream and did not break off.
    pub fn whole(&self) -> Vec<Seen> {
        self.upstream.look(|log| {
            let whole = log.requests.iter().filter(|seen| seen.complete);
            whole.cloned().collect()
        })
    }

    /// Sends these bytes, which are no whole request, and leaves. Returns when the agent has dealt with that.
    pub async fn leaves_after(&self, bytes: impl AsRef<[u8]>) {
        const OPEN: &str = "tacit_agent_connections";
        let mut app = self.open().await;
        app.send(bytes).await;
        self.agent.until(OPEN, |open| open > 0.5).await;
        drop(app);
        self.agent.until(OPEN, |open| open < 0.5).await;
        self.upstream
            .until("the upstream is let go", |log| {
                (log.open == 0).then_some(())
            })
            .await;
    }

    /// The property: key bytes reached only the bound upstream, once in each request, in one slot, and no app in any dress.
    pub fn holds(&self) {
        if let Some(broken) = self.broken(Mark::default()) {
            panic!("{broken}");
        }
        for key in self.keys() {
            let log = self.agent.log();
            let hit = forms::hunt(log.as_bytes(), key.as_bytes());
            assert_eq!(hit, None, "the key is in the log");
        }
    }

    /// Where things stand now.
    pub fn mark(&self) -> Mark {
        Mark {
            requests: self.upstream.look(|log| log.requests.len()),
            heard: self.heard().len(),
        }
    }

    /// What arrived upstream after `mark`.
    pub fn requests_since(&self, mark: Mark) -> Vec<Seen> {
        self.upstream
            .look(|log| log.requests[mark.requests..].to_vec())
    }

    /// How the property was broken after `mark`, if it was.
    pub fn broken(&self, mark: Mark) -> Option<String> {
        for seen in self.requests_since(mark) {
            if let Err(broken) = self.judge(&seen) {
                return Some(format!("{broken}: {seen:#?}"));
            }
        }
        for evidence in self.heard().iter().skip(mark.heard) {
            let hit = |key: &str| forms::hunt(evidence, key.as_bytes());
            if let Some(form) = self.keys().into_iter().find_map(hit) {
                let shown = String::from_utf8_lossy(evidence);
                return Some(format!("an app got the key as {form}: {shown}"));
            }
        }
        None
    }

    /// Adds what an app received in another way to what the hunt looks through.
    pub fn hear(&self, evidence: Vec<u8>) {
        self.heard().push(evidence);
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of each route.
    pub fn keys(&self) -> [&str; 3] {
        SLOTS.map(|(provider, _, _)| match provider {
            Provider::OpenAi => self.key.as_str(),
            other => fixture::key(other),
        })
    }

    /// Whether one request upstream is as every request must be.
    fn judge(&self, seen: &Seen) -> Result<(), String> {
        if let Some(reason) = seen.malformed {
            return Err(format!("malformed upstream: {reason}"));
        }
        if !seen.trailers.is_empty() {
            return Err("trailers upstream".to_owned());
        }
        if seen.fields("host") != [self.upstream.authority()] {
            return Err("another Host than the pinned one".to_owned());
        }
        let filled: Vec<(&str, &str)> = lines(&seen.head)
            .filter(|(name, _)| NEVER_UPSTREAM.iter().any(|n| name.eq_ignore_ascii_case(n)))
            .collect();
        let [(slot, value)] = filled[..] else {
            return Err(format!("not one slot but {filled:?}"));
        };
        let right = SLOTS
            .iter()
            .zip(self.keys())
            .any(|((_, name, prefix), key)| {
                slot.eq_ignore_ascii_case(name) && value == format!("{prefix}{key}")
            });
        if !right {
            return Err("the slot has not the key of its route".to_owned());
        }
        let wire = [seen.head.as_bytes(), &seen.body].concat();
        let times: usize = self
            .keys()
            .iter()
            .map(|key| count(&wire, key.as_bytes()))
            .sum();
        if times != 1 {
            return Err(format!("{times} keys in one request"));
        }
        if let Some((name, _)) = lines(&seen.head).find(|(name, _)| name.contains('_')) {
            return Err(format!("an underscore twin: {name}"));
        }
        Ok(())
    }
}

/// A moment in a scene.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    requests: usize,
    heard: usize,
}

/// Writes a file that only its owner reads.
pub fn secret_file(path: &std::path::Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("the test's directory can be written");
}
