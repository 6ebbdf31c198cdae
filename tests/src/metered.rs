//! What an agent has counted, by its own metrics, held against what the test provider really served.

use std::ops::RangeInclusive;

use anyhow::{Context as _, ensure};

use crate::http;
use crate::stack::LoneAgent;
use crate::upstream::{Provider, Tokens};

/// How far an estimate may be from the truth, as a factor. A stream that the client leaves says no usage, so an agent
/// judges by what passed; texts of a few words, as in the stories, are the worst case for any rule of bytes per token.
const OUTPUT: RangeInclusive<f64> = 0.25..=6.0;

/// The same for the input, for which the whole body of a request stands: JSON around six words.
const INPUT: RangeInclusive<f64> = 0.25..=20.0;

/// Totals for one provider, over all its keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metered {
    /// `tacit_agent_tokens_total`, by kind.
    pub tokens: Tokens,
    /// `tacit_agent_estimated_requests_total`.
    pub estimated: u64,
}

impl Metered {
    /// As the agent says it now.
    pub fn read(agent: &LoneAgent, provider: Provider) -> anyhow::Result<Self> {
        let text = http::get(&format!("{}/metrics", agent.admin))?.text();
        let label = format!("provider=\"{}\"", provider.name());
        let sum = |name: &str, more: &str| -> anyhow::Result<u64> {
            let lines = text.lines().filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('{'))
                    && line.contains(&label)
                    && line.contains(more)
            });
            lines
                .map(|line| {
                    let value = line.rsplit(' ').next().unwrap_or_default();
                    value
                        .parse::<u64>()
                        .with_context(|| format!("no count: {line}"))
                })
                .sum()
        };
        let kind = |kind: &str| sum("tacit_agent_tokens_total", &format!("kind=\"{kind}\""));
        Ok(Metered {
            tokens: Tokens {
                input: kind("input")?,
                output: kind("output")?,
                cache_read: kind("cache_read")?,
                cache_write: kind("cache_write")?,
                reasoning: kind("reasoning")?,
            },
            estimated: sum("tacit_agent_estimated_requests_total", "")?,
        })
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Metered) -> Metered {
        Metered {
            tokens: self.tokens.since(&before.tokens),
            estimated: self.estimated - before.estimated,
        }
    }

    /// Every kind as the provider counted it, nothing estimated.
    pub fn is_exactly(&self, served: &Tokens) -> anyhow::Result<()> {
        ensure!(
            self.tokens == *served,
            "metered {self:?}\nserved {served:?}"
        );
        ensure!(self.estimated == 0, "estimates of complete calls: {self:?}");
        Ok(())
    }

    /// Output within a factor of what the provider counted.
    pub fn output_is_near(&self, served: &Tokens) -> anyhow::Result<()> {
        near("output", self.tokens.output, served.output, &OUTPUT)
    }

    /// Input within a factor of what the provider counted.
    pub fn input_is_near(&self, served: &Tokens) -> anyhow::Result<()> {
        near("input", self.tokens.input, served.input, &INPUT)
    }
}

fn near(kind: &str, metered: u64, served: u64, factor: &RangeInclusive<f64>) -> anyhow::Result<()> {
    let near = match served {
        0 => metered == 0,
        _ => factor.contains(&(metered as f64 / served as f64)),
    };
    ensure!(
        near,
        "{kind}: metered {metered} for {served}, beyond a factor of {factor:?}"
    );
    Ok(())
}
