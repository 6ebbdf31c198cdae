//! The daemon's handle on one custodian: async verbs over the pipelined protocol, with a deadline that frees the caller.
//!
//! A handle is cheap to clone; behind it one task owns the token process (`supervisor.rs`). No PKCS#11 runs here, and
//! nothing that passes through is a share, a provider key or a PIN: only ciphertext, MACs, names and public keys, and the
//! keys under which the parts of the store's own key rest.
//!
//! After a restart of the token process its sessions are gone: `deliver` then says [`ErrorClass::UnknownSession`], and the
//! daemon opens the session again with the agent's public key that it kept.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secret::Secret;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::config::TokenConfig;
use crate::error::{ErrorClass, HsmError, Result};
pub use crate::revoked::RevokedSet;
use crate::snapshot::{Counters, Health, Snapshot, Verb};
use crate::supervisor::{self, Job};
use crate::wire::{Answer, Presented, Request, write_request};
pub use crate::wire::{Hello, Ingest, Ingested, Revoked, ShareRow, State};
use zeroize::Zeroizing;

/// Requests that may wait for the supervisor's task. Past this the token is overloaded and waiting would only add latency.
const QUEUE_MAX: usize = 1024;

/// `init` may generate several RSA keys, each of which takes seconds on a real token.
pub(crate) const INIT_FACTOR: u32 = 24;

/// What a caller showed when its session was opened, to be shown to token processes.
#[derive(Clone, Default)]
pub struct Evidence {
    /// Its service account token; empty when it sent none.
    pub token: Zeroizing<Vec<u8>>,
    /// Its witness connection.
    pub witness: Option<Arc<OwnedFd>>,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (token, witness) = (!self.token.is_empty(), self.witness.is_some());
        write!(f, "Evidence {{ token: {token}, witness: {witness} }}")
    }
}

/// What handles and the supervisor's task share.
pub(crate) struct Shared {
    pub(crate) config: TokenConfig,
    pub(crate) counters: Counters,
    pub(crate) health: watch::Sender<Health>,
    /// Requests whose deadline passed, for the supervisor to decide whether the process hangs.
    pub(crate) overdue: Mutex<Vec<u64>>,
    pub(crate) overdue_added: Notify,
    next_id: AtomicU64,
}

/// The handle. Dropping the last one ends the token process.
#[derive(Clone)]
pub struct TokenClient {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenClient")
            .field("custodian", &self.shared.config.id)
            .finish_non_exhaustive()
    }
}

impl TokenClient {
    /// Starts the supervisor's task on the current tokio runtime; the token process follows at once. Never fails: what is
    /// wrong shows in [`TokenClient::health`] and in each call's error.
    #[must_use]
    pub fn start(config: TokenConfig) -> TokenClient {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            config,
            counters: Counters::default(),
            health: watch::Sender::new(Health::Starting),
            overdue: Mutex::new(Vec::new()),
            overdue_added: Notify::new(),
            next_id: AtomicU64::new(1),
        });
        tokio::spawn(supervisor::run(Arc::clone(&shared), queue));
        TokenClient { shared, jobs }
    }

    /// The custodian's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.config.id
    }

    /// The health, to read (`.borrow()`) or to wait for (`.wait_for(..)`).
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Health and counts at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let health = self.shared.health.borrow().clone();
        self.shared
            .counters
            .snapshot(&self.shared.config.id, health)
    }

    /// Who is there: protocol version, serial, module, whether `init` was run.
    ///
    /// # Errors
    /// As for every verb: see [`ErrorClass`].
    pub async fn hello(&self) -> Result<Hello> {
        match self
            .call(
                Verb::Hello,
                &Request::Hello {
                    version: crate::wire::VERSION,
                },
            )
            .await?
        {
            Answer::Hello(hello) => Ok(hello),
            other => Err(unexpected(&other)),
        }
    }

    /// Creates the objects that are missing, picks the profile by running it, and returns the encoded descriptor.
    /// Resumable; a second run changes nothing.
    ///
    /// # Errors
    /// [`ErrorClass::ModuleUnfit`] when no profile works on this token, and as for every verb.
    pub async fn init(&self) -> Result<Vec<u8>> {
        self.descriptor(Verb::Init, &Request::Init).await
    }

    /// The encoded, self-signed custodian descriptor.
    ///
    /// # Errors
    /// [`ErrorClass::ObjectsMissing`] before `init`, and as for every verb.
    pub async fn describe(&self) -> Result<Vec<u8>> {
        self.descriptor(Verb::Describe, &Request::Describe).await
    }

    /// Binds an agent's ephemeral public key (in the profile's encoding) to a session id. Idempotent for the same key.
    ///
    /// # Errors
    /// [`ErrorClass::BadPoint`] for a key that is none, and as for every verb.
    /// `evidence` is what the caller showed, for a token process that judges by itself; [`ErrorClass::NotAttested`] is its no.
    pub async fn open_session(
        &self,
        session: &[u8; 16],
        agent: &[u8],
        evidence: &Evidence,
    ) -> Result<()> {
        let request = Request::OpenSession {
            session,
            agent,
            evidence: Presented {
                token: &evidence.token,
                witness: evidence.witness.is_some(),
            },
        };
        let witness = evidence.witness.clone();
        match self.call_with(Verb::OpenSession, &request, witness).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Forgets a session; an unknown one is no error.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn close_session(&self, session: &[u8; 16]) -> Result<()> {
        self.done(Verb::CloseSession, &Request::CloseSession { session })
            .await
    }

    /// Takes in a sealed share. The row's identity comes out of the header.
    ///
    /// # Errors
    /// [`ErrorClass::CheckMismatch`], [`ErrorClass::BadRecord`], [`ErrorClass::Revoked`], and as for every verb.
    pub async fn ingest(&self, ingest: Ingest<'_>) -> Result<Ingested> {
        match self.call(Verb::Ingest, &Request::Ingest(ingest)).await? {
            Answer::Ingested(ingested) => Ok(ingested),
            other => Err(unexpected(&other)),
        }
    }

    /// The share, wrapped to the session's agent.
    ///
    /// # Errors
    /// [`ErrorClass::UnknownSession`], [`ErrorClass::MacMismatch`], [`ErrorClass::Revoked`], and as for every verb.
    pub async fn deliver(&self, session: &[u8; 16], row: ShareRow<'_>) -> Result<Vec<u8>> {
        match self
            .call(Verb::Deliver, &Request::Deliver { session, row })
            .await?
        {
            Answer::Delivered(wrapped) => Ok(wrapped),
            other => Err(unexpected(&other)),
        }
    }

    /// The share's check value, recomputed inside the token.
    ///
    /// # Errors
    /// [`ErrorClass::MacMismatch`], and as for every verb.
    pub async fn check(&self, row: ShareRow<'_>) -> Result<[u8; 32]> {
        self.digest(Verb::Check, &Request::Check { row }).await
    }

    /// The answer to a receipt's challenge.
    ///
    /// # Errors
    /// [`ErrorClass::MacMismatch`], and as for every verb.
    pub async fn answer(&self, row: ShareRow<'_>, challenge: &[u8; 32]) -> Result<[u8; 32]> {
        self.digest(Verb::Answer, &Request::Answer { row, challenge })
            .await
    }

    /// This custodian's MAC over a record of the store.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn mac_record(&self, bytes: &[u8]) -> Result<[u8; 32]> {
        self.digest(Verb::MacRecord, &Request::MacRecord { bytes })
            .await
    }

    /// Whether this custodian wrote the record.
    ///
    /// # Errors
    /// [`ErrorClass::MacMismatch`] when it did not, and as for every verb.
    pub async fn verify_record(&self, bytes: &[u8], mac: &[u8; 32]) -> Result<()> {
        self.done(Verb::VerifyRecord, &Request::VerifyRecord { bytes, mac })
            .await
    }

    /// What the token remembers of the store.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn read_state(&self) -> Result<State> {
        match self.call(Verb::ReadState, &Request::ReadState).await? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the token remember a store. `revoked` is *added* to its set (any order, duplicates are fine), which never shrinks.
    /// The same revision with the same digest again is no error.
    ///
    /// # Errors
    /// [`ErrorClass::StateOlder`] for a lower revision, or the same with another digest; and as for every verb.
    pub async fn write_state(
        &self,
        revision: u64,
        digest: &[u8; 32],
        revoked: &[Revoked],
    ) -> Result<()> {
        let revoked = revoked.iter().cloned().collect();
        self.done(
            Verb::WriteState,
            &Request::WriteState {
                revision,
                digest,
                revoked,
            },
        )
        .await
    }

    /// ECDSA P-256 over the statement, under the token's statement key: r ‖ s.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn sign_statement(&self, bytes: &[u8]) -> Result<[u8; 64]> {
        self.signature(Verb::SignStatement, &Request::SignStatement { bytes })
            .await
    }

    /// A signature over a fresh challenge under the key that signs the token's descriptor: r ‖ s, for
    /// [`custody::Descriptor::verify_possession`]. A descriptor alone proves nothing, since anyone can repeat it.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn prove_possession(&self, challenge: &[u8; 32]) -> Result<[u8; 64]> {
        self.signature(
            Verb::ProvePossession,
            &Request::ProvePossession { challenge },
        )
        .await
    }

    /// The key under which this custodian's part of the store's key rests: an HMAC of the salt that no other door of the
    /// token process gives.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn store_part(&self, salt: &[u8; 32]) -> Result<Arc<Secret<[u8; 32]>>> {
        match self
            .call(Verb::StorePart, &Request::StorePart { salt })
            .await?
        {
            Answer::PartKey(key) => Ok(key),
            other => Err(unexpected(&other)),
        }
    }

    /// A real generate, wrap, unwrap and MAC on the token.
    ///
    /// # Errors
    /// As for every verb.
    pub async fn self_test(&self) -> Result<()> {
        self.done(Verb::SelfTest, &Request::SelfTest).await
    }

    /// Removes the PIN latch and forgives poisoned inputs, then logs in again: one more attempt.
    ///
    /// # Errors
    /// [`ErrorClass::PinIncorrect`] when the token refuses the PIN again, and as for every verb.
    pub async fn unlatch(&self) -> Result<()> {
        self.done(Verb::Unlatch, &Request::Unlatch).await
    }

    /// Ends the token process in order (a child; a service of its own stays) and the supervisor's task with it.
    pub async fn shutdown(&self) {
        let (ended, wait) = oneshot::channel();
        if self.jobs.send(Job::Shutdown { ended }).await.is_ok() {
            let _ = wait.await;
        }
    }

    async fn descriptor(&self, verb: Verb, request: &Request<'_>) -> Result<Vec<u8>> {
        match self.call(verb, request).await? {
            Answer::Descriptor(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    async fn signature(&self, verb: Verb, request: &Request<'_>) -> Result<[u8; 64]> {
        match self.call(verb, request).await? {
            Answer::Signature(signature) => Ok(signature),
            other => Err(unexpected(&other)),
        }
    }

    async fn digest(&self, verb: Verb, request: &Request<'_>) -> Result<[u8; 32]> {
        match self.call(verb, request).await? {
            Answer::Digest(digest) => Ok(digest),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, verb: Verb, request: &Request<'_>) -> Result<()> {
        match self.call(verb, request).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// One request and its answer, or an error when the deadline passes first.
    async fn call(&self, verb: Verb, request: &Request<'_>) -> Result<Answer> {
        self.call_with(verb, request, None).await
    }

    /// The same, with a descriptor that goes along.
    async fn call_with(
        &self,
        verb: Verb,
        request: &Request<'_>,
        descriptor: Option<Arc<OwnedFd>>,
    ) -> Result<Answer> {
        let started = Instant::now();
        let counters = &self.shared.counters;
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let flight = InFlight(counters);
        let result = self.exchange(request, descriptor).await;
        drop(flight);
        counters.ended(
            verb,
            started.elapsed(),
            result.as_ref().err().map(|error| error.class),
        );
        result
    }

    async fn exchange(
        &self,
        request: &Request<'_>,
        descriptor: Option<Arc<OwnedFd>>,
    ) -> Result<Answer> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::with_capacity(512);
        write_request(&mut frame, id, request)
            .map_err(|error| HsmError::new(ErrorClass::BadRequest, error.to_string()))?;
        let (answer, wait) = oneshot::channel();
        let slow = matches!(request, Request::Init);
        self.jobs
            .try_send(Job::Call {
                id,
                frame,
                descriptor,
                slow,
                answer,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => HsmError::new(
                    ErrorClass::Busy,
                    format!("{QUEUE_MAX} requests already wait for this custodian"),
                ),
                mpsc::error::TrySendError::Closed(_) => {
                    HsmError::new(ErrorClass::Down, "the custodian was shut down")
                }
            })?;
        match tokio::time::timeout(self.deadline(slow), wait).await {
            Ok(Ok(Answer::Failed(error))) => Err(error),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(HsmError::new(
                ErrorClass::Down,
                "the custodian was shut down",
            )),
            Err(_) => Err(self.give_up(id)),
        }
    }

    fn deadline(&self, slow: bool) -> Duration {
        let timeout = self.shared.config.call_timeout;
        if slow { timeout * INIT_FACTOR } else { timeout }
    }

    fn give_up(&self, id: u64) -> HsmError {
        self.shared
            .overdue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
        self.shared.overdue_added.notify_one();
        HsmError::new(
            ErrorClass::Timeout,
            format!(
                "no answer from the token process of {} within {:?}",
                self.id(),
                self.shared.config.call_timeout
            ),
        )
    }
}

/// Counts a request as under way until it is dropped, also when the caller's future is.
struct InFlight<'a>(&'a Counters);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unexpected(answer: &Answer) -> HsmError {
    let kind = match answer {
        Answer::Failed(_) => "a failure",
        Answer::Done => "an empty answer",
        Answer::Hello(_) => "a greeting",
        Answer::Descriptor(_) => "a descriptor",
        Answer::Ingested(_) => "an ingested share",
        Answer::Delivered(_) => "a delivered share",
        Answer::Digest(_) => "a digest",
        Answer::Signature(_) => "a signature",
        Answer::State(_) => "a state",
        Answer::PartKey(_) => "a key of a part",
    };
    HsmError::new(
        ErrorClass::BadRequest,
        format!("the token process answered with {kind}: another version is installed?"),
    )
}
