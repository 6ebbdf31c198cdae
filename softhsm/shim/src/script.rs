//! The script: one rule per line.
//!
//! ```text
//! C_UnwrapKey fail 0x30              every call returns that CK_RV, without reaching the module
//! C_UnwrapKey fail 0x5 after 2       the first two pass
//! C_UnwrapKey fail 0xb3 times 1      only one fails
//! C_Sign hang | crash | delay 50     milliseconds
//! drop-sessions                      once, when read: closes all sessions behind the caller's back
//! lose-token                         no slot has a token; sessions answer CKR_DEVICE_REMOVED
//! renumber                           slots have other numbers
//! ignore-sensitive                   unwrapped and derived keys are made with CKA_SENSITIVE false
//! lie-sensitive                      CKA_SENSITIVE is reported as false
//! set-clock                          tokens report a well-formed time, whatever the module wrote
//! ```

/// What a rule does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Return this CK_RV.
    Fail(u64),
    /// Never return.
    Hang,
    /// Abort the process.
    Crash,
    /// Wait so many milliseconds, then pass.
    Delay(u64),
}

/// A rule about one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The function's name.
    pub function: String,
    /// What to do.
    pub deed: Deed,
    /// Calls that pass first.
    pub after: u64,
    /// Calls that are affected then; `None` is all.
    pub times: Option<u64>,
}

/// A whole script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Rules about functions.
    pub rules: Vec<Rule>,
    /// Close all sessions once.
    pub drop_sessions: bool,
    /// No slot has a token.
    pub lose_token: bool,
    /// Slots have other numbers.
    pub renumber: bool,
    /// New keys are not sensitive.
    pub ignore_sensitive: bool,
    /// Keys are said not to be sensitive.
    pub lie_sensitive: bool,
    /// Tokens report a well-formed time.
    pub set_clock: bool,
}

impl Script {
    /// Reads a script; a line that is not understood is an error, since a test that misspells a fault proves nothing.
    ///
    /// # Errors
    /// The line.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match line {
                "drop-sessions" => script.drop_sessions = true,
                "lose-token" => script.lose_token = true,
                "renumber" => script.renumber = true,
                "ignore-sensitive" => script.ignore_sensitive = true,
                "lie-sensitive" => script.lie_sensitive = true,
                "set-clock" => script.set_clock = true,
                _ => script
                    .rules
                    .push(rule(line).ok_or_else(|| line.to_owned())?),
            }
        }
        Ok(script)
    }
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let function = words
        .next()
        .filter(|name| name.starts_with("C_"))?
        .to_owned();
    let deed = match words.next()? {
        "fail" => Deed::Fail(number(words.next()?)?),
        "hang" => Deed::Hang,
        "crash" => Deed::Crash,
        "delay" => Deed::Delay(number(words.next()?)?),
        _ => return None,
    };
    let (mut after, mut times) = (0, None);
    while let Some(word) = words.next() {
        let value = number(words.next()?)?;
        match word {
            "after" => after = value,
            "times" => times = Some(value),
            _ => return None,
        }
    }
    Some(Rule {
        function,
        deed,
        after,
        times,
    })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_misspelt_ones_refused() {
        let script = Script::parse(
            "# a comment\nC_Sign fail 0xB3 after 2 times 1\n\nC_Login hang\nlose-token\n",
        )
        .expect("reads");
        assert_eq!(
            script.rules[0],
            Rule {
                function: "C_Sign".into(),
                deed: Deed::Fail(0xb3),
                after: 2,
                times: Some(1)
            }
        );
        assert_eq!(script.rules[1].deed, Deed::Hang);
        assert!(script.lose_token && !script.renumber);
        for bad in [
            "C_Sign",
            "C_Sign fail",
            "C_Sign fail x",
            "Sign fail 1",
            "C_Sign hang times",
            "lose token",
        ] {
            assert_eq!(Script::parse(bad), Err(bad.to_owned()));
        }
    }
}
