//! One lease: decide, have t tokens re-wrap their shares, audit, answer.

use std::time::Duration;

use custody::Origin;
use proto::v1::{Delivery, LeaseRequest, LeaseResponse};

use crate::audit::{Category, Event};
use crate::custodians::StoredShare;
use crate::daemon::Daemon;
use crate::model::Version;
use crate::policy::{self, Caller};
use crate::random_id;
use crate::refusal::{Code, Refusal};
use crate::terms::Terms;

/// Longest lease granted, whatever an agent asks for: the longest that a revoked key can be in use unheard.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// Longest use past that while no daemon is reachable.
const OFFLINE_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Grants or refuses one lease. A grant is audited here, a refusal by [`Daemon::refused`], either before it is answered.
///
/// # Errors
/// [`Refusal`].
pub async fn lease(
    daemon: &Daemon,
    caller: &Caller,
    request: &LeaseRequest,
) -> Result<LeaseResponse, Refusal> {
    let known = daemon.views.borrow().keys.0.contains_key(&request.key_id);
    // A key id from the wire becomes a label or an audit field only when it is a name of ours.
    let named = if known {
        request.key_id.as_str()
    } else {
        "unknown"
    };
    let result = grant(daemon, caller, request).await;
    let outcome = result
        .as_ref()
        .map_or_else(|refusal| refusal.code.name(), |_| "granted");
    daemon
        .metrics
        .leases
        .with_label_values(&[named, outcome])
        .inc();
    result
}

async fn grant(
    daemon: &Daemon,
    caller: &Caller,
    request: &LeaseRequest,
) -> Result<LeaseResponse, Refusal> {
    let bad = |text: String| Refusal::new(Code::BadRequest, text);
    let session: [u8; 16] = request
        .session_id
        .as_slice()
        .try_into()
        .map_err(|_| bad("session_id must have 16 bytes".to_owned()))?;
    let origin: Origin = request
        .upstream
        .parse()
        .map_err(|error| bad(format!("upstream: {error}")))?;
    let seed = daemon.agents.seed(&session, caller)?;
    let view = daemon.ledger()?.view();
    let key = view.keys.0.get(&request.key_id);
    let config = daemon.config();
    let grant = policy::decide(
        caller,
        key,
        &request.key_id,
        &request.provider,
        &origin,
        &config.defaults,
    )?;

    let (header, body) = (&grant.version().header, &grant.version().body);
    let shares = stored_shares(grant.version())?;
    if shares.len() < usize::from(header.threshold) && daemon.custodians.part && !request.partial {
        let text = format!(
            "this daemon holds {} shares of {}, {} are needed: this agent does not gather them from several daemons; upgrade it",
            shares.len(),
            request.key_id,
            header.threshold
        );
        return Err(Refusal::new(Code::HsmUnavailable, text));
    }
    let delivered = daemon
        .custodians
        .deliver(&seed, &shares, header.threshold.into())
        .await?;

    let ttl = Duration::from_millis(request.ttl_ms).min(TTL_MAX);
    let grace = Duration::from_millis(request.offline_grace_ms).min(OFFLINE_GRACE_MAX);
    // Noted before the answer: a revoke that comes between must know of it.
    daemon
        .agents
        .leased(&session, &request.key_id, grant.number(), ttl + grace);
    daemon.remember_lease(ttl + grace).await?;
    let (revision, terms) = still_in_force(daemon, caller, request, &origin, grant.number())?;
    let event = Event::new(Category::Lease, "lease.grant", "ok", caller.actor())
        .key(&request.key_id)
        .version(grant.number());
    daemon.audit.record(event).await?;

    Ok(LeaseResponse {
        lease_id: random_id().to_vec(),
        key_id: request.key_id.clone(),
        version: header.version,
        generation: header.generation,
        header: body.header.0.clone(),
        envelope: body.envelope.0.clone(),
        manifest: body.manifest.0.clone(),
        signature: body.signature.0.clone(),
        deliveries: delivered
            .into_iter()
            .map(|share| Delivery {
                x: share.x.into(),
                fingerprint: share.fingerprint.as_bytes().to_vec(),
                wrapped: share.wrapped,
            })
            .collect(),
        ttl_ms: millis(ttl),
        revision,
        offline_grace_ms: millis(grace),
        terms: Some(terms.to_wire()),
    })
}

/// Decides again: a revoke, another definition or another configuration may have come into force while the tokens worked.
/// What is answered is what holds now, and the revision says so.
fn still_in_force(
    daemon: &Daemon,
    caller: &Caller,
    request: &LeaseRequest,
    origin: &Origin,
    version: u32,
) -> Result<(u64, Terms), Refusal> {
    let (view, config) = (daemon.ledger()?.view(), daemon.config());
    let key = view.keys.0.get(&request.key_id);
    let caller = daemon.again(caller)?;
    let grant = policy::decide(
        &caller,
        key,
        &request.key_id,
        &request.provider,
        origin,
        &config.defaults,
    )?;
    if grant.number() != version {
        let text = format!(
            "version {version} of {} went out of use just now; ask again",
            request.key_id
        );
        return Err(Refusal::new(Code::KeyRevoked, text));
    }
    Ok((view.revision, grant.terms(&config.defaults)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The ingested shares of a version, as custodians want them.
///
/// # Errors
/// [`Code::Internal`] when a believed record has a MAC of another length (a newer build's).
pub fn stored_shares(version: &Version) -> Result<Vec<StoredShare>, Refusal> {
    let share = |(x, body): (&u8, &crate::model::ShareBody)| {
        let mac = body.mac.0.as_slice().try_into().map_err(|_| {
            Refusal::new(
                Code::Internal,
                "a share's MAC has another length than 32 bytes",
            )
        })?;
        Ok(StoredShare {
            x: *x,
            custodian: body.custodian.clone(),
            identity: body.identity.0.clone(),
            wrapped: body.wrapped.0.clone(),
            mac,
        })
    };
    version.shares.iter().map(share).collect()
}
