//! Agents that are connected or hold leases: their sessions, what they hold, what they have acknowledged.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attest::{Facts, ProcessId};
use proto::v1::Command;
use proto::v1::command::Kind as CommandKind;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::custodians::SessionSeed;
use crate::policy::Caller;
use crate::refusal::{Code, Refusal};

/// Sessions of one user. An agent has one; a node with a hundred pods of one uid still fits.
const SESSIONS_PER_UID_MAX: usize = 128;
/// Sessions of this daemon: token processes keep as many derived keys.
const SESSIONS_MAX: usize = 1024;
/// A session without a stream, a lease or a call for this long is forgotten.
pub const IDLE: Duration = Duration::from_secs(300);
/// Longest life of any lease, grace included: what [`crate::leases`] grants at most.
pub const LEASE_MAX: Duration = Duration::from_secs(25 * 3600);
/// Acknowledgements whose time is kept: changes do not follow each other faster than they are heard.
const ACKNOWLEDGEMENTS: usize = 16;
/// How long an agent may take to carry out a command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// One lease as the daemon remembers it.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Boot time at which its last use ends, grace included.
    ends: Duration,
}

/// One agent's session.
#[derive(Debug)]
struct Session {
    seed: SessionSeed,
    caller: Caller,
    name: String,
    version: String,
    instance: [u8; 16],
    key_ids: Vec<String>,
    keeps_terms: bool,
    opened_at: i64,
    last_seen: Duration,
    leases: HashMap<(String, u32), Held>,
    in_use: Vec<(String, u32)>,
    acknowledged: u64,
    /// When it acknowledged which revision, by boot time: the last few.
    acknowledgements: VecDeque<(u64, Duration)>,
    /// The open Watch stream, by its number, so that an old stream's end does not close a newer one.
    stream: Option<(u64, mpsc::Sender<Command>)>,
}

/// What an agent says of itself when it opens a session.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Its name; may be empty.
    pub name: String,
    /// Version of its build.
    pub version: String,
    /// Random per start.
    pub instance: [u8; 16],
    /// Keys that its routes name.
    pub key_ids: Vec<String>,
    /// Whether it keeps to the terms that come with a lease; older builds do not know them.
    pub keeps_terms: bool,
}

/// One agent, for people.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Name, or `uid-PID`.
    pub name: String,
    /// Version of its build.
    pub version: String,
    /// Its caller.
    pub caller: Caller,
    /// Whether a Watch stream is open.
    pub connected: bool,
    /// Unix seconds.
    pub opened_at: i64,
    /// Newest revision that it has acted on.
    pub acknowledged: u64,
    /// What it holds.
    pub in_use: Vec<(String, u32)>,
    /// Random per start.
    pub instance: [u8; 16],
    /// Keys that its routes name.
    pub key_ids: Vec<String>,
}

/// How far a change has reached the agents that it affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Agents that held an affected version when the change was made.
    pub agents: u32,
    /// Of those, how many have acted on it.
    pub acknowledged: u32,
    /// Of those that have not: without a stream now.
    pub not_connected: u32,
    /// From the moment when it was durable to the last of these acknowledgements.
    pub slowest: Duration,
    /// Boot time at which the last affected lease ends; `None` when none is left.
    pub ends: Option<Duration>,
    /// Boot time until which leases from before this daemon's start may live; `None` when that is over.
    pub unknown: Option<Duration>,
}

impl Reach {
    /// Whether nothing is left to wait for.
    pub fn complete(&self) -> bool {
        self.ends.is_none() && self.unknown.is_none()
    }
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<[u8; 16], Session>,
    commands: HashMap<u64, oneshot::Sender<(bool, String)>>,
    next_command: u64,
    next_stream: u64,
}

/// All agents.
#[derive(Debug)]
pub struct Agents {
    inner: Mutex<Inner>,
    /// Until then, by boot time, leases may live that were granted before this daemon started.
    unknown_until: Mutex<Duration>,
    /// Ticks on every acknowledgement and disconnection, for those who wait for a change to reach everybody.
    ticks: watch::Sender<u64>,
}

/// The agents that one change affects, as they stood when it was made: by user and instance, since an agent may open a
/// new session while the change is on its way.
#[derive(Debug, Clone)]
pub struct Affected {
    agents: Vec<(u32, [u8; 16])>,
    key: String,
    versions: Vec<u32>,
    until: Until,
    revision: u64,
    made_at: Duration,
}

/// When an agent is done with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It has heard, and holds none of the versions any more.
    LetGo,
    /// It has heard: it ends leases of other terms before it acknowledges, and may hold the version again since.
    Heard,
}

/// To whom a command goes.
#[derive(Debug, Clone)]
pub struct Addressee {
    /// Name or instance; empty: everybody.
    pub name: String,
    /// Only agents whose routes name this key.
    pub key: Option<String>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            unknown_until: Mutex::default(),
            ticks: watch::Sender::new(0),
        }
    }
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.ticks
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Wakes whenever an agent acknowledged, connected or went.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Whether that user may open one more session.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub fn admit(&self, uid: u32) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let now = clock::since_boot();
        inner.sessions.retain(|_, session| {
            session.leases.retain(|_, held| held.ends > now);
            session.stream.is_some() || !session.leases.is_empty() || session.last_seen + IDLE > now
        });
        let of_user = inner
            .sessions
            .values()
            .filter(|session| session.caller.uid == uid)
            .count();
        if of_user >= SESSIONS_PER_UID_MAX || inner.sessions.len() >= SESSIONS_MAX {
            let text = format!(
                "uid {uid} holds {of_user} sessions, {} in all: idle ones end after {} minutes",
                inner.sessions.len(),
                IDLE.as_secs() / 60
            );
            return Err(Refusal::new(Code::RateLimited, text));
        }
        Ok(())
    }

    /// Notes a session that custodians have opened. An agent that opens another one takes its leases along.
    ///
    /// # Errors
    /// [`Code::RateLimited`] when others were faster.
    pub fn opened(
        &self,
        seed: SessionSeed,
        caller: Caller,
        hello: Introduction,
    ) -> Result<(), Refusal> {
        // Asked again: tokens took their time, and others may have come in meanwhile.
        self.admit(caller.uid)?;
        let mut inner = self.lock();
        let earlier: Vec<[u8; 16]> = inner
            .sessions
            .iter()
            .filter(|(_, session)| {
                session.instance == hello.instance && session.caller.uid == caller.uid
            })
            .map(|(id, _)| *id)
            .collect();
        let mut leases = HashMap::new();
        for id in earlier {
            if let Some(session) = inner.sessions.remove(&id) {
                leases.extend(session.leases);
            }
        }
        let session = Session {
            caller,
            name: hello.name,
            version: hello.version,
            instance: hello.instance,
            key_ids: hello.key_ids,
            keeps_terms: hello.keeps_terms,
            opened_at: clock::unix_seconds(),
            last_seen: clock::since_boot(),
            leases,
            in_use: Vec::new(),
            acknowledged: 0,
            acknowledgements: VecDeque::new(),
            stream: None,
            seed: seed.clone(),
        };
        inner.sessions.insert(seed.id, session);
        Ok(())
    }

    /// Leases that an earlier run of this daemon granted may live that much longer.
    pub fn earlier_leases(&self, lasts: Duration) {
        *self
            .unknown_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = clock::since_boot() + lasts;
    }

    /// The session's seed, if it belongs to that process.
    ///
    /// # Errors
    /// [`Code::SessionUnknown`], also for another user's session.
    pub fn seed(&self, id: &[u8; 16], caller: &Caller) -> Result<SessionSeed, Refusal> {
        let mut inner = self.lock();
        let session = own(&mut inner, id, caller)?;
        session.last_seen = clock::since_boot();
        Ok(session.seed.clone())
    }

    /// What was proven of that process when it opened a session, if it has one.
    pub fn facts_of(&self, process: ProcessId) -> Option<Arc<Facts>> {
        let inner = self.lock();
        let mut sessions = inner.sessions.values();
        let own = sessions.find(|session| session.caller.process == Some(process))?;
        Some(Arc::clone(&own.caller.facts))
    }

    /// Notes a lease that is about to be answered.
    pub fn leased(&self, id: &[u8; 16], key: &str, version: u32, lasts: Duration) {
        if let Some(session) = self.lock().sessions.get_mut(id) {
            let ends = clock::since_boot() + lasts;
            let held = session
                .leases
                .entry((key.to_owned(), version))
                .or_insert(Held { ends });
            held.ends = held.ends.max(ends);
        }
    }

    /// Opens the Watch stream of a session; commands come out of the receiver.
    ///
    /// # Errors
    /// [`Code::SessionUnknown`].
    pub fn connect(
        &self,
        id: &[u8; 16],
        caller: &Caller,
    ) -> Result<(u64, mpsc::Receiver<Command>), Refusal> {
        let mut inner = self.lock();
        inner.next_stream += 1;
        let number = inner.next_stream;
        let session = own(&mut inner, id, caller)?;
        // An agent answers one command at a time; eight waiting is an operator leaning on the key.
        let (to, from) = mpsc::channel(8);
        session.stream = Some((number, to));
        drop(inner);
        self.tick();
        Ok((number, from))
    }

    /// The Watch stream ended.
    pub fn disconnect(&self, id: &[u8; 16], number: u64) {
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get_mut(id)
            && session
                .stream
                .as_ref()
                .is_some_and(|(open, _)| *open == number)
        {
            session.stream = None;
            session.last_seen = clock::since_boot();
        }
        drop(inner);
        self.tick();
    }

    /// The agent has acted on everything up to `revision` and holds exactly `in_use` now.
    pub fn acknowledge(&self, id: &[u8; 16], revision: u64, in_use: Vec<(String, u32)>) {
        if let Some(session) = self.lock().sessions.get_mut(id) {
            if revision > session.acknowledged {
                session.acknowledged = revision;
                session.acknowledgements.truncate(ACKNOWLEDGEMENTS - 1);
                session
                    .acknowledgements
                    .push_front((revision, clock::since_boot()));
            }
            session.last_seen = clock::since_boot();
            // Leases stay noted to their end: one may have been granted while this acknowledgement was on its way.
            session.in_use = in_use;
        }
        self.tick();
    }

    /// The answer to a command.
    pub fn answered(&self, id: u64, ok: bool, detail: String) {
        if let Some(waiting) = self.lock().commands.remove(&id) {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = waiting.send((ok, detail));
        }
    }

    /// Sends a command to every connected agent of that name or instance (all, when empty) and waits for the answers.
    pub async fn command(
        &self,
        who: &Addressee,
        kind: impl Fn() -> CommandKind,
    ) -> Vec<(String, bool, String)> {
        let mut waiting = Vec::new();
        {
            let mut inner = self.lock();
            let matching: Vec<[u8; 16]> = inner
                .sessions
                .iter()
                .filter(|(_, session)| matches(session, who))
                .map(|(id, _)| *id)
                .collect();
            for session_id in matching {
                let Some(session) = inner.sessions.get(&session_id) else {
                    continue;
                };
                let (name, stream) = (display_name(session), session.stream.clone());
                inner.next_command += 1;
                let id = inner.next_command;
                let (answer, wait) = oneshot::channel();
                let sent = stream.is_some_and(|(_, to)| {
                    to.try_send(Command {
                        id,
                        kind: Some(kind()),
                    })
                    .is_ok()
                });
                if sent {
                    inner.commands.insert(id, answer);
                }
                waiting.push((name, id, sent.then_some(wait)));
            }
        }
        let mut results = Vec::with_capacity(waiting.len());
        for (name, id, wait) in waiting {
            let Some(wait) = wait else {
                results.push((name, false, "is not connected".to_owned()));
                continue;
            };
            match tokio::time::timeout(COMMAND_DEADLINE, wait).await {
                Ok(Ok((ok, detail))) => results.push((name, ok, detail)),
                Ok(Err(_)) | Err(_) => {
                    self.lock().commands.remove(&id);
                    results.push((name, false, "did not answer".to_owned()));
                }
            }
        }
        results
    }

    /// The agents that hold any of these versions now; taken before agents hear of the change.
    pub fn affected(&self, key: &str, versions: &[u32], revision: u64) -> Affected {
        self.touched(key, versions, Until::LetGo, revision)
    }

    /// The same for a change of what the key may be used for, which leaves its versions where they are.
    pub fn affected_by_terms(&self, key: &str, versions: &[u32], revision: u64) -> Affected {
        self.touched(key, versions, Until::Heard, revision)
    }

    fn touched(&self, key: &str, versions: &[u32], until: Until, revision: u64) -> Affected {
        let inner = self.lock();
        let now = clock::since_boot();
        let affected = Affected {
            agents: Vec::new(),
            key: key.to_owned(),
            versions: versions.to_vec(),
            until,
            revision,
            made_at: now,
        };
        let touched = inner.sessions.values().filter(|session| {
            affected.lease_of(session, now).is_some() || affected.in_use_by(session)
        });
        let agents = touched
            .map(|session| (session.caller.uid, session.instance))
            .collect();
        Affected { agents, ..affected }
    }

    /// How far the change has come.
    pub fn reach(&self, affected: &Affected) -> Reach {
        let inner = self.lock();
        let now = clock::since_boot();
        let mut reach = Reach {
            agents: u32::try_from(affected.agents.len()).unwrap_or(u32::MAX),
            ..Reach::default()
        };
        for agent in &affected.agents {
            let of_agent = |session: &&Session| (session.caller.uid, session.instance) == *agent;
            // A session that is gone was idle without a lease.
            let Some(session) = inner.sessions.values().find(of_agent) else {
                continue;
            };
            // An agent acknowledges that it has heard, and says what it still holds: it has acted when that is nothing of
            // what the change is about.
            let let_go = affected.until == Until::Heard || !affected.in_use_by(session);
            if session.acknowledged >= affected.revision && let_go {
                reach.acknowledged += 1;
                reach.slowest = reach.slowest.max(affected.took(session));
                continue;
            }
            if session.stream.is_none() {
                reach.not_connected += 1;
            }
            // What an agent holds without a lease that we noted was granted before a restart of ours.
            let noted = affected.lease_of(session, now);
            let unnoted = affected
                .in_use_by(session)
                .then(|| affected.made_at + LEASE_MAX);
            let ends = noted.or(unnoted).filter(|ends| *ends > now);
            reach.ends = reach.ends.max(ends);
        }
        let unknown = *self
            .unknown_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reach.unknown = (unknown > now && !affected.versions.is_empty()).then_some(unknown);
        reach
    }

    /// How long each agent took to acknowledge the change, of those that have.
    pub fn took(&self, affected: &Affected) -> Vec<Duration> {
        let inner = self.lock();
        let has = |session: &&Session| {
            session.acknowledged >= affected.revision
                && affected
                    .agents
                    .contains(&(session.caller.uid, session.instance))
        };
        let sessions = inner.sessions.values().filter(has);
        sessions.map(|session| affected.took(session)).collect()
    }

    /// All agents, for people.
    pub fn list(&self) -> Vec<AgentView> {
        let inner = self.lock();
        let mut list: Vec<AgentView> = inner
            .sessions
            .values()
            .map(|session| AgentView {
                name: display_name(session),
                version: session.version.clone(),
                caller: session.caller.clone(),
                connected: session.stream.is_some(),
                opened_at: session.opened_at,
                acknowledged: session.acknowledged,
                in_use: held(session),
                instance: session.instance,
                key_ids: session.key_ids.clone(),
            })
            .collect();
        list.sort_by(|one, two| (&one.name, one.instance).cmp(&(&two.name, two.instance)));
        list
    }

    /// Connected agents of builds that know no terms: whatever keys are for, they serve what the scope allows.
    pub fn without_terms(&self) -> Vec<String> {
        let inner = self.lock();
        let mut names: Vec<String> = inner
            .sessions
            .values()
            .filter(|session| session.stream.is_some() && !session.keeps_terms)
            .map(display_name)
            .collect();
        names.sort();
        names
    }

    /// Agents with an open stream, and sessions in all.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (
            inner
                .sessions
                .values()
                .filter(|session| session.stream.is_some())
                .count(),
            inner.sessions.len(),
        )
    }
}

impl Affected {
    /// Whether it is about what a key may be used for.
    pub fn is_of_terms(&self) -> bool {
        self.until == Until::Heard
    }

    /// Boot time at which it was durable.
    pub fn made_at(&self) -> Duration {
        self.made_at
    }

    /// From there to the first acknowledgement that covers it; zero when that is too long ago to be known.
    fn took(&self, session: &Session) -> Duration {
        let mut oldest_first = session.acknowledgements.iter().rev();
        let first = oldest_first.find(|(revision, _)| *revision >= self.revision);
        first.map_or(Duration::ZERO, |(_, at)| at.saturating_sub(self.made_at))
    }

    /// When the session's last affected lease ends, if one lives.
    fn lease_of(&self, session: &Session, now: Duration) -> Option<Duration> {
        let leases = self
            .versions
            .iter()
            .filter_map(|version| session.leases.get(&(self.key.clone(), *version)));
        leases
            .map(|held| held.ends)
            .filter(|ends| *ends > now)
            .max()
    }

    /// Whether the agent says that it uses an affected version.
    fn in_use_by(&self, session: &Session) -> bool {
        self.versions
            .iter()
            .any(|version| session.in_use.contains(&(self.key.clone(), *version)))
    }
}

fn own<'a>(
    inner: &'a mut Inner,
    id: &[u8; 16],
    caller: &Caller,
) -> Result<&'a mut Session, Refusal> {
    let session = inner.sessions.get_mut(id).filter(|session| {
        session.caller.uid == caller.uid && session.caller.process == caller.process
    });
    session.ok_or_else(|| Refusal::new(Code::SessionUnknown, "this daemon does not know the session (it was restarted, or the session was idle): open a new one"))
}

/// What an agent holds: what it said last, and leases of other keys that were granted since.
fn held(session: &Session) -> Vec<(String, u32)> {
    let now = clock::since_boot();
    let mut held: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
    let live = session.leases.iter().filter(|(_, held)| held.ends > now);
    for (key, version) in live.map(|(key, _)| key) {
        let newest = held.entry(key).or_default();
        *newest = (*newest).max(*version);
    }
    held.extend(
        session
            .in_use
            .iter()
            .map(|(key, version)| (key.as_str(), *version)),
    );
    held.into_iter()
        .map(|(key, version)| (key.to_owned(), version))
        .collect()
}

fn display_name(session: &Session) -> String {
    if session.name.is_empty() {
        format!("{}-{}", session.caller.uid, session.caller.pid)
    } else {
        session.name.clone()
    }
}

fn matches(session: &Session, who: &Addressee) -> bool {
    let named = who.name.is_empty()
        || display_name(session) == who.name
        || hex::encode(session.instance) == who.name;
    let routed = who
        .key
        .as_ref()
        .is_none_or(|key| session.key_ids.contains(key));
    named && routed
}

#[cfg(test)]
mod tests;
