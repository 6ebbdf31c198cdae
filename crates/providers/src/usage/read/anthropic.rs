//! Anthropic's words. The kinds of input are disjoint already; `output_tokens` includes thinking.

use serde::Deserialize;

use super::super::count::Count;
use super::{Usage, parse};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Option<Creation>,
    output_tokens_details: Option<Details>,
    server_tool_use: Option<ServerTools>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Creation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    reasoning_tokens: Count,
    thinking_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
}

pub(super) fn read(report: &[u8]) -> Option<Usage> {
    let report: Report = parse(report)?;
    let creation = report.cache_creation.unwrap_or_default();
    let details = report.output_tokens_details.unwrap_or_default();
    let long = creation.ephemeral_1h_input_tokens.0;
    Some(Usage {
        input: report.input_tokens.0,
        output: report.output_tokens.0,
        cache_read: report.cache_read_input_tokens.0,
        cache_write: report
            .cache_creation_input_tokens
            .0
            .or(super::sum(creation.ephemeral_5m_input_tokens.0, long)),
        cache_write_long: long,
        reasoning: details.thinking_tokens.0.or(details.reasoning_tokens.0),
        searches: report
            .server_tool_use
            .and_then(|tools| tools.web_search_requests.0),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kinds_of_input_stay_apart() {
        let usage = read(
            br#"{"input_tokens":10,"cache_creation_input_tokens":300,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens":42,"service_tier":"standard","server_tool_use":{"web_search_requests":3}}"#,
        )
        .unwrap();
        assert_eq!(usage.input, Some(10));
        assert_eq!(usage.cache_write, Some(300));
        assert_eq!(usage.cache_write_long, Some(200));
        assert_eq!(usage.cache_read, Some(2000));
        assert_eq!(usage.output, Some(42));
        assert_eq!(usage.searches, Some(3));
    }

    #[test]
    fn zero_is_said_and_null_is_not() {
        let usage = read(
            br#"{"input_tokens":0,"cache_read_input_tokens":null,"output_tokens":1,"server_tool_use":null}"#,
        )
        .unwrap();
        assert_eq!(usage.input, Some(0));
        assert_eq!(usage.cache_read, None);
        assert_eq!(usage.cache_write, None);
    }
}
