//! `tacit key verify` and `tacit verify-statement`: what daemon and tokens assert about a key, and how far to believe it.
//!
//! Believed is what a token signed under its *pinned* descriptor, about the key, version and nonce that were asked
//! for. A receipt goes further: its challenges can be answered only by something that still holds the shares.

use std::path::Path;

use anyhow::Context;
use custody::receipt::Challenge;
use custody::statement::Finding;
use custody::{Fingerprint, Receipt, Statement, SystemRandom, Trust};
use proto::v1::{VerifyKeyRequest, VerifyKeyResponse};
use rand_core::Rng as _;
use secret::Secret;
use serde_json::json;

use super::saved::{SavedStatement, Signature};
use crate::Answer;
use crate::args::VerifyKey;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::failure::Usage;
use crate::files;
use crate::output::{Output, moment, table};
use crate::trust;

/// Longest receipt: sixteen custodians with 200 challenges each.
const RECEIPT_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What became of one custodian's challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receipted {
    /// There was no receipt.
    NotAsked,
    /// The right answer.
    Right,
    /// A wrong one.
    Wrong,
    /// None: the custodian is down.
    NoAnswer,
}

impl Receipted {
    fn text(self) -> &'static str {
        match self {
            Self::NotAsked => "-",
            Self::Right => "right",
            Self::Wrong => "WRONG",
            Self::NoAnswer => "no answer",
        }
    }
}

/// One custodian's part of the verdict.
#[derive(Debug)]
struct Part {
    custodian: String,
    finding: Finding,
    /// Signed under the pinned descriptor; `None` when it did not sign.
    signed: Option<bool>,
    receipt: Receipted,
}

impl Part {
    fn stands(&self) -> bool {
        self.finding == Finding::Holds
            && self.signed == Some(true)
            && matches!(self.receipt, Receipted::NotAsked | Receipted::Right)
    }

    fn lies(&self) -> bool {
        self.finding == Finding::Differs
            || self.signed == Some(false)
            || self.receipt == Receipted::Wrong
    }
}

/// `tacit key verify`.
pub(super) async fn run(options: VerifyKey, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let nonce = nonce(options.nonce.as_deref())?;
    let receipt = options.receipt.as_deref().map(read_receipt).transpose()?;
    let version = asked_version(&options, receipt.as_ref())?;
    let mut daemon = client::connect(&paths.socket).await?;

    let (receipt, challenges) = match (receipt, &options.receipt) {
        (Some(receipt), Some(path)) => {
            let (receipt, challenges) = spend(receipt, path)?;
            (Some(receipt), challenges)
        }
        _ => (None, Vec::new()),
    };
    let request = VerifyKeyRequest {
        key_id: options.id.to_string(),
        version,
        nonce: nonce.clone(),
        challenges: challenges
            .iter()
            .map(|one| hex::decode(&one.challenge))
            .collect::<Result<_, _>>()
            .context("the receipt's challenges")?,
    };
    let response = unary(daemon.admin.verify_key(request)).await?;
    let saved = saved(&response)?;
    let statement = Statement::parse(&response.statement).context("the daemon's statement")?;
    check_asked(&statement, &options, version, &nonce, receipt.as_ref())?;
    if let Some(path) = &options.statement_out {
        files::replace(path, saved.to_json().as_bytes(), 0o644)?;
    }
    let mut parts = judge(&trust, &statement, &saved)?;
    if receipt.is_some() {
        judge_answers(&mut parts, &challenges, &response.answers);
    }
    Ok(tell(&statement, &parts, output))
}

/// `tacit verify-statement`.
pub(crate) fn offline(file: &Path, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let saved = SavedStatement::read(file)?;
    let statement = Statement::parse(&saved.statement)
        .with_context(|| format!("{} is refused", file.display()))?;
    let parts = judge(&trust, &statement, &saved)?;
    Ok(tell(&statement, &parts, output))
}

fn nonce(given: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let Some(text) = given else {
        let mut fresh = vec![0; 32];
        SystemRandom::new().fill_bytes(&mut fresh);
        return Ok(fresh);
    };
    match hex::decode(text) {
        Ok(bytes) if (16..=64).contains(&bytes.len()) => Ok(bytes),
        _ => Err(Usage("--nonce takes 16 to 64 bytes as hex digits".to_owned()).into()),
    }
}

fn read_receipt(path: &Path) -> anyhow::Result<Receipt> {
    let bytes = files::read(path, RECEIPT_MAX_BYTES)?;
    Receipt::parse(&bytes).with_context(|| format!("{} is refused", path.display()))
}

/// A receipt is for one version; naming another is a slip.
fn asked_version(options: &VerifyKey, receipt: Option<&Receipt>) -> Result<u32, Usage> {
    let Some(receipt) = receipt else {
        return Ok(options.version.unwrap_or(0));
    };
    if receipt.key_id != options.id.as_str()
        || options.version.is_some_and(|one| one != receipt.version)
    {
        return Err(Usage(format!(
            "the receipt is for version {} of {}",
            receipt.version, receipt.key_id
        )));
    }
    Ok(receipt.version)
}

/// Takes a challenge per custodian out of the receipt and writes it back first: once it was sent it proves nothing more.
fn spend(mut receipt: Receipt, path: &Path) -> anyhow::Result<(Receipt, Vec<Challenge>)> {
    let challenges = receipt.spend().ok_or_else(|| {
        anyhow::anyhow!(
            "the receipt in {} is spent; the next version's sealing can write a new one (--receipt)",
            path.display()
        )
    })?;
    files::replace(path, receipt.to_json().as_bytes(), 0o600)?;
    Ok((receipt, challenges))
}

fn saved(response: &VerifyKeyResponse) -> anyhow::Result<SavedStatement> {
    let signature = |one: &proto::v1::StatementSignature| {
        let fingerprint: [u8; 32] = one
            .fingerprint
            .as_slice()
            .try_into()
            .context("the daemon's answer has a fingerprint that is not 32 bytes long")?;
        Ok(Signature {
            fingerprint: Fingerprint::new(fingerprint),
            signature: one.signature.clone(),
        })
    };
    Ok(SavedStatement {
        statement: response.statement.clone(),
        signatures: response
            .signatures
            .iter()
            .map(signature)
            .collect::<anyhow::Result<_>>()?,
    })
}

/// A true statement about something else is no answer.
fn check_asked(
    statement: &Statement,
    options: &VerifyKey,
    version: u32,
    nonce: &[u8],
    receipt: Option<&Receipt>,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        statement.key_id == options.id && (version == 0 || statement.version == version),
        "the daemon answered about version {} of {} instead: do not believe it",
        statement.version,
        statement.key_id
    );
    anyhow::ensure!(
        statement.nonce == nonce,
        "the statement does not repeat the nonce of this request: it may be an old one, do not believe it"
    );
    if let Some(receipt) = receipt {
        anyhow::ensure!(
            receipt.header_sha256 == hex::encode(statement.header_hash),
            "the daemon holds another header than the one that the receipt was made with: this is not what you sealed"
        );
    }
    Ok(())
}

/// Checks every signature under the pinned descriptors, superseded ones included: older keys name them.
fn judge(
    trust: &Trust,
    statement: &Statement,
    saved: &SavedStatement,
) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::with_capacity(statement.findings.len());
    for (fingerprint, finding) in &statement.findings {
        let descriptor = trust.any(fingerprint)?;
        let own = saved
            .signatures
            .iter()
            .find(|one| one.fingerprint == *fingerprint);
        let signed = own
            .map(|one| Statement::verify_signature(descriptor, &saved.statement, &one.signature));
        parts.push(Part {
            custodian: descriptor.id.to_string(),
            finding: *finding,
            signed,
            receipt: Receipted::NotAsked,
        });
    }
    Ok(parts)
}

fn judge_answers(parts: &mut [Part], challenges: &[Challenge], answers: &[Vec<u8>]) {
    for (at, part) in parts.iter_mut().enumerate() {
        let answer = answers.get(at).filter(|answer| !answer.is_empty());
        part.receipt = match (answer, challenges.get(at)) {
            (Some(answer), Some(challenge)) if is_answer(challenge, answer) => Receipted::Right,
            (Some(_), Some(_)) => Receipted::Wrong,
            (Some(_), None) => Receipted::Wrong,
            (None, _) => Receipted::NoAnswer,
        };
    }
}

/// Compares in constant time, as [`Secret`] does: the daemon must not learn from a failure how near it came.
fn is_answer(challenge: &Challenge, answer: &[u8]) -> bool {
    hex::decode(&challenge.answer)
        .is_ok_and(|right| Secret::from(right) == Secret::from(answer.to_vec()))
}

/// Shows the verdict; true when at least t custodians stand for the key and none contradicts.
fn tell(statement: &Statement, parts: &[Part], output: &Output) -> bool {
    let standing = parts.iter().filter(|part| part.stands()).count();
    let lying = parts.iter().any(Part::lies);
    let verified = !lying && standing >= usize::from(statement.threshold);
    let json = json!({
        "verified": verified, "key_id": statement.key_id.as_str(), "version": statement.version,
        "generation": statement.generation, "threshold": statement.threshold, "standing": standing,
        "header_sha256": hex::encode(statement.header_hash),
        "envelope_sha256": hex::encode(statement.envelope_hash),
        "nonce": hex::encode(&statement.nonce), "audit_records": statement.audit_records,
        "audit_sha256": hex::encode(statement.audit_hash), "revision": statement.revision,
        "made_at": statement.made_at,
        "custodians": parts.iter().map(|part| json!({
            "id": part.custodian, "finding": part.finding.text(), "signature": part.signed,
            "receipt": part.receipt.text(), "stands": part.stands(),
        })).collect::<Vec<_>>(),
    });
    output.result(&render(statement, parts, standing, verified), &json);
    verified
}

fn render(statement: &Statement, parts: &[Part], standing: usize, verified: bool) -> String {
    let row = |part: &Part| {
        let signature = match part.signed {
            Some(true) => "verifies",
            Some(false) => "DOES NOT VERIFY",
            None => "none",
        };
        vec![
            part.custodian.clone(),
            part.finding.text().to_owned(),
            signature.to_owned(),
            part.receipt.text().to_owned(),
        ]
    };
    let rows: Vec<_> = parts.iter().map(row).collect();
    let made_at = i64::try_from(statement.made_at).unwrap_or(0);
    let receipt = parts.iter().any(|part| part.receipt != Receipted::NotAsked);
    let assertion = if receipt {
        "The receipt's answers can come only from something that still holds the shares; the rest is what daemon and \
         tokens assert."
    } else {
        "This is what the daemon and its tokens assert. For proof against a lying daemon use an operator's receipt \
         (--receipt)."
    };
    format!(
        "{} version {}, by the daemon's clock {}, store revision {}, audit record {}\nheader SHA-256    {}\nenvelope \
         SHA-256  {}\nnonce             {}\n\n{}\n\n{}: {standing} of {} custodians stand for it, {} are needed\n{assertion}",
        statement.key_id,
        statement.version,
        moment(made_at),
        statement.revision,
        statement.audit_records,
        hex::encode(statement.header_hash),
        hex::encode(statement.envelope_hash),
        hex::encode(&statement.nonce),
        table(&["CUSTODIAN", "FINDING", "SIGNATURE", "RECEIPT"], &rows),
        if verified { "verified" } else { "NOT VERIFIED" },
        parts.len(),
        statement.threshold,
    )
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
