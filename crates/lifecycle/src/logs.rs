//! Logs, to standard error, as text for people or JSON for machines.
//!
//! The filter comes from the configuration, or from `TACIT_LOG`, which wins: the operator who sets it is looking for
//! something right now. The format of both is that of `tracing`: `info`, `warn,hsmd=debug`.
//!
//! Nothing here redacts. A line that would need it should not have been written: secrets are unprintable by type.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// The variable that overrides the configured filter.
pub const FILTER_VAR: &str = "TACIT_LOG";
/// What is logged when nobody says: every change of state and every refusal, nothing per successful request.
pub const FILTER_DEFAULT: &str = "info";

/// The shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Text, with colours on a terminal.
    #[default]
    Text,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// A logger is already there.
    #[error("a logger is already installed in this process")]
    AlreadyInstalled,
    /// The filter does not parse. The value is not shown: a variable may hold anything.
    #[error(
        "the log filter from {origin} is not one: write levels like `info` or `warn,hsmd=debug`"
    )]
    FilterInvalid {
        /// Where the filter came from.
        origin: &'static str,
    },
}

/// Installs the process's logger.
///
/// # Errors
/// A filter that does not parse, or a logger that is already there.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), LogsError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "logs are set up before any configuration is read"
    )]
    let overriding = std::env::var(FILTER_VAR).ok();
    let filter = choose(overriding.as_deref(), filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(format == Format::Text && stderr().is_terminal())
        .with_writer(BoxMakeWriter::new(stderr));
    let installed = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.try_init(),
    };
    installed.map_err(|_| LogsError::AlreadyInstalled)
}

/// The filter in force: the variable's, the file's, the default. An empty variable is none.
fn choose(variable: Option<&str>, file: Option<&str>) -> Result<EnvFilter, LogsError> {
    let (origin, text) = match (variable.filter(|v| !v.is_empty()), file) {
        (Some(text), _) => (FILTER_VAR, text),
        (None, Some(text)) => ("the configuration", text),
        (None, None) => ("the default", FILTER_DEFAULT),
    };
    EnvFilter::try_new(text).map_err(|_| LogsError::FilterInvalid { origin })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_variable_wins_over_the_file_and_the_file_over_the_default() {
        assert_eq!(
            choose(Some("warn"), Some("debug")).unwrap().to_string(),
            "warn"
        );
        assert_eq!(
            choose(Some(""), Some("debug")).unwrap().to_string(),
            "debug"
        );
        assert_eq!(choose(None, None).unwrap().to_string(), "info");
    }

    #[test]
    fn a_bad_filter_is_named_by_origin_and_never_quoted() {
        for (variable, file, origin) in [
            (Some("sk-secret=x=y"), None, FILTER_VAR),
            (None, Some("sk-secret=x=y"), "the configuration"),
        ] {
            let text = choose(variable, file).unwrap_err().to_string();
            assert!(text.contains(origin), "{text}");
            assert!(!text.contains("sk-secret"), "{text}");
        }
    }
}
