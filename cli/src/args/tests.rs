//! The command line: what parses, what does not, and that no argument can take a secret.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_of_the_contract_parses() {
    for line in [
        "tacit trust show",
        "tacit trust pin --yes",
        "tacit trust pin --sealer dev=00",
        "tacit sealer new --pin dev",
        "tacit sealer show --output json",
        "tacit key seal k --provider openai --version 3",
        "tacit key add k --provider openai --environment production --team a --team b --upstream *",
        "tacit key add k --sealed f --allow-missing --no-test",
        "tacit key add k --provider openai --permission chat --permission * --model gpt-4o --model ft:x --project p",
        "tacit key add k --sealed f --organization o --location l --resource r --region r",
        "tacit key set k --permission ephemeral-keys --model * --environment e --team t --description d --no-wait",
        "tacit key set k --reset models --reset project",
        "tacit key list --output json",
        "tacit key show k",
        "tacit key verify k --version 2 --receipt r --nonce 00 --statement-out s",
        "tacit key rotate k --from-file f --no-wait",
        "tacit key rollback k",
        "tacit key test k --agent px",
        "tacit key revoke -- -older-daemon-took-it",
        "tacit key verify k --statement-out ./-s --receipt ../r",
        "tacit key revoke k --no-wait --reason leaked --compromised",
        "tacit key destroy k --yes",
        "tacit verify-statement f",
        "tacit custodian unlatch a",
        "tacit custodian rekey-store",
        "tacit backup create f",
        "tacit backup verify f --output json",
        "tacit backup accept f --out g",
        "tacit backup restore f --config c --dry-run",
        "tacit agent reload",
        "tacit agent status px",
        "tacit status",
        "tacit doctor --socket /s --trust /t",
        "tacit dev --dir d --listen 127.0.0.1:0 --json",
        "tacit run -- python app.py --flag",
    ] {
        let outcome = parse(line);
        assert!(outcome.is_ok(), "{line}: {}", outcome.expect_err("refused"));
    }
}

#[test]
fn near_misses_are_refused() {
    for line in [
        "tacit key add k",
        "tacit key add k/../x --provider openai",
        "tacit key add k --provider openai --upstream http://api.openai.com",
        "tacit key add k --provider openai --upstream https://api.openai.com/v1",
        "tacit key add k --sealed f --provider openai",
        "tacit key add k --sealed f --from-file g",
        "tacit key add k --provider openai sk-proj-as-an-argument",
        "tacit key add k --provider openai --permission everything",
        "tacit key set --model m",
        "tacit key set k --reset description",
        "tacit key set k --reset gpt-4o",
        "tacit key set k --provider openai",
        "tacit key set k --upstream *",
        "tacit key seal k --provider openai --version 0",
        "tacit key seal k --provider openai --secret x",
        "tacit run",
        "tacit key test",
        "tacit key seal .. --provider openai",
        "tacit key add . --provider openai",
        "tacit key add --provider openai -- -rf",
        "tacit key seal --provider openai -- --yes",
        "tacit key seal k --provider openai --receipt=-",
        "tacit key seal k --provider openai --receipt=..",
        "tacit key verify k --statement-out=-",
        "tacit key verify k --statement-out=--yes",
        "tacit key verify k --statement-out .",
        "tacit key verify k --statement-out /",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn the_help_names_every_provider_and_every_permission() {
    let help = |line: &str| {
        let error = parse(line).expect_err("help is an error to clap");
        error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let add = help("tacit key add --help");
    for provider in providers::all() {
        assert!(add.contains(provider.name), "{}: {add}", provider.name);
    }
    let set = help("tacit key set --help");
    for permission in providers::Permission::ALL {
        assert!(set.contains(permission.name()), "{permission:?}: {set}");
    }
}

#[test]
fn the_empty_word_is_a_value() {
    let line = [
        "tacit",
        "key",
        "set",
        "k",
        "--model",
        "",
        "--permission",
        "",
    ];
    assert!(Cli::try_parse_from(line).is_ok());
}

#[test]
fn a_refused_key_id_is_not_repeated_in_the_rule() {
    // clap shows the value that it refused; a pasted key would be on the screen anyway, but the rule itself is ours.
    let error = "sk/secret".parse::<custody::KeyId>().expect_err("refused");
    assert!(!error.to_string().contains("sk/secret"));
}
