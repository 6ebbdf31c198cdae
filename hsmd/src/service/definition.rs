//! What an operator says about a key, from the wire: decoded and checked before any room sees it.

use std::collections::BTreeMap;

use proto::v1::{Attribute as WireAttribute, KeyPolicy, SetKeyRequest, StringList};

use crate::definition::{Amendment, Definition, Edit};
use crate::refusal::{Code, Refusal};
use crate::terms::{self, Attribute, KeyTerms};

/// Entries of a list of names.
const NAMES_MAX: usize = 64;
/// A line of text for people.
const LINE_MAX_BYTES: usize = 1024;

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, text)
}

fn names(list: StringList) -> Result<Vec<String>, Refusal> {
    let fits = |name: &String| name == "*" || name.parse::<custody::KeyId>().is_ok();
    if list.values.len() <= NAMES_MAX && list.values.iter().all(fits) {
        return Ok(list.values);
    }
    Err(bad(
        "environments and teams are at most 64 names of letters, digits, '_', '-' and '.', or '*'",
    ))
}

fn permissions(list: StringList) -> Result<Vec<String>, Refusal> {
    Ok(terms::permissions(list.values)?)
}

fn models(list: StringList) -> Result<Vec<String>, Refusal> {
    Ok(terms::models(list.values)?)
}

fn attributes(given: Vec<WireAttribute>) -> Result<BTreeMap<Attribute, String>, Refusal> {
    let pairs = given.into_iter().map(|one| (one.name, one.value));
    Ok(terms::attributes(pairs)?)
}

/// One line for people.
pub(super) fn line(given: &str, what: &str) -> Result<String, Refusal> {
    if given.len() > LINE_MAX_BYTES || given.chars().any(char::is_control) {
        return Err(bad(format!("a {what} is one line of at most 1024 bytes")));
    }
    Ok(given.to_owned())
}

/// The definition of a new key.
pub(super) fn definition(given: Option<KeyPolicy>) -> Result<Definition, Refusal> {
    let given = given.unwrap_or_default();
    Ok(Definition {
        environments: given.environments.map(names).transpose()?,
        teams: given.teams.map(names).transpose()?,
        description: line(&given.description.unwrap_or_default(), "description")?,
        terms: KeyTerms {
            permissions: given.permissions.map(permissions).transpose()?,
            models: given.models.map(models).transpose()?,
            attributes: attributes(given.attributes)?,
        },
    })
}

/// The change of a definition.
pub(super) fn amendment(request: SetKeyRequest) -> Result<Amendment, Refusal> {
    let given = request.policy.unwrap_or_default();
    let edit = |list: Option<StringList>, check: fn(StringList) -> Result<Vec<String>, Refusal>| {
        let list = list.map(check).transpose()?;
        Ok::<_, Refusal>(list.map_or(Edit::Keep, Edit::To))
    };
    let pinned = attributes(given.attributes)?.into_iter();
    let mut amendment = Amendment {
        environments: edit(given.environments, names)?,
        teams: edit(given.teams, names)?,
        permissions: edit(given.permissions, permissions)?,
        models: edit(given.models, models)?,
        description: given
            .description
            .map(|text| line(&text, "description"))
            .transpose()?,
        attributes: pinned.map(|(name, value)| (name, Some(value))).collect(),
    };
    for name in &request.reset {
        reset(&mut amendment, name)?;
    }
    if amendment == Amendment::default() {
        return Err(bad("nothing to change was named"));
    }
    Ok(amendment)
}

/// Lets one name go back to where it was before anybody said anything.
fn reset(amendment: &mut Amendment, name: &str) -> Result<(), Refusal> {
    const BOTH: &str = "what is reset cannot be given a value by the same command";
    let list = match name {
        "environments" => &mut amendment.environments,
        "teams" => &mut amendment.teams,
        "permissions" => &mut amendment.permissions,
        "models" => &mut amendment.models,
        other => {
            let attribute = Attribute::find(other).ok_or_else(|| {
                bad("reset: environments, teams, permissions, models, or an attribute's name")
            })?;
            return match amendment.attributes.insert(attribute, None) {
                Some(Some(_)) => Err(bad(BOTH)),
                Some(None) | None => Ok(()),
            };
        }
    };
    match std::mem::replace(list, Edit::Reset) {
        Edit::To(_) => Err(bad(BOTH)),
        Edit::Keep | Edit::Reset => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn list(values: &[&str]) -> Option<StringList> {
        let values = values.iter().map(ToString::to_string).collect();
        Some(StringList { values })
    }

    fn request(policy: KeyPolicy, reset: &[&str]) -> SetKeyRequest {
        SetKeyRequest {
            key_id: "k".into(),
            policy: Some(policy),
            reset: reset.iter().map(ToString::to_string).collect(),
            no_wait: false,
        }
    }

    #[test]
    fn what_is_absent_takes_the_default_and_what_is_empty_is_empty() {
        let definition = definition(Some(KeyPolicy {
            models: list(&[]),
            ..KeyPolicy::default()
        }))
        .unwrap();
        assert_eq!(definition.terms.models, Some(Vec::new()));
        assert_eq!(definition.terms.permissions, None);
        assert!(super::definition(None).unwrap().terms.is_empty());
    }

    #[test]
    fn a_change_names_something_and_nothing_twice() {
        let chat = || KeyPolicy {
            permissions: list(&["chat"]),
            attributes: vec![WireAttribute {
                name: "project".into(),
                value: "p".into(),
            }],
            ..KeyPolicy::default()
        };
        let changed = amendment(request(chat(), &["models", "organization"])).unwrap();
        assert_eq!(changed.permissions, Edit::To(vec!["chat".into()]));
        assert_eq!(changed.models, Edit::Reset);
        assert_eq!(changed.environments, Edit::Keep);
        let expected = [
            (Attribute::Organization, None),
            (Attribute::Project, Some("p".to_owned())),
        ];
        assert_eq!(changed.attributes, expected.into());
        for (policy, reset) in [
            (KeyPolicy::default(), &[][..]),
            (chat(), &["permissions"]),
            (chat(), &["project"]),
            (chat(), &["description"]),
            (chat(), &["Models"]),
        ] {
            let refusal = amendment(request(policy, reset)).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{reset:?}");
        }
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_not_repeated() {
        let policy = KeyPolicy {
            attributes: vec![WireAttribute {
                name: "organization".into(),
                value: "sk-proj pasted".into(),
            }],
            ..KeyPolicy::default()
        };
        let refusal = definition(Some(policy)).unwrap_err();
        assert!(refusal.text.contains("organization") && !refusal.text.contains("pasted"));
    }
}
