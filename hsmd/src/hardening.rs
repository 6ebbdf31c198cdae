//! What the daemon needs of the machine, made from its configuration; everything else is given up before it serves.
//!
//! With token processes that are services of their own it needs little: its state, the directories of its sockets, its one
//! port for operators, and no program. Where it starts them itself (the embedded default) its children have no more than
//! it has, so it keeps what they need; they give that up in their turn. What it never keeps is a way to connect anywhere
//! that no custodian's setting names.

use std::path::{Path, PathBuf};

use confine::{Capability, Plan, Settings};

use crate::config::Config;

/// Everything that this configuration needs, of this process and of its children.
///
/// # Errors
/// What an operator must hear who cannot have a token process started.
pub fn plan(config: &Config, config_file: &Path, announce: Option<&Path>) -> Result<Plan, String> {
    let mut plan = Plan::new();
    plan.reads_file(config_file);
    // Who a caller is: its control group, from /proc.
    plan.read.insert(PathBuf::from("/proc"));
    plan.write.insert(config.state_dir.clone());
    plan.writes_file(&config.workload_socket);
    plan.writes_file(&config.admin_socket);
    if let Some(file) = announce {
        plan.writes_file(file);
    }
    plan.listens(config.admin_listen.port());
    if config.workload_group.is_some() {
        // Root alone has it: to give the socket to a group that it is no member of.
        plan.capabilities.push(Capability::CAP_CHOWN);
    }
    for token in config.tokens() {
        if let Some(needed) = hsm::confinement_of_parent(&token)? {
            plan.merge(needed);
        }
    }
    attestation(&mut plan, config);
    plan.add(&config.hardening.settings().unwrap_or_default());
    Ok(plan)
}

/// The policy and the word of Kubernetes: files that are read again, and where the API server and the kubelet are asked.
fn attestation(plan: &mut Plan, config: &Config) {
    let (attest, kubernetes) = (&config.attest, &config.attest.kubernetes);
    let files = [
        &attest.policy,
        &attest.token_gate,
        &kubernetes.jwks_file,
        &kubernetes.ca_file,
        &kubernetes.api_token_file,
        &kubernetes.pods_file,
        &kubernetes.kubelet_ca_file,
        &kubernetes.kubelet_token_file,
    ];
    for file in files.into_iter().flatten() {
        plan.reads_file(file);
    }
    let urls = [
        &kubernetes.jwks_url,
        &kubernetes.api_server,
        &kubernetes.kubelet_url,
    ];
    let ports = urls.into_iter().flatten().filter_map(|url| port(url));
    plan.connect.extend(ports);
}

/// The port of a URL that the configuration's check has accepted.
fn port(url: &str) -> Option<u16> {
    let uri: http::Uri = url.parse().ok()?;
    let usual = match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    Some(uri.port_u16().unwrap_or(usual))
}

/// `[hardening]`, with off what a child's custodian has turned off: a child cannot have more than its parent.
pub fn settings(config: &Config) -> Settings {
    let mut settings = config.hardening.settings().unwrap_or_default();
    for one in &config.custodians {
        if one.token_socket.is_none() {
            let own = one.hardening.settings().unwrap_or_default();
            for measure in own.off.difference(&settings.off) {
                tracing::warn!(custodian = %one.id, measure = measure.name(), "off for the daemon as well, whose child the token process is; give it a token_socket");
            }
            settings.off.extend(own.off);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use confine::{Measure, Programs};

    use super::*;

    fn config(more: &str) -> Config {
        let text = format!(
            r#"
            state_dir = "/var/lib/tacit"
            workload_socket = "/run/tacit/hsmd.sock"
            admin_socket = "/run/tacit/admin.sock"
            admin_listen = "127.0.0.1:4110"
            threshold = 2
            [[custodian]]
            id = "a"
            module = "/usr/lib/a.so"
            token_label = "a"
            pin_file = "/etc/tacit/pin-a"
            token_socket = "/run/tacit-token/a/token.sock"
            [[custodian]]
            id = "b"
            module = "/usr/lib/b.so"
            token_label = "b"
            pin_file = "/etc/tacit/pin-b"
            {more}
            "#
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path()).unwrap()
    }

    const SERVICE: &str = "token_socket = \"/run/tacit-token/b/token.sock\"";

    #[test]
    fn a_daemon_of_services_starts_nothing_and_connects_nowhere() {
        let plan = plan(&config(SERVICE), Path::new("/etc/tacit/hsmd.toml"), None).unwrap();
        assert_eq!(plan.programs, Programs::None);
        assert!(plan.execute.is_empty() && plan.connect.is_empty());
        assert_eq!(plan.bind, [4110].into());
        assert_eq!(
            plan.write,
            ["/run/tacit".into(), "/var/lib/tacit".into()].into()
        );
        assert!(!plan.read.contains(Path::new("/")) && plan.capabilities.is_empty());
    }

    #[test]
    fn a_daemon_that_asks_kubernetes_keeps_the_way_there_and_no_other() {
        let pods = tempfile::NamedTempFile::new().unwrap();
        let more = format!(
            r#"{SERVICE}
            [attest]
            require = ["unix", "k8s-cgroup", "k8s-token"]
            agent_images = ["sha256:{}"]
            [attest.kubernetes]
            issuer = "https://issuer.example"
            audience = "tacit"
            jwks_url = "https://api.example/openid/v1/jwks"
            kubelet_url = "https://127.0.0.1:10250/pods"
            kubelet_token_file = "{}"
            "#,
            "0".repeat(64),
            pods.path().display(),
        );
        let plan = plan(&config(&more), Path::new("/etc/tacit/hsmd.toml"), None).unwrap();
        assert_eq!(plan.connect, [443, 10250].into());
        assert!(plan.read.contains(pods.path().parent().unwrap()));
    }

    #[test]
    fn what_a_childs_custodian_turns_off_is_off_for_its_parent() {
        let off = "hardening = { off = [\"landlock\"], connect = [1792] }";
        assert!(settings(&config(off)).off.contains(&Measure::Landlock));
        assert!(settings(&config(SERVICE)).off.is_empty());
    }
}
