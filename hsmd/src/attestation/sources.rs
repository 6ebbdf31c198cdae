//! The word of Kubernetes, kept for a while: the issuer's keys, the pods of this node, and what the API server thinks of a token.
//!
//! What is known is used until it is old; what is not known is asked for at once, but not more often than a bound allows, so that
//! callers with made-up key names or pods cannot have us hammer the API server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attest::Refused;
use attest::gate::Watched;
use attest::pods::{PODS_BYTES_MAX, Pods};
use attest::token::{Claims, KEYS_BYTES_MAX, KeySet};
use bytes::Bytes;
use serde::Deserialize;

use super::config::AttestConfig;
use super::fetch::Endpoint;

/// Keys are looked at again after this: a key that the issuer withdrew is believed no longer.
const KEYS_LAST: Duration = Duration::from_secs(300);
/// And for an unknown key no more often than this.
const KEYS_PAUSE: Duration = Duration::from_secs(5);
/// The list of pods is as good as new for this long: an agent that starts with its pod is asked about within a second.
const PODS_LAST: Duration = Duration::from_secs(5);
/// And for an unknown pod no more often than this.
const PODS_PAUSE: Duration = Duration::from_millis(250);
/// Longest answer to a TokenReview.
const REVIEW_MAX: usize = 64 * 1024;

/// Something that is fetched and kept.
#[derive(Debug)]
struct Kept<T> {
    endpoint: Endpoint,
    bytes_max: usize,
    lasts: Duration,
    pause: Duration,
    /// Held across a fetch, so that callers who need the same wait for one.
    value: tokio::sync::Mutex<Option<(Arc<T>, Instant)>>,
    parse: fn(&[u8]) -> Result<T, Refused>,
    unavailable: fn(String) -> Refused,
}

impl<T> Kept<T> {
    async fn known(&self) -> Result<Arc<T>, Refused> {
        let mut value = self.value.lock().await;
        match &*value {
            Some((known, at)) if at.elapsed() < self.lasts => Ok(Arc::clone(known)),
            _ => self.fetch(&mut value).await,
        }
    }

    async fn newer(&self) -> Option<Arc<T>> {
        let asked = Instant::now();
        let mut value = self.value.lock().await;
        match &*value {
            // Somebody else fetched it while we waited.
            Some((known, at)) if *at >= asked => Some(Arc::clone(known)),
            Some((_, at)) if at.elapsed() < self.pause => None,
            _ => self.fetch(&mut value).await.ok(),
        }
    }

    async fn fetch(&self, value: &mut Option<(Arc<T>, Instant)>) -> Result<Arc<T>, Refused> {
        let fetched = match self.endpoint.get(self.bytes_max).await {
            Ok(bytes) => (self.parse)(&bytes),
            Err(why) => Err((self.unavailable)(why)),
        };
        let fresh =
            Arc::new(fetched.inspect_err(|refused| tracing::warn!(%refused, "attestation"))?);
        *value = Some((Arc::clone(&fresh), Instant::now()));
        Ok(fresh)
    }
}

/// A file or a server.
#[derive(Debug)]
enum Source<T> {
    File(Mutex<Watched<T>>),
    Server(Kept<T>),
}

/// The issuer's keys.
#[derive(Debug)]
pub(super) struct KeySource(Source<KeySet>);

impl KeySource {
    pub(super) fn new(config: &AttestConfig) -> Option<Self> {
        let kubernetes = &config.kubernetes;
        if let Some(path) = &kubernetes.jwks_file {
            return Some(Self(Source::File(Mutex::new(Watched::new(path.clone())))));
        }
        let mut endpoint = Endpoint::parse(kubernetes.jwks_url.as_deref()?)?;
        endpoint.ca_file.clone_from(&kubernetes.ca_file);
        endpoint.token_file.clone_from(&kubernetes.api_token_file);
        Some(Self(Source::Server(Kept {
            endpoint,
            bytes_max: KEYS_BYTES_MAX,
            lasts: KEYS_LAST,
            pause: KEYS_PAUSE,
            value: tokio::sync::Mutex::new(None),
            parse: KeySet::parse,
            unavailable: Refused::KeysUnavailable,
        })))
    }

    pub(super) async fn known(&self) -> Result<Arc<KeySet>, Refused> {
        match &self.0 {
            Source::File(file) => load(
                file,
                KEYS_BYTES_MAX,
                Refused::KeysUnavailable,
                KeySet::parse,
            ),
            Source::Server(kept) => kept.known().await,
        }
    }

    /// Newer ones, if there may be any: a file was looked at just now.
    pub(super) async fn newer(&self) -> Option<Arc<KeySet>> {
        match &self.0 {
            Source::File(_) => None,
            Source::Server(kept) => kept.newer().await,
        }
    }
}

/// The pods of this node.
#[derive(Debug)]
pub(super) struct PodSource(Source<Pods>);

impl PodSource {
    pub(super) fn new(config: &AttestConfig) -> Option<Self> {
        let kubernetes = &config.kubernetes;
        if let Some(path) = &kubernetes.pods_file {
            return Some(Self(Source::File(Mutex::new(Watched::new(path.clone())))));
        }
        let mut endpoint = Endpoint::parse(kubernetes.kubelet_url.as_deref()?)?;
        endpoint.ca_file.clone_from(&kubernetes.kubelet_ca_file);
        endpoint
            .token_file
            .clone_from(&kubernetes.kubelet_token_file);
        Some(Self(Source::Server(Kept {
            endpoint,
            bytes_max: PODS_BYTES_MAX,
            lasts: PODS_LAST,
            pause: PODS_PAUSE,
            value: tokio::sync::Mutex::new(None),
            parse: Pods::parse,
            unavailable: Refused::PodsUnavailable,
        })))
    }

    pub(super) async fn known(&self) -> Result<Arc<Pods>, Refused> {
        match &self.0 {
            Source::File(file) => load(file, PODS_BYTES_MAX, Refused::PodsUnavailable, Pods::parse),
            Source::Server(kept) => kept.known().await,
        }
    }

    pub(super) async fn newer(&self) -> Option<Arc<Pods>> {
        match &self.0 {
            Source::File(_) => None,
            Source::Server(kept) => kept.newer().await,
        }
    }
}

fn load<T>(
    file: &Mutex<Watched<T>>,
    bytes_max: usize,
    unavailable: fn(String) -> Refused,
    parse: fn(&[u8]) -> Result<T, Refused>,
) -> Result<Arc<T>, Refused> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.load(
        bytes_max,
        || unavailable("its file cannot be read".to_owned()),
        parse,
    )
}

/// The API server's opinion of tokens: it knows of pods and accounts that were deleted since.
#[derive(Debug)]
pub(super) struct Review {
    endpoint: Endpoint,
    audience: String,
}

#[derive(Debug, Deserialize)]
struct Reviewed {
    status: ReviewStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    audiences: Vec<String>,
    user: ReviewUser,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewUser {
    username: String,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl Review {
    pub(super) fn new(config: &AttestConfig) -> Option<Self> {
        let kubernetes = &config.kubernetes;
        if !kubernetes.token_review {
            return None;
        }
        let mut endpoint = Endpoint::parse(kubernetes.api_server.as_deref()?)?;
        endpoint.ca_file.clone_from(&kubernetes.ca_file);
        endpoint.token_file.clone_from(&kubernetes.api_token_file);
        Some(Self {
            endpoint: endpoint.at("/apis/authentication.k8s.io/v1/tokenreviews"),
            audience: kubernetes.audience.clone()?,
        })
    }

    /// The API server must know the token, for us, as what it says it is.
    pub(super) async fn confirm(&self, token: &[u8], claims: &Claims) -> Result<(), Refused> {
        let token = std::str::from_utf8(token).map_err(|_| Refused::TokenMalformed)?;
        let question = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token, "audiences": [self.audience] },
        });
        let answer = self
            .endpoint
            .post(Bytes::from(question.to_string()), REVIEW_MAX)
            .await;
        let answer = answer.map_err(Refused::ReviewUnavailable)?;
        let no_review = |_| Refused::ReviewUnavailable("the answer is no TokenReview".to_owned());
        let Reviewed { status } = serde_json::from_slice(&answer).map_err(no_review)?;
        let account = format!(
            "system:serviceaccount:{}:{}",
            claims.namespace, claims.service_account
        );
        let pod = status
            .user
            .extra
            .get("authentication.kubernetes.io/pod-uid");
        let is_it = status.authenticated
            && status.audiences.contains(&self.audience)
            && status.user.username == account
            && pod.is_none_or(|uids| uids.contains(&claims.pod_uid));
        is_it.then_some(()).ok_or(Refused::TokenReviewed)
    }
}
