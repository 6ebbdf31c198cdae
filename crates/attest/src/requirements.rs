//! What must be proven of a caller before rules are asked: the `[attest]` table, checked.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::peer::OldKernel;
use crate::pods::ImageRule;

/// Longest life of a service account token that is accepted unless the file says otherwise. Kubelets ask for one hour by default
/// and renew at 80 % of it.
const TOKEN_LIFETIME_MAX: u64 = 3600;
/// And the longest that the file may allow: a token that lives for longer is a password.
const TOKEN_LIFETIME_CEILING: u64 = 24 * 3600;
/// Entries of `agent_images`.
const IMAGES_MAX: usize = 64;

/// A way to learn who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attestor {
    /// The kernel's word about the process that connected.
    Unix,
    /// The kernel's word about the pod that it runs in.
    K8sCgroup,
    /// The API server's word about the pod that it runs in.
    K8sToken,
}

impl fmt::Display for Attestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Attestor::Unix => "unix",
            Attestor::K8sCgroup => "k8s-cgroup",
            Attestor::K8sToken => "k8s-token",
        })
    }
}

/// The fields of `[attest]` that daemon and token process share.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequirementsFile {
    /// What must be proven; `["unix"]` when left out.
    pub require: Option<Vec<Attestor>>,
    /// What a kernel without SO_PEERPIDFD means.
    pub old_kernel: OldKernel,
    /// Images that agents run, by digest.
    pub agent_images: Vec<String>,
    /// The kubelet's `--cgroup-root`, when pods are not where they are by default.
    pub cgroup_root: Option<String>,
    /// `iss` of tokens.
    pub issuer: Option<String>,
    /// `aud` of tokens.
    pub audience: Option<String>,
    /// The node that tokens must be of.
    pub node: Option<String>,
    /// Longest life of a token, in seconds.
    pub token_lifetime_max_seconds: Option<u64>,
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// `iss`.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
    /// Longest time between `iat` and `exp`.
    pub lifetime_max: Duration,
    /// Its `node` claim, if that is pinned.
    pub node: Option<String>,
}

/// What must be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// All of these.
    pub attestors: BTreeSet<Attestor>,
    /// What a kernel without SO_PEERPIDFD means.
    pub old_kernel: OldKernel,
    /// Images that agents run; empty when the image is not looked at.
    pub agent_images: Vec<ImageRule>,
    /// The kubelet's `--cgroup-root`.
    pub cgroup_root: Option<String>,
    /// Present when `k8s-token` is required.
    pub token: Option<TokenRules>,
}

impl Default for Requirements {
    /// The kernel's word about the process, and nothing of Kubernetes.
    fn default() -> Self {
        Self {
            attestors: BTreeSet::from([Attestor::Unix]),
            old_kernel: OldKernel::Refuse,
            agent_images: Vec::new(),
            cgroup_root: None,
            token: None,
        }
    }
}

impl Requirements {
    /// Whether this one is among them.
    #[must_use]
    pub fn has(&self, attestor: Attestor) -> bool {
        self.attestors.contains(&attestor)
    }

    /// From the fields, or every rule that they break.
    ///
    /// # Errors
    /// One line per rule, by the field's name and never with its value.
    pub fn check(file: RequirementsFile) -> Result<Self, Vec<String>> {
        let mut reasons = Vec::new();
        let attestors: BTreeSet<Attestor> = match file.require {
            None => BTreeSet::from([Attestor::Unix]),
            Some(list) => list.into_iter().collect(),
        };
        if attestors.is_empty() {
            reasons
                .push("require: must name at least one of unix, k8s-cgroup, k8s-token".to_owned());
        }
        let images: Vec<Option<ImageRule>> = file
            .agent_images
            .iter()
            .map(|text| text.parse().ok())
            .collect();
        if images.len() > IMAGES_MAX || images.iter().any(Option::is_none) {
            reasons.push(format!(
                "agent_images: at most {IMAGES_MAX} of the form sha256:DIGEST or REPOSITORY@sha256:DIGEST; a tag names no image"
            ));
        }
        if !images.is_empty() && !attestors.contains(&Attestor::K8sCgroup) {
            reasons.push(
                "agent_images: needs k8s-cgroup in require, which finds the container".to_owned(),
            );
        }
        if file
            .cgroup_root
            .as_deref()
            .is_some_and(|root| !is_absolute(root))
        {
            reasons.push("cgroup_root: must be an absolute path without . and ..".to_owned());
        }
        let mut token = None;
        if attestors.contains(&Attestor::K8sToken) {
            let seconds = file
                .token_lifetime_max_seconds
                .unwrap_or(TOKEN_LIFETIME_MAX);
            if seconds == 0 || seconds > TOKEN_LIFETIME_CEILING {
                reasons.push(format!(
                    "token_lifetime_max_seconds: must be 1 to {TOKEN_LIFETIME_CEILING}"
                ));
            }
            match (&file.issuer, &file.audience) {
                (Some(issuer), Some(audience)) if !issuer.is_empty() && !audience.is_empty() => {
                    token = Some(TokenRules {
                        issuer: issuer.clone(),
                        audience: audience.clone(),
                        lifetime_max: Duration::from_secs(seconds),
                        node: file.node.clone(),
                    });
                }
                _ => reasons.push("issuer and audience: k8s-token needs both".to_owned()),
            }
        } else if file.issuer.is_some() || file.audience.is_some() || file.node.is_some() {
            reasons.push("issuer, audience and node: need k8s-token in require, or they would say what nobody checks".to_owned());
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        Ok(Self {
            attestors,
            old_kernel: file.old_kernel,
            agent_images: images.into_iter().flatten().collect(),
            cgroup_root: file.cgroup_root,
            token,
        })
    }
}

fn is_absolute(root: &str) -> bool {
    root.starts_with('/') && !root.split('/').any(|name| matches!(name, "." | ".."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn check(text: &str) -> Result<Requirements, Vec<String>> {
        Requirements::check(toml::from_str(text).unwrap())
    }

    #[test]
    fn nothing_said_means_the_kernels_word_about_the_process() {
        assert_eq!(check("").unwrap(), Requirements::default());
    }

    #[test]
    fn every_broken_rule_is_named_at_once_and_no_value_is_quoted() {
        let digest = "a".repeat(64);
        let good = format!(
            "require = [\"unix\", \"k8s-cgroup\", \"k8s-token\"]\nagent_images = [\"sha256:{digest}\"]\nissuer = \"https://x\"\naudience = \"tacit\""
        );
        let good = check(&good).unwrap();
        assert_eq!(good.attestors.len(), 3);
        assert_eq!(good.token.unwrap().lifetime_max, Duration::from_secs(3600));
        let bad = check(
            "require = [\"k8s-token\"]\nagent_images = [\"sk-secret:latest\"]\ncgroup_root = \"sk-secret\"\naudience = \"sk-secret\"\ntoken_lifetime_max_seconds = 0",
        );
        let reasons = bad.unwrap_err();
        assert_eq!(reasons.len(), 5, "{reasons:?}");
        assert!(!reasons.concat().contains("sk-secret"), "{reasons:?}");
        assert!(check("require = []").is_err());
        assert!(
            check("audience = \"tacit\"").is_err(),
            "nobody would check it"
        );
    }
}
