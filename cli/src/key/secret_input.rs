//! Where the provider key comes in: stdin, a prompt asked twice, or a file. Never an argument, never a variable.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use providers::Plausibility;
use secret::{Rule, Secret, check_header_safe};
use zeroize::Zeroizing;

use crate::output::Output;
use crate::terminal::{self, TerminalError};

/// Room for the longest credential, its line end and one byte too many, which the rule then refuses.
const BUFFER_BYTES: usize = 8 * 1024 + 3;

/// Why no secret came in. Names the rule, never the value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read the provider key from standard input")]
    Read(#[source] io::Error),
    #[error("the provider key on standard input is refused: {0}")]
    Stdin(Rule),
    #[error("the provider key is refused: {0}")]
    Typed(Rule),
    #[error("the two entries differ; nothing was changed")]
    Differ,
    #[error(transparent)]
    File(#[from] secret::FileError),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
}

/// Takes the provider key in, and says on stderr when it does not look like one of `provider`'s.
pub(crate) fn take(
    from_file: Option<&Path>,
    provider: &str,
    output: &Output,
) -> Result<Secret<[u8]>, InputError> {
    let secret = match from_file {
        Some(path) => {
            let secret = secret::read_file(path)?;
            let length = secret.len();
            output.note(&format!(
                "read a key of {length} characters from {}",
                path.display()
            ));
            secret
        }
        None if io::stdin().is_terminal() => ask_twice()?,
        None => read(io::stdin().lock())?,
    };
    if let Some(remark) = remarks(provider, &secret, from_file.is_some()) {
        output.note(&remark);
    }
    Ok(secret)
}

fn remarks(provider: &str, secret: &Secret<[u8]>, say_good: bool) -> Option<String> {
    let known = providers::find(provider)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "compares the key with the provider's pattern; the answer holds no part of it"
    )]
    let verdict = known.check_key(secret.expose());
    match verdict {
        Plausibility::Plausible => say_good.then(|| format!("it looks like a key of {provider}")),
        Plausibility::Unlikely(why) => Some(format!(
            "warning: this does not look like a key of {provider}: {why}"
        )),
    }
}

/// The whole stream is the key; one line end behind it is forgiven, as in a file.
fn read(mut from: impl Read) -> Result<Secret<[u8]>, InputError> {
    let mut buffer = Zeroizing::new(vec![0u8; BUFFER_BYTES]);
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(InputError::Read(error)),
        }
    }
    let content = &buffer[..length];
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    check_header_safe(content).map_err(InputError::Stdin)?;
    Ok(Secret::from(content.to_vec()))
}

fn ask_twice() -> Result<Secret<[u8]>, InputError> {
    const OTHERWISE: &str = "give the key on stdin or with --from-file";
    let ask = |prompt| -> Result<Secret<[u8]>, InputError> {
        let line = terminal::read_hidden(prompt, OTHERWISE)?;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        check_header_safe(line).map_err(InputError::Typed)?;
        Ok(Secret::from(line.to_vec()))
    };
    let first = ask("Provider key (not shown): ")?;
    let second = ask("Once more: ")?;
    if first == second {
        Ok(first)
    } else {
        Err(InputError::Differ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_forgives_one_line_end_and_no_more() {
        for good in [&b"sk-x"[..], b"sk-x\n", b"sk-x\r\n"] {
            assert!(read(good).expect("accepted") == Secret::from(b"sk-x".to_vec()));
        }
        for bad in [&b""[..], b"\n", b"sk-x\n\n", b"sk x", b"sk-a\nsk-b\n"] {
            assert!(matches!(read(bad), Err(InputError::Stdin(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_endless_stream_is_refused_at_the_bound() {
        let error = read(io::repeat(b'a')).expect_err("refused");
        assert!(error.to_string().contains("longer than"), "{error}");
    }

    #[test]
    fn a_strange_key_is_remarked_on_without_a_part_of_it() {
        let strange = Secret::from(b"AIzaNotAnOpenAiKey".to_vec());
        let remark = remarks("openai", &strange, true).expect("a remark");
        assert!(remark.starts_with("warning:"), "{remark}");
        assert!(!remark.contains("AIza"), "{remark}");
        let good = format!("sk-proj-{0}T3BlbkFJ{0}", "a".repeat(30));
        let good = Secret::from(good.into_bytes());
        assert_eq!(remarks("openai", &good, false), None);
        assert!(remarks("openai", &good, true).is_some());
        assert_eq!(remarks("llm-internal", &strange, true), None);
    }
}
