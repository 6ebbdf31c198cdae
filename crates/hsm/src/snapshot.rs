//! What the daemon may know about one custodian's token process: its health and its counts, as plain values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::ErrorClass;

/// Whether a custodian can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The token process runs and is logged in.
    Up,
    /// It is being started or has not answered yet.
    Starting,
    /// The PIN was refused or an earlier refusal stands; nothing is tried until the PIN file changes or `unlatch`.
    Latched {
        /// What the token process said.
        reason: String,
    },
    /// It cannot serve now; restarts and retries go on.
    Down {
        /// What happened last, and the next step where there is one.
        reason: String,
    },
}

impl Health {
    /// Whether requests can be expected to succeed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Health::Up)
    }
}

/// The verbs, for counters. Small and fixed: these become label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the request of the same name")]
pub enum Verb {
    Hello,
    Init,
    Describe,
    OpenSession,
    CloseSession,
    Ingest,
    Deliver,
    Check,
    Answer,
    MacRecord,
    VerifyRecord,
    ReadState,
    WriteState,
    SignStatement,
    ProvePossession,
    StorePart,
    SelfTest,
    Unlatch,
    Shutdown,
}

impl Verb {
    /// All verbs with the names used in metrics.
    pub const ALL: [(Verb, &'static str); 19] = [
        (Verb::Hello, "hello"),
        (Verb::Init, "init"),
        (Verb::Describe, "describe"),
        (Verb::OpenSession, "open_session"),
        (Verb::CloseSession, "close_session"),
        (Verb::Ingest, "ingest"),
        (Verb::Deliver, "deliver"),
        (Verb::Check, "check"),
        (Verb::Answer, "answer"),
        (Verb::MacRecord, "mac_record"),
        (Verb::VerifyRecord, "verify_record"),
        (Verb::ReadState, "read_state"),
        (Verb::WriteState, "write_state"),
        (Verb::SignStatement, "sign_statement"),
        (Verb::ProvePossession, "prove_possession"),
        (Verb::StorePart, "store_part"),
        (Verb::SelfTest, "self_test"),
        (Verb::Unlatch, "unlatch"),
        (Verb::Shutdown, "shutdown"),
    ];
}

/// The counts of one verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerbCount {
    /// The verb's name in metrics.
    pub verb: &'static str,
    /// Calls that ended, well or not.
    pub calls: u64,
    /// The sum of their durations, as the daemon saw them.
    pub total: Duration,
}

/// One custodian at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The custodian's id.
    pub custodian: String,
    /// Whether it can serve.
    pub health: Health,
    /// The token process, when it is our child.
    pub pid: Option<u32>,
    /// How often the token process was replaced.
    pub restarts: u64,
    /// Requests that are under way.
    pub in_flight: u64,
    /// Calls and durations by verb, every verb present.
    pub verbs: Vec<VerbCount>,
    /// Failures by class, every class present.
    pub errors: Vec<(ErrorClass, u64)>,
}

/// The counters behind a [`Snapshot`]; written by many tasks, read by the metrics page.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: [AtomicU64; Verb::ALL.len()],
    nanos: [AtomicU64; Verb::ALL.len()],
    errors: [AtomicU64; ErrorClass::ALL.len()],
    pub(crate) restarts: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) pid: AtomicU64,
}

impl Counters {
    pub(crate) fn ended(&self, verb: Verb, took: Duration, error: Option<ErrorClass>) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.calls[verb as usize].fetch_add(1, Ordering::Relaxed);
        self.nanos[verb as usize].fetch_add(nanos, Ordering::Relaxed);
        if let Some(class) = error {
            self.errors[class as usize - 1].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self, custodian: &str, health: Health) -> Snapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            custodian: custodian.to_owned(),
            health,
            pid: u32::try_from(load(&self.pid)).ok().filter(|pid| *pid != 0),
            restarts: load(&self.restarts),
            in_flight: load(&self.in_flight),
            verbs: Verb::ALL
                .iter()
                .map(|(verb, name)| VerbCount {
                    verb: name,
                    calls: load(&self.calls[*verb as usize]),
                    total: Duration::from_nanos(load(&self.nanos[*verb as usize])),
                })
                .collect(),
            errors: ErrorClass::ALL
                .iter()
                .map(|class| (*class, load(&self.errors[*class as usize - 1])))
                .collect(),
        }
    }
}
