//! `tacit key list` and `tacit key show`.

use custody::KeyId;
use proto::v1::{KeySummary, KeyVersion, ListKeysRequest, ShowKeyRequest};
use serde_json::{Value, json};

use crate::Answer;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::output::{Output, age, fields, list as join, moment, now, table};

/// `tacit key list`.
pub(super) async fn list(paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let response = unary(daemon.admin.list_keys(ListKeysRequest {})).await?;
    let keys: Vec<_> = response.keys.iter().map(summary_json).collect();
    let text = if response.keys.is_empty() {
        "no keys; tacit key add ID --provider openai".to_owned()
    } else {
        render_list(&response.keys, now())
    };
    output.result(&text, &json!({"keys": keys, "revision": response.revision}));
    Ok(true)
}

/// `tacit key show`.
pub(super) async fn one(id: &KeyId, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let request = ShowKeyRequest {
        key_id: id.to_string(),
    };
    let response = unary(daemon.admin.show_key(request)).await?;
    let key = response.key.clone().unwrap_or_default();
    let versions: Vec<_> = response.versions.iter().map(version_json).collect();
    let text = render_one(&key, &response.versions, &response.usable_by);
    let json = json!({
        "key": summary_json(&key), "versions": versions, "usable_by": response.usable_by,
    });
    output.result(&text, &json);
    Ok(true)
}

fn render_list(keys: &[KeySummary], now: i64) -> String {
    let heads = [
        "KEY",
        "PROVIDER",
        "VERSION",
        "STATE",
        "LAST ACTION",
        "SCOPE",
        "AGE",
    ];
    let row = |key: &KeySummary| {
        vec![
            key.key_id.clone(),
            key.provider.clone(),
            match key.current_version {
                0 => "-".to_owned(),
                version => version.to_string(),
            },
            key.state.clone(),
            format!("{} {} ago", key.last_action, age(key.last_action_at, now)),
            scope(key),
            age(key.created_at, now),
        ]
    };
    table(&heads, &keys.iter().map(row).collect::<Vec<_>>())
}

/// Environments and teams; an empty list is nobody, and must not look like everybody.
fn scope(key: &KeySummary) -> String {
    let part = |values: &[String]| {
        if values.is_empty() {
            "nobody".to_owned()
        } else {
            values.join(",")
        }
    };
    format!("{} / {}", part(&key.environments), part(&key.teams))
}

/// What a key is for; an empty list is nothing, and what the daemon's `[defaults]` fill in may change with them.
fn terms(key: &KeySummary, name: &str, list: &[String]) -> String {
    let mut text = match list {
        [] => "none".to_owned(),
        list => join(list),
    };
    if key.defaulted.iter().any(|one| one == name) {
        text += " (default)";
    }
    text
}

fn pinned(key: &KeySummary) -> String {
    let pairs = key.attributes.iter();
    let pairs: Vec<_> = pairs
        .map(|one| format!("{} {}", one.name, one.value))
        .collect();
    match pairs.as_slice() {
        [] => "nothing".to_owned(),
        pairs => join(pairs),
    }
}

fn render_one(key: &KeySummary, versions: &[KeyVersion], usable_by: &[String]) -> String {
    let last_used = i64::try_from(key.last_used_ms / 1000).unwrap_or(i64::MAX);
    let mut text = fields(&[
        ("key", key.key_id.clone()),
        ("provider", key.provider.clone()),
        ("state", key.state.clone()),
        ("version in use", key.current_version.to_string()),
        ("scope", scope(key)),
        ("permissions", terms(key, "permissions", &key.permissions)),
        ("models", terms(key, "models", &key.models)),
        ("pinned to", pinned(key)),
        ("description", key.description.clone()),
        ("created", moment(key.created_at)),
        (
            "last action",
            format!("{} {}", key.last_action, moment(key.last_action_at)),
        ),
        ("last used", moment(last_used)),
    ]);
    for version in versions {
        text += &format!("\n\nversion {} ({})\n", version.version, version.state);
        text += &fields(&version_fields(version));
    }
    text += "\n\nusable by";
    for line in usable_by {
        text += &format!("\n  {}", crate::output::clean(line));
    }
    text
}

fn version_fields(version: &KeyVersion) -> Vec<(&'static str, String)> {
    let changed = format!(
        "{} {}",
        moment(version.state_changed_at),
        version.state_reason
    );
    let share = |custodian: &String| {
        if version.ingested.contains(custodian) {
            custodian.clone()
        } else if version.elsewhere.contains(custodian) {
            format!("{custodian} (another daemon's)")
        } else {
            format!("{custodian} (not ingested)")
        }
    };
    let custodians: Vec<_> = version.custodians.iter().map(share).collect();
    vec![
        ("  upstreams", join(&version.upstreams)),
        (
            "  custodians",
            format!("any {} of {}", version.threshold, join(&custodians)),
        ),
        ("  sealer", version.sealer.clone()),
        ("  sealed", moment(version.sealed_at)),
        ("  ingested", moment(version.ingested_at)),
        ("  state since", changed.trim_end().to_owned()),
        ("  generation", version.generation.to_string()),
        ("  header SHA-256", version.header_sha256.clone()),
        ("  envelope SHA-256", version.envelope_sha256.clone()),
    ]
}

/// A key for scripts; the names are those of the contract.
pub(super) fn summary_json(key: &KeySummary) -> Value {
    let attributes = key.attributes.iter();
    let attributes: serde_json::Map<_, _> = attributes
        .map(|one| (one.name.clone(), Value::from(one.value.as_str())))
        .collect();
    json!({
        "key_id": key.key_id, "provider": key.provider, "current_version": key.current_version,
        "state": key.state, "last_action": key.last_action, "last_action_at": key.last_action_at,
        "environments": key.environments, "teams": key.teams, "created_at": key.created_at,
        "description": key.description, "last_used_ms": key.last_used_ms,
        "permissions": key.permissions, "models": key.models, "attributes": attributes,
        "defaulted": key.defaulted,
    })
}

fn version_json(version: &KeyVersion) -> Value {
    json!({
        "version": version.version, "generation": version.generation, "state": version.state,
        "upstreams": version.upstreams, "threshold": version.threshold,
        "custodians": version.custodians, "ingested": version.ingested, "elsewhere": version.elsewhere, "sealer": version.sealer,
        "sealed_at": version.sealed_at, "ingested_at": version.ingested_at,
        "envelope_sha256": version.envelope_sha256, "header_sha256": version.header_sha256,
        "state_changed_at": version.state_changed_at, "state_reason": version.state_reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeySummary {
        KeySummary {
            key_id: "openai-prod".to_owned(),
            provider: "openai".to_owned(),
            current_version: 2,
            state: "active".to_owned(),
            last_action: "rotated".to_owned(),
            last_action_at: 1_000,
            environments: vec!["production".to_owned()],
            teams: vec!["*".to_owned()],
            created_at: 1,
            ..KeySummary::default()
        }
    }

    #[test]
    fn the_list_shows_provider_version_state_last_action_scope_and_age() {
        let text = render_list(&[key()], 4_601);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
            "KEY PROVIDER VERSION STATE LAST ACTION SCOPE AGE"
        );
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "openai-prod openai 2 active rotated 1h ago production / * 1h"
        );
    }

    #[test]
    fn an_empty_allow_list_reads_as_nobody() {
        let nobody = KeySummary {
            environments: Vec::new(),
            ..key()
        };
        assert_eq!(scope(&nobody), "nobody / *");
    }

    #[test]
    fn what_a_key_is_for_is_shown_and_what_comes_from_the_daemon_is_marked() {
        let of = |name: &str, value: &str| proto::v1::Attribute {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let own = KeySummary {
            permissions: vec!["chat".to_owned(), "files".to_owned()],
            models: Vec::new(),
            attributes: vec![of("organization", "org-1"), of("project", "proj_1")],
            defaulted: vec!["permissions".to_owned()],
            ..key()
        };
        let text = render_one(&own, &[], &[]);
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap_or_default()
                .split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(line("permissions"), "chat, files (default)");
        assert_eq!(line("models"), "none");
        assert_eq!(line("pinned to"), "to organization org-1, project proj_1");
        let json = summary_json(&own);
        assert_eq!(json["attributes"]["project"], "proj_1");
        assert_eq!(json["defaulted"], json!(["permissions"]));
        assert_eq!(json["models"], json!([]));
    }

    #[test]
    fn a_share_that_is_not_ingested_stands_out() {
        let version = KeyVersion {
            version: 1,
            threshold: 2,
            custodians: vec!["a".to_owned(), "b".to_owned()],
            ingested: vec!["a".to_owned()],
            ..KeyVersion::default()
        };
        let text = render_one(&key(), &[version], &["nobody: no agent".to_owned()]);
        assert!(text.contains("any 2 of a, b (not ingested)"), "{text}");
        assert!(text.contains("nobody: no agent"));
    }
}
