//! Who may use a key and for what: the options that `key add` and `key set` share.

use clap::Args;
use providers::Permission;

/// The lists and attributes of a key's definition.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may use the key, and for what")]
pub(crate) struct Policy {
    /// An environment whose agents may use the key (repeatable; `*` for all, '' for none) [default: the daemon's]
    #[arg(long = "environment", value_name = "E")]
    pub(crate) environments: Vec<String>,
    /// A team whose agents may use the key (repeatable; `*` for all, '' for none) [default: the daemon's]
    #[arg(long = "team", value_name = "T")]
    pub(crate) teams: Vec<String>,
    /// What the key is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A kind of endpoint that the key is for: audio, batches, chat, embeddings, files, fine-tuning, images, models,
    /// moderation, realtime, responses, or `*` for all of them; ephemeral-keys and mcp are in no `*` (repeatable; ''
    /// for none) [default: the daemon's]
    #[arg(long = "permission", value_name = "P", value_parser = permission)]
    pub(crate) permissions: Vec<String>,
    /// A model that requests may name, exactly as they name it (repeatable; `*` for all, '' for none) [default: the
    /// daemon's]
    #[arg(long = "model", value_name = "M")]
    pub(crate) models: Vec<String>,
    /// Pin every request to this OpenAI organization
    #[arg(long, value_name = "ID")]
    pub(crate) organization: Option<String>,
    /// Pin every request to this project (OpenAI, Vertex)
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<String>,
    /// Pin every request to this location (Vertex)
    #[arg(long, value_name = "NAME")]
    pub(crate) location: Option<String>,
    /// Pin every request to this resource (Azure)
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
    /// Pin every request to this region (Bedrock)
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,
}

impl Policy {
    /// Attributes that were given, by the names of the contract.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let given = [
            ("organization", &self.organization),
            ("project", &self.project),
            ("location", &self.location),
            ("resource", &self.resource),
            ("region", &self.region),
        ];
        given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// Refused here, before a secret is asked for; the empty word stands for the empty list.
fn permission(word: &str) -> Result<String, String> {
    if !matches!(word, "" | "*") {
        let known = word.parse::<Permission>();
        known.map_err(|error| error.to_string())?;
    }
    Ok(word.to_owned())
}
