//! The built command against a daemon that the test scripts: what it sends, what it believes, how it tells a refusal.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use custody::SealedKey;
use proto::v1::admin_server::{Admin, AdminServer};
use proto::v1::*;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

mod support;

use support::SoftCustodian;

type Progress = Pin<Box<dyn tokio_stream::Stream<Item = Result<ChangeProgress, Status>> + Send>>;

/// A daemon by script: presents `custodians`, records what is added, refuses with `refusal`.
#[derive(Clone, Default)]
struct Script {
    status: StatusResponse,
    added: Arc<Mutex<Vec<AddKeyRequest>>>,
    refusal: Option<(&'static str, &'static str)>,
    progress: Vec<ChangeProgress>,
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
    type RollbackKeyStream = Progress;
    type RevokeKeyStream = Progress;

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
        Ok(Response::new(AddKeyResponse {
            usable_by: vec!["nobody: no caller is of environment production".to_owned()],
            ..AddKeyResponse::default()
        }))
    }

    async fn revoke_key(&self, _: Request<RevokeKeyRequest>) -> Result<Response<Progress>, Status> {
        let messages: Vec<_> = self.progress.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    unused! {
        list_keys(ListKeysRequest) -> ListKeysResponse;
        show_key(ShowKeyRequest) -> ShowKeyResponse;
        verify_key(VerifyKeyRequest) -> VerifyKeyResponse;
        rotate_key(RotateKeyRequest) -> Progress;
        rollback_key(RollbackKeyRequest) -> Progress;
        destroy_key(DestroyKeyRequest) -> DestroyKeyResponse;
        list_custodians(ListCustodiansRequest) -> ListCustodiansResponse;
        unlatch_custodian(UnlatchCustodianRequest) -> UnlatchCustodianResponse;
        list_agents(ListAgentsRequest) -> ListAgentsResponse;
        reload_agent(ReloadAgentRequest) -> ReloadAgentResponse;
    }
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    /// A trust file of `custodians`, a pinned sealer, and the scripted daemon on its socket.
    async fn new(custodians: &[SoftCustodian], script: Script) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tacit"))
            .args(arguments)
            .env_clear()
            .env("TACIT_TRUST", self.path("custodians.json"))
            .env("TACIT_SEALER", self.path("sealer.key"))
            .env("TACIT_ADMIN_SOCKET", self.path("admin.sock"))
            .env("HOME", self.dir.path())
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

fn presented(custodians: &[SoftCustodian]) -> StatusResponse {
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
        default_upstreams: vec!["*".to_owned()],
        ..StatusResponse::default()
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

const SECRET: &str = "sk-proj-CanaryCanaryCanaryCanaryT3BlbkFJCanaryCanaryCanaryCanary";
const ADD: [&str; 5] = ["key", "add", "openai-prod", "--provider", "openai"];

#[tokio::test]
async fn add_seals_the_daemons_default_upstreams_and_submits_ciphertext_alone() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let output = desk.run(&ADD, SECRET).await;
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("nobody: no caller is of environment production"));
    let added = added.lock().unwrap();
    let [request] = added.as_slice() else {
        panic!("one key was added");
    };
    assert!(!request.sealed.windows(6).any(|part| part == b"Canary"));
    let policy = request.policy.clone().unwrap();
    assert!(policy.environments.is_none() && policy.teams.is_none()); // the daemon's defaults, not "nobody"
    let sealed = SealedKey::parse(&request.sealed).unwrap();
    let trust = custody::Trust::parse(&fs::read(desk.path("custodians.json")).unwrap()).unwrap();
    let provenance = sealed.verify(&trust).unwrap();
    let upstreams: Vec<_> = provenance
        .header()
        .upstreams
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(upstreams, ["https://api.openai.com", "*"]);
}

#[tokio::test]
async fn a_daemon_with_another_descriptor_gets_nothing() {
    let custodians = support::three();
    let mut lying = support::three();
    lying.truncate(1);
    let script = Script {
        status: presented(&lying),
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let output = desk.run(&ADD, SECRET).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("another descriptor") && said.contains("tacit trust pin"),
        "{said}"
    );
    assert!(added.lock().unwrap().is_empty());
    let shown = desk.run(&["trust", "show"], "").await;
    assert!(text(&shown).contains("a  CHANGED"), "{}", text(&shown));
}

#[tokio::test]
async fn a_refusal_carries_the_daemons_code_and_takes_the_receipt_back() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        refusal: Some(("conflict", "key openai-prod exists")),
        ..Script::default()
    };
    let desk = Desk::new(&custodians, script).await;
    let line = [&ADD[..], &["--receipt", "r.json", "--output", "json"]].concat();
    let output = desk.run(&line, SECRET).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "conflict");
    assert!(!exists(&desk.path("r.json")));
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[tokio::test]
async fn a_revoke_tells_its_reach_and_a_cut_stream_is_a_failure() {
    let custodians = support::three();
    let reached = |done| ChangeProgress {
        agents: 14,
        acknowledged: 12,
        not_connected: 2,
        leases_end_ms: 1_000,
        elapsed_us: 3_000,
        revision: 7,
        done,
        ..ChangeProgress::default()
    };
    for (last, code) in [(true, 0), (false, 1)] {
        let script = Script {
            progress: vec![reached(false), reached(last)],
            ..Script::default()
        };
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&["key", "revoke", "openai-prod"], "").await;
        let said = text(&output);
        let line = "acknowledged 12 of 14 in 3 ms; 2 not connected, their leases end by 00:00:01";
        assert!(said.contains(line), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("the last lease has ended"), last, "{said}");
        assert_eq!(said.contains("revision 7"), !last, "{said}");
    }
}
