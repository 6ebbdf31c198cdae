//! Who may use which key: pure decisions, no clock, no store, no socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use attest::policy::Rule;
use attest::{Facts, Policy, ProcessId};
use custody::{Origin, Upstream};

use crate::config::{CallerRule, Defaults};
use crate::model::{Key, KeyBody, Version, VersionState};
use crate::refusal::{Code, Refusal};
use crate::terms::Terms;

/// A process that the kernel vouched for, and what the rules say it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its user id.
    pub uid: u32,
    /// Its process id at the time of the connection.
    pub pid: u32,
    /// The rules that name it. They stay apart: environments of one and teams of another grant nothing together.
    pub rules: Vec<CallerRule>,
    /// What was proven of it.
    pub facts: Arc<Facts>,
    /// The process, which no other is ever equal to; absent where callers are made up, for questions about rules.
    pub process: Option<ProcessId>,
    /// Names of the policy's rules that match, for people.
    pub matched: Vec<String>,
    /// What those rules call it.
    pub labels: BTreeMap<String, String>,
}

impl Caller {
    /// The caller of that uid, or `None` when no rule names it: no match means no.
    pub fn from_rules(rules: &[CallerRule], uid: u32, pid: u32) -> Option<Self> {
        let rules: Vec<_> = rules
            .iter()
            .filter(|rule| rule.uid == uid)
            .cloned()
            .collect();
        (!rules.is_empty()).then(|| Self {
            uid,
            pid,
            rules,
            facts: Arc::new(Facts::of_user(uid, 0, pid)),
            process: None,
            matched: Vec::new(),
            labels: BTreeMap::new(),
        })
    }

    /// The caller of whom these facts were proven, or `None` when no rule names it, neither of hsmd.toml nor of the policy.
    pub fn attested(
        callers: &[CallerRule],
        policy: &Policy,
        facts: &Arc<Facts>,
        process: ProcessId,
    ) -> Option<Self> {
        let mut caller = Self {
            uid: facts.uid,
            pid: facts.pid,
            rules: callers
                .iter()
                .filter(|rule| rule.uid == facts.uid)
                .cloned()
                .collect(),
            facts: Arc::clone(facts),
            process: Some(process),
            matched: Vec::new(),
            labels: BTreeMap::new(),
        };
        for rule in policy.matching(facts) {
            caller.rules.push(granted(rule, facts.uid));
            caller.matched.push(rule.name.clone());
            caller.labels.extend(rule.labels.clone());
        }
        (!caller.rules.is_empty()).then_some(caller)
    }

    /// Environments of all its rules, for people.
    pub fn environments(&self) -> Vec<String> {
        union(self.rules.iter().map(|rule| &rule.environments))
    }

    /// Teams of all its rules, for people.
    pub fn teams(&self) -> Vec<String> {
        union(self.rules.iter().map(|rule| &rule.teams))
    }

    /// As audit names it.
    pub fn actor(&self) -> String {
        self.facts.to_string()
    }
}

/// What a rule of the policy grants, in the form of `[[caller]]`.
fn granted(rule: &Rule, uid: u32) -> CallerRule {
    CallerRule {
        uid,
        environments: rule.environments.clone(),
        teams: rule.teams.clone(),
    }
}

/// Leave to use one version of one key, given by [`decide`] alone.
#[derive(Debug)]
pub struct Grant<'a> {
    /// The version.
    number: u32,
    /// Its content.
    version: &'a Version,
    /// The key's definition.
    body: &'a KeyBody,
}

impl<'a> Grant<'a> {
    /// The version's number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The version.
    pub fn version(&self) -> &'a Version {
        self.version
    }

    /// What the key may be used for: what the agent must keep to.
    pub fn terms(&self, defaults: &Defaults) -> Terms {
        self.body.terms.in_force(defaults)
    }
}

/// Environments and teams of a key, defaults filled in.
pub fn scope(body: &KeyBody, defaults: &Defaults) -> (Vec<String>, Vec<String>) {
    (
        body.environments
            .clone()
            .unwrap_or_else(|| defaults.environments.clone()),
        body.teams.clone().unwrap_or_else(|| defaults.teams.clone()),
    )
}

/// Whether two lists share a name; `*` on either side matches any name, an empty list matches nobody.
fn meet(allowed: &[String], own: &[String]) -> bool {
    let any = |list: &[String]| list.iter().any(|name| name == "*");
    !allowed.is_empty()
        && !own.is_empty()
        && (any(allowed) || any(own) || allowed.iter().any(|name| own.contains(name)))
}

/// Whether the caller may know of and use the key at all, whatever its state. A key that is for nothing is for nobody.
pub fn may_use(caller: &Caller, body: &KeyBody, defaults: &Defaults) -> bool {
    if body.terms.permissions(defaults).is_empty() {
        return false;
    }
    let (environments, teams) = scope(body, defaults);
    let grants =
        |rule: &CallerRule| meet(&environments, &rule.environments) && meet(&teams, &rule.teams);
    caller.rules.iter().any(grants)
}

fn union<'a>(lists: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = lists.flatten().collect();
    names.into_iter().cloned().collect()
}

/// Decides one lease.
///
/// # Errors
/// [`Refusal`]. A key that is absent and one that belongs to others get the same answer: which keys exist is nobody's
/// business but their users'.
pub fn decide<'a>(
    caller: &Caller,
    key: Option<&'a Key>,
    key_id: &str,
    provider: &str,
    origin: &Origin,
    defaults: &Defaults,
) -> Result<Grant<'a>, Refusal> {
    let no = |text: String| Refusal::new(Code::PermissionDenied, text);
    let unknown = || {
        no(format!(
            "uid {} may use no key named {key_id}: add the key, or its environments, teams and permissions, or a [[caller]] rule",
            caller.uid
        ))
    };
    let key = key
        .filter(|key| may_use(caller, &key.body, defaults))
        .ok_or_else(unknown)?;
    if key.body.provider != provider {
        return Err(no(format!(
            "key {key_id} belongs to provider {}, not {provider}: correct the route",
            key.body.provider
        )));
    }
    let Some((number, version)) = key.active() else {
        return Err(match key.state() {
            VersionState::Deactivated | VersionState::Compromised | VersionState::Destroyed => {
                Refusal::new(
                    Code::KeyRevoked,
                    format!("key {key_id} was revoked; rotate it to put a new version in use"),
                )
            }
            VersionState::PreActive | VersionState::Active | VersionState::Suspended => {
                no(format!(
                    "key {key_id} has no version in use: tacit key add or tacit key rotate puts one in"
                ))
            }
        });
    };
    if !version
        .header
        .upstreams
        .iter()
        .any(|upstream: &Upstream| upstream.allows(origin))
    {
        let allowed: Vec<String> = version
            .header
            .upstreams
            .iter()
            .map(ToString::to_string)
            .collect();
        let text = format!(
            "key {key_id} may not be sent to {origin}: it was sealed for {}",
            allowed.join(", ")
        );
        return Err(Refusal::new(Code::UpstreamNotAllowed, text));
    }
    Ok(Grant {
        number,
        version,
        body: &key.body,
    })
}

/// Who can use a key now, in words, for `key add` and `key show`.
pub fn usable_by(
    body: &KeyBody,
    rules: &[CallerRule],
    policy: &Policy,
    defaults: &Defaults,
) -> Vec<String> {
    let mut uids: Vec<u32> = rules.iter().map(|rule| rule.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    let callers = uids
        .into_iter()
        .filter_map(|uid| Caller::from_rules(rules, uid, 0));
    let mut lines: Vec<String> = callers
        .filter(|caller| may_use(caller, body, defaults))
        .map(|caller| {
            format!(
                "agents of uid {} ({}; teams {})",
                caller.uid,
                caller.environments().join(", "),
                caller.teams().join(", ")
            )
        })
        .collect();
    for rule in policy.rules() {
        let alone = Caller::from_rules(&[granted(rule, 0)], 0, 0);
        if alone.is_some_and(|caller| may_use(&caller, body, defaults)) {
            lines.push(format!(
                "agents with {} ({}; teams {}; rule {})",
                rule.conditions(),
                rule.environments.join(", "),
                rule.teams.join(", "),
                rule.name
            ));
        }
    }
    if !lines.is_empty() {
        return with_models(lines, &body.terms.in_force(defaults));
    }
    let (environments, teams) = scope(body, defaults);
    let step = if body.terms.permissions(defaults).is_empty() {
        "the key has no permissions: give it some with tacit key set ID --permission, or set [defaults] permissions in hsmd.toml".to_owned()
    } else if environments.is_empty() {
        "the key has no environments: add it with --environment, or set [defaults] environments in hsmd.toml".to_owned()
    } else if teams.is_empty() {
        "the key has no teams: add it with --team, or set [defaults] teams in hsmd.toml".to_owned()
    } else {
        format!(
            "no [[caller]] in hsmd.toml and no rule of its policy has environment {} and team {}",
            environments.join(" or "),
            teams.join(" or ")
        )
    };
    vec![format!("nobody: {step}")]
}

/// What terms without a model leave of the scope.
fn with_models(mut lines: Vec<String>, terms: &Terms) -> Vec<String> {
    if terms.models.is_empty() {
        lines.push("but with no model, so no request that names one: give it models with tacit key set ID --model ('*' for all), or set [defaults] models in hsmd.toml".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests;
