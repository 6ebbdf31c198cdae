//! Who may use which key: pure decisions, no clock, no store, no socket.

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
}

impl Caller {
    /// The caller of that uid, or `None` when no rule names it: no match means no.
    pub fn from_rules(rules: &[CallerRule], uid: u32, pid: u32) -> Option<Self> {
        let rules: Vec<_> = rules
            .iter()
            .filter(|rule| rule.uid == uid)
            .cloned()
            .collect();
        (!rules.is_empty()).then_some(Self { uid, pid, rules })
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
        format!("uid:{} pid:{}", self.uid, self.pid)
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
pub fn usable_by(body: &KeyBody, rules: &[CallerRule], defaults: &Defaults) -> Vec<String> {
    let mut uids: Vec<u32> = rules.iter().map(|rule| rule.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    let callers = uids
        .into_iter()
        .filter_map(|uid| Caller::from_rules(rules, uid, 0));
    let lines: Vec<String> = callers
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
            "no [[caller]] in hsmd.toml has environment {} and team {}",
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
