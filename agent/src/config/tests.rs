#![allow(clippy::unwrap_used)]
use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let mut env = |name: &str| (name == "DEV_KEY").then(|| "sk-development".into());
    Config::parse(text, &mut env).map_err(|error| error.to_string())
}

const FULL: &str = r#"
name = "px_acme_prod"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
hsmd = ["/run/tacit/hsmd.sock", "unix:/run/other.sock"]
custodians = "/etc/tacit/custodians.json"
hosts = ["Tacit.ns.svc"]
[tls]
listen = "127.0.0.1:0"
ca_file = "/run/app/ca.pem"
[lease]
ttl = "0s"
[providers.openai]
secret_key_ref = { store = "openai-prod" }
base_url = "https://gateway.example:8443"
mode = "live"
[providers.llm-internal]
family = "openai"
base_url = "https://llm.internal.example"
secret_key_ref = { env = "DEV_KEY" }
"#;

fn live(provider: &Provider) -> &Live {
    match &provider.source {
        Source::Live(live) => live,
        Source::Mock => panic!("a live provider"),
    }
}

#[test]
fn reads_every_field_of_the_contract() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.name, "px_acme_prod");
    assert_eq!(config.hsmd[1], Path::new("/run/other.sock"));
    assert_eq!(config.lease.ttl, Duration::ZERO);
    assert_eq!(config.hosts, ["tacit.ns.svc"]);
    let tls = config.tls.unwrap();
    assert_eq!(tls.listen.to_string(), "127.0.0.1:0");
    assert_eq!(tls.ca_file, Path::new("/run/app/ca.pem"));
    let openai = config
        .providers
        .iter()
        .find(|p| p.name == "openai")
        .unwrap();
    let live = live(openai);
    assert_eq!(live.origin.to_string(), "https://gateway.example:8443");
    assert!(matches!(&live.targets[0].key, KeyRef::Store(id) if id.as_str() == "openai-prod"));
}

#[test]
fn the_shortest_file_has_defaults() {
    let config = parse("[providers.gemini]\nsecret_key_ref = { store = \"g\" }").unwrap();
    assert_eq!(config.listen.to_string(), LISTEN);
    assert_eq!(config.tls, None);
    assert_eq!(
        config.lease,
        Lease {
            ttl: Duration::from_secs(60),
            offline_grace: Duration::ZERO
        }
    );
    assert_eq!(
        live(&config.providers[0]).origin.to_string(),
        "https://generativelanguage.googleapis.com"
    );
}

#[test]
fn an_empty_tls_table_has_defaults() {
    let config = parse("[tls]\n[providers.gemini]\nsecret_key_ref = { store = \"g\" }").unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.listen.to_string(), "127.0.0.1:4143");
    assert_eq!(tls.ca_file, Path::new("/run/tacit-agent/ca.pem"));
}

#[test]
fn reports_every_error_at_once_and_no_value() {
    let text = r#"
listen = "sk-secret-1"
hsmd = ["https://sk-secret-2"]
colour = "sk-secret-3"
[lease]
ttl = "sk-secret-4"
[providers.openai]
secret_key_ref = { store = "sk secret 5" }
base_url = "http://sk-secret-6.example"
mode = "sk-secret-7"
[providers.mine]
secret_key_ref = { env = "MISSING" }
"#;
    let error = parse(text).unwrap_err();
    for field in [
        "listen:",
        "hsmd:",
        "colour:",
        "lease.ttl:",
        "providers.openai.secret_key_ref.store:",
        "providers.openai.base_url:",
        "providers.openai.mode:",
        "providers.mine.family:",
        "providers.mine.base_url:",
        "providers.mine.secret_key_ref.env:",
    ] {
        assert!(error.contains(field), "{field} in\n{error}");
    }
    assert!(
        !error.contains("secret-") && !error.contains("secret 5"),
        "{error}"
    );
}

#[test]
fn neighbours_of_good_values_are_refused() {
    for (from, to) in [
        ("\"0s\"", "\"0\""),
        ("\"0s\"", "\"25h\""),
        ("\"0s\"", "0"),
        ("\"live\"", "\"Live\""),
        (
            "{ store = \"openai-prod\" }",
            "{ store = \"a\", file = \"/b\" }",
        ),
        ("{ store = \"openai-prod\" }", "\"openai-prod\""),
        (
            "{ store = \"openai-prod\" }",
            "{ file = \"/nonexistent/key\" }",
        ),
        (
            "https://gateway.example:8443",
            "https://gateway.example:8443/v1",
        ),
        (
            "https://gateway.example:8443",
            "http://gateway.example:8443",
        ),
        ("family = \"openai\"", "family = \"llama\""),
        ("\"/run/app/ca.pem\"", "\"run/app/ca.pem\""),
        ("\"/run/app/ca.pem\"", "\"/run/..\""),
        ("\"Tacit.ns.svc\"", "\"tacit ns\""),
        ("ca_file", "cert_file"),
        ("ttl = \"0s\"", "ttl = \"0s\"\noffline_grace = \"1s\""),
    ] {
        assert!(FULL.contains(from));
        assert!(parse(&FULL.replacen(from, to, 1)).is_err(), "{to}");
    }
    let broken = parse("listen = sk-secret").unwrap_err();
    assert!(
        broken.contains("line 1") && !broken.contains("sk-"),
        "{broken}"
    );
}

const SEVERAL: &str = r#"
[providers.openai]
fallback = ["groq", "mine"]
allow_addresses = ["10.0.0.0/8"]
[providers.openai.aliases]
fast = "gpt-5.4-mini"
[[providers.openai.target]]
id = "primary"
secret_key_ref = { store = "openai-1" }
weight = 9
[[providers.openai.target]]
id = "second"
secret_key_ref = { store = "openai-2" }
[providers.groq]
secret_key_ref = { store = "groq" }
[providers.mine]
family = "openai"
base_url = "https://llm.internal.example"
secret_key_ref = { store = "mine" }
[providers.anthropic]
mode = "mock"
"#;

#[test]
fn reads_several_keys_aliases_and_fallbacks() {
    let config = parse(SEVERAL).unwrap();
    let named = |name: &str| config.providers.iter().find(|p| p.name == name).unwrap();
    let openai = named("openai");
    let targets: Vec<(&str, u32)> = live(openai)
        .targets
        .iter()
        .map(|target| (target.id.as_str(), target.weight))
        .collect();
    assert_eq!(targets, [("primary", 9), ("second", 1)]);
    assert_eq!(openai.aliases["fast"], "gpt-5.4-mini");
    assert_eq!(openai.fallback, ["groq", "mine"]);
    assert_eq!(live(openai).networks.len(), 1);
    assert!(matches!(named("anthropic").source, Source::Mock));
    assert_eq!(live(named("groq")).targets[0].id, "groq");
}

#[test]
fn neighbours_of_good_targets_and_fallbacks_are_refused() {
    for (from, to) in [
        ("id = \"second\"", "id = \"primary\""),
        ("id = \"second\"", "id = \"se cond\""),
        ("weight = 9", "weight = 1001"),
        ("weight = 9", "weight = -1"),
        ("weight = 9", "wait = 9"),
        ("fallback = [\"groq\", \"mine\"]", "fallback = [\"openai\"]"),
        (
            "fallback = [\"groq\", \"mine\"]",
            "fallback = [\"groq\", \"groq\"]",
        ),
        ("fallback = [\"groq\", \"mine\"]", "fallback = [\"nobody\"]"),
        (
            "fallback = [\"groq\", \"mine\"]",
            "fallback = [\"anthropic\"]",
        ),
        ("10.0.0.0/8", "10.0.0.0/33"),
        ("fast = \"gpt-5.4-mini\"", "fast = 3"),
        ("fast = \"gpt-5.4-mini\"", "fast = \"a b\""),
    ] {
        assert!(SEVERAL.contains(from), "{from}");
        assert!(parse(&SEVERAL.replacen(from, to, 1)).is_err(), "{to}");
    }
    let idle = SEVERAL.replace("weight = 9", "weight = 0").replace(
        "secret_key_ref = { store = \"openai-2\" }",
        "secret_key_ref = { store = \"openai-2\" }\nweight = 0",
    );
    assert!(parse(&idle).unwrap_err().contains("weight above 0"));
}

#[test]
fn hardening_and_memory_are_read_and_their_contradictions_refused() {
    use confine::Measure;
    use secret::Tier;
    let with = |more: &str| {
        parse(&format!(
            "{more}\n[providers.gemini]\nsecret_key_ref = {{ store = \"g\" }}"
        ))
    };
    let config = with("").unwrap();
    assert_eq!(config.hardening, confine::Settings::default());
    assert_eq!(config.memory.tiers(), [Tier::MemfdSecret, Tier::Locked]);
    let config = with(
        "[hardening]\nrequire = [\"landlock\"]\noff = [\"seccomp\"]\nread = [\"/srv/more\"]\nconnect = [3128]\n\
         [memory]\nrequire = \"memfd_secret\"",
    )
    .unwrap();
    assert_eq!(config.hardening.require, [Measure::Landlock].into());
    assert_eq!(config.hardening.off, [Measure::Seccomp].into());
    assert_eq!(config.hardening.connect, [3128].into());
    assert_eq!(config.memory.tiers(), [Tier::MemfdSecret]);
    let config = with("[hardening]\nrequire = true\n[memory]\ntier = \"locked\"").unwrap();
    assert_eq!(config.hardening.require, Measure::ALL.into());
    assert_eq!(config.memory.tiers(), [Tier::Locked]);
    for (bad, named) in [
        ("[hardening]\nrequire = \"sk-pasted\"", "hardening.require"),
        ("[hardening]\noff = [\"sk-pasted\"]", "hardening.off"),
        ("[hardening]\noff = [\"dumps\"]", "hardening.off"),
        (
            "[hardening]\nrequire = true\noff = [\"seccomp\"]",
            "hardening",
        ),
        ("[hardening]\nread = [\"more\"]", "hardening"),
        ("[hardening]\nconnect = [0]", "hardening.connect"),
        ("[hardening]\nconnect = [65536]", "hardening.connect"),
        (
            "[hardening]\nconect = [1]",
            "hardening.conect: unknown field",
        ),
        ("[memory]\nrequire = \"sk-pasted\"", "memory.require"),
        ("[memory]\ntier = \"sk-pasted\"", "memory.tier"),
        (
            "[memory]\nrequire = \"memfd_secret\"\ntier = \"locked\"",
            "memory.tier",
        ),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.contains(named), "{bad}: {error}");
        assert!(!error.contains("sk-pasted"), "{error}");
    }
}

#[test]
fn the_users_of_daemons_are_one_for_all_or_one_for_each() {
    let with = |line: &str| {
        parse(&format!(
            "hsmd = [\"/a\", \"/b\"]\n{line}\n[providers.gemini]\nsecret_key_ref = {{ store = \"g\" }}"
        ))
    };
    assert_eq!(with("").unwrap().hsmd_uids, [None, None]);
    assert_eq!(with("hsmd_uid = 7").unwrap().hsmd_uids, [Some(7), Some(7)]);
    let each = with("hsmd_uid = [7, 8]").unwrap();
    assert_eq!(each.hsmd_uids, [Some(7), Some(8)]);
    for bad in [
        "[7]",
        "[7, 8, 9]",
        "[]",
        "[7, -1]",
        "[7, \"x\"]",
        "-1",
        "\"x\"",
    ] {
        let refused = with(&format!("hsmd_uid = {bad}")).unwrap_err();
        assert!(refused.contains("hsmd_uid"), "{bad}: {refused}");
    }
}
