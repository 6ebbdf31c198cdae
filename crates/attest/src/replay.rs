//! Tokens that were presented, and by whom: a token is good for one process at a time.
//!
//! A bearer token that leaked is good for whoever holds it until it expires. Where the kernel names the pod it is bound to that; where only
//! tokens are asked for, the first process that brings one keeps it. Another process gets it when the first has ended, and
//! then only of the same user: that is a container that was restarted. This memory begins anew with each process of ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::peer::Peer;
use crate::refused::Refused;

/// Tokens remembered: a node has at most some hundred pods, each with two tokens that overlap.
const TOKENS_MAX: usize = 4096;

#[derive(Debug)]
struct Bearer {
    peer: Arc<Peer>,
    expires: SystemTime,
}

/// The memory.
#[derive(Debug, Default)]
pub struct Bearers(HashMap<[u8; 32], Bearer>);

impl Bearers {
    /// Notes that this process presents the token of that identity, or refuses it.
    ///
    /// # Errors
    /// [`Refused::TokenReplayed`], [`Refused::TooMany`].
    pub fn bind(
        &mut self,
        token: [u8; 32],
        expires: SystemTime,
        peer: &Arc<Peer>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        if let Some(bearer) = self.0.get(&token) {
            let is_same = bearer.peer.process() == peer.process();
            let is_successor =
                bearer.peer.uid() == peer.uid() && bearer.peer.check_alive().is_err();
            if !is_same && !is_successor {
                return Err(Refused::TokenReplayed);
            }
        } else if self.0.len() >= TOKENS_MAX {
            self.0.retain(|_, bearer| bearer.expires > now);
            if self.0.len() >= TOKENS_MAX {
                return Err(Refused::TooMany);
            }
        }
        let bearer = Bearer {
            peer: Arc::clone(peer),
            expires,
        };
        self.0.insert(token, bearer);
        Ok(())
    }
}
