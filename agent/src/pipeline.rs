//! The story of one request, from a head that passed the gate to the last byte of its response.

use std::sync::{Arc, RwLock};

use providers::Family;
use tokio::time::Instant;

use crate::http1::RequestHead;
use crate::inject::Outgoing;
use crate::keys::Lease;
use crate::metrics::{Metrics, Outcome};
use crate::relay::{self, Client, Ended, Marks};
use crate::respond::{Code, Refusal};
use crate::route::{Route, Routes};
use crate::usage::Usage;

/// What every connection shares.
#[derive(Debug)]
pub struct Shared {
    /// The routes in force; replaced as a whole when the configuration is read again.
    pub routes: RwLock<Arc<Routes>>,
    /// Host names, besides addresses and `localhost`, by which apps may call us.
    pub hosts: RwLock<Arc<[String]>>,
    /// What is counted.
    pub metrics: Metrics,
    /// What the daemon will be told.
    pub usage: Arc<Usage>,
}

/// A refusal and whose envelope it gets.
#[derive(Debug)]
pub struct Refused {
    /// What and why.
    pub refusal: Refusal,
    /// The route's API, if there was a route.
    pub family: Option<Family>,
}

/// What became of a request; the connection acts on it.
#[derive(Debug)]
pub enum Done {
    /// Answered; the connection may go on.
    KeepAlive,
    /// Answered, or broken off: the connection ends.
    Close,
    /// To be answered with this.
    Refused(Refused),
}

impl Shared {
    /// Carries out one request.
    pub async fn handle(
        &self,
        client: &mut Client,
        head: &RequestHead,
        request_id: &str,
        closing: bool,
    ) -> Done {
        let started = Instant::now();
        let routes = Arc::clone(
            &self
                .routes
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let (route, path) = match self.route(&routes, head) {
            Ok(found) => found,
            Err(refusal) => {
                self.metrics.rejected_head(refusal.code.name());
                return Done::Refused(Refused {
                    refusal,
                    family: None,
                });
            }
        };
        let mut lease = None;
        let marks = Marks {
            request_id,
            scheme: client.scheme,
            closing,
            started,
            overhead: &self.metrics.overhead,
        };
        let ended = match self
            .lease_and_send(client, head, route, path, marks, &mut lease)
            .await
        {
            Ok(ended) => ended,
            Err(refusal) => Ended::Refused(refusal),
        };
        let outcome = outcome(&ended);
        self.metrics
            .request(&route.name, route.wanted.key_id.as_str(), outcome);
        if let Some(lease) = &lease {
            self.usage.count(lease, outcome);
        }
        tracing::debug!(request_id, method = head.method, route = %route.name, outcome = outcome.name(), "request ended");
        match ended {
            Ended::Relayed {
                keep_alive: true, ..
            } => Done::KeepAlive,
            Ended::Relayed { .. } | Ended::ClientGone | Ended::Broken => Done::Close,
            Ended::Refused(refusal) => Done::Refused(Refused {
                refusal,
                family: Some(route.family),
            }),
        }
    }

    async fn lease_and_send(
        &self,
        client: &mut Client,
        head: &RequestHead,
        route: &Route,
        path: &str,
        marks: Marks<'_>,
        used: &mut Option<Arc<Lease>>,
    ) -> Result<Ended, Refusal> {
        let path = route.check(head, path)?;
        let lease = route.keys.lease(&route.wanted).await?;
        *used = Some(Arc::clone(&lease));
        let bound = route.upstream.bind(&route.wanted.provider, lease)?;
        let request = Outgoing::new(head, route, path);
        Ok(relay::exchange(client, &bound, &request, marks).await)
    }

    /// Who is called, and which route that is. A web page that was pointed at us by its own DNS name has another Host, or an Origin.
    fn route<'a>(
        &self,
        routes: &'a Routes,
        head: &'a RequestHead,
    ) -> Result<(&'a Arc<Route>, &'a str), Refusal> {
        let hosts = Arc::clone(
            &self
                .hosts
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let ours = head.host == "localhost"
            || head.host.parse::<std::net::IpAddr>().is_ok()
            || hosts.contains(&head.host);
        if !ours {
            return Err(Refusal::new(
                Code::Misdirected,
                "the Host header is neither an address nor localhost; list other names in `hosts`",
            ));
        }
        if head.fields.first("origin").is_some() {
            return Err(Refusal::new(
                Code::PermissionDenied,
                "requests from web pages are not served",
            ));
        }
        routes.find(&head.path).ok_or(Refusal::new(
            Code::BadRequest,
            "no such route; the base URL is http://ADDRESS/PROVIDER, with a provider from agent.toml",
        ))
    }
}

fn outcome(ended: &Ended) -> Outcome {
    match ended {
        Ended::Relayed { .. } => Outcome::Ok,
        Ended::ClientGone => Outcome::Canceled,
        Ended::Broken => Outcome::Failed,
        Ended::Refused(refusal) => match refusal.code {
            Code::UpstreamCredentialsRejected => Outcome::CredentialsRejected,
            Code::UpstreamTimeout | Code::UpstreamUnreachable => Outcome::Failed,
            Code::HsmUnavailable | Code::KeyRevoked => Outcome::Unleased,
            Code::BadRequest
            | Code::HeadersTooLarge
            | Code::Misdirected
            | Code::PermissionDenied
            | Code::UpstreamNotAllowed => Outcome::Refused,
        },
    }
}
