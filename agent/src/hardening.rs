//! What the agent needs of the machine, made from its configuration; everything else is given up before it serves.
//!
//! It reads its configuration, the trust file, certificates and key files, and the system's own; it writes nothing but the
//! CA certificate for apps; it connects to the ports of the configured origins and to DNS, listens on its own, and starts no
//! program. `hsmd` is reached through Unix sockets, which the file system's own permissions guard.

use std::path::Path;

use confine::Plan;

use crate::config::{Config, KeyRef, Provider, Source};

/// DNS over TCP, for answers that do not fit a datagram.
const DNS_PORT: u16 = 53;

/// Everything that this configuration needs, of this process.
pub fn plan(config: &Config, config_file: &Path, announce: Option<&Path>) -> Plan {
    let mut plan = Plan::new();
    plan.reads_file(config_file);
    plan.reads_file(&config.custodians);
    for bundle in crate::trust_roots::BUNDLES {
        plan.reads_file(Path::new(bundle));
    }
    if let Some(file) = &config.token_file {
        plan.reads_file(file);
    }
    plan.connect.insert(DNS_PORT);
    for provider in &config.providers {
        if let Source::Live(live) = &provider.source {
            plan.connect.insert(live.origin.port());
            if let Some(file) = &live.ca_file {
                plan.reads_file(file);
            }
        }
    }
    for key in config.providers.iter().flat_map(Provider::keys) {
        if let KeyRef::Fixed(_, Some(file)) = key {
            plan.reads_file(file);
        }
    }
    plan.listens(config.listen.port());
    plan.listens(config.admin_listen.port());
    if let Some(tls) = &config.tls {
        plan.listens(tls.listen.port());
        plan.writes_file(&tls.ca_file);
    }
    if let Some(file) = announce {
        plan.writes_file(file);
    }
    plan.add(&config.hardening);
    plan
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn plan_of(text: &str) -> Plan {
        let config = Config::parse(text, &mut |_| Some("sk-development".into())).unwrap();
        plan(&config, Path::new("/opt/tacit/agent.toml"), None)
    }

    #[test]
    fn an_agent_connects_to_its_origins_and_dns_and_writes_nothing() {
        let plan = plan_of(
            "listen = \"127.0.0.1:4100\"\n[providers.openai]\nsecret_key_ref = { env = \"K\" }\n\
             [providers.own]\nfamily = \"openai\"\nbase_url = \"https://llm.example:8443\"\nca_file = \"/srv/ca/own.pem\"\n\
             secret_key_ref = { store = \"own\" }\n\
             [attest]\ntoken_file = \"/var/run/tacit/token\"",
        );
        assert_eq!(plan.connect, [53, 443, 8443].into());
        assert_eq!(plan.bind, [4100, 4101].into());
        assert!(plan.write.is_empty() && plan.execute.is_empty());
        assert!(plan.capabilities.is_empty());
        for place in [
            "/opt/tacit",
            "/srv/ca",
            "/etc/tacit",
            "/etc",
            "/var/run/tacit",
        ] {
            assert!(plan.read.contains(Path::new(place)), "{place}");
        }
        assert!(!plan.read.contains(Path::new("/srv")));
    }

    #[test]
    fn a_ca_file_for_apps_is_all_that_is_written_and_a_low_port_all_that_is_kept() {
        let plan = plan_of(
            "listen = \"127.0.0.1:80\"\n[tls]\nca_file = \"/run/tacit-agent/ca.pem\"\n\
             [hardening]\nconnect = [3128]\nread = [\"/srv/more\"]\n[providers.openai]\nsecret_key_ref = { store = \"k\" }",
        );
        assert_eq!(plan.write, ["/run/tacit-agent".into()].into());
        assert_eq!(
            plan.capabilities,
            [confine::Capability::CAP_NET_BIND_SERVICE]
        );
        assert!(plan.connect.contains(&3128) && plan.read.contains(Path::new("/srv/more")));
    }
}
