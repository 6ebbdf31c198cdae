//! What keeps a whole process's memory from being written out or read by its neighbours.

use nix::sys::resource::{Resource, setrlimit};

/// Why the process could not be closed to dumps.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: the process would be readable by others or leave a core file")]
pub struct HardenError {
    step: &'static str,
    #[source]
    source: nix::Error,
}

/// No core files, no `ptrace` or `/proc/PID/mem` by the same user, no new privileges.
///
/// `RLIMIT_CORE = 0` alone is not enough (a piped `core_pattern` ignores it), and `PR_SET_DUMPABLE = 0` alone does not
/// survive an `execve`: both are set, first thing in `main`.
///
/// # Errors
/// [`HardenError`] names the step that the kernel refused; a daemon must not start then.
pub fn forbid_dumps() -> Result<(), HardenError> {
    let failed = |step| move |source| HardenError { step, source };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("set RLIMIT_CORE to 0"))?;
    nix::sys::prctl::set_dumpable(false).map_err(failed("clear PR_SET_DUMPABLE"))?;
    nix::sys::prctl::set_no_new_privs().map_err(failed("set PR_SET_NO_NEW_PRIVS"))
}

/// Whether the process is closed to dumps, for `doctor` and for tests.
pub fn dumps_forbidden() -> bool {
    matches!(nix::sys::prctl::get_dumpable(), Ok(false))
}
