//! `[hardening]`, and `hardening = { … }` of a custodian.

use std::collections::BTreeSet;
use std::path::PathBuf;

use confine::Settings;
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hardening {
    /// Measures without which the process does not start.
    pub require: Require,
    /// Measures that are not taken.
    pub off: Vec<String>,
    /// Files and directories to be read besides those that the configuration names.
    pub read: BTreeSet<PathBuf>,
    /// Files and directories to be changed besides.
    pub write: BTreeSet<PathBuf>,
    /// TCP ports to connect to.
    pub connect: BTreeSet<u16>,
}

/// `true`, or a list of measures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Require {
    /// All, or none.
    All(bool),
    /// These.
    These(Vec<String>),
}

impl Default for Require {
    fn default() -> Self {
        Self::All(false)
    }
}

impl Hardening {
    /// The same, with names that are measures.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings {
            read: self.read.clone(),
            write: self.write.clone(),
            connect: self.connect.clone(),
            ..Settings::default()
        };
        match &self.require {
            Require::All(true) => settings.require_all(),
            Require::All(false) => {}
            Require::These(names) => settings
                .require(names.iter().map(String::as_str))
                .map_err(|rule| format!("require: {rule}"))?,
        }
        settings
            .off(self.off.iter().map(String::as_str))
            .map_err(|rule| format!("off: {rule}"))?;
        match settings.contradiction() {
            Some(rule) => Err(rule.to_owned()),
            None => Ok(settings),
        }
    }
}
