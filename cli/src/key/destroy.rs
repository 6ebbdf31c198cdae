//! `tacit key destroy`, with an honest text: what it deletes, and what it cannot reach.

use proto::v1::{DestroyKeyRequest, ShowKeyRequest};
use serde_json::json;

use super::show::summary_json;
use crate::Answer;
use crate::args::DestroyKey;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::output::{Output, clean};
use crate::terminal;

/// `tacit key destroy`.
pub(super) async fn run(options: DestroyKey, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let show = ShowKeyRequest {
        key_id: options.id.to_string(),
    };
    let known = unary(daemon.admin.show_key(show)).await?;
    let provider = clean(&known.key.map(|key| key.provider).unwrap_or_default());
    let what = match options.version {
        Some(version) => format!("version {version} of {}", options.id),
        None => format!("every version of {}", options.id),
    };
    if !options.yes {
        output.note(&warning(&what, &provider));
        terminal::confirm(&format!("Destroy {what}?"), "add --yes when you are sure")?;
    }
    let request = DestroyKeyRequest {
        key_id: options.id.to_string(),
        version: options.version.unwrap_or(0),
        reason: options.reason,
    };
    let response = unary(daemon.admin.destroy_key(request)).await?;
    let key = response.key.unwrap_or_default();
    let versions: Vec<_> = response
        .destroyed_versions
        .iter()
        .map(u32::to_string)
        .collect();
    let text = format!(
        "destroyed {} version {}\n{}",
        options.id,
        versions.join(", "),
        what_remains(&provider)
    );
    let json = json!({
        "key": summary_json(&key), "destroyed_versions": response.destroyed_versions,
        "remains": what_remains(&provider),
    });
    output.result(&text, &json);
    Ok(true)
}

fn warning(what: &str, provider: &str) -> String {
    format!(
        "This deletes {what} from the daemon's store and memory for good.\n{}",
        what_remains(provider)
    )
}

/// Deleting a row is not erasing the key from the world, and an operator must hear so.
fn what_remains(provider: &str) -> String {
    format!(
        "It does not reach: backups and snapshots of the store made before now (whoever has one and the tokens can \
         still open it: let them expire), sealed files and receipts that you kept, and {provider} itself, where the \
         key stays valid until you revoke it there."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_names_backups_and_the_providers_side() {
        let text = warning("version 1 of k", "openai");
        for part in [
            "version 1 of k",
            "backups",
            "openai itself",
            "revoke it there",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
