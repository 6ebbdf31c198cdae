//! The one protocol upgrade that is let in: to a WebSocket, asked for so that no other reader could take it for anything else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Fields, Framing, Reject, fields};

/// Subprotocols in one offer. SDKs name four, two of which are credentials.
const PROTOCOLS_MAX: usize = 8;

/// A request to become a WebSocket (RFC 6455).
#[derive(Debug)]
pub struct Upgrade {
    /// The app's `Sec-WebSocket-Key`, which our answer to it must match. It goes no further: the provider gets a key of our own.
    pub key: String,
    /// The subprotocols that the app offers, in its order, without those that carry credentials or choose who pays.
    pub protocols: Vec<String>,
}

impl Upgrade {
    /// Whether the fields ask for an upgrade. Any other protocol, and any handshake that is not exactly RFC 6455's, is refused.
    pub(super) fn read(
        fields: &Fields,
        method: &str,
        is_http10: bool,
        framing: Framing,
    ) -> Result<Option<Self>, Reject> {
        let Some(protocol) = only(fields, "upgrade", "Upgrade occurs twice")? else {
            return Ok(None);
        };
        if !protocol.eq_ignore_ascii_case(b"websocket") {
            return Err(Reject::Bad(
                "protocol upgrades other than to WebSocket (h2c) are not supported here",
            ));
        }
        if method != "GET" || is_http10 || framing != Framing::None {
            return Err(Reject::Bad(
                "a WebSocket handshake is a GET in HTTP/1.1 without a body",
            ));
        }
        if fields.first("expect").is_some() {
            return Err(Reject::Bad("Expect in a WebSocket handshake"));
        }
        if !fields.lists("connection", "upgrade") {
            return Err(Reject::Bad("Upgrade without `Connection: Upgrade`"));
        }
        let version = only(fields, "sec-websocket-version", VERSION)?;
        if version != Some(b"13") {
            return Err(Reject::Bad(VERSION));
        }
        let key = only(fields, "sec-websocket-key", KEY)?
            .filter(|key| is_key(key))
            .and_then(|key| std::str::from_utf8(key).ok())
            .ok_or(Reject::Bad(KEY))?;
        Ok(Some(Self {
            key: key.to_owned(),
            protocols: protocols(fields)?,
        }))
    }
}

const VERSION: &str = "Sec-WebSocket-Version is not exactly 13";
const KEY: &str = "Sec-WebSocket-Key is not one key of 16 bytes";

fn only<'a>(
    fields: &'a Fields,
    name: &'a str,
    twice: &'static str,
) -> Result<Option<&'a [u8]>, Reject> {
    let mut all = fields.all(name);
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Reject::Bad(twice)),
    }
}

fn is_key(text: &[u8]) -> bool {
    text.len() == 24 && STANDARD.decode(text).is_ok_and(|key| key.len() == 16)
}

fn protocols(all: &Fields) -> Result<Vec<String>, Reject> {
    const BAD: Reject =
        Reject::Bad("Sec-WebSocket-Protocol is not a list of up to eight different tokens");
    let mut offered: Vec<&str> = Vec::new();
    for value in all.all("sec-websocket-protocol") {
        for item in fields::list(value) {
            let token = std::str::from_utf8(item)
                .ok()
                .filter(|token| token.bytes().all(is_token_byte))
                .ok_or(BAD)?;
            if offered.contains(&token) || offered.len() == PROTOCOLS_MAX {
                return Err(BAD);
            }
            offered.push(token);
        }
    }
    Ok(offered
        .into_iter()
        .filter(|token| !providers::is_credential_subprotocol(token))
        .map(str::to_owned)
        .collect())
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
