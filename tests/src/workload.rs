//! The daemon's workload socket without an agent: what a test or the benchmark says there itself.

use std::path::{Path, PathBuf};

use custody::SystemRandom;
use custody::p256::KeyPair;
use hyper_util::rt::TokioIo;
use proto::v1::OpenSessionRequest;
use proto::v1::workload_client::WorkloadClient;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{IntoRequest, Request};

/// A connection to the socket.
pub async fn connect(socket: &Path) -> anyhow::Result<WorkloadClient<Channel>> {
    let socket: PathBuf = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://hsmd")
        .connect_with_connector(connector)
        .await?;
    Ok(WorkloadClient::new(channel))
}

/// With the mark that every call carries.
pub fn marked<T>(request: impl IntoRequest<T>) -> Request<T> {
    let mut request = request.into_request();
    let value = MetadataValue::from_static(proto::CLIENT_VALUE);
    request.metadata_mut().insert(proto::CLIENT_KEY, value);
    request
}

/// What an agent with a route to `key` says first, if its build knows nothing of terms.
pub fn hello(key: &str) -> OpenSessionRequest {
    let mut random = SystemRandom::new();
    let mut instance = [0; 16];
    rand_core::Rng::fill_bytes(&mut random, &mut instance);
    OpenSessionRequest {
        protocol: proto::SESSION_PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance_id: instance.to_vec(),
        p256_public: KeyPair::generate(&mut random).public().as_bytes().to_vec(),
        key_ids: vec![key.to_owned()],
        ..OpenSessionRequest::default()
    }
}
