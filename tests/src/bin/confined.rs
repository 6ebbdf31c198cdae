//! A process that is confined as our daemons are and says what is left to it; and an older kernel for one of them.
//!
//! `confined try DIR ALLOWED FORBIDDEN` gives up all but reading DIR/read, changing DIR/write and connecting to port ALLOWED,
//! then tries what it may and what it may not, one line each. `confined old-kernel PROGRAM …` runs a program for which
//! Landlock and `memfd_secret` do not exist, as before Linux 5.13.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use confine::{Plan, Settings};
use nix::libc::{self, c_long, sock_filter};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["try", dir, allowed, forbidden] => {
            try_all(Path::new(dir), port(allowed)?, port(forbidden)?)
        }
        ["old-kernel", program, ..] => {
            hide_newer_calls()?;
            Err(Command::new(program).args(&arguments[2..]).exec())
        }
        _ => Err(io::Error::other(
            "usage: confined try DIR PORT PORT | confined old-kernel PROGRAM …",
        )),
    }
}

fn port(text: &str) -> io::Result<u16> {
    text.parse().map_err(io::Error::other)
}

fn try_all(dir: &Path, allowed: u16, forbidden: u16) -> io::Result<()> {
    secret::process::forbid_dumps().map_err(io::Error::other)?;
    let (read, write) = (dir.join("read"), dir.join("write"));
    let mut plan = Plan::new();
    plan.read.insert(read.clone());
    plan.write.insert(write.clone());
    plan.connect.insert(allowed);
    plan.listens(0);
    let confined = plan.apply(&Settings::default()).map_err(io::Error::other)?;
    let mut out = io::stdout();
    for finding in &confined.report.findings {
        writeln!(out, "measure {finding}")?;
    }
    let parent = nix::unistd::getppid();
    let packet = || {
        socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::empty(),
            None,
        )
    };
    let tried: [(&str, io::Result<()>); 15] = [
        ("read allowed", std::fs::read(read.join("file")).map(drop)),
        (
            "read replaced",
            replaced(&write).and_then(|file| std::fs::read(file).map(drop)),
        ),
        (
            "read forbidden",
            std::fs::read(dir.join("secret")).map(drop),
        ),
        ("list forbidden", std::fs::read_dir(dir).map(drop)),
        ("write allowed", std::fs::write(write.join("new"), "x")),
        ("write forbidden", std::fs::write(read.join("new"), "x")),
        (
            "connect allowed",
            TcpStream::connect(("127.0.0.1", allowed)).map(drop),
        ),
        (
            "connect forbidden",
            TcpStream::connect(("127.0.0.1", forbidden)).map(drop),
        ),
        ("bind allowed", TcpListener::bind("127.0.0.1:0").map(drop)),
        (
            "bind forbidden",
            TcpListener::bind(("127.0.0.2", forbidden)).map(drop),
        ),
        (
            "start a program",
            Command::new("/bin/true").status().map(drop),
        ),
        (
            "start a thread",
            std::thread::Builder::new().spawn(|| {}).map(drop),
        ),
        (
            "signal a stranger",
            nix::sys::signal::kill(parent, None).map_err(Into::into),
        ),
        ("packet socket", packet().map(drop).map_err(Into::into)),
        (
            "allow dumps again",
            nix::sys::prctl::set_dumpable(true).map_err(Into::into),
        ),
    ];
    for (what, result) in tried {
        let said = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.raw_os_error().map_or(error.to_string(), |number| {
                nix::Error::from_raw(number).to_string()
            }),
        };
        writeln!(out, "{what}: {said}")?;
    }
    Ok(())
}

/// Another file under the old name, as a ConfigMap or a renewed certificate comes.
fn replaced(dir: &Path) -> io::Result<std::path::PathBuf> {
    let (new, file) = (dir.join("file.new"), dir.join("file"));
    std::fs::write(&new, "two")?;
    std::fs::rename(&new, &file)?;
    Ok(file)
}

/// Answers ENOSYS to calls that came with Linux 5.13 and 5.14, in this process and in what it becomes.
fn hide_newer_calls() -> io::Result<()> {
    const NEWER: [c_long; 4] = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
        libc::SYS_memfd_secret,
    ];
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![step(0x20, 0, 0, 0)]; // load the number
    for number in NEWER {
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        program.push(step(0x15, 0, 1, number)); // if it is this one
        program.push(step(0x06, 0, 0, absent)); // say so
    }
    program.push(step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW));
    nix::sys::prctl::set_no_new_privs()?;
    secret::process::install_filter(&program)
}
