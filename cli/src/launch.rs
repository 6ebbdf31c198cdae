//! `tacit run -- CMD`: the command with its SDKs pointed at the agent and placeholders for keys.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use custody::Origin;

use crate::Answer;
use crate::args::Run;
use crate::failure::Usage;
use crate::output::Output;

/// Stands where SDKs want a key; the agent strips it. It names itself in case it shows up anywhere.
const PLACEHOLDER: &str = "tacit-placeholder";

/// Becomes the command; comes back only when that fails.
pub(crate) fn run(options: &Run, output: &Output) -> Answer {
    let agent = check_agent(&options.agent)?;
    let Some((program, arguments)) = options.command.split_first() else {
        return Err(Usage("name a command: tacit run -- CMD".to_owned()).into());
    };
    output.progress(&format!(
        "SDKs of {} talk to {agent}",
        program.to_string_lossy()
    ));
    let mut command = Command::new(program);
    command.args(arguments).envs(variables(&agent));
    Err(command.exec()).with_context(|| format!("cannot start {}", program.to_string_lossy()))
}

/// The agent's address without a path; plain HTTP goes to loopback alone.
fn check_agent(text: &str) -> Result<String, Usage> {
    let origin: Origin = text
        .parse()
        .map_err(|rule| Usage(format!("--agent (or TACIT_AGENT): {rule}")))?;
    Ok(origin.to_string())
}

/// What the SDKs that read their base URL from the environment are told. A provider without a route gets the agent's refusal, rather than
/// a key of the app's own.
fn variables(agent: &str) -> Vec<(&'static str, String)> {
    let key = || PLACEHOLDER.to_owned();
    vec![
        ("OPENAI_BASE_URL", format!("{agent}/openai/v1")),
        ("OPENAI_API_KEY", key()),
        ("ANTHROPIC_BASE_URL", format!("{agent}/anthropic")),
        ("ANTHROPIC_API_KEY", key()),
        ("GOOGLE_GEMINI_BASE_URL", format!("{agent}/gemini")),
        ("GEMINI_API_KEY", key()),
        ("GOOGLE_API_KEY", key()),
        ("AZURE_OPENAI_ENDPOINT", format!("{agent}/azure")),
        ("AZURE_OPENAI_API_KEY", key()),
        ("CO_API_URL", format!("{agent}/cohere")),
        ("CO_API_KEY", key()),
        ("GROQ_BASE_URL", format!("{agent}/groq")),
        ("GROQ_API_KEY", key()),
        ("TOGETHER_BASE_URL", format!("{agent}/together")),
        ("TOGETHER_API_KEY", key()),
        ("FIREWORKS_BASE_URL", format!("{agent}/fireworks")),
        ("FIREWORKS_API_KEY", key()),
        ("PERPLEXITY_BASE_URL", format!("{agent}/perplexity")),
        ("PERPLEXITY_API_KEY", key()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_those_of_the_agent() {
        let agent = check_agent("http://127.0.0.1:4100/").expect("accepted");
        let all = variables(&agent);
        let of = |name| {
            all.iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(
            of("OPENAI_BASE_URL"),
            Some("http://127.0.0.1:4100/openai/v1")
        );
        assert_eq!(
            of("ANTHROPIC_BASE_URL"),
            Some("http://127.0.0.1:4100/anthropic")
        );
        assert_eq!(of("OPENAI_API_KEY"), Some(PLACEHOLDER));
    }

    #[test]
    fn an_agent_in_the_clear_beyond_this_machine_is_refused() {
        assert!(check_agent("http://agent.example:4100").is_err());
        assert!(check_agent("http://127.0.0.1:4100/openai").is_err());
    }
}
