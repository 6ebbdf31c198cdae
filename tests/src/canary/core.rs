//! A core of a running process, as an operator takes one: `gcore`, of gdb.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Writes a core of `pid` below `dir`; `None` where gcore is not installed. The process goes on afterwards.
pub(super) fn take(pid: u32, dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let prefix = dir.join("core");
    // Without our debug information, which is large and of no use here.
    let mut command = Command::new("gcore");
    command.arg("-o").arg(&prefix).arg(pid.to_string());
    let output = match command.env("DEBUGINFOD_URLS", "").output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot run gcore"),
    };
    let file = dir.join(format!("core.{pid}"));
    ensure!(
        output.status.success() && file.exists(),
        "gcore {pid}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Some(file))
}
