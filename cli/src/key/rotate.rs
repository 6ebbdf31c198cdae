//! `tacit key rotate`: seal a successor here, submit it there, and follow the agents to it.
//!
//! The daemon is asked for the next number, the provider and the upstreams; the last two are signed only as [`consent`]
//! has it.

use anyhow::Context;
use custody::{KeyId, SealedKey, Trust, Upstream};
use proto::v1::{RotateKeyRequest, ShowKeyRequest, ShowKeyResponse};

use super::change::{follow, start};
use super::consent::{self, Typed};
use super::seal::{self, Order, WrittenReceipt};
use crate::Answer;
use crate::args::RotateKey;
use crate::client::{self, Daemon, unary};
use crate::config::Paths;
use crate::output::Output;
use crate::trust;

/// `tacit key rotate`.
pub(super) async fn run(options: RotateKey, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let mut daemon = client::connect(&paths.socket).await?;
    let (sealed, receipt) = match &options.sealed {
        Some(path) => (
            seal::read_sealed(path, &trust, &options.id, output)?,
            WrittenReceipt::none(),
        ),
        None => seal_successor(&options, &trust, &mut daemon, paths, output).await?,
    };
    let request = RotateKeyRequest {
        sealed: sealed.encode(),
        allow_missing: options.allow_missing,
        no_wait: options.no_wait,
    };
    match start(daemon.admin.rotate_key(request)).await {
        Ok(stream) => follow(stream, "rotated", options.no_wait, output).await,
        Err(refusal) => {
            if refusal.is_definite() {
                receipt.take_back();
            }
            Err(refusal.into())
        }
    }
}

async fn seal_successor(
    options: &RotateKey,
    trust: &Trust,
    daemon: &mut Daemon,
    paths: &Paths,
    output: &Output,
) -> anyhow::Result<(SealedKey, WrittenReceipt)> {
    let status = daemon.status().await?;
    trust::check_presented(trust, &status)?;
    seal::check_whole(&status, &options.id)?;
    let request = ShowKeyRequest {
        key_id: options.id.to_string(),
    };
    let known = unary(daemon.admin.show_key(request)).await?;
    let named = known.key.as_ref().map_or("", |key| key.provider.as_str());
    let named: KeyId = named
        .parse()
        .context("the daemon's answer names no provider")?;
    if let Some(typed) = options.provider.as_ref().filter(|typed| **typed != named) {
        anyhow::bail!(
            "{} is a key of {named}, says the daemon, and not of {typed}: nothing was sealed; tacit key show {0}",
            options.id
        );
    }
    let asked = &options.material.upstreams;
    let order = Order {
        key_id: options.id.clone(),
        version: next_version(&known),
        provider: named.to_string(),
        upstreams: successor_upstreams(&known, asked)?,
    };
    let typed = Typed {
        provider: options.provider.is_some(),
        upstreams: !asked.is_empty(),
    };
    consent::settle(&order, typed, paths, output)?;
    seal::seal(&order, &options.material, trust, paths, output)
}

/// One above the highest there ever was: destroyed versions keep their number.
fn next_version(known: &ShowKeyResponse) -> u32 {
    let highest = known.versions.iter().map(|version| version.version).max();
    highest.unwrap_or(0).saturating_add(1)
}

/// Where the key goes does not change by rotating it, unless that is asked for.
fn successor_upstreams(
    known: &ShowKeyResponse,
    asked: &[Upstream],
) -> anyhow::Result<Vec<Upstream>> {
    let key = known.key.clone().unwrap_or_default();
    let newest = known.versions.iter().max_by_key(|version| version.version);
    let current = known
        .versions
        .iter()
        .find(|version| version.version == key.current_version);
    match current.or(newest) {
        Some(version) if asked.is_empty() => version
            .upstreams
            .iter()
            .map(|text| {
                text.parse()
                    .context("the daemon's upstreams of the version in use")
            })
            .collect(),
        _ => seal::upstreams(&key.provider, asked, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{KeySummary, KeyVersion};

    fn known(current: u32, versions: &[(u32, &str)]) -> ShowKeyResponse {
        let version = |(version, upstream): &(u32, &str)| KeyVersion {
            version: *version,
            upstreams: vec![(*upstream).to_owned()],
            ..KeyVersion::default()
        };
        ShowKeyResponse {
            key: Some(KeySummary {
                provider: "openai".to_owned(),
                current_version: current,
                ..KeySummary::default()
            }),
            versions: versions.iter().map(version).collect(),
            usable_by: Vec::new(),
        }
    }

    #[test]
    fn a_successor_takes_the_next_number_and_the_upstreams_in_use() {
        let rolled_back = known(1, &[(1, "https://one.example"), (2, "https://two.example")]);
        assert_eq!(next_version(&rolled_back), 3);
        let kept = successor_upstreams(&rolled_back, &[]).expect("parses");
        assert_eq!(kept, ["https://one.example".parse().expect("parses")]);
        let asked = ["https://three.example".parse().expect("parses")];
        assert_eq!(
            successor_upstreams(&rolled_back, &asked).expect("given"),
            asked
        );
        let revoked = known(0, &[(1, "https://one.example")]);
        let newest = successor_upstreams(&revoked, &[]).expect("parses");
        assert_eq!(newest, ["https://one.example".parse().expect("parses")]);
        let empty = known(0, &[]);
        assert_eq!(next_version(&empty), 1);
        let own = successor_upstreams(&empty, &[]).expect("known provider");
        assert_eq!(own, ["https://api.openai.com".parse().expect("parses")]);
    }
}
