//! What daemons say of a key, and what follows for leases that are held or on their way.

use std::collections::BTreeMap;

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
enum Asked {
    /// It was asked for in knowledge of the word, and the daemon that spoke it knows at least as much.
    Since,
    /// The word overtook it.
    Before,
}

impl Word {
    /// Whether a lease that is held may go on. A version that one daemon revokes is revoked; for the rest a daemon has a say in leases that
    /// its shares opened.
    pub(super) fn keeps(&self, lease: &Lease) -> bool {
        let ours = lease.revision_of(self.source).is_some();
        !self.revoked.contains(&lease.version) && (!ours || (self.usable && self.agrees(lease)))
    }

    /// Whether a lease that has just come was granted in knowledge of this. Revisions of different daemons cannot be compared: of the others'
    /// grants it says only which versions are revoked.
    ///
    /// A daemon that reads its configuration again may forbid a key, or change its terms, without a new revision. A grant that such a word
    /// overtook is asked for once more; one that was asked for since may differ from the word only because it is the newer of the two.
    fn admits(&self, lease: &Lease, asked: Asked) -> bool {
        let knows = lease.revision_of(self.source).is_none_or(|revision| {
            revision > self.revision
                || (revision == self.revision
                    && (asked == Asked::Since || (self.usable && self.agrees(lease))))
        });
        knows && !self.revoked.contains(&lease.version)
    }

    /// Whether the lease was granted on the terms in force.
    fn agrees(&self, lease: &Lease) -> bool {
        self.terms.is_none() || self.terms == lease.terms.digest
    }
}

/// The last word of each daemon about one key.
#[derive(Default)]
pub(super) struct Words {
    /// By daemon: the word, and how many there had been with it.
    last: BTreeMap<usize, (Word, u64)>,
    /// How many there were.
    heard: u64,
}

impl Words {
    pub(super) fn hear(&mut self, word: &Word) {
        self.heard += 1;
        self.last.insert(word.source, (word.clone(), self.heard));
    }

    /// How many there were until now.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether all daemons let in a lease that was asked for when `heard` words had been heard.
    pub(super) fn admit(&self, lease: &Lease, heard: u64) -> bool {
        self.last.values().all(|(word, at)| {
            let asked = if *at <= heard {
                Asked::Since
            } else {
                Asked::Before
            };
            word.admits(lease, asked)
        })
    }
}
