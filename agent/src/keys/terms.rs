//! What a key may be used for, as the daemon said with the lease: the agent keeps to it for as long as it uses the lease.
//!
//! Pure: words in, answers out. What is not understood never widens anything: an unknown permission allows nothing, and an attribute that is
//! unknown here, which would go unenforced, is refused together with its lease.

use std::collections::{BTreeMap, BTreeSet};

use providers::Permission;

/// Everything there is, in a list of permissions or models.
const ALL: &str = "*";

/// Permissions that `*` does not include: the first hands the app a credential with which it goes round us, the second has the provider call
/// servers of the app's choosing. By their words, so that this list does not depend on which of them the table already knows.
const MUST_BE_NAMED: [&str; 2] = ["ephemeral-keys", "mcp"];

/// Longest value of an attribute. The daemon checks more; this is what can safely stand in a header, whoever sent it.
const VALUE_MAX_BYTES: usize = 128;

/// SHA-256 by which the daemon tells terms apart.
pub type Digest = [u8; 32];

/// What a key may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which endpoints.
    pub permissions: Permissions,
    /// Which models.
    pub models: Models,
    /// What every request is pinned to.
    pub attributes: Attributes,
    /// As the daemon tells these terms from others; none when it said no terms.
    pub digest: Option<Digest>,
}

/// Why terms cannot be kept to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// Nothing here would enforce it.
    #[error("an attribute is pinned that this agent does not know; upgrade it")]
    UnknownAttribute,
    /// Which of the two is meant?
    #[error("an attribute is pinned twice")]
    AttributeTwice,
    /// It would have to be put into requests.
    #[error("an attribute's value cannot stand in a header")]
    AttributeValue,
    /// No SHA-256.
    #[error("the digest is not 32 bytes")]
    Digest,
}

impl Terms {
    /// The terms of daemons that say none, and of development keys: every model, and every permission that need not be named.
    pub fn open() -> Self {
        Self {
            permissions: Permissions::from_words([ALL]),
            models: Models::All,
            attributes: Attributes::default(),
            digest: None,
        }
    }

    /// Whether a request may go to an endpoint that needs this permission.
    pub fn allows_endpoint(&self, needed: Permission) -> bool {
        self.permissions.allow(needed)
    }

    /// Whether a request may name any model, or none.
    pub fn allows_every_model(&self) -> bool {
        self.models == Models::All
    }

    /// Whether a request may name this model: exactly as it stands there, case and all, since a provider may take any other spelling for
    /// another model. No entry but `*` alone has wildcards.
    pub fn allows_model(&self, model: &str) -> bool {
        self.models.allow(model)
    }
}

/// Endpoint permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<Permission>);

impl Permissions {
    /// From the daemon's words. One that is unknown, a newer daemon's, allows nothing here.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut allowed = BTreeSet::new();
        for word in words {
            if word == ALL {
                let named = |one: &Permission| MUST_BE_NAMED.contains(&one.name());
                allowed.extend(Permission::ALL.into_iter().filter(|one| !named(one)));
            } else {
                allowed.extend(word.parse::<Permission>());
            }
        }
        Self(allowed)
    }

    /// Whether this one is among them.
    pub fn allow(&self, needed: Permission) -> bool {
        self.0.contains(&needed)
    }
}

/// Models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    /// Every one, known or not.
    All,
    /// These, and no others.
    Only(BTreeSet<String>),
}

impl Models {
    /// From the daemon's list; an empty one allows none.
    pub fn from_names(names: impl IntoIterator<Item = String>) -> Self {
        let names: BTreeSet<String> = names.into_iter().collect();
        if names.contains(ALL) {
            Self::All
        } else {
            Self::Only(names)
        }
    }

    /// Whether this one is among them.
    pub fn allow(&self, model: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(model),
        }
    }
}

/// What a request can be pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    fn find(name: &str) -> Option<Self> {
        match name {
            "location" => Some(Self::Location),
            "organization" => Some(Self::Organization),
            "project" => Some(Self::Project),
            "region" => Some(Self::Region),
            "resource" => Some(Self::Resource),
            _ => None,
        }
    }
}

/// The attributes pinned to a key; their values can stand in a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<Attribute, String>);

impl Attributes {
    /// From the daemon's list of names and values.
    ///
    /// # Errors
    /// [`TermsError`], where a request could not be kept to what was meant.
    pub fn from_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, TermsError> {
        let mut pinned = BTreeMap::new();
        for (name, value) in pairs {
            let attribute = Attribute::find(&name).ok_or(TermsError::UnknownAttribute)?;
            let fits = (1..=VALUE_MAX_BYTES).contains(&value.len())
                && value.bytes().all(|byte| byte.is_ascii_graphic());
            if !fits {
                return Err(TermsError::AttributeValue);
            }
            if pinned.insert(attribute, value).is_some() {
                return Err(TermsError::AttributeTwice);
            }
        }
        Ok(Self(pinned))
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that this one is pinned to.
    pub fn find(&self, attribute: Attribute) -> Option<&str> {
        self.0.get(&attribute).map(String::as_str)
    }

    /// Vertex: where the model runs.
    pub fn location(&self) -> Option<&str> {
        self.find(Attribute::Location)
    }

    /// OpenAI: who pays.
    pub fn organization(&self) -> Option<&str> {
        self.find(Attribute::Organization)
    }

    /// OpenAI and Vertex: which project.
    pub fn project(&self) -> Option<&str> {
        self.find(Attribute::Project)
    }

    /// Bedrock: which region.
    pub fn region(&self) -> Option<&str> {
        self.find(Attribute::Region)
    }

    /// Azure: which resource.
    pub fn resource(&self) -> Option<&str> {
        self.find(Attribute::Resource)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pinned(pairs: &[(&str, &str)]) -> Result<Attributes, TermsError> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Attributes::from_pairs(pairs.iter().map(own))
    }

    #[test]
    fn a_star_allows_everything_but_what_must_be_named() {
        for permission in Permission::ALL {
            let named = MUST_BE_NAMED.contains(&permission.name());
            assert_eq!(
                Terms::open().allows_endpoint(permission),
                !named,
                "{permission:?}"
            );
            let both = Permissions::from_words([ALL, permission.name()]);
            assert!(both.allow(permission));
        }
        let open = Terms::open();
        assert!(!open.allows_endpoint(Permission::EphemeralKeys));
        assert!(open.allows_endpoint(Permission::Realtime));
    }

    #[test]
    fn a_word_allows_itself_and_an_unknown_one_nothing() {
        let some = Permissions::from_words(["chat", "telepathy", "Files", "**"]);
        for permission in Permission::ALL {
            assert_eq!(some.allow(permission), permission == Permission::Chat);
        }
        let none = Permissions::from_words([]);
        assert!(Permission::ALL.iter().all(|one| !none.allow(*one)));
    }

    #[test]
    fn a_model_is_allowed_by_its_exact_name() {
        let models = Models::from_names(["gpt-4o".to_owned(), "gpt-5*".to_owned()]);
        assert!(models.allow("gpt-4o"));
        for other in [
            "GPT-4o",
            "gpt-4",
            "gpt-4o-mini",
            "gpt-4o ",
            "gpt-5-pro",
            "",
            "*",
        ] {
            assert!(!models.allow(other), "{other:?}");
        }
        assert!(!Models::from_names([]).allow("gpt-4o"));
        assert!(Models::from_names(["gpt-4o".to_owned(), "*".to_owned()]).allow("anything"));
    }

    #[test]
    fn attributes_are_found_by_name_and_nothing_unenforceable_is_taken() {
        let both = pinned(&[("organization", "org-1"), ("project", "proj_1")]).unwrap();
        assert_eq!(both.organization(), Some("org-1"));
        assert_eq!(both.project(), Some("proj_1"));
        assert_eq!(
            (both.region(), both.location(), both.resource()),
            (None, None, None)
        );
        assert!(pinned(&[]).unwrap().is_empty());
        let long = "a".repeat(VALUE_MAX_BYTES + 1);
        for (pairs, error) in [
            (&[("zone", "a")][..], TermsError::UnknownAttribute),
            (&[("Project", "a")], TermsError::UnknownAttribute),
            (
                &[("project", "a"), ("project", "a")],
                TermsError::AttributeTwice,
            ),
            (&[("project", "a\r\nx: y")], TermsError::AttributeValue),
            (&[("project", "a b")], TermsError::AttributeValue),
            (&[("project", "")], TermsError::AttributeValue),
            (&[("project", &long)], TermsError::AttributeValue),
        ] {
            assert_eq!(pinned(pairs).unwrap_err(), error, "{pairs:?}");
        }
        assert!(pinned(&[("project", &long[1..])]).is_ok());
    }
}
