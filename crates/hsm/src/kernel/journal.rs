//! Which input was being worked on when the process died, so that no input kills the token twice and gets a third chance.
//!
//! Before the token sees an input its hash is written to a small file; a process that starts and finds one there knows what
//! was in work when its predecessor died. That alone proves nothing: a token that hangs for everyone kills processes, too,
//! and the rows that were in work are innocent. So the death counts only once the next process has passed its self-test;
//! when that process dies or fails before, the token was sick and the input is acquitted. An input that was merely in the
//! way of a SIGKILL clears itself by succeeding once, and a refusal ends by itself after some minutes (longer each time).
//! The files are in the page cache, not synced: they must survive the process, not the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use custody::sha256;

/// Deaths after which an input is refused.
const DEATHS_MAX: u8 = 2;
/// How long an input is refused after its second death, in seconds; each further death doubles that.
const REFUSED_FOR: u64 = 5 * 60;
/// Doublings: at most about five hours.
const DOUBLINGS_MAX: u8 = 6;
/// Suspects remembered; the oldest gives way. An attacker who can name inputs at all can only push out suspects of his own.
const SUSPECTS_MAX: usize = 64;
const ENTRY: usize = 41;
const CURRENT: usize = 33;

/// What the file says about the input that it names. One byte, written together with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is in work.
    Idle = 0,
    /// The token is working on it.
    Working = 1,
    /// A process died with it; the next one has not passed its self-test yet.
    Accused = 2,
    /// That next process is asking the token for something. If it dies now, the token is sick.
    Trial = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    input: [u8; 32],
    deaths: u8,
    /// When it killed last, in seconds since 1970.
    last: u64,
}

impl Suspect {
    fn is_refused(&self, now: u64) -> bool {
        let doublings = self.deaths.saturating_sub(DEATHS_MAX).min(DOUBLINGS_MAX);
        // A clock that was set back gives the input one more try, as the end of the time does.
        self.deaths >= DEATHS_MAX
            && now
                .checked_sub(self.last)
                .is_some_and(|age| age < REFUSED_FOR << doublings)
    }
}

/// The journal of one token process.
#[derive(Debug)]
pub struct Journal {
    /// `None` in tests of the kernel alone.
    files: Option<(File, File)>,
    suspects: Vec<Suspect>,
    /// What was in work when the last process died, until this one's self-test decides.
    accused: Option<[u8; 32]>,
    working: Option<[u8; 32]>,
}

impl Journal {
    /// A journal that forgets: for the fake and for tests.
    #[must_use]
    pub fn forgetful() -> Journal {
        Journal {
            files: None,
            suspects: Vec::new(),
            accused: None,
            working: None,
        }
    }

    /// Opens the journal in this directory and takes note of what was in work when the last process died, if anything was.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(directory: &Path) -> io::Result<Journal> {
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(directory.join(name))
        };
        let (current, list) = (open("input-in-work")?, open("suspects")?);
        let left = read_current(&current)?;
        let mut journal = Journal {
            suspects: read_suspects(&list)?,
            files: Some((current, list)),
            accused: None,
            working: None,
        };
        if let Some((stage, input)) = left {
            // The process before this one died on trial: the token failed it without any input.
            journal.accused = (stage != Stage::Trial).then_some(input);
            journal.write_accused(Stage::Accused)?;
        }
        Ok(journal)
    }

    /// The name of an input: what it is and its bytes.
    #[must_use]
    pub fn name(kind: u8, bytes: &[u8]) -> [u8; 32] {
        let mut input = Vec::with_capacity(bytes.len() + 1);
        input.push(kind);
        input.extend_from_slice(bytes);
        sha256(&input)
    }

    /// Whether this input killed the token process often enough, and lately enough, to be refused.
    #[must_use]
    pub fn is_poisoned(&self, input: &[u8; 32]) -> bool {
        self.is_poisoned_at(input, seconds())
    }

    fn is_poisoned_at(&self, input: &[u8; 32], now: u64) -> bool {
        self.suspects
            .iter()
            .any(|suspect| suspect.input == *input && suspect.is_refused(now))
    }

    /// The token is about to be asked for something, whatever it is: from here on a death is the token's, not the input's.
    pub fn enter(&self) {
        if self.accused.is_some() {
            let _ = self.write_accused(Stage::Trial);
        }
    }

    /// It answered: a process that is ended while it waits for requests decides nothing.
    pub fn leave(&self) {
        if self.accused.is_some() {
            let _ = self.write_accused(Stage::Accused);
        }
    }

    /// This process has passed its self-test: the token is well, and the death counts.
    pub fn convict(&mut self) {
        self.convict_at(seconds());
    }

    fn convict_at(&mut self, now: u64) {
        if let Some(culprit) = self.accused.take() {
            self.blame(culprit, now);
            let _ = self.save();
            let _ = self.write(Stage::Idle, &[0; 32]);
        }
    }

    /// The token does not work for this process either: the death says nothing about the input.
    pub fn acquit(&mut self) {
        if self.accused.take().is_some() {
            let _ = self.write(Stage::Idle, &[0; 32]);
        }
    }

    /// Notes that the token is about to see this input. A journal that cannot be written costs the protection, not the request.
    pub fn begin(&mut self, input: &[u8; 32]) {
        self.working = Some(*input);
        let _ = self.write(Stage::Working, input);
    }

    /// Notes that the token is being brought back before it sees the input again; returns the input for the next [`Journal::begin`].
    pub fn pause(&mut self) -> Option<[u8; 32]> {
        let input = self.working.take()?;
        let _ = self.write(Stage::Idle, &[0; 32]);
        Some(input)
    }

    /// Notes that the token survived it.
    pub fn end(&mut self, input: &[u8; 32]) {
        self.working = None;
        let _ = self.write(Stage::Idle, &[0; 32]);
        if let Some(at) = self
            .suspects
            .iter()
            .position(|suspect| suspect.input == *input)
        {
            self.suspects.remove(at);
            let _ = self.save();
        }
    }

    /// Forgets all suspects: the operator says that the cause is gone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forgive(&mut self) -> io::Result<()> {
        self.acquit();
        self.suspects.clear();
        self.save()
    }

    fn blame(&mut self, culprit: [u8; 32], now: u64) {
        if let Some(suspect) = self
            .suspects
            .iter_mut()
            .find(|suspect| suspect.input == culprit)
        {
            // One death long ago is no pattern together with one of today.
            let recent = now
                .checked_sub(suspect.last)
                .is_some_and(|age| age < REFUSED_FOR);
            if suspect.deaths >= DEATHS_MAX || recent {
                suspect.deaths = suspect.deaths.saturating_add(1);
            }
            suspect.last = now;
            return;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect {
            input: culprit,
            deaths: 1,
            last: now,
        });
    }

    fn write_accused(&self, stage: Stage) -> io::Result<()> {
        match &self.accused {
            Some(input) => self.write(stage, input),
            None => self.write(Stage::Idle, &[0; 32]),
        }
    }

    fn write(&self, stage: Stage, input: &[u8; 32]) -> io::Result<()> {
        let Some((current, _)) = &self.files else {
            return Ok(());
        };
        let mut bytes = [stage as u8; CURRENT];
        bytes[1..].copy_from_slice(input);
        current.write_all_at(&bytes, 0)
    }

    fn save(&self) -> io::Result<()> {
        let Some((_, list)) = &self.files else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(self.suspects.len() * ENTRY);
        for suspect in &self.suspects {
            bytes.extend_from_slice(&suspect.input);
            bytes.push(suspect.deaths);
            bytes.extend_from_slice(&suspect.last.to_be_bytes());
        }
        list.write_all_at(&bytes, 0)?;
        list.set_len(bytes.len() as u64)
    }
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn read_current(current: &File) -> io::Result<Option<(Stage, [u8; 32])>> {
    let mut bytes = [0; CURRENT];
    match current.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut input = [0; 32];
    input.copy_from_slice(&bytes[1..]);
    let stage = [Stage::Working, Stage::Accused, Stage::Trial]
        .into_iter()
        .find(|stage| *stage as u8 == bytes[0]);
    Ok(stage.map(|stage| (stage, input)))
}

fn read_suspects(mut list: &File) -> io::Result<Vec<Suspect>> {
    let mut bytes = Vec::new();
    list.by_ref()
        .take((SUSPECTS_MAX * ENTRY) as u64)
        .read_to_end(&mut bytes)?;
    // A cut-off last entry (the machine died in between) is dropped: it costs one more death.
    let entries = bytes.chunks_exact(ENTRY);
    Ok(entries
        .filter_map(|entry| {
            Some(Suspect {
                input: *entry.first_chunk()?,
                deaths: *entry.get(32)?,
                last: u64::from_be_bytes(*entry.last_chunk()?),
            })
        })
        .collect())
}

#[cfg(test)]
mod tests;
