//! The story of one request, from a head that passed the gate to the last byte of its response.
//!
//! `route → ask → body → for each key in turn: lease → grant → bind → exchange → settle`. A request that is refused never has a key read for
//! it; each attempt is judged afresh, against the terms of its own key, and nothing of one attempt is left for the next.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use providers::{Api, Call, Family, Inspected, Permission, UpstreamFault};
use tokio::time::Instant;

use crate::body::{self, Spool, Unread, Whole};
use crate::http1::{Framing, RequestHead, target};
use crate::inject::Outgoing;
use crate::metrics::{Metrics, Outcome};
use crate::mock;
use crate::policy::{self, Ask};
use crate::relay::{self, CREDENTIALS_REJECTED, Client, Ended, Marks, Rejected, Sending};
use crate::respond::{Code, Refusal};
use crate::route::{Route, Routes, Source};
use crate::settle::{Record, Settling};
use crate::targets::Target;
use crate::usage::Usage;
use crate::ws::{Closed, Frames, Opening, Sockets};

/// Keys that one request is tried with, over all routes: each costs the app a wait.
const ATTEMPTS_MAX: usize = 8;

/// After a provider's failure the same key is tried once more before the next one, after this time or the time that the provider names.
const BACK_OFF: Duration = Duration::from_millis(250);

/// A provider that asks for more patience than this gets none: the next key is tried.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// Up to here a body is read where it is: a few hundred microseconds at the worst.
const READ_HERE_MAX: usize = 256 * 1024;

/// The thread that was to read it ended without an answer.
const UNREAD: Refusal = Refusal::new(
    Code::BadRequest,
    "the request body could not be read; the agent is ending, or its log says why",
);

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
    /// Bodies that are collected.
    pub spool: Spool,
    /// WebSockets that are open.
    pub sockets: Sockets,
}

/// A refusal and whose envelope it gets.
#[derive(Debug)]
pub struct Refused {
    /// What and why.
    pub refusal: Refusal,
    /// The route's API, if there was a route.
    pub api: Option<Api>,
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

/// One request on its way.
struct Story<'a> {
    shared: &'a Shared,
    head: &'a RequestHead,
    request_id: &'a str,
    closing: bool,
    started: Instant,
}

/// What method and path ask for, and the permission that it takes.
type Called = (Call, Permission);

/// One key that a request may be tried with.
#[derive(Clone)]
struct Step {
    route: Arc<Route>,
    target: Arc<Target>,
}

/// How a request ended, and with which key.
struct Ending {
    ended: Ended,
    route: Arc<Route>,
    key: Option<Arc<Target>>,
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
        let routes = self.routes();
        let (route, path) = match self.route(&routes, head) {
            Ok(found) => found,
            Err(refusal) => {
                self.metrics.rejected_head(refusal.code.name());
                return Done::Refused(Refused { refusal, api: None });
            }
        };
        let story = Story {
            shared: self,
            head,
            request_id,
            closing,
            started,
        };
        let Ending { ended, route, key } = match &route.source {
            Source::Mock => Ending {
                ended: story.mock(client, route, path).await,
                route: Arc::clone(route),
                key: None,
            },
            Source::Live { .. } => story.tell(client, &routes, route, path).await,
        };
        let outcome = outcome(&ended);
        let key = key
            .as_ref()
            .map_or(route.first_key(), |target| target.wanted.key_id.as_str());
        self.metrics.request(&route.name, key, outcome);
        tracing::debug!(request_id, method = head.method, route = %route.name, outcome = outcome.name(), "request ended");
        match ended {
            Ended::Relayed {
                keep_alive: true, ..
            } => Done::KeepAlive,
            Ended::Relayed { .. } | Ended::Socket(_) | Ended::ClientGone | Ended::Broken => {
                Done::Close
            }
            Ended::Refused(refusal) | Ended::NotSent(refusal) => Done::Refused(Refused {
                refusal,
                api: Some(route.api),
            }),
            Ended::Rejected(_) => Done::Refused(Refused {
                refusal: CREDENTIALS_REJECTED,
                api: Some(route.api),
            }),
        }
    }

    fn routes(&self) -> Arc<Routes> {
        let routes = self.routes.read();
        Arc::clone(&routes.unwrap_or_else(std::sync::PoisonError::into_inner))
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
        // Browsers alone send the second one, also where a page's request has no Origin: an image, a navigation.
        let site = head.fields.first("sec-fetch-site");
        if head.fields.first("origin").is_some() || site.is_some_and(|site| site != b"none") {
            return Err(Refusal::new(
                Code::PermissionDenied,
                "requests from web pages are not served",
            ));
        }
        let (route, path) = routes.find(&head.path).ok_or(Refusal::new(
            Code::BadRequest,
            "no such route; the base URL is http://ADDRESS/PROVIDER, with a provider from agent.toml",
        ))?;
        if target::has_encoded_slash(path) && route.api.family() != Family::Bedrock {
            return Err(Refusal::new(
                Code::BadRequest,
                "the path percent-encodes a slash",
            ));
        }
        Ok((route, path))
    }
}

impl Story<'_> {
    /// A live request: with one key after the other, until one attempt is the answer.
    async fn tell(
        &self,
        client: &mut Client,
        routes: &Routes,
        route: &Arc<Route>,
        path: &str,
    ) -> Ending {
        let end = |ended| Ending {
            ended,
            route: Arc::clone(route),
            key: None,
        };
        let steps = match self.steps(routes, route) {
            Ok(steps) => steps,
            Err(refusal) => return end(Ended::Refused(refusal)),
        };
        let called = match Ask::call(route.api, self.head, path) {
            Ok(called) => called,
            Err(refusal) => return end(Ended::Refused(refusal)),
        };
        let body = match self.body(client, &steps[0], &called).await {
            Ok(body) => body,
            Err(Unread::ClientGone) => return end(Ended::ClientGone),
            Err(Unread::Refused(refusal)) => return end(Ended::Refused(refusal)),
        };
        let (mut at, mut again) = (0, false);
        // When no attempt is sent at all, what the first key was refused for is what the app can act upon.
        let mut first_refusal = None;
        loop {
            let step = &steps[at];
            // A body in passing is gone after one attempt.
            let last = at + 1 == steps.len() || (body.is_none() && self.head.has_body());
            let called = || match Arc::ptr_eq(&step.route, route) {
                true => Ok(called.clone()),
                false => {
                    let path = route.api.translate(step.route.api, path);
                    Ask::call(step.route.api, self.head, &path)
                }
            };
            let ended = match called() {
                Ok(called) => {
                    self.attempt(client, step, called, body.as_ref(), last)
                        .await
                }
                Err(refusal) => Ended::NotSent(refusal),
            };
            match &ended {
                Ended::NotSent(refusal) if at == 0 => first_refusal = Some(*refusal),
                Ended::NotSent(_) => {}
                Ended::Relayed { .. }
                | Ended::Refused(_)
                | Ended::Rejected(_)
                | Ended::Socket(_)
                | Ended::ClientGone
                | Ended::Broken => first_refusal = None,
            }
            let next = if last { None } else { self.next(&ended, again) };
            let Some(next) = next else {
                let (ended, step) = match first_refusal {
                    Some(refusal) => (Ended::NotSent(refusal), &steps[0]),
                    None => (ended, step),
                };
                return Ending {
                    ended,
                    route: Arc::clone(&step.route),
                    key: Some(Arc::clone(&step.target)),
                };
            };
            self.shared.metrics.failover(&step.route.name, next.reason);
            match next.wait {
                Some(wait) => {
                    again = true;
                    let slept = client.unless_gone(tokio::time::sleep(wait)).await;
                    if slept.is_none() {
                        return end(Ended::ClientGone);
                    }
                }
                None => {
                    again = false;
                    at += 1;
                }
            }
        }
    }

    /// The keys to try, in order: those of the route, then those of its fallbacks. A header of the app may name one target.
    fn steps(&self, routes: &Routes, route: &Arc<Route>) -> Result<Vec<Step>, Refusal> {
        let now = Instant::now();
        let step = |route: &Arc<Route>, target| Step {
            route: Arc::clone(route),
            target,
        };
        let own = route.targets().into_iter();
        if let Some(pinned) = self.head.fields.first("x-tacit-target") {
            let mut named = own.filter_map(|targets| {
                let pinned = std::str::from_utf8(pinned).ok()?;
                targets.find(pinned)
            });
            let target = named.next().ok_or(Refusal::new(
                Code::BadRequest,
                "x-tacit-target names no target of this route",
            ))?;
            return Ok(vec![step(route, Arc::clone(target))]);
        }
        let mut steps: Vec<Step> = own
            .flat_map(|targets| targets.order(now))
            .map(|target| step(route, target))
            .collect();
        for other in route.fallback.iter().filter_map(|name| routes.named(name)) {
            let targets = other.targets().into_iter();
            let targets = targets.flat_map(|targets| targets.order(now));
            steps.extend(targets.map(|target| step(other, target)));
        }
        steps.truncate(ATTEMPTS_MAX);
        Ok(steps)
    }

    /// The body, where it must be known before anything is sent.
    async fn body(
        &self,
        client: &mut Client,
        first: &Step,
        (call, permission): &Called,
    ) -> Result<Option<Whole>, Unread> {
        if !policy::must_be_read(call, *permission, self.head) {
            return Ok(None);
        }
        // Uploads can be larger than what we collect, so they stream where there is nothing to be looked for.
        if *permission == Permission::Files {
            let leasing = first.target.keys.lease(&first.target.wanted);
            let lease = client
                .unless_gone(leasing)
                .await
                .ok_or(Unread::ClientGone)?;
            if policy::may_go_unread(&lease.map_err(Unread::Refused)?.terms) {
                return Ok(None);
            }
        }
        body::collect(client, self.head, &self.shared.spool)
            .await
            .map(Some)
    }

    /// What the body says. A large one is read elsewhere: with every trick that its length allows it takes as long as a hundred requests, and
    /// this thread serves all of them.
    async fn inspect(
        &self,
        api: Api,
        call: &Call,
        body: Option<&Whole>,
    ) -> Result<Inspected, Refusal> {
        let Some(large) = body.filter(|body| body.bytes().len() > READ_HERE_MAX) else {
            return Ask::inspect(api, self.head, call, body);
        };
        let content_type = policy::content_type(self.head)?.to_owned();
        let (call, large) = (call.clone(), large.clone());
        let reading = tokio::task::spawn_blocking(move || {
            providers::inspect(api, &call, &content_type, large.bytes())
        });
        match reading.await {
            Ok(inspected) => Ok(inspected?),
            Err(_) => Err(UNREAD),
        }
    }

    /// One attempt with one key.
    async fn attempt(
        &self,
        client: &mut Client,
        step: &Step,
        called: Called,
        body: Option<&Whole>,
        last: bool,
    ) -> Ended {
        let mut settling =
            Settling::new(&self.shared.metrics, &self.shared.usage, &step.route.name);
        let ended = match self
            .judge_and_send(client, step, called, body, last, &mut settling)
            .await
        {
            Ok(ended) => ended,
            Err(refusal) => Ended::NotSent(refusal),
        };
        self.learn(&step.target, &ended);
        settling.settle(outcome(&ended), self.started.elapsed());
        ended
    }

    async fn judge_and_send(
        &self,
        client: &mut Client,
        step: &Step,
        called: Called,
        body: Option<&Whole>,
        last: bool,
        settling: &mut Settling<'_>,
    ) -> Result<Ended, Refusal> {
        let Step { route, target } = step;
        let Source::Live { upstream, .. } = &route.source else {
            return Err(Refusal::new(Code::BadRequest, "the route has no provider"));
        };
        let reading = self.inspect(route.api, &called.0, body);
        let Some(inspected) = client.unless_gone(reading).await else {
            return Ok(Ended::ClientGone);
        };
        let ask = Ask::read(
            route.api,
            &route.aliases,
            self.head,
            called,
            body,
            inspected?,
        )?;
        let leasing = target.keys.lease(&target.wanted);
        let Some(lease) = client.unless_gone(leasing).await else {
            return Ok(Ended::ClientGone);
        };
        let lease = lease?;
        settling.leased(&lease, ask.permission());
        let grant = ask.grant(&lease.terms, upstream.origin().host())?;
        let bound = upstream.bind(&target.wanted.provider, lease)?;
        let whole = body.map(|body| ask.body(body));
        let (sending, framing) = match &whole {
            Some(whole) => (
                Sending::Whole(whole),
                Framing::Length(whole.bytes().len() as u64),
            ),
            None => (Sending::Stream, self.head.framing),
        };
        let request = Outgoing::new(self.head, route, &grant, framing);
        let marks = Marks {
            request_id: self.request_id,
            closing: self.closing,
            started: self.started,
            overhead: &self.shared.metrics.overhead,
            scheme: client.scheme,
            last,
        };
        let (ended, settled) = match &self.head.upgrade {
            Some(upgrade) => {
                let frames = Frames::new(route.api, ask.into_call(), &route.aliases, bound.lease());
                let opening = Opening {
                    upgrade,
                    bound: &bound,
                    request,
                    marks,
                    key: (&*target.keys, &target.wanted),
                };
                self.shared.sockets.exchange(client, opening, frames).await
            }
            None => relay::exchange(client, &bound, &request, sending, marks).await,
        };
        let sent_bytes = whole.as_ref().map_or(0, |whole| whole.bytes().len());
        settling.used(Record::from(settled), sent_bytes);
        Ok(ended)
    }

    /// What an attempt says about its key, for the requests after this one.
    fn learn(&self, target: &Target, ended: &Ended) {
        let now = Instant::now();
        match ended {
            Ended::Relayed { status, .. } if *status < 400 => target.succeed(),
            Ended::Socket(_) => target.succeed(),
            Ended::Relayed { status: 429, .. } => target.cool(now, None),
            Ended::Rejected(Rejected { fault, retry_after }) => match fault {
                UpstreamFault::AuthBad | UpstreamFault::AuthScope | UpstreamFault::Quota => {
                    target.refuse(now);
                }
                UpstreamFault::Rate | UpstreamFault::Overloaded => target.cool(now, *retry_after),
                UpstreamFault::Server | UpstreamFault::Other => {}
            },
            Ended::Relayed { .. }
            | Ended::Refused(_)
            | Ended::NotSent(_)
            | Ended::ClientGone
            | Ended::Broken => {}
        }
    }

    /// What comes after an attempt that was not the answer; nothing when it was.
    fn next(&self, ended: &Ended, again: bool) -> Option<Next> {
        let other = |reason| Some(Next { reason, wait: None });
        match ended {
            Ended::NotSent(refusal) => match refusal.code {
                // The next key, or the provider behind it, may be in reach; its terms may allow what these did not.
                Code::ModelNotAllowed | Code::PermissionDenied | Code::UpstreamNotAllowed => {
                    other("terms")
                }
                Code::HsmUnavailable | Code::KeyRevoked => other("unleased"),
                Code::UpstreamTimeout | Code::UpstreamUnreachable => other("unreachable"),
                Code::BadRequest
                | Code::EchoBlocked
                | Code::HeadersTooLarge
                | Code::Misdirected
                | Code::RateLimited
                | Code::UpstreamCredentialsRejected => None,
            },
            Ended::Rejected(Rejected { fault, retry_after }) => match fault {
                UpstreamFault::AuthBad | UpstreamFault::AuthScope => other("credentials"),
                UpstreamFault::Quota => other("quota"),
                UpstreamFault::Rate => other("rate"),
                UpstreamFault::Overloaded | UpstreamFault::Server | UpstreamFault::Other => {
                    let wait = retry_after.unwrap_or(BACK_OFF);
                    let wait = Some(wait).filter(|wait| !again && *wait <= BACK_OFF_MAX);
                    Some(Next {
                        reason: "server",
                        wait,
                    })
                }
            },
            // Sent, and perhaps carried out: never sent again.
            Ended::Refused(_)
            | Ended::Relayed { .. }
            | Ended::Socket(_)
            | Ended::ClientGone
            | Ended::Broken => None,
        }
    }

    /// A route that answers by itself.
    async fn mock(&self, client: &mut Client, route: &Route, path: &str) -> Ended {
        let ask = async {
            let called = Ask::call(route.api, self.head, path).map_err(Unread::Refused)?;
            let body = body::collect(client, self.head, &self.shared.spool).await?;
            // Refused as it would be live, and with aliases resolved.
            let inspected = self.inspect(route.api, &called.0, Some(&body)).await;
            let inspected = inspected.map_err(Unread::Refused)?;
            let (aliases, head) = (&route.aliases, self.head);
            let ask = Ask::read(route.api, aliases, head, called, Some(&body), inspected);
            let ask = ask.map_err(Unread::Refused)?;
            Ok(ask.body(&body))
        };
        match ask.await {
            Ok(body) => {
                let asked = mock::Asked {
                    head: self.head,
                    path,
                    body: &body,
                    request_id: self.request_id,
                    closing: self.closing,
                };
                mock::answer(client, route, asked).await
            }
            Err(Unread::ClientGone) => Ended::ClientGone,
            Err(Unread::Refused(refusal)) => Ended::Refused(refusal),
        }
    }
}

/// Another attempt.
struct Next {
    /// Why, as counted.
    reason: &'static str,
    /// With the same key, after this time; else with the next.
    wait: Option<Duration>,
}

fn outcome(ended: &Ended) -> Outcome {
    match ended {
        Ended::Relayed { .. } => Outcome::Ok,
        Ended::Socket(closed) => match closed {
            Closed::App | Closed::Upstream | Closed::Idle | Closed::Draining => Outcome::Ok,
            Closed::AppGone => Outcome::Canceled,
            Closed::UpstreamGone => Outcome::Failed,
            Closed::Refused(refusal) => refused(refusal.code),
        },
        Ended::ClientGone => Outcome::Canceled,
        Ended::Broken => Outcome::Failed,
        Ended::Rejected(rejected) => match rejected.fault {
            UpstreamFault::AuthBad => Outcome::CredentialsRejected,
            UpstreamFault::AuthScope
            | UpstreamFault::Quota
            | UpstreamFault::Rate
            | UpstreamFault::Overloaded
            | UpstreamFault::Server
            | UpstreamFault::Other => Outcome::Failed,
        },
        Ended::Refused(refusal) | Ended::NotSent(refusal) => refused(refusal.code),
    }
}

fn refused(code: Code) -> Outcome {
    match code {
        Code::UpstreamCredentialsRejected => Outcome::CredentialsRejected,
        Code::EchoBlocked | Code::UpstreamTimeout | Code::UpstreamUnreachable => Outcome::Failed,
        Code::HsmUnavailable | Code::KeyRevoked => Outcome::Unleased,
        Code::BadRequest
        | Code::HeadersTooLarge
        | Code::Misdirected
        | Code::ModelNotAllowed
        | Code::PermissionDenied
        | Code::RateLimited
        | Code::UpstreamNotAllowed => Outcome::Refused,
    }
}
