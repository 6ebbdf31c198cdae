//! The script in force and what it does to a call.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::script::{Deed, Script};

/// Which version of the script file was read.
type Stamp = (u64, i64, i64, u64);

/// The shim's state.
#[derive(Default)]
pub(crate) struct Faults {
    path: Option<PathBuf>,
    log: Option<File>,
    stamp: Option<Stamp>,
    pub(crate) script: Script,
    seen: Vec<u64>,
    drop_pending: bool,
    /// Slots on which sessions were opened, by their real numbers.
    pub(crate) slots: BTreeSet<usize>,
}

/// The one state of this process.
pub(crate) fn faults() -> MutexGuard<'static, Faults> {
    static FAULTS: OnceLock<Mutex<Faults>> = OnceLock::new();
    FAULTS
        .get_or_init(|| Mutex::new(Faults::open()))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The real module's path.
pub(crate) fn module() -> Option<PathBuf> {
    variable("TACIT_SHIM_MODULE")
}

impl Faults {
    fn open() -> Faults {
        let log = variable("TACIT_SHIM_LOG")
            .and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
        Faults {
            path: variable("TACIT_SHIM_SCRIPT"),
            log,
            ..Faults::default()
        }
    }

    /// Reads the script again if its file changed.
    pub(crate) fn refresh(&mut self) {
        let Some(path) = &self.path else { return };
        let stamp = fs::metadata(path)
            .ok()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()));
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        let text = fs::read_to_string(path).unwrap_or_default();
        match Script::parse(&text) {
            Ok(script) => self.script = script,
            Err(line) => {
                let _ = writeln!(std::io::stderr(), "tacit-shim: not understood: {line}");
                std::process::abort();
            }
        }
        self.seen = vec![0; self.script.rules.len()];
        self.drop_pending = self.script.drop_sessions;
    }

    /// Whether sessions are to be dropped now.
    pub(crate) fn take_drop(&mut self) -> bool {
        std::mem::take(&mut self.drop_pending)
    }

    /// What the first rule that applies does to this call.
    pub(crate) fn deed(&mut self, function: &str) -> Option<Deed> {
        let mut found = None;
        for (rule, seen) in self.script.rules.iter().zip(&mut self.seen) {
            if rule.function != function {
                continue;
            }
            let call = *seen;
            *seen += 1;
            let applies =
                call >= rule.after && rule.times.is_none_or(|times| call < rule.after + times);
            if applies && found.is_none() {
                found = Some(rule.deed);
            }
        }
        found
    }

    pub(crate) fn log(&mut self, function: &str, rv: &str) {
        if let Some(log) = &mut self.log {
            let _ = log.write_all(format!("{function} {rv}\n").as_bytes());
        }
    }
}

/// Applies the script to a call: the CK_RV to return instead of forwarding, if any. Hangs and crashes do not return.
pub(crate) fn before(function: &'static str) -> Option<usize> {
    let deed = {
        let mut faults = faults();
        faults.refresh();
        let deed = faults.deed(function);
        match deed {
            Some(Deed::Hang) => faults.log(function, "hang"),
            Some(Deed::Crash) => faults.log(function, "crash"),
            _ => {}
        }
        deed
    };
    match deed? {
        Deed::Fail(rv) => usize::try_from(rv).ok(),
        Deed::Hang => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        Deed::Crash => std::process::abort(),
        Deed::Delay(ms) => {
            std::thread::sleep(Duration::from_millis(ms));
            None
        }
    }
}
