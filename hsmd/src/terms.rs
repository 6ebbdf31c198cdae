//! What a key may be used for: endpoint permissions, models, and the attributes that its requests are pinned to.
//!
//! Pure: words in, the terms in force out. Nothing is judged per request here; agents are told with every lease and keep
//! to it. What an operator writes is checked once, at the edge: attributes end up in headers, paths and host names.

use std::collections::BTreeMap;

use providers::Permission;
use serde::{Deserialize, Serialize};

use crate::config::Defaults;
use crate::model::encode;

/// Entries of one list. Lists travel with every lease, whose message has 64 KiB: 64 models of [`MODEL_MAX_BYTES`] leave
/// three quarters of it to the shares.
const ENTRIES_MAX: usize = 64;
/// A model's name. Bedrock's inference-profile ARNs are the longest known, at 150 bytes.
const MODEL_MAX_BYTES: usize = 256;
/// An attribute's value. Cloud project ids, the longest, have 30 characters and may follow a domain.
const VALUE_MAX_BYTES: usize = 128;
/// Longest label of a host name.
const LABEL_MAX_BYTES: usize = 63;
/// Everything there is.
const ALL: &str = "*";

/// What a request can be pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// Vertex: where the model runs.
    Location,
    /// OpenAI: who pays.
    Organization,
    /// OpenAI and Vertex: which project.
    Project,
    /// Bedrock: which region.
    Region,
    /// Azure: which resource.
    Resource,
}

impl Attribute {
    /// Every attribute there is.
    pub const ALL: [Self; 5] = [
        Self::Location,
        Self::Organization,
        Self::Project,
        Self::Region,
        Self::Resource,
    ];

    /// The word used in definitions and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Region => "region",
            Self::Resource => "resource",
        }
    }

    /// Finds one by its word.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Whether `value` can be this attribute's: those that become part of a host name are labels of one.
    fn admits(self, value: &str) -> bool {
        let (max, marks) = match self {
            Self::Location | Self::Region | Self::Resource => (LABEL_MAX_BYTES, "-"),
            Self::Organization | Self::Project => (VALUE_MAX_BYTES, "-_.:"),
        };
        let fits = |letter: char| letter.is_ascii_alphanumeric() || marks.contains(letter);
        value.len() <= max
            && value.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && value.chars().all(fits)
    }
}

/// The attributes that keys of a provider can have.
fn attributes_of(provider: &str) -> &'static [Attribute] {
    match provider {
        "azure" => &[Attribute::Resource],
        "bedrock" => &[Attribute::Region],
        "openai" => &[Attribute::Organization, Attribute::Project],
        "vertex" => &[Attribute::Location, Attribute::Project],
        known if providers::find(known).is_some() => &[],
        // Of an operator's own provider only agent.toml knows the API; the agent refuses what that cannot be pinned to.
        _ => &Attribute::ALL,
    }
}

/// A rule that terms break. Never quotes what broke it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A word that is no permission.
    #[error("permissions: {0}, and '*' for all but ephemeral-keys and mcp")]
    Permission(#[from] providers::UnknownPermission),
    /// Too many entries.
    #[error("{0}: at most 64 entries")]
    TooMany(&'static str),
    /// No model's name.
    #[error(
        "models: a name has 1 to 256 visible ASCII characters, and is compared exactly: only '*' alone stands for others"
    )]
    Model,
    /// A word that is no attribute.
    #[error("attributes: known are location, organization, project, region and resource")]
    Attribute,
    /// An attribute that stands there twice.
    #[error("{0}: stands twice")]
    Twice(&'static str),
    /// A value that cannot be that attribute's.
    #[error(
        "{0}: begins with a letter or digit and has at most 128 of those, '-', '_', '.' and ':' (location, region and resource: at most 63, and no mark but '-')"
    )]
    Value(&'static str),
    /// The provider's API has nothing of the kind.
    #[error("{attribute}: keys of provider {provider} have no such attribute")]
    OtherProvider {
        /// Which attribute.
        attribute: &'static str,
        /// Whose keys.
        provider: String,
    },
}

/// Checks a list of permissions; in order, and each once.
///
/// # Errors
/// [`TermsError`].
pub fn permissions(mut words: Vec<String>) -> Result<Vec<String>, TermsError> {
    if words.len() > ENTRIES_MAX {
        return Err(TermsError::TooMany("permissions"));
    }
    for word in words.iter().filter(|word| *word != ALL) {
        word.parse::<Permission>()?;
    }
    words.sort();
    words.dedup();
    Ok(words)
}

/// Checks a list of models; in order, and each once.
///
/// # Errors
/// [`TermsError`].
pub fn models(mut names: Vec<String>) -> Result<Vec<String>, TermsError> {
    if names.len() > ENTRIES_MAX {
        return Err(TermsError::TooMany("models"));
    }
    // A wildcard that allows nothing would be found out by the first request that it refuses, at best.
    let fits = |name: &String| {
        name == ALL
            || (1..=MODEL_MAX_BYTES).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'*')
    };
    if !names.iter().all(fits) {
        return Err(TermsError::Model);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Checks attributes, whosever they are.
///
/// # Errors
/// [`TermsError`].
pub fn attributes(
    given: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<Attribute, String>, TermsError> {
    let mut checked = BTreeMap::new();
    for (name, value) in given {
        let attribute = Attribute::find(&name).ok_or(TermsError::Attribute)?;
        if !attribute.admits(&value) {
            return Err(TermsError::Value(attribute.name()));
        }
        if checked.insert(attribute, value).is_some() {
            return Err(TermsError::Twice(attribute.name()));
        }
    }
    Ok(checked)
}

/// Terms as a key's definition has them; a list that is left out takes `[defaults]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyTerms {
    /// Endpoint permissions; an empty list allows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Models; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// What requests are pinned to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<Attribute, String>,
}

impl KeyTerms {
    /// Whether the definition says nothing: its record is then as builds wrote it that knew no terms.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a key of that provider can have these attributes.
    ///
    /// # Errors
    /// [`TermsError::OtherProvider`].
    pub fn fit(&self, provider: &str) -> Result<(), TermsError> {
        let own = attributes_of(provider);
        match self.attributes.keys().find(|one| !own.contains(one)) {
            None => Ok(()),
            Some(other) => Err(TermsError::OtherProvider {
                attribute: other.name(),
                provider: provider.to_owned(),
            }),
        }
    }

    /// The permissions in force, in no order.
    pub fn permissions<'a>(&'a self, defaults: &'a Defaults) -> &'a [String] {
        self.permissions.as_ref().unwrap_or(&defaults.permissions)
    }

    /// The terms in force.
    pub fn in_force(&self, defaults: &Defaults) -> Terms {
        Terms {
            permissions: sorted(self.permissions(defaults)),
            models: sorted(self.models.as_ref().unwrap_or(&defaults.models)),
            attributes: self.attributes.clone(),
        }
    }
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list
}

/// Terms in force, defaults filled in; lists are in order and hold each entry once, so that equal terms look equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Endpoint permissions.
    pub permissions: Vec<String>,
    /// Models.
    pub models: Vec<String>,
    /// What requests are pinned to.
    pub attributes: BTreeMap<Attribute, String>,
}

impl Terms {
    /// What tells these terms from any others.
    pub fn digest(&self) -> [u8; 32] {
        custody::sha256(&encode(self))
    }

    /// As the wire has attributes.
    pub fn attributes(&self) -> Vec<proto::v1::Attribute> {
        let attribute = |(name, value): (&Attribute, &String)| proto::v1::Attribute {
            name: name.name().to_owned(),
            value: value.clone(),
        };
        self.attributes.iter().map(attribute).collect()
    }

    /// As agents are told.
    pub fn to_wire(&self) -> proto::v1::Terms {
        proto::v1::Terms {
            permissions: self.permissions.clone(),
            models: self.models.clone(),
            attributes: self.attributes(),
            digest: self.digest().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
