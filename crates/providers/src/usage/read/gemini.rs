//! Google's words: `usageMetadata` of generateContent, embeddings and Live, and `usage` of the Interactions API.
//!
//! Cached input is part of the prompt, what tools put into the prompt is not; thoughts are outside of the candidates and billed as output.
//! Protocol buffers leave a zero out when they become JSON, so what is missing beside a total is worked out from it.

use std::borrow::Cow;

use serde::Deserialize;

use super::super::count::Count;
use super::{Usage, parse, sum, without};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Report<'a> {
    prompt_token_count: Count,
    tool_use_prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    /// Live.
    response_token_count: Count,
    thoughts_token_count: Count,
    total_token_count: Count,
    #[serde(borrow)]
    prompt_tokens_details: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    candidates_tokens_details: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    response_tokens_details: Option<Vec<Part<'a>>>,
    #[serde(rename = "total_input_tokens")]
    total_input_tokens: Count,
    #[serde(rename = "total_output_tokens")]
    total_output_tokens: Count,
    #[serde(rename = "total_cached_tokens")]
    total_cached_tokens: Count,
    #[serde(rename = "total_thought_tokens")]
    total_thought_tokens: Count,
    #[serde(rename = "total_tool_use_tokens")]
    total_tool_use_tokens: Count,
    #[serde(rename = "total_tokens")]
    total_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    modality: Cow<'a, str>,
    token_count: Count,
}

pub(super) fn read(report: &[u8]) -> Option<Usage> {
    let report: Report<'_> = parse(report)?;
    let prompt = report.prompt_token_count.0.or(report.total_input_tokens.0);
    let tools = report
        .tool_use_prompt_token_count
        .0
        .or(report.total_tool_use_tokens.0);
    let cached = report
        .cached_content_token_count
        .0
        .or(report.total_cached_tokens.0);
    let thoughts = report
        .thoughts_token_count
        .0
        .or(report.total_thought_tokens.0);
    let written = report
        .candidates_token_count
        .0
        .or(report.response_token_count.0)
        .or(report.total_output_tokens.0);
    let total = report.total_token_count.0.or(report.total_tokens.0);
    let output = match (sum(written, thoughts), total, written) {
        // Only the total tells a zero from a number that nobody gave.
        (_, Some(total), None) => {
            prompt.map(|prompt| total.saturating_sub(prompt.saturating_add(tools.unwrap_or(0))))
        }
        (output, _, _) => output,
    };
    let of = |parts: &Option<Vec<Part<'_>>>, modality: &str| {
        parts
            .iter()
            .flatten()
            .filter(|part| part.modality == modality)
            .fold(None, |all, part| sum(all, part.token_count.0))
    };
    let out = |modality: &str| {
        of(&report.candidates_tokens_details, modality)
            .or_else(|| of(&report.response_tokens_details, modality))
    };
    Some(Usage {
        input: without(sum(prompt, tools), cached),
        output,
        cache_read: cached,
        reasoning: thoughts,
        total,
        audio_input: of(&report.prompt_tokens_details, "AUDIO"),
        audio_output: out("AUDIO"),
        image_input: of(&report.prompt_tokens_details, "IMAGE"),
        image_output: out("IMAGE"),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn thoughts_and_tools_are_added_and_the_cache_is_taken_out() {
        let usage = read(
            br#"{"promptTokenCount":100,"toolUsePromptTokenCount":7,"cachedContentTokenCount":60,"candidatesTokenCount":20,"thoughtsTokenCount":30,"totalTokenCount":157,"promptTokensDetails":[{"modality":"TEXT","tokenCount":80},{"modality":"AUDIO","tokenCount":20}]}"#,
        )
        .unwrap();
        assert_eq!(usage.input, Some(47));
        assert_eq!(usage.cache_read, Some(60));
        assert_eq!(usage.output, Some(50));
        assert_eq!(usage.reasoning, Some(30));
        assert_eq!(usage.audio_input, Some(20));
        assert_eq!(usage.image_input, None);
    }

    #[test]
    fn a_zero_that_was_left_out_is_found_in_the_total() {
        let quiet = read(br#"{"promptTokenCount":9,"totalTokenCount":9}"#).unwrap();
        assert_eq!(quiet.output, Some(0));
        let thinking =
            read(br#"{"promptTokenCount":9,"thoughtsTokenCount":4,"totalTokenCount":13}"#).unwrap();
        assert_eq!(thinking.output, Some(4));
        let unknown = read(br#"{"promptTokenCount":9}"#).unwrap();
        assert_eq!(unknown.output, None);
    }

    #[test]
    fn live_and_interactions_have_words_of_their_own() {
        let live = read(
            br#"{"promptTokenCount":143,"responseTokenCount":19,"totalTokenCount":162,"responseTokensDetails":[{"modality":"AUDIO","tokenCount":19}]}"#,
        )
        .unwrap();
        assert_eq!((live.input, live.output), (Some(143), Some(19)));
        assert_eq!(live.audio_output, Some(19));
        let interaction = read(
            br#"{"total_input_tokens":7,"total_cached_tokens":2,"total_output_tokens":20,"total_thought_tokens":22,"total_tool_use_tokens":0,"total_tokens":49}"#,
        )
        .unwrap();
        assert_eq!(interaction.input, Some(5));
        assert_eq!(interaction.output, Some(42));
        assert_eq!(interaction.cache_read, Some(2));
    }
}
