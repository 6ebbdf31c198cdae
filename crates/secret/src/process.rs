//! What keeps a whole process's memory from being written out or read by its neighbours.
//!
//! One call here has no safe interface with the flags that we want: installing a system call filter.

use std::io;

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

/// Puts a system call filter on every thread of this process, for good. What it refuses is written to the kernel's audit
/// log: a refusal that nobody can see would be a riddle. What the filter says is `crates/confine`'s matter.
///
/// # Errors
/// What the kernel said. `ESRCH` stands for a thread that has filters of its own.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::other("the filter has too many instructions"))?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads; the structure says otherwise for historical reasons.
        filter: program.as_ptr().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_LOG;
    #[allow(
        unsafe_code,
        reason = "argued in the crate's first paragraph: one system call"
    )]
    // SAFETY: the kernel copies `len` instructions from a slice that outlives the call, and keeps no reference.
    let said = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match said {
        0 => Ok(()),
        ..0 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}
