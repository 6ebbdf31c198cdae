//! Signals, sent to a real process: this test binary, started again as `the_process` below.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use lifecycle::drain::Trigger;
use lifecycle::signals::Signals;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Not a test: what the tests below start. It drains for as long as its standard input is open, so each test decides.
#[test]
#[ignore = "the process under test, started by the others"]
fn the_process() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let signals = Signals::register().unwrap();
        println!("registered");
        let mut line = String::new();
        // Blocking on purpose: start-up that has not come to `spawn` yet.
        std::io::stdin().read_line(&mut line).unwrap();
        let trigger = Trigger::new();
        let mut reloads = signals.spawn(trigger.clone());
        println!("spawned");
        let watcher = trigger.watcher();
        let reason = loop {
            tokio::select! {
                Some(()) = reloads.recv() => println!("reload"),
                reason = trigger.started() => break reason,
            }
        };
        println!("draining {reason}");
        std::thread::spawn(move || {
            let held = watcher;
            std::io::stdin().read_line(&mut String::new()).unwrap();
            drop(held);
        });
        trigger.finish(Duration::from_secs(60)).await.unwrap();
        println!("drained");
    });
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, lines };
        process.wait_for("registered");
        process
    }

    /// Skips what the test harness prints; panics at the end of the output.
    fn wait_for(&mut self, wanted: &str) {
        while self
            .lines
            .next()
            .expect("the line comes before the process ends")
            .unwrap()
            != wanted
        {}
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn say_line(&mut self) {
        use std::io::Write;
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[test]
fn the_first_signal_drains_and_the_work_in_flight_ends_in_order() {
    for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let mut process = Process::start();
        process.say_line();
        process.wait_for("spawned");
        process.signal(signal);
        process.wait_for(&format!("draining {name}"));
        process.say_line();
        process.wait_for("drained");
        assert!(process.end().success());
    }
}

#[test]
fn a_second_signal_ends_at_once_although_work_is_in_flight() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGTERM, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGINT, 130),
    ] {
        let mut process = Process::start();
        process.say_line();
        process.wait_for("spawned");
        process.signal(first);
        process.wait_for(&format!("draining {first}"));
        process.signal(second);
        let status = process.end();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}

#[test]
fn a_signal_during_start_up_is_not_lost() {
    let mut process = Process::start();
    process.signal(Signal::SIGTERM);
    process.say_line();
    process.wait_for("draining SIGTERM");
    process.say_line();
    assert!(process.end().success());
}

#[test]
fn hangup_asks_for_a_reload_and_ends_nothing() {
    let mut process = Process::start();
    process.say_line();
    process.wait_for("spawned");
    for _ in 0..3 {
        process.signal(Signal::SIGHUP);
        process.wait_for("reload");
    }
    process.signal(Signal::SIGTERM);
    process.wait_for("draining SIGTERM");
    process.say_line();
    assert!(process.end().success());
}
