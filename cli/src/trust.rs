//! The trust file: shown beside what the daemon presents, and changed only after its fingerprints were seen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use custody::trust::{PinnedCustodian, TRUST_MAX_BYTES, TrustError};
use custody::{Descriptor, KeyId, SealerKey, SignedDescriptor, THRESHOLD_MIN, Trust};
use proto::v1::StatusResponse;
use serde_json::{Value, json};

use crate::Answer;
use crate::args::{TrustPin, TrustVerb, is_tame};
use crate::client;
use crate::config::Paths;
use crate::failure::Usage;
use crate::files::{self, FileError};
use crate::output::{Output, clean, table};
use crate::terminal;

/// Why the trust file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustFileError {
    #[error(
        "there is no trust file at {0}; copy custodians.json from where hsmd init wrote it, or: tacit trust pin"
    )]
    Missing(std::path::PathBuf),
    #[error(transparent)]
    Read(FileError),
    #[error("{path} is refused")]
    Parse {
        path: std::path::PathBuf,
        #[source]
        source: custody::FormatError,
    },
}

/// Reads and checks the trust file.
pub(crate) fn load(path: &Path) -> Result<Trust, TrustFileError> {
    let bytes = files::read(path, TRUST_MAX_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => TrustFileError::Missing(path.to_owned()),
        _ => TrustFileError::Read(error),
    })?;
    Trust::parse(&bytes).map_err(|source| TrustFileError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// The file's text. What is written must be readable again: the file's rules are checked by its parser.
fn checked(trust: &Trust) -> anyhow::Result<String> {
    let json = trust.to_json();
    let read = Trust::parse(json.as_bytes()).context("the trust file would break its own rules")?;
    anyhow::ensure!(
        read == *trust,
        "the trust file would read back as another one; nothing was written"
    );
    Ok(json)
}

fn save(path: &Path, trust: &Trust) -> anyhow::Result<()> {
    let json = checked(trust)?;
    // A link keeps pointing where it points, and an existing file keeps its mode. Nothing in it is secret.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&target).map_or(0o644, |found| found.permissions().mode() & 0o777);
    files::create_parent(&target)?;
    files::replace(&target, json.as_bytes(), mode)?;
    Ok(())
}

/// Names of sealers follow the rule of key ids.
pub(crate) fn check_sealer_name(name: &str) -> Result<(), Usage> {
    match name.parse::<KeyId>() {
        Ok(_) if is_tame(name) => Ok(()),
        _ => Err(Usage(
            "a sealer's name must be 1 to 128 characters of ASCII letters, digits, '_', '-' and '.', and neither begin \
             with '-' nor be '.' or '..'"
                .to_owned(),
        )),
    }
}

/// Adds a sealer to an existing trust file.
pub(crate) fn add_sealer(path: &Path, name: &str, key: SealerKey) -> anyhow::Result<()> {
    check_sealer_name(name)?;
    let mut trust = load(path)?;
    trust.pin_sealer(name, key);
    save(path, &trust)
}

/// `tacit trust …`
pub(crate) async fn run(verb: TrustVerb, paths: &Paths, output: &Output) -> Answer {
    match verb {
        TrustVerb::Show => show(paths, output).await,
        TrustVerb::Pin(pin) => match &paths.sealer_typed {
            Some(_) if pin.from.is_some() || pin.threshold.is_some() => Err(Usage(
                "--sealer NAME=HEX pins a sealer and goes with neither --from nor --threshold"
                    .to_owned(),
            )
            .into()),
            Some(typed) => pin_sealer(typed, paths, output),
            None => pin_custodians(&pin, paths, output).await,
        },
    }
}

fn pin_sealer(typed: &str, paths: &Paths, output: &Output) -> Answer {
    let rule =
        "trust pin takes --sealer NAME=HEX: a name and the 64 hex digits of tacit sealer show";
    let (name, digits) = typed
        .split_once('=')
        .ok_or_else(|| Usage(rule.to_owned()))?;
    let key = SealerKey::from_hex(digits).map_err(|_| Usage(rule.to_owned()))?;
    add_sealer(&paths.trust, name, key)?;
    let text = format!("pinned sealer {name} {key} in {}", paths.trust.display());
    let json = json!({"trust": paths.trust, "sealer": name, "public_key": key.to_string()});
    output.result(&text, &json);
    Ok(true)
}

/// What a custodian presents, against its pin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// As pinned.
    Same,
    /// Not in the trust file.
    New,
    /// Other fields than pinned: name, pinned, presented.
    Changed(Vec<(&'static str, String, String)>),
}

/// Compares one presented descriptor.
pub(crate) fn compare(trust: &Trust, presented: &Descriptor) -> Compared {
    match trust.check_presented(presented) {
        Ok(()) => Compared::Same,
        Err(TrustError::Changed { differences, .. }) => Compared::Changed(differences),
        Err(_) => Compared::New,
    }
}

/// Parses the descriptors that the daemon presents; a custodian that is down presents its stored one, or none.
pub(crate) fn presented(status: &StatusResponse) -> anyhow::Result<Vec<SignedDescriptor>> {
    let given = status
        .custodians
        .iter()
        .filter(|one| !one.descriptor.is_empty());
    given
        .map(|one| {
            SignedDescriptor::parse(&one.descriptor).with_context(|| {
                format!(
                    "the daemon presents a bad descriptor for custodian {}",
                    clean(&one.id)
                )
            })
        })
        .collect()
}

/// Refuses when the daemon presents a descriptor that is not the pinned one: nothing must be sealed then.
pub(crate) fn check_presented(trust: &Trust, status: &StatusResponse) -> anyhow::Result<()> {
    for signed in presented(status)? {
        trust.check_presented(&signed.descriptor).context(
            "nothing was sent; if the custodian was replaced on purpose: tacit trust pin",
        )?;
    }
    Ok(())
}

async fn show(paths: &Paths, output: &Output) -> Answer {
    let trust = load(&paths.trust)?;
    let status = match client::connect(&paths.socket).await {
        Ok(mut daemon) => Some(daemon.status().await?),
        Err(_) => None, // the file can be looked at anywhere
    };
    let presented = status.as_ref().map(presented).transpose()?;
    let mut text = render(&trust);
    match &presented {
        None => text += "\n\nno daemon answers here: compared with nothing",
        Some(presented) => text += &format!("\n\n{}", render_comparison(&trust, presented)),
    }
    output.result(&text, &to_json(&trust, presented.as_deref()));
    Ok(true)
}

fn render(trust: &Trust) -> String {
    let mut rows = Vec::new();
    for (x, pinned) in (1..).zip(&trust.custodians) {
        let one = &pinned.current.descriptor;
        rows.push(vec![
            one.id.to_string(),
            x.to_string(),
            one.serial.clone(),
            one.label.clone(),
            one.profile.name().to_owned(),
            one.profile.mechanisms().to_owned(),
        ]);
    }
    let heads = ["CUSTODIAN", "X", "SERIAL", "LABEL", "PROFILE", "MECHANISMS"];
    let mut text = format!("{}-of-{}\n", trust.threshold, trust.custodians.len());
    text += &table(&heads, &rows);
    text += "\n\nfingerprints (compare over a second channel)";
    for pinned in &trust.custodians {
        let one = &pinned.current.descriptor;
        text += &format!("\n  {}  {}", one.id, one.fingerprint());
        for old in &pinned.superseded {
            text += &format!("\n     superseded {}", old.descriptor.fingerprint());
        }
    }
    text += "\n\nsealers";
    if trust.sealers.is_empty() {
        text += "\n  none: no key is accepted; tacit sealer new --pin NAME";
    }
    for sealer in &trust.sealers {
        text += &format!("\n  {}  {}", sealer.name, sealer.key);
    }
    text
}

fn render_comparison(trust: &Trust, presented: &[SignedDescriptor]) -> String {
    let mut lines = vec!["presented by the daemon".to_owned()];
    for signed in presented {
        let one = &signed.descriptor;
        match compare(trust, one) {
            Compared::Same => lines.push(format!("  {}  as pinned", one.id)),
            Compared::New => lines.push(format!("  {}  NOT PINNED  {}", one.id, one.fingerprint())),
            Compared::Changed(differences) => {
                lines.push(format!("  {}  CHANGED  {}", one.id, one.fingerprint()));
                for (field, old, new) in differences {
                    lines.push(format!("     {field}: pinned {old}, presented {new}"));
                }
            }
        }
    }
    for pinned in &trust.custodians {
        let id = &pinned.current.descriptor.id;
        if !presented.iter().any(|one| one.descriptor.id == *id) {
            lines.push(format!("  {id}  not presented"));
        }
    }
    lines.join("\n")
}

fn descriptor_json(one: &Descriptor) -> Value {
    json!({
        "id": one.id.as_str(), "serial": one.serial, "label": one.label, "profile": one.profile.name(),
        "mechanisms": one.profile.mechanisms(), "fingerprint": format!("{:?}", one.fingerprint()),
    })
}

fn to_json(trust: &Trust, presented: Option<&[SignedDescriptor]>) -> Value {
    let pinned = trust.custodians.iter().map(|pinned| {
        let mut value = descriptor_json(&pinned.current.descriptor);
        let old = pinned.superseded.iter();
        let old = old.map(|signed| format!("{:?}", signed.descriptor.fingerprint()));
        value["superseded"] = old.collect();
        value
    });
    let compared = presented.map(|all| {
        let one = |signed: &SignedDescriptor| {
            let mut value = descriptor_json(&signed.descriptor);
            let (state, differences) = match compare(trust, &signed.descriptor) {
                Compared::Same => ("pinned", Vec::new()),
                Compared::New => ("not_pinned", Vec::new()),
                Compared::Changed(differences) => ("changed", differences),
            };
            value["state"] = state.into();
            value["differences"] = differences
                .iter()
                .map(|(field, old, new)| json!({"field": field, "pinned": old, "presented": new}))
                .collect();
            value
        };
        all.iter().map(one).collect::<Vec<_>>()
    });
    let sealers = trust.sealers.iter();
    let sealers = sealers.map(|one| json!({"name": one.name, "public_key": one.key.to_string()}));
    json!({
        "threshold": trust.threshold, "custodians": pinned.collect::<Vec<_>>(),
        "sealers": sealers.collect::<Vec<_>>(), "presented": compared,
    })
}

async fn pin_custodians(pin: &TrustPin, paths: &Paths, output: &Output) -> Answer {
    let existing = match load(&paths.trust) {
        Ok(trust) => Some(trust),
        Err(TrustFileError::Missing(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let (offered, threshold) = match &pin.from {
        Some(file) => {
            let from = load(file)?;
            let threshold = from.threshold;
            let current = from.custodians.into_iter().map(|one| one.current);
            (current.collect(), threshold)
        }
        None => {
            let mut daemon = client::connect(&paths.socket).await?;
            let status = daemon.status().await?;
            let threshold = u8::try_from(status.threshold).unwrap_or(u8::MAX);
            (presented(&status)?, threshold)
        }
    };
    let (after, text) = merge(existing.as_ref(), &offered, pin.threshold, threshold)?;
    if existing.as_ref() == Some(&after) {
        output.result(
            "nothing to pin: all of it is pinned already",
            &json!({"changed": false}),
        );
        return Ok(true);
    }
    output.note(&text);
    if !pin.yes {
        let question =
            "Did you compare these fingerprints over a second channel, and are they right?";
        terminal::confirm(question, "compare the fingerprints, then add --yes")?;
    }
    save(&paths.trust, &after)?;
    let mut json = to_json(&after, None);
    json["changed"] = true.into();
    output.result(&format!("pinned in {}", paths.trust.display()), &json);
    Ok(true)
}

/// The trust file after pinning, and what changes, in words.
fn merge(
    existing: Option<&Trust>,
    offered: &[SignedDescriptor],
    chosen: Option<u8>,
    suggested: u8,
) -> anyhow::Result<(Trust, String)> {
    anyhow::ensure!(
        !offered.is_empty(),
        "no descriptor was presented: initialise the custodians first (hsmd init)"
    );
    let mut after = existing.cloned().unwrap_or(Trust {
        threshold: suggested.max(THRESHOLD_MIN),
        custodians: Vec::new(),
        sealers: Vec::new(),
    });
    if let Some(chosen) = chosen {
        after.threshold = chosen;
    }
    let mut lines = Vec::new();
    for signed in offered {
        let one = &signed.descriptor;
        match compare(&after, one) {
            Compared::Same => lines.push(format!("{}  as pinned  {}", one.id, one.fingerprint())),
            Compared::New => {
                lines.push(format!("{}  new  {}", one.id, one.fingerprint()));
                lines.push(format!(
                    "   token {} ({}), {}",
                    one.serial,
                    one.label,
                    one.profile.mechanisms()
                ));
                // Not Trust::pin: a file that is being made has too few custodians until the last one is in.
                after.custodians.push(PinnedCustodian {
                    current: signed.clone(),
                    superseded: Vec::new(),
                });
            }
            Compared::Changed(differences) => {
                lines.push(format!("{}  CHANGED  {}", one.id, one.fingerprint()));
                for (field, old, new) in differences {
                    lines.push(format!("   {field}: pinned {old}, presented {new}"));
                }
                let before = after.clone();
                after.pin(signed.clone()).inspect_err(|_| after = before)?;
            }
        }
    }
    checked(&after)?; // before anybody compares fingerprints for nothing
    let (t, n) = (after.threshold, after.custodians.len());
    lines.push(format!("keys sealed from now on: any {t} of {n}"));
    Ok((after, lines.join("\n")))
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
