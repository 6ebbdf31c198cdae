//! `hsmd init`: creates what is missing on each token, prints fingerprints, writes the trust file. Resumable; a second
//! run changes nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use custody::trust::PinnedCustodian;
use custody::{SignedDescriptor, Trust};
use hsm::{Health, TokenClient};

use crate::config::Config;

/// How long a token process may take to come up: a network HSM's client library can take seconds.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Initialises all tokens and writes `custodians.json`.
///
/// # Errors
/// The first token that failed, or a descriptor that differs from the pinned one; tokens that were done stay done.
pub async fn run(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .with_context(|| format!("cannot create {}", config.state_dir.display()))?;
    let mut descriptors = Vec::new();
    for token in config.tokens() {
        let id = token.id.clone();
        let client = TokenClient::start(token);
        let descriptor = init_one(&client).await;
        client.shutdown().await;
        let signed = descriptor.with_context(|| format!("custodian {id}"))?;
        let own = &signed.descriptor;
        writeln!(
            out,
            "custodian {id}  {}  {}  serial {}",
            own.profile.name(),
            own.label,
            own.serial
        )?;
        writeln!(out, "  fingerprint {}", own.fingerprint())?;
        descriptors.push(signed);
    }
    let path = config.trust_file();
    let trust = merge(&path, config.threshold, descriptors)?;
    write_atomically(&path, trust.to_json().as_bytes())?;
    writeln!(out, "trust file {}", path.display())?;
    writeln!(
        out,
        "Compare the fingerprints over a second channel, then give this file to operators and agents."
    )?;
    if trust.custodians.len() < usize::from(trust.threshold) {
        writeln!(
            out,
            "This daemon is a part. Pin the other daemons' custodians with its own: tacit trust pin --from FILE --trust {}",
            path.display()
        )?;
    }
    if trust.sealers.is_empty() {
        writeln!(
            out,
            "Next: tacit sealer new, then tacit trust pin --sealer NAME=KEY --trust {}",
            path.display()
        )?;
    }
    Ok(())
}

async fn init_one(client: &TokenClient) -> anyhow::Result<SignedDescriptor> {
    let mut health = client.health();
    let settled = health.wait_for(|health| !matches!(health, Health::Starting));
    tokio::time::timeout(START_DEADLINE, settled)
        .await
        .context("the token process did not come up in time")??;
    // A token without our objects counts as down until this very call; any other trouble is this call's error.
    let encoded = client.init().await?;
    SignedDescriptor::parse(&encoded).context("the token presents no valid descriptor")
}

/// The trust file with these custodians: what is pinned stays, new ones are appended, a changed one is refused.
fn merge(path: &Path, threshold: u8, descriptors: Vec<SignedDescriptor>) -> anyhow::Result<Trust> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let custodians = descriptors
                .into_iter()
                .map(|current| PinnedCustodian {
                    current,
                    superseded: Vec::new(),
                })
                .collect();
            return Ok(Trust {
                threshold,
                custodians,
                sealers: Vec::new(),
            });
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut trust = Trust::parse(&bytes)
        .with_context(|| format!("{} is refused; it is left as it is", path.display()))?;
    for signed in descriptors {
        let known = trust
            .custodians
            .iter()
            .any(|one| one.current.descriptor.id == signed.descriptor.id);
        if known {
            trust
                .check_presented(&signed.descriptor)
                .context("nothing was written; if the change is yours: tacit trust pin")?;
        } else {
            trust.pin(signed)?;
        }
    }
    trust.threshold = threshold;
    Ok(trust)
}

/// Replaces the file, synced; an equal one is left alone.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|now| now == bytes) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o644)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}
