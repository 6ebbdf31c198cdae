//! A backup file on the machine where it is restored: its manifest is believed for its signatures, its parts for the
//! manifest, and only then is anything written.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use custody::backup::{BackupManifest, Checker, PartEntry};
use custody::{Sha256, Trust};

/// Bytes copied at a time.
const COPY: usize = 256 * 1024;

/// A backup whose manifest t pinned custodians signed.
#[derive(Debug)]
pub struct BackupFile {
    path: PathBuf,
    file: File,
    /// Where the parts begin.
    parts_at: u64,
    /// What it is.
    pub manifest: BackupManifest,
    /// Who signed that.
    pub signed_by: Vec<String>,
}

impl BackupFile {
    /// Opens it and checks signatures, lengths and every part's hash.
    ///
    /// # Errors
    /// What is wrong with it, by name.
    pub fn open(path: &Path, trust: &Trust) -> anyhow::Result<Self> {
        let mut file =
            File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut checker, mut buffer) = (Checker::new(), vec![0; COPY]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => checker.feed(&buffer[..read])?,
            }
        }
        let (head, used) = checker.finish()?;
        let vouchers = head.vouchers(trust);
        ensure!(
            vouchers.bad.is_empty(),
            "backup_edited: the manifest is not what custodian {} signed",
            vouchers.bad.join(", ")
        );
        ensure!(
            vouchers.good.len() >= usize::from(trust.threshold),
            "backup_not_signed: {} pinned custodians signed this backup ({}), {} are needed; it was made elsewhere, or the trust file is another one's",
            vouchers.good.len(),
            vouchers.good.join(", "),
            trust.threshold
        );
        Ok(Self {
            path: path.to_owned(),
            file,
            parts_at: u64::try_from(used).unwrap_or(u64::MAX),
            manifest: head.manifest,
            signed_by: vouchers.good,
        })
    }

    /// Writes one part and compares it with the manifest.
    fn copy(&mut self, part: &PartEntry, to: &mut dyn Write) -> anyhow::Result<()> {
        let before = self.manifest.parts.iter().take_while(|one| *one != part);
        let at: u64 = before.map(|one| one.length).sum();
        self.file.seek(SeekFrom::Start(self.parts_at + at))?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; COPY]);
        let mut left = part.length;
        while left > 0 {
            let want = usize::try_from(left.min(COPY as u64)).unwrap_or(COPY);
            self.file
                .read_exact(&mut buffer[..want])
                .with_context(|| format!("cannot read {}", self.path.display()))?;
            hasher.update(&buffer[..want]);
            to.write_all(&buffer[..want])?;
            left -= want as u64;
        }
        ensure!(
            hasher.finish() == part.hash,
            "backup_edited: the part {} is not the one that the manifest names",
            part.name
        );
        Ok(())
    }

    /// Writes one part to a new file of mode 0600, synced.
    ///
    /// # Errors
    /// The part is not in the manifest, is another one, or cannot be written.
    pub fn extract(&mut self, name: &str, to: &Path) -> anyhow::Result<()> {
        let part = self.manifest.parts.iter().find(|part| part.name == name);
        let part = part.context("the manifest has no such part")?.clone();
        let written = (|| {
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(to)?;
            self.copy(&part, &mut file)?;
            file.sync_all()?;
            anyhow::Ok(())
        })();
        written.with_context(|| format!("cannot write {}", to.display()))
    }
}
