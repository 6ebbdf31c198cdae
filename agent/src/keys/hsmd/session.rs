//! One session with each daemon: opened when it is needed, replaced when it is lost, and followed by the daemon's watch.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use custody::open::SessionKeys;
use custody::p256::KeyPair;
use custody::rsa::RsaKeyPair;
use custody::witness::WitnessedKeys;
use custody::{Fingerprint, Profile, SystemRandom, Trust};
use proto::v1::{OpenSessionRequest, OpenSessionResponse};

use super::{Hsmd, HsmdError, Settings, chain, connect, timed};

/// Longest token that is read; daemons accept no longer one.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;

/// A connection with an open session.
pub(crate) struct Connected {
    /// Index of the daemon.
    pub(super) source: usize,
    pub(super) client: connect::Client,
    pub(super) session_id: [u8; 16],
    pub(super) keys: SessionKeys,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connected({})", self.source)
    }
}

impl Hsmd {
    /// The open session with a daemon, or a new one.
    pub(super) async fn connected(&self, source: usize) -> Result<Arc<Connected>, HsmdError> {
        let daemon = &self.daemons[source];
        if let Some(connected) = daemon.session() {
            return Ok(connected);
        }
        let _opening = daemon.opening.lock().await;
        // Whoever was before us may have opened it.
        if let Some(connected) = daemon.session() {
            return Ok(connected);
        }
        let connected = Arc::new(self.open_session(source).await?);
        daemon.current.send_replace(Some(Arc::clone(&connected)));
        daemon.heard();
        self.gauge();
        Ok(connected)
    }

    /// Puts new sessions in the places of the open ones. The old ones serve until then.
    pub(super) async fn renew(&self) {
        let each = (0..self.daemons.len()).map(|source| self.renew_one(source));
        futures_util::future::join_all(each).await;
    }

    async fn renew_one(&self, source: usize) {
        let daemon = &self.daemons[source];
        let _opening = daemon.opening.lock().await;
        if daemon.session().is_none() {
            return;
        }
        let renewed = match self.open_session(source).await {
            Ok(connected) => Some(Arc::new(connected)),
            Err(error) => {
                tracing::warn!(
                    daemon = %daemon.path.display(),
                    error = chain(&error),
                    "no new session; the next request opens one"
                );
                None
            }
        };
        daemon.current.send_replace(renewed);
        self.gauge();
    }

    /// Lets go of a session that does not work.
    pub(super) fn forget(&self, failed: &Arc<Connected>) {
        let current = &self.daemons[failed.source].current;
        current.send_if_modified(|current| {
            let is_it = current.as_ref().is_some_and(|now| Arc::ptr_eq(now, failed));
            if is_it {
                *current = None;
            }
            is_it
        });
        self.gauge();
    }

    /// Resolves when `connected` is not its daemon's session in use any more.
    pub(super) async fn replaced(&self, connected: &Arc<Connected>) {
        let mut current = self.daemons[connected.source].current.subscribe();
        let gone =
            current.wait_for(|now| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, connected)));
        // The sender is ours, so it is not gone.
        let _ = gone.await;
    }

    /// Whether another session took the place of `connected`, or does so just now.
    pub(super) async fn was_replaced(&self, connected: &Arc<Connected>) -> bool {
        let daemon = &self.daemons[connected.source];
        let _opening = daemon.opening.lock().await;
        daemon
            .session()
            .is_some_and(|now| !Arc::ptr_eq(&now, connected))
    }

    async fn open_session(&self, source: usize) -> Result<Connected, HsmdError> {
        let daemon = &self.daemons[source];
        let mut client = connect::client(&daemon.path, daemon.uid)
            .await
            .map_err(|error| HsmdError::Connect {
                path: daemon.path.clone(),
                source: error,
            })?;
        let Settings { trust, key_ids, .. } = self.settings();
        let keys = session_keys(&trust).await?;
        let p256_public = keys.p256.public().as_bytes().to_vec();
        let rsa = keys.rsa.as_ref().map(|rsa| rsa.public().as_der().to_vec());
        let rsa_public = rsa.unwrap_or_default();
        let vouched = WitnessedKeys::of(&p256_public, &rsa_public);
        let request = OpenSessionRequest {
            service_account_token: self.token(),
            witness: connect::vouch(&daemon.path, daemon.uid, &vouched).await,
            protocol: proto::SESSION_PROTOCOL,
            agent_name: self.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance_id.to_vec(),
            p256_public,
            rsa_public,
            key_ids,
            keeps_terms: true,
        };
        let before = daemon.seen();
        let answer = client.open_session(timed(request)).await?.into_inner();
        daemon.not_older(before, answer.revision)?;
        daemon.set_up(pinned(&trust, &answer), Some(answer.part));
        let session_id = answer
            .session_id
            .try_into()
            .map_err(|_| HsmdError::Contract("session_id is not 16 bytes"))?;
        tracing::info!(daemon = %daemon.path.display(), revision = answer.revision, custodians = answer.custodians.len(), part = answer.part, "session open");
        Ok(Connected {
            source,
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
}

/// The custodians of a new session whose shares can open here.
fn pinned(trust: &Trust, answer: &OpenSessionResponse) -> BTreeSet<Fingerprint> {
    let mut custodians = BTreeSet::new();
    for custodian in &answer.custodians {
        match fingerprint(&custodian.fingerprint).filter(|one| trust.any(one).is_ok()) {
            Some(fingerprint) => {
                custodians.insert(fingerprint);
            }
            None => {
                tracing::warn!(custodian = %custodian.id.escape_debug(), "hsmd uses a custodian that the trust file does not pin; its shares will not open here");
            }
        }
    }
    custodians
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
