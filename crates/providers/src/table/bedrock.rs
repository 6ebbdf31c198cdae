//! Amazon Bedrock: the runtime, and Mantle, which speaks like OpenAI and Anthropic.
//!
//! `invoke-with-bidirectional-stream` is not listed: its frames are signed one by one, so that no proxy can put a key into them. The control
//! plane (`bedrock.{region}`) is another host.

use super::{Mount, anthropic, openai};
use crate::Permission as P;
use crate::Shape::{BedrockConverse, BedrockInvoke};
use crate::inspect::layout::{ASYNC_INVOKE, NATIVE};
use crate::rule::{Content, POST, READ, Rule};

pub(crate) const MOUNTS: &[Mount] = &[
    Mount::at("/openai/v1/", MANTLE),
    Mount::at("/v1/", MANTLE),
    Mount::at("/anthropic/v1/", &[anthropic::MESSAGES]),
    Mount::at("/", &[RUNTIME]),
];

const MANTLE: &[&[Rule]] = &[
    openai::ASKED_CHAT,
    openai::CHAT,
    openai::RESPONSES,
    openai::MODELS,
];

const BODY: Content = Content::Json(&NATIVE);

const RUNTIME: &[Rule] = &[
    Rule::new(POST, "model/{model}/converse", P::Chat)
        .segment(BODY)
        .reports(BedrockConverse),
    Rule::new(POST, "model/{model}/converse-stream", P::Chat)
        .segment(BODY)
        .reports(BedrockConverse),
    Rule::new(POST, "model/{model}/invoke", P::Chat)
        .segment(BODY)
        .reports(BedrockInvoke),
    Rule::new(POST, "model/{model}/invoke-with-response-stream", P::Chat)
        .segment(BODY)
        .reports(BedrockInvoke),
    Rule::new(POST, "model/{model}/count-tokens", P::Chat).segment(BODY),
    Rule::new(POST, "async-invoke", P::Images).json(&ASYNC_INVOKE),
    Rule::new(READ, "async-invoke", P::Images),
    Rule::new(READ, "async-invoke/{id}", P::Images),
    Rule::new(POST, "guardrail/{id}/version/*/apply", P::Moderation),
    Rule::new(READ, "foundation-models", P::Models),
    Rule::new(READ, "foundation-models/{id}", P::Models),
    Rule::new(READ, "inference-profiles", P::Models),
    Rule::new(READ, "inference-profiles/{id}", P::Models),
];
