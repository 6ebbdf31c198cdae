//! The daemon's client: sessions and leases over its workload socket, opened straight into the arena.
//!
//! With `watch` and `report` the only room that names generated messages. What the daemon sends is believed only as far as the trust file
//! goes: the sealer's signature, the pinned custodians, and the header that opened decide; the daemon's own fields are compared with them.

mod connect;
mod report;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody::open::{self, Delivered, Expectation, Material, OpenError, SessionKeys};
use custody::p256::KeyPair;
use custody::rsa::RsaKeyPair;
use custody::{Fingerprint, Profile, SystemRandom, Trust};
use proto::v1::{LeaseRequest, LeaseResponse, OpenSessionRequest};
use secret::{Arena, check_header_safe};
use tonic::{Request, Status};

use super::{KeySource, Lease, Leasing, Wanted};
use crate::config;
use crate::respond::{Code, Refusal};

pub use report::report;
pub use watch::{Control, Watch};

/// How long one unary call may take. A daemon answers in milliseconds; a hung one must leave time to ask the next.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the client is made of.
#[derive(Debug)]
pub struct Hsmd {
    /// This agent's name, or empty.
    name: String,
    /// Random per start.
    instance_id: [u8; 16],
    sockets: Vec<PathBuf>,
    /// A user, besides root and our own, that a daemon may run as.
    daemon_uid: Option<u32>,
    arena: Arena,
    settings: RwLock<Settings>,
    /// The session in use. One at a time: whoever opens one holds this, the others wait.
    connected: tokio::sync::Mutex<Preferred>,
    /// Newest store revision seen, by socket. A daemon with an older store is not believed.
    seen: Vec<AtomicU64>,
}

/// What a reload of the configuration may change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pinned custodians and sealers.
    pub trust: Arc<Trust>,
    /// Keys that the routes name.
    pub key_ids: Vec<String>,
    /// What to ask for.
    pub lease: config::Lease,
}

#[derive(Debug, Default)]
struct Preferred {
    socket: usize,
    connected: Option<Arc<Connected>>,
}

/// A connection with an open session.
pub(crate) struct Connected {
    /// Index of the daemon's socket.
    socket: usize,
    client: connect::Client,
    session_id: [u8; 16],
    keys: SessionKeys,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connected({})", self.socket)
    }
}

/// Why a daemon gave no lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HsmdError {
    /// No socket answers.
    #[error("cannot connect to hsmd at {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// What the system or the peer check said.
        #[source]
        source: connect::ConnectError,
    },
    /// It answered no.
    #[error("hsmd refused: {0}")]
    Refused(String, Code, Again),
    /// Its store is older than what it told us before.
    #[error(
        "hsmd has an older store than before (revision {now} after {seen}); a restored backup? See tacit doctor"
    )]
    Older {
        /// What we have seen.
        seen: u64,
        /// What it says now.
        now: u64,
    },
    /// Its answer is not what the contract says.
    #[error("hsmd's answer breaks the contract: {0}")]
    Contract(&'static str),
    /// Its answer does not open.
    #[error("the lease does not open")]
    Open(#[from] OpenError),
    /// The arena is full.
    #[error("no room for the key")]
    Arena(#[from] secret::ArenaError),
    /// The RSA key for an `rsa-oaep` custodian could not be made.
    #[error("cannot make the session's RSA key")]
    Rsa(#[source] custody::FormatError),
}

/// Whether asking again, with a new session or another daemon, can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

impl HsmdError {
    fn again(&self) -> Again {
        match self {
            Self::Refused(_, _, again) => *again,
            Self::Connect { .. } | Self::Older { .. } | Self::Contract(_) => Again::Yes,
            // Deliveries of a token that was restarted in between; everything else about provenance is final.
            Self::Open(OpenError::Delivery { .. }) => Again::Yes,
            Self::Open(_) | Self::Arena(_) | Self::Rsa(_) => Again::No,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(_, Code::KeyRevoked, _) => Refusal::new(
                Code::KeyRevoked,
                "the key was revoked; ask your security team",
            ),
            Self::Refused(_, Code::UpstreamNotAllowed, _)
            | Self::Open(OpenError::UpstreamNotAllowed { .. } | OpenError::OtherProvider { .. }) => {
                Refusal::new(
                    Code::UpstreamNotAllowed,
                    "the key's sealed header does not name this route's provider and origin; seal it with --upstream, or correct base_url",
                )
            }
            Self::Refused(_, Code::PermissionDenied, _) => Refusal::new(
                Code::PermissionDenied,
                "this workload may not use the key, or there is no such key; see tacit key show",
            ),
            Self::Open(_) => Refusal::new(
                Code::HsmUnavailable,
                "the lease did not open; see the agent's log",
            ),
            Self::Connect { .. } => Refusal::new(Code::HsmUnavailable, "hsmd cannot be reached"),
            Self::Refused(..)
            | Self::Older { .. }
            | Self::Contract(_)
            | Self::Arena(_)
            | Self::Rsa(_) => Refusal::new(
                Code::HsmUnavailable,
                "hsmd cannot grant a lease now; see the agent's log",
            ),
        }
    }
}

impl From<Status> for HsmdError {
    /// The stable code travels in metadata; the text is hsmd's own and goes to the log alone.
    fn from(status: Status) -> Self {
        let code = status
            .metadata()
            .get(proto::ERROR_KEY)
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        let (code, again) = match code {
            "key_revoked" => (Code::KeyRevoked, Again::No),
            "upstream_not_allowed" => (Code::UpstreamNotAllowed, Again::No),
            "permission_denied" | "not_found" => (Code::PermissionDenied, Again::No),
            _ => (Code::HsmUnavailable, Again::Yes),
        };
        Self::Refused(status.message().to_owned(), code, again)
    }
}

impl Hsmd {
    /// A client of the daemons at `sockets`, tried in order.
    pub fn new(
        config: &config::Config,
        settings: Settings,
        arena: Arena,
        instance_id: [u8; 16],
    ) -> Self {
        Self {
            name: config.name.clone(),
            instance_id,
            seen: config.hsmd.iter().map(|_| AtomicU64::new(0)).collect(),
            sockets: config.hsmd.clone(),
            daemon_uid: config.hsmd_uid,
            arena,
            settings: RwLock::new(settings),
            connected: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over a changed configuration; the next lease opens a new session, which names the new keys.
    pub async fn change(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        self.connected.lock().await.connected = None;
    }

    fn settings(&self) -> Settings {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The open session, or a new one at the first daemon that answers.
    async fn connected(&self) -> Result<Arc<Connected>, HsmdError> {
        let mut preferred = self.connected.lock().await;
        if let Some(connected) = &preferred.connected {
            return Ok(Arc::clone(connected));
        }
        let mut last = HsmdError::Contract("no socket is configured");
        for step in 0..self.sockets.len() {
            let socket = (preferred.socket + step) % self.sockets.len();
            match self.open_session(socket).await {
                Ok(connected) => {
                    let connected = Arc::new(connected);
                    *preferred = Preferred {
                        socket,
                        connected: Some(Arc::clone(&connected)),
                    };
                    return Ok(connected);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Lets go of a session that does not work; the next daemon is tried first then.
    async fn forget(&self, failed: &Arc<Connected>, next: bool) {
        let mut preferred = self.connected.lock().await;
        if preferred
            .connected
            .as_ref()
            .is_some_and(|connected| Arc::ptr_eq(connected, failed))
        {
            preferred.connected = None;
            if next {
                preferred.socket = (failed.socket + 1) % self.sockets.len();
            }
        }
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
        let request = OpenSessionRequest {
            protocol: proto::SESSION_PROTOCOL,
            agent_name: self.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance_id.to_vec(),
            p256_public: keys.p256.public().as_bytes().to_vec(),
            rsa_public: keys
                .rsa
                .as_ref()
                .map(|rsa| rsa.public().as_der().to_vec())
                .unwrap_or_default(),
            key_ids,
        };
        let answer = client.open_session(timed(request)).await?.into_inner();
        self.not_older(socket, answer.revision)?;
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

    /// Notes a revision, and refuses one that is older than what the same daemon said before.
    fn not_older(&self, socket: usize, now: u64) -> Result<(), HsmdError> {
        let seen = self.seen[socket].fetch_max(now, Ordering::SeqCst);
        if now < seen {
            Err(HsmdError::Older { seen, now })
        } else {
            Ok(())
        }
    }

    async fn grant(&self, wanted: &Wanted) -> Result<Arc<Lease>, HsmdError> {
        // One round for each daemon, and one more for a session that went stale while it was not used.
        let mut rounds = self.sockets.len() + 1;
        let mut stale = true;
        loop {
            rounds -= 1;
            let connected = self.connected().await?;
            match self.ask(&connected, wanted).await {
                Ok(lease) => return Ok(Arc::new(lease)),
                Err(error) if error.again() == Again::No || rounds == 0 => return Err(error),
                Err(_) => self.forget(&connected, !std::mem::take(&mut stale)).await,
            }
        }
    }

    async fn ask(&self, connected: &Connected, wanted: &Wanted) -> Result<Lease, HsmdError> {
        let Settings { trust, lease, .. } = self.settings();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = LeaseRequest {
            session_id: connected.session_id.to_vec(),
            key_id: wanted.key_id.to_string(),
            provider: wanted.provider.clone(),
            upstream: wanted.origin.to_string(),
            ttl_ms: ms(lease.ttl),
            offline_grace_ms: ms(lease.offline_grace),
        };
        let answer = connected
            .client
            .clone()
            .lease(timed(request))
            .await?
            .into_inner();
        self.not_older(connected.socket, answer.revision)?;
        self.open(connected, &trust, wanted, &answer)
    }

    /// From the daemon's answer to a key in the arena.
    #[allow(
        clippy::disallowed_methods,
        reason = "the opened key is written straight into its slot, and checked there"
    )]
    fn open(
        &self,
        connected: &Connected,
        trust: &Trust,
        wanted: &Wanted,
        answer: &LeaseResponse,
    ) -> Result<Lease, HsmdError> {
        let signature: &[u8; 64] = answer
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| HsmdError::Contract("signature is not 64 bytes"))?;
        let material = Material {
            header: &answer.header,
            envelope: &answer.envelope,
            manifest: &answer.manifest,
            signature,
        };
        let expect = Expectation {
            key_id: &wanted.key_id,
            provider: &wanted.provider,
            origin: &wanted.origin,
        };
        let checked = open::check(trust, material, expect)?;
        let header = checked.provenance().header();
        if header.version != answer.version || header.generation != answer.generation {
            return Err(HsmdError::Contract(
                "version or generation is not that of the header",
            ));
        }
        let deliveries = answer
            .deliveries
            .iter()
            .map(|delivery| {
                Some(Delivered {
                    x: u8::try_from(delivery.x).ok()?,
                    fingerprint: fingerprint(&delivery.fingerprint)?,
                    wrapped: &delivery.wrapped,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(HsmdError::Contract(
                "a delivery has no index or fingerprint",
            ))?;
        let mut slot = self.arena.slot(checked.plaintext_len())?;
        checked.open(
            trust,
            &connected.keys,
            &connected.session_id,
            &deliveries,
            slot.expose_mut(),
        )?;
        check_header_safe(slot.expose())
            .map_err(|_| HsmdError::Contract("the opened key cannot stand in a header"))?;
        Ok(Lease {
            key_id: wanted.key_id.clone(),
            version: answer.version,
            source: connected.socket,
            revision: answer.revision,
            provider: header.provider.clone(),
            upstreams: header.upstreams.clone(),
            ttl: Duration::from_millis(answer.ttl_ms),
            offline_grace: Duration::from_millis(answer.offline_grace_ms)
                .min(self.settings().lease.offline_grace),
            secret: slot,
        })
    }
}

impl KeySource for Hsmd {
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a> {
        Box::pin(async move {
            self.grant(wanted).await.map_err(|error| {
                tracing::warn!(key = %wanted.key_id, error = chain(&error), "no lease");
                error.refusal()
            })
        })
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

fn fingerprint(bytes: &[u8]) -> Option<Fingerprint> {
    bytes.try_into().ok().map(Fingerprint::new)
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
