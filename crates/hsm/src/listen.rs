//! Binding a token process's own socket so that nobody else can sit on its path or reach it before its mode is right.
//!
//! Must run before other threads make files: it sets the process's umask for a moment, since a mode that is changed after
//! `bind` leaves a moment in which anyone may connect.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The directory is missing or open to others.
    #[error("the directory of {path} {rule}")]
    Directory {
        /// The socket's path.
        path: PathBuf,
        /// Which rule is broken, and what to do.
        rule: String,
    },
    /// Something that is no socket stands there.
    #[error("{path} is there and is no socket; it is left alone")]
    Occupied {
        /// The socket's path.
        path: PathBuf,
    },
    /// Another process serves it.
    #[error("another process serves {path}; stop that one first")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Binds the socket with mode 0660: the peer's uid is checked on each connection, the mode lets the daemon's group reach
/// that check. A stale socket (nobody answers) is replaced; a live one, or any other file, is refused.
///
/// # Errors
/// [`ListenError`].
pub fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Io {
        path: path.to_owned(),
        source,
    };
    check_directory(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
            Ok(_) => {
                return Err(ListenError::InUse {
                    path: path.to_owned(),
                });
            }
        },
        Ok(_) => {
            return Err(ListenError::Occupied {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let before = umask(Mode::from_bits_truncate(0o117));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The rule of the daemon's own sockets: root's or ours, and writable by nobody else.
fn check_directory(path: &Path) -> Result<(), ListenError> {
    let refuse = |rule: String| ListenError::Directory {
        path: path.to_owned(),
        rule,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => return Err(refuse("is not named: give the whole path".to_owned())),
    };
    let found = fs::symlink_metadata(directory).map_err(|error| {
        refuse(format!(
            "cannot be used ({error}): create {} for this user",
            directory.display()
        ))
    })?;
    if !found.is_dir() {
        return Err(refuse(
            "is a symbolic link or a file: name the real directory".to_owned(),
        ));
    }
    let own = Uid::effective().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err(refuse(format!(
            "belongs to uid {}: it must belong to root or to uid {own}",
            found.uid()
        )));
    }
    // Whoever can write there can put another socket in our place and answer in this custodian's name.
    if found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && found.gid() != 0) {
        return Err(refuse(format!(
            "is writable by others (mode {:o}): chmod go-w {}",
            found.mode() & 0o7777,
            directory.display()
        )));
    }
    Ok(())
}
