//! Where a restore is prepared: a directory beside the state, complete before anything of the state is touched.
//!
//! `restore.new` while it is filled, `restore` once it is whole and synced; a file `committing` in it from the moment at
//! which tokens may learn of it: before that it can be thrown away, after that it can only be finished.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use custody::backup::{AUDIT, STORE, TRUST};

use super::file::BackupFile;

const FILLING: &str = "restore.new";
const READY: &str = "restore";
const COMMITTING: &str = "committing";
const BACKUP: &str = "manifest";

/// The prepared state.
#[derive(Debug, Clone)]
pub struct Stage {
    state: PathBuf,
    dir: PathBuf,
}

/// Makes a name in this directory, or the lack of one, durable.
pub(super) fn sync(dir: &Path) -> anyhow::Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", dir.display()))
}

pub(super) fn directory(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a restore was begun in this state directory and not finished: no daemon may start on it.
pub fn is_begun(state: &Path) -> bool {
    state.join(READY).exists()
}

impl Stage {
    /// The prepared state of this backup: the one that is there, or a new one.
    ///
    /// # Errors
    /// Another backup's restore is past the point of no return; files cannot be written.
    pub fn prepare(state: &Path, backup: &mut BackupFile) -> anyhow::Result<Self> {
        let stage = Self {
            state: state.to_owned(),
            dir: state.join(READY),
        };
        let hash = hex::encode(backup.manifest.hash());
        if stage.dir.exists() {
            let of = fs::read_to_string(stage.dir.join(BACKUP)).unwrap_or_default();
            if of == hash {
                return Ok(stage);
            }
            ensure!(
                !stage.is_committing(),
                "the restore of another backup (manifest {of}) was begun and tokens know of it: finish that one first"
            );
            remove(&stage.dir)?;
        }
        let new = state.join(FILLING);
        remove(&new)?;
        Self::fill(&new, backup, &hash)?;
        fs::rename(&new, &stage.dir).context("cannot name the prepared state")?;
        sync(state)?;
        Ok(stage)
    }

    /// A copy to look at, which is removed again; see [`Stage::discard`].
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn look(state: &Path, backup: &mut BackupFile) -> anyhow::Result<Self> {
        // The lock on the state directory makes it the only one: what is there was left by a kill.
        let dir = state.join("restore.look");
        remove(&dir)?;
        Self::fill(&dir, backup, "")?;
        Ok(Self {
            state: state.to_owned(),
            dir,
        })
    }

    fn fill(dir: &Path, backup: &mut BackupFile, hash: &str) -> anyhow::Result<()> {
        directory(&dir.join("audit"))?;
        let parts = backup.manifest.parts.clone();
        for part in &parts {
            let to = match part.name.as_str() {
                STORE => dir.join("store.sqlite"),
                TRUST => dir.join("custodians.json"),
                name => dir
                    .join("audit")
                    .join(name.strip_prefix(AUDIT).context("a part")?),
            };
            backup.extract(&part.name, &to)?;
        }
        fs::write(dir.join(BACKUP), hash).context("cannot write the prepared state")?;
        File::open(dir.join(BACKUP))?.sync_all()?;
        sync(&dir.join("audit"))?;
        sync(dir)
    }

    /// The prepared store.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store.sqlite")
    }

    /// Whether tokens may know of this restore.
    pub fn is_committing(&self) -> bool {
        self.dir.join(COMMITTING).exists()
    }

    /// From here on it can only be finished.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn commit(&self) -> anyhow::Result<()> {
        let path = self.dir.join(COMMITTING);
        File::create(&path)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("cannot write {}", path.display()))?;
        sync(&self.dir)
    }

    /// Puts the backup's audit log in place where the machine has none; says whether the machine's own was kept.
    ///
    /// # Errors
    /// Files cannot be moved.
    pub fn place_audit(&self) -> anyhow::Result<bool> {
        let (ours, theirs) = (self.state.join("audit"), self.dir.join("audit"));
        let empty = match fs::read_dir(&ours) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(error).context("cannot read the audit log's directory"),
        };
        let kept = !empty && theirs.exists();
        if empty && theirs.exists() {
            // Replaces an empty directory, or none.
            fs::rename(&theirs, &ours).context("cannot put the audit log in place")?;
            sync(&self.state)?;
        }
        Ok(kept)
    }

    /// Puts the prepared store in place; the one that was there is kept beside it.
    ///
    /// # Errors
    /// Files cannot be moved.
    pub fn place_store(&self) -> anyhow::Result<()> {
        if !self.store().exists() {
            return Ok(());
        }
        // Closing the store merges its journal; one that is left would be lost by the move.
        let journal = self.dir.join("store.sqlite-wal");
        let left = fs::metadata(&journal).map_or(0, |found| found.len());
        ensure!(
            left == 0,
            "the prepared store was not closed; repeat the command"
        );
        let name = fs::read_to_string(self.dir.join(BACKUP)).unwrap_or_default();
        let kept = self
            .state
            .join(format!("before-restore-{}", name.get(..16).unwrap_or("x")));
        // The journal first: without its database it is nothing, with another one it would be damage.
        for file in ["store.sqlite-wal", "store.sqlite-shm", "store.sqlite"] {
            let old = self.state.join(file);
            if old.exists() {
                directory(&kept)?;
                fs::rename(&old, kept.join(file))
                    .with_context(|| format!("cannot keep {}", old.display()))?;
                sync(&kept)?;
            }
        }
        fs::rename(self.store(), self.state.join("store.sqlite"))
            .context("cannot put the store in place")?;
        sync(&self.state)
    }

    /// Removes what is left of the preparation.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(self) -> anyhow::Result<()> {
        remove(&self.dir)?;
        sync(&self.state)
    }
}

/// Throws a prepared restore away.
///
/// # Errors
/// Tokens may know of it already.
pub fn abandon(state: &Path) -> anyhow::Result<()> {
    let stage = Stage {
        state: state.to_owned(),
        dir: state.join(READY),
    };
    ensure!(
        !stage.is_committing(),
        "tokens may know of this restore already: it can only be finished; run hsmd restore again with the same backup"
    );
    remove(&state.join(FILLING))?;
    stage.discard()
}

/// Whether the restore of the backup with this manifest is past the point of no return here.
pub(super) fn committing_with(state: &Path, hash: &str) -> bool {
    let dir = state.join(READY);
    dir.join(COMMITTING).exists()
        && fs::read_to_string(dir.join(BACKUP)).is_ok_and(|found| found == hash)
}
