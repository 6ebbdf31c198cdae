//! What was proven of a caller, put together: [`examine`] asks every required attestor and lets none speak for another.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::cgroup::{self, Container};
use crate::peer::Peer;
use crate::pods::{Pods, Running};
use crate::refused::Refused;
use crate::replay::Bearers;
use crate::requirements::{Attestor, Requirements};
use crate::token::{self, Claims, KeySet};

/// What there is to look at.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Who connected.
    pub peer: &'a Arc<Peer>,
    /// The token that it sent; empty when it sent none.
    pub token: &'a [u8],
    /// The issuer's keys, if they are at hand.
    pub keys: Option<&'a KeySet>,
    /// The pods of this node, if they are at hand.
    pub pods: Option<&'a Pods>,
    /// The wall clock.
    pub now: SystemTime,
}

/// What was proven. A field is there only if an attestor that was asked vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who vouched.
    pub attestors: Vec<Attestor>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; 0 in another PID namespace.
    pub pid: u32,
    /// systemd unit, where a rule asks for it.
    pub unit: Option<String>,
    /// Pod and container, by the kernel.
    pub container: Option<Container>,
    /// What the kubelet says of that container.
    pub running: Option<Running>,
    /// What the API server says.
    pub claims: Option<Claims>,
}

impl Facts {
    /// Of a peer of which nothing but its user is proven.
    #[must_use]
    pub fn of_user(uid: u32, gid: u32, pid: u32) -> Self {
        Self {
            attestors: vec![Attestor::Unix],
            uid,
            gid,
            pid,
            unit: None,
            container: None,
            running: None,
            claims: None,
        }
    }

    /// Namespace of the pod.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        let claimed = self.claims.as_ref().map(|claims| &claims.namespace);
        claimed
            .or(self.running.as_ref().map(|running| &running.namespace))
            .map(String::as_str)
    }

    /// Its service account.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        let claimed = self.claims.as_ref().map(|claims| &claims.service_account);
        claimed
            .or(self
                .running
                .as_ref()
                .map(|running| &running.service_account))
            .map(String::as_str)
    }

    /// UID of the pod.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        let seen = self.container.as_ref().map(|container| &container.pod_uid);
        seen.or(self.claims.as_ref().map(|claims| &claims.pod_uid))
            .map(String::as_str)
    }
}

impl fmt::Display for Facts {
    /// One line for logs, audit and operators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid:{} pid:{}", self.uid, self.pid)?;
        if let Some(unit) = &self.unit {
            write!(f, " unit:{unit}")?;
        }
        if let (Some(namespace), Some(account)) = (self.namespace(), self.service_account()) {
            write!(f, " sa:{namespace}/{account}")?;
        }
        if let Some(uid) = self.pod_uid() {
            write!(f, " pod:{uid}")?;
        }
        if let Some(container) = &self.container {
            // The beginning, as every tool of container runtimes shows it.
            write!(
                f,
                " container:{}",
                container.id.get(..12).unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

/// Asks every required attestor.
///
/// # Errors
/// The first [`Refused`].
pub fn examine(
    requirements: &Requirements,
    wants_unit: bool,
    evidence: &Evidence<'_>,
    bearers: &mut Bearers,
) -> Result<Facts, Refused> {
    let peer = evidence.peer;
    let process = peer.process();
    let needs_pid = requirements.has(Attestor::Unix) || requirements.has(Attestor::K8sCgroup);
    if needs_pid && process.pid == 0 {
        return Err(Refused::OtherPidNamespace);
    }
    peer.check_alive()?;
    let mut facts = Facts {
        attestors: requirements.attestors.iter().copied().collect(),
        ..Facts::of_user(peer.uid(), peer.gid(), process.pid)
    };
    if requirements.has(Attestor::K8sCgroup) {
        let text = peer.cgroup()?;
        let container = cgroup::container(&text, requirements.cgroup_root.as_deref())?;
        if !requirements.agent_images.is_empty() {
            facts.running = Some(running_agent(requirements, &container, evidence.pods)?);
        }
        facts.container = Some(container);
    } else if wants_unit {
        facts.unit = cgroup::unit(&peer.cgroup()?);
    }
    if let Some(rules) = &requirements.token {
        let unknown = || Refused::KeysUnavailable("it was not read yet".to_owned());
        if evidence.token.is_empty() {
            return Err(Refused::TokenMissing);
        }
        let keys = evidence.keys.ok_or_else(unknown)?;
        let claims = token::verify(evidence.token, keys, rules, evidence.now)?;
        match &facts.container {
            Some(container) => one_pod(container, facts.running.as_ref(), &claims)?,
            None => bearers.bind(claims.id, claims.expires, peer, evidence.now)?,
        }
        facts.claims = Some(claims);
    }
    // All of it was read about one process only if that still runs.
    peer.check_alive()?;
    Ok(facts)
}

fn running_agent(
    requirements: &Requirements,
    container: &Container,
    pods: Option<&Pods>,
) -> Result<Running, Refused> {
    let unknown = || Refused::PodsUnavailable("the list of pods was not read yet".to_owned());
    let running = pods.ok_or_else(unknown)?.find(container)?;
    let is_agent = requirements
        .agent_images
        .iter()
        .any(|image| image.allows(&running.image));
    is_agent.then_some(running).ok_or(Refused::ImageNotAgent)
}

/// Kernel, kubelet and API server must mean the same pod.
fn one_pod(
    container: &Container,
    running: Option<&Running>,
    claims: &Claims,
) -> Result<(), Refused> {
    let agrees = running.is_none_or(|running| {
        running.namespace == claims.namespace
            && running.pod == claims.pod
            && running.service_account == claims.service_account
    });
    if container.pod_uid == claims.pod_uid && agrees {
        Ok(())
    } else {
        Err(Refused::PodMismatch)
    }
}
