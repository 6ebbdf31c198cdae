//! Signals, sent to a real process.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use support::Life;

#[test]
fn the_first_signal_drains_and_the_work_in_flight_ends_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut life = Life::serving(&[]);
        life.signal(signal);
        life.hear(&format!("draining {signal}"));
        life.let_go();
        life.hear("drained");
        assert!(life.end().success());
    }
}

#[test]
fn a_second_signal_ends_at_once_although_work_is_in_flight() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGTERM, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGINT, 130),
    ] {
        let mut life = Life::serving(&[]);
        life.signal(first);
        life.hear(&format!("draining {first}"));
        life.signal(second);
        let status = life.end();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}

#[test]
fn a_signal_during_start_up_is_not_lost() {
    let mut life = Life::registered(&[]);
    life.signal(Signal::SIGTERM);
    life.say();
    life.hear("serving");
    life.hear("draining SIGTERM");
    life.let_go();
    life.hear("drained");
    assert!(life.end().success());
}

#[test]
fn hangup_asks_for_a_reload_and_ends_nothing() {
    let mut life = Life::serving(&[]);
    for _ in 0..3 {
        life.signal(Signal::SIGHUP);
        life.hear("reload");
    }
    life.signal(Signal::SIGTERM);
    life.hear("draining SIGTERM");
    life.let_go();
    life.hear("drained");
    assert!(life.end().success());
}
