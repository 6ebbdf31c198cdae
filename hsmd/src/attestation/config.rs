//! `[attest]` of hsmd.toml and the policy file that it names, checked together.

use std::path::{Path, PathBuf};

use attest::policy::Judge;
use attest::requirements::RequirementsFile;
use attest::{Attestor, OldKernel, Policy, Requirements};
use serde::Deserialize;

use super::fetch::Endpoint;

/// Longest policy file.
const POLICY_MAX: u64 = 1024 * 1024;

/// `[attest]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestConfig {
    /// What must be proven of every caller; `["unix"]` when left out.
    pub require: Option<Vec<Attestor>>,
    /// What a kernel without SO_PEERPIDFD means.
    pub old_kernel: OldKernel,
    /// Rules over what was proven, beside `[[caller]]`.
    pub policy: Option<PathBuf>,
    /// The gate file of token processes that this daemon starts.
    pub token_gate: Option<PathBuf>,
    /// Images that agents run, by digest.
    pub agent_images: Vec<String>,
    /// The kubelet's `--cgroup-root`.
    pub cgroup_root: Option<String>,
    /// Accepts rules for users that apps run as, too: for development.
    pub danger_shared_uid: bool,
    /// Where the word of Kubernetes comes from.
    pub kubernetes: KubernetesConfig,
}

/// `[attest.kubernetes]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// `iss` of tokens.
    pub issuer: Option<String>,
    /// `aud` of tokens.
    pub audience: Option<String>,
    /// The node that tokens must be of.
    pub node: Option<String>,
    /// Longest life of a token.
    pub token_lifetime_max_seconds: Option<u64>,
    /// The issuer's keys, in a file that is read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// Or where the API server publishes them.
    pub jwks_url: Option<String>,
    /// Whether the API server is asked about each token.
    pub token_review: bool,
    /// The API server, for that.
    pub api_server: Option<String>,
    /// Roots for the API server; the system's when left out.
    pub ca_file: Option<PathBuf>,
    /// The daemon's own token for the API server, read for each call.
    pub api_token_file: Option<PathBuf>,
    /// The pods of this node, in a file that is read again when it changes.
    pub pods_file: Option<PathBuf>,
    /// Or the kubelet's `/pods`.
    pub kubelet_url: Option<String>,
    /// Roots for the kubelet.
    pub kubelet_ca_file: Option<PathBuf>,
    /// The daemon's own token for the kubelet.
    pub kubelet_token_file: Option<PathBuf>,
}

/// What must be proven, and what that is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// What must be proven.
    pub requirements: Requirements,
    /// What that is good for.
    pub policy: Policy,
}

impl AttestConfig {
    /// Checks the fields and reads the policy.
    ///
    /// # Errors
    /// Every reason, with the field's name and never with its value.
    pub fn load(&self) -> Result<Rules, Vec<String>> {
        let mut reasons = Vec::new();
        let requirements = Requirements::check(self.fields()).unwrap_or_else(|found| {
            reasons.extend(found.into_iter().map(|reason| format!("[attest] {reason}")));
            Requirements::default()
        });
        if reasons.is_empty() {
            self.check_sources(&requirements, &mut |reason: &str| {
                reasons.push(format!("[attest.kubernetes] {reason}"));
            });
        }
        let policy = match &self.policy {
            // Rules about what is not required would only add errors to errors.
            Some(path) if reasons.is_empty() => {
                read_policy(path, &requirements).unwrap_or_else(|found| {
                    reasons.extend(
                        found
                            .into_iter()
                            .map(|reason| format!("[attest] policy {}: {reason}", path.display())),
                    );
                    Policy::default()
                })
            }
            Some(_) | None => Policy::default(),
        };
        if self
            .token_gate
            .as_ref()
            .is_some_and(|path| !path.is_absolute())
        {
            reasons.push("[attest] token_gate: must be an absolute path".to_owned());
        }
        if reasons.is_empty() {
            Ok(Rules {
                requirements,
                policy,
            })
        } else {
            Err(reasons)
        }
    }

    fn fields(&self) -> RequirementsFile {
        let kubernetes = &self.kubernetes;
        RequirementsFile {
            require: self.require.clone(),
            old_kernel: self.old_kernel,
            agent_images: self.agent_images.clone(),
            cgroup_root: self.cgroup_root.clone(),
            issuer: kubernetes.issuer.clone(),
            audience: kubernetes.audience.clone(),
            node: kubernetes.node.clone(),
            token_lifetime_max_seconds: kubernetes.token_lifetime_max_seconds,
        }
    }

    fn check_sources(&self, requirements: &Requirements, refuse: &mut dyn FnMut(&str)) {
        let kubernetes = &self.kubernetes;
        let (by_token, by_cgroup) = (
            requirements.has(Attestor::K8sToken),
            requirements.has(Attestor::K8sCgroup),
        );
        if by_token && kubernetes.jwks_file.is_some() == kubernetes.jwks_url.is_some() {
            refuse("jwks_file or jwks_url: k8s-token needs one of them");
        }
        if by_cgroup && requirements.agent_images.is_empty() {
            refuse(
                "[attest] agent_images: k8s-cgroup needs it, or an app into whose container the socket was mounted would pass",
            );
        }
        if by_cgroup && kubernetes.pods_file.is_some() == kubernetes.kubelet_url.is_some() {
            refuse(
                "pods_file or kubelet_url: k8s-cgroup needs one of them to know a container's image",
            );
        }
        if kubernetes.token_review && !(by_token && kubernetes.api_server.is_some()) {
            refuse("token_review: needs k8s-token and api_server");
        }
        let urls = [
            ("jwks_url", &kubernetes.jwks_url),
            ("api_server", &kubernetes.api_server),
            ("kubelet_url", &kubernetes.kubelet_url),
        ];
        for (name, url) in urls {
            if url
                .as_deref()
                .is_some_and(|url| Endpoint::parse(url).is_none())
            {
                refuse(&format!(
                    "{name}: must be https://HOST[:PORT]/PATH, or http:// to 127.0.0.1 or [::1]"
                ));
            }
        }
    }
}

fn read_policy(path: &Path, requirements: &Requirements) -> Result<Policy, Vec<String>> {
    let unread = |error: std::io::Error| vec![format!("cannot be read: {error}")];
    if std::fs::metadata(path).map_err(unread)?.len() > POLICY_MAX {
        return Err(vec!["is longer than 1 MiB".to_owned()]);
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    Policy::parse(&text, Judge::Daemon, requirements)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn load(text: &str) -> Result<Rules, Vec<String>> {
        toml::from_str::<AttestConfig>(text).unwrap().load()
    }

    #[test]
    fn an_empty_table_is_the_kernels_word_and_the_caller_rules() {
        assert_eq!(load("").unwrap(), Rules::default());
    }

    #[test]
    fn each_attestor_wants_what_it_cannot_do_without() {
        let images = format!("agent_images = [\"sha256:{}\"]\n", "a".repeat(64));
        let good = format!(
            "require = [\"unix\", \"k8s-cgroup\", \"k8s-token\"]\n{images}[kubernetes]\nissuer = \"i\"\naudience = \"a\"\njwks_file = \"/j\"\nkubelet_url = \"https://127.0.0.1:10250/pods\"\n"
        );
        assert!(load(&good).is_ok());
        for (from, to, named) in [
            ("jwks_file = \"/j\"", "", "jwks_file or jwks_url"),
            (
                "jwks_file = \"/j\"",
                "jwks_file = \"/j\"\njwks_url = \"https://h/j\"",
                "jwks_file or jwks_url",
            ),
            (
                "https://127.0.0.1",
                "http://10.0.0.1",
                "kubelet_url: must be",
            ),
            (
                "kubelet_url = \"https://127.0.0.1:10250/pods\"",
                "",
                "pods_file or kubelet_url",
            ),
            (images.as_str(), "", "agent_images: k8s-cgroup needs it"),
            ("issuer = \"i\"", "", "issuer and audience"),
            ("issuer", "token_review = true\nissuer", "token_review"),
        ] {
            let reasons = load(&good.replace(from, to)).unwrap_err().join("\n");
            assert!(reasons.contains(named), "{named} in {reasons}");
        }
    }

    #[test]
    fn the_policys_errors_stand_beside_the_files_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[rule]]\nname = \"x\"\n").unwrap();
        let text = format!("policy = \"{}\"", file.path().display());
        let reasons = load(&text).unwrap_err().join("\n");
        assert!(
            reasons.contains("no condition") && reasons.contains("environments"),
            "{reasons}"
        );
        assert!(load("policy = \"/nowhere/at/all\"").is_err());
    }
}
