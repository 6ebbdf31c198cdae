//! The filter as a table, read by a small interpreter of classic BPF: no test process has to lose its own rights.

#![allow(clippy::unwrap_used)]

use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

fn arch() -> TargetArch {
    TargetArch::try_from(std::env::consts::ARCH).unwrap()
}

/// `AUDIT_ARCH_…` of this machine, as the kernel fills it in.
const AUDIT_ARCH: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_00f3
};

/// What the program says to a call: `struct seccomp_data` and the few instructions that filters are made of.
fn verdict_of(program: &[sock_filter], arch: u32, number: c_long, arguments: &[u64]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&u32::try_from(number).unwrap().to_ne_bytes());
    data.extend_from_slice(&arch.to_ne_bytes());
    data.extend_from_slice(&[0; 8]);
    for n in 0..6 {
        data.extend_from_slice(&arguments.get(n).copied().unwrap_or(0).to_ne_bytes());
    }
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let step = program[at];
        at += 1;
        let jump = |taken| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let from = usize::try_from(step.k).unwrap();
                accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => accumulator &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn verdict(programs: Programs, number: c_long, arguments: &[u64]) -> u32 {
    verdict_of(
        &denying(programs, arch()).unwrap(),
        AUDIT_ARCH,
        number,
        arguments,
    )
}

#[test]
fn what_turns_running_code_into_more_is_denied_and_its_neighbours_are_not() {
    for number in DENIED.iter().chain(DENIED_HERE) {
        for programs in [Programs::None, Programs::Started] {
            assert_eq!(verdict(programs, *number, &[]), EPERM, "{number}");
        }
    }
    for number in [
        libc::SYS_read,
        libc::SYS_openat,
        libc::SYS_memfd_secret,
        libc::SYS_mlock,
        libc::SYS_futex,
        libc::SYS_connect,
        libc::SYS_rt_sigaction,
        libc::SYS_kill,
        libc::SYS_prlimit64,
        libc::SYS_landlock_restrict_self,
        libc::SYS_seccomp,
        libc::SYS_fchown,
    ] {
        assert_eq!(verdict(Programs::None, number, &[]), ALLOW, "{number}");
    }
}

#[test]
fn programs_are_started_only_where_that_is_the_plan() {
    let clone = |flags: i32| [u64::from(flags.unsigned_abs())];
    let thread = clone(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
    let process = clone(libc::CLONE_VFORK | libc::SIGCHLD);
    for (programs, wanted) in [(Programs::None, EPERM), (Programs::Started, ALLOW)] {
        for number in PROGRAMS.iter().chain(PROGRAMS_HERE) {
            assert_eq!(verdict(programs, *number, &[]), wanted);
        }
        assert_eq!(verdict(programs, libc::SYS_clone, &process), wanted);
        assert_eq!(verdict(programs, libc::SYS_clone, &thread), ALLOW);
        for flag in CLONE_NAMESPACES {
            let new = clone(flag | libc::CLONE_THREAD);
            assert_eq!(verdict(programs, libc::SYS_clone, &new), EPERM);
        }
    }
    let absent = absent(arch()).unwrap();
    assert_eq!(
        verdict_of(&absent, AUDIT_ARCH, libc::SYS_clone3, &[]),
        ENOSYS
    );
    assert_eq!(verdict_of(&absent, AUDIT_ARCH, libc::SYS_clone, &[]), ALLOW);
}

#[test]
fn arguments_decide_where_the_call_itself_is_needed() {
    let (r, w, x) = (1, 2, 4);
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    let packet = u64::from(libc::AF_PACKET.unsigned_abs());
    let vsock = u64::from(libc::AF_VSOCK.unsigned_abs());
    let dumpable = u64::from(libc::PR_SET_DUMPABLE.unsigned_abs());
    let name = u64::from(libc::PR_SET_NAME.unsigned_abs());
    for (number, arguments, wanted) in [
        (libc::SYS_mmap, vec![0, 4096, r | x], ALLOW),
        (libc::SYS_mmap, vec![0, 4096, r | w], ALLOW),
        (libc::SYS_mmap, vec![0, 4096, r | w | x], EPERM),
        (libc::SYS_mprotect, vec![0, 4096, r], ALLOW),
        (libc::SYS_mprotect, vec![0, 4096, r | x], EPERM),
        (libc::SYS_pkey_mprotect, vec![0, 4096, x], EPERM),
        (libc::SYS_socket, vec![unix], ALLOW),
        (libc::SYS_socket, vec![packet], EPERM),
        (libc::SYS_socket, vec![vsock], EPERM),
        // The kernel reads 32 bits of a family: what stands above must not help.
        (libc::SYS_socket, vec![packet | 1 << 32], EPERM),
        (libc::SYS_prctl, vec![dumpable, 0], ALLOW),
        (libc::SYS_prctl, vec![dumpable, 1], EPERM),
        (libc::SYS_prctl, vec![PR_SET_PTRACER, 1], EPERM),
        (libc::SYS_prctl, vec![name, 1], ALLOW),
        (libc::SYS_personality, vec![PERSONALITY_QUERY], ALLOW),
        (libc::SYS_personality, vec![0x0004_0000], EPERM),
        (libc::SYS_ioctl, vec![1, 0x541b], ALLOW),
        (libc::SYS_ioctl, vec![1, TIOCSTI], EPERM),
    ] {
        let said = verdict(Programs::None, number, &arguments);
        assert_eq!(said, wanted, "{number} {arguments:x?}");
    }
}

#[test]
fn numbers_of_another_convention_end_the_process() {
    let kill = libc::SECCOMP_RET_KILL_PROCESS;
    let program = denying(Programs::None, arch()).unwrap();
    // i386, on x86_64 kernels that still run it.
    assert_eq!(verdict_of(&program, 0x4000_0003, libc::SYS_read, &[]), kill);
    #[cfg(target_arch = "x86_64")]
    {
        let x32 = c_long::from(X32_BIT) + libc::SYS_ptrace;
        assert_eq!(verdict_of(&program, AUDIT_ARCH, x32, &[]), kill);
        assert_eq!(verdict(Programs::None, libc::SYS_ptrace, &[]), EPERM);
    }
}
