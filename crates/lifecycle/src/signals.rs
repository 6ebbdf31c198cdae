//! Signals: SIGTERM and SIGINT begin the drain, a second one ends the program at once, SIGHUP asks for a reload.
//!
//! [`Signals::register`] stands first in `main`. The handlers are in place when it returns, not when somebody first
//! awaits them: as PID 1 of a container a process has no default handlers, so a SIGTERM that comes during start-up
//! would otherwise be lost and the stop would take until the kubelet's SIGKILL. A signal that comes between `register`
//! and [`Signals::spawn`] is kept and acted on then.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::drain::{Reason, Trigger};

/// A handler could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the handler for {name}")]
pub struct RegisterFailed {
    /// The signal.
    pub name: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// The installed handlers.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// SIGHUPs, as they come. Several in a row before the receiver looks are one: a reload reads the whole file anyway.
pub type Reloads = mpsc::Receiver<()>;

impl Signals {
    /// Installs the handlers. Must be called inside the runtime, before anything else.
    ///
    /// # Errors
    /// [`RegisterFailed`] when the system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime: a mistake in `main`, seen at its first run.
    pub fn register() -> Result<Self, RegisterFailed> {
        let install = |name, kind| signal(kind).map_err(|source| RegisterFailed { name, source });
        Ok(Self {
            terminate: install("SIGTERM", SignalKind::terminate())?,
            interrupt: install("SIGINT", SignalKind::interrupt())?,
            hangup: install("SIGHUP", SignalKind::hangup())?,
        })
    }

    /// Acts on the signals from now on, and gives back the stream of reload requests.
    pub fn spawn(self, trigger: Trigger) -> Reloads {
        let (reload, reloads) = mpsc::channel(1);
        tokio::spawn(self.drive(trigger, reload));
        reloads
    }

    async fn drive(mut self, trigger: Trigger, reload: mpsc::Sender<()>) {
        let mut asked = false;
        loop {
            let reason = tokio::select! {
                Some(()) = self.terminate.recv() => Reason::Terminate,
                Some(()) = self.interrupt.recv() => Reason::Interrupt,
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reload asked for");
                    // Full means that a reload is already waiting and will read the same file.
                    let _ = reload.try_send(());
                    continue;
                }
            };
            if asked {
                exit_at_once(reason);
            }
            asked = true;
            tracing::info!(signal = %reason, "draining; a second signal ends at once");
            trigger.start(reason);
        }
    }
}

/// The operator has asked twice: open streams are cut, nothing is waited for. Durable state is safe at any instant (the
/// store commits before it answers), so there is nothing to tidy. The code is the one a shell gives for the signal.
fn exit_at_once(reason: Reason) -> ! {
    tracing::warn!(signal = %reason, "second signal: ending at once");
    let code = match reason {
        Reason::Interrupt => 130,
        Reason::Failure | Reason::Request | Reason::Terminate => 143,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "ending past every drain is what was asked for"
    )]
    std::process::exit(code)
}
