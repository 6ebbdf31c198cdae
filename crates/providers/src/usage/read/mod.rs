//! The reports of usage, one file per family: their words, and what they mean in the normal form of [`Usage`].

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod openai;

use serde::Deserialize;

use super::Usage;
use crate::Shape;

/// What a report says, in the normal form. `None`: it could not be read, or says nothing.
pub(super) fn usage(shape: Shape, report: &[u8]) -> Option<Usage> {
    let usage = match shape {
        Shape::Silent => None,
        Shape::Anthropic => anthropic::read(report),
        Shape::BedrockConverse => bedrock::converse(report),
        Shape::BedrockInvoke => native(report),
        Shape::Cohere => cohere::read(report),
        Shape::Gemini => gemini::read(report),
        Shape::Openai => openai::read(report),
    };
    usage.filter(|usage| !usage.is_silent())
}

/// What Bedrock itself counted, at the end of a stream.
pub(super) fn bedrock_metrics(report: &[u8]) -> Option<Usage> {
    bedrock::metrics(report)
}

/// Bedrock passes each model's own words on: Nova's, those of OpenAI's and Mistral's models, Anthropic's.
fn native(report: &[u8]) -> Option<Usage> {
    let said = |usage: &Usage| usage.input.is_some() || usage.output.is_some();
    bedrock::converse(report).filter(said).or_else(|| {
        if memchr::memmem::find(report, b"\"prompt_tokens\"").is_some() {
            openai::read(report)
        } else {
            anthropic::read(report)
        }
    })
}

/// Reads an object. (Serde would take an array for one, too.)
fn parse<'a, T: Deserialize<'a>>(report: &'a [u8]) -> Option<T> {
    let report = report.starts_with(b"{").then_some(report)?;
    serde_json::from_slice(report).ok()
}

/// `of` without `part`: several APIs count cached input in the input. A part that is larger than the whole leaves nothing.
fn without(of: Option<u64>, part: Option<u64>) -> Option<u64> {
    Some(of?.saturating_sub(part.unwrap_or(0)))
}

/// The sum of what was said; `None` when nothing was.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}
