//! What daemons say of a key, and what follows for leases that are held or on their way.

use crate::keys::Lease;
use crate::keys::terms::Digest;

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
    /// The terms in force; none from a daemon that knows no terms.
    pub terms: Option<Digest>,
}

impl Default for Word {
    /// Nothing was heard yet.
    fn default() -> Self {
        Self {
            source: 0,
            revision: 0,
            usable: true,
            revoked: Vec::new(),
            terms: None,
        }
    }
}

/// Whether something was said of the key while a grant was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It was asked for in knowledge of the word, and the daemon that spoke it knows at least as much.
    Since,
    /// The word overtook it.
    Before,
}

impl Word {
    /// Whether a lease that is held may go on.
    pub(super) fn keeps(&self, lease: &Lease) -> bool {
        self.allows(lease) && self.agrees(lease)
    }

    /// Whether a lease that has just come was granted in knowledge of this. Revisions of different daemons cannot be compared, nor are their
    /// `[defaults]` the same: of another daemon's grants those are refused that this word forbids.
    ///
    /// A daemon that reads its configuration again may forbid a key, or change its terms, without a new revision. A grant that such a word
    /// overtook is asked for once more; one that was asked for since may differ from the word only because it is the newer of the two.
    pub(super) fn admits(&self, lease: &Lease, asked: Asked) -> bool {
        if lease.source != self.source {
            return self.allows(lease);
        }
        let knows = lease.revision > self.revision
            || (lease.revision == self.revision
                && (asked == Asked::Since || (self.usable && self.agrees(lease))));
        knows && !self.revoked.contains(&lease.version)
    }

    fn allows(&self, lease: &Lease) -> bool {
        self.usable && !self.revoked.contains(&lease.version)
    }

    /// Whether the lease was granted on the terms in force.
    fn agrees(&self, lease: &Lease) -> bool {
        self.terms.is_none() || self.terms == lease.terms.digest
    }
}
