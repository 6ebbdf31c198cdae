//! Typed reading of a TOML table that collects what is wrong instead of stopping at the first.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::str::FromStr;
use std::time::Duration;

use secret::{FileError, Secret, check_header_safe};
use toml::{Table, Value};
use zeroize::Zeroizing;

/// Where variables come from; tests bring their own.
pub type Env<'a> = &'a mut dyn FnMut(&str) -> Option<OsString>;

/// The fields of one table; each is taken out as it is read, and what is left at the end is unknown.
pub struct Fields<'a> {
    prefix: String,
    table: Table,
    reasons: &'a mut Vec<String>,
}

impl<'a> Fields<'a> {
    /// A table at `prefix` (empty for the root).
    pub fn new(prefix: &str, table: Table, reasons: &'a mut Vec<String>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            table,
            reasons,
        }
    }

    /// A table within this one.
    pub fn inner(&mut self, name: &str, table: Table) -> Fields<'_> {
        Fields {
            prefix: self.path(name),
            table,
            reasons: self.reasons,
        }
    }

    /// Refuses every field that nobody has read.
    pub fn finish(self) {
        for name in self.table.keys() {
            let path = if self.prefix.is_empty() {
                name.clone()
            } else {
                format!("{}.{name}", self.prefix)
            };
            self.reasons.push(format!("{path}: unknown field"));
        }
    }

    /// Notes that a field breaks a rule.
    pub fn refuse(&mut self, name: &str, rule: &str) {
        let path = self.path(name);
        self.reasons.push(format!("{path}: {rule}"));
    }

    fn path(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }

    /// Takes a field of any type.
    pub fn any(&mut self, name: &str) -> Option<Value> {
        self.table.remove(name)
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.any(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.refuse(name, "must be a text in quotes");
                None
            }
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let list = match self.any(name)? {
            Value::Array(list) => list.into_iter().map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            }),
            _ => {
                self.refuse(name, "must be a list of texts");
                return Some(Vec::new());
            }
        };
        let list: Option<Vec<String>> = list.collect();
        match list {
            Some(list) if !list.is_empty() => Some(list),
            _ => {
                self.refuse(name, "must be a list of at least one text");
                Some(Vec::new())
            }
        }
    }

    /// Takes a number that fits 32 bits.
    pub fn number(&mut self, name: &str) -> Option<u32> {
        let value = self.any(name)?;
        let number = value
            .as_integer()
            .and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            self.refuse(name, "must be a number from 0 to 4294967295");
        }
        number
    }

    /// Whether a field is a list.
    pub fn is_list(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(Value::is_array)
    }

    /// Takes a list of numbers that fit 32 bits; none of it when one does not.
    pub fn numbers(&mut self, name: &str) -> Vec<u32> {
        let list = match self.any(name) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let number = |value: &Value| u32::try_from(value.as_integer()?).ok();
        list.iter()
            .map(number)
            .collect::<Option<_>>()
            .unwrap_or_default()
    }

    /// Takes a table.
    pub fn table(&mut self, name: &str) -> Option<Table> {
        match self.any(name)? {
            Value::Table(table) => Some(table),
            _ => {
                self.refuse(name, "must be a table");
                None
            }
        }
    }

    /// Takes a table of tables.
    pub fn tables(&mut self, name: &str) -> Vec<(String, Table)> {
        let table = self.table(name).unwrap_or_default();
        let mut list = Vec::new();
        for (inner, value) in table {
            match value {
                Value::Table(table) => list.push((inner, table)),
                _ => self.refuse(&format!("{name}.{inner}"), "must be a table"),
            }
        }
        list
    }

    /// Takes a text and parses it.
    pub fn parse<T: FromStr>(&mut self, name: &str, default: &str, rule: &str) -> Option<T> {
        let text = match self.table.contains_key(name) {
            true => self.text(name)?,
            false => default.to_owned(),
        };
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, rule);
        }
        parsed
    }

    /// Takes a time such as `60s`, `500ms`, `5m` or `1h`.
    pub fn duration(&mut self, name: &str, default: Duration, max: Duration) -> Option<Duration> {
        if !self.table.contains_key(name) {
            return Some(default);
        }
        let parsed = duration(&self.text(name)?).filter(|duration| *duration <= max);
        if parsed.is_none() {
            self.refuse(
                name,
                "must be a time such as 500ms, 60s, 5m or 1h, of at most 24h",
            );
        }
        parsed
    }

    /// The secret in a variable.
    pub fn secret_from_env(&mut self, name: &str, env: Env<'_>) -> Option<Secret<[u8]>> {
        let Some(value) = env(name) else {
            self.refuse("env", "names a variable that is not set");
            return None;
        };
        let value = Zeroizing::new(value.into_vec());
        if let Err(rule) = check_header_safe(&value) {
            self.refuse(
                "env",
                &format!("names a variable whose value is refused: {rule}"),
            );
            return None;
        }
        Some(Secret::from(value.to_vec()))
    }
}

/// What is wrong with a secret file, without its path: the operator has just written that.
pub fn secret_rule(error: &FileError) -> &'static str {
    match error {
        FileError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "names a file that may not be read (by a running agent: one outside the directories that its configuration named at the start; restart it)"
        }
        FileError::Read { .. } => "names a file that cannot be read",
        FileError::Rule { .. } => {
            "names a file whose content is no credential (one line, no blanks, ASCII, at most 8 KiB)"
        }
        _ => "names a file that cannot be used",
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms)?))
}
