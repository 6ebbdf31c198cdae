//! Witness connections on their way from agents to token processes. The daemon looks at what is written on them only to know to which
//! session they belong; what they prove is told in `attest::witness`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use custody::witness::WitnessedKeys;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// Connections that wait for their session, of all users and of one: an agent opens one just before it opens a session.
const WAITING_MAX: usize = 512;
const WAITING_PER_UID_MAX: usize = 128;
/// How long one may wait, for its message or for its session.
const WAIT: Duration = Duration::from_secs(5);
/// How long a session waits for the witness that the agent says it opened before.
const PATIENCE: Duration = Duration::from_millis(500);
/// Connections whose message is waited for at a time.
const SILENT_MAX: usize = 64;
/// How long nobody is let in after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whose connection it is, and for which keys.
type Of = (u32, WitnessedKeys);

/// Those that wait.
#[derive(Debug, Default)]
pub struct Witnesses {
    waiting: Mutex<HashMap<Of, (Arc<OwnedFd>, Instant)>>,
    arrived: Notify,
}

impl Witnesses {
    /// Takes connections until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let silent = Arc::new(Semaphore::new(SILENT_MAX));
        loop {
            let Ok(permit) = Arc::clone(&silent).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let witnesses = Arc::clone(&self);
                    tokio::spawn(async move {
                        // One that says nothing in time is closed.
                        let _ = tokio::time::timeout(WAIT, witnesses.receive(stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no witness connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(&self, stream: UnixStream) {
        let (Ok(()), Ok(cred)) = (stream.readable().await, stream.peer_cred()) else {
            return;
        };
        let Ok(keys) = attest::witness::peek(&stream) else {
            return;
        };
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let (uid, now) = (cred.uid(), Instant::now());
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|_, (_, since)| now.duration_since(*since) < WAIT);
            let of_user = waiting.keys().filter(|(other, _)| *other == uid).count();
            if waiting.len() >= WAITING_MAX || of_user >= WAITING_PER_UID_MAX {
                tracing::warn!(uid, "too many witness connections without a session");
                return;
            }
            waiting.insert((uid, keys), (Arc::new(OwnedFd::from(stream)), now));
        }
        self.arrived.notify_waiters();
    }

    /// The witness of that user's session with these keys.
    pub async fn take(&self, uid: u32, keys: WitnessedKeys) -> Option<Arc<OwnedFd>> {
        let find = async {
            loop {
                let arrival = self.arrived.notified();
                tokio::pin!(arrival);
                // Registered before looking, or one that comes in between would be missed.
                arrival.as_mut().enable();
                let found = self
                    .waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&(uid, keys));
                if let Some((witness, _)) = found {
                    return witness;
                }
                arrival.await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.ok()
    }
}
