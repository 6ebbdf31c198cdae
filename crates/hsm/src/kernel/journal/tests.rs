//! Who is blamed for a death, who is not, and for how long.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// A process whose token is well.
fn well(directory: &Path) -> Journal {
    let mut journal = Journal::open(directory).unwrap();
    journal.enter();
    journal.convict();
    journal.leave();
    journal
}

#[test]
fn an_input_that_was_in_work_at_two_deaths_is_poisoned_and_its_neighbour_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let killer = Journal::name(1, b"killer");
    for deaths in 0..2 {
        let mut journal = well(directory.path());
        assert!(!journal.is_poisoned(&killer), "after {deaths} deaths");
        journal.begin(&killer);
    }
    let mut journal = well(directory.path());
    assert!(journal.is_poisoned(&killer));
    assert!(!journal.is_poisoned(&Journal::name(1, b"neighbour")));
    assert!(!journal.is_poisoned(&Journal::name(2, b"killer")));
    drop(journal);
    journal = well(directory.path());
    assert!(
        journal.is_poisoned(&killer),
        "it survives an orderly restart"
    );
    journal.forgive().unwrap();
    assert!(!well(directory.path()).is_poisoned(&killer));
}

#[test]
fn a_death_before_the_next_self_test_acquits_and_an_idle_end_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let input = Journal::name(1, b"input");
    for _ in 0..4 {
        well(directory.path()).begin(&input);
        // The next process dies while the token is being reached.
        Journal::open(directory.path()).unwrap().enter();
    }
    assert!(!well(directory.path()).is_poisoned(&input));
    for _ in 0..4 {
        well(directory.path()).begin(&input);
        Journal::open(directory.path()).unwrap().acquit();
    }
    assert!(!well(directory.path()).is_poisoned(&input));
    for _ in 0..2 {
        well(directory.path()).begin(&input);
        let journal = Journal::open(directory.path()).unwrap();
        journal.enter();
        journal.leave();
    }
    assert!(well(directory.path()).is_poisoned(&input));
}

#[test]
fn a_refusal_ends_by_itself_later_each_time() {
    let mut journal = Journal::forgetful();
    let input = Journal::name(1, b"input");
    let dies = |journal: &mut Journal, now| {
        journal.accused = Some(input);
        journal.convict_at(now);
    };
    dies(&mut journal, 1000);
    dies(&mut journal, 1000 + REFUSED_FOR);
    assert!(
        !journal.is_poisoned_at(&input, 1000 + REFUSED_FOR),
        "two single deaths"
    );
    let mut now = 10_000;
    dies(&mut journal, now);
    dies(&mut journal, now);
    for doublings in 0..3 {
        let end = now + (REFUSED_FOR << doublings);
        assert!(journal.is_poisoned_at(&input, now));
        assert!(journal.is_poisoned_at(&input, end - 1));
        assert!(!journal.is_poisoned_at(&input, end));
        now = end;
        dies(&mut journal, now);
    }
    assert!(
        !journal.is_poisoned_at(&input, 0),
        "a clock that was set back"
    );
    journal.end(&input);
    assert!(!journal.is_poisoned_at(&input, now), "a success clears it");
}

#[test]
fn an_innocent_input_clears_itself() {
    let directory = tempfile::tempdir().unwrap();
    let innocent = Journal::name(1, b"innocent");
    well(directory.path()).begin(&innocent);
    let mut journal = well(directory.path());
    journal.begin(&innocent);
    journal.end(&innocent);
    well(directory.path()).begin(&innocent);
    assert!(!well(directory.path()).is_poisoned(&innocent));
}

#[test]
fn nothing_is_blamed_while_the_token_is_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let input = Journal::name(1, b"input");
    for _ in 0..2 {
        let mut journal = well(directory.path());
        journal.begin(&input);
        assert_eq!(journal.pause(), Some(input));
    }
    assert!(!well(directory.path()).is_poisoned(&input));
    assert_eq!(well(directory.path()).pause(), None);
}
