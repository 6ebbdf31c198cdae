//! What the arena promises, on both tiers.

#![allow(
    clippy::disallowed_methods,
    reason = "the tests of the types that open secrets open them"
)]

use super::*;

#[test]
fn slots_are_disjoint_wiped_and_given_back() {
    let arena = Arena::new(4096).expect("an arena");
    let capacity = arena.range().len();
    let mut one = arena.slot(100).expect("a slot");
    let mut two = arena.slot(100).expect("a slot");
    one.expose_mut().fill(0xaa);
    two.expose_mut().fill(0xbb);
    assert!(one.expose().iter().all(|byte| *byte == 0xaa));
    drop(one);
    let again = arena.slot(100).expect("the freed grains fit again");
    assert!(
        again.expose().iter().all(|byte| *byte == 0),
        "a freed slot is wiped"
    );
    assert!(two.expose().iter().all(|byte| *byte == 0xbb));
    assert!(matches!(arena.slot(capacity), Err(ArenaError::Full { .. })));
    drop((again, two));
    assert!(arena.slot(capacity).is_ok());
}

#[test]
fn truncating_wipes_the_rest() {
    let arena = Arena::new(1).expect("an arena");
    let mut slot = arena.slot(64).expect("a slot");
    slot.expose_mut().fill(7);
    slot.truncate(10);
    assert_eq!(slot.expose(), [7; 10]);
    slot.truncate(64);
    assert_eq!(slot.len(), 10);
}

#[test]
fn debug_shows_the_tier_and_no_bytes() {
    let arena = Arena::new(1).expect("an arena");
    let mut slot = arena.slot(8).expect("a slot");
    slot.expose_mut().copy_from_slice(b"sk-plain");
    assert!(!format!("{slot:?} {arena:?}").contains("sk-plain"));
}

/// The arena at each tier that this kernel has; the lower one always.
fn tiers() -> Vec<Arena> {
    let mut found = vec![Arena::at(Tier::Locked, 8192).expect("a test may lock 8 KiB")];
    found.extend(Arena::at(Tier::MemfdSecret, 8192));
    found
}

/// The flags that `smaps` shows for the mapping at an address.
fn flags(at: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
    let mapping = smaps
        .split_inclusive('\n')
        .skip_while(|line| !line.starts_with(&format!("{at:08x}-")));
    let flags = mapping
        .filter_map(|line| line.strip_prefix("VmFlags:"))
        .next()
        .expect("the mapping is there");
    flags.split_whitespace().map(ToOwned::to_owned).collect()
}

#[test]
fn the_pages_are_locked_and_in_no_dump_at_either_tier() {
    for arena in tiers() {
        let flags = flags(arena.range().start);
        let has = |flag: &str| flags.iter().any(|one| one == flag);
        assert!(has("lo") && has("dd"), "{:?}: {flags:?}", arena.tier());
        // A child gets zeroes, or no such pages at all.
        let fork = match arena.tier() {
            Tier::Locked => "wf",
            Tier::MemfdSecret => "dc",
        };
        assert!(has(fork), "{:?}: {flags:?}", arena.tier());
    }
}

#[test]
fn a_page_on_either_side_cannot_be_touched() {
    for arena in tiers() {
        let range = arena.range();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("readable");
        let access = |at: usize| {
            let holds = |line: &&str| {
                let (start, end) = line.split(' ').next()?.split_once('-')?;
                let address = |text| usize::from_str_radix(text, 16).ok();
                Some(address(start)? <= at && at < address(end)?)
            };
            let line = maps.lines().find(|line| holds(line) == Some(true));
            line.and_then(|line| line.split(' ').nth(1)).unwrap_or("")
        };
        assert_eq!(&access(range.start)[..2], "rw");
        assert_eq!(&access(range.end - 1)[..2], "rw");
        assert_eq!(access(range.start - 1), "---p", "{:?}", arena.tier());
        assert_eq!(access(range.end), "---p", "{:?}", arena.tier());
    }
}

#[test]
fn a_forked_child_has_no_copy() {
    for arena in tiers() {
        let mut slot = arena.slot(64).expect("a slot");
        slot.expose_mut().fill(0xaa);
        let at = slot.expose().as_ptr();
        // SAFETY: the child makes system calls alone, on memory of its own, and ends without running destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // Read through the kernel: where the pages are missing that is an error and not a fault.
            let mut copy = [0xbbu8; 64];
            let (mut pipe, mut read) = ([0; 2], -1);
            // SAFETY: two descriptors of our own, buffers of these lengths; a bad source address is answered EFAULT.
            unsafe {
                libc::pipe(pipe.as_mut_ptr());
                if libc::write(pipe[1], at.cast(), 64) == 64 {
                    read = libc::read(pipe[0], copy.as_mut_ptr().cast(), 64);
                }
                let clean = read == -1 || copy.iter().all(|byte| *byte == 0);
                libc::_exit(i32::from(!clean));
            }
        }
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{:?}: the child saw the secret", arena.tier());
        assert!(
            slot.expose().iter().all(|byte| *byte == 0xaa),
            "the parent keeps it"
        );
    }
}

#[test]
fn a_tier_is_named_in_settings_as_in_logs() {
    for tier in [Tier::MemfdSecret, Tier::Locked] {
        assert_eq!(tier.name().parse(), Ok(tier));
    }
    assert_eq!("swap".parse::<Tier>(), Err(UnknownTier));
}
