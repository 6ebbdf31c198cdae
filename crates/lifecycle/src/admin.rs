//! The operators' port: `/live`, `/ready`, `/metrics`, and nothing else.
//!
//! It runs on the runtime that does the work, so that readiness cannot be well while the work hangs. It must never
//! grow an endpoint that shows configuration, environment or memory, or one that changes something: who reaches this
//! port learns how the daemon is, and no more. Everything is bounded: connections, request head, time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{IntCounter, Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::readiness::Readiness;

/// Prometheus, a kubelet and an operator's `curl` need three; more than this is a mistake or an attack, and each one
/// would cost a descriptor that a request needs.
const CONNECTIONS_MAX: usize = 32;
/// The smallest buffer hyper allows; a scrape's head has a few hundred bytes.
const HEAD_MAX: usize = 8 * 1024;
/// A scraper sends its head in one packet.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// One request per connection, and a reader that does not read is cut off: shorter than Prometheus' usual interval.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (descriptors exhausted), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a scraper of the text format expects.
const METRICS_TYPE: &str = prometheus::TEXT_FORMAT;
const PLAIN_TYPE: &str = "text/plain; charset=utf-8";

/// The admin endpoints could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address could not be bound.
    #[error(
        "cannot listen on {addr} for /live, /ready and /metrics; is another process there? Set `admin_listen`"
    )]
    BindFailed {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The endpoints' own metric could not be registered.
    #[error("cannot register the metrics of the admin endpoints")]
    RegisterFailed {
        /// What the registry said.
        #[source]
        source: prometheus::Error,
    },
}

/// A bound listener that does not answer yet: everything binds before anything serves.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// Binds `addr`; port 0 picks a free one.
///
/// # Errors
/// [`AdminError::BindFailed`].
pub async fn bind(addr: SocketAddr) -> Result<Bound, AdminError> {
    let failed = |source| AdminError::BindFailed { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, addr })
}

impl Bound {
    /// The real address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the returned guard is dropped. Deliberately not part of the drain: an operator wants to see it.
    /// `prefix` is the program's metric prefix, such as `tacit_hsmd`.
    ///
    /// # Errors
    /// [`AdminError::RegisterFailed`] when the registry already has these metrics.
    pub fn spawn(
        self,
        prefix: &str,
        readiness: Readiness,
        registry: Registry,
    ) -> Result<Serving, AdminError> {
        let failed = |source| AdminError::RegisterFailed { source };
        let dropped = IntCounter::new(
            format!("{prefix}_admin_connections_dropped_total"),
            "Connections to the admin port closed unanswered because too many were open; look for a scraper gone wild",
        )
        .map_err(failed)?;
        registry
            .register(Box::new(dropped.clone()))
            .map_err(failed)?;
        let pages = Arc::new(Pages {
            readiness,
            registry,
        });
        let task = tokio::spawn(accept(self.listener, pages, dropped));
        Ok(Serving {
            task,
            addr: self.addr,
        })
    }
}

/// The running endpoints; dropping it ends them.
#[derive(Debug)]
#[must_use = "dropping it ends the endpoints"]
pub struct Serving {
    task: JoinHandle<()>,
    addr: SocketAddr,
}

impl Serving {
    /// The real address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>, dropped: IntCounter) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port: cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            dropped.inc();
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            serve_one(stream, pages).await;
            drop(slot);
        });
    }
}

async fn serve_one(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let response = pages.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin port: connection ended badly"),
        Err(_) => tracing::debug!("admin port: connection cut off at its deadline"),
    }
}

#[derive(Debug)]
struct Pages {
    readiness: Readiness,
    registry: Registry,
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let page = match request.uri().path() {
            "/live" => (StatusCode::OK, PLAIN_TYPE, "live\n".to_owned()),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            _ => (
                StatusCode::NOT_FOUND,
                PLAIN_TYPE,
                "/live /ready /metrics\n".to_owned(),
            ),
        };
        if page.0 != StatusCode::NOT_FOUND
            && !matches!(*request.method(), Method::GET | Method::HEAD)
        {
            let mut refusal = respond(
                StatusCode::METHOD_NOT_ALLOWED,
                PLAIN_TYPE,
                "GET\n".to_owned(),
            );
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        respond(page.0, page.1, page.2)
    }

    fn ready(&self) -> (StatusCode, &'static str, String) {
        // Taken from the page itself, so that code and text cannot disagree when a condition changes in between.
        let page = self.readiness.page();
        let status = match page.as_str() {
            "ready\n" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, PLAIN_TYPE, page)
    }

    fn metrics(&self) -> (StatusCode, &'static str, String) {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => (StatusCode::OK, METRICS_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "cannot encode the metrics");
                let text = "metrics cannot be encoded; see the log\n".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, PLAIN_TYPE, text)
            }
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
