//! Refusals: one table from what went wrong to what the app is told.
//!
//! Bodies have the error envelope of the route's own API, so that every SDK raises its ordinary exception. Texts are fixed strings: nothing
//! from the upstream, from the daemon or from the request is repeated.

use std::fmt::Write as _;

use providers::{Api, Family};

use crate::http1::{Reject, response};
use crate::metrics::Limit;

/// The stable codes of `x-tacit-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed or for no route.
    BadRequest,
    /// The provider's answer cannot be searched for our key.
    EchoBlocked,
    /// The head is too large.
    HeadersTooLarge,
    /// No valid lease can be had now.
    HsmUnavailable,
    /// The key was revoked.
    KeyRevoked,
    /// The Host header names somebody else.
    Misdirected,
    /// The key may not be used for this model.
    ModelNotAllowed,
    /// The caller, or everybody, may not do this.
    PermissionDenied,
    /// Too much at one time.
    RateLimited,
    /// The provider refused our key.
    UpstreamCredentialsRejected,
    /// The key may not be sent to the configured origin.
    UpstreamNotAllowed,
    /// The provider did not answer in time.
    UpstreamTimeout,
    /// The provider could not be reached or broke the protocol.
    UpstreamUnreachable,
}

impl Code {
    /// The code as scripts know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::EchoBlocked => "echo_blocked",
            Self::HeadersTooLarge => "headers_too_large",
            Self::HsmUnavailable => "hsm_unavailable",
            Self::KeyRevoked => "key_revoked",
            Self::Misdirected => "misdirected",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::PermissionDenied => "permission_denied",
            Self::RateLimited => "rate_limited",
            Self::UpstreamCredentialsRejected => "upstream_credentials_rejected",
            Self::UpstreamNotAllowed => "upstream_not_allowed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamUnreachable => "upstream_unreachable",
        }
    }

    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::PermissionDenied
            | Self::ModelNotAllowed
            | Self::UpstreamNotAllowed
            | Self::KeyRevoked => 403,
            Self::Misdirected => 421,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::EchoBlocked | Self::UpstreamCredentialsRejected | Self::UpstreamUnreachable => {
                502
            }
            Self::HsmUnavailable => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// Whether the same request may do better in a moment. SDKs retry 5xx by themselves unless told otherwise.
    pub fn may_retry(self) -> bool {
        match self {
            Self::HsmUnavailable | Self::RateLimited | Self::UpstreamUnreachable => true,
            // After a timeout the provider may still be at work, and bill twice.
            Self::UpstreamTimeout
            | Self::BadRequest
            | Self::EchoBlocked
            | Self::HeadersTooLarge
            | Self::KeyRevoked
            | Self::Misdirected
            | Self::ModelNotAllowed
            | Self::PermissionDenied
            | Self::UpstreamCredentialsRejected
            | Self::UpstreamNotAllowed => false,
        }
    }
}

/// A request that is not, or not any further, carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Refusal {
    /// What scripts match on.
    pub code: Code,
    /// What the developer reads.
    pub message: &'static str,
    /// The limit that was met, if that is why.
    pub limit: Option<Limit>,
}

impl Refusal {
    /// A refusal with its text.
    pub const fn new(code: Code, message: &'static str) -> Self {
        Self {
            code,
            message,
            limit: None,
        }
    }

    /// A refusal because a limit was met; it is counted when it is answered.
    pub const fn of_limit(limit: Limit, code: Code, message: &'static str) -> Self {
        Self {
            code,
            message,
            limit: Some(limit),
        }
    }
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        match reject {
            Reject::Bad(message) => Self::new(Code::BadRequest, message),
            Reject::TooLarge => Self::of_limit(
                Limit::Head,
                Code::HeadersTooLarge,
                "the request head has more than 32 KiB or 100 headers",
            ),
        }
    }
}

/// The whole response for a refusal. Requests that match no route get the OpenAI envelope, which most clients can read.
pub fn refusal(
    refusal: Refusal,
    api: Option<Api>,
    request_id: &str,
    keep_alive: bool,
    with_body: bool,
) -> Vec<u8> {
    let Refusal { code, message, .. } = refusal;
    let status = code.status();
    let api = api.unwrap_or(Api::own(Family::Openai));
    let body = api.refusal(
        status,
        code.name(),
        &format!("tacit-agent: {message}"),
        request_id,
    );
    let mut head = String::with_capacity(320 + body.len());
    // Writing to a String does not fail.
    let _ = write!(
        head,
        "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-tacit-error: {}\r\nx-tacit-request-id: {request_id}\r\n",
        response::reason(status),
        body.len(),
        code.name(),
    );
    if let Some((name, value)) = api.refusal_header(status) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !code.may_retry() {
        head.push_str("x-should-retry: false\r\n");
    }
    if !keep_alive {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    if with_body {
        head.push_str(&body);
    }
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(code: Code) -> String {
        String::from_utf8(refusal(
            Refusal::new(code, "why"),
            Some(Api::own(Family::Anthropic)),
            "req_1",
            true,
            true,
        ))
        .unwrap()
    }

    #[test]
    fn a_refusal_says_code_request_and_whether_to_retry() {
        let refused = text(Code::PermissionDenied);
        assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"));
        assert!(
            refused.contains("x-tacit-error: permission_denied\r\n")
                && refused.contains("x-tacit-request-id: req_1\r\n")
        );
        assert!(refused.contains("x-should-retry: false\r\n"));
        assert!(!text(Code::HsmUnavailable).contains("x-should-retry"));
    }

    #[test]
    fn the_length_is_that_of_the_body() {
        let text = text(Code::BadRequest);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
