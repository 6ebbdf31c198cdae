//! How a Tacit daemon starts, says how it is, and stops.
//!
//! Both daemons have the same life, so it is told once: a signal begins the [`drain`], what still runs
//! holds a [`Watcher`](drain::Watcher) and the last one dropped ends it; [`readiness`] says by name what is still
//! awaited; [`admin`] shows that and the metrics to operators; [`logs`] writes to standard error; [`notify`] tells
//! systemd.
//!
//! What this room must never do: know a key, a token or a provider; offer an endpoint that shows memory, environment
//! or configuration; change anything on request. Its port answers three questions and takes no orders.
//!
//! A `main` reads like this:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use lifecycle::{admin, drain, logs, metrics, notify, readiness, signals};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let signals = signals::Signals::register()?; // first: a signal that comes during start-up must not be lost
//! logs::init(logs::Format::Text, None)?;
//! let trigger = drain::Trigger::new();
//! let mut reloads = signals.spawn(trigger.clone());
//!
//! let registry = prometheus::Registry::new();
//! metrics::register(&registry, "tacit_hsmd", env!("CARGO_PKG_VERSION"))?;
//! let readiness = readiness::Readiness::new(&trigger);
//! let store = readiness.task("store verified");
//! let bound = admin::bind("127.0.0.1:4110".parse()?).await?;
//! tracing::info!(addr = %bound.addr(), "admin endpoints");
//! let admin = bound.spawn("tacit_hsmd", readiness.clone(), registry)?;
//! notify::spawn(readiness.clone(), trigger.clone());
//!
//! let watcher = trigger.watcher(); // one for each thing that must end by itself
//! tokio::spawn(async move {
//!     watcher.signaled().await; // … then finish what is in flight, and drop the watcher
//! });
//! store.ready();
//!
//! loop {
//!     tokio::select! {
//!         Some(()) = reloads.recv() => { /* re-read the file */ }
//!         _ = trigger.started() => break,
//!     }
//! }
//! trigger.finish(Duration::from_secs(25)).await?;
//! drop(admin); // last, so that an operator can watch the drain
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod admin;
pub mod announce;
pub mod drain;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod readiness;
pub mod signals;
