//! A small region of memory that is locked, kept out of cores and swap, and wiped; secrets live in its slots.
//!
//! Tiers, best first: `memfd_secret(2)` (removed from the kernel's direct map: not even root's `/proc/PID/mem` or
//! `ptrace` reads it; not mapped in a child, which would otherwise share it), then an anonymous mapping that is `mlock`ed, `MADV_DONTDUMP` and `MADV_WIPEONFORK`. The region
//! lies between two guard pages, so that a read past either end of it faults instead of leaking. One arena is made at
//! start, since `RLIMIT_MEMLOCK` is small in containers; it never grows.
#![allow(
    unsafe_code,
    reason = "argued in the crate's first paragraph: this file alone maps and wipes pages"
)]

use std::io;
use std::ptr::{self, NonNull};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Slots are multiples of this many bytes, so that freed ones fit again.
const GRAIN: usize = 64;

/// Where the pages of an arena come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// `memfd_secret(2)`: unreadable through `/proc/PID/mem`, `ptrace` and `process_vm_readv`, also for root.
    MemfdSecret,
    /// `mlock`ed anonymous pages, not dumped, wiped on fork.
    Locked,
}

impl Tier {
    /// The name used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Tier::MemfdSecret => "memfd_secret",
            Tier::Locked => "locked",
        }
    }
}

/// A text that names no tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be memfd_secret or locked")]
pub struct UnknownTier;

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Self, UnknownTier> {
        [Tier::MemfdSecret, Tier::Locked]
            .into_iter()
            .find(|tier| tier.name() == text)
            .ok_or(UnknownTier)
    }
}

/// Why an arena or a slot could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// Mapping or locking failed.
    #[error(
        "cannot lock {bytes} bytes of memory for secrets ({tier}); raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=) above it"
    )]
    Map {
        /// How many bytes were asked for.
        bytes: usize,
        /// The last tier tried.
        tier: &'static str,
        /// What the system said there.
        #[source]
        source: io::Error,
    },
    /// Every byte is in use.
    #[error(
        "the secret arena is full: {wanted} bytes asked for, {free} free; fewer keys per agent, or a larger arena"
    )]
    Full {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free, in all fragments together.
        free: usize,
    },
}

/// The region; cheap to clone, freed when the last slot and the last handle are gone.
#[derive(Clone)]
pub struct Arena {
    region: Arc<Region>,
}

struct Region {
    /// Start of the usable pages; the guard pages lie just before and just after.
    start: NonNull<u8>,
    bytes: usize,
    page: usize,
    tier: Tier,
    /// Which grains are taken. Bookkeeping lives outside the secret pages.
    taken: Mutex<Vec<bool>>,
}

// SAFETY: the pointer is to memory that the region owns until drop; slots hand out disjoint ranges of it, and the
// bookkeeping is behind a mutex.
unsafe impl Send for Region {}
// SAFETY: as above; a shared `Region` gives access to its bytes only through slots, which are disjoint.
unsafe impl Sync for Region {}

impl Arena {
    /// Maps at least `bytes` bytes (rounded up to pages) at the best tier that the kernel grants.
    ///
    /// # Errors
    /// [`ArenaError::Map`] when even the lowest tier is refused.
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        Self::at(Tier::MemfdSecret, bytes).or_else(|_| Self::at(Tier::Locked, bytes))
    }

    /// Maps at least `bytes` bytes at this tier and no other.
    ///
    /// # Errors
    /// [`ArenaError::Map`] when the kernel refuses, or does not have it.
    pub fn at(tier: Tier, bytes: usize) -> Result<Self, ArenaError> {
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let bytes = bytes.max(1).next_multiple_of(page);
        let region = Region::map(tier, bytes, page).map_err(|source| ArenaError::Map {
            bytes,
            tier: tier.name(),
            source,
        })?;
        Ok(Self {
            region: Arc::new(region),
        })
    }

    /// The tier in use, to be logged and measured.
    pub fn tier(&self) -> Tier {
        self.region.tier
    }

    /// Address range of the usable bytes, for tests that scan memory.
    pub fn range(&self) -> std::ops::Range<usize> {
        let start = self.region.start.as_ptr() as usize;
        start..start + self.region.bytes
    }

    /// A zeroed slot of exactly `length` bytes.
    ///
    /// # Errors
    /// [`ArenaError::Full`] when no run of free grains is long enough.
    pub fn slot(&self, length: usize) -> Result<Slot, ArenaError> {
        let grains = length.max(1).div_ceil(GRAIN);
        let mut taken = self
            .region
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = (0..taken.len())
            .find(|&at| {
                taken
                    .get(at..at + grains)
                    .is_some_and(|run| run.iter().all(|used| !used))
            })
            .ok_or_else(|| ArenaError::Full {
                wanted: length,
                free: taken.iter().filter(|used| !**used).count() * GRAIN,
            })?;
        taken[first..first + grains].fill(true);
        Ok(Slot {
            region: Arc::clone(&self.region),
            offset: first * GRAIN,
            length,
            grains,
        })
    }
}

impl Region {
    fn map(tier: Tier, bytes: usize, page: usize) -> io::Result<Self> {
        let fd = match tier {
            Tier::MemfdSecret => Some(memfd_secret(bytes)?),
            Tier::Locked => None,
        };
        // SAFETY: a fresh anonymous reservation with no access; the kernel chooses the address.
        let outer = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes + 2 * page,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if outer == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let unmap = |error| {
            // SAFETY: exactly the reservation made above, not yet shared with anybody.
            unsafe { libc::munmap(outer, bytes + 2 * page) };
            Err(error)
        };
        let (flags, raw) = match &fd {
            Some(fd) => (
                libc::MAP_SHARED | libc::MAP_FIXED,
                std::os::fd::AsRawFd::as_raw_fd(fd),
            ),
            None => (
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
            ),
        };
        // SAFETY: replaces the inner part of our own reservation; the guard pages stay PROT_NONE.
        let inner = unsafe {
            libc::mmap(
                outer.byte_add(page),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                raw,
                0,
            )
        };
        if inner == libc::MAP_FAILED {
            return unmap(io::Error::last_os_error());
        }
        let kept = match tier {
            // The kernel locks these pages itself and dumps them to nobody.
            Tier::MemfdSecret => advise(inner, bytes, &[libc::MADV_DONTFORK]),
            Tier::Locked => lock_pages(inner, bytes),
        };
        if let Err(error) = kept {
            return unmap(error);
        }
        let Some(start) = NonNull::new(inner.cast::<u8>()) else {
            return unmap(io::Error::other("mmap returned address 0"));
        };
        Ok(Self {
            start,
            bytes,
            page,
            tier,
            taken: Mutex::new(vec![false; bytes / GRAIN]),
        })
    }
}

/// Locks the pages and keeps them out of cores and children.
fn lock_pages(at: *mut libc::c_void, bytes: usize) -> io::Result<()> {
    // SAFETY: `at..at+bytes` is our own fresh mapping.
    let locked = unsafe { libc::mlock(at, bytes) };
    if locked != 0 {
        return Err(io::Error::last_os_error());
    }
    advise(at, bytes, &[libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK])
}

fn advise(at: *mut libc::c_void, bytes: usize, advices: &[libc::c_int]) -> io::Result<()> {
    for advice in advices {
        // SAFETY: `at..at+bytes` is our own mapping; these only change how the kernel treats its pages.
        if unsafe { libc::madvise(at, bytes, *advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `memfd_secret(2)`, Linux 5.14 and later, where the kernel was started with it.
fn memfd_secret(bytes: usize) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: the system call takes flags only and returns a descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = i32::try_from(raw).map_err(|_| io::Error::other("descriptor out of range"))?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made for us and that nobody else owns.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(raw) };
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::other("arena too large"))?;
    // SAFETY: our own descriptor.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: no slot is left (each holds an `Arc` of us), so nobody else refers to these pages.
        unsafe {
            wipe(self.start.as_ptr(), self.bytes);
            libc::munmap(
                self.start.as_ptr().sub(self.page).cast(),
                self.bytes + 2 * self.page,
            );
        }
    }
}

/// Overwrites in a way that the optimiser may not drop.
///
/// # Safety
/// `at..at + length` must be writable and unaliased.
unsafe fn wipe(at: *mut u8, length: usize) {
    for offset in 0..length {
        // SAFETY: within the range that the caller vouches for.
        unsafe { ptr::write_volatile(at.add(offset), 0) };
    }
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

/// One secret's place in the arena: wiped and given back when dropped.
pub struct Slot {
    region: Arc<Region>,
    offset: usize,
    length: usize,
    grains: usize,
}

impl Slot {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the slot has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The secret itself. Each call site must be argued for: `clippy.toml` disallows it elsewhere.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: the range lies in the region (checked when the slot was made) and belongs to this slot alone.
        unsafe {
            std::slice::from_raw_parts(self.region.start.as_ptr().add(self.offset), self.length)
        }
    }

    /// The secret itself, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.region.start.as_ptr().add(self.offset), self.length)
        }
    }

    /// Shortens the slot to `length` bytes; what lies behind is wiped. Longer than now changes nothing.
    pub fn truncate(&mut self, length: usize) {
        if length < self.length {
            // SAFETY: within this slot's own range.
            unsafe {
                wipe(
                    self.region.start.as_ptr().add(self.offset + length),
                    self.length - length,
                )
            };
            self.length = length;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: this slot's own grains; it is being dropped, so no reference into them is left.
        unsafe {
            wipe(
                self.region.start.as_ptr().add(self.offset),
                self.grains * GRAIN,
            )
        };
        let first = self.offset / GRAIN;
        let mut taken = self
            .region
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken[first..first + self.grains].fill(false);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot(redacted)")
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena")
            .field("tier", &self.region.tier)
            .field("bytes", &self.region.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests;
