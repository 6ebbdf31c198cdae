//! The zero-token call of each provider, which proves that a key works without using it up.

use crate::{Api, Family, UpstreamFault};

/// A call that costs nothing and needs the key. Its target is Tacit's own and need not be an endpoint that apps may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: &'static str,
    /// Headers beside host, credential and length.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body; empty for `GET`.
    pub body: &'static [u8],
    api: Api,
}

/// What the answer says about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key works.
    Accepted,
    /// The key is good, but may not make this call.
    AcceptedNoScope,
    /// The key is wrong, expired, revoked or suspended.
    Refused,
    /// The answer says nothing about the key.
    Unclear,
}

impl Api {
    /// The zero-token call.
    pub fn probe(self) -> Probe {
        let (target, headers): (_, &[_]) = match self.family() {
            Family::Anthropic => ("/v1/models?limit=1", &[("anthropic-version", "2023-06-01")]),
            Family::Gemini => ("/v1beta/models?pageSize=1", &[]),
            _ => ("/v1/models", &[]),
        };
        Probe {
            method: "GET",
            target,
            headers,
            body: b"",
            api: self,
        }
    }
}

impl Probe {
    /// What an answer with this status and (bounded) body says about the key.
    pub fn verdict(&self, status: u16, body: &[u8]) -> Verdict {
        if (200..=299).contains(&status) {
            return Verdict::Accepted;
        }
        match self.api.classify(status, body) {
            UpstreamFault::AuthBad => Verdict::Refused,
            UpstreamFault::AuthScope => Verdict::AcceptedNoScope,
            _ => Verdict::Unclear,
        }
    }
}
