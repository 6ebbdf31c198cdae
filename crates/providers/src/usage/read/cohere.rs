//! Cohere's words: `usage` and `meta`, with what is billed apart from what was counted. The bill counts.

use serde::Deserialize;

use super::super::count::Count;
use super::{Usage, parse, sum, without};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    billed_units: Option<Units>,
    tokens: Option<Units>,
    cached_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Units {
    input_tokens: Count,
    output_tokens: Count,
    search_units: Count,
    image_tokens: Count,
}

pub(super) fn read(report: &[u8]) -> Option<Usage> {
    let report: Report = parse(report)?;
    let billed = report.billed_units.unwrap_or_default();
    let tokens = report.tokens.unwrap_or_default();
    // An embedding of a picture bills image tokens and no others.
    let all_input = sum(billed.input_tokens.0, billed.image_tokens.0).or(tokens.input_tokens.0);
    Some(Usage {
        input: without(all_input, report.cached_tokens.0),
        output: billed.output_tokens.0.or(tokens.output_tokens.0),
        cache_read: report.cached_tokens.0,
        image_input: billed.image_tokens.0,
        searches: billed.search_units.0,
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bill_wins_over_the_count() {
        let usage = read(
            br#"{"billed_units":{"input_tokens":5.0,"output_tokens":10.0},"tokens":{"input_tokens":71,"output_tokens":12},"cached_tokens":2}"#,
        )
        .unwrap();
        assert_eq!((usage.input, usage.output), (Some(3), Some(10)));
        assert_eq!(usage.cache_read, Some(2));
        let counted = read(br#"{"tokens":{"input_tokens":71,"output_tokens":12}}"#).unwrap();
        assert_eq!((counted.input, counted.output), (Some(71), Some(12)));
    }

    #[test]
    fn rerank_and_embed_bill_their_own_units() {
        let rerank =
            read(br#"{"api_version":{"version":"2"},"billed_units":{"search_units":1}}"#).unwrap();
        assert_eq!((rerank.searches, rerank.input), (Some(1), None));
        let picture = read(br#"{"billed_units":{"images":1,"image_tokens":258}}"#).unwrap();
        assert_eq!((picture.input, picture.image_input), (Some(258), Some(258)));
    }
}
