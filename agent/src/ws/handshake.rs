//! Two handshakes, one with each side, and neither side sees a byte of the other's.
//!
//! The provider is asked with a key of our own and offered what the app offered, credentials left out, and no extension: compressed frames
//! could be read by nobody here. The app is told only which of its subprotocols the provider chose.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http1::{ResponseHead, Upgrade};
use crate::respond::{Code, Refusal};

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const BAD_ANSWER: Refusal = Refusal::new(
    Code::UpstreamUnreachable,
    "the provider's answer to the WebSocket handshake is not valid",
);

/// What the provider is asked for.
#[derive(Debug)]
pub struct Offer<'a> {
    key: String,
    protocols: &'a [String],
}

impl<'a> Offer<'a> {
    /// With a fresh key, on behalf of an app that asked for `upgrade`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(upgrade: &'a Upgrade) -> Result<Self, Refusal> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| {
            Refusal::new(
                Code::UpstreamUnreachable,
                "no WebSocket can be opened: the system gives no randomness",
            )
        })?;
        Ok(Self {
            key: STANDARD.encode(key),
            protocols: &upgrade.protocols,
        })
    }

    /// The handshake's fields in the request to the provider.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fixed = [
            ("connection", "Upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-version", "13".to_owned()),
            ("sec-websocket-key", self.key.clone()),
        ];
        let protocols = (!self.protocols.is_empty())
            .then(|| ("sec-websocket-protocol", self.protocols.join(", ")));
        fixed.into_iter().chain(protocols)
    }

    /// Judges the provider's 101: which subprotocol it chose, if any.
    ///
    /// # Errors
    /// It is not an answer to this offer: another key, another protocol, an extension, or not offered.
    pub fn accept(&self, answer: &ResponseHead) -> Result<Option<&'a str>, Refusal> {
        let fields = &answer.fields;
        let only = |name| {
            let mut all = fields.all(name);
            all.next().filter(|_| all.next().is_none())
        };
        let is_answer = answer.status == 101
            && only("upgrade").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))
            && fields.lists("connection", "upgrade")
            && only("sec-websocket-accept") == Some(accept_value(&self.key).as_bytes())
            && fields.first("sec-websocket-extensions").is_none();
        if !is_answer {
            return Err(BAD_ANSWER);
        }
        if fields.first("sec-websocket-protocol").is_none() {
            return Ok(None);
        }
        let chosen = only("sec-websocket-protocol");
        let mut offered = self.protocols.iter().map(String::as_str);
        offered
            .find(|offered| chosen == Some(offered.as_bytes()))
            .map(Some)
            .ok_or(BAD_ANSWER)
    }
}

/// `Sec-WebSocket-Accept` for a key.
pub fn accept_value(key: &str) -> String {
    let text = [key.as_bytes(), GUID].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
}

/// Our 101 to the app.
pub fn response_head(upgrade: &Upgrade, protocol: Option<&str>, request_id: &str) -> String {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {}\r\nx-tacit-request-id: {request_id}\r\n",
        accept_value(&upgrade.key)
    );
    if let Some(protocol) = protocol {
        head.push_str("sec-websocket-protocol: ");
        head.push_str(protocol);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn upgrade(protocols: &[&str]) -> Upgrade {
        Upgrade {
            key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            protocols: protocols.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(
            accept_value("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn an_offer_has_a_key_of_its_own_each_time_and_no_extension() {
        let upgrade = upgrade(&["realtime", "b"]);
        let fields = || {
            let offer = Offer::new(&upgrade).unwrap();
            offer.fields().collect::<Vec<_>>()
        };
        let (one, two) = (fields(), fields());
        assert_ne!(one, two);
        assert!(!one.iter().any(|(_, value)| *value == upgrade.key));
        assert_eq!(one[4], ("sec-websocket-protocol", "realtime, b".to_owned()));
        assert!(!one.iter().any(|(name, _)| name.contains("extensions")));
    }

    #[test]
    fn an_answer_to_the_offer_is_accepted_and_none_of_its_neighbours_is() {
        let upgrade = upgrade(&["realtime"]);
        let offer = Offer::new(&upgrade).unwrap();
        let accept = accept_value(&offer.key);
        let good = format!(
            "HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: realtime\r\n"
        );
        let judge = |head: &str| {
            let head = format!("{head}\r\n");
            let (head, _) = ResponseHead::parse(head.as_bytes(), 0, "GET")
                .unwrap()
                .unwrap();
            offer.accept(&head).map(|chosen| chosen.map(str::to_owned))
        };
        assert_eq!(judge(&good), Ok(Some("realtime".to_owned())));
        let silent = good.replace("Sec-WebSocket-Protocol: realtime\r\n", "");
        assert_eq!(judge(&silent), Ok(None));
        let other = accept_value(&upgrade.key);
        for (from, to) in [
            ("101", "200"),
            ("WebSocket\r", "h2c\r"),
            ("Connection: upgrade", "Connection: close"),
            (accept.as_str(), other.as_str()),
            ("Protocol: realtime", "Protocol: Realtime"),
            ("Protocol: realtime", "Protocol: realtime, b"),
            ("Protocol: realtime", "Protocol:"),
            (
                "Sec-WebSocket-Protocol",
                "Sec-WebSocket-Protocol: realtime\r\nSec-WebSocket-Protocol",
            ),
            (
                "Sec-WebSocket-Protocol",
                "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol",
            ),
        ] {
            assert!(good.contains(from), "{from}");
            assert_eq!(judge(&good.replacen(from, to, 1)), Err(BAD_ANSWER), "{to}");
        }
    }
}
