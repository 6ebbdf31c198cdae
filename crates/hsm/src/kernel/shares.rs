//! Shares: in (`Ingest`), out to an agent's session (`Deliver`), and proofs of possession (`Check`, `Answer`).
//!
//! Each unwrapped share is a session object that is destroyed before the request is answered, whatever happened.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use attest::Refused;
use attest::gate::Admitted;
use custody::p256::Point;
use custody::rsa::RsaPublic;
use custody::session::{deliver_context, seal_context};
use custody::share::{answer_message, check_message};
use custody::{Header, Profile, RowIdentity, sha256};
use subtle::ConstantTimeEq;

use super::sessions::Agent;
use super::{Journal, Kernel};
use crate::error::{ErrorClass, HsmError};
use crate::token::{Fault, Hsm, Kind, MacKey, Outcome, Resident, Wrapper};
use crate::wire::{Answer, Ingest, Ingested, ShareRow};

/// Kinds of input in the journal.
const AGENT_KEY: u8 = 1;
const SEALED: u8 = 2;
const ROW: u8 = 3;

impl<H: Hsm> Kernel<H> {
    pub(super) fn open_session(
        &mut self,
        id: &[u8; 16],
        public: &[u8],
        token: &[u8],
        witness: Option<OwnedFd>,
    ) -> Result<Answer, HsmError> {
        let profile = self.retry(Self::profile)?;
        let agent = parse_agent(profile, public)?;
        self.drop_if_dead(id);
        if let Some(session) = self.sessions.touch(id) {
            return if session.agent == agent {
                Ok(Answer::Done)
            } else {
                Err(HsmError::new(
                    ErrorClass::BadRequest,
                    "the session is open with another public key",
                ))
            };
        }
        let admitted = self.admit(public, token, witness)?;
        let input = match &agent {
            Agent::Ec(point) => Journal::name(AGENT_KEY, point.as_bytes()),
            Agent::Rsa(key) => Journal::name(AGENT_KEY, key.as_der()),
        };
        let object = self.guarded(input, |kernel| kernel.session_object(id, &agent))?;
        if let Some(evicted) = self.sessions.insert(*id, agent, object, admitted) {
            self.discard(evicted);
        }
        Ok(Answer::Done)
    }

    /// Asks the gate, if there is one, whose key this is. Nothing that a token does for a session comes before its yes.
    fn admit(
        &mut self,
        public: &[u8],
        token: &[u8],
        witness: Option<OwnedFd>,
    ) -> Result<Option<Admitted>, HsmError> {
        let Some(gate) = &mut self.gate else {
            return Ok(None);
        };
        if let Err(error) = gate.refresh() {
            // The service's journal. Who was admitted before is admitted still; nobody else becomes so by a broken file.
            let _ = writeln!(std::io::stderr(), "tacit-token: {error}; the old one holds");
        }
        gate.judge(witness, public, token, SystemTime::now())
            .map(Some)
            .map_err(not_attested)
    }

    /// Whether the session's own process still runs; a session ends with it.
    fn drop_if_dead(&mut self, id: &[u8; 16]) -> Option<HsmError> {
        let session = self.sessions.touch(id)?;
        let refused = session.admitted.as_ref()?.check().err()?;
        if let Some(object) = self.sessions.remove(id) {
            self.discard(object);
        }
        Some(not_attested(refused))
    }

    pub(super) fn close_session(&mut self, id: &[u8; 16]) -> Result<Answer, HsmError> {
        if let Some(object) = self.sessions.remove(id) {
            self.discard(object);
        }
        Ok(Answer::Done)
    }

    /// Derives (or imports) what a session wraps with.
    fn session_object(&mut self, id: &[u8; 16], agent: &Agent) -> Outcome<(u64, H::Object)> {
        let object = match (self.profile()?, agent) {
            (Profile::EcdhKw(kdf), Agent::Ec(point)) => {
                let context = deliver_context(&self.settings.custodian, id, point);
                let key = self
                    .prove()?
                    .derive(Resident::Transport, point, kdf, &context)?;
                if !self.seen.session {
                    self.read_back(key, Kind::SessionKey)?;
                    self.seen.session = true;
                }
                key
            }
            (Profile::RsaOaep(_), Agent::Rsa(key)) => self.prove()?.import(key)?,
            (Profile::EcdhKw(_), Agent::Rsa(_)) | (Profile::RsaOaep(_), Agent::Ec(_)) => {
                return Err(Fault::refuse(
                    ErrorClass::UnknownSession,
                    "the token's profile has changed: open a new session",
                ));
            }
        };
        Ok((self.hsm.epoch(), object))
    }

    /// The wrapper of a session, derived again when the token lost it.
    fn session_wrapper(&mut self, id: &[u8; 16]) -> Outcome<Wrapper<'static, H::Object>> {
        let profile = self.profile()?;
        let epoch = self.hsm.epoch();
        let unknown = || {
            Fault::refuse(
                ErrorClass::UnknownSession,
                "the token process does not know this session: open it again",
            )
        };
        let session = self.sessions.touch(id).ok_or_else(unknown)?;
        let object = match session.object {
            Some((made_in, object)) if made_in == epoch => object,
            _ => {
                let agent = session.agent.clone();
                let fresh = self.session_object(id, &agent)?;
                self.sessions.touch(id).ok_or_else(unknown)?.object = Some(fresh);
                fresh.1
            }
        };
        Ok(match profile {
            Profile::EcdhKw(_) => Wrapper::Session(object),
            Profile::RsaOaep(hash) => Wrapper::RsaAgent(object, hash),
        })
    }

    pub(super) fn ingest(&mut self, ingest: &Ingest<'_>) -> Result<Answer, HsmError> {
        let header = Header::parse(ingest.header)
            .map_err(|error| HsmError::new(ErrorClass::BadRequest, error.to_string()))?;
        // The self-test's own KEK has a name that is none: no share is ever wrapped under it.
        if let Err(error) = ingest.compartment.parse::<custody::KeyId>() {
            let text = format!("the compartment: {error}");
            return Err(HsmError::new(ErrorClass::BadRequest, text));
        }
        let fingerprint = self.retry(|kernel| Ok(kernel.own()?.fingerprint))?;
        let x = header.index_of(&fingerprint).ok_or_else(|| {
            let text = format!("the header does not name this custodian's descriptor ({fingerprint}): it was sealed for others, or before a rekey");
            HsmError::new(ErrorClass::BadRequest, text)
        })?;
        let identity = RowIdentity {
            key_id: header.key_id.clone(),
            version: header.version,
            generation: header.generation,
            x,
            compartment: ingest.compartment.to_owned(),
            fingerprint,
            header_hash: sha256(ingest.header),
            sealer: header.sealer,
        };
        let input = Journal::name(SEALED, ingest.sealed);
        let ingested = self.guarded(input, |kernel| kernel.take_in(&identity, ingest))?;
        Ok(Answer::Ingested(ingested))
    }

    fn take_in(&mut self, identity: &RowIdentity, ingest: &Ingest<'_>) -> Outcome<Ingested> {
        self.refuse_revoked(identity.key_id.as_str(), identity.version)?;
        let share = self.open_sealed(&identity.header_hash, ingest.sealed)?;
        if !self.seen.ingested {
            self.read_back(share, Kind::Share)?;
            self.seen.ingested = true;
        }
        let rewrapped = self.examine_and_wrap(share, identity, ingest);
        let destroyed = self.hsm.destroy(share);
        let wrapped = rewrapped?;
        destroyed?;
        let mac = self
            .hsm
            .hmac(MacKey::Own, &identity.mac_message(&sha256(&wrapped)))?;
        Ok(Ingested {
            identity: identity.encode(),
            wrapped,
            mac,
        })
    }

    /// Opens a share as it came from the sealer.
    pub(super) fn open_sealed(
        &mut self,
        header_hash: &[u8; 32],
        sealed: &[u8],
    ) -> Outcome<H::Object> {
        match self.profile()? {
            Profile::EcdhKw(kdf) => {
                let (point, wrapped) = sealed
                    .split_at_checked(custody::p256::POINT_BYTES)
                    .ok_or_else(|| {
                        Fault::refuse(ErrorClass::BadRecord, "the sealed share is cut short")
                    })?;
                let ephemeral = Point::parse(point)
                    .map_err(|error| Fault::refuse(ErrorClass::BadPoint, error.to_string()))?;
                let context = seal_context(&self.settings.custodian, header_hash, &ephemeral);
                let key = self.hsm.derive(Resident::Seal, &ephemeral, kdf, &context)?;
                let share = self.hsm.unwrap(Wrapper::Session(key), wrapped);
                let destroyed = self.hsm.destroy(key);
                let share = share?;
                destroyed?;
                Ok(share)
            }
            Profile::RsaOaep(hash) => self.hsm.unwrap(Wrapper::RsaSeal(hash), sealed),
        }
    }

    fn examine_and_wrap(
        &mut self,
        share: H::Object,
        identity: &RowIdentity,
        ingest: &Ingest<'_>,
    ) -> Outcome<Vec<u8>> {
        let check = self
            .hsm
            .hmac(MacKey::Share(share), &check_message(&identity.header_hash))?;
        if !bool::from(check.ct_eq(ingest.check)) {
            let text = "the share is not the one that the operator signed: seal the key again";
            return Err(Fault::refuse(ErrorClass::CheckMismatch, text));
        }
        match self.profile()? {
            Profile::EcdhKw(_) => {
                self.hsm.create_kek(&identity.compartment)?;
                self.hsm.wrap(Wrapper::Kek(&identity.compartment), share)
            }
            // At rest it stays as the sealer made it: the token holds the only key.
            Profile::RsaOaep(_) => Ok(ingest.sealed.to_vec()),
        }
    }

    pub(super) fn deliver(
        &mut self,
        session: &[u8; 16],
        row: &ShareRow<'_>,
    ) -> Result<Answer, HsmError> {
        let identity = parse_identity(row)?;
        if let Some(error) = self.drop_if_dead(session) {
            return Err(error);
        }
        let wrapped = self.guarded(Journal::name(ROW, row.wrapped), |kernel| {
            kernel.refuse_revoked(identity.key_id.as_str(), identity.version)?;
            let wrapper = kernel.session_wrapper(session)?;
            kernel.with_share(&identity, row, |hsm, share| hsm.wrap(wrapper, share))
        })?;
        Ok(Answer::Delivered(wrapped))
    }

    pub(super) fn check(&mut self, row: &ShareRow<'_>) -> Result<Answer, HsmError> {
        let identity = parse_identity(row)?;
        self.share_hmac(&identity, row, &check_message(&identity.header_hash))
    }

    pub(super) fn answer(
        &mut self,
        row: &ShareRow<'_>,
        challenge: &[u8; 32],
    ) -> Result<Answer, HsmError> {
        let identity = parse_identity(row)?;
        self.share_hmac(
            &identity,
            row,
            &answer_message(&identity.header_hash, challenge),
        )
    }

    fn share_hmac(
        &mut self,
        identity: &RowIdentity,
        row: &ShareRow<'_>,
        message: &[u8],
    ) -> Result<Answer, HsmError> {
        let digest = self.guarded(Journal::name(ROW, row.wrapped), |kernel| {
            kernel.with_share(identity, row, |hsm, share| {
                hsm.hmac(MacKey::Share(share), message)
            })
        })?;
        Ok(Answer::Digest(digest))
    }

    /// Verifies the row's MAC, unwraps the share, works with it, destroys it. The only door to a stored share.
    fn with_share<T>(
        &mut self,
        identity: &RowIdentity,
        row: &ShareRow<'_>,
        work: impl FnOnce(&mut H, H::Object) -> Outcome<T>,
    ) -> Outcome<T> {
        let profile = self.profile()?;
        let hsm = self.prove()?;
        if !hsm.hmac_matches(&identity.mac_message(&sha256(row.wrapped)), row.mac)? {
            let text = format!(
                "the share row of {} version {} was not written by this custodian, or was changed since",
                identity.key_id, identity.version
            );
            return Err(Fault::refuse(ErrorClass::MacMismatch, text));
        }
        let wrapper = match profile {
            Profile::EcdhKw(_) => Wrapper::Kek(identity.compartment.as_str()),
            Profile::RsaOaep(hash) => Wrapper::RsaSeal(hash),
        };
        let share = hsm.unwrap(wrapper, row.wrapped)?;
        if !self.seen.stored {
            self.read_back(share, Kind::Share)?;
            self.seen.stored = true;
        }
        let done = work(&mut self.hsm, share);
        let destroyed = self.hsm.destroy(share);
        let done = done?;
        destroyed?;
        Ok(done)
    }

    /// Reads an object's attributes back, and destroys it if the module ignored them.
    fn read_back(&mut self, object: H::Object, kind: Kind) -> Outcome<()> {
        let outcome = self.hsm.read_back(object, kind);
        if outcome.is_err() {
            let _ = self.hsm.destroy(object);
        }
        outcome
    }

    /// Runs work on an input that could kill the token, with the journal around it. The token shows first that it works
    /// without the input: an outage must not be blamed on whatever happened to be asked for.
    fn guarded<T>(
        &mut self,
        input: [u8; 32],
        work: impl FnMut(&mut Self) -> Outcome<T>,
    ) -> Result<T, HsmError> {
        if let Err(error) = self.retry(Self::settle) {
            self.journal.acquit();
            return Err(error);
        }
        if self.journal.is_poisoned(&input) {
            let text = "this input was in work both times when the token process died, and is refused for some minutes; `tacit custodian unlatch` gives it another chance now";
            return Err(HsmError::new(ErrorClass::Poisoned, text));
        }
        self.journal.begin(&input);
        let result = self.retry(work);
        self.journal.end(&input);
        result
    }

    /// Destroys a session's object if it still exists; a failure costs the token a few bytes until the process ends.
    fn discard(&mut self, (epoch, object): (u64, H::Object)) {
        if epoch == self.hsm.epoch() {
            let _ = self.hsm.destroy(object);
        }
    }
}

fn not_attested(refused: Refused) -> HsmError {
    HsmError::new(
        ErrorClass::NotAttested,
        format!("{}: {refused}", refused.name()),
    )
}

fn parse_agent(profile: Profile, agent: &[u8]) -> Result<Agent, HsmError> {
    let parsed = match profile {
        Profile::EcdhKw(_) => Point::parse(agent).map(Agent::Ec),
        Profile::RsaOaep(_) => RsaPublic::parse(agent).map(Agent::Rsa),
    };
    parsed.map_err(|error| {
        HsmError::new(
            ErrorClass::BadPoint,
            format!("the agent's public key: {error}"),
        )
    })
}

fn parse_identity(row: &ShareRow<'_>) -> Result<RowIdentity, HsmError> {
    RowIdentity::parse(row.identity)
        .map_err(|error| HsmError::new(ErrorClass::BadRequest, error.to_string()))
}
