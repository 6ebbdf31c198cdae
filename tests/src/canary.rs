//! The canary: hunts a secret through files, directories and the memory of running processes.
//!
//! It looks for the secret as it is, in pieces, and in every dress in which software prints bytes.
//! It cannot be asked to hunt before it has found a planted copy of each secret, in a file and in a
//! process: a scan that finds nothing proves something only if it could have found it. Its reports
//! name the secret and the place and never show the bytes.

mod core;
mod forms;
mod huffman;
mod memory;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::process::{Process, bin};
use forms::Needles;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// One copy that should not be there.
#[derive(Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which secret.
    pub secret: String,
    /// In which dress (`raw`, `hex`, `base64` …).
    pub form: &'static str,
    /// File, or process and mapping.
    pub place: String,
    /// Offset in the file, or address.
    pub at: u64,
}

impl fmt::Debug for Hit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} as {} in {} at {:#x}",
            self.secret, self.form, self.place, self.at
        )
    }
}

/// What a hunt saw.
#[derive(Debug, Default)]
pub struct Report {
    /// All copies found.
    pub hits: Vec<Hit>,
    /// Bytes that were looked at: a hunt over nothing is none.
    pub bytes: u64,
    /// Mappings that could not be read, with the reason (`memfd_secret` pages are among them).
    pub unreadable: Vec<String>,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.hits.extend(other.hits);
        self.bytes += other.bytes;
        self.unreadable.extend(other.unreadable);
    }

    /// Leaves out what stands in memory that the process has locked. Where the kernel offers
    /// `memfd_secret` the agent's arena cannot be read at all; where it does not, the arena is locked
    /// memory, and the one place where an agent may hold a key.
    #[must_use]
    pub fn outside_locked_memory(mut self) -> Self {
        self.hits
            .retain(|hit| !hit.place.ends_with(&format!("{})", memory::LOCKED)));
        self
    }

    /// Copies as they are, each with its address: how often the secret is there, not in how many pieces.
    pub fn copies(&self) -> Vec<u64> {
        let whole = self.hits.iter().filter(|hit| hit.form == "raw");
        whole.map(|hit| hit.at).collect()
    }

    /// Whether a mapping of secret memory was met, which reading gives an error for.
    pub fn met_secret_memory(&self) -> bool {
        self.unreadable
            .iter()
            .any(|place| place.contains("secretmem"))
    }

    /// Fails, naming every place, unless something was looked at and nothing was found.
    pub fn clean(&self, what: &str) -> anyhow::Result<()> {
        ensure!(self.bytes > 0, "{what}: nothing was scanned");
        ensure!(
            self.hits.is_empty(),
            "{what}: {} copies: {:#?}",
            self.hits.len(),
            self.hits
        );
        Ok(())
    }
}

/// A hunter that has proved that it finds what it looks for.
pub struct Canary {
    needles: Needles,
}

impl Canary {
    /// Takes the secrets (name and bytes) and proves itself on copies planted below `dir` and in a
    /// helper process. The planted files are removed again.
    pub fn armed(dir: &Path, secrets: &[(&str, &[u8])]) -> anyhow::Result<Self> {
        let canary = Canary {
            needles: Needles::of(secrets)?,
        };
        for (name, secret) in secrets {
            canary
                .prove_on_files(dir, name, secret)
                .with_context(|| format!("positive control for {name}"))?;
            canary
                .prove_on_memory(dir, name, secret)
                .with_context(|| format!("positive control for {name}"))?;
        }
        Ok(canary)
    }

    fn prove_on_files(&self, dir: &Path, name: &str, secret: &[u8]) -> anyhow::Result<()> {
        let file = dir.join("canary-planted");
        for (form, dressed) in forms::dressed(secret) {
            // Across a chunk border, where a careless scan would miss it.
            let mut content = vec![b'.'; CHUNK - dressed.len() / 2];
            content.extend_from_slice(&dressed);
            std::fs::write(&file, &content)?;
            let found = self.file(&file)?;
            ensure!(
                found.hits.iter().any(|hit| hit.secret == name),
                "a planted file ({form}) was not found"
            );
        }
        std::fs::write(&file, "sk-placeholder-not-a-key ".repeat(1000))?;
        let found = self.file(&file)?;
        std::fs::remove_file(&file)?;
        ensure!(
            found.hits.is_empty(),
            "a harmless file was accused: {:?}",
            found.hits
        );
        Ok(())
    }

    /// The same proof on cores, for who asks for cores. `false` where there is no gcore.
    pub fn prove_on_cores(&self, dir: &Path, name: &str, secret: &[u8]) -> anyhow::Result<bool> {
        self.prove(dir, name, secret, |pid| self.core(pid, dir))
    }

    fn prove_on_memory(&self, dir: &Path, name: &str, secret: &[u8]) -> anyhow::Result<()> {
        self.prove(dir, name, secret, |pid| self.process(pid).map(Some))?;
        Ok(())
    }

    /// Plants a copy in every dress in a process, and one that is wiped in another, and has `look` find the first alone.
    fn prove(
        &self,
        dir: &Path,
        name: &str,
        secret: &[u8],
        look: impl Fn(u32) -> anyhow::Result<Option<Report>>,
    ) -> anyhow::Result<bool> {
        let file = dir.join("canary-planted");
        // In every dress, apart from each other.
        let dresses = forms::dressed(secret).into_iter().map(|(_, bytes)| bytes);
        std::fs::write(&file, dresses.collect::<Vec<_>>().join(&b"\n\0\n"[..]))?;
        for (keep, expected) in [(true, true), (false, false)] {
            let mut command = Command::new(bin("plant")?);
            if !keep {
                command.arg("--nothing");
            }
            command.arg(&file);
            let mut plant = Process::start("plant", command, dir)?;
            plant.stdout_line("ready")?;
            let Some(found) = look(plant.pid())? else {
                return Ok(false);
            };
            let missed = self.needles.missed(secret, &found.hits);
            let right = match expected {
                true => missed.is_empty(),
                false => found.hits.is_empty(),
            };
            ensure!(
                right,
                "memory scan of a process that keeps a copy of the {name} ({keep}) missed {missed:?} and found {:?}",
                found.hits
            );
            drop(plant.stdin());
            plant.exit()?;
        }
        std::fs::remove_file(&file)?;
        Ok(true)
    }

    /// Looks through bytes at hand (a captured wire, an HTTP body).
    pub fn bytes(&self, place: &str, bytes: &[u8]) -> Report {
        let mut report = Report {
            bytes: bytes.len() as u64,
            ..Report::default()
        };
        self.needles.find(bytes, 0, place, &mut report.hits);
        report
    }

    /// Looks through one file.
    pub fn file(&self, path: &Path) -> anyhow::Result<Report> {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        self.reader(&mut file, &path.display().to_string(), 0)
    }

    /// Looks through every regular file below `dir`, and at the names.
    pub fn tree(&self, dir: &Path) -> anyhow::Result<Report> {
        let mut report = Report::default();
        for entry in
            std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?
        {
            let entry = entry?;
            let path = entry.path();
            report.add(self.bytes(
                &format!("the name of {}", path.display()),
                path.as_os_str().as_bytes(),
            ));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                report.add(self.tree(&path)?);
            } else if kind.is_file() {
                // Write-ahead logs and sockets come and go under a running daemon.
                match self.file(&path) {
                    Err(_) if !path.exists() => {}
                    found => report.add(found?),
                }
            }
        }
        Ok(report)
    }

    /// Looks through all readable memory of a running process, its arguments and its environment.
    pub fn process(&self, pid: u32) -> anyhow::Result<Report> {
        let mut report = memory::scan(pid, &self.needles)?;
        for name in ["cmdline", "environ"] {
            report.add(self.file(Path::new(&format!("/proc/{pid}/{name}")))?);
        }
        Ok(report)
    }

    /// Has `gcore` write a core of a running process below `dir`, looks through it, and removes it. `None` where there is no
    /// gcore: the caller says loudly that this was not checked.
    pub fn core(&self, pid: u32, dir: &Path) -> anyhow::Result<Option<Report>> {
        let Some(file) = core::take(pid, dir)? else {
            return Ok(None);
        };
        let report = self.file(&file);
        std::fs::remove_file(&file)?;
        report.map(Some)
    }

    fn reader(&self, reader: &mut impl Read, place: &str, base: u64) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut window = Vec::with_capacity(CHUNK + self.needles.longest());
        loop {
            let kept = window.len();
            let read = reader
                .by_ref()
                .take(CHUNK as u64)
                .read_to_end(&mut window)?;
            if read == 0 {
                return Ok(report);
            }
            let start = base + report.bytes - kept as u64;
            report.bytes += read as u64;
            self.needles.find(&window, start, place, &mut report.hits);
            // What could be the beginning of a needle stays for the next round.
            let keep = window.len().min(self.needles.longest() - 1);
            window.drain(..window.len() - keep);
        }
    }
}
