//! The set of custodians: who is there, who is pinned, and operations that need t of them.
//!
//! A daemon that is a *part* drives some of the custodians and no others: it answers with the shares that it has, and agents gather the
//! rest elsewhere. What it says of its store rests on a [`Custodians::quorum`] of its own.
//!
//! A custodian counts only while its token process is up *and* it presents the descriptor that the trust file pins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custody::record::mac_bytes;
use custody::{Descriptor, Fingerprint, Profile, SignedDescriptor, Trust};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hsm::client::{Evidence, ShareRow, State};
use hsm::{ErrorClass, HsmError, TokenClient};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::refusal::{Code, Refusal};
use crate::store::Mac;

/// How long a share may take before another custodian is asked as well. Ten times a slow token's answer, and far below
/// what a request notices.
const HEDGE: Duration = Duration::from_millis(30);

/// How long a daemon that drives only some of the custodians waits for its slower ones once it has a share to answer with. Longer
/// than a network HSM takes; the agent asks the other daemons long before.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// One custodian.
pub struct Custodian {
    /// Id as in hsmd.toml.
    pub id: String,
    /// Its token process.
    pub client: TokenClient,
    /// What is known of its descriptor.
    standing: Mutex<Standing>,
}

/// Whether a custodian's descriptor is the pinned one.
#[derive(Debug, Clone)]
pub enum Standing {
    /// It has not presented one yet.
    Unknown,
    /// The pinned one.
    Pinned(Box<SignedDescriptor>),
    /// Another one; the text shows the difference.
    Mismatch(Box<SignedDescriptor>, String),
}

impl std::fmt::Debug for Custodian {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custodian")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Custodian {
    /// Where its descriptor stands.
    pub fn standing(&self) -> Standing {
        self.standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Fingerprint, when it is pinned.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self.standing() {
            Standing::Pinned(signed) => Some(signed.descriptor.fingerprint()),
            Standing::Unknown | Standing::Mismatch(..) => None,
        }
    }

    /// Whether it can be asked now.
    pub fn usable(&self) -> bool {
        self.client.health().borrow().is_up() && matches!(self.standing(), Standing::Pinned(_))
    }

    /// Asks for the descriptor and compares it with the pin.
    ///
    /// # Errors
    /// The custodian's own error, or [`ErrorClass::WrongToken`] with the difference.
    pub async fn examine(&self, trust: &Trust) -> Result<Descriptor, HsmError> {
        let encoded = self.client.describe().await?;
        let signed = SignedDescriptor::parse(&encoded).map_err(|error| {
            HsmError::new(
                ErrorClass::WrongToken,
                format!(
                    "custodian {} presents no valid descriptor: {error}",
                    self.id
                ),
            )
        })?;
        let verdict = trust.check_presented(&signed.descriptor);
        // A descriptor is public: whoever sits on the token's socket could present it. A fresh signature could not be.
        if verdict.is_ok() {
            let challenge = crate::random_challenge();
            let signature = self.client.prove_possession(&challenge).await?;
            if !signed.descriptor.verify_possession(&challenge, &signature) {
                let text = format!(
                    "custodian {} presents the pinned descriptor and does not hold its key; nothing is served through it",
                    self.id
                );
                return Err(HsmError::new(ErrorClass::WrongToken, text));
            }
        }
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Ok(()) => {
                let descriptor = signed.descriptor.clone();
                *standing = Standing::Pinned(Box::new(signed));
                Ok(descriptor)
            }
            Err(error) => {
                let text = format!("{error}; nothing is served through it");
                *standing = Standing::Mismatch(Box::new(signed), text.clone());
                Err(HsmError::new(ErrorClass::WrongToken, text))
            }
        }
    }
}

/// What an agent's session needs at a custodian, kept so that it can be opened again after a restart.
#[derive(Debug, Clone)]
pub struct SessionSeed {
    /// Session id.
    pub id: [u8; 16],
    /// P-256 point.
    pub p256: Vec<u8>,
    /// RSA key (SubjectPublicKeyInfo), if the agent has one.
    pub rsa: Option<Vec<u8>>,
    /// What the caller showed, for token processes that judge by themselves.
    pub evidence: Evidence,
}

impl SessionSeed {
    fn key_for(&self, profile: Profile) -> Option<&[u8]> {
        match profile {
            Profile::EcdhKw(_) => Some(&self.p256),
            Profile::RsaOaep(_) => self.rsa.as_deref(),
        }
    }
}

/// One stored share, ready to be delivered.
#[derive(Debug, Clone)]
pub struct StoredShare {
    /// Its index.
    pub x: u8,
    /// Whose it is.
    pub custodian: String,
    /// Canonical row identity.
    pub identity: Vec<u8>,
    /// The share under the custodian's KEK.
    pub wrapped: Vec<u8>,
    /// The custodian's MAC.
    pub mac: [u8; 32],
}

impl StoredShare {
    /// As the protocol wants it.
    pub fn row(&self) -> ShareRow<'_> {
        ShareRow {
            identity: &self.identity,
            wrapped: &self.wrapped,
            mac: &self.mac,
        }
    }
}

/// A share on its way to an agent.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Its index.
    pub x: u8,
    /// The custodian's descriptor.
    pub fingerprint: Fingerprint,
    /// Ciphertext.
    pub wrapped: Vec<u8>,
}

/// All custodians of this daemon.
#[derive(Debug)]
pub struct Custodians {
    all: BTreeMap<String, Arc<Custodian>>,
    /// Shares needed to open a key.
    pub threshold: u8,
    /// Other daemons drive the rest of the custodians; agents gather t shares across all of them.
    pub part: bool,
    /// Which can be asked now, as agents hear it.
    up: watch::Sender<Vec<Fingerprint>>,
    /// Where the next delivery starts, so that work spreads over all tokens.
    turn: AtomicUsize,
}

impl Custodians {
    /// From started clients: all the custodians there are.
    pub fn new(clients: Vec<TokenClient>, threshold: u8) -> Self {
        Self::of(clients, threshold, false)
    }

    /// From started clients: those of the custodians that this daemon drives.
    pub fn part(clients: Vec<TokenClient>, threshold: u8) -> Self {
        Self::of(clients, threshold, true)
    }

    fn of(clients: Vec<TokenClient>, threshold: u8, part: bool) -> Self {
        let custodian = |client: TokenClient| {
            let id = client.id().to_owned();
            (
                id.clone(),
                Arc::new(Custodian {
                    id,
                    client,
                    standing: Mutex::new(Standing::Unknown),
                }),
            )
        };
        Self {
            all: clients.into_iter().map(custodian).collect(),
            threshold,
            part,
            up: watch::Sender::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// How many custodians must vouch for this daemon's store, and write it: t, or all of a part that has fewer. Summed over daemons that
    /// together hold t shares that is at least t, so that whoever forges what they say of a key has at least t tokens.
    pub fn quorum(&self) -> u8 {
        let own = u8::try_from(self.all.len()).unwrap_or(u8::MAX);
        if self.part {
            self.threshold.min(own)
        } else {
            self.threshold
        }
    }

    /// How many custodians a session and a lease need. One is enough for a part: whoever asks brings the others together.
    fn serving(&self) -> usize {
        if self.part { 1 } else { self.threshold.into() }
    }

    /// Whether leases can be served, or this daemon's part of them.
    pub fn serves(&self) -> bool {
        self.usable().len() >= self.serving()
    }

    /// Follows which custodians can be asked.
    pub fn up(&self) -> watch::Receiver<Vec<Fingerprint>> {
        self.up.subscribe()
    }

    /// Tells those who follow.
    pub fn note_up(&self) {
        let now: Vec<Fingerprint> = self
            .usable()
            .iter()
            .filter_map(|one| one.fingerprint())
            .collect();
        self.up.send_if_modified(|up| {
            let changed = *up != now;
            *up = now;
            changed
        });
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Custodian>> {
        self.all.values()
    }

    /// All of them, to be held across waits.
    pub fn all(&self) -> Vec<Arc<Custodian>> {
        self.all.values().cloned().collect()
    }

    /// The one of that id.
    pub fn find(&self, id: &str) -> Option<&Arc<Custodian>> {
        self.all.get(id)
    }

    /// The usable one with that descriptor.
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&Arc<Custodian>> {
        self.all
            .values()
            .find(|one| one.fingerprint().as_ref() == Some(fingerprint))
    }

    /// Whether another daemon drives that custodian. Never, where this daemon is to drive them all.
    pub fn is_elsewhere(&self, trust: &Trust, fingerprint: &Fingerprint) -> bool {
        let own = |descriptor: &Descriptor| self.all.contains_key(descriptor.id.as_str());
        self.part && !trust.any(fingerprint).is_ok_and(own)
    }

    /// Waits, for at most `patience`, until no custodian is still coming up: an operator's command right after a start
    /// should not be refused for milliseconds.
    pub async fn settled(&self, patience: Duration) {
        let coming_up = |one: &Arc<Custodian>| match &*one.client.health().borrow() {
            hsm::Health::Starting => true,
            hsm::Health::Up => matches!(one.standing(), Standing::Unknown),
            hsm::Health::Latched { .. } | hsm::Health::Down { .. } => false,
        };
        let settled = async {
            while self.all.values().any(coming_up) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Whoever is not up by then is treated as down.
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// Those that can be asked now.
    pub fn usable(&self) -> Vec<Arc<Custodian>> {
        self.all
            .values()
            .filter(|one| one.usable())
            .cloned()
            .collect()
    }

    /// available − quorum.
    pub fn margin(&self) -> i32 {
        let usable = i32::try_from(self.usable().len()).unwrap_or(i32::MAX);
        usable - i32::from(self.quorum())
    }

    /// Why fewer than a quorum answer, for refusals.
    pub fn shortage(&self) -> Refusal {
        let down: Vec<String> = self
            .all
            .values()
            .filter(|one| !one.usable())
            .map(|one| format!("{} ({})", one.id, describe(one)))
            .collect();
        let text = format!(
            "{} of {} custodians answer, {} are needed; not answering: {}",
            self.all.len() - down.len(),
            self.all.len(),
            self.quorum(),
            down.join("; ")
        );
        Refusal::new(Code::HsmUnavailable, text)
    }

    /// MACs by every usable custodian over an encoded record or inventory.
    ///
    /// # Errors
    /// [`Code::HsmUnavailable`] when fewer than a quorum could.
    pub async fn mac(&self, encoded: &[u8]) -> Result<Vec<Mac>, Refusal> {
        let message = mac_bytes(encoded);
        let usable = self.usable();
        let results = join_all(usable.iter().map(|one| one.client.mac_record(&message))).await;
        let macs: Vec<Mac> = usable
            .iter()
            .zip(results)
            .filter_map(|(one, result)| {
                Some(Mac {
                    custodian: one.id.clone(),
                    mac: result.ok()?,
                })
            })
            .collect();
        if macs.len() < usize::from(self.quorum()) {
            Err(self.shortage())
        } else {
            Ok(macs)
        }
    }

    /// What custodians say of a record's MACs: how many confirmed, how many denied.
    pub async fn verify(&self, encoded: &[u8], macs: &[Mac]) -> (usize, usize) {
        let message = mac_bytes(encoded);
        let asked = macs
            .iter()
            .filter_map(|mac| Some((self.find(&mac.custodian).filter(|one| one.usable())?, mac)));
        let results =
            join_all(asked.map(|(one, mac)| one.client.verify_record(&message, &mac.mac))).await;
        let denied = results
            .iter()
            .filter(|one| matches!(one, Err(error) if error.class == ErrorClass::MacMismatch))
            .count();
        (results.iter().filter(|one| one.is_ok()).count(), denied)
    }

    /// What each usable custodian remembers of the store.
    pub async fn states(&self) -> Vec<(Arc<Custodian>, Result<State, HsmError>)> {
        let usable = self.usable();
        let states = join_all(usable.iter().map(|one| one.client.read_state())).await;
        usable.iter().cloned().zip(states).collect()
    }

    /// Opens a session at every usable custodian; enough when t of them did, or one of a part.
    ///
    /// # Errors
    /// [`Code::HsmUnavailable`] when fewer did, [`Code::BadRequest`] when the key is refused.
    pub async fn open_session(
        &self,
        seed: &SessionSeed,
    ) -> Result<Vec<(String, Fingerprint)>, Refusal> {
        let usable = self.usable();
        let mut opening: FuturesUnordered<_> = usable
            .iter()
            .map(|one| async move { (one, open_at(one, seed).await) })
            .collect();
        let (mut opened, mut not_attested) = (Vec::new(), None);
        // Past that, stragglers get the hedge's time and no more: a hanging token must not slow every start.
        loop {
            let enough = opened.len() >= self.serving();
            let next = if enough {
                tokio::time::timeout(HEDGE, opening.next()).await
            } else {
                Ok(opening.next().await)
            };
            match next {
                Ok(Some((one, Ok(fingerprint)))) => opened.push((one.id.clone(), fingerprint)),
                Ok(Some((_, Err(error)))) if error.class == ErrorClass::BadPoint => {
                    return Err(error.into());
                }
                Ok(Some((one, Err(error)))) if error.class == ErrorClass::NotAttested => {
                    tracing::warn!(custodian = %one.id, text = %error.text, "a token process does not admit the caller");
                    not_attested = Some((one.id.clone(), error));
                }
                Ok(Some((_, Err(_)))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        match not_attested {
            _ if opened.len() >= self.serving() => Ok(opened),
            Some((id, error)) => Err(Refusal {
                reason: Some("token_process"),
                ..Refusal::new(
                    Code::NotAttested,
                    format!("custodian {id} does not admit the caller: {}", error.text),
                )
            }),
            None => Err(self.shortage()),
        }
    }

    /// Exactly `needed` shares, each wrapped by its token to the session; of a part, as many of them as there are. Asks as many custodians
    /// as needed, another one whenever one fails or is slow.
    ///
    /// # Errors
    /// What decided it: a revoked version, a changed row, or too few answers.
    pub async fn deliver(
        &self,
        seed: &SessionSeed,
        shares: &[StoredShare],
        needed: usize,
    ) -> Result<Vec<Delivered>, Refusal> {
        let mut waiting: Vec<(&Arc<Custodian>, &StoredShare)> = shares
            .iter()
            .filter_map(|share| {
                Some((
                    self.find(&share.custodian).filter(|one| one.usable())?,
                    share,
                ))
            })
            .collect();
        let enough = self.serving().min(needed);
        if waiting.len() < enough {
            return Err(self.shortage());
        }
        let needed = needed.min(waiting.len());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % waiting.len();
        waiting.rotate_left(turn);
        let mut waiting = waiting.into_iter();
        let mut asked: FuturesUnordered<_> = waiting
            .by_ref()
            .take(needed)
            .map(|(one, share)| deliver_at(one, seed, share))
            .collect();
        let mut delivered = Vec::with_capacity(needed);
        let mut last_error = None;
        let mut since = Instant::now();
        while delivered.len() < needed {
            match tokio::time::timeout(HEDGE, asked.next()).await {
                Ok(Some(Ok(share))) => {
                    delivered.push(share);
                    since = Instant::now();
                }
                Ok(Some(Err(error))) => {
                    // A revoked version is revoked whatever the others say. Any other failure is this custodian's own: rows
                    // were verified when the store was loaded, so a MAC that differs now speaks against the token.
                    if error.class == ErrorClass::Revoked {
                        return Err(error.into());
                    }
                    tracing::warn!(class = error.class.name(), text = %error.text, "a custodian did not deliver");
                    last_error = Some(error);
                    asked.extend(
                        waiting
                            .next()
                            .map(|(one, share)| deliver_at(one, seed, share)),
                    );
                }
                Ok(None) if delivered.len() >= enough => break,
                Ok(None) => {
                    return Err(last_error.map_or_else(
                        || self.shortage(),
                        |error| match error.class {
                            ErrorClass::MacMismatch => error.into(),
                            // What it showed has expired, or its process is another: it must show it anew.
                            ErrorClass::NotAttested => {
                                Refusal::new(Code::SessionUnknown, error.to_string())
                            }
                            _ => Refusal::new(Code::HsmUnavailable, error.to_string()),
                        },
                    ));
                }
                Err(_) => match waiting.next() {
                    Some((one, share)) => asked.push(deliver_at(one, seed, share)),
                    None if delivered.len() >= enough && since.elapsed() >= STRAGGLERS => break,
                    None => {}
                },
            }
        }
        Ok(delivered)
    }
}

/// In words, why a custodian is not usable.
pub fn describe(one: &Custodian) -> String {
    match (&*one.client.health().borrow(), one.standing()) {
        (hsm::Health::Latched { reason } | hsm::Health::Down { reason }, _) => reason.clone(),
        (hsm::Health::Starting, _) => "starting".to_owned(),
        (hsm::Health::Up, Standing::Mismatch(_, text)) => text,
        (hsm::Health::Up, Standing::Unknown) => "has not presented its descriptor yet".to_owned(),
        (hsm::Health::Up, Standing::Pinned(_)) => "up".to_owned(),
    }
}

async fn open_at(one: &Custodian, seed: &SessionSeed) -> Result<Fingerprint, HsmError> {
    let Standing::Pinned(signed) = one.standing() else {
        return Err(HsmError::new(
            ErrorClass::Down,
            "its descriptor is not the pinned one",
        ));
    };
    let key = seed.key_for(signed.descriptor.profile).ok_or_else(|| {
        HsmError::new(
            ErrorClass::BadRequest,
            format!(
                "custodian {} uses rsa-oaep and the agent sent no RSA key",
                one.id
            ),
        )
    })?;
    one.client
        .open_session(&seed.id, key, &seed.evidence)
        .await?;
    Ok(signed.descriptor.fingerprint())
}

/// One delivery; a session that the token process forgot (it was restarted) is opened again once.
async fn deliver_at(
    one: &Arc<Custodian>,
    seed: &SessionSeed,
    share: &StoredShare,
) -> Result<Delivered, HsmError> {
    let fingerprint = one
        .fingerprint()
        .ok_or_else(|| HsmError::new(ErrorClass::Down, "its descriptor is not the pinned one"))?;
    let wrapped = match one.client.deliver(&seed.id, share.row()).await {
        Err(error) if error.class == ErrorClass::UnknownSession => {
            open_at(one, seed).await?;
            one.client.deliver(&seed.id, share.row()).await?
        }
        other => other?,
    };
    Ok(Delivered {
        x: share.x,
        fingerprint,
        wrapped,
    })
}
