//! What an upstream's error answer is about: above all, whether it is about *our* key.
//!
//! Such an answer must never reach the app, because several providers print parts of the key in it (OpenAI: the first eight and the last
//! four characters). Status alone does not decide: Gemini says 400 for a bad key, and OpenAI says 401 for a good key that lacks a scope.

use serde_json::Value;

use crate::Family;

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

use UpstreamFault::{AuthBad, AuthScope, Other};

impl UpstreamFault {
    /// Whether an answer with this status can be about the key, so that its body has to be read before it is relayed.
    pub fn possible(status: u16) -> bool {
        matches!(status, 400 | 401 | 403)
    }
}

impl Family {
    /// Classifies an upstream error by its status and (bounded) body. When in doubt about a 401, or about a body that cannot be read but
    /// speaks of keys, the answer is [`UpstreamFault::AuthBad`]: hiding one error text too many costs less than showing part of a key.
    pub fn classify(self, status: u16, body: &[u8]) -> UpstreamFault {
        if !UpstreamFault::possible(status) {
            return Other;
        }
        let Some(error) = Error::read(body) else {
            return if status == 401 || names_a_key(body) {
                AuthBad
            } else {
                Other
            };
        };
        if error.about_scope() {
            return AuthScope;
        }
        if status == 401 || error.about_key() {
            return AuthBad;
        }
        // What is left of 403 is a region, model or organisation limit: the key itself was accepted.
        if status == 403 { AuthScope } else { Other }
    }
}

impl crate::Api {
    /// Classifies an upstream error by its status and (bounded) body.
    pub fn classify(self, status: u16, body: &[u8]) -> UpstreamFault {
        self.family().classify(status, body)
    }
}

/// The parts of an error envelope that any of the families uses.
struct Error {
    code: String,
    kind: String,
    message: String,
    reasons: Vec<String>,
}

impl Error {
    fn read(body: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(body).ok()?;
        // Gemini's streaming endpoint wraps even its errors in an array.
        let document = document.get(0).unwrap_or(&document);
        // xAI-like gateways put a bare text where OpenAI has an object.
        let error = document.get("error").unwrap_or(document);
        let text = |field: &str| {
            error
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_ascii_lowercase()
        };
        let message = match error.as_str() {
            Some(message) => message.to_ascii_lowercase(),
            None => text("message"),
        };
        let details = error
            .get("details")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let reasons = details
            .iter()
            .filter_map(|detail| detail.get("reason")?.as_str().map(str::to_owned))
            .collect();
        Some(Self {
            code: text("code"),
            kind: text("type"),
            message,
            reasons,
        })
    }

    fn about_scope(&self) -> bool {
        self.message.contains("missing scopes") || self.code == "missing_scope"
    }

    fn about_key(&self) -> bool {
        const REASONS: [&str; 6] = [
            "API_KEY_INVALID",
            "API_KEY_EXPIRED",
            "ACCESS_TOKEN_TYPE_UNSUPPORTED",
            "ACCESS_TOKEN_EXPIRED",
            "CONSUMER_SUSPENDED",
            "CREDENTIALS_MISSING",
        ];
        const MESSAGES: [&str; 9] = [
            "incorrect api key",
            "invalid api key",
            "invalid x-api-key",
            "api key not valid",
            "api key expired",
            "api key was reported as leaked",
            "api_key:",
            "multiple authentication credentials",
            "invalid authentication credentials",
        ];
        matches!(
            self.code.as_str(),
            "invalid_api_key" | "account_deactivated"
        ) || self.kind == "authentication_error"
            || self
                .reasons
                .iter()
                .any(|reason| REASONS.contains(&reason.as_str()))
            || MESSAGES.iter().any(|text| self.message.contains(text))
    }
}

/// For bodies that are no JSON (cut off, HTML, compressed against our wish).
fn names_a_key(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"api key", b"api_key", b"api-key", b"credential"];
    let body = body.to_ascii_lowercase();
    WORDS
        .iter()
        .any(|word| body.windows(word.len()).any(|part| part == *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_bad_key_from_a_good_one_that_may_not() {
        let cases: [(Family, u16, &str, UpstreamFault); 16] = [
            (
                Family::Openai,
                401,
                r#"{"error":{"message":"Incorrect API key provided: sk-proj-****MxYA.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
                AuthBad,
            ),
            (
                Family::Openai,
                401,
                r#"{"error":{"message":"You have insufficient permissions. Missing scopes: api.model.read","type":"invalid_request_error","param":null,"code":null}}"#,
                AuthScope,
            ),
            (
                Family::Openai,
                403,
                r#"{"error":{"message":"Missing scopes: api.model.read"}}"#,
                AuthScope,
            ),
            (
                Family::Openai,
                403,
                r#"{"error":{"message":"Country, region, or territory not supported","code":"unsupported_country_region_territory"}}"#,
                AuthScope,
            ),
            (Family::Openai, 401, "<html>nope</html>", AuthBad),
            (
                Family::Openai,
                400,
                r#"{"error":{"message":"Unknown parameter: 'api_keys'.","code":"unknown_parameter"}}"#,
                Other,
            ),
            (
                Family::Openai,
                400,
                r#"{"code":"invalid-argument","error":"Incorrect API key provided: xa***UQ."}"#,
                AuthBad,
            ),
            (
                Family::Openai,
                429,
                r#"{"error":{"code":"insufficient_quota"}}"#,
                Other,
            ),
            (
                Family::Anthropic,
                401,
                r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
                AuthBad,
            ),
            (
                Family::Anthropic,
                403,
                r#"{"type":"error","error":{"type":"permission_error","message":"Your account lacks this model"}}"#,
                AuthScope,
            ),
            (
                Family::Gemini,
                400,
                r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"x","reason":"API_KEY_INVALID"}]}}"#,
                AuthBad,
            ),
            (
                Family::Gemini,
                400,
                r#"[{"error":{"code":400,"message":"x","details":[{"reason":"API_KEY_INVALID"}]}}]"#,
                AuthBad,
            ),
            (
                Family::Gemini,
                400,
                r#"{"error":{"code":400,"message":"contents is required","status":"INVALID_ARGUMENT"}}"#,
                Other,
            ),
            (
                Family::Gemini,
                403,
                r#"{"error":{"code":403,"message":"Your API key was reported as leaked. Use another."}}"#,
                AuthBad,
            ),
            (
                Family::Gemini,
                403,
                r#"{"error":{"code":403,"message":"Permission denied: consumer 'api_key:AIzaXYZ' has been suspended."}}"#,
                AuthBad,
            ),
            (
                Family::Gemini,
                401,
                r#"{"error":{"code":401,"details":[{"reason":"ACCESS_TOKEN_TYPE_UNSUPPORTED"}]}}"#,
                AuthBad,
            ),
        ];
        for (family, status, body, wanted) in cases {
            assert_eq!(
                family.classify(status, body.as_bytes()),
                wanted,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_body_that_cannot_be_read_and_speaks_of_keys_is_hidden() {
        assert_eq!(
            Family::Gemini.classify(400, b"{\"error\":{\"message\":\"API key not va"),
            AuthBad
        );
        assert_eq!(Family::Gemini.classify(400, b"bad request"), Other);
        assert_eq!(Family::Gemini.classify(500, b"API key"), Other);
    }
}
