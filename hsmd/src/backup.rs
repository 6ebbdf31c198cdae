//! `tacit backup create`: what rests on disk, as it rests, at one moment, while the daemon serves.
//!
//! The store is copied in one read transaction while no administrative write is under way, the audit log up to the last
//! whole line, the trust file as it is. A manifest names every part by hash and every token that a restore will take, and
//! at least t custodians sign it. Nothing is decrypted and nothing leaves in clear that does not rest in clear.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use custody::backup::{AUDIT, BackupManifest, Head, PartEntry, STORE, TRUST, TokenEntry};
use custody::{Fingerprint, Trust};
use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;

use crate::audit::{self, Category, Event};
use crate::clock;
use crate::custodians::Standing;
use crate::daemon::Daemon;
use crate::refusal::{Code, Refusal};

/// Bytes read at a time while hashing.
const READ: usize = 256 * 1024;
/// Longest line of the audit log that is looked for at a file's end.
const LINE_MAX: u64 = 64 * 1024;
/// What the names of unfinished copies in `state_dir` begin with.
const COPY: &str = "store.snapshot-";

/// A part, held open: nobody can change or remove what was hashed.
#[derive(Debug)]
struct Part {
    file: File,
    length: u64,
}

/// A backup, ready to be sent.
#[derive(Debug)]
pub struct Backup {
    /// What it is.
    pub manifest: BackupManifest,
    head: Vec<u8>,
    parts: Vec<Part>,
    /// Where the next chunk begins: part (0 is the head) and offset.
    at: (usize, u64),
    /// One backup at a time.
    _permit: OwnedSemaphorePermit,
}

fn internal(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("cannot make the backup: {what}: {error}"),
    )
}

/// Takes the snapshot and has custodians sign its manifest.
///
/// # Errors
/// [`Refusal`]; nothing is left behind.
pub async fn create(daemon: &Daemon, actor: &str) -> Result<Backup, Refusal> {
    let permit = Arc::clone(&daemon.backups).try_acquire_owned();
    let permit = permit
        .map_err(|_| Refusal::new(Code::Conflict, "another backup is being made; wait for it"))?;
    let ledger = daemon.ledger()?;
    if daemon.custodians.part {
        let text = "this daemon drives a part of the custodians, and a backup needs t signatures: there are no backups of parts in this version; keep the sealed keys, which every part takes again";
        return Err(Refusal::new(Code::Conflict, text));
    }
    if daemon.custodians.margin() < 0 {
        return Err(daemon.custodians.shortage());
    }
    let event = |outcome| Event::new(Category::Ceremony, "backup.create", outcome, actor);
    // First, so that the log inside tells of it.
    daemon.audit.record(event("begun")).await?;
    let config = daemon.config();
    let trust = daemon.trust()?;
    let (state, trust_file) = (config.state_dir.clone(), config.trust_file());
    remove_copies(&state);
    let copy = state.join(format!("{COPY}{}", hex::encode(crate::random_id())));
    let snapshot = ledger.snapshot(copy.clone()).await;
    // Open is enough: without a name nothing is left behind, however this ends.
    let opened = File::open(&copy);
    let removed = fs::remove_file(&copy);
    let (revision, digest, epoch) = snapshot?;
    let store = opened
        .and_then(|file| removed.map(|()| file))
        .map_err(|error| internal("the copy of the store", error))?;
    let read = move || read_parts(store, &state, &trust_file);
    let read = tokio::task::spawn_blocking(read).await;
    let (parts, entries, log) = read
        .map_err(|error| internal("reading", error))?
        .map_err(|error| internal("reading", error))?;
    let manifest = BackupManifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: u64::try_from(clock::unix_seconds()).unwrap_or(0),
        revision,
        digest,
        epoch,
        audit_records: log.records,
        audit_hash: log.hash,
        threshold: daemon.custodians.threshold,
        tokens: tokens(daemon, &trust),
        parts: entries,
    };
    let head = Head {
        signatures: sign(daemon, &manifest).await?,
        manifest,
    };
    let manifest = head.manifest.clone();
    let made = event("ok").detail(format!(
        "manifest {} of revision {revision}",
        hex::encode(manifest.hash())
    ));
    daemon.audit.record(made).await?;
    Ok(Backup {
        manifest,
        head: head.encode(),
        parts,
        at: (0, 0),
        _permit: permit,
    })
}

/// What a kill left behind while the copy still had a name.
fn remove_copies(state: &Path) {
    let Ok(entries) = fs::read_dir(state) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(COPY) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn tokens(daemon: &Daemon, trust: &Trust) -> Vec<TokenEntry> {
    let pinned = trust.custodians.iter().map(|one| &one.current.descriptor);
    let ours = pinned.filter(|one| daemon.custodians.find(one.id.as_str()).is_some());
    let mut tokens: Vec<TokenEntry> = ours
        .map(|one| TokenEntry {
            id: one.id.clone(),
            serial: one.serial.clone(),
            label: one.label.clone(),
            fingerprint: one.fingerprint(),
        })
        .collect();
    tokens.sort_by(|one, other| one.id.cmp(&other.id));
    tokens
}

async fn sign(
    daemon: &Daemon,
    manifest: &BackupManifest,
) -> Result<Vec<(Fingerprint, [u8; 64])>, Refusal> {
    let statement = manifest.statement();
    let usable = daemon.custodians.usable();
    let each = usable
        .iter()
        .map(|one| one.client.sign_statement(&statement));
    let signed = join_all(each).await;
    let mut signatures: Vec<(Fingerprint, [u8; 64])> = usable
        .iter()
        .zip(signed)
        .filter_map(|(one, signature)| match one.standing() {
            Standing::Pinned(own) => Some((own.descriptor.fingerprint(), signature.ok()?)),
            Standing::Unknown | Standing::Mismatch(..) => None,
        })
        .collect();
    if signatures.len() < usize::from(manifest.threshold) {
        return Err(daemon.custodians.shortage());
    }
    signatures.sort_by_key(|(custodian, _)| *custodian.as_bytes());
    Ok(signatures)
}

/// Opens, measures and hashes everything, in the manifest's order.
fn read_parts(
    store: File,
    state: &Path,
    trust: &Path,
) -> io::Result<(Vec<Part>, Vec<PartEntry>, audit::Position)> {
    let (mut parts, mut entries) = (Vec::new(), Vec::new());
    let mut add = |name: String, file: File, length: u64| -> io::Result<()> {
        let hash = hash(&file, length)?;
        entries.push(PartEntry { name, length, hash });
        parts.push(Part { file, length });
        Ok(())
    };
    let length = store.metadata()?.len();
    add(STORE.to_owned(), store, length)?;
    let trust = File::open(trust)?;
    let length = trust.metadata()?.len();
    add(TRUST.to_owned(), trust, length)?;
    let mut log = audit::Position::default();
    for path in audit::files(&state.join("audit"))? {
        let mut file = File::open(&path)?;
        let (length, last) = whole_lines(&mut file)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        add(format!("{AUDIT}{name}"), file, length)?;
        if let Some(last) = last {
            log = last;
        }
    }
    Ok((parts, entries, log))
}

/// How much of a file of the log is whole lines, and where the log stands at the last of them.
fn whole_lines(file: &mut File) -> io::Result<(u64, Option<audit::Position>)> {
    let length = file.metadata()?.len();
    // The last whole line, and perhaps the beginning of one that is being written.
    let start = length.saturating_sub(2 * LINE_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(length - start).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        return Ok((0, None));
    };
    let line = tail[..end].rsplit(|byte| *byte == b'\n').next();
    let position = line.map(audit::position_of).transpose()?;
    let cut = u64::try_from(tail.len() - end - 1).unwrap_or(0);
    Ok((length - cut, position))
}

/// SHA-256 of the first `length` bytes.
pub(crate) fn hash(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut hasher = custody::Sha256::new();
    let mut buffer = vec![0; READ];
    let mut at = 0;
    while at < length {
        let want = usize::try_from((length - at).min(READ as u64)).unwrap_or(READ);
        file.read_exact_at(&mut buffer[..want], at)?;
        hasher.update(&buffer[..want]);
        at += want as u64;
    }
    Ok(hasher.finish())
}

impl Backup {
    /// The next bytes of the file, at most `max`; nothing when it is at its end.
    ///
    /// # Errors
    /// [`Code::Internal`] when a part cannot be read any more.
    pub fn chunk(&mut self, max: usize) -> Result<Option<Vec<u8>>, Refusal> {
        loop {
            let (part, offset) = self.at;
            let length = match part.checked_sub(1) {
                None => self.head.len() as u64,
                Some(part) => match self.parts.get(part) {
                    None => return Ok(None),
                    Some(part) => part.length,
                },
            };
            if offset >= length {
                self.at = (part + 1, 0);
                continue;
            }
            let want = usize::try_from((length - offset).min(max as u64)).unwrap_or(max);
            let mut bytes = vec![0; want];
            match part.checked_sub(1) {
                None => {
                    let from = usize::try_from(offset).unwrap_or(usize::MAX);
                    bytes.copy_from_slice(&self.head[from..from + want]);
                }
                Some(part) => self.parts[part]
                    .file
                    .read_exact_at(&mut bytes, offset)
                    .map_err(|error| internal("reading", error))?,
            }
            self.at.1 += want as u64;
            return Ok(Some(bytes));
        }
    }

    /// Bytes of the whole file.
    pub fn length(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| part.length).sum();
        parts + self.head.len() as u64
    }
}
