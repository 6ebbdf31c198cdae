//! A daemon by script behind a real socket, and an operator's desk with trust file and sealer in front of it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part, and a test may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use proto::v1::admin_server::{Admin, AdminServer};
use proto::v1::*;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::support::{self, SoftCustodian};

type Progress = Pin<Box<dyn tokio_stream::Stream<Item = Result<ChangeProgress, Status>> + Send>>;

/// A daemon by script: presents `custodians`, records what is added, refuses with `refusal`.
#[derive(Clone, Default)]
pub struct Script {
    pub status: StatusResponse,
    pub added: Arc<Mutex<Vec<AddKeyRequest>>>,
    pub refusal: Option<(&'static str, &'static str)>,
    pub progress: Vec<ChangeProgress>,
    /// What `AddKey` answers.
    pub answer: AddKeyResponse,
    /// What `ShowKey` answers.
    pub known: ShowKeyResponse,
    /// What `RotateKey` was given.
    pub rotated: Arc<Mutex<Vec<RotateKeyRequest>>>,
    /// What `SetKey` was given.
    pub set: Arc<Mutex<Vec<SetKeyRequest>>>,
    /// Who is connected.
    pub agents: Vec<AgentStatus>,
    /// What their tries of a key came to.
    pub tested: Vec<test_key_response::Result>,
    /// What `TestKey` was asked.
    pub tests: Arc<Mutex<Vec<TestKeyRequest>>>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// What `async_trait` makes of an `async fn`; it does not look inside macros.
macro_rules! unused {
    ($($name:ident($request:ty) -> $response:ty;)+) => {$(
        fn $name<'own, 'call>(&'own self, _: Request<$request>) -> Answer<'call, $response>
        where
            'own: 'call,
            Self: 'call,
        {
            Box::pin(async { Err(Status::unimplemented("not in this script")) })
        }
    )+};
}

#[tonic::async_trait]
impl Admin for Script {
    type RotateKeyStream = Progress;
    type CreateBackupStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<BackupChunk, Status>> + Send>>;
    type RollbackKeyStream = Progress;
    type RevokeKeyStream = Progress;
    type SetKeyStream = Progress;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let mark = request
            .metadata()
            .get(proto::CLIENT_KEY)
            .map(|one| one.as_bytes().to_vec());
        if mark.as_deref() != Some(proto::CLIENT_VALUE.as_bytes()) {
            return Err(Status::permission_denied("the mark is missing"));
        }
        Ok(Response::new(self.status.clone()))
    }

    async fn add_key(
        &self,
        request: Request<AddKeyRequest>,
    ) -> Result<Response<AddKeyResponse>, Status> {
        if let Some((code, text)) = self.refusal {
            let mut status = Status::failed_precondition(text);
            status
                .metadata_mut()
                .insert(proto::ERROR_KEY, code.parse().unwrap());
            return Err(status);
        }
        self.added.lock().unwrap().push(request.into_inner());
        Ok(Response::new(self.answer.clone()))
    }

    async fn revoke_key(&self, _: Request<RevokeKeyRequest>) -> Result<Response<Progress>, Status> {
        let messages: Vec<_> = self.progress.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<Progress>, Status> {
        self.rotated.lock().unwrap().push(request.into_inner());
        let messages: Vec<_> = self.progress.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn set_key(&self, request: Request<SetKeyRequest>) -> Result<Response<Progress>, Status> {
        self.set.lock().unwrap().push(request.into_inner());
        let messages: Vec<_> = self.progress.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn show_key(
        &self,
        _: Request<ShowKeyRequest>,
    ) -> Result<Response<ShowKeyResponse>, Status> {
        Ok(Response::new(self.known.clone()))
    }

    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        Ok(Response::new(ListAgentsResponse {
            agents: self.agents.clone(),
        }))
    }

    async fn test_key(
        &self,
        request: Request<TestKeyRequest>,
    ) -> Result<Response<TestKeyResponse>, Status> {
        self.tests.lock().unwrap().push(request.into_inner());
        Ok(Response::new(TestKeyResponse {
            results: self.tested.clone(),
        }))
    }

    unused! {
        list_keys(ListKeysRequest) -> ListKeysResponse;
        verify_key(VerifyKeyRequest) -> VerifyKeyResponse;
        rollback_key(RollbackKeyRequest) -> Progress;
        destroy_key(DestroyKeyRequest) -> DestroyKeyResponse;
        list_custodians(ListCustodiansRequest) -> ListCustodiansResponse;
        unlatch_custodian(UnlatchCustodianRequest) -> UnlatchCustodianResponse;
        rekey_store(RekeyStoreRequest) -> RekeyStoreResponse;
        reload_agent(ReloadAgentRequest) -> ReloadAgentResponse;
    }

    async fn create_backup(
        &self,
        _: Request<CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        Err(Status::unimplemented("not in this script"))
    }
}

pub struct Desk {
    pub dir: tempfile::TempDir,
}

impl Desk {
    /// A trust file of `custodians`, a pinned sealer, and the scripted daemon on its socket.
    pub async fn new(custodians: &[SoftCustodian], script: Script) -> Self {
        let desk = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let trust = support::trust(custodians, &[]);
        fs::write(desk.path("custodians.json"), trust.to_json()).unwrap();
        let listener = tokio::net::UnixListener::bind(desk.path("admin.sock")).unwrap();
        let serving = tonic::transport::Server::builder()
            .serve_with_incoming(AdminServer::new(script), UnixListenerStream::new(listener));
        tokio::spawn(serving); // ends with the test's runtime
        assert!(
            desk.run(&["sealer", "new", "--pin", "alice"], "")
                .await
                .status
                .success()
        );
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The variables by which the command finds everything.
    pub fn environment(&self) -> Vec<(String, std::ffi::OsString)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [
            ("TACIT_TRUST", self.path("custodians.json").into()),
            ("TACIT_SEALER", self.path("sealer.key").into()),
            ("TACIT_ADMIN_SOCKET", self.path("admin.sock").into()),
            ("HOME", self.path("").into()),
            ("PATH", path),
        ];
        own.map(|(name, value)| (name.to_owned(), value)).into()
    }

    pub async fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        self.run_with(arguments, stdin, &[]).await
    }

    /// With other variables than the desk's own.
    pub async fn run_with(
        &self,
        arguments: &[&str],
        stdin: &str,
        variables: &[(&str, String)],
    ) -> Output {
        // In a session of its own (util-linux): a developer's terminal is not asked.
        let mut child = Command::new("setsid")
            .arg(env!("CARGO_BIN_EXE_tacit"))
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let _ = input.write_all(stdin.as_bytes()).await; // one that refuses early does not read
        drop(input);
        child.wait_with_output().await.unwrap()
    }
}

pub fn presented(custodians: &[SoftCustodian]) -> StatusResponse {
    let one = |custodian: &SoftCustodian| CustodianStatus {
        id: custodian.signed.descriptor.id.to_string(),
        state: "up".to_owned(),
        descriptor: custodian.signed.encode(),
        ..CustodianStatus::default()
    };
    StatusResponse {
        threshold: 2,
        ready: true,
        custodians: custodians.iter().map(one).collect(),
        ..StatusResponse::default()
    }
}

pub fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

pub const SECRET: &str = "sk-proj-CanaryCanaryCanaryCanaryT3BlbkFJCanaryCanaryCanaryCanary";
pub const ADD: [&str; 5] = ["key", "add", "openai-prod", "--provider", "openai"];

pub fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
