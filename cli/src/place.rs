//! Whether the place where a socket lies vouches for who listens there.
//!
//! Root and the operator's own user are believed anywhere. Another user, such as hsmd's own, owns the socket that he
//! bound, but so does an impostor: what tells them apart is the directory, by the rule that hsmd has for binding. It
//! belongs to root, to the operator, or to the one who listens (systemd's `RuntimeDirectory`), and nobody else can
//! write there; in the last case the same holds for every directory above, or anybody could have made it (`/tmp`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A directory, or a link where one is expected.
#[derive(Debug)]
struct Seen {
    owner: u32,
    group: u32,
    mode: u32,
    is_link: bool,
}

/// A socket's surroundings.
#[derive(Debug)]
pub(crate) struct Place {
    socket_owner: u32,
    /// The socket's directory, then those above it: as named, and as they are behind links.
    directories: Vec<Seen>,
}

/// Looks at the socket's file and at the directories that lead there.
pub(crate) fn look(socket: &Path) -> io::Result<Place> {
    let named = std::path::absolute(socket)?;
    let named = named.parent().unwrap_or(Path::new("/"));
    let real = named.canonicalize()?;
    let directories = named.ancestors().chain(real.ancestors());
    Ok(Place {
        socket_owner: fs::symlink_metadata(socket)?.uid(),
        directories: directories.map(see).collect::<io::Result<_>>()?,
    })
}

fn see(path: &Path) -> io::Result<Seen> {
    let found = fs::symlink_metadata(path)?;
    Ok(Seen {
        owner: found.uid(),
        group: found.gid(),
        mode: found.mode() & 0o7777,
        is_link: found.is_symlink(),
    })
}

impl Seen {
    fn is_writable_by_others(&self) -> bool {
        // A link's own mode says nothing: who may replace it is its directory's matter.
        !self.is_link && (self.mode & 0o002 != 0 || (self.mode & 0o020 != 0 && self.group != 0))
    }
}

impl Place {
    /// Whether `peer` can be believed to be the daemon; if not, the rule that is broken.
    pub(crate) fn judge(&self, peer: u32, own: u32) -> Result<(), String> {
        if peer == 0 || peer == own {
            return Ok(());
        }
        if peer != self.socket_owner {
            return Err(format!("the socket belongs to uid {}", self.socket_owner));
        }
        let Some((directory, above)) = self.directories.split_first() else {
            return Err("the socket has no directory".to_owned());
        };
        if directory.is_link {
            return Err("its directory is a symbolic link: name the real one".to_owned());
        }
        if directory.is_writable_by_others() {
            let mode = directory.mode;
            return Err(format!(
                "its directory is writable by others (mode {mode:o})"
            ));
        }
        let known = |one: &Seen| [0, own, peer].contains(&one.owner);
        if !known(directory) {
            return Err(format!("its directory belongs to uid {}", directory.owner));
        }
        let anybodys = |one: &Seen| one.is_writable_by_others() || !known(one);
        if directory.owner == peer && above.iter().any(anybodys) {
            return Err("made its directory where anybody can (as in /tmp)".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place with a socket: `directory` and `above` as (owner, group, mode).
    fn place(directory: (u32, u32, u32), above: (u32, u32, u32), socket_owner: u32) -> Place {
        let seen = |(owner, group, mode): (u32, u32, u32)| Seen {
            owner,
            group,
            mode,
            is_link: false,
        };
        Place {
            socket_owner,
            directories: vec![seen(directory), seen(above), seen((0, 0, 0o755))],
        }
    }

    const RUN: (u32, u32, u32) = (0, 0, 0o755);
    const TMP: (u32, u32, u32) = (0, 0, 0o1777);

    #[test]
    fn root_and_oneself_are_believed_wherever_they_listen() {
        let open = place((1001, 1001, 0o777), TMP, 1001);
        assert_eq!(open.judge(0, 1000), Ok(()));
        assert_eq!(open.judge(1000, 1000), Ok(()));
    }

    #[test]
    fn another_user_is_believed_only_where_nobody_else_could_have_put_the_socket() {
        // systemd's RuntimeDirectory, and a directory that root made for the daemon.
        assert_eq!(place((998, 998, 0o755), RUN, 998).judge(998, 1000), Ok(()));
        assert_eq!(place((998, 998, 0o1750), RUN, 998).judge(998, 1000), Ok(()));
        assert_eq!(place((0, 0, 0o755), RUN, 998).judge(998, 1000), Ok(()));
        assert_eq!(place((0, 0, 0o775), RUN, 998).judge(998, 1000), Ok(())); // group root
        assert_eq!(
            place((1000, 1000, 0o700), TMP, 998).judge(998, 1000),
            Ok(())
        );

        // An impostor owns his own socket file, whatever directory he found or made for it.
        for (directory, above) in [
            (TMP, RUN),
            ((0, 0, 0o777), RUN),
            ((0, 50, 0o775), RUN),
            ((1000, 1000, 0o775), RUN),
            ((998, 998, 0o777), RUN),
            ((1001, 1001, 0o755), RUN),
            ((998, 998, 0o755), TMP),
            ((998, 998, 0o755), (1001, 1001, 0o755)),
        ] {
            let refused = place(directory, above, 998).judge(998, 1000);
            assert!(refused.is_err(), "{directory:?} {above:?}");
        }
        // Somebody else answers than the one whose socket it is.
        assert!(place((0, 0, 0o755), RUN, 998).judge(1001, 1000).is_err());
    }

    #[test]
    fn a_linked_directory_is_refused_for_others_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("linked");
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("bound"));
        let linked = look(&link.join("s")).expect("there");
        let own = nix::unistd::geteuid().as_raw();
        let other = own + 1;
        assert_eq!(linked.judge(own, own), Ok(()));
        assert!(linked.judge(other, other + 1).is_err());
        let real = look(&dir.path().join("s")).expect("there");
        assert_eq!(real.directories[0].owner, own);
        assert!(real.directories.len() >= 2);
    }
}
