//! A running `examples/life.rs`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Life {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Life {
    /// Started, with its handlers in place and nothing else.
    pub fn registered(env: &[(&str, &str)]) -> Self {
        let test = std::env::current_exe().unwrap();
        // Test binaries lie in `deps`, examples beside that; cargo builds both for a test run.
        let path = test
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/life");
        let mut child = Command::new(&path)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it with `--examples`", path.display())
            });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut life = Self { child, lines };
        life.hear("registered");
        life
    }

    /// Started and serving.
    pub fn serving(env: &[(&str, &str)]) -> Self {
        let mut life = Self::registered(env);
        life.say();
        life.hear("serving");
        life
    }

    /// Its next line is this one.
    pub fn hear(&mut self, wanted: &str) {
        assert_eq!(self.lines.next().unwrap().unwrap(), wanted);
    }

    /// Gives it a line.
    pub fn say(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Lets the work in flight end.
    pub fn let_go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end, while the work in flight goes on unless it was let go.
    pub fn end(mut self) -> ExitStatus {
        // `Child::wait` would close standard input, which is what holds the drain up.
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            // Its end closes the pipe, so this blocks and does not spin.
            let _ = self.lines.next();
        }
    }
}
