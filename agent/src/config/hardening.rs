//! `[hardening]` and `[memory]`: what the process gives up before it serves, and where keys may lie.

use std::collections::BTreeSet;
use std::path::PathBuf;

use confine::Settings;
use secret::Tier;
use toml::Value;

use super::reader::Fields;

/// `[memory]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The lowest tier that will do: below it the agent does not start.
    pub require: Tier,
    /// The only tier to use, where the best is not wanted.
    pub tier: Option<Tier>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            require: Tier::Locked,
            tier: None,
        }
    }
}

impl Memory {
    /// The tiers that will do, best first.
    pub fn tiers(&self) -> Vec<Tier> {
        let all = [Tier::MemfdSecret, Tier::Locked];
        let lowest = all.iter().position(|tier| *tier == self.require);
        let enough = all.into_iter().take(lowest.map_or(0, |at| at + 1));
        enough
            .filter(|tier| self.tier.is_none_or(|only| only == *tier))
            .collect()
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        const RULE: &str = "must be \"memfd_secret\" or \"locked\"";
        let require = fields.parse("require", Tier::Locked.name(), RULE)?;
        let tier = match fields.text("tier") {
            Some(text) => match text.parse() {
                Ok(tier) => Some(tier),
                Err(_) => {
                    fields.refuse("tier", RULE);
                    return None;
                }
            },
            None => None,
        };
        let memory = Self { require, tier };
        if memory.tiers().is_empty() {
            fields.refuse("tier", "is lower than what require asks for");
            return None;
        }
        Some(memory)
    }
}

/// Reads `[hardening]`.
pub(super) fn read(fields: &mut Fields<'_>) -> Settings {
    let mut settings = Settings::default();
    let required = match fields.any("require") {
        None | Some(Value::Boolean(false)) => Ok(()),
        Some(Value::Boolean(true)) => {
            settings.require_all();
            Ok(())
        }
        Some(Value::Array(list)) => {
            settings.require(list.iter().map(|one| one.as_str().unwrap_or("")))
        }
        Some(_) => Err(confine::UnknownMeasure::Require),
    };
    if let Err(rule) = required {
        fields.refuse("require", &rule.to_string());
    }
    let off = fields.texts("off").unwrap_or_default();
    if let Err(rule) = settings.off(off.iter().map(String::as_str)) {
        fields.refuse("off", &rule.to_string());
    }
    let paths = |list: Option<Vec<String>>| -> BTreeSet<PathBuf> {
        list.unwrap_or_default()
            .into_iter()
            .map(PathBuf::from)
            .collect()
    };
    settings.read = paths(fields.texts("read"));
    settings.write = paths(fields.texts("write"));
    settings.connect = ports(fields);
    if let Some(rule) = settings.contradiction() {
        fields.refuse("", rule);
    }
    settings
}

fn ports(fields: &mut Fields<'_>) -> BTreeSet<u16> {
    let read = match fields.any("connect") {
        None => return BTreeSet::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| {
                u16::try_from(one.as_integer()?)
                    .ok()
                    .filter(|port| *port > 0)
            })
            .collect(),
        Some(_) => None,
    };
    read.unwrap_or_else(|| {
        fields.refuse("connect", "must be a list of TCP ports");
        BTreeSet::new()
    })
}
