//! Capabilities: all of them gone, in every set, but the few that a plan argues for.

use caps::{CapSet, Capability, CapsHashSet};

use crate::report::{Finding, Measure, State};

/// Empties the ambient and bounding sets and leaves `keep`, of what the process has, in the others.
pub(crate) fn drop_all_but(keep: &[Capability]) -> Finding {
    match reduce(keep) {
        Ok(detail) => Finding::new(Measure::Capabilities, State::On, detail),
        Err(error) => {
            let why = State::Refused(format!("capset: {error}"));
            Finding::new(Measure::Capabilities, why, "")
        }
    }
}

fn reduce(keep: &[Capability]) -> Result<String, caps::errors::CapsError> {
    // Kernels before 4.3 have no ambient set, and then nothing in it.
    let _ = caps::clear(None, CapSet::Ambient);
    let mut bounded = true;
    for one in caps::read(None, CapSet::Bounding)? {
        bounded &= caps::drop(None, CapSet::Bounding, one).is_ok();
    }
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = keep
        .iter()
        .copied()
        .filter(|one| had.contains(one))
        .collect();
    // The permitted set last: it bounds the effective one, and lowering it first would be refused. A set that is as it
    // should be is left alone: a unit's own filter may deny capset, which then has nothing to do.
    for (set, wanted) in [
        (CapSet::Inheritable, &CapsHashSet::new()),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
    ] {
        if caps::read(None, set)? != *wanted {
            caps::set(None, set, wanted)?;
        }
    }
    let mut detail = match kept.len() {
        0 => "none left".to_owned(),
        _ => {
            let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
            names.sort();
            format!("left: {}", names.join(", "))
        }
    };
    if !bounded {
        // Not root: the bounding set cannot be lowered without CAP_SETPCAP. It matters at an execve that gives
        // privileges, and PR_SET_NO_NEW_PRIVS has ended those.
        detail += "; bounding set as it was, which no_new_privs makes idle";
    }
    Ok(detail)
}
