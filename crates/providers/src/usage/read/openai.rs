//! OpenAI's words, and those of everybody who copied them: `prompt_tokens` of chat and embeddings, `input_tokens` of Responses, images,
//! transcription and Realtime; Mistral's, DeepSeek's, xAI's, OpenRouter's and Perplexity's additions.
//!
//! Cached input is part of the input here. Reasoning is part of the output, except where arithmetic shows that it is not.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::count::{Count, decimal, picousd};
use super::{Usage, parse, sum, without};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Report<'a> {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<Parts>,
    /// Mistral, now and then.
    prompt_token_details: Option<Parts>,
    input_tokens_details: Option<Parts>,
    /// Realtime and transcription.
    input_token_details: Option<Parts>,
    completion_tokens_details: Option<Parts>,
    output_tokens_details: Option<Parts>,
    output_token_details: Option<Parts>,
    /// Mistral.
    num_cached_tokens: Count,
    prompt_audio_seconds: Count,
    /// DeepSeek; with the misses it makes up `prompt_tokens`.
    prompt_cache_hit_tokens: Count,
    /// Perplexity.
    reasoning_tokens: Count,
    num_search_queries: Count,
    /// OpenRouter: a number; Perplexity: an object.
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    cost_details: Option<CostDetails<'a>>,
    is_byok: Option<bool>,
    /// xAI: 1e-10 USD.
    cost_in_usd_ticks: Count,
    /// Transcription that is billed by length.
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_write_tokens_details: Option<Kept>,
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    ttl_12h_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CostDetails<'a> {
    #[serde(borrow)]
    upstream_inference_cost: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Total<'a> {
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
}

/// 1e-10 USD in 1e-12 USD.
const PICOUSD_PER_TICK: u64 = 100;

pub(super) fn read(report: &[u8]) -> Option<Usage> {
    let report: Report<'_> = parse(report)?;
    let (cost, seconds) = (report.cost(), report.milliseconds());
    let all_input = report.prompt_tokens.0.or(report.input_tokens.0);
    let completion = report.completion_tokens.0.or(report.output_tokens.0);
    let input = report
        .prompt_tokens_details
        .or(report.prompt_token_details)
        .or(report.input_tokens_details)
        .or(report.input_token_details)
        .unwrap_or_default();
    let output = report
        .completion_tokens_details
        .or(report.output_tokens_details)
        .or(report.output_token_details)
        .unwrap_or_default();
    let cache_read = input
        .cached_tokens
        .0
        .or(report.num_cached_tokens.0)
        .or(report.prompt_cache_hit_tokens.0);
    let cache_write = input.cache_write_tokens.0;
    let reasoning = output.reasoning_tokens.0.or(report.reasoning_tokens.0);
    let total = report.total_tokens.0;
    let missing = reasoning.filter(|count| is_apart(all_input, completion, *count, total));
    Some(Usage {
        input: without(all_input, sum(cache_read, cache_write)),
        output: sum(completion, missing),
        cache_read,
        cache_write,
        cache_write_long: input
            .cache_write_tokens_details
            .and_then(|kept| kept.ttl_12h_tokens.0),
        reasoning,
        total,
        audio_input: input.audio_tokens.0,
        audio_output: output.audio_tokens.0,
        image_input: input.image_tokens.0,
        image_output: output.image_tokens.0,
        audio_ms: seconds,
        searches: report.num_search_queries.0,
        cost_picousd: cost,
        model: None,
    })
}

/// Whether `reasoning` is not counted in `completion` (xAI's chat, Perplexity's research, some gateways): the total includes it on its own, or it is the larger.
fn is_apart(
    input: Option<u64>,
    completion: Option<u64>,
    reasoning: u64,
    total: Option<u64>,
) -> bool {
    let (Some(input), Some(completion)) = (input, completion) else {
        return false;
    };
    let all = input.saturating_add(completion).saturating_add(reasoning);
    reasoning > completion || (reasoning > 0 && total == Some(all))
}

impl Report<'_> {
    fn cost(&self) -> Option<u64> {
        if let Some(ticks) = self.cost_in_usd_ticks.0 {
            return Some(ticks.saturating_mul(PICOUSD_PER_TICK));
        }
        let cost = self.cost?.get();
        if cost.starts_with('{') {
            let total: Total<'_> = parse(cost.as_bytes())?;
            return picousd(total.total_cost?.get());
        }
        // With the customer's own upstream key, `cost` is OpenRouter's fee alone; the upstream bills the rest to the same customer.
        let upstream = match (&self.cost_details, self.is_byok) {
            (Some(details), Some(true)) => details
                .upstream_inference_cost
                .and_then(|cost| picousd(cost.get())),
            _ => None,
        };
        sum(picousd(cost), upstream)
    }

    fn milliseconds(&self) -> Option<u64> {
        let whole = self.prompt_audio_seconds.0.map(|s| s.saturating_mul(1000));
        self.seconds
            .and_then(|seconds| decimal(seconds.get(), 3))
            .or(whole)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Input, cache read, cache write, output, reasoning.
    type Row = (
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
    );

    #[test]
    fn every_copy_of_the_api_says_it_in_its_own_words() {
        let cases: [(&str, &str, Row); 13] = [
            (
                "chat",
                r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":40,"cache_write_tokens":10},"completion_tokens_details":{"reasoning_tokens":5}}"#,
                (Some(50), Some(40), Some(10), Some(20), Some(5)),
            ),
            (
                "chat without details; a copy writes null",
                r#"{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7,"prompt_tokens_details":null}"#,
                (Some(7), None, None, Some(0), None),
            ),
            (
                "responses",
                r#"{"input_tokens":30,"input_tokens_details":{"cached_tokens":0},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":39}"#,
                (Some(30), Some(0), None, Some(9), Some(4)),
            ),
            (
                "embeddings",
                r#"{"prompt_tokens":8,"total_tokens":8}"#,
                (Some(8), None, None, None, None),
            ),
            (
                "mistral",
                r#"{"prompt_tokens":50,"completion_tokens":2,"total_tokens":52,"num_cached_tokens":32,"prompt_audio_seconds":{}}"#,
                (Some(18), Some(32), None, Some(2), None),
            ),
            (
                "mistral, other spelling",
                r#"{"prompt_tokens":50,"completion_tokens":2,"num_cached_tokens":16,"prompt_token_details":{"cached_tokens":16}}"#,
                (Some(34), Some(16), None, Some(2), None),
            ),
            (
                "deepseek",
                r#"{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110,"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":6}}"#,
                (Some(36), Some(64), None, Some(10), Some(6)),
            ),
            (
                "deepseek, older",
                r#"{"prompt_tokens":100,"completion_tokens":10,"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36}"#,
                (Some(36), Some(64), None, Some(10), None),
            ),
            (
                "xai, reasoning outside of the completion",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":18,"completion_tokens_details":{"reasoning_tokens":3}}"#,
                (Some(10), None, None, Some(8), Some(3)),
            ),
            (
                "the same numbers with reasoning inside",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":3}}"#,
                (Some(10), None, None, Some(5), Some(3)),
            ),
            (
                "more reasoning than completion, no total",
                r#"{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}"#,
                (Some(10), None, None, Some(11), Some(6)),
            ),
            (
                "perplexity",
                r#"{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,"num_search_queries":18,"reasoning_tokens":73997}"#,
                (Some(33), None, None, Some(81160), Some(73997)),
            ),
            (
                "more cached than there is",
                r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":40}}"#,
                (Some(0), Some(40), None, Some(1), None),
            ),
        ];
        for (name, report, wanted) in cases {
            let usage = read(report.as_bytes()).unwrap();
            let got = (
                usage.input,
                usage.cache_read,
                usage.cache_write,
                usage.output,
                usage.reasoning,
            );
            assert_eq!(got, wanted, "{name}");
        }
    }

    #[test]
    fn the_providers_own_price_is_read_exactly() {
        let cases = [
            (r#"{"prompt_tokens":1,"cost":0.00014}"#, Some(140_000_000)),
            (
                r#"{"prompt_tokens":1,"cost":0.0000001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.000002}}"#,
                Some(2_100_000),
            ),
            (
                r#"{"prompt_tokens":1,"cost":0.0000001,"is_byok":false,"cost_details":{"upstream_inference_cost":0.000002}}"#,
                Some(100_000),
            ),
            (
                r#"{"prompt_tokens":1,"cost":{"input_tokens_cost":0.001,"total_cost":0.006}}"#,
                Some(6_000_000_000),
            ),
            (
                r#"{"prompt_tokens":1,"cost_in_usd_ticks":37756000}"#,
                Some(3_775_600_000),
            ),
            (r#"{"prompt_tokens":1,"cost":0}"#, Some(0)),
            (r#"{"prompt_tokens":1,"cost":null}"#, None),
            (r#"{"prompt_tokens":1,"cost":{}}"#, None),
            (r#"{"prompt_tokens":1}"#, None),
        ];
        for (report, wanted) in cases {
            assert_eq!(
                read(report.as_bytes()).unwrap().cost_picousd,
                wanted,
                "{report}"
            );
        }
    }

    #[test]
    fn audio_pictures_and_seconds_are_told_apart() {
        let realtime = read(
            br#"{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":64,"audio_tokens":0}},"output_token_details":{"text_tokens":30,"audio_tokens":91}}"#,
        )
        .unwrap();
        assert_eq!((realtime.input, realtime.cache_read), (Some(68), Some(64)));
        assert_eq!(realtime.audio_input, Some(13));
        assert_eq!(realtime.audio_output, Some(91));
        assert_eq!(realtime.image_input, Some(0));
        let image = read(
            br#"{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}"#,
        )
        .unwrap();
        assert_eq!(image.image_input, Some(40));
        let whisper = read(br#"{"type":"duration","seconds":9.5}"#).unwrap();
        assert_eq!((whisper.audio_ms, whisper.input), (Some(9500), None));
        let voxtral = read(br#"{"prompt_audio_seconds":203,"prompt_tokens":4}"#).unwrap();
        assert_eq!(voxtral.audio_ms, Some(203_000));
    }
}
