//! The only room with tonic types: decode, find the caller, ask the rooms, encode.

mod admin;
mod backup;
mod definition;
mod usage;
mod watch;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use proto::{CLIENT_KEY, CLIENT_VALUE, ERROR_KEY, MESSAGE_MAX_BYTES};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Code as Grpc, Request, Status};

use crate::daemon::Daemon;
use crate::peer::{Incoming, Peer};
use crate::policy::Caller;
use crate::refusal::{Code, Refusal};
use crate::refused::Asker;

/// Longest unary call. Tokens answer within their own deadline of seconds; beyond this the caller has given up.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Streams on one connection: an agent has one Watch, one ReportUsage and a few leases at a time.
const STREAMS_PER_CONNECTION: u32 = 256;
/// Pings on an idle connection, so that a peer that is gone without a FIN frees its place.
const KEEPALIVE: Duration = Duration::from_secs(20);

impl From<Refusal> for Status {
    /// The one table from refusals to gRPC codes; the stable code travels as metadata.
    fn from(refusal: Refusal) -> Self {
        let grpc = match refusal.code {
            Code::StoreRefused | Code::Internal => Grpc::Internal,
            Code::AuditUnavailable | Code::HsmUnavailable => Grpc::Unavailable,
            Code::BadRequest => Grpc::InvalidArgument,
            Code::Conflict | Code::CredentialsRejected | Code::EchoBlocked => {
                Grpc::FailedPrecondition
            }
            Code::KeyRevoked
            | Code::NotAttested
            | Code::PermissionDenied
            | Code::UpstreamNotAllowed => Grpc::PermissionDenied,
            Code::NotFound => Grpc::NotFound,
            Code::RateLimited => Grpc::ResourceExhausted,
            Code::SessionUnknown => Grpc::Unauthenticated,
        };
        let mut metadata = MetadataMap::new();
        metadata.insert(ERROR_KEY, MetadataValue::from_static(refusal.code.name()));
        Status::with_metadata(grpc, refusal.text, metadata)
    }
}

/// Refuses calls without `tacit-client: 1`: a web client tricked into talking to the socket cannot add it.
fn require_client(request: Request<()>) -> Result<Request<()>, Status> {
    let value = request.metadata().get(CLIENT_KEY);
    if value.is_some_and(|value| value.as_bytes() == CLIENT_VALUE.as_bytes()) {
        return Ok(request);
    }
    Err(Refusal::new(Code::BadRequest, "calls carry the metadata tacit-client: 1").into())
}

/// The peer of a call.
fn peer<T>(request: &Request<T>) -> Result<Peer, Refusal> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| {
        Refusal::new(
            Code::PermissionDenied,
            "the connection has no peer credentials",
        )
    })
}

/// The process of a workload call, which must still run: whoever inherited its connection is nobody.
fn process<T>(request: &Request<T>) -> Result<Arc<attest::Peer>, Refusal> {
    let held = peer(request)?.process.ok_or_else(|| {
        Refusal::new(
            Code::Internal,
            "the connection was accepted without its process",
        )
    })??;
    held.check_alive()?;
    Ok(held)
}

/// The caller of a workload call: what was proven when it opened its session, by the rules in force now.
fn caller<T>(daemon: &Daemon, request: &Request<T>) -> Result<Caller, Refusal> {
    let process = process(request)?;
    let facts = match daemon.agents.facts_of(process.process()) {
        Some(facts) => facts,
        None => match daemon.attestation().by_kernel(&process) {
            Some(facts) => Arc::new(facts?),
            None => {
                let text = "nothing was proven of this process yet, or its session was forgotten: open one";
                return Err(Refusal::new(Code::SessionUnknown, text));
            }
        },
    };
    daemon.caller(&facts, process.process())
}

/// The caller that wants a session: everything that is required is proven now.
async fn attested<T>(
    daemon: &Daemon,
    request: &Request<T>,
    token: &[u8],
) -> Result<Caller, Refusal> {
    let admitted = async {
        let process = process(request)?;
        let facts = daemon.attestation().admit(&process, token).await?;
        daemon.caller(&Arc::new(facts), process.process())
    };
    let admitted = admitted.await;
    let outcome = match &admitted {
        Ok(_) => "ok",
        Err(refusal) => refusal.reason.unwrap_or(refusal.code.name()),
    };
    daemon
        .metrics
        .attestations
        .with_label_values(&[outcome])
        .inc();
    admitted
}

/// The operator of an admin call, as audit names it.
fn operator<T>(daemon: &Daemon, request: &Request<T>) -> Result<String, Refusal> {
    let peer = peer(request)?;
    if daemon.config().admin.uids.contains(&peer.uid) {
        return Ok(format!("uid:{} pid:{}", peer.uid, peer.pid));
    }
    Err(Refusal::new(
        Code::PermissionDenied,
        format!("uid {} is not in [admin] uids of hsmd.toml", peer.uid),
    ))
}

/// Who asks, for the audit line; a connection without credentials is nobody.
fn asker<T>(request: &Request<T>) -> Asker {
    let (uid, pid) = peer(request).map_or((u32::MAX, 0), |peer| (peer.uid, peer.pid));
    Asker {
        uid,
        actor: format!("uid:{uid} pid:{pid}"),
    }
}

fn server() -> Server {
    Server::builder()
        .timeout(CALL_DEADLINE)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(8 * 1024)
        .max_frame_size(16 * 1024)
}

/// Serves the workload socket until the drain begins.
///
/// # Errors
/// When the transport fails as a whole.
pub async fn serve_workload(
    daemon: Arc<Daemon>,
    incoming: Incoming,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    use proto::v1::workload_server::WorkloadServer;
    let service = WorkloadServer::new(workload::WorkloadService::new(daemon))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    server()
        .serve_with_incoming_shutdown(
            InterceptedService::new(service, require_client),
            incoming,
            stop,
        )
        .await
}

/// Serves the admin socket until the drain begins.
///
/// # Errors
/// When the transport fails as a whole.
pub async fn serve_admin(
    daemon: Arc<Daemon>,
    incoming: Incoming,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    use proto::v1::admin_server::AdminServer;
    let service = AdminServer::new(admin::AdminService::new(daemon))
        .max_decoding_message_size(MESSAGE_MAX_BYTES);
    server()
        .serve_with_incoming_shutdown(
            InterceptedService::new(service, require_client),
            incoming,
            stop,
        )
        .await
}
