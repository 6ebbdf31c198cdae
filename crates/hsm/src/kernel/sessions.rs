//! Agents' sessions: whose public key each id stands for, and the key derived for it while that lives in the token.
//!
//! Bounded. The least recently used session gives way; its agent then opens a new one, which costs one derivation.

use std::collections::HashMap;

use attest::gate::Admitted;
use custody::p256::Point;
use custody::rsa::RsaPublic;

/// Sessions kept. An agent has one; a node has tens of agents; each costs a session object in the token.
pub(crate) const SESSIONS_MAX: usize = 1024;

/// The public key that a session delivers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agent {
    /// `ecdh-kw`.
    Ec(Point),
    /// `rsa-oaep`.
    Rsa(RsaPublic),
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session<O> {
    pub(crate) agent: Agent,
    /// The object in the token and the epoch in which it was made; an older epoch means that it is gone.
    pub(crate) object: Option<(u64, O)>,
    /// To which process it was admitted, when there is a gate.
    pub(crate) admitted: Option<Admitted>,
    used: u64,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions<O> {
    table: HashMap<[u8; 16], Session<O>>,
    clock: u64,
    max: usize,
}

impl<O: Copy> Sessions<O> {
    pub(crate) fn new(max: usize) -> Sessions<O> {
        Sessions {
            table: HashMap::new(),
            clock: 0,
            max,
        }
    }

    /// Marks the session as used and returns it.
    pub(crate) fn touch(&mut self, id: &[u8; 16]) -> Option<&mut Session<O>> {
        self.clock += 1;
        let session = self.table.get_mut(id)?;
        session.used = self.clock;
        Some(session)
    }

    /// Adds a session; returns the object of the one that had to give way.
    pub(crate) fn insert(
        &mut self,
        id: [u8; 16],
        agent: Agent,
        object: (u64, O),
        admitted: Option<Admitted>,
    ) -> Option<(u64, O)> {
        self.clock += 1;
        let evicted = if self.table.len() >= self.max {
            self.evict()
        } else {
            None
        };
        self.table.insert(
            id,
            Session {
                agent,
                object: Some(object),
                admitted,
                used: self.clock,
            },
        );
        evicted
    }

    /// Forgets a session; returns its object.
    pub(crate) fn remove(&mut self, id: &[u8; 16]) -> Option<(u64, O)> {
        self.table.remove(id)?.object
    }

    fn evict(&mut self) -> Option<(u64, O)> {
        let oldest = self
            .table
            .iter()
            .min_by_key(|(_, session)| session.used)
            .map(|(id, _)| *id)?;
        self.remove(&oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody::SystemRandom;
    use custody::p256::KeyPair;

    #[test]
    fn the_least_recently_used_session_gives_way() {
        let agent = Agent::Ec(*KeyPair::generate(&mut SystemRandom::new()).public());
        let mut sessions = Sessions::new(2);
        assert!(
            sessions
                .insert([1; 16], agent.clone(), (0, 1), None)
                .is_none()
        );
        assert!(
            sessions
                .insert([2; 16], agent.clone(), (0, 2), None)
                .is_none()
        );
        assert!(sessions.touch(&[1; 16]).is_some());
        assert_eq!(sessions.insert([3; 16], agent, (0, 3), None), Some((0, 2)));
        assert!(sessions.touch(&[2; 16]).is_none());
        assert!(sessions.touch(&[1; 16]).is_some());
        assert_eq!(sessions.remove(&[3; 16]), Some((0, 3)));
    }
}
