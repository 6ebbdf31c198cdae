//! A daemon in software behind the real contract, whose answers come from a script.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    dead_code,
    reason = "test support"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use custody::SealedKey;
use custody::p256::Point;
use custody::rsa::RsaPublic;
use proto::v1::workload_server::{Workload, WorkloadServer};
use proto::v1::*;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::office::{AgentKeys, Office};

/// What the daemon would do; tests change it as they go.
#[derive(Default)]
pub struct Script {
    pub revision: u64,
    /// Sealed key and version by key id.
    pub keys: HashMap<String, (SealedKey, u32)>,
    /// Refuse leases with this code.
    pub refuse: Option<&'static str>,
    /// Change what is answered.
    pub forge: Option<fn(&mut LeaseResponse)>,
    /// What keys may be used for; nothing is said of it, as by an older daemon, when there is none.
    pub terms: Option<Terms>,
    /// The custodians that it drives, by their place in the office; all of them, when there are none here.
    pub drives: Vec<usize>,
    /// Hold back the answers to leases, made as of now, until a permit is there.
    pub hold: Option<Arc<Semaphore>>,
    pub sessions: HashMap<Vec<u8>, Session>,
    /// What every session said at its opening, in order.
    pub opened: Vec<OpenSessionRequest>,
    /// Watch streams that were ever opened.
    pub watches: usize,
    pub leases: usize,
    pub acks: Vec<Ack>,
    pub results: Vec<CommandResult>,
    pub usage: Vec<KeyUsage>,
    pub outbox: Option<mpsc::Sender<Result<WatchResponse, Status>>>,
}

impl Script {
    /// Whether it drives this custodian.
    fn drives(&self, at: usize) -> bool {
        self.drives.is_empty() || self.drives.contains(&at)
    }

    /// What a Watch says of the terms.
    pub fn digest(&self) -> Vec<u8> {
        self.terms
            .as_ref()
            .map(|terms| terms.digest.clone())
            .unwrap_or_default()
    }
}

/// One agent's session.
pub struct Session {
    agent: AgentKeys,
    instance: Vec<u8>,
}

/// The running daemon; dropping it ends it.
pub struct Daemon {
    pub script: Arc<Mutex<Script>>,
    changed: watch::Sender<u64>,
    /// Its own, so that ending it ends every connection too, as a kill would.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Served {
    office: Arc<Office>,
    script: Arc<Mutex<Script>>,
    changed: watch::Sender<u64>,
}

impl Daemon {
    pub fn start(socket: &Path, office: &Arc<Office>, script: Script) -> Self {
        let script = Arc::new(Mutex::new(script));
        let changed = watch::Sender::new(0);
        let served = Served {
            office: Arc::clone(office),
            script: Arc::clone(&script),
            changed: changed.clone(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let server = tonic::transport::Server::builder()
            .add_service(WorkloadServer::new(served))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(async move {
            server.await.unwrap();
        });
        Self {
            script,
            changed,
            runtime: Some(runtime),
        }
    }

    /// Forgets every session, as a restart would.
    pub fn forget_sessions(&self) {
        self.script.lock().unwrap().sessions.clear();
    }

    /// Tells the agent something.
    pub async fn tell(&self, kind: watch_response::Kind) {
        let outbox = self
            .script
            .lock()
            .unwrap()
            .outbox
            .clone()
            .expect("an agent watches");
        outbox
            .send(Ok(WatchResponse { kind: Some(kind) }))
            .await
            .unwrap();
    }

    /// Waits until `holds` is true of the script.
    pub async fn until(&self, holds: impl Fn(&Script) -> bool) {
        let mut changed = self.changed.subscribe();
        super::patient(async {
            while !holds(&self.script.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }
}

pub fn state(id: &str, version: u32, revoked: &[u32], usable: bool) -> KeyState {
    KeyState {
        key_id: id.to_owned(),
        provider: "openai".to_owned(),
        current_version: version,
        revoked_versions: revoked.to_vec(),
        usable,
        terms_digest: Vec::new(),
    }
}

fn refusal(code: &str) -> Status {
    let mut status = Status::new(Code::FailedPrecondition, "by script");
    status
        .metadata_mut()
        .insert(proto::ERROR_KEY, code.parse().unwrap());
    status
}

impl Served {
    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        let result = act(&mut self.script.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    fn grant(&self, script: &mut Script, request: &LeaseRequest) -> Result<LeaseResponse, Status> {
        script.leases += 1;
        if let Some(code) = script.refuse {
            return Err(refusal(code));
        }
        let agent = script
            .sessions
            .get(&request.session_id)
            .map(|session| session.agent.clone())
            .ok_or_else(|| refusal("session_unknown"))?;
        let (sealed, version) = script
            .keys
            .get(&request.key_id)
            .ok_or_else(|| refusal("not_found"))?;
        let session: [u8; 16] = request.session_id.as_slice().try_into().unwrap();
        let header_hash = custody::sha256(&sealed.header);
        let deliveries = self
            .office
            .custodians
            .iter()
            .zip(&sealed.shares)
            .zip(1u32..)
            .enumerate()
            .filter(|(at, _)| script.drives(*at))
            .map(|(_, one)| one)
            .take(self.office.trust.threshold.into());
        let mut response = LeaseResponse {
            lease_id: vec![0; 16],
            key_id: request.key_id.clone(),
            version: *version,
            generation: 1,
            header: sealed.header.clone(),
            envelope: sealed.envelope.clone(),
            manifest: sealed.manifest.clone(),
            signature: sealed.signature.to_vec(),
            deliveries: deliveries
                .map(|((custodian, share), x)| Delivery {
                    x,
                    fingerprint: custodian
                        .descriptor
                        .descriptor
                        .fingerprint()
                        .as_bytes()
                        .to_vec(),
                    wrapped: custodian.deliver(share, &header_hash, &session, &agent),
                })
                .collect(),
            ttl_ms: request.ttl_ms,
            revision: script.revision,
            offline_grace_ms: request.offline_grace_ms,
            terms: script.terms.clone(),
        };
        if let Some(forge) = script.forge {
            forge(&mut response);
        }
        Ok(response)
    }
}

fn marked<T>(request: &Request<T>) {
    assert_eq!(
        request.metadata().get(proto::CLIENT_KEY).unwrap(),
        proto::CLIENT_VALUE
    );
}

#[tonic::async_trait]
impl Workload for Served {
    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        marked(&request);
        let request = request.into_inner();
        let agent = AgentKeys {
            p256: Point::parse(&request.p256_public).unwrap(),
            rsa: (!request.rsa_public.is_empty())
                .then(|| RsaPublic::parse(&request.rsa_public).unwrap()),
        };
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        let (revision, drives) = self.with(|script| {
            let instance = request.instance_id.clone();
            // As the daemon does: an agent's new session replaces its earlier one, and the stream of that ends.
            let before = script.sessions.len();
            script
                .sessions
                .retain(|_, session| session.instance != instance);
            if script.sessions.len() < before {
                script.outbox = None;
            }
            script
                .sessions
                .insert(id.to_vec(), Session { agent, instance });
            script.opened.push(request);
            (script.revision, script.drives.clone())
        });
        let custodians = self
            .office
            .trust
            .descriptors()
            .iter()
            .enumerate()
            .filter(|(at, _)| drives.is_empty() || drives.contains(at))
            .map(|(_, one)| SessionCustodian {
                id: one.id.to_string(),
                fingerprint: one.fingerprint().as_bytes().to_vec(),
            })
            .collect();
        Ok(Response::new(OpenSessionResponse {
            session_id: id.to_vec(),
            revision,
            custodians,
            idle_seconds: 600,
            daemon_version: String::new(),
            part: !drives.is_empty(),
        }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> Result<Response<LeaseResponse>, Status> {
        marked(&request);
        let request = request.into_inner();
        let (answer, hold) =
            self.with(|script| (self.grant(script, &request), script.hold.clone()));
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
        answer.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        marked(&request);
        let mut inbox = request.into_inner();
        let Some(Ok(WatchRequest {
            kind: Some(watch_request::Kind::Subscribe(subscribe)),
        })) = inbox.next().await
        else {
            panic!("a Watch begins with Subscribe");
        };
        if !self.with(|script| script.sessions.contains_key(&subscribe.session_id)) {
            return Err(refusal("session_unknown"));
        }
        let (outbox, responses) = mpsc::channel(16);
        let snapshot = self.with(|script| {
            script.outbox = Some(outbox.clone());
            script.watches += 1;
            let keys = script
                .keys
                .iter()
                .map(|(id, (_, version))| state(id, *version, &[], true))
                .map(|state| KeyState {
                    terms_digest: script.digest(),
                    ..state
                })
                .collect();
            SnapshotPart {
                revision: script.revision,
                keys,
                last: true,
            }
        });
        outbox
            .send(Ok(WatchResponse {
                kind: Some(watch_response::Kind::Snapshot(snapshot)),
            }))
            .await
            .unwrap();
        let served = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = inbox.next().await {
                served.with(|script| match message.kind {
                    Some(watch_request::Kind::Ack(ack)) => script.acks.push(ack),
                    Some(watch_request::Kind::Result(result)) => script.results.push(result),
                    _ => {}
                });
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn report_usage(
        &self,
        request: Request<Streaming<ReportUsageRequest>>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        marked(&request);
        let mut inbox = request.into_inner();
        while let Some(message) = inbox.next().await {
            let usage = message?.usage;
            self.with(|script| script.usage.extend(usage));
        }
        Ok(Response::new(ReportUsageResponse { accepted: 1 }))
    }
}

/// Configuration of an agent with one store key, and its trust file.
pub fn config(
    dir: &Path,
    office: &Office,
    upstream: &super::Upstream,
    lease: &str,
) -> (String, PathBuf) {
    let (trust, socket) = (dir.join("custodians.json"), dir.join("hsmd.sock"));
    // Tried when the first cannot be had; in most tests nobody is there.
    let second = dir.join("second.sock");
    std::fs::write(&trust, office.trust.to_json()).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nhsmd = [{socket:?}, {second:?}]\ncustodians = {trust:?}\n[lease]\n{lease}\n[providers.openai]\nbase_url = \"https://localhost:{}\"\nca_file = {:?}\nsecret_key_ref = {{ store = \"openai-prod\" }}\n",
        upstream.port, upstream.ca_file
    );
    (text, socket)
}
