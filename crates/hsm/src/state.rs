//! What a token remembers of the store: revision, digest and the versions it must never release again.
//!
//! Kept in a private data object on the token, so that neither the database nor the daemon can roll it back. The set only
//! grows: a daemon that was taken over cannot take a revocation back.

use crate::error::{ErrorClass, HsmError};
use crate::revoked::{RevokedSet, Span};
use crate::wire::{Revoked, State};

const MAGIC: &[u8; 4] = b"TTST";
/// Spans of versions.
const FORMAT: u8 = 2;
/// Single versions: read, and written anew as spans with the next write.
const FORMAT_SINGLE: u8 = 1;
/// Magic, format, revision, digest.
const HEAD: usize = 4 + 1 + 8 + 32;

/// Largest encoded state. SoftHSM takes more, but the state travels in one frame, and real tokens keep less: the operator
/// hears of it here, by name, before a device error says nothing.
pub const STATE_MAX: usize = 48 * 1024;

impl State {
    /// How many bytes of [`STATE_MAX`] this takes on the token. Past that nothing more is remembered: warn well before.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        size(&self.revoked)
    }

    /// The same once these versions are revoked, too: whether a write would fit, before it is made.
    #[must_use]
    pub fn bytes_with(&self, revoked: &[Revoked]) -> usize {
        size(&self.revoked.union(&revoked.iter().cloned().collect()))
    }
}

fn size(revoked: &RevokedSet) -> usize {
    let spans = revoked.spans().iter();
    HEAD + spans.map(|span| 1 + span.key_id.len() + 8).sum::<usize>()
}

/// The encoding kept on the token.
///
/// # Errors
/// [`ErrorClass::StateFull`] past [`STATE_MAX`].
pub fn encode(state: &State) -> Result<Vec<u8>, HsmError> {
    let size = state.bytes_used();
    if size > STATE_MAX {
        let text = format!(
            "the revoked set would take {size} bytes on the token, {STATE_MAX} fit: destroy old keys and rekey the custodian"
        );
        return Err(HsmError::new(ErrorClass::StateFull, text));
    }
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    out.extend_from_slice(&state.revision.to_be_bytes());
    out.extend_from_slice(&state.digest);
    for span in state.revoked.spans() {
        out.push(
            u8::try_from(span.key_id.len())
                .expect("key ids have at most 128 bytes: checked by the parser"),
        );
        out.extend_from_slice(span.key_id.as_bytes());
        out.extend_from_slice(&span.first.to_be_bytes());
        out.extend_from_slice(&span.last.to_be_bytes());
    }
    Ok(out)
}

/// Parses what the token kept; `None` when it is no state of a format that this build knows.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<State> {
    let (format, rest) = bytes.strip_prefix(MAGIC)?.split_first()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let revoked = match *format {
        FORMAT => parse_spans(rest)?,
        FORMAT_SINGLE => parse_singles(rest)?,
        _ => return None,
    };
    Some(State {
        revision: u64::from_be_bytes(*revision),
        digest: *digest,
        revoked,
    })
}

fn parse_spans(mut rest: &[u8]) -> Option<RevokedSet> {
    let mut set = RevokedSet::default();
    while !rest.is_empty() {
        let (key_id, after) = parse_name(rest)?;
        let (first, after) = after.split_first_chunk::<4>()?;
        let (last, after) = after.split_first_chunk::<4>()?;
        let span = Span {
            key_id: key_id.to_owned(),
            first: u32::from_be_bytes(*first),
            last: u32::from_be_bytes(*last),
        };
        set.push(span).then_some(())?;
        rest = after;
    }
    Some(set)
}

fn parse_singles(mut rest: &[u8]) -> Option<RevokedSet> {
    let mut versions: Vec<Revoked> = Vec::new();
    while !rest.is_empty() {
        let (key_id, after) = parse_name(rest)?;
        let (version, after) = after.split_first_chunk::<4>()?;
        let entry = Revoked {
            key_id: key_id.to_owned(),
            version: u32::from_be_bytes(*version),
        };
        if versions.last().is_some_and(|last| *last >= entry) {
            return None;
        }
        versions.push(entry);
        rest = after;
    }
    Some(versions.into_iter().collect())
}

fn parse_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, after) = bytes.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(name).ok()?, after))
}

/// The state after a write, or why the write is refused.
///
/// # Errors
/// [`ErrorClass::StateOlder`] for a lower revision, or the same revision with another digest.
pub fn advance(
    now: &State,
    revision: u64,
    digest: &[u8; 32],
    add: &RevokedSet,
) -> Result<State, HsmError> {
    if revision < now.revision
        || (revision == now.revision && revision != 0 && *digest != now.digest)
    {
        let text = format!(
            "the token remembers store revision {}, this is {revision}: the store is older or another",
            now.revision
        );
        return Err(HsmError::new(ErrorClass::StateOlder, text));
    }
    Ok(State {
        revision,
        digest: *digest,
        revoked: now.revoked.union(add),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, version: u32) -> Revoked {
        Revoked {
            key_id: key.into(),
            version,
        }
    }

    fn set(entries: impl IntoIterator<Item = Revoked>) -> RevokedSet {
        entries.into_iter().collect()
    }

    #[test]
    fn a_state_survives_and_a_changed_one_does_not() {
        let state = State {
            revision: 7,
            digest: [3; 32],
            revoked: set([entry("a", 1), entry("a", 2), entry("a", 4), entry("b", 1)]),
        };
        let bytes = encode(&state).expect("fits");
        assert_eq!(bytes.len(), state.bytes_used());
        assert_eq!(parse(&bytes), Some(state));
        for cut in [0, 4, 5, 44, bytes.len() - 1] {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        let empty = encode(&State::default()).expect("fits");
        assert_eq!(parse(&empty), Some(State::default()));
    }

    #[test]
    fn a_state_that_an_earlier_release_wrote_is_read() {
        let mut bytes = b"TTST\x01\0\0\0\0\0\0\0\x09".to_vec();
        bytes.extend_from_slice(&[5; 32]);
        bytes.extend_from_slice(b"\x01a\0\0\0\x01\x01a\0\0\0\x02\x01b\0\0\0\x01");
        let state = parse(&bytes).expect("an old state");
        assert_eq!((state.revision, state.digest), (9, [5; 32]));
        assert_eq!(
            state.revoked,
            set([entry("a", 1), entry("a", 2), entry("b", 1)])
        );
        bytes[4] = 3;
        assert_eq!(parse(&bytes), None, "a newer one is not");
    }

    #[test]
    fn the_revision_rises_and_the_set_never_shrinks() {
        let first = advance(&State::default(), 1, &[1; 32], &set([entry("b", 1)])).expect("rises");
        let second = advance(&first, 2, &[2; 32], &set([entry("a", 1)])).expect("rises");
        assert_eq!(second.revoked, set([entry("a", 1), entry("b", 1)]));
        assert_eq!(advance(&second, 2, &[2; 32], &set([])), Ok(second.clone()));
        for (revision, digest) in [(1, [1; 32]), (2, [1; 32]), (0, [0; 32])] {
            assert_eq!(
                advance(&second, revision, &digest, &set([])).map_err(|error| error.class),
                Err(ErrorClass::StateOlder)
            );
        }
    }

    #[test]
    fn the_set_grows_per_key_and_says_how_full_it_is() {
        let versions = |count| (1..=count).map(|version| entry("openai-prod", version));
        let one = State {
            revoked: set(versions(1)),
            ..State::default()
        };
        let many = State {
            revoked: set(versions(10_000)),
            ..State::default()
        };
        assert_eq!(many.bytes_used(), one.bytes_used());
        let more: Vec<_> = versions(20_000).collect();
        assert_eq!(many.bytes_with(&more), many.bytes_used());
        assert_eq!(
            many.bytes_with(&[entry("b", 1)]),
            many.bytes_used() + 1 + 1 + 8
        );
    }

    #[test]
    fn a_set_that_does_not_fit_is_refused_by_name() {
        let revoked = (0..1000)
            .map(|at| entry(&format!("{at:0>100}"), 1))
            .collect();
        let full = State {
            revision: 1,
            digest: [0; 32],
            revoked,
        };
        assert!(full.bytes_used() > STATE_MAX);
        let error = encode(&full).expect_err("too large");
        assert_eq!(error.class, ErrorClass::StateFull);
    }

    #[test]
    fn whatever_fits_a_token_fits_a_frame() {
        use crate::wire::{Answer, write_answer};
        for length in [1, 20, 128] {
            let key = "k".repeat(length);
            let count = u32::try_from((STATE_MAX - HEAD) / (1 + length + 8)).expect("small");
            let state = State {
                // No two touch, so that each is a span of its own.
                revoked: set((0..count).map(|at| entry(&key, at * 2))),
                ..State::default()
            };
            assert!(encode(&state).is_ok(), "{length}");
            let mut out = Vec::new();
            write_answer(&mut out, 1, &Answer::State(state)).expect("fits the frame");
        }
    }
}
