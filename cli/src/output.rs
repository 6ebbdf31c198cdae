//! The only room that prints: tables or JSON on stdout, remarks and refusals on stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::Form;
use crate::client::ConnectError;
use crate::failure::{Refusal, Usage};

/// Where and in what form a command speaks.
#[derive(Debug)]
pub(crate) struct Output {
    form: Form,
}

impl Output {
    /// In this form.
    pub(crate) fn new(form: Form) -> Self {
        Self { form }
    }

    /// Whether scripts read it.
    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// One result: `text` for people, `json` for scripts.
    pub(crate) fn result(&self, text: &str, json: &Value) {
        match self.form {
            Form::Table => self.text(text),
            Form::Json => self.text(&json_line(json)),
        }
    }

    /// Text on stdout, with one line end behind it.
    pub(crate) fn text(&self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that went away (`| head`) is no failure of the command.
        let _ = writeln!(out, "{}", clean_block(text).trim_end_matches('\n'));
        let _ = out.flush();
    }

    /// A remark for people, on stderr in both forms.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", clean_block(text));
    }

    /// A change in progress: shown to a person who waits, not to a script.
    pub(crate) fn progress(&self, text: &str) {
        if self.form == Form::Table && io::stderr().is_terminal() {
            self.note(text);
        }
    }

    /// How a command ended that did not do what was asked.
    pub(crate) fn failure(&self, error: &anyhow::Error) -> ExitCode {
        let usage = error.chain().any(|cause| cause.is::<Usage>());
        let refusal = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Refusal>());
        let connect = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<ConnectError>());
        let code = match refusal {
            Some(refusal) => refusal.code.as_str(),
            None if usage => "usage",
            None if connect.is_some() => "daemon_unreachable",
            None => "failed",
        };
        let next = refusal
            .and_then(Refusal::next_step)
            .map(str::to_owned)
            .or_else(|| connect.map(ConnectError::next_step));
        let message = chain(error);
        if self.is_json() {
            let document = json!({"error": {"code": code, "message": message, "next": next}});
            self.note(&json_line(&document));
        } else {
            self.note(&format!("tacit: {message}"));
            if let Some(next) = next {
                self.note(&format!("  next: {next}"));
            }
        }
        ExitCode::from(if usage { 2 } else { 1 })
    }
}

/// The whole chain of causes in one line, outermost first.
fn chain(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// Columns under their heads, two blanks apart; the last one is not padded.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).max(heads[column].len())
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let gap = width.saturating_sub(cell.chars().count());
            format!("{}{}", clean(cell), " ".repeat(gap))
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heads.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// Names and values in two columns.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        format!("{name:width$}  {}", clean(value))
            .trim_end()
            .to_owned()
    };
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One line of text that came from elsewhere, without anything that moves a terminal's cursor or fakes a line.
pub(crate) fn clean(text: &str) -> String {
    let keep = |c: char| if shows_as_itself(c) { c } else { '\u{fffd}' };
    text.chars().map(keep).collect()
}

/// What is about to be printed, whoever wrote it: everything goes through here, and only line ends survive beside what
/// [`clean`] keeps. Text from elsewhere was cleaned as a line before it became part of a block.
fn clean_block(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// JSON in one line that a terminal shows as it is: in strings, the only place for them, escapes mean the same.
fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if shows_as_itself(c) {
            line.push(c);
        } else {
            let units = c.encode_utf16(&mut [0; 2]).to_vec();
            line.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    line
}

/// Whether a person who reads `c` on a terminal sees exactly that; the rule that custody has for a token's label.
fn shows_as_itself(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible
}

/// `["a", "b"]` as `a, b`; nothing as a dash.
pub(crate) fn list(values: &[String]) -> String {
    if values.is_empty() {
        "-".to_owned()
    } else {
        values.join(", ")
    }
}

/// An amount of time in its largest fitting unit: `40s`, `12m`, `7h`, `3d`.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// How long ago a Unix time was; a dash for never.
pub(crate) fn age(then: i64, now: i64) -> String {
    if then <= 0 {
        "-".to_owned()
    } else {
        span(now.saturating_sub(then))
    }
}

/// A Unix time in seconds as RFC 3339, UTC.
pub(crate) fn moment(seconds: i64) -> String {
    use time::format_description::well_known::Rfc3339;
    if seconds <= 0 {
        return "-".to_owned();
    }
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|when| when.format(&Rfc3339).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// Unix seconds now, by this machine's clock.
pub(crate) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let rows = vec![
            vec!["a".to_owned(), "active".to_owned()],
            vec!["longer".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table(&["KEY", "STATE"], &rows),
            "KEY     STATE\na       active\nlonger  x"
        );
    }

    #[test]
    fn a_value_from_elsewhere_cannot_fake_a_line_or_move_the_cursor() {
        let rows = vec![vec!["x\nactive\u{1b}[2K".to_owned()]];
        let text = table(&["KEY"], &rows);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }

    /// Moves the cursor, in one byte or two; breaks the line; turns the direction of writing; is not seen at all.
    const TRICKS: [char; 9] = [
        '\u{1b}', '\u{9b}', '\u{7f}', '\r', '\u{85}', '\u{2028}', '\u{202e}', '\u{2066}',
        '\u{200b}',
    ];

    #[test]
    fn what_does_not_show_as_itself_is_replaced_on_lines_and_escaped_in_json() {
        let text: String = TRICKS.iter().collect();
        assert_eq!(
            clean(&format!("a{text}b\n")),
            format!("a{}b\u{fffd}", "\u{fffd}".repeat(9))
        );
        assert_eq!(clean_block("one\ntwo\u{1b}[2K\n"), "one\ntwo\u{fffd}[2K\n");
        assert_eq!(clean("schlüssel 鍵 🔑"), "schlüssel 鍵 🔑");
        let value = json!({"detail": format!("{text}\u{e0041}ü")});
        let line = json_line(&value);
        assert!(line.chars().all(shows_as_itself), "{line:?}");
        let back: Value = serde_json::from_str(&line).expect("still JSON");
        assert_eq!(back, value);
    }

    #[test]
    fn spans_take_their_largest_unit() {
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(age(0, 100), "-");
        assert_eq!(age(40, 100), "1m");
    }

    #[test]
    fn moments_are_utc_and_never_is_a_dash() {
        assert_eq!(moment(0), "-");
        assert_eq!(moment(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
