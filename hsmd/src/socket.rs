//! Binding the two sockets so that nobody else can sit on their paths.
//!
//! The directory belongs to root or to us and is writable by nobody else; a path that holds anything but a socket is
//! refused; a lock beside the socket tells a stale one (a crash) from a second daemon; the new socket is bound under
//! another name, gets its mode, and is renamed into place, so that it never exists with a wider mode.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Group, Uid, chown};
use tokio::net::UnixListener;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The directory is missing or open to others.
    #[error("the directory of {path} {rule}")]
    Directory {
        /// The socket's path.
        path: PathBuf,
        /// Which rule is broken, and what to do.
        rule: String,
    },
    /// Something that is no socket stands there.
    #[error(
        "{path} exists and is no socket: it is left alone; move it away, or choose another path"
    )]
    Occupied {
        /// The socket's path.
        path: PathBuf,
    },
    /// Another daemon serves it.
    #[error("{path} is served by another hsmd; stop that one first")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// The group of `workload_group` does not exist.
    #[error("workload_group: there is no group of that name")]
    NoGroup,
    /// Any other failure.
    #[error("cannot bind {path}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A bound socket; its path goes away with it, and the lock is held as long.
#[derive(Debug)]
pub struct BoundSocket {
    /// The listener.
    pub listener: UnixListener,
    /// Removes the path and holds the lock.
    pub guard: SocketGuard,
}

/// Removes the socket's path when dropped.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // A failure leaves a stale socket, which the next start recognises by the lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds `path` with `mode`, and `group` if there is one.
///
/// # Errors
/// [`SocketError`]. Must run inside a tokio runtime.
pub fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<BoundSocket, SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    check_directory(path)?;
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // We hold the lock; a daemon that does not know of it would still answer.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse {
                    path: path.to_owned(),
                });
            }
        }
        Ok(_) => {
            return Err(SocketError::Occupied {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    let settled = (|| {
        if let Some(gid) = group.map(find_group).transpose()? {
            chown(&new, None, Some(gid)).map_err(|error| failed(error.into()))?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    })();
    if let Err(error) = settled {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(BoundSocket {
        listener,
        guard: SocketGuard {
            path: path.to_owned(),
            _lock: lock,
        },
    })
}

fn find_group(name: &str) -> Result<Gid, SocketError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) | Err(_) => Err(SocketError::NoGroup),
    }
}

fn check_directory(path: &Path) -> Result<(), SocketError> {
    let refuse = |rule: String| SocketError::Directory {
        path: path.to_owned(),
        rule,
    };
    let dir = path
        .parent()
        .ok_or_else(|| refuse("is the root: choose a directory of its own".to_owned()))?;
    let found = fs::symlink_metadata(dir).map_err(|error| {
        refuse(format!(
            "cannot be used ({error}): create {} for this daemon",
            dir.display()
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
    // Whoever can write there can put another socket in our place and receive what agents send.
    if found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && found.gid() != 0) {
        return Err(refuse(format!(
            "is writable by others (mode {:o}): chmod go-w {}",
            found.mode() & 0o7777,
            dir.display()
        )));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&name);
    let file = file.map_err(|source| SocketError::Io {
        path: path.to_owned(),
        source,
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| SocketError::InUse {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn binds_with_its_mode_and_goes_away_with_its_guard() {
        let dir = dir();
        let path = dir.path().join("x.sock");
        let bound = bind(&path, 0o600, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(
            bind(&path, 0o600, None),
            Err(SocketError::InUse { .. })
        ));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let dir = dir();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a crash leaves the path behind");
        assert!(bind(&path, 0o600, None).is_ok());

        let other = dir.path().join("y.sock");
        let _served = std::os::unix::net::UnixListener::bind(&other).unwrap();
        assert!(matches!(
            bind(&other, 0o600, None),
            Err(SocketError::InUse { .. })
        ));
    }

    #[tokio::test]
    async fn files_links_and_open_directories_are_refused_and_left_alone() {
        let dir = dir();
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(
            bind(&file, 0o600, None),
            Err(SocketError::Occupied { .. })
        ));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(
            bind(&link, 0o600, None),
            Err(SocketError::Occupied { .. })
        ));

        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            bind(&open.join("x.sock"), 0o600, None),
            Err(SocketError::Directory { .. })
        ));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(bind(&open.join("x.sock"), 0o600, None).is_ok());

        let elsewhere = dir.path().join("linked");
        std::os::unix::fs::symlink(&open, &elsewhere).unwrap();
        assert!(matches!(
            bind(&elsewhere.join("x.sock"), 0o600, None),
            Err(SocketError::Directory { .. })
        ));
    }
}
