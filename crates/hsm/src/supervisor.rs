//! The task that owns one token process: starts it, feeds it, replaces it when it dies or hangs, and says how it is.
//!
//! It never blocks: a stopped process costs its callers one deadline, then SIGKILL and a replacement. Requests that were
//! under way are answered with `Lost`, not repeated: the daemon knows better whether t other custodians already answered.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroize;

use crate::client::{INIT_FACTOR, Shared};
use crate::error::{ErrorClass, HsmError};
use crate::link::Link;
use crate::snapshot::Health;
use crate::wire::{
    Answer, FRAME_MAX, Hello, Request, VERSION, parse_answer, parse_frame, write_request,
};

/// Requests that may be under way in the token process.
const PENDING_MAX: usize = 1024;
/// Restarts that follow at once, within [`BUDGET_WINDOW`]; later ones wait [`SLOW_RETRY`].
const BUDGET: usize = 5;
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
const SLOW_RETRY: Duration = Duration::from_secs(15);
/// First pause; doubles with each restart of the window, so that a process that cannot start does not spin.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// How often an idle process is asked for a sign of life, when it is well and when it is not.
const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_UNWELL: Duration = Duration::from_secs(1);
/// The id of heartbeats; callers' ids start at 1.
const HEARTBEAT_ID: u64 = 0;

/// What is said of a token process that may call what `fips` forbids.
const LAX: &str = "fips is set for this custodian and its token process runs without it: add `--fips true` to the arguments of its service";

/// What a handle asks of the supervisor.
pub(crate) enum Job {
    /// A request to pass on.
    Call {
        /// Its id, already in the frame.
        id: u64,
        /// The whole frame.
        frame: Vec<u8>,
        /// A descriptor that goes along with it.
        descriptor: Option<Arc<OwnedFd>>,
        /// Whether it may take long (`init`).
        slow: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<Answer>,
    },
    /// End the process and this task.
    Shutdown {
        /// Told when it has ended.
        ended: oneshot::Sender<()>,
    },
}

struct Pending {
    answer: oneshot::Sender<Answer>,
    slow: bool,
}

/// Why the service of one process ended.
enum End {
    /// No handles are left, or `shutdown` was called.
    Shutdown(Option<oneshot::Sender<()>>),
    /// The process died, hung or broke the protocol.
    Lost(String),
}

/// Runs until the last handle is gone or `shutdown`.
pub(crate) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>) {
    let mut restarts = Restarts::default();
    let done = loop {
        shared.health.send_replace(Health::Starting);
        let reason = match Link::open(&shared.config).await {
            Ok(link) => match Service::new(&shared, link).run(&mut queue).await {
                End::Shutdown(done) => break done,
                End::Lost(reason) => reason,
            },
            Err(reason) => reason,
        };
        shared.counters.pid.store(0, Ordering::Relaxed);
        shared.counters.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(custodian = %shared.config.id, reason, "token process lost; it is being replaced");
        shared.health.send_replace(Health::Down {
            reason: reason.clone(),
        });
        if let Some(End::Shutdown(done)) = refuse_for(restarts.pause(), &reason, &mut queue).await {
            break done;
        }
    };
    shared.health.send_replace(Health::Down {
        reason: "shut down".into(),
    });
    if let Some(done) = done {
        let _ = done.send(());
    }
}

/// Answers requests with `Down` while the replacement waits, so that the daemon can turn to the other custodians at once.
async fn refuse_for(pause: Duration, reason: &str, queue: &mut mpsc::Receiver<Job>) -> Option<End> {
    let until = tokio::time::sleep(pause);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return None,
            job = queue.recv() => match job {
                Some(Job::Call { answer, .. }) => {
                    let _ = answer.send(Answer::Failed(HsmError::new(ErrorClass::Down, reason)));
                }
                Some(Job::Shutdown { ended }) => return Some(End::Shutdown(Some(ended))),
                None => return Some(End::Shutdown(None)),
            },
        }
    }
}

/// The restart budget.
#[derive(Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    fn pause(&mut self) -> Duration {
        let now = Instant::now();
        self.0.retain(|at| now.duration_since(*at) < BUDGET_WINDOW);
        self.0.push_back(now);
        let recent = self.0.len();
        if recent > BUDGET {
            self.0.pop_front();
            return SLOW_RETRY;
        }
        // The first replacement is immediate: most deaths are single.
        match u32::try_from(recent).unwrap_or(u32::MAX) {
            0 | 1 => Duration::ZERO,
            n => FIRST_PAUSE * 2u32.saturating_pow(n - 2),
        }
    }
}

/// One process being served.
struct Service<'a> {
    shared: &'a Shared,
    link: Link,
    out: Vec<u8>,
    /// Descriptors that go along with `out`: with the byte at which offset.
    attached: VecDeque<(usize, Arc<OwnedFd>)>,
    input: Vec<u8>,
    pending: HashMap<u64, Pending>,
    last_progress: Instant,
    heartbeat_due: Instant,
    heartbeat_sent: Option<Instant>,
    /// It has answered the first greeting: before that nobody knows what it keeps to, and nothing is asked of it.
    greeted: bool,
}

impl<'a> Service<'a> {
    fn new(shared: &'a Shared, link: Link) -> Service<'a> {
        shared
            .counters
            .pid
            .store(link.pid().map_or(0, u64::from), Ordering::Relaxed);
        let now = Instant::now();
        Service {
            shared,
            link,
            out: Vec::with_capacity(FRAME_MAX),
            attached: VecDeque::new(),
            input: Vec::with_capacity(FRAME_MAX),
            pending: HashMap::new(),
            last_progress: now,
            heartbeat_due: now,
            heartbeat_sent: None,
            greeted: false,
        }
    }

    async fn run(mut self, queue: &mut mpsc::Receiver<Job>) -> End {
        let end = loop {
            self.heartbeat();
            let wake = self.next_wake();
            let room = self.greeted && self.pending.len() < PENDING_MAX;
            let step = tokio::select! {
                job = queue.recv(), if room => self.take(job, queue),
                ready = self.link.readable() => ready.map_err(lost).and_then(|()| self.read()),
                ready = self.link.writable(), if !self.out.is_empty() => ready.map_err(lost).and_then(|()| self.write()),
                () = self.shared.overdue_added.notified() => self.overdue(),
                () = tokio::time::sleep_until(wake.into()) => self.silence(),
            };
            if let Err(end) = step {
                break end;
            }
        };
        self.finish(end).await
    }

    /// Takes one job and those that are already behind it, so that a burst costs one write.
    fn take(&mut self, job: Option<Job>, queue: &mut mpsc::Receiver<Job>) -> Result<(), End> {
        let mut next = job;
        loop {
            match next {
                None => return Err(End::Shutdown(None)),
                Some(Job::Shutdown { ended }) => return Err(End::Shutdown(Some(ended))),
                // A caller that has gone already needs no answer.
                Some(Job::Call { answer, .. }) if answer.is_closed() => {}
                Some(Job::Call {
                    id,
                    frame,
                    descriptor,
                    slow,
                    answer,
                }) => {
                    self.attached
                        .extend(descriptor.map(|descriptor| (self.out.len(), descriptor)));
                    self.out.extend_from_slice(&frame);
                    self.pending.insert(id, Pending { answer, slow });
                }
            }
            if self.pending.len() >= PENDING_MAX {
                break;
            }
            match queue.try_recv() {
                Ok(job) => next = Some(job),
                Err(_) => break,
            }
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), End> {
        while !self.out.is_empty() {
            let until =
                |at: Option<&(usize, Arc<OwnedFd>)>| at.map_or(self.out.len(), |(at, _)| *at);
            let sent = match self.attached.front() {
                Some((0, descriptor)) => {
                    let bytes = &self.out[..until(self.attached.get(1))];
                    self.link.try_send(bytes, descriptor)
                }
                next => self.link.try_write(&self.out[..until(next)]),
            };
            match sent {
                Ok(written) => self.sent(written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    /// So many bytes are on their way, and with the first of them the descriptor that belonged to it.
    fn sent(&mut self, written: usize) {
        self.out.drain(..written);
        if written > 0 && self.attached.front().is_some_and(|(at, _)| *at == 0) {
            self.attached.pop_front();
        }
        for (at, _) in &mut self.attached {
            *at -= written;
        }
    }

    fn read(&mut self) -> Result<(), End> {
        match self.link.try_read(&mut self.input) {
            Ok(0) => return Err(End::Lost("the token process closed its socket".into())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(lost(error)),
        }
        let mut used = 0;
        let broken = |error| End::Lost(format!("the token process broke the protocol: {error}"));
        while let Some(frame) = parse_frame(&self.input[used..]).map_err(broken)? {
            let (id, answer) = (frame.id, parse_answer(frame.body).map_err(broken)?);
            used += frame.taken;
            self.keeps_fips(&answer)?;
            self.answered(id, answer);
        }
        // One kind of answer is a key; what was read leaves no copy in the buffer that is kept.
        self.input[..used].zeroize();
        self.input.drain(..used);
        Ok(())
    }

    /// A service is started by somebody else, with arguments of its own: what it was not told it does not keep.
    fn keeps_fips(&self, answer: &Answer) -> Result<(), End> {
        match answer {
            Answer::Hello(hello) if self.shared.config.fips && !hello.fips => {
                Err(End::Lost(LAX.into()))
            }
            _ => Ok(()),
        }
    }

    fn answered(&mut self, id: u64, answer: Answer) {
        self.last_progress = Instant::now();
        if id == HEARTBEAT_ID {
            self.heartbeat_sent = None;
            self.greeted = true;
        }
        self.judge(id, &answer);
        if let Some(pending) = self.pending.remove(&id) {
            let _ = pending.answer.send(answer);
        }
    }

    /// What an answer says about the custodian's health.
    fn judge(&self, id: u64, answer: &Answer) {
        let health = match answer {
            Answer::Hello(hello) => Some(greeted(hello)),
            Answer::Failed(error) => match error.class {
                ErrorClass::PinIncorrect | ErrorClass::PinLocked | ErrorClass::PinLatched => {
                    Some(Health::Latched {
                        reason: error.text.clone(),
                    })
                }
                ErrorClass::TokenMissing
                | ErrorClass::WrongToken
                | ErrorClass::PinFile
                | ErrorClass::ModuleUnfit => Some(Health::Down {
                    reason: error.text.clone(),
                }),
                _ if id == HEARTBEAT_ID => Some(Health::Down {
                    reason: error.text.clone(),
                }),
                _ => None,
            },
            _ => None,
        };
        if let Some(health) = health {
            self.shared.health.send_if_modified(|now| {
                let changed = *now != health;
                if changed {
                    *now = health;
                }
                changed
            });
        }
    }

    fn heartbeat(&mut self) {
        let now = Instant::now();
        if now < self.heartbeat_due || self.heartbeat_sent.is_some() {
            return;
        }
        let up = self.shared.health.borrow().is_up();
        self.heartbeat_due = now + if up { HEARTBEAT } else { HEARTBEAT_UNWELL };
        self.heartbeat_sent = Some(now);
        write_request(
            &mut self.out,
            HEARTBEAT_ID,
            &Request::Hello { version: VERSION },
        )
        .expect("a greeting is shorter than a frame");
    }

    /// How long the process may stay silent while something is under way.
    fn patience(&self) -> Duration {
        let slow = self.pending.values().any(|pending| pending.slow);
        self.shared.config.call_timeout * if slow { INIT_FACTOR } else { 1 }
    }

    fn next_wake(&self) -> Instant {
        match self.heartbeat_sent {
            Some(sent) => sent.max(self.last_progress) + self.patience(),
            None => self.heartbeat_due,
        }
    }

    /// A timer ran out: either the next heartbeat is due, or the last one was not answered.
    fn silence(&mut self) -> Result<(), End> {
        match self.heartbeat_sent {
            Some(sent) if Instant::now() >= sent.max(self.last_progress) + self.patience() => {
                self.hung()
            }
            _ => Ok(()),
        }
    }

    /// A caller's deadline passed. The process is replaced only if it made no progress: under overload it is slow, not hung.
    fn overdue(&mut self) -> Result<(), End> {
        let overdue = std::mem::take(
            &mut *self
                .shared
                .overdue
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let silent = self.last_progress.elapsed() >= self.shared.config.call_timeout / 2;
        let known = overdue
            .iter()
            .filter(|id| self.pending.contains_key(id))
            .count()
            > 0;
        if silent
            && known
            && !self
                .pending
                .values()
                .any(|pending| pending.slow && !pending.answer.is_closed())
        {
            return self.hung();
        }
        Ok(())
    }

    fn hung(&self) -> Result<(), End> {
        Err(End::Lost(format!(
            "the token process gave no answer for {:?} and was killed",
            self.shared.config.call_timeout
        )))
    }

    async fn finish(mut self, end: End) -> End {
        let end = match end {
            End::Shutdown(done) => {
                self.link.close().await;
                End::Shutdown(done)
            }
            End::Lost(reason) => match self.link.kill().await {
                Some(status) => End::Lost(format!("{reason} ({status})")),
                None => End::Lost(reason),
            },
        };
        let (class, reason) = match &end {
            End::Shutdown(_) => (ErrorClass::Down, "the custodian was shut down"),
            End::Lost(reason) => (ErrorClass::Lost, reason.as_str()),
        };
        for (_, pending) in self.pending.drain() {
            let _ = pending
                .answer
                .send(Answer::Failed(HsmError::new(class, reason)));
        }
        end
    }
}

fn greeted(hello: &Hello) -> Health {
    if hello.version != VERSION {
        let reason = format!(
            "the token process speaks protocol {}, this daemon {VERSION}: install both from one release",
            hello.version
        );
        return Health::Down { reason };
    }
    if hello.initialised {
        Health::Up
    } else {
        Health::Down {
            reason: "the token has no descriptor: run `hsmd init --config FILE`".into(),
        }
    }
}

fn lost(error: std::io::Error) -> End {
    End::Lost(format!("the token process is gone: {error}"))
}
