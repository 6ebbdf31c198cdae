//! The one audit room: every decision and every administrative act becomes a durable line before its answer leaves.
//!
//! JSON Lines, one file a day, each record chained to the one before by its SHA-256. One thread writes; records that
//! arrive while it syncs share the next sync, so that many leases cost one `fdatasync`. The tamper-evident log will stand
//! behind the same door.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use custody::sha256;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};

use crate::refusal::{Code, Refusal};

/// Records that may wait for the disk; past this, callers are told that audit is unavailable instead of piling up.
const QUEUE_MAX: usize = 4096;

/// What kind of act a record is about (DESIGN.md, "Audit categories").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Keys and versions.
    SecretManagement,
    /// Leases granted and refused.
    Lease,
    /// Reports of use, of rejected credentials and of answers that repeated one.
    Inference,
    /// Who may use a key, and for what.
    Policy,
    /// Callers and sessions.
    Identity,
    /// Custodians: latches, mismatches.
    Ceremony,
    /// Configuration and trust.
    Configuration,
    /// Start, stop, faults.
    System,
}

/// One act. Holds names, never material.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// What kind.
    pub category: Category,
    /// What was done or asked: `key.add`, `lease.grant`.
    pub action: &'static str,
    /// `ok`, or the refusal's code.
    pub outcome: &'static str,
    /// Who: `uid:1000 pid:77`, `daemon`.
    pub actor: String,
    /// Which key, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Which version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Store revision that the act made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Event {
    /// An event without key, version, revision or detail.
    pub fn new(
        category: Category,
        action: &'static str,
        outcome: &'static str,
        actor: impl Into<String>,
    ) -> Self {
        Self {
            category,
            action,
            outcome,
            actor: actor.into(),
            key: None,
            version: None,
            revision: None,
            detail: String::new(),
        }
    }

    /// About that key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// About that version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Making that revision.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// With a line for people.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    prev: String,
}

/// Where the log stands: what a statement quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Records written.
    pub records: u64,
    /// SHA-256 of the last line without its line end.
    pub hash: [u8; 32],
}

struct Job {
    event: Event,
    done: oneshot::Sender<io::Result<()>>,
}

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    jobs: mpsc::Sender<Job>,
    position: Arc<Mutex<Position>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens the log in `dir` (created 0700) and starts its writer.
    ///
    /// # Errors
    /// When the directory or today's file cannot be used; the daemon must not start then.
    pub fn open(dir: &Path, retention_days: u32) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut writer = Writer {
            dir: dir.to_owned(),
            retention_days,
            day: String::new(),
            file: None,
            position: recover(dir)?,
        };
        writer.roll(OffsetDateTime::now_utc())?;
        let position = Arc::new(Mutex::new(writer.position));
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::clone(&position);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(queue, &shared))?;
        Ok(Self { jobs, position })
    }

    /// Makes the event durable. The answer to whoever asked must wait for this.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`] when it could not be written and synced.
    pub async fn record(&self, event: Event) -> Result<(), Refusal> {
        let refuse = |text: String| {
            Refusal::new(
                Code::AuditUnavailable,
                format!(
                    "the audit log cannot be written: {text}; nothing is answered without it: free space under state_dir, or see the daemon's log"
                ),
            )
        };
        let (done, wait) = oneshot::channel();
        self.jobs
            .try_send(Job { event, done })
            .map_err(|_| refuse("its queue is full".to_owned()))?;
        match wait.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(refuse(error.to_string())),
            Err(_) => Err(refuse("its writer ended".to_owned())),
        }
    }

    /// Where the log stands.
    pub fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    dir: PathBuf,
    retention_days: u32,
    day: String,
    file: Option<File>,
    position: Position,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>, shared: &Mutex<Position>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < QUEUE_MAX
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            let result = self.append(batch.iter().map(|job| &job.event));
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = self.position;
            for job in batch {
                let result = result
                    .as_ref()
                    .map(|_| ())
                    .map_err(|error| io::Error::new(error.kind(), error.to_string()));
                // A caller that has gone needs no answer; its record stands.
                let _ = job.done.send(result);
            }
        }
    }

    /// Writes and syncs all events, or none: a partial write is cut off again, so that the chain stays whole.
    fn append<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> io::Result<()> {
        let now = OffsetDateTime::now_utc();
        self.roll(now)?;
        let time = now.format(&Rfc3339).map_err(io::Error::other)?;
        let mut position = self.position;
        let mut text = Vec::with_capacity(512);
        for event in events {
            let start = text.len();
            let line = Line {
                seq: position.records + 1,
                time: time.clone(),
                event,
                prev: hex::encode(position.hash),
            };
            serde_json::to_writer(&mut text, &line)?;
            position = Position {
                records: position.records + 1,
                hash: sha256(&text[start..]),
            };
            text.push(b'\n');
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("no file is open"));
        };
        let length = file.metadata()?.len();
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            file.set_len(length)?;
            return Err(error);
        }
        self.position = position;
        Ok(())
    }

    /// Opens today's file when the day changed, and removes files past retention.
    fn roll(&mut self, now: OffsetDateTime) -> io::Result<()> {
        let day = now.date().to_string();
        if day == self.day && self.file.is_some() {
            return Ok(());
        }
        let path = self.dir.join(format!("audit-{day}.jsonl"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        File::open(&self.dir)?.sync_all()?;
        self.file = Some(file);
        self.day = day;
        let oldest = now
            .date()
            .saturating_sub(time::Duration::days(self.retention_days.into()))
            .to_string();
        for old in files(&self.dir)? {
            if day_of(&old).is_some_and(|day| day < oldest.as_str()) {
                fs::remove_file(&old)?;
            }
        }
        Ok(())
    }
}

/// The files of the log, oldest first.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    found.retain(|path| day_of(path).is_some());
    found.sort();
    Ok(found)
}

fn day_of(path: &Path) -> Option<&str> {
    path.file_name()?
        .to_str()?
        .strip_prefix("audit-")?
        .strip_suffix(".jsonl")
}

/// Finds where the log stood. A last line that a crash cut short never was acknowledged: it is cut off, and stands as
/// `.torn` beside the log so that nothing is lost.
fn recover(dir: &Path) -> io::Result<Position> {
    for path in files(dir)?.iter().rev() {
        let mut reader = BufReader::new(File::open(path)?);
        let (mut line, mut whole, mut last) = (Vec::new(), 0u64, None);
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() != Some(&b'\n') {
                fs::write(path.with_extension("torn"), &line)?;
                OpenOptions::new().write(true).open(path)?.set_len(whole)?;
                break;
            }
            whole += u64::try_from(line.len()).unwrap_or(0);
            line.pop();
            last = Some(std::mem::take(&mut line));
        }
        if let Some(last) = last {
            return position_of(&last).map_err(|_| {
                io::Error::other(format!(
                    "the last line of {} is no audit record: move the file away and keep it",
                    path.display()
                ))
            });
        }
    }
    Ok(Position::default())
}

/// Where the log stands at this line (without its line end).
pub(crate) fn position_of(line: &[u8]) -> io::Result<Position> {
    #[derive(serde::Deserialize)]
    struct Seq {
        seq: u64,
    }
    let seq: Seq = serde_json::from_slice(line).map_err(io::Error::other)?;
    Ok(Position {
        records: seq.seq,
        hash: sha256(line),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text: String = files(dir)
            .unwrap()
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn event(action: &'static str) -> Event {
        Event::new(Category::System, action, "ok", "daemon")
            .key("a")
            .detail("x")
    }

    #[tokio::test]
    async fn records_are_chained_across_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), 365).unwrap();
        audit.record(event("one")).await.unwrap();
        audit.record(event("two")).await.unwrap();
        let before = audit.position();
        drop(audit);
        let file = files(dir.path()).unwrap().pop().unwrap();
        OpenOptions::new()
            .append(true)
            .open(&file)
            .unwrap()
            .write_all(b"{\"seq\":3,\"to")
            .unwrap();

        let audit = Audit::open(dir.path(), 365).unwrap();
        assert_eq!(audit.position(), before);
        audit.record(event("three")).await.unwrap();
        let lines = lines(dir.path());
        assert_eq!(
            lines
                .iter()
                .map(|line| line["seq"].as_u64().unwrap())
                .collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!(lines[2]["prev"].as_str().unwrap(), hex::encode(before.hash));
        assert!(file.with_extension("torn").exists());
    }

    #[tokio::test]
    async fn files_past_retention_go_and_younger_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let today = OffsetDateTime::now_utc().date();
        let named = |days: i64| {
            dir.path().join(format!(
                "audit-{}.jsonl",
                today - time::Duration::days(days)
            ))
        };
        fs::write(named(8), "").unwrap();
        fs::write(named(7), "").unwrap();
        let _audit = Audit::open(dir.path(), 7).unwrap();
        assert!(!named(8).exists());
        assert!(named(7).exists());
    }
}
