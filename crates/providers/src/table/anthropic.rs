//! Anthropic's Messages API, which several others also speak below a prefix of their own.

use super::Mount;
use crate::Permission as P;
use crate::Shape::Anthropic as Usage;
use crate::inspect::layout::{ANTHROPIC, ANTHROPIC_BATCH};
use crate::rule::{ANY, POST, READ, Rule};

pub(crate) const MOUNTS: &[Mount] = &[Mount::at("/v1/", &[MESSAGES, REST])];

/// What the copies have.
pub(crate) const MESSAGES: &[Rule] = &[
    Rule::new(POST, "messages", P::Chat)
        .json(&ANTHROPIC)
        .reports(Usage),
    Rule::new(POST, "messages/count_tokens", P::Chat).json(&ANTHROPIC),
];

const REST: &[Rule] = &[
    Rule::new(POST, "complete", P::Chat)
        .json(&ANTHROPIC)
        .reports(Usage),
    Rule::new(POST, "messages/batches", P::Batches).json(&ANTHROPIC_BATCH),
    Rule::new(ANY, "messages/batches/**", P::Batches),
    Rule::new(ANY, "files/**", P::Files),
    Rule::new(ANY, "skills/**", P::Files),
    Rule::new(READ, "models", P::Models),
    Rule::new(READ, "models/*", P::Models),
];
