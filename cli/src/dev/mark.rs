//! How other commands recognise a directory of `tacit dev`: by a mark in its lock file, and by the files of its own
//! that they were pointed at.
//!
//! It is judged by what the *operator* brings, sealer and trust file, never by anything that a daemon says: a sealer
//! made by `tacit dev` is pinned in that directory's trust file alone, and so signs for throw-away tokens.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use super::settings::Layout;
use crate::config::{Paths, SealerChoice};

const MARK: &str = "tacit dev\n";

/// Takes the directory for this process, and marks it. The lock holds as long as the file is open: two stacks on the
/// same tokens would each find the other's changes under their feet.
pub(super) fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let failed = || format!("cannot lock {}", path.display());
    let mut file = File::options()
        .create(true)
        .truncate(false) // the mark of the one that may be running
        .write(true)
        .open(&path)
        .with_context(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "another tacit dev runs in {}; stop it, or name another --dir",
            layout.dir().display()
        ),
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(MARK.as_bytes()))
        .with_context(failed)?;
    Ok(file)
}

/// Whether sealer and trust file are those of a directory of `tacit dev` that nobody else can write to.
pub(crate) fn is_stack_of(paths: &Paths) -> bool {
    let SealerChoice::File(sealer) = &paths.sealer else {
        return false;
    };
    let (Ok(sealer), Ok(trust)) = (sealer.canonicalize(), paths.trust.canonicalize()) else {
        return false;
    };
    let Some(Ok(layout)) = sealer.parent().map(|dir| Layout::new(dir.to_owned())) else {
        return false;
    };
    layout.sealer() == sealer
        && layout.trust() == trust
        && layout.hsmd_toml().is_file()
        && [layout.dir(), &layout.run(), &layout.lock()]
            .into_iter()
            .all(is_ours_alone)
        && fs::read(layout.lock()).is_ok_and(|found| found == MARK.as_bytes())
}

fn is_ours_alone(path: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|found| found.uid() == own && found.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_leaves_the_mark_of_the_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path().to_owned()).expect("short enough");
        fs::create_dir(layout.run()).expect("made");
        let held = lock(&layout).expect("locked");
        assert!(lock(&layout).is_err());
        assert_eq!(fs::read_to_string(layout.lock()).expect("read"), MARK);
        drop(held);
        drop(lock(&layout).expect("free again"));
        assert_eq!(fs::read_to_string(layout.lock()).expect("read"), MARK);
    }
}
