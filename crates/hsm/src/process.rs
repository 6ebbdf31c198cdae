//! The token process's loop: read all frames that are there, do them in order, write the answers together.
//!
//! One thread does this and calls the module; a second one only watches the clock. On its own socket it serves a few
//! connections by turns, each by the uid that the operator allowed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use zeroize::Zeroize;

use crate::error::{ErrorClass, HsmError};
use crate::exit;
use crate::kernel::Kernel;
use crate::passing;
use crate::token::Hsm;
use crate::wire::{
    Answer, FRAME_MAX, Request, WireError, parse_frame, parse_request, write_answer,
};

/// Requests done before their answers are written: a longer run would only make the first one wait.
const BATCH_MAX: usize = 32;
/// Connections on a token process's own socket: the daemon, its successor during an upgrade, `hsmd init`, `doctor`.
const CONNECTIONS_MAX: usize = 8;
/// Witness connections that a peer may send ahead of the frames that they belong to.
const WITNESSES_MAX: usize = 64;
/// How long nobody is let in after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that does not take its answers for this long is dropped: it would hold up the others.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// `init` may generate several RSA keys, each of which takes seconds on a real token.
const INIT_FACTOR: u32 = 24;

/// Ends the process when a request takes longer than the token's deadline: a hung vendor library cannot be interrupted.
#[derive(Debug, Clone)]
pub struct Watchdog {
    /// Milliseconds since `start` at which the request in work must be done; 0 when none is.
    due: Arc<AtomicU64>,
    start: Instant,
    timeout: Duration,
}

impl Watchdog {
    /// Starts the watching thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(timeout: Duration) -> io::Result<Watchdog> {
        let watchdog = Watchdog {
            due: Arc::new(AtomicU64::new(0)),
            start: Instant::now(),
            timeout,
        };
        let watching = watchdog.clone();
        let nap = (timeout / 8).clamp(Duration::from_millis(5), Duration::from_millis(250));
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                loop {
                    std::thread::sleep(nap);
                    watching.bite_if_due();
                }
            })?;
        Ok(watchdog)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, request: &Request<'_>) {
        let factor = if matches!(request, Request::Init) {
            INIT_FACTOR
        } else {
            1
        };
        let budget = u64::try_from((self.timeout * factor).as_millis()).unwrap_or(u64::MAX);
        self.due
            .store((self.now() + budget).max(1), Ordering::Relaxed);
    }

    fn leave(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    fn bite_if_due(&self) {
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 || self.now() < due {
            return;
        }
        // Exit handlers of the hung library may hang as well: SIGKILL follows whatever they do.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        });
        end(exit::HANG);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the watchdog's whole purpose; main is inside the hung library"
)]
fn end(code: i32) -> ! {
    std::process::exit(code)
}

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// EOF, or `Shutdown`.
    InOrder,
    /// The token failed its self-test.
    TokenFailed,
}

/// One peer with its buffers, which are kept so that a request allocates nothing for them.
struct Peer {
    stream: UnixStream,
    input: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    witnesses: VecDeque<OwnedFd>,
}

enum Step {
    Go,
    Close,
    End(Ended),
}

impl Peer {
    fn new(stream: UnixStream) -> io::Result<Peer> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Peer {
            stream,
            input: vec![0; FRAME_MAX + 4],
            filled: 0,
            out: Vec::with_capacity(FRAME_MAX),
            witnesses: VecDeque::new(),
        })
    }

    /// Reads what is there (blocking until something is) and does all complete requests.
    fn turn<H: Hsm>(&mut self, kernel: &mut Kernel<H>, watchdog: &Watchdog) -> Step {
        let into = &mut self.input[self.filled..];
        match passing::receive(&self.stream, into, &mut self.witnesses) {
            Ok(_) if self.witnesses.len() > WITNESSES_MAX => return Step::Close,
            Ok(0) => return Step::Close,
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Step::Go,
            Err(_) => return Step::Close,
        }
        let mut used = 0;
        loop {
            match self.batch(&mut used, kernel, watchdog) {
                Ok(0) => break,
                Ok(_) => {}
                Err(step) => return step,
            }
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        Step::Go
    }

    /// Does up to [`BATCH_MAX`] requests and writes their answers; says how many.
    fn batch<H: Hsm>(
        &mut self,
        used: &mut usize,
        kernel: &mut Kernel<H>,
        watchdog: &Watchdog,
    ) -> Result<usize, Step> {
        let mut done = 0;
        let mut end = None;
        while done < BATCH_MAX && end.is_none() {
            let frame = match parse_frame(&self.input[*used..self.filled]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return Err(Step::Close),
            };
            *used += frame.taken;
            done += 1;
            let answer = match parse_request(frame.body) {
                Ok(request) => {
                    watchdog.enter(&request);
                    let witness = witness_of(&mut self.witnesses, &request);
                    let answer = kernel.handle_with(&request, witness);
                    watchdog.leave();
                    if matches!(request, Request::Shutdown) {
                        end = Some(Ended::InOrder);
                    }
                    answer
                }
                Err(error) => refused(error),
            };
            if kernel.has_failed() {
                end = Some(Ended::TokenFailed);
            }
            if let Err(error) = write_answer(&mut self.out, frame.id, &answer) {
                // Only a state or text past the bound; the caller must hear something.
                let _ = write_answer(&mut self.out, frame.id, &refused(error));
            }
        }
        let written = self.stream.write_all(&self.out);
        // One kind of answer is a key: no copy stays in the buffer that is kept.
        self.out.as_mut_slice().zeroize();
        self.out.clear();
        match (end, written) {
            (Some(end), _) => Err(Step::End(end)),
            (None, Err(_)) => Err(Step::Close),
            (None, Ok(())) => Ok(done),
        }
    }
}

/// The descriptor that came with this request, if it says that one did.
fn witness_of(waiting: &mut VecDeque<OwnedFd>, request: &Request<'_>) -> Option<OwnedFd> {
    match request {
        Request::OpenSession { evidence, .. } if evidence.witness => waiting.pop_front(),
        _ => None,
    }
}

fn refused(error: WireError) -> Answer {
    Answer::Failed(HsmError::new(ErrorClass::BadRequest, error.to_string()))
}

/// Serves the one connection that a supervisor gave, until it ends.
///
/// # Errors
/// The socket cannot be set up.
pub fn serve_stream<H: Hsm>(
    stream: UnixStream,
    kernel: &mut Kernel<H>,
    watchdog: &Watchdog,
) -> io::Result<Ended> {
    let mut peer = Peer::new(stream)?;
    loop {
        match peer.turn(kernel, watchdog) {
            Step::Go => {}
            Step::Close => return Ok(Ended::InOrder),
            Step::End(ended) => return Ok(ended),
        }
    }
}

/// Serves connections on the process's own socket, from the allowed uids alone.
///
/// # Errors
/// The system cannot say which connections are ready.
pub fn serve_listener<H: Hsm>(
    listener: &UnixListener,
    allowed: &[u32],
    kernel: &mut Kernel<H>,
    watchdog: &Watchdog,
) -> io::Result<Ended> {
    let mut peers: Vec<Peer> = Vec::new();
    let mut door = Door::default();
    loop {
        let ready = wait(listener, &peers, door.is_shut())?;
        let (accept, ready) = ready
            .split_first()
            .expect("the listener is always asked about");
        let mut closed = Vec::new();
        for (at, (peer, ready)) in peers.iter_mut().zip(ready).enumerate() {
            if !ready {
                continue;
            }
            match peer.turn(kernel, watchdog) {
                Step::Go => {}
                Step::Close => closed.push(at),
                // A peer may not end a service that others use; only its own connection.
                Step::End(Ended::InOrder) => closed.push(at),
                Step::End(Ended::TokenFailed) => return Ok(Ended::TokenFailed),
            }
        }
        for at in closed.into_iter().rev() {
            peers.remove(at);
        }
        if *accept {
            match listener.accept() {
                Ok((stream, _)) => {
                    door.is_well();
                    peers.extend(admit(stream, allowed, peers.len()));
                }
                Err(error) => door.failed(&error),
            }
        }
    }
}

/// What keeps a failing `accept` from ending the service or from spinning: those inside are served on.
#[derive(Default)]
struct Door {
    shut_until: Option<Instant>,
    told: bool,
}

impl Door {
    /// How long the door stays shut, if it does.
    fn is_shut(&mut self) -> Option<Duration> {
        let left = self
            .shut_until
            .and_then(|until| until.checked_duration_since(Instant::now()));
        if left.is_none() {
            self.shut_until = None;
        }
        left
    }

    fn is_well(&mut self) {
        self.told = false;
    }

    fn failed(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        // A peer that went away again; the next one may be in the queue already.
        if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted) {
            return;
        }
        // Descriptors or memory have run out, as a rule: the peer waits in the queue until there are some.
        self.shut_until = Some(Instant::now() + ACCEPT_PAUSE);
        if !std::mem::replace(&mut self.told, true) {
            let _ = writeln!(
                io::stderr(),
                "tacit-token: cannot accept connections: {error}; trying again"
            );
        }
    }
}

/// What is ready: the listener first, unless the door is shut, then each peer.
fn wait(listener: &UnixListener, peers: &[Peer], shut: Option<Duration>) -> io::Result<Vec<bool>> {
    let knocks = if shut.is_some() {
        PollFlags::empty()
    } else {
        PollFlags::POLLIN
    };
    let mut fds = vec![PollFd::new(listener.as_fd(), knocks)];
    fds.extend(
        peers
            .iter()
            .map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)),
    );
    let patience = match shut {
        // Rounded up: a wait of zero would spin until the pause is over.
        Some(left) => {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        }
        None => PollTimeout::NONE,
    };
    match poll(&mut fds, patience) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

/// The peer, unless its uid is not allowed, too many are open, or it cannot be set up: then it is closed at once.
fn admit(stream: UnixStream, allowed: &[u32], open: usize) -> Option<Peer> {
    let uid = getsockopt(&stream, PeerCredentials).ok()?.uid();
    if !allowed.contains(&uid) || open >= CONNECTIONS_MAX {
        // The service's journal; a peer that knocks without pause only fills its own.
        let _ = writeln!(
            io::stderr(),
            "tacit-token: connection refused: uid {uid}, {open} open"
        );
        return None;
    }
    stream.set_nonblocking(false).ok()?;
    Peer::new(stream).ok()
}
