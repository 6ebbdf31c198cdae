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
    /// What the agent must keep to.
    terms: Terms,
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

    /// What the key may be used for.
    pub fn terms(&self) -> &Terms {
        &self.terms
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

/// Whether the caller may know of and use the key at all, whatever its state.
pub fn may_use(caller: &Caller, body: &KeyBody, defaults: &Defaults) -> bool {
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
            "uid {} may use no key named {key_id}: add the key, or its environments and teams, or a [[caller]] rule",
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
        terms: key.body.terms.in_force(defaults),
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
        return with_terms(lines, &body.terms.in_force(defaults));
    }
    let (environments, teams) = scope(body, defaults);
    let step = if environments.is_empty() {
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

/// Scope alone opens nothing: what the terms leave of it.
fn with_terms(mut lines: Vec<String>, terms: &Terms) -> Vec<String> {
    if terms.permissions.is_empty() {
        return vec!["nobody: the key has no permissions: give it some with tacit key set ID --permission, or set [defaults] permissions in hsmd.toml".to_owned()];
    }
    if terms.models.is_empty() {
        lines.push("but with no model, so no request that names one: give it models with tacit key set ID --model ('*' for all), or set [defaults] models in hsmd.toml".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::terms::KeyTerms;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_meet_by_name_or_star_and_empty_is_nobody() {
        for (allowed, own, expected) in [
            (&["production"][..], &["production"][..], true),
            (&["production"], &["staging", "production"], true),
            (&["production"], &["staging"], false),
            (&["*"], &["staging"], true),
            (&["production"], &["*"], true),
            (&[], &["production"], false),
            (&[], &["*"], false),
            (&["*"], &[], false),
        ] {
            assert_eq!(
                meet(&names(allowed), &names(own)),
                expected,
                "{allowed:?} {own:?}"
            );
        }
    }

    #[test]
    fn rules_of_one_user_grant_each_for_itself() {
        let rule = |environment: &str, team: &str| CallerRule {
            uid: 1000,
            environments: names(&[environment]),
            teams: names(&[team]),
        };
        let rules = [
            rule("production", "engineering"),
            rule("development", "data"),
        ];
        let caller = Caller::from_rules(&rules, 1000, 1).expect("two rules");
        let body = |environment: &str, team: &str| KeyBody {
            provider: "openai".into(),
            environments: Some(names(&[environment])),
            teams: Some(names(&[team])),
            description: String::new(),
            created_at: 0,
            current: 0,
            last_action: String::new(),
            last_action_at: 0,
            terms: KeyTerms::default(),
        };
        let defaults = Defaults::default();
        assert!(may_use(
            &caller,
            &body("production", "engineering"),
            &defaults
        ));
        assert!(may_use(&caller, &body("development", "data"), &defaults));
        assert!(!may_use(&caller, &body("production", "data"), &defaults));
        assert!(!may_use(
            &caller,
            &body("development", "engineering"),
            &defaults
        ));
    }

    #[test]
    fn who_can_use_a_key_is_told_with_what_its_terms_leave_of_it() {
        let rules = [CallerRule {
            uid: 1000,
            environments: names(&["production"]),
            teams: names(&["a"]),
        }];
        let usable = |permissions: &[&str], models: &[&str]| {
            let body = KeyBody {
                provider: "openai".into(),
                environments: Some(names(&["production"])),
                teams: None,
                description: String::new(),
                created_at: 0,
                current: 0,
                last_action: String::new(),
                last_action_at: 0,
                terms: KeyTerms {
                    permissions: Some(names(permissions)),
                    models: Some(names(models)),
                    ..KeyTerms::default()
                },
            };
            usable_by(&body, &rules, &Defaults::default())
        };
        assert_eq!(usable(&["chat"], &["gpt-4o"]).len(), 1);
        let no_model = usable(&["chat"], &[]);
        assert!(no_model[0].starts_with("agents of uid 1000") && no_model[1].contains("--model"));
        let nothing = usable(&[], &["*"]);
        assert!(
            nothing.len() == 1 && nothing[0].starts_with("nobody: "),
            "{nothing:?}"
        );
    }

    #[test]
    fn a_caller_without_a_rule_is_nobody() {
        let rules = [CallerRule {
            uid: 1000,
            environments: names(&["production"]),
            teams: names(&["a"]),
        }];
        assert!(Caller::from_rules(&rules, 1000, 1).is_some());
        assert!(Caller::from_rules(&rules, 1001, 1).is_none());
        assert!(Caller::from_rules(&[], 0, 1).is_none(), "not even root");
    }
}
