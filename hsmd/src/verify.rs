//! `tacit key verify`: every token recomputes its check value; the HSM signs what was found.

use custody::statement::Finding;
use custody::{Manifest, Statement};
use futures_util::future::join_all;
use hsm::ErrorClass;
use proto::v1::{StatementSignature, VerifyKeyRequest, VerifyKeyResponse};

use crate::audit::{Category, Event};
use crate::clock;
use crate::custodians::StoredShare;
use crate::daemon::Daemon;
use crate::leases::stored_shares;
use crate::refusal::{Code, Refusal};

/// Verifies one version and has the tokens sign the result.
///
/// # Errors
/// [`Refusal`]; a custodian that fails is a finding, not an error.
pub async fn verify(
    daemon: &Daemon,
    actor: &str,
    request: &VerifyKeyRequest,
) -> Result<VerifyKeyResponse, Refusal> {
    let bad = |text: &str| Refusal::new(Code::BadRequest, text);
    if !(16..=64).contains(&request.nonce.len()) {
        return Err(bad("the nonce must have 16 to 64 bytes"));
    }
    let view = daemon.ledger()?.view();
    let key = view.keys.0.get(&request.key_id).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            format!("there is no key named {}", request.key_id),
        )
    })?;
    let number = if request.version == 0 {
        key.body.current
    } else {
        request.version
    };
    let version = key.versions.get(&number).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            format!("key {} has no version {number}", request.key_id),
        )
    })?;
    let header = &version.header;
    let manifest = Manifest::parse(&version.body.manifest.0)
        .map_err(|_| bad("this version was destroyed: nothing is left to verify"))?;
    let challenges = request
        .challenges
        .iter()
        .map(|one| <[u8; 32]>::try_from(one.as_slice()))
        .collect::<Result<Vec<_>, _>>();
    let challenges = challenges.map_err(|_| bad("a challenge has 32 bytes"))?;
    if !challenges.is_empty() && challenges.len() != header.custodians.len() {
        return Err(bad("a receipt has one challenge for each custodian"));
    }

    let shares = stored_shares(version)?;
    let share_of = |x: usize| shares.iter().find(|share| usize::from(share.x) == x);
    let each = (1..=header.custodians.len()).map(|x| {
        look(
            daemon,
            share_of(x),
            manifest.entries[x - 1].check,
            challenges.get(x - 1),
        )
    });
    let (findings, answers): (Vec<_>, Vec<_>) = join_all(each).await.into_iter().unzip();

    daemon
        .audit
        .record(
            Event::new(Category::SecretManagement, "key.verify", "ok", actor)
                .key(&request.key_id)
                .version(number),
        )
        .await?;
    let position = daemon.audit.position();
    let statement = Statement {
        key_id: header.key_id.clone(),
        version: number,
        generation: header.generation,
        header_hash: header.hash(),
        envelope_hash: custody::sha256(&version.body.envelope.0),
        threshold: header.threshold,
        findings: header.custodians.iter().copied().zip(findings).collect(),
        nonce: request.nonce.clone(),
        audit_records: position.records,
        audit_hash: position.hash,
        revision: view.revision,
        made_at: u64::try_from(clock::unix_seconds()).unwrap_or(0),
    };
    let statement = statement.encode();
    let signatures = sign(daemon, &statement).await;
    let answers = if challenges.is_empty() {
        Vec::new()
    } else {
        answers
    };
    Ok(VerifyKeyResponse {
        statement,
        signatures,
        answers,
    })
}

/// One custodian: its finding, and its answer to a challenge (empty when there is none).
async fn look(
    daemon: &Daemon,
    share: Option<&StoredShare>,
    signed: [u8; 32],
    challenge: Option<&[u8; 32]>,
) -> (Finding, Vec<u8>) {
    let Some(share) = share else {
        return (Finding::NotIngested, Vec::new());
    };
    let Some(one) = daemon
        .custodians
        .find(&share.custodian)
        .filter(|one| one.usable())
    else {
        return (Finding::NoAnswer, Vec::new());
    };
    let finding = match one.client.check(share.row()).await {
        Ok(value) if value == signed => Finding::Holds,
        Ok(_) => Finding::Differs,
        // A revoked version is refused by the token itself: it neither holds nor differs.
        Err(error) if matches!(error.class, ErrorClass::MacMismatch | ErrorClass::BadRecord) => {
            Finding::Differs
        }
        Err(_) => Finding::NoAnswer,
    };
    let answer = match challenge {
        None => Vec::new(),
        Some(challenge) => one
            .client
            .answer(share.row(), challenge)
            .await
            .map(|answer| answer.to_vec())
            .unwrap_or_default(),
    };
    (finding, answer)
}

async fn sign(daemon: &Daemon, statement: &[u8]) -> Vec<StatementSignature> {
    let usable = daemon.custodians.usable();
    let signed = join_all(
        usable
            .iter()
            .map(|one| one.client.sign_statement(statement)),
    )
    .await;
    usable
        .iter()
        .zip(signed)
        .filter_map(|(one, signature)| {
            Some(StatementSignature {
                custodian: one.id.clone(),
                fingerprint: one.fingerprint()?.as_bytes().to_vec(),
                signature: signature.ok()?.to_vec(),
            })
        })
        .collect()
}
