//! Writing files so that a crash, a full disk or a second writer leaves the old one or the new one, never half of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub(crate) struct FileError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// What the system said.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

/// Reads a file that is not secret, up to a bound.
pub(crate) fn read(path: &Path, max_bytes: usize) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(failed("read", path))?;
    read_from(file, max_bytes).map_err(failed("read", path))
}

/// Reads standard input, up to a bound.
pub(crate) fn read_stdin(max_bytes: usize) -> Result<Vec<u8>, FileError> {
    read_from(io::stdin().lock(), max_bytes).map_err(failed("read", Path::new("standard input")))
}

fn read_from(from: impl Read, max_bytes: usize) -> io::Result<Vec<u8>> {
    let bound = u64::try_from(max_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    from.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(io::Error::other(format!(
            "it is longer than {max_bytes} bytes"
        )));
    }
    Ok(bytes)
}

/// Replaces `path` by a file beside it that was synced first, then syncs the directory.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let partial = beside(path);
    let written = create(&partial, bytes, mode)
        .and_then(|()| fs::rename(&partial, path).map_err(failed("replace", path)));
    if written.is_err() {
        let _ = fs::remove_file(&partial); // ours, and of no use to anybody
    }
    written?;
    sync_directory(path)
}

/// Creates `path` with its whole content; refuses when something of that name is there, also a link.
pub(crate) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let partial = beside(path);
    // A hard link refuses to replace, which a rename does not; and the name appears with all its bytes or not at all.
    let written = create(&partial, bytes, mode)
        .and_then(|()| fs::hard_link(&partial, path).map_err(failed("create", path)));
    let _ = fs::remove_file(&partial);
    written?;
    sync_directory(path)
}

/// A file that comes in pieces: it has its name only once it is whole, and replaces nothing.
#[derive(Debug)]
pub(crate) struct Arriving {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Arriving {
    /// Begins a file of mode 0600; refuses early when something of that name is there.
    pub(crate) fn begin(path: &Path) -> Result<Self, FileError> {
        if path.symlink_metadata().is_ok() {
            let there = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(failed("create", path)(there));
        }
        let partial = beside(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(failed("create", &partial))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            file,
        })
    }

    /// The next piece.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file
            .write_all(bytes)
            .map_err(failed("write", &self.partial))
    }

    /// It is whole: synced, and given its name.
    pub(crate) fn keep(self) -> Result<(), FileError> {
        self.file
            .sync_all()
            .map_err(failed("write", &self.partial))?;
        fs::hard_link(&self.partial, &self.path).map_err(failed("create", &self.path))?;
        sync_directory(&self.path)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partial); // under its own name it stays
    }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.partial", std::process::id()))
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync the directory of", path))
}

/// Creates the directory that `path` lies in, for the owner alone; an existing one is left as it is.
pub(crate) fn create_parent(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => create_directory(parent),
        _ => Ok(()),
    }
}

/// Creates a directory of mode 0700 with its parents; an existing one is left as it is.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create the directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        replace(&path, b"one", 0o600).expect("written");
        replace(&path, b"two", 0o600).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_new_file_never_replaces_one_that_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        create_new(&path, b"one", 0o600).expect("written");
        let error = create_new(&path, b"two", 0o600).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn reading_has_a_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        fs::write(&path, [0; 11]).expect("written");
        assert!(read(&path, 10).is_err());
        assert_eq!(read(&path, 11).expect("read").len(), 11);
    }
}
