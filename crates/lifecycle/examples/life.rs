//! The life of a daemon, driven by its standard input: what the tests of signals and systemd messages send signals to.
//!
//! It says `registered` when the handlers are in place, then waits for a line, as a start-up that takes its time would.
//! A second line makes it ready. It holds its drain up until standard input ends.
#![expect(clippy::print_stdout, reason = "this is how it talks to its test")]

use std::io::{BufRead, stdin};
use std::time::Duration;

use lifecycle::drain::Trigger;
use lifecycle::notify;
use lifecycle::readiness::Readiness;
use lifecycle::signals::Signals;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let signals = Signals::register()?;
    println!("registered");
    stdin().lock().read_line(&mut String::new())?;

    let trigger = Trigger::new();
    let mut reloads = signals.spawn(trigger.clone());
    let readiness = Readiness::new(&trigger);
    let task = readiness.task("second line");
    let watcher = trigger.watcher();
    std::thread::spawn(move || {
        let mut lines = stdin().lock().lines();
        if let Some(Ok(_)) = lines.next() {
            task.ready();
        }
        for _ in lines {}
        drop(watcher);
    });
    notify::spawn(readiness, trigger.clone());
    println!("serving");

    let reason = loop {
        tokio::select! {
            Some(()) = reloads.recv() => println!("reload"),
            reason = trigger.started() => break reason,
        }
    };
    println!("draining {reason}");
    trigger.finish(Duration::from_secs(60)).await?;
    println!("drained");
    Ok(())
}
