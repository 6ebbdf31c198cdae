//! What operators see of keys, custodians, agents and the daemon: names, states and hashes, never material.

use hsm::Health;
use proto::v1::agent_status::KeyInUse;
use proto::v1::{
    AgentStatus, CustodianStatus, HardeningMeasure, KeySummary, KeyVersion, StatusResponse,
};

use crate::custodians::{Custodian, Standing, describe};
use crate::daemon::Daemon;
use crate::ledger::View;
use crate::model::{Key, KeyBody};
use crate::policy;

/// One key in a line.
pub fn summary(daemon: &Daemon, view: &View, id: &str) -> Option<KeySummary> {
    let key = view.keys.0.get(id)?;
    let defaults = &daemon.config().defaults;
    let (environments, teams) = policy::scope(&key.body, defaults);
    let terms = key.body.terms.in_force(defaults);
    Some(KeySummary {
        key_id: id.to_owned(),
        provider: key.body.provider.clone(),
        current_version: key.active().map_or(0, |(number, _)| number),
        state: key.state().name().to_owned(),
        last_action: key.body.last_action.clone(),
        last_action_at: key.body.last_action_at,
        environments,
        teams,
        created_at: key.body.created_at,
        description: key.body.description.clone(),
        last_used_ms: daemon.last_used(id),
        attributes: terms.attributes(),
        permissions: terms.permissions,
        models: terms.models,
        defaulted: defaulted(&key.body),
    })
}

/// The lists that a definition leaves to `[defaults]`.
fn defaulted(body: &KeyBody) -> Vec<String> {
    let lists = [
        ("environments", &body.environments),
        ("teams", &body.teams),
        ("permissions", &body.terms.permissions),
        ("models", &body.terms.models),
    ];
    let left_out = lists.iter().filter(|(_, list)| list.is_none());
    left_out.map(|(name, _)| (*name).to_owned()).collect()
}

/// A line about connected agents whose build knows no terms, if there are any.
pub fn without_terms(daemon: &Daemon) -> Option<String> {
    let names = daemon.agents.without_terms();
    (!names.is_empty()).then(|| {
        format!(
            "agents of an older version do not keep to permissions, models and attributes: {}; upgrade them",
            names.join(", ")
        )
    })
}

/// All versions of a key.
pub fn versions(daemon: &Daemon, key: &Key) -> Vec<KeyVersion> {
    let trust = daemon.trust().ok();
    let version = |(number, version): (&u32, &crate::model::Version)| {
        let header = &version.header;
        let custodian = |fingerprint| {
            let known = trust.as_ref().and_then(|trust| trust.any(fingerprint).ok());
            known.map_or_else(
                || format!("{fingerprint:?}"),
                |descriptor| descriptor.id.to_string(),
            )
        };
        let elsewhere = |fingerprint: &&custody::Fingerprint| {
            let trust = trust.as_ref();
            trust.is_some_and(|trust| daemon.custodians.is_elsewhere(trust, fingerprint))
        };
        let sealer = trust
            .as_ref()
            .and_then(|trust| trust.sealer_name(&header.sealer))
            .unwrap_or("not in the trust file");
        KeyVersion {
            version: *number,
            generation: header.generation,
            state: version.body.state.name().to_owned(),
            upstreams: header.upstreams.iter().map(ToString::to_string).collect(),
            threshold: header.threshold.into(),
            custodians: header.custodians.iter().map(custodian).collect(),
            ingested: version
                .shares
                .values()
                .map(|share| share.custodian.clone())
                .collect(),
            sealer: format!("{sealer} ({})", header.sealer),
            sealed_at: i64::try_from(header.created_at).unwrap_or(0),
            ingested_at: version.body.ingested_at,
            envelope_sha256: hex::encode(custody::sha256(&version.body.envelope.0)),
            header_sha256: hex::encode(header.hash()),
            state_changed_at: version.body.changed_at,
            state_reason: version.body.reason.clone(),
            elsewhere: header
                .custodians
                .iter()
                .filter(elsewhere)
                .map(custodian)
                .collect(),
        }
    };
    key.versions.iter().map(version).collect()
}

/// One custodian.
pub fn custodian(one: &Custodian) -> CustodianStatus {
    let snapshot = one.client.snapshot();
    let standing = one.standing();
    let examined = !matches!(standing, Standing::Unknown);
    let (signed, mismatch) = match standing {
        Standing::Unknown => (None, false),
        Standing::Pinned(signed) => (Some(signed), false),
        Standing::Mismatch(signed, _) => (Some(signed), true),
    };
    let state = match snapshot.health {
        Health::Up if mismatch => "mismatch",
        Health::Up if examined => "up",
        Health::Up | Health::Starting => "starting",
        Health::Latched { .. } => "latched",
        Health::Down { .. } => "down",
    };
    let descriptor = signed.as_ref().map(|signed| &signed.descriptor);
    CustodianStatus {
        id: one.id.clone(),
        state: state.to_owned(),
        detail: describe(one),
        serial: descriptor.map(|own| own.serial.clone()).unwrap_or_default(),
        label: descriptor.map(|own| own.label.clone()).unwrap_or_default(),
        profile: descriptor
            .map(|own| own.profile.name().to_owned())
            .unwrap_or_default(),
        fingerprint: descriptor
            .map(|own| own.fingerprint().as_bytes().to_vec())
            .unwrap_or_default(),
        restarts: snapshot.restarts,
        calls: snapshot.verbs.iter().map(|verb| verb.calls).sum(),
        errors: snapshot.errors.iter().map(|(_, count)| count).sum(),
        descriptor: signed.map(|signed| signed.encode()).unwrap_or_default(),
        pid: snapshot.pid.unwrap_or(0),
        mismatch,
    }
}

/// All custodians.
pub fn custodians(daemon: &Daemon) -> Vec<CustodianStatus> {
    daemon.custodians.iter().map(|one| custodian(one)).collect()
}

/// All agents.
pub fn agents(daemon: &Daemon) -> Vec<AgentStatus> {
    let agent = |one: crate::agents::AgentView| AgentStatus {
        name: one.name,
        version: one.version,
        uid: one.caller.uid,
        pid: one.caller.pid,
        connected: one.connected,
        connected_at: one.opened_at,
        acknowledged_revision: one.acknowledged,
        in_use: one
            .in_use
            .into_iter()
            .map(|(key_id, version)| KeyInUse { key_id, version })
            .collect(),
        instance: hex::encode(one.instance),
        environments: one.caller.environments(),
        teams: one.caller.teams(),
        key_ids: one.key_ids,
        attested: one.caller.facts.to_string(),
        attestors: one
            .caller
            .facts
            .attestors
            .iter()
            .map(ToString::to_string)
            .collect(),
        rules: one.caller.matched,
        labels: one.caller.labels.into_iter().collect(),
    };
    daemon.agents.list().into_iter().map(agent).collect()
}

/// The daemon as a whole.
pub fn status(daemon: &Daemon) -> StatusResponse {
    let config = daemon.config();
    let view = daemon.views.borrow().clone();
    let (connected, _) = daemon.agents.counts();
    let refused: u64 = prometheus::core::Collector::collect(&daemon.metrics.refused)
        .iter()
        .flat_map(|family| {
            family
                .get_metric()
                .iter()
                .map(|metric| metric.get_counter().get_value())
                .collect::<Vec<_>>()
        })
        .map(|count| count as u64)
        .sum();
    StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: daemon.started_at,
        revision: view.revision,
        threshold: config.threshold.into(),
        custodians: custodians(daemon),
        margin: daemon.custodians.margin(),
        keys: u32::try_from(view.keys.0.len()).unwrap_or(u32::MAX),
        agents_connected: u32::try_from(connected).unwrap_or(u32::MAX),
        ready: daemon.ledger().is_ok() && daemon.custodians.serves(),
        notes: notes(daemon, &view),
        default_upstreams: config.defaults.upstreams.clone(),
        denied: refused,
        default_environments: config.defaults.environments.clone(),
        default_teams: config.defaults.teams.clone(),
        default_permissions: config.defaults.permissions.clone(),
        default_models: config.defaults.models.clone(),
        hardening: daemon.hardening.findings.iter().map(measure).collect(),
        shared_uids: config.shared_uids(),
        part: daemon.custodians.part,
        quorum: daemon.custodians.quorum().into(),
        elsewhere: elsewhere(daemon),
    }
}

fn measure(finding: &confine::Finding) -> HardeningMeasure {
    let detail = match finding.detail.as_str() {
        "" => String::new(),
        detail => format!(" ({detail})"),
    };
    HardeningMeasure {
        measure: finding.measure.name().to_owned(),
        holds: finding.state.is_on(),
        state: format!("{}{detail}", finding.state),
    }
}

/// Pinned custodians that other daemons drive.
fn elsewhere(daemon: &Daemon) -> Vec<String> {
    let Ok(trust) = daemon.trust() else {
        return Vec::new();
    };
    trust
        .descriptors()
        .into_iter()
        .filter(|one| {
            let fingerprint = one.fingerprint();
            daemon.custodians.is_elsewhere(&trust, &fingerprint)
        })
        .map(|one| one.id.to_string())
        .collect()
}

/// What an operator should look at.
fn notes(daemon: &Daemon, view: &View) -> Vec<String> {
    let mut notes: Vec<String> = daemon.trouble().into_iter().collect();
    match (daemon.custodians.part, daemon.custodians.margin()) {
        (false, 0) => {
            notes.push("margin 0: the next custodian that fails is an outage".to_owned());
        }
        (true, ..0) => notes.push(format!(
            "fewer than {} of this daemon's custodians answer: the others deliver, and nothing can be changed here, nor the daemon started again, until they are back",
            daemon.custodians.quorum()
        )),
        _ => {}
    }
    if let Ok(ledger) = daemon.ledger()
        && !ledger.behind().is_empty()
    {
        notes.push(format!(
            "custodians {} do not remember revision {} yet: it is tried again; see the log for why",
            ledger.behind().join(", "),
            view.revision
        ));
    }
    notes.extend(without_terms(daemon));
    let config = daemon.config();
    let n = config.custodians.len();
    let quorum = daemon.custodians.quorum();
    if 2 * usize::from(quorum) <= n {
        notes.push(format!(
            "threshold {quorum} of {n}: a quorum may be up that has not seen the last write, so a rollback can go unnoticed; 2t > n prevents that"
        ));
    }
    if config.audit.strict {
        notes.push("[audit] strict = true does not act yet: leases and administrative acts are always durable before their answer, single requests are not recorded".to_owned());
    }
    for (id, key) in &view.keys.0 {
        for (number, version) in key
            .versions
            .iter()
            .filter(|(_, version)| !version.body.pending.is_empty())
        {
            notes.push(format!(
                "key {id} version {number}: {} custodians have not ingested their share yet",
                version.body.pending.len()
            ));
        }
    }
    notes
}
