//! Whether the process behind `token_socket` is one that the operator put there.
//!
//! The descriptor is public, so whoever may bind the socket's path could answer in a custodian's name. Accepted are: root,
//! our own user, the user named as `token_uid`, and, when none is named, the user to whom the socket's directory belongs
//! (the layout of the units: each token process has its own), if nobody else can write there and the way to it is root's
//! or ours. Everybody else is refused by uid before a byte is sent.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;

/// What decides about a directory: its owner, its group, its mode.
#[derive(Debug, Clone, Copy)]
struct Directory {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Directory {
    fn read(path: &Path) -> io::Result<Directory> {
        let found = fs::metadata(path)?;
        Ok(Directory {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode(),
        })
    }

    /// The rule of the daemon's own sockets: a group may write only if it is root's.
    fn is_writable_by_others(self) -> bool {
        self.mode & 0o002 != 0 || (self.mode & 0o020 != 0 && self.gid != 0)
    }
}

/// Accepts the peer, or says why not.
pub(crate) fn check(path: &Path, peer: u32, token_uid: Option<u32>) -> Result<(), String> {
    let own = Uid::effective().as_raw();
    if peer == 0 || peer == own || token_uid == Some(peer) {
        return Ok(());
    }
    let refused = |rule: String| {
        format!(
            "the process that serves {} runs as uid {peer} and is not believed: {rule}",
            path.display()
        )
    };
    if let Some(uid) = token_uid {
        return Err(refused(format!(
            "token_uid is {uid}; stop that process, or correct token_uid"
        )));
    }
    let unread = |error| {
        refused(format!(
            "the socket's directory cannot be examined: {error}"
        ))
    };
    let real = path
        .parent()
        .unwrap_or(Path::new("/"))
        .canonicalize()
        .map_err(unread)?;
    let directory = Directory::read(&real).map_err(unread)?;
    if let Err(rule) = owner_is(directory, peer) {
        return Err(refused(format!(
            "{} {rule}; name the token process's user as token_uid",
            real.display()
        )));
    }
    // Both ways: as it is written, whose links an owner of a directory on it could turn, and as it is.
    let ways = path.ancestors().skip(2).chain(real.ancestors().skip(1));
    for above in ways.filter(|above| !above.as_os_str().is_empty()) {
        let found = Directory::read(above).map_err(unread)?;
        if (found.uid != 0 && found.uid != own) || found.is_writable_by_others() {
            return Err(refused(format!(
                "others than root could put another directory into {}; name the token process's user as token_uid",
                above.display()
            )));
        }
    }
    Ok(())
}

/// Whether a socket in this directory that `peer` serves was put there by the directory's owner or by root.
fn owner_is(directory: Directory, peer: u32) -> Result<(), &'static str> {
    if directory.is_writable_by_others() {
        return Err("is writable by others");
    }
    if directory.uid == 0 || directory.uid == peer {
        Ok(())
    } else {
        Err("belongs to another user")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const PEER: u32 = 987;

    #[test]
    fn a_directory_vouches_for_its_owner_and_only_when_nobody_else_writes_there() {
        let directory = |uid, gid, mode| Directory { uid, gid, mode };
        for good in [
            directory(PEER, PEER, 0o750),
            directory(PEER, 0, 0o770),
            directory(0, 0, 0o755),
        ] {
            assert_eq!(owner_is(good, PEER), Ok(()), "{good:?}");
        }
        for bad in [
            directory(PEER + 1, PEER, 0o750),
            directory(PEER, PEER, 0o770),
            directory(PEER, 0, 0o757),
            directory(0, 0, 0o1777),
        ] {
            assert!(owner_is(bad, PEER).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn root_we_and_the_named_user_pass_and_strangers_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.sock");
        let own = Uid::effective().as_raw();
        let stranger = own + 12_345;
        for peer in [0, own] {
            assert_eq!(check(&path, peer, None), Ok(()));
            assert_eq!(check(&path, peer, Some(stranger)), Ok(()));
        }
        assert_eq!(check(&path, stranger, Some(stranger)), Ok(()));
        // Below the directory for everybody's files nothing vouches for anybody.
        for named in [None, Some(stranger + 1)] {
            let error = check(&path, stranger, named).unwrap_err();
            assert!(error.contains(&format!("uid {stranger}")), "{error}");
            assert!(error.contains("token_uid"), "{error}");
        }
    }
}
