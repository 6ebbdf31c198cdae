//! Where a key may be sent is the operator's word: said before the secret is asked for, and never the daemon's alone.
//!
//! The sealer's signature is what custodians and agents believe. A daemon that lies about its defaults, or about what
//! the version in use says, must not get its own origin signed that way.

use custody::{Header, Upstream};

use super::seal::{self, Order};
use crate::config::Paths;
use crate::dev;
use crate::output::{Output, list};
use crate::terminal::{self, TerminalError};

/// What of an order the operator wrote; the rest was proposed by the daemon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Typed {
    pub(super) provider: bool,
    pub(super) upstreams: bool,
}

/// Says what will be sealed, and goes on when the operator chose it, or agrees to it.
pub(super) fn settle(
    order: &Order,
    typed: Typed,
    paths: &Paths,
    output: &Output,
) -> anyhow::Result<()> {
    output.note(&sentence(
        order.key_id.as_str(),
        order.version,
        &order.provider,
        &order.upstreams,
    ));
    let own = is_own(&order.provider, &order.upstreams);
    if typed.upstreams || (typed.provider && own) {
        return Ok(());
    }
    if dev::is_stack_of(paths) {
        output.note(
            "the daemon proposed this; taken, for this is the sealer of a development directory",
        );
        return Ok(());
    }
    output.note("the daemon proposed this: it is not in anything that you signed or typed");
    let question = "Is that where this key may go?";
    match terminal::confirm(
        question,
        "name where the key may go: --upstream https://HOST",
    ) {
        // The few origins of the providers' table are no loot for a daemon that lies.
        Err(TerminalError::NoTerminal(_)) if own => Ok(()),
        answer => Ok(answer?),
    }
}

/// Says the same of a key that was sealed elsewhere, by somebody whom the trust file believes.
pub(super) fn tell(header: &Header, output: &Output) {
    output.note(&sentence(
        header.key_id.as_str(),
        header.version,
        &header.provider,
        &header.upstreams,
    ));
}

fn sentence(key_id: &str, version: u32, provider: &str, upstreams: &[Upstream]) -> String {
    let upstreams: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
    let any = if upstreams.iter().any(|one| one == "*") {
        " (* is any host)"
    } else {
        ""
    };
    format!(
        "{key_id} version {version} ({provider}) may be sent to {}{any}",
        list(&upstreams)
    )
}

/// Whether this is the origin that the providers' table has, and nothing else.
fn is_own(provider: &str, upstreams: &[Upstream]) -> bool {
    let own = providers::find(provider).and_then(seal::own_origin);
    own.is_some_and(|own| *upstreams == [Upstream::Origin(own)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_origin_is_a_providers_own() {
        let parse = |texts: &[&str]| -> Vec<Upstream> {
            let parsed = texts.iter().map(|one| one.parse().expect("parses"));
            parsed.collect()
        };
        let own = "https://api.openai.com";
        assert!(is_own("openai", &parse(&[own])));
        for more in [
            &[own, "*"][..],
            &["https://api.openai.com:444"],
            &["*"],
            &[],
        ] {
            assert!(!is_own("openai", &parse(more)), "{more:?}");
        }
        assert!(!is_own("anthropic", &parse(&[own])));
        assert!(!is_own("llm-internal", &parse(&[own])));
        let said = sentence("k", 2, "openai", &parse(&[own, "*"]));
        assert_eq!(
            said,
            "k version 2 (openai) may be sent to https://api.openai.com, * (* is any host)"
        );
    }
}
