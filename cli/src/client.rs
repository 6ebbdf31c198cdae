//! The way to the daemon: gRPC over its Unix socket, after a look at who answers there.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::v1::StatusResponse;
use proto::v1::admin_client::AdminClient;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::failure::Refusal;
use crate::place;

/// Longest wait for the answer to one call. Three tokens that restart, one after another, fit; a person still waits.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the connection itself: the socket is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer. Requests keep to `proto::MESSAGE_MAX_BYTES`; lists of keys grow with the fleet, and the sender was
/// looked at.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Why nobody who may be the daemon answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No socket of that name.
    #[error("there is no admin socket at {0}")]
    Missing(PathBuf),
    /// A socket, and nobody listens.
    #[error("nobody listens on {0}: hsmd is not running")]
    NotRunning(PathBuf),
    /// The file system says no.
    #[error("this user may not connect to {0}")]
    Denied(PathBuf),
    /// Somebody listens there who may be anybody.
    #[error(
        "uid {peer}, neither root nor this user, listens on {path}, and {rule}: nothing was sent there"
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Who listens.
        peer: u32,
        /// Why that need not be the daemon.
        rule: String,
    },
    /// Anything else.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something listens that does not speak gRPC.
    #[error("what listens on {path} does not answer like hsmd")]
    Handshake {
        /// The socket.
        path: PathBuf,
        /// What tonic said.
        #[source]
        source: tonic::transport::Error,
    },
    /// Nothing happened for [`CONNECT_DEADLINE`].
    #[error("{0} does not accept the connection: hsmd hangs or is stopped")]
    Slow(PathBuf),
}

impl ConnectError {
    /// What the operator can do.
    pub(crate) fn next_step(&self) -> String {
        match self {
            Self::Missing(_) => "start hsmd (systemctl start hsmd; tacit dev for development), or name its socket \
                                 with --socket or TACIT_ADMIN_SOCKET"
                .to_owned(),
            Self::NotRunning(_) => "start hsmd: systemctl start hsmd, or hsmd --config FILE".to_owned(),
            Self::Denied(_) => {
                "run as a user of the socket's group, or as root; and hsmd.toml must list the uid: [admin] uids"
                    .to_owned()
            }
            Self::Stranger { path, .. } => {
                format!("find out who it is (ss -xlp src {}), before anything else; hsmd refuses to listen in such a place", path.display())
            }
            Self::Connect { .. } | Self::Handshake { .. } => "tacit doctor".to_owned(),
            Self::Slow(_) => "see its log: journalctl -u hsmd".to_owned(),
        }
    }
}

/// Adds what every call must carry.
#[derive(Debug, Clone)]
pub(crate) struct Mark;

impl Interceptor for Mark {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::from_static(proto::CLIENT_VALUE);
        request.metadata_mut().insert(proto::CLIENT_KEY, value);
        Ok(request)
    }
}

/// A connected daemon.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// The generated client; answers go through [`unary`].
    pub(crate) admin: AdminClient<InterceptedService<Channel, Mark>>,
    /// Uid of the process that answers.
    pub(crate) uid: u32,
    /// Its process id, where it is told.
    pub(crate) pid: Option<u32>,
}

/// Connects, and checks who answers before a single byte is sent.
pub(crate) async fn connect(path: &Path) -> Result<Daemon, ConnectError> {
    let own = || path.to_owned();
    let attempt = async {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => ConnectError::Missing(own()),
                io::ErrorKind::ConnectionRefused => ConnectError::NotRunning(own()),
                io::ErrorKind::PermissionDenied => ConnectError::Denied(own()),
                _ => ConnectError::Connect {
                    path: own(),
                    source,
                },
            })?;
        let uid = check_peer(path, &stream)?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let channel = channel(stream)
            .await
            .map_err(|source| ConnectError::Handshake {
                path: own(),
                source,
            })?;
        let admin = AdminClient::with_interceptor(channel, Mark)
            .max_encoding_message_size(proto::MESSAGE_MAX_BYTES)
            .max_decoding_message_size(ANSWER_MAX_BYTES);
        Ok(Daemon { admin, uid, pid })
    };
    tokio::time::timeout(CONNECT_DEADLINE, attempt)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Slow(own())))
}

/// A stranger who got hold of the path first would be handed sealed keys and asked for statements.
fn check_peer(path: &Path, stream: &UnixStream) -> Result<u32, ConnectError> {
    let failed = |source| ConnectError::Connect {
        path: path.to_owned(),
        source,
    };
    let peer = stream.peer_cred().map_err(failed)?.uid();
    let place = place::look(path).map_err(failed)?;
    match place.judge(peer, nix::unistd::geteuid().as_raw()) {
        Ok(()) => Ok(peer),
        Err(rule) => Err(ConnectError::Stranger {
            path: path.to_owned(),
            peer,
            rule,
        }),
    }
}

async fn channel(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    // The connection that was looked at is the only one: a command does not outlive it, and a silent reconnect would
    // skip the look.
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().ok().and_then(|mut slot| slot.take());
        let stream = stream.ok_or_else(|| io::Error::other("the daemon closed the connection"));
        std::future::ready(stream.map(TokioIo::new))
    });
    // The name goes nowhere; gRPC wants an authority.
    Endpoint::from_static("http://hsmd.invalid")
        .connect_with_connector(connector)
        .await
}

/// Waits for an answer, but not for ever.
pub(crate) async fn unary<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Refusal> {
    let answer = tokio::time::timeout(CALL_DEADLINE, call)
        .await
        .unwrap_or_else(|_| {
            let waited = CALL_DEADLINE.as_secs();
            Err(Status::deadline_exceeded(format!(
                "no answer within {waited} s"
            )))
        });
    answer
        .map(Response::into_inner)
        .map_err(|status| Refusal::new(&status))
}

impl Daemon {
    /// How it is.
    pub(crate) async fn status(&mut self) -> Result<StatusResponse, Refusal> {
        unary(self.admin.status(proto::v1::StatusRequest {})).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_told_from_one_without_a_listener() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let error = connect(&path).await.expect_err("nothing there");
        assert!(matches!(error, ConnectError::Missing(_)), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let error = connect(&path).await.expect_err("nobody listens");
        assert!(matches!(error, ConnectError::NotRunning(_)), "{error}");
        assert!(error.next_step().contains("start hsmd"));
    }
}
