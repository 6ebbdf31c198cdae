//! Checks with their verdicts, and how they are shown.

use serde_json::json;

use crate::output::{Output, clean};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) finding: String,
    pub(super) next: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Check>);

impl Report {
    pub(super) fn ok(&mut self, name: &'static str, finding: impl Into<String>) {
        self.add(name, Verdict::Ok, finding.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        name: &'static str,
        finding: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.add(name, Verdict::Warn, finding.into(), Some(next.into()));
    }

    pub(super) fn fail(
        &mut self,
        name: &'static str,
        finding: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.add(name, Verdict::Fail, finding.into(), Some(next.into()));
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, finding: String, next: Option<String>) {
        self.0.push(Check {
            name,
            verdict,
            finding,
            next,
        });
    }
}

/// Shows the report; false when a check failed.
pub(super) fn tell(report: &Report, output: &Output) -> bool {
    let mut text = String::new();
    for check in &report.0 {
        let word = check.verdict.word();
        text += &format!("{word:4}  {}: {}\n", check.name, clean(&check.finding));
        if let Some(next) = &check.next {
            text += &format!("      next: {}\n", clean(next));
        }
    }
    let failed = report
        .0
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    let warned = report
        .0
        .iter()
        .filter(|check| check.verdict == Verdict::Warn)
        .count();
    text += &format!(
        "{} checks, {warned} warnings, {failed} failures",
        report.0.len()
    );
    let checks: Vec<_> = report
        .0
        .iter()
        .map(|check| {
            json!({
                "check": check.name, "verdict": check.verdict.word(), "finding": check.finding,
                "next": check.next,
            })
        })
        .collect();
    output.result(
        &text,
        &json!({"checks": checks, "warnings": warned, "failures": failed}),
    );
    failed == 0
}
