//! What daemons say of a key, and what follows for leases that are held or on their way.

use crate::keys::Lease;

/// What a daemon says of a key.
#[derive(Clone, Debug)]
pub struct Word {
    /// Which daemon.
    pub source: usize,
    /// Its store's revision: what it granted before that may be outdated.
    pub revision: u64,
    /// Whether this agent may use the key at all.
    pub usable: bool,
    /// Versions that must not be used any more, whichever daemon grants them.
    pub revoked: Vec<u32>,
}

impl Default for Word {
    /// Nothing was heard yet.
    fn default() -> Self {
        Self {
            source: 0,
            revision: 0,
            usable: true,
            revoked: Vec::new(),
        }
    }
}

impl Word {
    /// Whether a lease that is held may go on.
    pub(super) fn keeps(&self, lease: &Lease) -> bool {
        self.usable && !self.revoked.contains(&lease.version)
    }

    /// Whether a lease that has just come was granted in knowledge of this. Revisions of different daemons cannot be compared: of another
    /// daemon's grants those are refused that this word would have ended.
    pub(super) fn admits(&self, lease: &Lease) -> bool {
        if lease.source == self.source {
            lease.revision >= self.revision && !self.revoked.contains(&lease.version)
        } else {
            self.keeps(lease)
        }
    }
}
