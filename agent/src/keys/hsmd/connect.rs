//! A gRPC channel over a Unix socket whose other end is who it should be.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custody::witness::{WITNESS_SUFFIX, WitnessedKeys};
use hyper_util::rt::TokioIo;
use proto::v1::workload_client::WorkloadClient;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// A connected local socket answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A daemon that was stopped with the connection open is noticed after this.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The workload client, with the metadata that every call must carry.
pub type Client =
    WorkloadClient<InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>>;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket or the HTTP/2 preface failed; the peer's user is checked here too.
    #[error("the connection failed")]
    Transport(#[from] tonic::transport::Error),
}

/// The socket belongs to a user that no daemon of ours runs as.
#[derive(Debug, thiserror::Error)]
#[error(
    "the socket is served by user {uid}, which is neither root nor our own user nor hsmd_uid: somebody else took its place?"
)]
struct Stranger {
    uid: u32,
}

/// Connects to the daemon at `path`, if it runs as root, as ourselves, or as `daemon_uid`.
pub async fn client(path: &Path, daemon_uid: Option<u32>) -> Result<Client, ConnectError> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| dial(path.clone(), daemon_uid));
    let channel = Endpoint::from_static("http://hsmd")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_with_connector(connector)
        .await?;
    let client: Client = WorkloadClient::with_interceptor(channel, mark as fn(_) -> _);
    Ok(client
        .max_decoding_message_size(proto::MESSAGE_MAX_BYTES)
        .max_encoding_message_size(proto::MESSAGE_MAX_BYTES))
}

/// Vouches for the public keys of a session that is about to be opened, on a connection of its own. A daemon of an older build, or one
/// whose directory is not mounted whole, has no socket for that: then nobody vouches, and whoever insists refuses.
pub async fn vouch(path: &Path, daemon_uid: Option<u32>, keys: &WitnessedKeys) -> bool {
    let mut socket = path.to_owned().into_os_string();
    socket.push(WITNESS_SUFFIX);
    let vouched = async {
        let stream = dial(socket.into(), daemon_uid).await?;
        // What is written stays in the daemon's queue when this end is closed.
        stream.into_inner().write_all(&keys.message()).await
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, vouched).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no witness connection");
            false
        }
        Err(_) => false,
    }
}

async fn dial(path: PathBuf, daemon_uid: Option<u32>) -> io::Result<TokioIo<UnixStream>> {
    let stream = UnixStream::connect(&path).await?;
    let uid = stream.peer_cred()?.uid();
    if !is_daemon(uid, nix::unistd::geteuid().as_raw(), daemon_uid) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            Stranger { uid },
        ));
    }
    Ok(TokioIo::new(stream))
}

/// Whether a daemon of ours may run as `uid`.
fn is_daemon(uid: u32, own: u32, configured: Option<u32>) -> bool {
    uid == 0 || uid == own || Some(uid) == configured
}

/// What a web client that was tricked into talking to the socket could not add.
fn mark(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert(
        proto::CLIENT_KEY,
        MetadataValue::from_static(proto::CLIENT_VALUE),
    );
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_runs_as_root_as_ourselves_or_as_configured() {
        for (uid, configured, wanted) in [
            (0, None, true),
            (1000, None, true),
            (990, None, false),
            (990, Some(990), true),
            (991, Some(990), false),
        ] {
            assert_eq!(is_daemon(uid, 1000, configured), wanted, "{uid}");
        }
    }
}
