//! Reading the whole memory of another process through `/proc/PID/mem`.
//!
//! Needs the right to trace the process; root may read one that made itself not dumpable, which is
//! just what the scan is for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;

use super::forms::Needles;
use super::{CHUNK, Report};

/// Kernel pages that are mapped everywhere and cannot be read this way.
const KERNEL: [&str; 4] = ["[vvar]", "[vvar_vclock]", "[vsyscall]", "[vdso]"];

/// How the place of a locked mapping is marked.
pub(super) const LOCKED: &str = ", locked";

struct Mapping {
    start: u64,
    end: u64,
    name: String,
    /// Pinned with mlock, as the agent's arena is where the kernel has no `memfd_secret`.
    locked: bool,
}

/// Looks through every readable mapping.
pub(super) fn scan(pid: u32, needles: &Needles) -> anyhow::Result<Report> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))
        .with_context(|| format!("cannot see the memory of {pid}: not running, or not allowed"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))
        .with_context(|| format!("cannot open the memory of {pid}"))?;
    let mut report = Report::default();
    for mapping in mappings(&maps) {
        scan_mapping(pid, &memory, &mapping, needles, &mut report);
    }
    Ok(report)
}

fn scan_mapping(
    pid: u32,
    memory: &File,
    mapping: &Mapping,
    needles: &Needles,
    report: &mut Report,
) {
    let name = if mapping.name.is_empty() {
        "anonymous"
    } else {
        &mapping.name
    };
    let locked = if mapping.locked { LOCKED } else { "" };
    let place = format!("memory of {pid} ({name}{locked})");
    let mut window: Vec<u8> = Vec::new();
    let mut at = mapping.start;
    while at < mapping.end {
        let kept = window.len();
        let want = CHUNK.min(usize::try_from(mapping.end - at).unwrap_or(CHUNK));
        window.resize(kept + want, 0);
        let read = match memory.read_at(&mut window[kept..], at) {
            Ok(read) if read > 0 => read,
            failed => {
                // memfd_secret pages, guard pages of drivers, or a mapping that is gone by now.
                let reason = failed
                    .err()
                    .map_or("ended early".to_owned(), |error| error.to_string());
                report.unreadable.push(format!("{place} {at:#x}: {reason}"));
                return;
            }
        };
        window.truncate(kept + read);
        needles.find(&window, at - kept as u64, &place, &mut report.hits);
        report.bytes += read as u64;
        at += read as u64;
        let keep = window.len().min(needles.longest() - 1);
        window.drain(..window.len() - keep);
    }
}

/// The readable mappings of an `smaps` text: a line per mapping, then its properties, flags last.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Option<Mapping>> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(Some(mapping)) = mappings.last_mut() {
                mapping.locked = flags.split_whitespace().any(|flag| flag == "lo");
            }
        } else if line
            .split_whitespace()
            .next()
            .is_some_and(|first| !first.ends_with(':'))
        {
            mappings.push(parse(line));
        }
    }
    mappings.into_iter().flatten().collect()
}

/// `start-end perms offset device inode name`, when it can be read at all.
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let readable = fields.next()?.starts_with('r');
    let name = fields.nth(3).unwrap_or_default().to_owned();
    let (start, end) = (
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    );
    (readable && !KERNEL.contains(&name.as_str())).then_some(Mapping {
        start,
        end,
        name,
        locked: false,
    })
}
