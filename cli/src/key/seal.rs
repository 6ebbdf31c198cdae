//! Sealing where the operator is: trust file and sealer in, ciphertext out. No daemon, no network.

use std::path::{Path, PathBuf};

use anyhow::Context;
use custody::sealed::SEALED_KEY_MAX_BYTES;
use custody::{
    KeyId, Origin, Receipt, SealRequest, SealedKey, SystemRandom, Trust, Upstream, sha256,
};
use proto::v1::StatusResponse;
use serde_json::json;

use super::{consent, secret_input};
use crate::Answer;
use crate::args::{Material, SealKey};
use crate::config::Paths;
use crate::failure::Usage;
use crate::files;
use crate::output::{Output, now};
use crate::sealer;
use crate::trust;

/// What is to be sealed, settled before the secret is asked for.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) key_id: KeyId,
    pub(super) version: u32,
    pub(super) provider: String,
    pub(super) upstreams: Vec<Upstream>,
}

/// Longest text that may hold an armored key: base64 and its line ends.
const ARMOR_MAX_BYTES: usize = SEALED_KEY_MAX_BYTES * 2;

/// The receipt of a sealing, written to its file; taken back when the daemon refuses the key.
#[derive(Debug)]
pub(super) struct WrittenReceipt(Option<PathBuf>);

impl WrittenReceipt {
    /// No receipt was asked for.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The key will never exist: neither must its receipt.
    pub(super) fn take_back(self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path); // made by this command, a moment ago
        }
    }
}

/// `tacit key seal`.
pub(super) fn run(options: SealKey, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let provider = options.provider.to_string();
    let upstreams = upstreams(&provider, &options.material.upstreams, &[])?;
    let order = Order {
        key_id: options.id,
        version: options.version,
        provider,
        upstreams,
    };
    let (sealed, _receipt) = seal(&order, &options.material, &trust, paths, output)?;
    let armor = sealed.to_armor();
    let json = json!({
        "key_id": order.key_id.as_str(), "version": order.version, "provider": order.provider,
        "upstreams": order.upstreams.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "header_sha256": hex::encode(sha256(&sealed.header)), "sealed": armor,
    });
    output.result(&armor, &json);
    Ok(true)
}

/// Refuses to seal for one of several daemons: each of them must be given the same sealed key.
pub(super) fn check_whole(status: &StatusResponse, id: &KeyId) -> anyhow::Result<()> {
    anyhow::ensure!(
        !status.part,
        "this daemon drives only some of the custodians, and the others need the same sealed key: tacit key seal {id} > FILE once, then \
         --sealed FILE at the socket of each daemon"
    );
    Ok(())
}

/// Takes the secret in, seals it and writes the receipt, if one is wanted.
pub(super) fn seal(
    order: &Order,
    material: &Material,
    trust: &Trust,
    paths: &Paths,
    output: &Output,
) -> anyhow::Result<(SealedKey, WrittenReceipt)> {
    // Everything that can be refused without the secret is, before it is asked for.
    let sealer = sealer::load(&paths.sealer, Some(trust))?;
    let public = sealer.public();
    anyhow::ensure!(
        trust.sealer_name(&public).is_some(),
        "the sealer {public} is not pinned in {0}: the custodians would refuse the key; tacit --trust {0} trust pin \
         --sealer NAME={public}",
        paths.trust.display()
    );
    let (t, n) = (usize::from(trust.threshold), trust.custodians.len());
    anyhow::ensure!(
        n >= t,
        "{} pins {n} custodians and a key needs {t}: pin those of the other daemons first (tacit trust pin --from FILE)",
        paths.trust.display()
    );
    if let Some(path) = material.receipt.as_deref().filter(|path| path.exists()) {
        anyhow::bail!("{} exists: a receipt is never overwritten", path.display());
    }
    let secret = secret_input::take(material.from_file.as_deref(), &order.provider, output)?;
    let request = SealRequest {
        key_id: order.key_id.clone(),
        version: order.version,
        generation: 1,
        provider: order.provider.clone(),
        upstreams: order.upstreams.clone(),
        threshold: trust.threshold,
        custodians: trust.descriptors(),
        created_at: u64::try_from(now()).unwrap_or(0),
        challenges: match material.receipt {
            Some(_) => usize::from(material.receipt_uses),
            None => 0,
        },
    };
    let (sealed, receipt) = custody::seal(&request, &secret, &*sealer, &mut SystemRandom::new())?;
    drop(secret);
    // A sealer that signs, but not with the pinned key, or a card that returned nonsense: found out here, not there.
    sealed
        .verify(trust)
        .context("what was sealed does not verify")?;
    let written = write_receipt(&receipt, material.receipt.as_deref(), output)?;
    Ok((sealed, written))
}

fn write_receipt(
    receipt: &Receipt,
    path: Option<&Path>,
    output: &Output,
) -> anyhow::Result<WrittenReceipt> {
    if let Some(path) = path {
        files::create_new(path, receipt.to_json().as_bytes(), 0o600)?;
        let uses = receipt.remaining();
        output.note(&format!(
            "receipt with {uses} challenges in {}: keep it where the daemon's administrators cannot read it",
            path.display()
        ));
    }
    Ok(WrittenReceipt(path.map(Path::to_owned)))
}

/// Where keys of a provider go when nothing else is said; nowhere, where each customer has an origin of their own.
pub(super) fn own_origin(provider: &providers::Provider) -> Option<Origin> {
    provider.default_origin.map(|text| {
        text.parse()
            .expect("a test of the providers' table holds that origins parse")
    })
}

/// Origins of a key: those asked for, else the provider's own and the daemon's `[defaults] upstreams`.
pub(super) fn upstreams(
    provider: &str,
    asked: &[Upstream],
    defaults: &[String],
) -> anyhow::Result<Vec<Upstream>> {
    let mut out = Vec::new();
    let mut add = |one: Upstream| {
        if !out.contains(&one) {
            out.push(one);
        }
    };
    if asked.is_empty() {
        let own = providers::find(provider).ok_or_else(|| {
            let known: Vec<_> = providers::all().iter().map(|one| one.name).collect();
            Usage(format!(
                "{provider} is not a provider that Tacit knows ({}); for one of your own name its origin: --upstream \
                 https://HOST",
                known.join(", ")
            ))
        })?;
        let own = own_origin(own).ok_or_else(|| {
            Usage(format!(
                "every customer of {provider} has an origin of their own there; name yours: --upstream https://HOST"
            ))
        })?;
        add(Upstream::Origin(own));
        for default in defaults {
            add(default
                .parse()
                .context("the daemon's [defaults] upstreams")?);
        }
    }
    asked.iter().cloned().for_each(add);
    Ok(out)
}

/// Reads an armored key (`-` for stdin) and believes it only when the trust file does.
pub(super) fn read_sealed(
    path: &Path,
    trust: &Trust,
    id: &KeyId,
    output: &Output,
) -> anyhow::Result<SealedKey> {
    let bytes = if path == Path::new("-") {
        files::read_stdin(ARMOR_MAX_BYTES)?
    } else {
        files::read(path, ARMOR_MAX_BYTES)?
    };
    let named = || format!("{} is refused", path.display());
    let text = std::str::from_utf8(&bytes).with_context(named)?;
    let sealed = SealedKey::from_armor(text).with_context(named)?;
    let provenance = sealed.verify(trust).with_context(named)?;
    let found = &provenance.header().key_id;
    if found != id {
        return Err(Usage(format!(
            "{} holds the key {found}, and the command names {id}",
            path.display()
        ))
        .into());
    }
    consent::tell(provenance.header(), output);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(provider: &str, asked: &[&str], defaults: &[&str]) -> anyhow::Result<Vec<String>> {
        let asked: Vec<_> = asked
            .iter()
            .map(|one| one.parse().expect("parses"))
            .collect();
        let defaults: Vec<_> = defaults.iter().map(|one| (*one).to_owned()).collect();
        let out = upstreams(provider, &asked, &defaults)?;
        Ok(out.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_asked_for_wins_over_every_default() {
        let own = "https://api.openai.com";
        let gateway = "https://gw.example";
        assert_eq!(texts("openai", &[], &[]).expect("known"), [own]);
        assert_eq!(
            texts("openai", &[], &["*", own]).expect("known"),
            [own, "*"]
        );
        assert_eq!(
            texts("openai", &[gateway, gateway], &["*"]).expect("known"),
            [gateway]
        );
        assert_eq!(
            texts("llm-internal", &[gateway], &[]).expect("named"),
            [gateway]
        );
    }

    #[test]
    fn a_provider_of_ones_own_needs_its_origin() {
        let error = texts("llm-internal", &[], &["*"]).expect_err("refused");
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("--upstream"), "{error}");
    }

    #[test]
    fn a_known_provider_has_one_origin_that_parses_or_asks_for_it() {
        for provider in providers::all() {
            match texts(provider.name, &[], &[]) {
                Ok(own) => assert_eq!(own.len(), 1, "{}", provider.name),
                Err(error) => {
                    assert!(error.is::<Usage>(), "{}", provider.name);
                    assert!(error.to_string().contains("--upstream https://"), "{error}");
                }
            }
            let own = ["https://acme.example"];
            assert_eq!(texts(provider.name, &own, &["*"]).expect("named"), own);
        }
    }
}
