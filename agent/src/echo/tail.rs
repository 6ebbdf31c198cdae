//! The end of what has come, kept for as long as it may be the beginning of a key: wiped wherever it shrinks, moves or ends.

use zeroize::{Zeroize as _, Zeroizing};

/// Room for the first bytes: most tails are shorter.
const ROOM_MIN: usize = 256;
/// Room that is not kept once the tail is empty.
const ROOM_MAX: usize = 4 * 1024;

/// Bytes that may belong to a key.
#[derive(Default)]
pub(super) struct Tail(Zeroizing<Vec<u8>>);

impl Tail {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends `more`. A vector that grows by itself would leave its old bytes behind.
    pub(super) fn extend(&mut self, more: &[u8]) {
        let length = self.0.len() + more.len();
        if length > self.0.capacity() {
            let room = length.max(2 * self.0.capacity()).max(ROOM_MIN);
            let mut grown = Zeroizing::new(Vec::with_capacity(room));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(more);
    }

    /// Forgets the first `count` bytes.
    pub(super) fn forget(&mut self, count: usize) {
        let left = self.0.len() - count;
        if left == 0 {
            return self.clear();
        }
        self.0.copy_within(count.., 0);
        self.0[left..].zeroize();
        self.0.truncate(left);
    }

    pub(super) fn clear(&mut self) {
        if self.0.capacity() > ROOM_MAX {
            *self = Self::default();
        } else {
            self.0.zeroize();
        }
    }
}
