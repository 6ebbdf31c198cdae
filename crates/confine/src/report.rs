//! What holds and what does not, in words for logs, metrics and `tacit doctor`.

use std::fmt;

/// One way in which a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// No core file, no `ptrace`, no `/proc/PID/mem` for the same user.
    Dumps,
    /// No execve gives a privilege.
    NoNewPrivs,
    /// No capability but the ones that the plan argues for, in any set.
    Capabilities,
    /// Landlock on files: only what the configuration names.
    Landlock,
    /// Landlock on TCP ports: only what the configuration names.
    LandlockPorts,
    /// System calls that the process has no use for answer EPERM.
    Seccomp,
}

impl Measure {
    /// All of them, in the order in which they are taken.
    pub const ALL: [Self; 6] = [
        Self::Dumps,
        Self::NoNewPrivs,
        Self::Capabilities,
        Self::Landlock,
        Self::LandlockPorts,
        Self::Seccomp,
    ];

    /// The name in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dumps => "dumps",
            Self::NoNewPrivs => "no_new_privs",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::LandlockPorts => "landlock_ports",
            Self::Seccomp => "seccomp",
        }
    }

    /// Whether a setting may turn it off. The first two break nothing that runs here, and the others stand on them.
    pub fn may_be_off(self) -> bool {
        match self {
            Self::Dumps | Self::NoNewPrivs => false,
            Self::Capabilities | Self::Landlock | Self::LandlockPorts | Self::Seccomp => true,
        }
    }
}

/// Whether a measure holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It holds.
    On,
    /// The kernel does not know it.
    Unsupported,
    /// It should hold and could not be taken: why.
    Refused(String),
    /// The configuration turns it off.
    Off,
}

impl State {
    /// Whether it holds.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Unsupported => f.write_str("unsupported by this kernel"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Off => f.write_str("off by configuration"),
        }
    }
}

/// What is known of one measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub measure: Measure,
    /// Whether it holds.
    pub state: State,
    /// What exactly holds, or what would be needed; empty when there is nothing to add.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(measure: Measure, state: State, detail: impl Into<String>) -> Self {
        Self {
            measure,
            state,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.measure.name(), self.state)?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, " ({detail})"),
        }
    }
}

/// One finding for each measure, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether a measure holds.
    pub fn is_on(&self, measure: Measure) -> bool {
        self.findings
            .iter()
            .any(|one| one.measure == measure && one.state.is_on())
    }

    /// Name and whether it holds, for a metric.
    pub fn gauges(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.findings
            .iter()
            .map(|one| (one.measure.name(), one.state.is_on()))
    }

    /// One line for each measure in the log; loud when it does not hold.
    pub fn log(&self) {
        for Finding {
            measure,
            state,
            detail,
        } in &self.findings
        {
            let measure = measure.name();
            if state.is_on() {
                tracing::info!(measure, %state, detail, "process hardening");
            } else {
                tracing::warn!(measure, %state, detail, "process hardening");
            }
        }
    }
}
