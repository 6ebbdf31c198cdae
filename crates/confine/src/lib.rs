//! What a process gives up for good before it serves: capabilities, files, ports and system calls.
//!
//! A daemon that was talked into running somebody else's code should find little to do with it: no other file, no other
//! port, no other program, no other process's memory. A [`Plan`] says what the daemon needs, made from its configuration;
//! [`Plan::apply`] takes away the rest and gives back a [`Report`] of what holds. It must run while the process has one
//! thread: capabilities and Landlock are a thread's own, and what one thread kept an attacker would find.
//!
//! Nothing here decides what a daemon needs, and nothing here can be undone: there is no function that gives back.
//! A kernel without a measure is no error unless the settings say so: the report tells `unsupported`, the log and the
//! metric show it, and an operator decides.
#![forbid(unsafe_code)]

mod capabilities;
mod landlocked;
mod plan;
mod report;
mod seccomp;
mod settings;

pub use caps::Capability;
pub use plan::{ApplyError, Confined, Plan, SYSTEM, paths_in};
pub use report::{Finding, Measure, Report, State};
pub use seccomp::Programs;
pub use settings::{Settings, UnknownMeasure};
