//! The alert rules that ship: whole, and about metrics that exist. What `promtool check rules` says of their syntax is for whoever has it;
//! this holds without it.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One rule: its fields, by name.
#[derive(Debug, Default)]
struct Rule(Vec<(String, String)>);

impl Rule {
    fn field(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found
            .map(|(_, value)| value.as_str())
            .with_context(|| format!("no {name} in {self:?}"))
    }
}

/// Reads the small part of YAML in which the file is written: maps of two blanks a level, and texts on one line.
fn rules(text: &str) -> anyhow::Result<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        ensure!(!line.contains('\t') && line == line.trim_end(), "{line:?}");
        let indent = line.len() - line.trim_start().len();
        ensure!(indent % 2 == 0, "{line:?}");
        let line = line.trim_start();
        let (name, value) = line
            .trim_start_matches("- ")
            .split_once(':')
            .with_context(|| format!("no field: {line:?}"))?;
        if line.starts_with("- alert:") {
            rules.push(Rule::default());
        }
        if let Some(rule) = rules.last_mut() {
            rule.0.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    Ok(rules)
}

/// The metrics that an expression names.
fn metrics(expr: &str) -> Vec<&str> {
    expr.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with("tacit_"))
        .collect()
}

#[test]
fn every_rule_is_whole_and_about_metrics_that_exist() -> anyhow::Result<()> {
    let source = |path: &str| std::fs::read_to_string(root().join(path));
    let (agent, hsmd) = (
        source("agent/src/metrics.rs")?,
        source("hsmd/src/metrics.rs")?,
    );
    let exists = |metric: &str| match metric.strip_prefix("tacit_hsmd_") {
        Some(name) => hsmd.contains(&format!("\"{name}\"")),
        None => agent.contains(&format!("\"{metric}\"")),
    };
    assert!(!exists("tacit_hsmd_nothing") && !exists("tacit_agent_nothing"));

    let rules = rules(&source("deploy/alerts/tacit.rules.yml")?)?;
    ensure!(rules.len() >= 4, "{rules:?}");
    for rule in &rules {
        let (name, expr) = (rule.field("alert")?, rule.field("expr")?);
        let named = metrics(expr);
        ensure!(!named.is_empty(), "{name}: {expr}");
        for metric in named {
            ensure!(
                exists(metric),
                "{name} is about {metric}, which is not there"
            );
        }
        ensure!(
            ["warning", "critical"].contains(&rule.field("severity")?),
            "{rule:?}"
        );
        for text in ["summary", "description"] {
            let value = rule.field(text)?;
            ensure!(
                value.len() > 20 && value.starts_with('"') && value.ends_with('"'),
                "{name}: {value}"
            );
        }
        let wait = rule.field("for")?;
        ensure!(wait.trim_end_matches('m').parse::<u32>().is_ok(), "{wait}");
    }
    let margin = rules.iter().filter(|rule| {
        rule.0
            .iter()
            .any(|(_, value)| value.contains("tacit_agent_quorum_margin"))
    });
    ensure!(
        margin.count() == 2,
        "a margin that shrinks, and one that is gone"
    );
    Ok(())
}
