//! Bedrock's words: Converse's `usage` (Nova says the same in its own body) and the counts at the end of an invoke stream. The kinds of
//! input are disjoint.

use std::borrow::Cow;

use serde::Deserialize;

use super::super::count::Count;
use super::{Usage, parse, sum};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Report<'a> {
    input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    cache_read_input_tokens: Count,
    cache_write_input_tokens: Count,
    /// Nova.
    cache_read_input_token_count: Count,
    cache_write_input_token_count: Count,
    #[serde(borrow)]
    cache_details: Option<Vec<Kept<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Kept<'a> {
    #[serde(borrow)]
    ttl: Cow<'a, str>,
    input_tokens: Count,
}

pub(super) fn converse(report: &[u8]) -> Option<Usage> {
    let report: Report<'_> = parse(report)?;
    let long = report
        .cache_details
        .iter()
        .flatten()
        .filter(|kept| kept.ttl.ends_with('h'))
        .fold(None, |all, kept| sum(all, kept.input_tokens.0));
    Some(Usage {
        input: report.input_tokens.0,
        output: report.output_tokens.0,
        cache_read: report
            .cache_read_input_tokens
            .0
            .or(report.cache_read_input_token_count.0),
        cache_write: report
            .cache_write_input_tokens
            .0
            .or(report.cache_write_input_token_count.0),
        cache_write_long: long,
        total: report.total_tokens.0,
        ..Usage::default()
    })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metrics {
    input_token_count: Count,
    output_token_count: Count,
    cache_read_input_token_count: Count,
    cache_write_input_token_count: Count,
}

pub(super) fn metrics(report: &[u8]) -> Option<Usage> {
    let report: Metrics = parse(report)?;
    Some(Usage {
        input: report.input_token_count.0,
        output: report.output_token_count.0,
        cache_read: report.cache_read_input_token_count.0,
        cache_write: report.cache_write_input_token_count.0,
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn converse_and_metrics_are_read() {
        let usage = converse(
            br#"{"inputTokens":12,"outputTokens":5,"totalTokens":1117,"cacheReadInputTokens":1000,"cacheWriteInputTokens":100,"cacheDetails":[{"ttl":"5m","inputTokens":30},{"ttl":"1h","inputTokens":70}]}"#,
        )
        .unwrap();
        assert_eq!((usage.input, usage.output), (Some(12), Some(5)));
        assert_eq!(usage.cache_read, Some(1000));
        assert_eq!(usage.cache_write, Some(100));
        assert_eq!(usage.cache_write_long, Some(70));
        let usage =
            metrics(br#"{"inputTokenCount":8,"outputTokenCount":0,"invocationLatency":900}"#)
                .unwrap();
        assert_eq!((usage.input, usage.output), (Some(8), Some(0)));
        assert_eq!(usage.cache_read, None);
    }
}
