//! What an upstream's error answer is about: above all, whether it is about *our* key.
//!
//! Such an answer must never reach the app, because several providers print parts of the key in it (OpenAI: the first eight and the last
//! four characters). Status alone does not decide: Gemini and xAI say 400 for a bad key, and OpenAI says 401 for a good key that lacks a
//! scope. Texts are held against the beginning of a 400's message only: further in, it may quote what the app sent, and an app must not be
//! able to have a key reported as bad.

use serde_json::Value;

use crate::{Api, Family};

/// What an upstream error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// The injected key is wrong, expired, revoked, leaked or suspended: hide the answer, report the key.
    AuthBad,
    /// The key is good but may not do this: the app's business, relay it.
    AuthScope,
    /// The account's money or quota is used up: another key may still have some, the same one will not soon.
    Quota,
    /// Too many requests for now.
    Rate,
    /// The provider cannot serve anybody just now.
    Overloaded,
    /// Another failure on the provider's side.
    Server,
    /// Anything else: relay it.
    Other,
}

use UpstreamFault::{AuthBad, AuthScope, Other, Overloaded, Quota, Rate, Server};

impl UpstreamFault {
    /// Whether an answer with this status has to be read before it is relayed, because its body decides what it is about.
    pub fn possible(status: u16) -> bool {
        Self::may_name_key(status) || status == 429
    }

    /// Whether an answer with this status can be about the key. If its body cannot be read it is to be hidden.
    pub fn may_name_key(status: u16) -> bool {
        matches!(status, 400 | 401 | 403)
    }
}

/// Errors about a key are under 2 KiB everywhere. What is longer and no JSON is something else, cut off.
const KEY_ERROR_MAX: usize = 8 * 1024;

impl Api {
    /// Classifies an upstream error by its status and (bounded) body. When in doubt about a 401, or about a body that cannot be read but
    /// speaks of keys, the answer is [`UpstreamFault::AuthBad`]: hiding one error text too many costs less than showing part of a key.
    pub fn classify(self, status: u16, body: &[u8]) -> UpstreamFault {
        match status {
            402 => return Quota,
            503 | 529 => return Overloaded,
            500..=599 => return Server,
            _ if !UpstreamFault::possible(status) => return Other,
            _ => {}
        }
        let Some(error) = Error::read(body) else {
            return match status {
                429 => Rate,
                401 => AuthBad,
                _ if body.len() <= KEY_ERROR_MAX && names_a_key(body) => AuthBad,
                403 => AuthScope,
                _ => Other,
            };
        };
        if status == 429 {
            return if error.about_quota(status) {
                Quota
            } else {
                Rate
            };
        }
        if error.about_scope() {
            return AuthScope;
        }
        if status == 401 || error.about_key(status) {
            return AuthBad;
        }
        if error.about_quota(status) {
            return Quota;
        }
        // What is left of 403 is a region, model or organisation limit: the key itself was accepted.
        if status == 403 { AuthScope } else { Other }
    }
}

impl Family {
    /// Classifies an upstream error by its status and (bounded) body.
    pub fn classify(self, status: u16, body: &[u8]) -> UpstreamFault {
        Api::own(self).classify(status, body)
    }
}

/// The parts of an error envelope that any of the providers uses.
struct Error {
    code: String,
    kind: String,
    message: String,
    reasons: Vec<String>,
    quotas: Vec<String>,
}

impl Error {
    fn read(body: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(body).ok()?;
        // Gemini's streaming endpoint wraps even its errors in an array.
        let document = document.get(0).unwrap_or(&document);
        // xAI and its like put a bare text where OpenAI has an object, and the code beside it.
        let error = document.get("error").filter(|error| !error.is_null());
        let error = error.unwrap_or(document);
        let text = |fields: &[&str]| {
            let found = fields.iter().find_map(|field| error.get(field)?.as_str());
            found.unwrap_or_default().to_ascii_lowercase()
        };
        let message = match error.as_str() {
            Some(message) => message.to_ascii_lowercase(),
            None => text(&["message", "Message", "detail"]),
        };
        let details = error.get("details").and_then(Value::as_array);
        let details = details.map(Vec::as_slice).unwrap_or_default();
        let texts = |one: fn(&Value) -> Vec<&Value>| {
            let values = details.iter().flat_map(one);
            values
                .filter_map(|value| Some(value.as_str()?.to_owned()))
                .collect()
        };
        Some(Self {
            code: text(&["code"]),
            kind: text(&["type", "__type"]),
            message,
            reasons: texts(|detail| detail.get("reason").into_iter().collect()),
            quotas: texts(|detail| {
                let violations = detail.get("violations").and_then(Value::as_array);
                let violations = violations.into_iter().flatten();
                violations.filter_map(|one| one.get("quotaId")).collect()
            }),
        })
    }

    /// Whether its message speaks so. Only a 400 can quote what the app sent.
    fn says(&self, status: u16, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| match status {
            400 => self.message.starts_with(phrase),
            // What the app sent may be quoted, and then comes after the provider's own words.
            403 => self
                .message
                .find(phrase)
                .is_some_and(|at| at <= OWN_WORDS_MAX),
            _ => self.message.contains(phrase),
        })
    }

    fn about_scope(&self) -> bool {
        self.message.contains("missing scopes")
            || matches!(self.code.as_str(), "missing_scope" | "permissiondenied")
    }

    fn about_key(&self, status: u16) -> bool {
        matches!(
            self.code.as_str(),
            "invalid_api_key" | "account_deactivated" | "authenticationtypedisabled"
        ) || self.kind == "authentication_error"
            || AWS_KEY_KINDS.iter().any(|kind| self.kind.contains(kind))
            || self
                .reasons
                .iter()
                .any(|reason| KEY_REASONS.contains(&reason.as_str()))
            || self.says(status, &KEY_PHRASES)
    }

    fn about_quota(&self, status: u16) -> bool {
        let names = [self.code.as_str(), self.kind.as_str()];
        names.iter().any(|name| QUOTA_NAMES.contains(name))
            || self.kind.contains("servicequotaexceeded")
            || self.reasons.iter().any(|reason| reason == "BILLING_DISABLED")
            // Until tomorrow is not "for now".
            || self.quotas.iter().any(|quota| quota.contains("PerDay"))
            || self.says(status, &QUOTA_PHRASES)
    }
}

/// How far into a 403's message its own words reach at least. "Permission denied: Consumer 'api_key:…" has 28 characters before it.
const OWN_WORDS_MAX: usize = 32;

/// Reasons in Google's `ErrorInfo`.
const KEY_REASONS: [&str; 6] = [
    "API_KEY_INVALID",
    "API_KEY_EXPIRED",
    "ACCESS_TOKEN_TYPE_UNSUPPORTED",
    "ACCESS_TOKEN_EXPIRED",
    "CONSUMER_SUSPENDED",
    "CREDENTIALS_MISSING",
];

/// Names of AWS exceptions, which may stand behind a namespace.
const AWS_KEY_KINDS: [&str; 5] = [
    "unrecognizedclient",
    "invalidsignature",
    "expiredtoken",
    "incompletesignature",
    "missingauthenticationtoken",
];

/// Beginnings of messages about a key, in lower case.
const KEY_PHRASES: [&str; 22] = [
    "incorrect api key",
    "invalid api key",
    "invalid api token",
    "invalid x-api-key",
    "invalid authentication credentials",
    "multiple authentication credentials",
    "api key not valid",
    "api key expired",
    "api key not found",
    "api key is currently blocked",
    "api key is disabled",
    "your api key is disabled",
    "your api key was reported as leaked",
    "permission denied: consumer 'api_key:",
    "api_key:",
    "authentication failed",
    "authentication fails",
    "bearer token has expired",
    "key based authentication is disabled",
    "the security token included in the request is",
    "the request signature we calculated",
    "key is disabled",
];

const QUOTA_NAMES: [&str; 9] = [
    "insufficient_quota",
    "quota_exceeded",
    "billing_error",
    "billing_not_active",
    "billing_hard_limit_reached",
    "insufficient_credits",
    "credit_limit",
    "organization_restricted",
    "servicequotaexceededexception",
];

/// Beginnings of messages about money, in lower case.
const QUOTA_PHRASES: [&str; 9] = [
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    "you have reached your specified workspace api usage limits",
    "insufficient balance",
    "insufficient credits",
    "key limit exceeded",
    "used all available credits",
    "doesn't have any credits",
    "monthly spending limit",
];

/// For bodies that are no JSON (cut off, HTML, compressed against our wish).
fn names_a_key(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"api key", b"api_key", b"api-key", b"credential"];
    let body = body.to_ascii_lowercase();
    WORDS
        .iter()
        .any(|word| memchr::memmem::find(&body, word).is_some())
}

#[cfg(test)]
mod tests;
