//! What is said of a key beside its material: who may use it and for what. Given with the first version, changed after.
//!
//! A change of it needs no token but for the MACs of the record; what is sealed (provider and origins) cannot be changed
//! here, whoever asks.

use std::collections::BTreeMap;

use crate::audit::{Category, Event};
use crate::daemon::Daemon;
use crate::keys::{Done, commit, find, key_record};
use crate::ledger::Change;
use crate::model::KeyBody;
use crate::refusal::{Code, Refusal};
use crate::terms::{Attribute, KeyTerms, TermsError};

impl From<TermsError> for Refusal {
    fn from(error: TermsError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

/// A definition as given with a new key; `None` takes the defaults of hsmd.toml.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// Environments.
    pub environments: Option<Vec<String>>,
    /// Teams.
    pub teams: Option<Vec<String>>,
    /// For people.
    pub description: String,
    /// What the key may be used for.
    pub terms: KeyTerms,
}

impl Definition {
    /// For the audit log: what was said.
    pub fn describe(&self) -> String {
        let edit = |list: &Option<Vec<String>>| list.clone().map_or(Edit::Keep, Edit::To);
        let attributes = self.terms.attributes.iter();
        let said = Amendment {
            environments: edit(&self.environments),
            teams: edit(&self.teams),
            permissions: edit(&self.terms.permissions),
            models: edit(&self.terms.models),
            description: None,
            attributes: attributes
                .map(|(attribute, value)| (*attribute, Some(value.clone())))
                .collect(),
        };
        said.describe()
    }
}

/// What becomes of one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Edit {
    /// It stays.
    #[default]
    Keep,
    /// The defaults of hsmd.toml hold again.
    Reset,
    /// It becomes this.
    To(Vec<String>),
}

impl Edit {
    fn apply(&self, list: &mut Option<Vec<String>>) {
        match self {
            Self::Keep => {}
            Self::Reset => *list = None,
            Self::To(new) => *list = Some(new.clone()),
        }
    }

    fn describe(&self, name: &str) -> Option<String> {
        match self {
            Self::Keep => None,
            Self::Reset => Some(format!("{name} as [defaults]")),
            Self::To(list) => Some(format!("{name} [{}]", list.join(", "))),
        }
    }
}

/// A change of a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amendment {
    /// Environments.
    pub environments: Edit,
    /// Teams.
    pub teams: Edit,
    /// Endpoint permissions.
    pub permissions: Edit,
    /// Models.
    pub models: Edit,
    /// For people.
    pub description: Option<String>,
    /// Attributes to pin, and (`None`) to let go.
    pub attributes: BTreeMap<Attribute, Option<String>>,
}

impl Amendment {
    /// The definition as it becomes.
    ///
    /// # Errors
    /// [`TermsError`] when the provider has no such attribute.
    pub fn apply(&self, body: &KeyBody) -> Result<KeyBody, TermsError> {
        let mut next = body.clone();
        self.environments.apply(&mut next.environments);
        self.teams.apply(&mut next.teams);
        self.permissions.apply(&mut next.terms.permissions);
        self.models.apply(&mut next.terms.models);
        if let Some(description) = &self.description {
            next.description.clone_from(description);
        }
        for (attribute, value) in &self.attributes {
            match value {
                Some(value) => next.terms.attributes.insert(*attribute, value.clone()),
                None => next.terms.attributes.remove(attribute),
            };
        }
        next.terms.fit(&next.provider)?;
        Ok(next)
    }

    /// For the audit log: what was asked for.
    pub fn describe(&self) -> String {
        let lists = [
            self.environments.describe("environments"),
            self.teams.describe("teams"),
            self.permissions.describe("permissions"),
            self.models.describe("models"),
        ];
        let attributes = self.attributes.iter().map(|(attribute, value)| {
            let name = attribute.name();
            value
                .as_ref()
                .map_or_else(|| format!("no {name}"), |value| format!("{name} {value}"))
        });
        let description = self.description.as_ref().map(|_| "description".to_owned());
        let parts: Vec<String> = lists
            .into_iter()
            .flatten()
            .chain(attributes)
            .chain(description)
            .collect();
        parts.join("; ")
    }
}

/// Changes who may use a key and for what. What is so already is no change, and no error.
///
/// # Errors
/// [`Refusal`]; nothing was changed then.
pub async fn set(
    daemon: &Daemon,
    actor: &str,
    key_id: &str,
    amendment: &Amendment,
) -> Result<Done, Refusal> {
    let view = daemon.ledger()?.view();
    let key = find(&view, key_id)?;
    if amendment.apply(&key.body)? == key.body {
        let affected = daemon.agents.affected_by_terms(key_id, &[], view.revision);
        return Ok(Done {
            view,
            key_id: key_id.to_owned(),
            affected,
            missing: Vec::new(),
        });
    }
    let versions: Vec<u32> = key.versions.keys().copied().collect();
    let event = Event::new(Category::Policy, "key.set", "ok", actor)
        .key(key_id)
        .detail(amendment.describe());
    let (agents, key) = (std::sync::Arc::clone(&daemon.agents), key_id.to_owned());
    let affected = move |revision| agents.affected_by_terms(&key, &versions, revision);
    let change = |view: &crate::ledger::View| {
        let body = amendment.apply(&find(view, key_id)?.body)?;
        Ok(Change {
            put: vec![key_record(key_id, body, "changed")],
            remove: Vec::new(),
        })
    };
    let (view, affected) = commit(daemon, event, affected, change).await?;
    Ok(Done {
        view,
        key_id: key_id.to_owned(),
        affected,
        missing: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn body() -> KeyBody {
        KeyBody {
            provider: "openai".into(),
            environments: Some(vec!["production".into()]),
            teams: None,
            description: "d".into(),
            created_at: 1,
            current: 2,
            last_action: "added".into(),
            last_action_at: 3,
            terms: KeyTerms {
                models: Some(vec!["gpt-4o".into()]),
                attributes: [(Attribute::Project, "proj_1".to_owned())].into(),
                ..KeyTerms::default()
            },
        }
    }

    #[test]
    fn an_amendment_changes_what_it_names_and_nothing_else() {
        let before = body();
        assert_eq!(Amendment::default().apply(&before).unwrap(), before);
        let amendment = Amendment {
            environments: Edit::Reset,
            permissions: Edit::To(Vec::new()),
            models: Edit::To(vec!["*".into()]),
            attributes: [
                (Attribute::Organization, Some("org-1".to_owned())),
                (Attribute::Project, None),
            ]
            .into(),
            ..Amendment::default()
        };
        let after = amendment.apply(&before).unwrap();
        let expected = KeyBody {
            environments: None,
            terms: KeyTerms {
                permissions: Some(Vec::new()),
                models: Some(vec!["*".into()]),
                attributes: [(Attribute::Organization, "org-1".to_owned())].into(),
            },
            ..before
        };
        assert_eq!(after, expected);
        assert_eq!(amendment.apply(&after).unwrap(), after);
        assert_eq!(
            amendment.describe(),
            "environments as [defaults]; permissions []; models [*]; organization org-1; no project"
        );
    }

    #[test]
    fn a_definition_is_told_as_it_was_said() {
        let definition = Definition {
            teams: Some(vec!["data".into()]),
            description: "d".into(),
            terms: body().terms,
            ..Definition::default()
        };
        assert_eq!(
            definition.describe(),
            "teams [data]; models [gpt-4o]; project proj_1"
        );
        assert_eq!(Definition::default().describe(), "");
    }

    #[test]
    fn an_attribute_of_another_provider_is_not_pinned() {
        let amendment = Amendment {
            attributes: [(Attribute::Region, Some("us-east-1".to_owned()))].into(),
            ..Amendment::default()
        };
        assert!(matches!(
            amendment.apply(&body()),
            Err(TermsError::OtherProvider {
                attribute: "region",
                ..
            })
        ));
        let bedrock = KeyBody {
            provider: "bedrock".into(),
            terms: KeyTerms::default(),
            ..body()
        };
        assert!(amendment.apply(&bedrock).is_ok());
    }
}
