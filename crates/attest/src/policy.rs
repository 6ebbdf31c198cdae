//! Rules over facts: which callers act for which environments and teams. No match means no.
//!
//! A rule's conditions must all hold, and a condition holds only for what was proven: one about a namespace is not met by a caller that
//! showed none. A rule without conditions, which would be everybody, is refused, and so is one about something that no required attestor
//! proves. All errors of a file are told at once, by rule and field, never with a value.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::facts::Facts;
use crate::pods::ImageRule;
use crate::requirements::{Attestor, Requirements};

/// Rules of a file.
const RULES_MAX: usize = 1024;
/// Names of a list, and labels of a rule.
const NAMES_MAX: usize = 64;
/// Longest name.
const NAME_MAX: usize = 253;

/// For whom the rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// The daemon: rules say for which environments and teams a caller acts.
    Daemon,
    /// A token process: rules say whether shares may be wrapped for a caller at all.
    Token,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RuleFile {
    name: String,
    uid: Option<u32>,
    gid: Option<u32>,
    unit: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    node: Option<String>,
    image: Option<String>,
    environments: Vec<String>,
    teams: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, for people.
    pub name: String,
    uid: Option<u32>,
    gid: Option<u32>,
    unit: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    node: Option<String>,
    image: Option<ImageRule>,
    /// What the caller acts for.
    pub environments: Vec<String>,
    /// Whom it acts for.
    pub teams: Vec<String>,
    /// What it is called besides.
    pub labels: BTreeMap<String, String>,
}

impl Rule {
    fn matches(&self, facts: &Facts) -> bool {
        fn holds<T: PartialEq + ?Sized>(wanted: Option<&T>, proven: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| proven == Some(wanted))
        }
        let node = facts
            .claims
            .as_ref()
            .and_then(|claims| claims.node.as_deref());
        let image = facts.running.as_ref().map(|running| &running.image);
        holds(self.uid.as_ref(), Some(&facts.uid))
            && holds(self.gid.as_ref(), Some(&facts.gid))
            && holds(self.unit.as_deref(), facts.unit.as_deref())
            && holds(self.namespace.as_deref(), facts.namespace())
            && holds(self.service_account.as_deref(), facts.service_account())
            && holds(self.node.as_deref(), node)
            && self
                .image
                .as_ref()
                .is_none_or(|rule| image.is_some_and(|image| rule.allows(image)))
    }

    /// The user that it is about, if it is about one.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Its conditions, for people.
    #[must_use]
    pub fn conditions(&self) -> String {
        let number = |name: &str, value: Option<u32>| value.map(|value| format!("{name} {value}"));
        let text = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name} {value}"))
        };
        let image = self.image.as_ref().map(|image| format!("image {image}"));
        [
            number("uid", self.uid),
            number("gid", self.gid),
            text("unit", &self.unit),
            text("namespace", &self.namespace),
            text("service account", &self.service_account),
            text("node", &self.node),
            image,
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
    }
}

/// All rules of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy(Vec<Rule>);

impl Policy {
    /// From a file with nothing but `[[rule]]` tables.
    ///
    /// # Errors
    /// Every reason.
    pub fn parse(text: &str, judge: Judge, proven: &Requirements) -> Result<Self, Vec<String>> {
        let mut table = text.parse::<toml::Table>().map_err(|error| {
            // The parser's own text quotes the line.
            let line = error.span().map_or(0, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            vec![format!("line {line}: is not valid TOML")]
        })?;
        let rules = table.remove("rule");
        let mut reasons: Vec<String> = table
            .keys()
            .map(|_| "a policy holds [[rule]] tables and nothing else".to_owned())
            .take(1)
            .collect();
        match Self::from_value(rules, judge, proven) {
            Ok(policy) if reasons.is_empty() => Ok(policy),
            Ok(_) => Err(reasons),
            Err(more) => {
                reasons.extend(more);
                Err(reasons)
            }
        }
    }

    /// From the value of `rule` in a file that holds more.
    ///
    /// # Errors
    /// Every reason.
    pub fn from_value(
        rules: Option<toml::Value>,
        judge: Judge,
        proven: &Requirements,
    ) -> Result<Self, Vec<String>> {
        let rules = match rules {
            None => Vec::new(),
            Some(toml::Value::Array(rules)) => rules,
            Some(_) => return Err(vec!["rule: must be written as [[rule]]".to_owned()]),
        };
        let mut reasons = Vec::new();
        if rules.is_empty() {
            reasons.push("[[rule]]: there is none, so nobody would be served".to_owned());
        }
        if rules.len() > RULES_MAX {
            return Err(vec![format!("[[rule]]: at most {RULES_MAX}")]);
        }
        let (mut policy, mut names) = (Vec::new(), BTreeSet::new());
        for (at, value) in rules.into_iter().enumerate() {
            let mut refuse = |rule: &str| reasons.push(format!("[[rule]] {}: {rule}", at + 1));
            match value.try_into::<RuleFile>() {
                Ok(file) => {
                    let rule = check(file, judge, proven, &mut refuse);
                    if !names.insert(rule.name.clone()) {
                        refuse("name: stands twice");
                    }
                    policy.push(rule);
                }
                Err(error) => {
                    let message = error.message().lines().next().unwrap_or_default();
                    let unknown = message.starts_with("unknown field");
                    refuse(if unknown {
                        message
                    } else {
                        "a field has a value of the wrong kind"
                    });
                }
            }
        }
        if reasons.is_empty() {
            Ok(Self(policy))
        } else {
            Err(reasons)
        }
    }

    /// The rules that these facts match.
    pub fn matching<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a Rule> {
        self.0.iter().filter(move |rule| rule.matches(facts))
    }

    /// All rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// Whether a rule asks for the systemd unit.
    #[must_use]
    pub fn wants_unit(&self) -> bool {
        self.0.iter().any(|rule| rule.unit.is_some())
    }
}

fn check(
    file: RuleFile,
    judge: Judge,
    proven: &Requirements,
    refuse: &mut dyn FnMut(&str),
) -> Rule {
    let is_name = |name: &String| {
        !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control)
    };
    if !is_name(&file.name) {
        refuse("name: is needed; 1 to 253 printable characters");
    }
    let by_token = proven.has(Attestor::K8sToken);
    let by_kubelet = !proven.agent_images.is_empty();
    let texts = [
        &file.unit,
        &file.namespace,
        &file.service_account,
        &file.node,
        &file.image,
    ];
    if texts.into_iter().flatten().any(|text| !is_name(text)) {
        refuse("a condition must be 1 to 253 printable characters");
    }
    if file.uid.is_none() && file.gid.is_none() && texts.iter().all(|text| text.is_none()) {
        refuse("has no condition: it would match everybody");
    }
    if (file.namespace.is_some() || file.service_account.is_some()) && !by_token && !by_kubelet {
        refuse(
            "namespace and service_account: need k8s-token, or k8s-cgroup with agent_images, which prove them",
        );
    }
    if file.service_account.is_some() && file.namespace.is_none() {
        refuse("service_account: needs namespace, since every namespace may have one of that name");
    }
    if file.node.is_some() && !by_token {
        refuse("node: needs k8s-token, which proves it");
    }
    if file.unit.is_some() && (proven.has(Attestor::K8sCgroup) || !proven.has(Attestor::Unix)) {
        refuse("unit: needs unix and no k8s-cgroup; what runs in a pod is in no unit");
    }
    let image = file.image.as_deref().map(str::parse::<ImageRule>);
    if matches!(image, Some(Err(_))) {
        refuse("image: must be sha256:DIGEST or REPOSITORY@sha256:DIGEST");
    }
    if image.is_some() && !by_kubelet {
        refuse("image: needs k8s-cgroup with agent_images, which prove it");
    }
    for (field, list) in [("environments", &file.environments), ("teams", &file.teams)] {
        match judge {
            Judge::Daemon if list.is_empty() => {
                refuse(&format!(
                    "{field}: is empty, so the rule would grant nothing"
                ));
            }
            Judge::Token if !list.is_empty() => {
                refuse(&format!(
                    "{field}: mean nothing to a token process; the daemon's policy has them"
                ));
            }
            Judge::Daemon | Judge::Token => {}
        }
        if list.len() > NAMES_MAX || !list.iter().all(is_name) {
            refuse(&format!(
                "{field}: at most {NAMES_MAX} names of 1 to 253 printable characters"
            ));
        }
    }
    let named = file
        .labels
        .iter()
        .all(|(name, value)| is_name(name) && is_name(value));
    if file.labels.len() > NAMES_MAX || !named {
        refuse(&format!(
            "labels: at most {NAMES_MAX}, of 1 to 253 printable characters"
        ));
    }
    Rule {
        name: file.name,
        uid: file.uid,
        gid: file.gid,
        unit: file.unit,
        namespace: file.namespace,
        service_account: file.service_account,
        node: file.node,
        image: image.and_then(Result::ok),
        environments: file.environments,
        teams: file.teams,
        labels: file.labels,
    }
}

#[cfg(test)]
mod tests;
