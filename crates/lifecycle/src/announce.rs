//! Telling whoever started a daemon where it listens: one file, written whole.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `text` to `file` (mode 0600) by way of a second name, so that a reader sees nothing or all of it.
///
/// # Errors
/// What the system said; an old announcement stays then.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?
        .write_all(text.as_bytes())?;
    fs::rename(&new, file)
}
