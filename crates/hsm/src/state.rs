//! What a token remembers of the store: revision, digest and the versions it must never release again.
//!
//! Kept in a private data object on the token, so that neither the database nor the daemon can roll it back. The set only
//! grows: a daemon that was taken over cannot take a revocation back.

use crate::error::{ErrorClass, HsmError};
use crate::wire::{Revoked, State};

const MAGIC: &[u8; 4] = b"TTST";
const FORMAT: u8 = 1;

/// Largest encoded state. SoftHSM takes more, but the state travels in one frame, and real tokens keep less: the operator
/// hears of it here, by name, before a device error says nothing.
pub const STATE_MAX: usize = 48 * 1024;

/// The encoding kept on the token.
///
/// # Errors
/// [`ErrorClass::StateFull`] past [`STATE_MAX`].
pub fn encode(state: &State) -> Result<Vec<u8>, HsmError> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    out.extend_from_slice(&state.revision.to_be_bytes());
    out.extend_from_slice(&state.digest);
    for entry in &state.revoked {
        out.push(
            u8::try_from(entry.key_id.len())
                .expect("key ids have at most 128 bytes: checked by the parser"),
        );
        out.extend_from_slice(entry.key_id.as_bytes());
        out.extend_from_slice(&entry.version.to_be_bytes());
    }
    if out.len() > STATE_MAX {
        let text = format!(
            "the revoked set would take {} bytes on the token, {STATE_MAX} fit: destroy old keys and rekey the custodian",
            out.len()
        );
        return Err(HsmError::new(ErrorClass::StateFull, text));
    }
    Ok(out)
}

/// Parses what the token kept; `None` when it is no state of this format.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<State> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let (digest, mut rest) = rest.split_first_chunk::<32>()?;
    let mut revoked: Vec<Revoked> = Vec::new();
    while let Some((length, after)) = rest.split_first() {
        let (key_id, after) = after.split_at_checked(usize::from(*length))?;
        let (version, after) = after.split_first_chunk::<4>()?;
        let entry = Revoked {
            key_id: std::str::from_utf8(key_id).ok()?.to_owned(),
            version: u32::from_be_bytes(*version),
        };
        if revoked.last().is_some_and(|last| *last >= entry) {
            return None;
        }
        revoked.push(entry);
        rest = after;
    }
    Some(State {
        revision: u64::from_be_bytes(*revision),
        digest: *digest,
        revoked,
    })
}

/// The state after a write, or why the write is refused.
///
/// # Errors
/// [`ErrorClass::StateOlder`] for a lower revision, or the same revision with another digest.
pub fn advance(
    now: &State,
    revision: u64,
    digest: &[u8; 32],
    add: &[Revoked],
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
    let mut revoked = now.revoked.clone();
    revoked.extend_from_slice(add);
    revoked.sort();
    revoked.dedup();
    Ok(State {
        revision,
        digest: *digest,
        revoked,
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

    #[test]
    fn a_state_survives_and_a_changed_one_does_not() {
        let state = State {
            revision: 7,
            digest: [3; 32],
            revoked: vec![entry("a", 1), entry("a", 2), entry("b", 1)],
        };
        let bytes = encode(&state).expect("fits");
        assert_eq!(parse(&bytes), Some(state));
        for cut in [0, 4, 5, 44, bytes.len() - 1] {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        let empty = encode(&State::default()).expect("fits");
        assert_eq!(parse(&empty), Some(State::default()));
    }

    #[test]
    fn the_revision_rises_and_the_set_never_shrinks() {
        let first = advance(&State::default(), 1, &[1; 32], &[entry("b", 1)]).expect("rises");
        let second = advance(&first, 2, &[2; 32], &[entry("a", 1)]).expect("rises");
        assert_eq!(second.revoked, [entry("a", 1), entry("b", 1)]);
        assert_eq!(advance(&second, 2, &[2; 32], &[]), Ok(second.clone()));
        for (revision, digest) in [(1, [1; 32]), (2, [1; 32]), (0, [0; 32])] {
            assert_eq!(
                advance(&second, revision, &digest, &[]).map_err(|error| error.class),
                Err(ErrorClass::StateOlder)
            );
        }
    }

    #[test]
    fn a_set_that_does_not_fit_is_refused_by_name() {
        let revoked = (0..1000)
            .map(|at| entry(&format!("{at:0>100}"), 1))
            .collect();
        let error = encode(&State {
            revision: 1,
            digest: [0; 32],
            revoked,
        })
        .expect_err("too large");
        assert_eq!(error.class, ErrorClass::StateFull);
    }
}
