//! `tacit key add`: seal here, submit there, say who can use the key now, and have those try it who are connected.

use custody::{SealedKey, Trust, sha256};
use proto::v1::{AddKeyRequest, AddKeyResponse};
use serde_json::json;

use super::consent::{self, Typed};
use super::policy;
use super::seal::{self, Order, WrittenReceipt};
use super::show::summary_json;
use super::try_key;
use crate::Answer;
use crate::args::AddKey;
use crate::client::{self, Daemon, unary};
use crate::config::Paths;
use crate::failure::Usage;
use crate::output::{Output, clean, list};
use crate::trust;

/// `tacit key add`.
pub(super) async fn run(options: AddKey, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let mut daemon = client::connect(&paths.socket).await?;
    let (sealed, receipt) = match &options.sealed {
        Some(path) => (
            seal::read_sealed(path, &trust, &options.id, output)?,
            WrittenReceipt::none(),
        ),
        None => seal_now(&options, &trust, &mut daemon, paths, output).await?,
    };
    let request = AddKeyRequest {
        sealed: sealed.encode(),
        policy: Some(policy::to_wire(&options.policy)),
        allow_missing: options.allow_missing,
    };
    match unary(daemon.admin.add_key(request)).await {
        Ok(response) => {
            tell(&response, &sealed, output);
            if !options.no_test {
                try_key::after_add(&mut daemon, &options.id, output).await;
            }
            Ok(true)
        }
        Err(refusal) => {
            if refusal.is_definite() {
                receipt.take_back();
            }
            Err(refusal.into())
        }
    }
}

async fn seal_now(
    options: &AddKey,
    trust: &Trust,
    daemon: &mut Daemon,
    paths: &Paths,
    output: &Output,
) -> anyhow::Result<(SealedKey, WrittenReceipt)> {
    let status = daemon.status().await?;
    trust::check_presented(trust, &status)?;
    seal::check_whole(&status, &options.id)?;
    let provider = options
        .provider
        .as_ref()
        .ok_or_else(|| Usage("--provider is missing".to_owned()))?;
    let asked = &options.material.upstreams;
    let order = Order {
        key_id: options.id.clone(),
        version: 1,
        provider: provider.to_string(),
        upstreams: seal::upstreams(provider.as_str(), asked, &status.default_upstreams)?,
    };
    let typed = Typed {
        provider: true,
        upstreams: !asked.is_empty(),
    };
    consent::settle(&order, typed, paths, output)?;
    seal::seal(&order, &options.material, trust, paths, output)
}

fn tell(response: &AddKeyResponse, sealed: &SealedKey, output: &Output) {
    let key = response.key.clone().unwrap_or_default();
    let mut text = clean(&format!(
        "added {} version {} ({}), {}",
        key.key_id, key.current_version, key.provider, key.state
    ));
    if !response.missing_custodians.is_empty() {
        text += &format!(
            "\nnot ingested yet by {}: the margin is smaller until they are back",
            clean(&list(&response.missing_custodians))
        );
    }
    if !response.elsewhere.is_empty() {
        text += &format!(
            "\nof other daemons: {}; add the same sealed key there: tacit key seal, then key add --sealed at each --socket",
            clean(&list(&response.elsewhere))
        );
    }
    text += "\nusable by";
    for line in &response.usable_by {
        text += &format!("\n  {}", clean(line));
    }
    let json = json!({
        "key": summary_json(&key), "usable_by": response.usable_by,
        "missing_custodians": response.missing_custodians, "elsewhere": response.elsewhere,
        "header_sha256": hex::encode(sha256(&sealed.header)),
    });
    output.result(&text, &json);
}
