//! Who may use a key and for what, from options to the daemon's message; and `tacit key set`, which changes it.

use proto::v1::{Attribute, KeyPolicy, SetKeyRequest, StringList};

use super::change::{follow, start};
use crate::Answer;
use crate::args::{Policy, SetKey};
use crate::client;
use crate::config::Paths;
use crate::failure::Usage;
use crate::output::Output;

/// `tacit key set`.
pub(super) async fn set(options: SetKey, paths: &Paths, output: &Output) -> Answer {
    let policy = to_wire(&options.policy);
    if policy == KeyPolicy::default() && options.reset.is_empty() {
        let text = "name what to change: --permission, --model, --environment, --team, --description, an attribute such \
                    as --project, or --reset";
        return Err(Usage(text.to_owned()).into());
    }
    let mut daemon = client::connect(&paths.socket).await?;
    let request = SetKeyRequest {
        key_id: options.id.to_string(),
        policy: Some(policy),
        reset: options.reset,
        no_wait: options.no_wait,
    };
    let stream = start(daemon.admin.set_key(request)).await?;
    follow(stream, "changed", options.no_wait, output).await
}

/// A list that was not given stays absent: the daemon's `[defaults]` decide (or nothing changes), and an empty one would
/// mean nobody.
pub(super) fn to_wire(policy: &Policy) -> KeyPolicy {
    let attribute = |(name, value): (&str, &str)| Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    KeyPolicy {
        environments: given(&policy.environments),
        teams: given(&policy.teams),
        description: policy.description.clone(),
        permissions: given(&policy.permissions),
        models: given(&policy.models),
        attributes: policy.attributes().map(attribute).collect(),
    }
}

/// `''` alone is the empty list. Beside other values it is one that the daemon refuses.
fn given(values: &[String]) -> Option<StringList> {
    let values = match values {
        [] => return None,
        [none] if none.is_empty() => Vec::new(),
        values => values.to_vec(),
    };
    Some(StringList { values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_absent_and_the_empty_word_is_the_empty_list() {
        let list = |values: &[&str]| -> Option<Vec<String>> {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            given(&values).map(|list| list.values)
        };
        assert_eq!(list(&[]), None);
        assert_eq!(list(&[""]), Some(Vec::new()));
        assert_eq!(
            list(&["a", "b"]),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(list(&["a", ""]).map(|list| list.len()), Some(2));
    }
}
