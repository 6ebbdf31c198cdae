//! The policy kernel: what a token process does with each request. Pure over `trait Hsm`.
//!
//! The rules, each in one place: points are parsed before the token sees them; a row's MAC is verified before its share is
//! unwrapped; a revoked version is never ingested or delivered; an input that killed the process twice is refused for a while; a failure
//! is retried at most once, after what the token's answer called for; and when it could be the token or the input, a
//! self-test decides. Where there is a gate, no session is opened for a caller that it has not admitted, and none outlives that caller's
//! process. No method here can return a share, since `trait Hsm` has none that does.

mod approve;
mod init;
mod journal;
mod prove;
mod sessions;
mod shares;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use attest::gate::Gate;
use custody::storekey::part_key_message;
use custody::{CustodianId, Profile, SignedDescriptor, record_mac_message};

use secret::Secret;

use crate::error::{ErrorClass, HsmError};
use crate::revoked::RevokedSet;
use crate::state;
use crate::token::{DataObject, Fault, Hsm, Identity, MacKey, Outcome, Reaction, Resident};
use crate::wire::{Answer, Hello, Request, State, VERSION};

pub use journal::Journal;
use sessions::{SESSIONS_MAX, Sessions};

/// What the kernel knows beside its token.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The custodian's id; bound into every context.
    pub custodian: CustodianId,
    /// The profile the operator pinned, by name; otherwise `init` picks.
    pub profile: Option<String>,
    /// Nothing but approved algorithms; see [`crate::fips`].
    pub fips: bool,
}

/// The custodian once its descriptor is known.
#[derive(Debug, Clone)]
struct Own {
    signed: SignedDescriptor,
    encoded: Vec<u8>,
    fingerprint: custody::Fingerprint,
}

/// The kernel.
#[derive(Debug)]
pub struct Kernel<H: Hsm> {
    hsm: H,
    /// Who may have sessions; without one, whoever the daemon says.
    gate: Option<Gate>,
    settings: Settings,
    journal: Journal,
    sessions: Sessions<H::Object>,
    own: Option<Own>,
    state: Option<State>,
    /// Whether this process has read attributes back and passed a self-test.
    proven: bool,
    /// What of the work itself was read back by this process.
    seen: Seen,
    failed: bool,
}

/// The self-test reads objects of its own back; so that a module cannot behave for it alone, the first one of each real kind
/// is read back as well.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    ingested: bool,
    stored: bool,
    session: bool,
}

impl<H: Hsm> Kernel<H> {
    /// A kernel over this token.
    pub fn new(hsm: H, settings: Settings, journal: Journal) -> Kernel<H> {
        Kernel {
            hsm,
            gate: None,
            settings,
            journal,
            sessions: Sessions::new(SESSIONS_MAX),
            own: None,
            state: None,
            proven: false,
            seen: Seen::default(),
            failed: false,
        }
    }

    /// The same kernel, which opens sessions only for callers that this gate admits.
    #[must_use]
    pub fn guarded_by(mut self, gate: Gate) -> Kernel<H> {
        self.gate = Some(gate);
        self
    }

    /// Whether the token failed its self-test after an error: the process should end and be replaced.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The token, for tests.
    pub fn hsm_mut(&mut self) -> &mut H {
        &mut self.hsm
    }

    /// Does what the request asks. Never panics on a request, whatever it holds.
    pub fn handle(&mut self, request: &Request<'_>) -> Answer {
        self.handle_with(request, None)
    }

    /// The same, with the witness connection that came with it.
    pub fn handle_with(&mut self, request: &Request<'_>, witness: Option<OwnedFd>) -> Answer {
        self.journal.enter();
        let answer = self
            .dispatch(request, witness)
            .unwrap_or_else(Answer::Failed);
        self.journal.leave();
        answer
    }

    fn dispatch(
        &mut self,
        request: &Request<'_>,
        witness: Option<OwnedFd>,
    ) -> Result<Answer, HsmError> {
        match request {
            Request::Hello { version } => self.hello(*version),
            Request::Init => self.retry(Self::init).map(Answer::Descriptor),
            Request::Describe => {
                self.retry(|kernel| Ok(Answer::Descriptor(kernel.own()?.encoded.clone())))
            }
            Request::OpenSession {
                session,
                agent,
                evidence,
            } => self.open_session(session, agent, evidence.token, witness),
            Request::CloseSession { session } => self.close_session(session),
            Request::Ingest(ingest) => self.ingest(ingest),
            Request::Deliver { session, row } => self.deliver(session, row),
            Request::Check { row } => self.check(row),
            Request::Answer { row, challenge } => self.answer(row, challenge),
            Request::MacRecord { bytes } => {
                let message = record_mac_message(bytes);
                self.retry(|kernel| kernel.prove()?.hmac(MacKey::Own, &message))
                    .map(Answer::Digest)
            }
            Request::VerifyRecord { bytes, mac } => {
                let message = record_mac_message(bytes);
                match self.retry(|kernel| kernel.prove()?.hmac_matches(&message, mac))? {
                    true => Ok(Answer::Done),
                    false => Err(HsmError::new(
                        ErrorClass::MacMismatch,
                        "this custodian did not write this record",
                    )),
                }
            }
            Request::ReadState => self
                .retry(|kernel| Ok(kernel.state()?.clone()))
                .map(Answer::State),
            Request::WriteState {
                revision,
                digest,
                revoked,
            } => self
                .retry(|kernel| kernel.write_state(*revision, digest, revoked))
                .map(|()| Answer::Done),
            Request::SignStatement { bytes } => {
                let message = custody::statement::signing_message(bytes);
                self.retry(|kernel| kernel.prove()?.sign(Resident::SignStatement, &message))
                    .map(Answer::Signature)
            }
            Request::ProvePossession { challenge } => {
                let message = custody::descriptor::possession_message(challenge);
                self.retry(|kernel| kernel.prove()?.sign(Resident::SignDescriptor, &message))
                    .map(Answer::Signature)
            }
            Request::StorePart { salt } => {
                let message = part_key_message(salt);
                self.retry(|kernel| kernel.prove()?.hmac(MacKey::Own, &message))
                    .map(|key| Answer::PartKey(Arc::new(Secret::new(Box::new(key)))))
            }
            Request::SelfTest => self.retry(Self::self_test).map(|()| Answer::Done),
            Request::Unlatch => self.unlatch(),
            Request::Shutdown => Ok(Answer::Done),
        }
    }

    /// Reaches the token; a heartbeat must also notice that it was taken away.
    fn hello(&mut self, version: u32) -> Result<Answer, HsmError> {
        if version != VERSION {
            let text = format!(
                "this token process speaks protocol {VERSION}, the daemon {version}: install both from one release"
            );
            return Err(HsmError::new(ErrorClass::BadRequest, text));
        }
        let identity = self.retry(|kernel| kernel.hsm.ready())?;
        let initialised = match self.retry(|kernel| kernel.own().map(|_| ())) {
            Ok(()) => true,
            Err(error) if error.class == ErrorClass::ObjectsMissing => false,
            Err(error) => return Err(error),
        };
        let Identity { serial, module, .. } = identity;
        let custodian = self.settings.custodian.to_string();
        Ok(Answer::Hello(Hello {
            version: VERSION,
            custodian,
            serial,
            module,
            initialised,
            fips: self.settings.fips,
        }))
    }

    fn unlatch(&mut self) -> Result<Answer, HsmError> {
        self.journal.forgive().map_err(|error| {
            HsmError::new(
                ErrorClass::Device,
                format!("cannot clear the list of poisoned inputs: {error}"),
            )
        })?;
        self.hsm.unlatch().map_err(|fault| fault.error)?;
        self.retry(|kernel| kernel.hsm.ready())
            .map(|_| Answer::Done)
    }

    /// Runs `work`; after a failure that calls for something, does that and runs it once more.
    fn retry<T>(&mut self, mut work: impl FnMut(&mut Self) -> Outcome<T>) -> Result<T, HsmError> {
        let fault = match work(self) {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        match fault.reaction {
            Reaction::NewSession | Reaction::LogIn | Reaction::Reinitialise => {
                // What happens while the token is brought back is not the input's doing.
                let input = self.journal.pause();
                self.hsm
                    .recover(fault.reaction)
                    .map_err(|fault| fault.error)?;
                if fault.reaction == Reaction::Reinitialise {
                    // Another token may sit there now: nothing that was read from the old one is believed.
                    self.forget();
                }
                if let Some(input) = input {
                    self.settle().map_err(|fault| fault.error)?;
                    self.journal.begin(&input);
                }
                work(self).map_err(|fault| fault.error)
            }
            Reaction::SelfTest => Err(self.suspect(fault.error)),
            Reaction::Latch | Reaction::BadInput | Reaction::Later | Reaction::Refuse => {
                Err(fault.error)
            }
        }
    }

    /// The token gave an answer that can mean a bad input or a bad token.
    fn suspect(&mut self, error: HsmError) -> HsmError {
        if self.own.is_none() {
            return error;
        }
        match self.self_test() {
            Ok(()) => HsmError::new(
                ErrorClass::BadRecord,
                format!(
                    "{}; the token passes its self-test, so the record is bad",
                    error.text
                ),
            ),
            Err(fault) => {
                self.failed = true;
                let text = format!(
                    "{}; the token fails its self-test ({}) and its process is replaced",
                    error.text, fault.error.text
                );
                HsmError::new(ErrorClass::Device, text)
            }
        }
    }

    fn forget(&mut self) {
        (self.own, self.state, self.proven) = (None, None, false);
        self.seen = Seen::default();
    }

    /// Own descriptor, read from the token once and compared with the keys that are there.
    fn own(&mut self) -> Outcome<&Own> {
        if self.own.is_none() {
            let identity = self.hsm.ready()?;
            self.own = Some(self.load_own(&identity)?);
        }
        Ok(self.own.as_ref().expect("set just above"))
    }

    fn profile(&mut self) -> Outcome<Profile> {
        Ok(self.own()?.signed.descriptor.profile)
    }

    /// The token, after this process has seen once that it honours attributes and works.
    fn prove(&mut self) -> Outcome<&mut H> {
        self.hsm.ready()?;
        if !self.proven {
            self.own()?;
            self.self_test()?;
            self.proven = true;
            self.journal.convict();
        }
        Ok(&mut self.hsm)
    }

    /// All that can fail without an input: reach the token, prove it, read what it remembers.
    fn settle(&mut self) -> Outcome<()> {
        self.prove()?;
        self.state().map(|_| ())
    }

    fn state(&mut self) -> Outcome<&State> {
        if self.state.is_none() {
            self.prove()?;
            let stored = self.hsm.read_data(DataObject::State)?;
            let mut newest: Option<State> = None;
            for bytes in &stored {
                let parsed = state::parse(bytes).ok_or_else(|| {
                    let text = "the state object on the token is not of a format that this release reads: install the newer one";
                    Fault::refuse(ErrorClass::ObjectsMissing, text)
                })?;
                // Two after an interrupted replacement: the newer one is complete, since it was written first.
                if newest
                    .as_ref()
                    .is_none_or(|state| state.revision <= parsed.revision)
                {
                    newest = Some(merge(newest.take(), parsed));
                }
            }
            self.state = Some(newest.unwrap_or_default());
        }
        Ok(self.state.as_ref().expect("set just above"))
    }

    fn write_state(
        &mut self,
        revision: u64,
        digest: &[u8; 32],
        revoked: &RevokedSet,
    ) -> Outcome<()> {
        // Read again: another daemon that drives this token may have written since.
        self.state = None;
        let now = self.state()?;
        let next = state::advance(now, revision, digest, revoked).map_err(refused)?;
        if next != *now {
            let bytes = state::encode(&next).map_err(refused)?;
            self.hsm.replace_data(DataObject::State, &bytes)?;
            self.state = Some(next);
        }
        Ok(())
    }

    fn refuse_revoked(&mut self, key_id: &str, version: u32) -> Outcome<()> {
        if self.state()?.revoked.contains(key_id, version) {
            return Err(Fault::refuse(
                ErrorClass::Revoked,
                format!("version {version} of {key_id} is revoked on this token"),
            ));
        }
        Ok(())
    }
}

/// The newer state with all that either has revoked: a revocation is never lost to an interruption.
fn merge(older: Option<State>, mut newer: State) -> State {
    if let Some(older) = older {
        newer.revoked = newer.revoked.union(&older.revoked);
    }
    newer
}

fn refused(error: HsmError) -> Fault {
    Fault {
        reaction: Reaction::Refuse,
        error,
    }
}
