//! The set of versions that a token never releases again, as spans: it grows per key, not per version.
//!
//! A key that is rotated and revoked for years has its versions 1 to n in one span. Nothing is ever rounded: a version that
//! was not named is not in the set, so a gap stays a gap and costs a span.

use crate::wire::Revoked;

/// Neighbouring versions of one key, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The provider key's id.
    pub key_id: String,
    /// The first version.
    pub first: u32,
    /// The last version; not below the first.
    pub last: u32,
}

impl Span {
    /// Whether `next`, which does not come before, continues this span.
    fn reaches(&self, next: &Span) -> bool {
        self.key_id == next.key_id && next.first <= self.last.saturating_add(1)
    }
}

/// The set. Invariant: spans rise by key and version, and none touches the next, so that one set has one form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedSet(Vec<Span>);

impl RevokedSet {
    /// The spans in rising order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.0
    }

    /// Whether the set holds this version.
    #[must_use]
    pub fn contains(&self, key_id: &str, version: u32) -> bool {
        let after = self
            .0
            .partition_point(|span| (span.key_id.as_str(), span.first) <= (key_id, version));
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|span| span.key_id == key_id && version <= span.last)
    }

    /// The set with all that either holds.
    #[must_use]
    pub fn union(&self, other: &RevokedSet) -> RevokedSet {
        self.0.iter().chain(&other.0).cloned().collect()
    }

    /// Appends a span as it was read; `false` if that would not be the set's one form.
    pub(crate) fn push(&mut self, span: Span) -> bool {
        let in_order = self
            .0
            .last()
            .is_none_or(|last| *last < span && !last.reaches(&span));
        let fits = in_order && span.first <= span.last;
        if fits {
            self.0.push(span);
        }
        fits
    }
}

impl FromIterator<Span> for RevokedSet {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> RevokedSet {
        let mut spans: Vec<Span> = spans.into_iter().collect();
        spans.sort();
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.reaches(&span) => last.last = last.last.max(span.last),
                _ => joined.push(span),
            }
        }
        RevokedSet(joined)
    }
}

impl FromIterator<Revoked> for RevokedSet {
    fn from_iter<I: IntoIterator<Item = Revoked>>(versions: I) -> RevokedSet {
        let spans = versions.into_iter().map(|one| Span {
            key_id: one.key_id,
            first: one.version,
            last: one.version,
        });
        spans.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the plain set of pairs, in any order, with duplicates and at the ends of the range.
        #[test]
        fn it_holds_what_was_named_and_nothing_else(
            pairs in proptest::collection::vec(("[ab]", prop_oneof![0u32..12, (u32::MAX - 3)..=u32::MAX]), 0..30),
            split in 0usize..30,
        ) {
            let entry = |(key_id, version): &(String, u32)| Revoked { key_id: key_id.clone(), version: *version };
            let (one, two) = pairs.split_at(split.min(pairs.len()));
            let one: RevokedSet = one.iter().map(entry).collect();
            let two: RevokedSet = two.iter().map(entry).collect();
            let both: RevokedSet = pairs.iter().map(entry).collect();
            prop_assert_eq!(&one.union(&two), &both);
            for key in ["a", "b", "c"] {
                for version in (0..14).chain(u32::MAX - 5..=u32::MAX) {
                    let named = pairs.contains(&(key.to_owned(), version));
                    prop_assert_eq!(both.contains(key, version), named, "{} {}", key, version);
                }
            }
            let mut read = RevokedSet::default();
            prop_assert!(both.spans().iter().all(|span| read.push(span.clone())));
            prop_assert_eq!(read, both);
        }
    }

    #[test]
    fn only_the_one_form_is_read() {
        let span = |key_id: &str, first, last| Span {
            key_id: key_id.to_owned(),
            first,
            last,
        };
        for bad in [
            vec![span("a", 2, 1)],
            vec![span("a", 1, 2), span("a", 3, 4)],
            vec![span("a", 1, 5), span("a", 2, 3)],
            vec![span("b", 1, 1), span("a", 1, 1)],
            vec![span("a", 1, 1), span("a", 1, 1)],
        ] {
            let mut set = RevokedSet::default();
            assert!(!bad.iter().all(|span| set.push(span.clone())), "{bad:?}");
        }
    }
}
