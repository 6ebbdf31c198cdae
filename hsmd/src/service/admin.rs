//! The admin socket: what `tacit` asks.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use proto::v1::admin_server::Admin;
use proto::v1::{
    AddKeyRequest, AddKeyResponse, BackupChunk, ChangeProgress, CreateBackupRequest,
    DestroyKeyRequest, DestroyKeyResponse, ListAgentsRequest, ListAgentsResponse,
    ListCustodiansRequest, ListCustodiansResponse, ListKeysRequest, ListKeysResponse,
    RekeyStoreRequest, RekeyStoreResponse, ReloadAgentRequest, ReloadAgentResponse,
    RevokeKeyRequest, RollbackKeyRequest, RotateKeyRequest, SetKeyRequest, ShowKeyRequest,
    ShowKeyResponse, StatusRequest, StatusResponse, TestKeyRequest, TestKeyResponse,
    UnlatchCustodianRequest, UnlatchCustodianResponse, VerifyKeyRequest, VerifyKeyResponse,
};
use tonic::{Request, Response, Status};

use super::{asker, definition, operator};
use crate::agents::Addressee;
use crate::audit::{Category, Event};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::keys;
use crate::model::Key;
use crate::refusal::{Code, Refusal};
use crate::{backup, policy, present, progress, rekey, verify};

/// The service.
pub struct AdminService {
    daemon: Arc<Daemon>,
}

impl AdminService {
    /// Over the daemon.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    /// Finds the operator and runs the work in a task of its own, which goes on when the peer goes away or its deadline
    /// passes: a write that was begun is finished, in the store, on the tokens and in memory. The drain waits for it.
    async fn run<Q, A, W>(
        &self,
        action: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Arc<Daemon>, String, Q) -> W,
    ) -> Result<A, Status>
    where
        Q: About,
        A: Send + 'static,
        W: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        let daemon = Arc::clone(&self.daemon);
        let (asker, key) = (asker(&request), request.get_ref().key());
        let work = operator(&daemon, &request)
            .map(|actor| work(Arc::clone(&daemon), actor, request.into_inner()));
        let watcher = daemon.drain.watcher();
        let done = tokio::spawn(async move {
            let result = match work {
                Ok(work) => work.await,
                Err(refusal) => Err(refusal),
            };
            let result = match result {
                Ok(answer) => Ok(answer),
                Err(refusal) => {
                    let category = match action {
                        "key.set" => Category::Policy,
                        "store.rekey" | "backup.create" => Category::Ceremony,
                        _ => Category::SecretManagement,
                    };
                    let key = key.as_deref();
                    Err(daemon.refused(category, action, &asker, key, refusal).await)
                }
            };
            drop(watcher);
            result
        });
        let result = done.await.unwrap_or_else(|error| {
            let text = format!("the call ended unexpectedly: {error}");
            Err(Refusal::new(Code::Internal, text))
        });
        result.map_err(Status::from)
    }

    /// One answer.
    async fn answer<Q, A, W>(
        &self,
        action: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Arc<Daemon>, String, Q) -> W,
    ) -> Result<Response<A>, Status>
    where
        Q: About,
        A: Send + 'static,
        W: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        self.run(action, request, work).await.map(Response::new)
    }

    /// A change whose way to the agents is streamed.
    async fn stream<Q, W>(
        &self,
        action: &'static str,
        request: Request<Q>,
        no_wait: bool,
        work: impl FnOnce(Arc<Daemon>, String, Q) -> W,
    ) -> Result<Response<ProgressStream>, Status>
    where
        Q: About,
        W: Future<Output = Result<keys::Done, Refusal>> + Send + 'static,
    {
        let done = self.run(action, request, work).await?;
        let stream: ProgressStream =
            Box::pin(progress::follow(Arc::clone(&self.daemon), done, no_wait));
        Ok(Response::new(stream))
    }
}

/// The key that a request is about, for the audit line of a refusal.
trait About {
    fn key(&self) -> Option<String>;
}

macro_rules! about {
    ($($request:ident: $key:expr),+ $(,)?) => {$(
        impl About for $request {
            fn key(&self) -> Option<String> {
                let key: fn(&Self) -> Option<String> = $key;
                key(self)
            }
        }
    )+};
}

/// The key id inside a sealed key, as far as it parses; believed later or never.
fn sealed_key(sealed: &[u8]) -> Option<String> {
    let sealed = custody::SealedKey::parse(sealed).ok()?;
    let header = custody::Header::parse(&sealed.header).ok()?;
    Some(header.key_id.to_string())
}

about! {
    AddKeyRequest: |request| sealed_key(&request.sealed),
    CreateBackupRequest: |_| None,
    DestroyKeyRequest: |request| Some(request.key_id.clone()),
    ListAgentsRequest: |_| None,
    ListCustodiansRequest: |_| None,
    ListKeysRequest: |_| None,
    RekeyStoreRequest: |_| None,
    ReloadAgentRequest: |_| None,
    RevokeKeyRequest: |request| Some(request.key_id.clone()),
    RollbackKeyRequest: |request| Some(request.key_id.clone()),
    RotateKeyRequest: |request| sealed_key(&request.sealed),
    SetKeyRequest: |request| Some(request.key_id.clone()),
    ShowKeyRequest: |request| Some(request.key_id.clone()),
    StatusRequest: |_| None,
    TestKeyRequest: |request| Some(request.key_id.clone()),
    UnlatchCustodianRequest: |_| None,
    VerifyKeyRequest: |request| Some(request.key_id.clone()),
}

type ProgressStream = Pin<Box<dyn Stream<Item = Result<ChangeProgress, Status>> + Send>>;

/// Who can use a key now, by the configuration in force.
fn usable_by(config: &Config, key: &Key) -> Vec<String> {
    policy::usable_by(
        &key.body,
        &config.callers,
        &config.rules.policy,
        &config.defaults,
    )
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn add_key(
        &self,
        request: Request<AddKeyRequest>,
    ) -> Result<Response<AddKeyResponse>, Status> {
        self.answer("key.add", request, |daemon, actor, request| async move {
            let definition = definition::definition(request.policy)?;
            let done = keys::add(
                &daemon,
                &actor,
                &request.sealed,
                definition,
                request.allow_missing,
            )
            .await?;
            let config = daemon.config();
            let key = done.view.keys.0.get(&done.key_id);
            let newest = key.and_then(|key| present::versions(&daemon, key).pop());
            let elsewhere = newest.map(|version| version.elsewhere).unwrap_or_default();
            let usable_by = done
                .view
                .keys
                .0
                .get(&done.key_id)
                .map(|key| usable_by(&config, key));
            Ok(AddKeyResponse {
                key: present::summary(&daemon, &done.view, &done.key_id),
                usable_by: usable_by.unwrap_or_default(),
                missing_custodians: done.missing,
                elsewhere,
            })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        self.answer("key.list", request, |daemon, _, _| async move {
            let view = daemon.ledger()?.view();
            let keys = view
                .keys
                .0
                .keys()
                .filter_map(|id| present::summary(&daemon, &view, id))
                .collect();
            Ok(ListKeysResponse {
                keys,
                revision: view.revision,
            })
        })
        .await
    }

    async fn show_key(
        &self,
        request: Request<ShowKeyRequest>,
    ) -> Result<Response<ShowKeyResponse>, Status> {
        self.answer("key.show", request, |daemon, _, request| async move {
            let view = daemon.ledger()?.view();
            let key = view.keys.0.get(&request.key_id);
            let key = key.ok_or_else(|| {
                Refusal::new(
                    Code::NotFound,
                    format!(
                        "there is no key named {}; tacit key list shows all",
                        request.key_id
                    ),
                )
            })?;
            let config = daemon.config();
            Ok(ShowKeyResponse {
                key: present::summary(&daemon, &view, &request.key_id),
                versions: present::versions(&daemon, key),
                usable_by: usable_by(&config, key),
            })
        })
        .await
    }

    async fn verify_key(
        &self,
        request: Request<VerifyKeyRequest>,
    ) -> Result<Response<VerifyKeyResponse>, Status> {
        self.answer("key.verify", request, |daemon, actor, request| async move {
            verify::verify(&daemon, &actor, &request).await
        })
        .await
    }

    type RotateKeyStream = ProgressStream;

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let no_wait = request.get_ref().no_wait;
        self.stream(
            "key.rotate",
            request,
            no_wait,
            |daemon, actor, request| async move {
                keys::rotate(&daemon, &actor, &request.sealed, request.allow_missing).await
            },
        )
        .await
    }

    type SetKeyStream = ProgressStream;

    async fn set_key(
        &self,
        request: Request<SetKeyRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let no_wait = request.get_ref().no_wait;
        self.stream(
            "key.set",
            request,
            no_wait,
            |daemon, actor, request| async move {
                let key_id = request.key_id.clone();
                let amendment = definition::amendment(request)?;
                crate::definition::set(&daemon, &actor, &key_id, &amendment).await
            },
        )
        .await
    }

    type RollbackKeyStream = ProgressStream;

    async fn rollback_key(
        &self,
        request: Request<RollbackKeyRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let no_wait = request.get_ref().no_wait;
        self.stream(
            "key.rollback",
            request,
            no_wait,
            |daemon, actor, request| async move {
                keys::rollback(&daemon, &actor, &request.key_id).await
            },
        )
        .await
    }

    type RevokeKeyStream = ProgressStream;

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let no_wait = request.get_ref().no_wait;
        self.stream(
            "key.revoke",
            request,
            no_wait,
            |daemon, actor, request| async move {
                let why = definition::line(&request.reason, "reason")?;
                keys::revoke(
                    &daemon,
                    &actor,
                    &request.key_id,
                    request.version,
                    &why,
                    request.compromised,
                )
                .await
            },
        )
        .await
    }

    async fn destroy_key(
        &self,
        request: Request<DestroyKeyRequest>,
    ) -> Result<Response<DestroyKeyResponse>, Status> {
        self.answer(
            "key.destroy",
            request,
            |daemon, actor, request| async move {
                let why = definition::line(&request.reason, "reason")?;
                let (done, destroyed_versions) =
                    keys::destroy(&daemon, &actor, &request.key_id, request.version, &why).await?;
                Ok(DestroyKeyResponse {
                    key: present::summary(&daemon, &done.view, &done.key_id),
                    destroyed_versions,
                })
            },
        )
        .await
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        self.answer("status", request, |daemon, _, _| async move {
            Ok(present::status(&daemon))
        })
        .await
    }

    async fn list_custodians(
        &self,
        request: Request<ListCustodiansRequest>,
    ) -> Result<Response<ListCustodiansResponse>, Status> {
        self.answer("custodian.list", request, |daemon, _, _| async move {
            Ok(ListCustodiansResponse {
                custodians: present::custodians(&daemon),
            })
        })
        .await
    }

    async fn unlatch_custodian(
        &self,
        request: Request<UnlatchCustodianRequest>,
    ) -> Result<Response<UnlatchCustodianResponse>, Status> {
        self.answer(
            "custodian.unlatch",
            request,
            |daemon, actor, request| async move {
                let one = daemon.custodians.find(&request.id);
                let one = one.ok_or_else(|| {
                    Refusal::new(
                        Code::NotFound,
                        format!(
                            "there is no custodian {}; tacit custodian list shows all",
                            request.id
                        ),
                    )
                })?;
                daemon
                    .audit
                    .record(
                        Event::new(Category::Ceremony, "custodian.unlatch", "ok", actor)
                            .detail(request.id.clone()),
                    )
                    .await?;
                one.client.unlatch().await?;
                daemon.bell.notify_one();
                Ok(UnlatchCustodianResponse {
                    custodian: Some(present::custodian(one)),
                })
            },
        )
        .await
    }

    async fn rekey_store(
        &self,
        request: Request<RekeyStoreRequest>,
    ) -> Result<Response<RekeyStoreResponse>, Status> {
        self.answer("store.rekey", request, |daemon, actor, _| async move {
            let text = "another rotation of the store's key is under way; wait for it";
            let turn = daemon.rekeys.try_acquire();
            let _turn = turn.map_err(|_| Refusal::new(Code::Conflict, text))?;
            let ledger = daemon.ledger()?;
            let done = rekey::rekey(&ledger, &daemon.audit, &actor).await?;
            let missing = daemon.custodians.iter().filter(|one| !one.usable());
            Ok(RekeyStoreResponse {
                epoch: done.epoch,
                rows: done.rows,
                revision: done.revision,
                resumed: done.resumed,
                missing_custodians: missing.map(|one| one.id.clone()).collect(),
            })
        })
        .await
    }

    type CreateBackupStream = Pin<Box<dyn Stream<Item = Result<BackupChunk, Status>> + Send>>;

    async fn create_backup(
        &self,
        request: Request<CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let made = self.run("backup.create", request, |daemon, actor, _| async move {
            backup::create(&daemon, &actor).await
        });
        let stream = super::backup::stream(Arc::clone(&self.daemon), made.await?);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        self.answer("agent.list", request, |daemon, _, _| async move {
            Ok(ListAgentsResponse {
                agents: present::agents(&daemon),
            })
        })
        .await
    }

    async fn test_key(
        &self,
        request: Request<TestKeyRequest>,
    ) -> Result<Response<TestKeyResponse>, Status> {
        self.answer("key.test", request, |daemon, actor, request| async move {
            let key_id = request.key_id;
            daemon.ledger()?.view().keys.0.get(&key_id).ok_or_else(|| {
                let text = format!("there is no key named {key_id}; tacit key list shows all");
                Refusal::new(Code::NotFound, text)
            })?;
            let event = Event::new(Category::SecretManagement, "key.test", "ok", actor);
            daemon.audit.record(event.key(&key_id)).await?;
            let who = Addressee {
                name: request.agent,
                key: Some(key_id.clone()),
            };
            let test = || {
                let key_id = key_id.clone();
                proto::v1::command::Kind::TestKey(proto::v1::TestKey { key_id })
            };
            let results = daemon.agents.command(&who, test).await;
            let result =
                |(agent, ok, detail)| proto::v1::test_key_response::Result { agent, ok, detail };
            Ok(TestKeyResponse {
                results: results.into_iter().map(result).collect(),
            })
        })
        .await
    }

    async fn reload_agent(
        &self,
        request: Request<ReloadAgentRequest>,
    ) -> Result<Response<ReloadAgentResponse>, Status> {
        self.answer(
            "agent.reload",
            request,
            |daemon, actor, request| async move {
                daemon
                    .audit
                    .record(
                        Event::new(Category::Configuration, "agent.reload", "ok", actor)
                            .detail(request.name.clone()),
                    )
                    .await?;
                let results = daemon
                    .agents
                    .command(
                        &Addressee {
                            name: request.name.clone(),
                            key: None,
                        },
                        || proto::v1::command::Kind::Reload(proto::v1::Reload {}),
                    )
                    .await;
                if results.is_empty() {
                    return Err(Refusal::new(
                        Code::NotFound,
                        format!(
                            "no agent of that name has a session: {}; tacit agent list shows all",
                            request.name
                        ),
                    ));
                }
                let result = |(agent, ok, detail)| proto::v1::reload_agent_response::Result {
                    agent,
                    ok,
                    detail,
                };
                Ok(ReloadAgentResponse {
                    results: results.into_iter().map(result).collect(),
                })
            },
        )
        .await
    }
}
