//! The workload socket: what agents ask.

use std::pin::Pin;
use std::sync::Arc;

use custody::witness::WitnessedKeys;
use futures_util::Stream;
use hsm::client::Evidence;
use proto::v1::workload_server::Workload;
use proto::v1::{
    LeaseRequest, LeaseResponse, OpenSessionRequest, OpenSessionResponse, ReportUsageRequest,
    ReportUsageResponse, SessionCustodian, WatchRequest, WatchResponse,
};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{asker, attested, caller, usage, watch};
use crate::agents::{IDLE, Introduction};
use crate::audit::{Category, Event};
use crate::custodians::SessionSeed;
use crate::daemon::Daemon;
use crate::policy::Caller;
use crate::refusal::{Code, Refusal};
use crate::{leases, random_id};

/// Key ids that one agent may announce.
const KEY_IDS_MAX: usize = 256;

/// The service.
pub struct WorkloadService {
    daemon: Arc<Daemon>,
}

impl WorkloadService {
    /// Over the daemon.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }
}

#[tonic::async_trait]
impl Workload for WorkloadService {
    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let (daemon, asker) = (&self.daemon, asker(&request));
        let opened = async {
            let token = &request.get_ref().service_account_token;
            let caller = attested(daemon, &request, token).await?;
            open_session(daemon, caller, request.into_inner()).await
        };
        match opened.await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refusal) => {
                let refused =
                    daemon.refused(Category::Identity, "session.open", &asker, None, refusal);
                Err(refused.await.into())
            }
        }
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> Result<Response<LeaseResponse>, Status> {
        let (daemon, asker) = (&self.daemon, asker(&request));
        let request_of = request.get_ref();
        let leased = async {
            let caller = caller(daemon, &request)?;
            leases::lease(daemon, &caller, request_of).await
        };
        match leased.await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refusal) => {
                let key = Some(request_of.key_id.as_str());
                let refused = daemon.refused(Category::Lease, "lease.refuse", &asker, key, refusal);
                Err(refused.await.into())
            }
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let asker = asker(&request);
        let caller = match caller(&self.daemon, &request) {
            Ok(caller) => caller,
            Err(refusal) => {
                let refused =
                    self.daemon
                        .refused(Category::Identity, "watch", &asker, None, refusal);
                return Err(refused.await.into());
            }
        };
        let stream = watch::start(Arc::clone(&self.daemon), caller, request.into_inner());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn report_usage(
        &self,
        request: Request<Streaming<ReportUsageRequest>>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        let asker = asker(&request);
        let reported = async {
            let caller = caller(&self.daemon, &request)?;
            let mut stream = request.into_inner();
            let mut accepted = 0;
            // A stream that breaks ends the report; what came before it counts.
            while let Ok(Some(report)) = stream.message().await {
                accepted += usage::note(&self.daemon, &caller, &report).await?;
            }
            Ok(accepted)
        };
        match reported.await {
            Ok(accepted) => Ok(Response::new(ReportUsageResponse { accepted })),
            Err(refusal) => {
                let daemon = &self.daemon;
                let refused =
                    daemon.refused(Category::Inference, "usage.report", &asker, None, refusal);
                Err(refused.await.into())
            }
        }
    }
}

async fn open_session(
    daemon: &Daemon,
    caller: Caller,
    request: OpenSessionRequest,
) -> Result<OpenSessionResponse, Refusal> {
    let bad = |text: &str| Refusal::new(Code::BadRequest, text);
    if request.protocol != proto::SESSION_PROTOCOL {
        let text = format!(
            "session protocol {} is not known here, {} is: install matching versions of hsmd and tacit-agent",
            request.protocol,
            proto::SESSION_PROTOCOL
        );
        return Err(Refusal::new(Code::BadRequest, text));
    }
    let name_fits =
        request.agent_name.is_empty() || request.agent_name.parse::<custody::KeyId>().is_ok();
    if !name_fits || request.agent_version.len() > 64 || request.key_ids.len() > KEY_IDS_MAX {
        return Err(bad(
            "agent_name follows the rule for names, agent_version has at most 64 bytes, key_ids at most 256 entries",
        ));
    }
    if request
        .key_ids
        .iter()
        .any(|id| id.parse::<custody::KeyId>().is_err())
    {
        return Err(bad("key_ids has an entry that is no key id"));
    }
    let instance = request
        .instance_id
        .as_slice()
        .try_into()
        .map_err(|_| bad("instance_id has 16 bytes"))?;
    let p256 = custody::p256::Point::parse(&request.p256_public)
        .map_err(|error| bad(&error.to_string()))?;
    let rsa = match request.rsa_public.as_slice() {
        [] => None,
        der => Some(
            custody::rsa::RsaPublic::parse(der)
                .map_err(|error| bad(&error.to_string()))?
                .as_der()
                .to_vec(),
        ),
    };
    daemon.agents.admit(caller.uid)?;
    let ledger = daemon.ledger()?;
    let witness = if request.witness {
        let keys = WitnessedKeys::of(&request.p256_public, &request.rsa_public);
        daemon.witnesses.take(caller.uid, keys).await
    } else {
        None
    };
    let evidence = Evidence {
        token: Zeroizing::new(request.service_account_token),
        witness,
    };
    let seed = SessionSeed {
        evidence,
        id: random_id(),
        p256: p256.as_bytes().to_vec(),
        rsa,
    };
    let custodians = daemon.custodians.open_session(&seed).await?;
    let event = Event::new(Category::Identity, "session.open", "ok", caller.actor())
        .detail(request.agent_name.clone());
    daemon.audit.record(event).await?;
    let session_id = seed.id.to_vec();
    let hello = Introduction {
        name: request.agent_name,
        version: request.agent_version,
        instance,
        key_ids: request.key_ids,
        keeps_terms: request.keeps_terms,
    };
    daemon.agents.opened(seed, caller, hello)?;
    Ok(OpenSessionResponse {
        session_id,
        revision: ledger.view().revision,
        custodians: custodians
            .into_iter()
            .map(|(id, fingerprint)| SessionCustodian {
                id,
                fingerprint: fingerprint.as_bytes().to_vec(),
            })
            .collect(),
        idle_seconds: u32::try_from(IDLE.as_secs()).unwrap_or(u32::MAX),
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
        part: daemon.custodians.part,
    })
}
