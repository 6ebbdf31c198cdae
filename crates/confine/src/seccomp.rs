//! The system calls that a process has no use for: they answer EPERM, and the kernel's audit log has each refusal.
//!
//! A list of what is denied, not of what is allowed. An allow list of all that glibc, its name services and a vendor's
//! library call differs from one release to the next, and a call that is missing from it breaks a daemon in a place that
//! no test of ours reaches; the systemd units carry such a list (`@system-service`), which their maintainers keep. What is
//! denied here is what turns running code into more: other processes, other programs, the kernel's less walked doors,
//! namespaces, keys, and memory that is written and then executed.
//!
//! EPERM and not SIGSYS: a library that tries a call and does without goes on. SIGSYS ends the process only where no
//! program of ours can come from: a call by another architecture's numbering.

use libc::{c_long, sock_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::report::{Finding, Measure, State};

/// Whether the process starts programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Programs {
    /// It stays what it is: no execve, no fork.
    #[default]
    None,
    /// It starts others, which inherit the rest.
    Started,
}

/// Denied whatever the arguments.
const DENIED: &[c_long] = &[
    // Other processes: their memory, their descriptors, their secrets.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Doors that exploits of the kernel come through: neither tokio nor a token needs them. io_uring also passes by
    // this filter, and vmsplice pins pages.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The file system by other ways than the paths that Landlock sees.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    // Namespaces and identity.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// The same, where only this architecture has them.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_mknod,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// Denied as well to a process that starts no programs.
const PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];
#[cfg(target_arch = "x86_64")]
const PROGRAMS_HERE: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const PROGRAMS_HERE: &[c_long] = &[];

/// Every namespace that clone can make.
const CLONE_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `PR_SET_PTRACER`, Yama's: names a process that may trace us.
const PR_SET_PTRACER: u64 = 0x5961_6d61;

/// `PER_LINUX` as a question: personality(2).
const PERSONALITY_QUERY: u64 = 0xffff_ffff;

/// ioctl_tty(2): typing, and pasting, into a terminal. As numbers, since their type differs between C libraries.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// Numbers from here on are the x32 calling convention's: the same calls, past every number in the list.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Installs the filters on all threads.
pub(crate) fn install(programs: Programs) -> Finding {
    let finding = |state, detail: &str| Finding::new(Measure::Seccomp, state, detail);
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return finding(State::Unsupported, "x86_64, aarch64 and riscv64 only");
    };
    let filters = match (denying(programs, arch), absent(arch)) {
        (Ok(denying), Ok(absent)) => [denying, absent],
        (Err(error), _) | (_, Err(error)) => {
            return finding(State::Refused(error.to_string()), "");
        }
    };
    for filter in filters {
        if let Err(error) = secret::process::install_filter(&filter) {
            return match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EINVAL) => finding(
                    State::Unsupported,
                    "needs CONFIG_SECCOMP_FILTER, Linux 4.14",
                ),
                _ => finding(State::Refused(error.to_string()), ""),
            };
        }
    }
    let detail = match programs {
        Programs::None => "starts no programs",
        Programs::Started => "starts its token processes",
    };
    finding(State::On, detail)
}

type Rules = std::collections::BTreeMap<i64, Vec<SeccompRule>>;
type Made<T> = Result<T, seccompiler::BackendError>;

fn denying(programs: Programs, arch: TargetArch) -> Made<Vec<sock_filter>> {
    let mut rules: Rules = DENIED
        .iter()
        .chain(DENIED_HERE)
        .map(|number| (*number, Vec::new()))
        .collect();
    arguments(&mut rules)?;
    if programs == Programs::None {
        for number in PROGRAMS.iter().chain(PROGRAMS_HERE) {
            rules.insert(*number, Vec::new());
        }
        // A copy of the process would have a copy of what is in its memory: threads may be made, processes may not.
        let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let process = rule(&[(0, SeccompCmpOp::MaskedEq(thread), 0)])?;
        rules.entry(libc::SYS_clone).or_default().push(process);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )?;
    let mut program = prologue();
    program.extend(instructions(BpfProgram::try_from(filter)?));
    Ok(program)
}

/// `clone3` takes its flags in memory, where no filter sees them: it is said not to exist, and glibc uses `clone`.
fn absent(arch: TargetArch) -> Made<Vec<sock_filter>> {
    let filter = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        arch,
    )?;
    Ok(instructions(BpfProgram::try_from(filter)?))
}

/// Denied by their arguments.
fn arguments(rules: &mut Rules) -> Made<()> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut deny = |number: c_long, conditions: &[(u8, SeccompCmpOp, u64)]| {
        rules.entry(number).or_default().push(rule(conditions)?);
        Ok(())
    };
    for flag in CLONE_NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        deny(libc::SYS_clone, &[(0, MaskedEq(flag), flag)])?;
    }
    // Memory that is written and then executed.
    let (write, execute) = (
        u64::from(libc::PROT_WRITE.unsigned_abs()),
        u64::from(libc::PROT_EXEC.unsigned_abs()),
    );
    let both = write | execute;
    deny(libc::SYS_mmap, &[(2, MaskedEq(both), both)])?;
    deny(libc::SYS_mprotect, &[(2, MaskedEq(execute), execute)])?;
    deny(libc::SYS_pkey_mprotect, &[(2, MaskedEq(execute), execute)])?;
    let shared = u64::from(libc::SHM_EXEC.unsigned_abs());
    deny(libc::SYS_shmat, &[(2, MaskedEq(shared), shared)])?;
    // What was closed to dumps and tracers stays closed.
    let dumpable = u64::from(libc::PR_SET_DUMPABLE.unsigned_abs());
    deny(libc::SYS_prctl, &[(0, Eq, dumpable), (1, Ne, 0)])?;
    deny(libc::SYS_prctl, &[(0, Eq, PR_SET_PTRACER)])?;
    deny(libc::SYS_personality, &[(0, Ne, PERSONALITY_QUERY)])?;
    // Typing into the terminal that a developer started us from.
    deny(libc::SYS_ioctl, &[(1, Eq, TIOCSTI)])?;
    deny(libc::SYS_ioctl, &[(1, Eq, TIOCLINUX)])?;
    // Unix sockets, IP, and netlink, by which glibc asks which addresses there are.
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let others = families.map(|family| (0, Ne, u64::from(family.unsigned_abs())));
    deny(libc::SYS_socket, &others)
}

/// All conditions together, each on the lower half of an argument: the kernel looks at no more of these.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Made<SeccompRule> {
    let conditions: Made<Vec<_>> = conditions
        .iter()
        .map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        })
        .collect();
    SeccompRule::new(conditions?)
}

fn instructions(program: BpfProgram) -> Vec<sock_filter> {
    let same = |one: seccompiler::sock_filter| sock_filter {
        code: one.code,
        jt: one.jt,
        jf: one.jf,
        k: one.k,
    };
    program.into_iter().map(same).collect()
}

/// Ends a process that makes a call by x32 numbers, before any number is compared. Another architecture's numbers are
/// caught by the filter's own beginning.
#[cfg(target_arch = "x86_64")]
fn prologue() -> Vec<sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS; the number is the first field
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn prologue() -> Vec<sock_filter> {
    Vec::new()
}

#[cfg(test)]
mod tests;
