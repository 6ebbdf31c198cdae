//! One agent's Watch stream: a snapshot, then every change as it is committed, and commands in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::v1::watch_request::Kind as Asked;
use proto::v1::watch_response::Kind as Told;
use proto::v1::{
    Change, CustodiansUp, KeepAlive, KeyState, SnapshotPart, Subscribe, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::audit::Category;
use crate::daemon::Daemon;
use crate::ledger::View;
use crate::policy::{self, Caller};
use crate::refusal::{Code, Refusal};
use crate::refused::Asker;

/// Messages that may wait for a slow agent; a change that does not fit waits for room, and so do its successors.
const QUEUE: usize = 16;
/// Keys in one message: 64 states of at most 750 bytes stay under the message bound.
const PART: usize = 64;
/// A sign of life, so that both sides notice a dead peer.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long an agent may take to say who it is.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(10);

type Out = mpsc::Sender<Result<WatchResponse, Status>>;

/// Starts the stream's task; it ends with the stream, the peer or the drain.
pub fn start(
    daemon: Arc<Daemon>,
    caller: Caller,
    from: Streaming<WatchRequest>,
) -> ReceiverStream<Result<WatchResponse, Status>> {
    let (to, stream) = mpsc::channel(QUEUE);
    let watcher = daemon.drain.watcher();
    tokio::spawn(async move {
        let drained = watcher.signaled();
        tokio::select! {
            result = follow(&daemon, &caller, from, &to) => if let Err(refusal) = result {
                let asker = Asker { uid: caller.uid, actor: caller.actor() };
                let refused = daemon.refused(Category::Identity, "watch", &asker, None, refusal).await;
                // The peer may be gone already; then nobody needs the reason.
                let _ = to.send(Err(refused.into())).await;
            },
            _ = drained => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Closes the agent's place in [`crate::agents`] however the stream ends.
struct Connected<'a> {
    daemon: &'a Daemon,
    session: [u8; 16],
    number: u64,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.daemon.agents.disconnect(&self.session, self.number);
        self.daemon.bell.notify_one();
    }
}

async fn follow(
    daemon: &Daemon,
    caller: &Caller,
    mut from: Streaming<WatchRequest>,
    to: &Out,
) -> Result<(), Refusal> {
    let subscribe = first(&mut from).await?;
    let session: [u8; 16] = subscribe
        .session_id
        .as_slice()
        .try_into()
        .map_err(|_| Refusal::new(Code::BadRequest, "session_id has 16 bytes"))?;
    let revision = daemon.ledger()?.view().revision;
    if revision < subscribe.seen_revision {
        let text = format!(
            "this daemon is at revision {revision}, the agent has seen {}: its store is older and serves nothing to this agent",
            subscribe.seen_revision
        );
        return Err(Refusal::new(Code::StoreRefused, text));
    }
    let (number, mut commands) = daemon.agents.connect(&session, caller)?;
    let _connected = Connected {
        daemon,
        session,
        number,
    };
    daemon.bell.notify_one();
    let mut views = daemon.views.subscribe();
    let view = views.borrow_and_update().clone();
    let mut told = visible(daemon, caller, &view);
    if send_snapshot(to, view.revision, &told).await.is_err() {
        return Ok(());
    }
    let mut up = daemon.custodians.up();
    up.mark_changed();
    let mut alive = tokio::time::interval(KEEPALIVE);
    alive.reset();
    loop {
        let message = tokio::select! {
            changed = views.changed() => {
                if changed.is_err() { return Ok(()) }
                let view = views.borrow_and_update().clone();
                let now = visible(daemon, caller, &view);
                let keys = differences(&told, &now);
                told = now;
                if send_changes(to, view.revision, &keys).await.is_err() { return Ok(()) }
                continue
            }
            changed = up.changed() => {
                if changed.is_err() { return Ok(()) }
                let up = up.borrow_and_update();
                let fingerprints = up.iter().map(|one| one.as_bytes().to_vec()).collect();
                Told::CustodiansUp(CustodiansUp { fingerprints })
            }
            command = commands.recv() => match command {
                Some(command) => Told::Command(command),
                // A newer stream of the same session took over.
                None => return Ok(()),
            },
            heard = from.message() => match heard {
                Ok(Some(WatchRequest { kind: Some(heard) })) => { hear(daemon, &session, heard)?; continue }
                Ok(Some(WatchRequest { kind: None })) => continue,
                Ok(None) | Err(_) => return Ok(()),
            },
            _ = alive.tick() => Told::KeepAlive(KeepAlive {}),
        };
        if to
            .send(Ok(WatchResponse {
                kind: Some(message),
            }))
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}

async fn first(from: &mut Streaming<WatchRequest>) -> Result<Subscribe, Refusal> {
    let bad = || Refusal::new(Code::BadRequest, "a Watch begins with Subscribe");
    match tokio::time::timeout(SUBSCRIBE_DEADLINE, from.message()).await {
        Ok(Ok(Some(WatchRequest {
            kind: Some(Asked::Subscribe(subscribe)),
        }))) => Ok(subscribe),
        Ok(_) | Err(_) => Err(bad()),
    }
}

fn hear(daemon: &Daemon, session: &[u8; 16], heard: Asked) -> Result<(), Refusal> {
    match heard {
        Asked::Subscribe(_) => {
            return Err(Refusal::new(
                Code::BadRequest,
                "Subscribe comes once, at the beginning",
            ));
        }
        Asked::Ack(ack) => {
            // Of what an agent says, only keys that exist count, and no revision of the future.
            let view = daemon.views.borrow().clone();
            let known = ack
                .in_use
                .into_iter()
                .take(1024)
                .filter(|one| view.keys.0.contains_key(&one.key_id))
                .map(|one| (one.key_id, one.version))
                .collect();
            let revision = ack.revision.min(view.revision);
            daemon.agents.acknowledge(session, revision, known);
        }
        Asked::Result(result) => {
            // One line for a person, of printable characters: it goes to an operator's terminal.
            let detail = result
                .detail
                .chars()
                .filter(|letter| !letter.is_control())
                .take(300)
                .collect();
            daemon.agents.answered(result.id, result.ok, detail);
        }
    }
    Ok(())
}

/// The keys that the caller may use, and how they stand.
fn visible(daemon: &Daemon, caller: &Caller, view: &View) -> BTreeMap<String, KeyState> {
    let config = daemon.config();
    // A caller whose rule was removed while connected sees nothing any more.
    let Ok(caller) = daemon.again(caller) else {
        return BTreeMap::new();
    };
    let own = view
        .keys
        .0
        .iter()
        .filter(|(_, key)| policy::may_use(&caller, &key.body, &config.defaults));
    own.map(|(id, key)| {
        let current = key.active().map(|(number, _)| number);
        let revoked = key
            .versions
            .iter()
            .filter(|(_, version)| version.body.state.is_revoked())
            .map(|(number, _)| *number);
        let state = KeyState {
            key_id: id.clone(),
            provider: key.body.provider.clone(),
            current_version: current.unwrap_or(0),
            revoked_versions: revoked.collect(),
            usable: current.is_some(),
            terms_digest: key.body.terms.in_force(&config.defaults).digest().to_vec(),
        };
        (id.clone(), state)
    })
    .collect()
}

/// What changed for the caller; a key that went out of sight is told as unusable.
fn differences(
    old: &BTreeMap<String, KeyState>,
    new: &BTreeMap<String, KeyState>,
) -> Vec<KeyState> {
    let changed = new
        .iter()
        .filter(|(id, state)| old.get(*id) != Some(state))
        .map(|(_, state)| state.clone());
    let gone = old
        .iter()
        .filter(|(id, _)| !new.contains_key(*id))
        .map(|(_, state)| KeyState {
            current_version: 0,
            usable: false,
            ..state.clone()
        });
    changed.chain(gone).collect()
}

/// What changed, in parts; one part, and be it empty, says which revision is in force.
async fn send_changes(
    to: &Out,
    revision: u64,
    keys: &[KeyState],
) -> Result<(), mpsc::error::SendError<Result<WatchResponse, Status>>> {
    let mut parts: Vec<&[KeyState]> = keys.chunks(PART).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    for keys in parts {
        let keys = keys.to_vec();
        to.send(Ok(WatchResponse {
            kind: Some(Told::Change(Change { revision, keys })),
        }))
        .await?;
    }
    Ok(())
}

async fn send_snapshot(
    to: &Out,
    revision: u64,
    keys: &BTreeMap<String, KeyState>,
) -> Result<(), mpsc::error::SendError<Result<WatchResponse, Status>>> {
    let states: Vec<KeyState> = keys.values().cloned().collect();
    let mut parts: Vec<Vec<KeyState>> = states.chunks(PART).map(<[KeyState]>::to_vec).collect();
    let last = parts.pop().unwrap_or_default();
    for keys in parts {
        to.send(Ok(WatchResponse {
            kind: Some(Told::Snapshot(SnapshotPart {
                revision,
                keys,
                last: false,
            })),
        }))
        .await?;
    }
    to.send(Ok(WatchResponse {
        kind: Some(Told::Snapshot(SnapshotPart {
            revision,
            keys: last,
            last: true,
        })),
    }))
    .await
}
