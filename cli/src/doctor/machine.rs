//! Checks of this machine that need no daemon.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use providers::Plausibility;

use super::report::Report;
use crate::config::credential_variable;

/// What an agent's arena needs at the least; below it the kernel's lock fails and the agent would not start.
const MEMLOCK_MIN_BYTES: u64 = 64 * 1024;

/// Who may connect to the socket, and who could put another in its place.
pub(super) fn check_socket(report: &mut Report, path: &Path) {
    const NAME: &str = "admin socket";
    let Ok(metadata) = fs::metadata(path) else {
        let next = "start hsmd, or name the socket with --socket or TACIT_ADMIN_SOCKET";
        return report.fail(
            NAME,
            format!("there is nothing at {}", path.display()),
            next,
        );
    };
    if !metadata.file_type().is_socket() {
        let next = "name the socket with --socket or TACIT_ADMIN_SOCKET";
        return report.fail(NAME, format!("{} is not a socket", path.display()), next);
    }
    let mode = metadata.mode() & 0o777;
    let directory = path.parent().unwrap_or(Path::new("/"));
    // Whoever may write the directory may put a socket of his own in its place; a sticky one (/tmp) guards the name
    // only while it is taken.
    let open_directory = fs::metadata(directory).is_ok_and(|found| found.mode() & 0o022 != 0);
    if mode & 0o007 != 0 {
        let finding = format!(
            "{} has mode {mode:03o}: every user may connect",
            path.display()
        );
        report.fail(
            NAME,
            finding,
            "restart hsmd, which sets the mode; if it stays, mind the directory's mode",
        );
    } else if open_directory {
        let finding = format!(
            "others may write {}, and replace the socket",
            directory.display()
        );
        report.warn(NAME, finding, format!("chmod go-w {}", directory.display()));
    } else {
        report.ok(NAME, format!("{} has mode {mode:03o}", path.display()));
    }
}

/// Whether an agent that is started here could lock its memory.
pub(super) fn check_memlock(report: &mut Report) {
    const NAME: &str = "memory locks";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft >= MEMLOCK_MIN_BYTES => {
            let limit = if soft == nix::libc::RLIM_INFINITY {
                "unlimited".to_owned()
            } else {
                format!("{} KiB", soft / 1024)
            };
            report.ok(NAME, format!("RLIMIT_MEMLOCK here is {limit}"));
        }
        Ok((soft, _)) => report.warn(
            NAME,
            format!(
                "RLIMIT_MEMLOCK here is {} KiB: an agent started here cannot lock its keys",
                soft / 1024
            ),
            "ulimit -l unlimited, or LimitMEMLOCK= in its unit",
        ),
        Err(error) => report.warn(
            NAME,
            format!("cannot read RLIMIT_MEMLOCK: {error}"),
            "ulimit -l",
        ),
    }
}

/// A real key in an application's environment is what Tacit exists to remove. Names the variable, never the value.
pub(super) fn check_variables(report: &mut Report) {
    const NAME: &str = "environment";
    const VARIABLES: [(&str, &str); 4] = [
        ("OPENAI_API_KEY", "openai"),
        ("ANTHROPIC_API_KEY", "anthropic"),
        ("GEMINI_API_KEY", "gemini"),
        ("GOOGLE_API_KEY", "gemini"),
    ];
    let real = |variable: &str, provider: &str| {
        let value = credential_variable(variable)?;
        let provider = providers::find(provider)?;
        (provider.check_key(&value) == Plausibility::Plausible).then_some(())
    };
    let mut found = false;
    for (variable, provider) in VARIABLES {
        if real(variable, provider).is_some() {
            found = true;
            report.warn(
                NAME,
                format!("{variable} looks like a real key of {provider}"),
                format!("add it (tacit key add ID --provider {provider}), unset {variable}, and rotate it: it was \
                         readable by every process of this user"),
            );
        }
    }
    if !found {
        report.ok(NAME, "no variable here looks like a real provider key");
    }
}
