//! One session with one daemon: opened at the first that answers, replaced when it is lost, and followed by the watch wherever it goes.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use custody::open::SessionKeys;
use custody::p256::KeyPair;
use custody::rsa::RsaKeyPair;
use custody::witness::WitnessedKeys;
use custody::{Fingerprint, Profile, SystemRandom, Trust};
use proto::v1::OpenSessionRequest;

use super::{Hsmd, HsmdError, Settings, chain, connect, timed};

/// Longest token that is read; daemons accept no longer one.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;

/// A connection with an open session.
pub(crate) struct Connected {
    /// Index of the daemon's socket.
    pub(super) socket: usize,
    pub(super) client: connect::Client,
    pub(super) session_id: [u8; 16],
    pub(super) keys: SessionKeys,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connected({})", self.socket)
    }
}

impl Hsmd {
    /// The open session, or a new one at the first daemon that answers.
    pub(super) async fn connected(&self) -> Result<Arc<Connected>, HsmdError> {
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let _opening = self.opening.lock().await;
        // Whoever was before us may have opened it.
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let preferred = self.preferred.load(Ordering::Relaxed);
        let mut last = HsmdError::Contract("no socket is configured");
        for step in 0..self.sockets.len() {
            let socket = (preferred + step) % self.sockets.len();
            match self.open_session(socket).await {
                Ok(connected) => {
                    let connected = Arc::new(connected);
                    self.preferred.store(socket, Ordering::Relaxed);
                    self.current.send_replace(Some(Arc::clone(&connected)));
                    return Ok(connected);
                }
                Err(error) => {
                    if step + 1 < self.sockets.len() {
                        tracing::warn!(daemon = %self.sockets[socket].display(), error = chain(&error), "trying the next daemon");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The session in use, if there is one.
    fn current(&self) -> Option<Arc<Connected>> {
        self.current.borrow().clone()
    }

    /// Puts a new session in the place of the open one, at the same daemon. The old one serves until then.
    pub(super) async fn renew(&self) {
        let _opening = self.opening.lock().await;
        let Some(before) = self.current() else {
            return;
        };
        let renewed = match self.open_session(before.socket).await {
            Ok(connected) => Some(Arc::new(connected)),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "no new session; the next request opens one"
                );
                None
            }
        };
        self.current.send_replace(renewed);
    }

    /// Lets go of a session that does not work.
    pub(super) fn forget(&self, failed: &Arc<Connected>) {
        self.current.send_if_modified(|current| {
            let is_it = current.as_ref().is_some_and(|now| Arc::ptr_eq(now, failed));
            if is_it {
                *current = None;
            }
            is_it
        });
    }

    /// Lets go of a session whose daemon does not do what it should; the next one is tried first then.
    pub(super) fn turn_from(&self, failed: &Arc<Connected>) {
        let next = (failed.socket + 1) % self.sockets.len();
        self.preferred.store(next, Ordering::Relaxed);
        self.forget(failed);
    }

    /// Resolves when `connected` is not the session in use any more.
    pub(super) async fn replaced(&self, connected: &Arc<Connected>) {
        let mut current = self.current.subscribe();
        let gone =
            current.wait_for(|now| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, connected)));
        // The sender is ours, so it is not gone.
        let _ = gone.await;
    }

    /// Whether another session took the place of `connected`, or does so just now.
    pub(super) async fn was_replaced(&self, connected: &Arc<Connected>) -> bool {
        let _opening = self.opening.lock().await;
        self.current()
            .is_some_and(|now| !Arc::ptr_eq(&now, connected))
    }

    async fn open_session(&self, socket: usize) -> Result<Connected, HsmdError> {
        let path = &self.sockets[socket];
        let mut client = connect::client(path, self.daemon_uid)
            .await
            .map_err(|source| HsmdError::Connect {
                path: path.clone(),
                source,
            })?;
        let Settings { trust, key_ids, .. } = self.settings();
        let keys = session_keys(&trust).await?;
        let p256_public = keys.p256.public().as_bytes().to_vec();
        let rsa = keys.rsa.as_ref().map(|rsa| rsa.public().as_der().to_vec());
        let rsa_public = rsa.unwrap_or_default();
        let vouched = WitnessedKeys::of(&p256_public, &rsa_public);
        let request = OpenSessionRequest {
            service_account_token: self.token(),
            witness: connect::vouch(path, self.daemon_uid, &vouched).await,
            protocol: proto::SESSION_PROTOCOL,
            agent_name: self.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance_id.to_vec(),
            p256_public,
            rsa_public,
            key_ids,
            keeps_terms: true,
        };
        let before = self.seen(socket);
        let answer = client.open_session(timed(request)).await?.into_inner();
        self.not_older(socket, before, answer.revision)?;
        for custodian in &answer.custodians {
            let pinned = fingerprint(&custodian.fingerprint)
                .is_some_and(|fingerprint| trust.any(&fingerprint).is_ok());
            if !pinned {
                tracing::warn!(custodian = %custodian.id.escape_debug(), "hsmd uses a custodian that the trust file does not pin; its shares will not open here");
            }
        }
        let session_id = answer
            .session_id
            .try_into()
            .map_err(|_| HsmdError::Contract("session_id is not 16 bytes"))?;
        tracing::info!(daemon = %path.display(), revision = answer.revision, custodians = answer.custodians.len(), "session open");
        Ok(Connected {
            socket,
            client,
            session_id,
            keys,
        })
    }

    /// The service account token as it is now: kubelets replace it long before it ends. Without one a daemon that needs it says so.
    fn token(&self) -> Vec<u8> {
        let Some(path) = &self.token_file else {
            return Vec::new();
        };
        let mut token = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_end(&mut token));
        if let Err(error) = read {
            tracing::warn!(path = %path.display(), %error, "[attest] token_file cannot be read");
        }
        token.truncate(token.trim_ascii_end().len());
        token
    }

    /// The newest revision that this daemon has told us.
    pub(super) fn seen(&self, socket: usize) -> u64 {
        self.seen[socket].load(Ordering::SeqCst)
    }

    /// Notes a revision, and refuses one that is older than what the same daemon had said *before* it was asked: what it said meanwhile may
    /// be newer than an answer that was already on its way.
    pub(super) fn not_older(&self, socket: usize, before: u64, now: u64) -> Result<(), HsmdError> {
        self.seen[socket].fetch_max(now, Ordering::SeqCst);
        if now < before {
            Err(HsmdError::Older { seen: before, now })
        } else {
            Ok(())
        }
    }
}

/// The agent's half of a session. RSA takes a tenth of a second, so it is made only when a pinned custodian needs it, and off the runtime.
async fn session_keys(trust: &Trust) -> Result<SessionKeys, HsmdError> {
    let p256 = KeyPair::generate(&mut SystemRandom::new());
    let needs_rsa = trust
        .descriptors()
        .iter()
        .any(|descriptor| matches!(descriptor.profile, Profile::RsaOaep(_)));
    let rsa = match needs_rsa {
        false => None,
        true => {
            let made = tokio::task::spawn_blocking(RsaKeyPair::generate).await;
            let made = made.map_err(|_| HsmdError::Contract("the RSA key's task did not end"))?;
            Some(made.map_err(HsmdError::Rsa)?)
        }
    };
    Ok(SessionKeys { p256, rsa })
}

/// A fingerprint from the wire.
pub(super) fn fingerprint(bytes: &[u8]) -> Option<Fingerprint> {
    bytes.try_into().ok().map(Fingerprint::new)
}
