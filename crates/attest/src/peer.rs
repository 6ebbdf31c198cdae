//! Who is at the other end of a Unix socket, held by a pidfd: the one room that asks the kernel.
//!
//! Credentials and pidfd are those of the process that connected, as they were then. A process id alone can be used again, and a
//! socket can be inherited by a process that nobody attested: the pidfd tells both, so it is taken at once and asked again after
//! everything that was read by process id.
//!
//! What the kernel answers, and what it means ([`Refused`]): `ENOPROTOOPT` is a kernel before 6.5, `EINVAL` and `ESRCH` are a peer
//! that is gone (never an old kernel: that reading would turn the check off), and so are `Pid: -1` in the pidfd's `fdinfo`, which
//! kernels from 6.16 give for a process that was reaped, and a pidfd that is readable.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::statfs::fstatfs;
use serde::Deserialize;

use crate::proc;
use crate::refused::Refused;

/// `f_type` of pidfs ("PIDF"), where each process has an inode of its own that is never used again (Linux 6.9).
const PIDFS: u64 = 0x5049_4446;

/// Longest `/proc/PID/cgroup` that is read: fourteen v1 hierarchies of paths of the longest length fit.
const CGROUP_TEXT_MAX: u64 = 64 * 1024;

/// What a kernel without SO_PEERPIDFD means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OldKernel {
    /// Nobody is believed.
    #[default]
    Refuse,
    /// The process is recognised by its start time, read right after `accept`: a process that ended before that is not noticed.
    StartTime,
}

/// One process, for good: never equal to another that got the same process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Its process id here; 0 in another PID namespace.
    pub pid: u32,
    birth: Birth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Birth {
    /// Inode of its pidfd.
    Inode(u64),
    /// Clock ticks since boot.
    Start(u64),
}

#[derive(Debug)]
enum Hold {
    Pidfd(OwnedFd),
    StartTime(u64),
}

/// The process that opened a connection.
#[derive(Debug)]
pub struct Peer {
    uid: u32,
    gid: u32,
    id: ProcessId,
    hold: Hold,
}

impl Peer {
    /// Takes credentials and pidfd of whoever connected `socket`.
    ///
    /// # Errors
    /// [`Refused`]: the peer is gone, or the kernel cannot say.
    pub fn take(socket: BorrowedFd<'_>, old_kernel: OldKernel) -> Result<Self, Refused> {
        let failed = |errno: Errno| Refused::KernelRefused(errno.desc().to_owned());
        let cred = getsockopt(&socket, sockopt::PeerCredentials).map_err(failed)?;
        // A peer of another PID namespace has process id 0, and one that does not exist -1.
        let pid = u32::try_from(cred.pid()).map_err(|_| Refused::DeadPeer)?;
        let hold = match getsockopt(&socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Hold::Pidfd(pidfd),
            Err(Errno::EINVAL | Errno::ESRCH | Errno::ENODATA) => return Err(Refused::DeadPeer),
            Err(Errno::ENOPROTOOPT) => match old_kernel {
                OldKernel::Refuse => return Err(Refused::OldKernel),
                OldKernel::StartTime if pid == 0 => return Err(Refused::OtherPidNamespace),
                OldKernel::StartTime => Hold::StartTime(start_time(pid)?),
            },
            Err(errno) => return Err(failed(errno)),
        };
        let birth = match &hold {
            Hold::Pidfd(pidfd) => {
                same_pid(pidfd, pid)?;
                birth(pidfd, pid)?
            }
            Hold::StartTime(start) => Birth::Start(*start),
        };
        let peer = Self {
            uid: cred.uid(),
            gid: cred.gid(),
            id: ProcessId { pid, birth },
            hold,
        };
        peer.check_alive()?;
        Ok(peer)
    }

    /// Effective user id when it connected.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Effective group id when it connected.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.id
    }

    /// Whether the process still runs: one system call.
    ///
    /// # Errors
    /// [`Refused::DeadPeer`].
    pub fn check_alive(&self) -> Result<(), Refused> {
        match &self.hold {
            Hold::Pidfd(pidfd) => {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::ZERO) {
                    Ok(0) => Ok(()),
                    Ok(_) => Err(Refused::DeadPeer),
                    Err(errno) => Err(Refused::KernelRefused(errno.desc().to_owned())),
                }
            }
            Hold::StartTime(start) if start_time(self.id.pid)? == *start => Ok(()),
            Hold::StartTime(_) => Err(Refused::DeadPeer),
        }
    }

    /// `/proc/PID/cgroup` of the process, and not of one that got its id meanwhile.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn cgroup(&self) -> Result<String, Refused> {
        if self.id.pid == 0 {
            return Err(Refused::OtherPidNamespace);
        }
        let text = read_proc(self.id.pid, "cgroup");
        // Whatever was read, or not found, was that of our process only if it lives after it.
        self.check_alive()?;
        text
    }
}

/// The pidfd and the credentials must speak of one process.
fn same_pid(pidfd: &OwnedFd, pid: u32) -> Result<(), Refused> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(path).map_err(|_| {
        Refused::KernelRefused("no fdinfo of the pidfd under /proc/self".to_owned())
    })?;
    match proc::pid_of_fdinfo(&text) {
        Some(found) if found == i64::from(pid) => Ok(()),
        Some(_) => Err(Refused::DeadPeer),
        None => Err(Refused::KernelRefused(
            "a pidfd without Pid in its fdinfo".to_owned(),
        )),
    }
}

fn birth(pidfd: &OwnedFd, pid: u32) -> Result<Birth, Refused> {
    let failed = |what: &str| Refused::KernelRefused(format!("the pidfd's {what} cannot be had"));
    let kind = fstatfs(pidfd).map_err(|_| failed("file system"))?;
    if u64::try_from(kind.filesystem_type().0).ok() == Some(PIDFS) {
        let file = File::from(pidfd.try_clone().map_err(|_| failed("copy"))?);
        let found = file.metadata().map_err(|_| failed("inode"))?;
        return Ok(Birth::Inode(found.ino()));
    }
    // Before pidfs all pidfds share an inode. A process that cannot be seen has no start time either; its namespace is refused
    // where a process must be named, and where a token alone decides it cannot be told from its neighbours there.
    if pid == 0 {
        return Err(Refused::OtherPidNamespace);
    }
    start_time(pid).map(Birth::Start)
}

fn start_time(pid: u32) -> Result<u64, Refused> {
    let text = read_proc(pid, "stat")?;
    proc::start_time(&text).ok_or(Refused::ProcUnreadable("stat"))
}

fn read_proc(pid: u32, name: &'static str) -> Result<String, Refused> {
    let unreadable = |error: std::io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ESRCH) => Refused::DeadPeer,
        _ => Refused::ProcUnreadable(name),
    };
    let file = File::open(format!("/proc/{pid}/{name}")).map_err(unreadable)?;
    let mut text = String::new();
    let read = file.take(CGROUP_TEXT_MAX + 1).read_to_string(&mut text);
    match read.map_err(unreadable)? as u64 {
        0 => Err(Refused::DeadPeer),
        length if length > CGROUP_TEXT_MAX => Err(Refused::ProcUnreadable(name)),
        _ => Ok(text),
    }
}
