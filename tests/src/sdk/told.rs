//! What a story says about tokens, in the test provider's own terms.

use anyhow::Context as _;
use serde_json::Value;

use crate::upstream::{Tally, Tokens};

/// The first part.
#[derive(Debug)]
pub struct Whole {
    /// The package that the story ran on.
    pub sdk: String,
    /// Its version.
    pub version: String,
    /// Calls with usage, by what the SDK was told.
    pub complete: Tally,
    /// How many calls ended with the SDK's own exception for a refusal.
    pub refused: u64,
}

/// The second part, by what the app counted itself.
#[derive(Debug)]
pub struct Broken {
    /// Streams that the app left.
    pub cancelled: Tally,
    /// Streams that failed.
    pub failed: Tally,
}

impl Whole {
    pub(super) fn read(line: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| {
            line[name]
                .as_str()
                .map(str::to_owned)
                .context("a text is missing")
        };
        Ok(Whole {
            sdk: text("sdk")?,
            version: text("version")?,
            complete: tally(&line["complete"])?,
            refused: number(&line["refused"])?,
        })
    }
}

impl Broken {
    pub(super) fn read(line: &Value) -> anyhow::Result<Self> {
        Ok(Broken {
            cancelled: tally(&line["cancelled"])?,
            failed: tally(&line["failed"])?,
        })
    }
}

fn tally(value: &Value) -> anyhow::Result<Tally> {
    let tokens = &value["tokens"];
    Ok(Tally {
        calls: number(&value["calls"])?,
        tokens: Tokens {
            input: number(&tokens["input"])?,
            output: number(&tokens["output"])?,
            cache_read: number(&tokens["cache_read"])?,
            cache_write: number(&tokens["cache_write"])?,
            reasoning: number(&tokens["reasoning"])?,
        },
    })
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value.as_u64().context("a number is missing")
}
