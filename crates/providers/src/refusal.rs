//! A local refusal in the error envelope of the route's own API, so that every SDK raises its ordinary exception.

use std::fmt::Write as _;

use crate::provider::Vendor;
use crate::{Api, Family};

impl Api {
    /// The body of a refusal with HTTP `status`, Tacit's error `code`, and a `message` for the developer. Always `application/json`.
    pub fn refusal(self, status: u16, code: &str, message: &str, request_id: &str) -> String {
        let (code, message, request_id) = (Json(code), Json(message), Json(request_id));
        match self.vendor() {
            Vendor::Anthropic => {
                let kind = anthropic_type(status);
                format!(
                    r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}},"request_id":{request_id}}}"#
                )
            }
            Vendor::Gemini | Vendor::Vertex => {
                let name = google_status(status);
                format!(
                    r#"{{"error":{{"code":{status},"message":{message},"status":"{name}","details":[{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{code},"domain":"tacit"}}]}}}}"#
                )
            }
            Vendor::Bedrock | Vendor::Cohere => format!(r#"{{"message":{message}}}"#),
            Vendor::Mistral => {
                let kind = openai_type(status);
                format!(
                    r#"{{"object":"error","message":{message},"type":"{kind}","param":null,"code":{code},"request_id":{request_id}}}"#
                )
            }
            Vendor::Openai
            | Vendor::Azure
            | Vendor::Groq
            | Vendor::Deepseek
            | Vendor::Xai
            | Vendor::Together
            | Vendor::Fireworks
            | Vendor::Openrouter
            | Vendor::Perplexity => {
                let kind = openai_type(status);
                format!(
                    r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code}}}}}"#
                )
            }
        }
    }

    /// The header that belongs to a refusal with this status: AWS SDKs read the name of the exception from one.
    pub fn refusal_header(self, status: u16) -> Option<(&'static str, &'static str)> {
        (self.vendor() == Vendor::Bedrock).then(|| ("x-amzn-errortype", aws_exception(status)))
    }
}

impl Family {
    /// The body of a refusal in the family's envelope: see [`Api::refusal`].
    pub fn refusal(self, status: u16, code: &str, message: &str, request_id: &str) -> String {
        Api::own(self).refusal(status, code, message, request_id)
    }
}

fn aws_exception(status: u16) -> &'static str {
    match status {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        429 => "ThrottlingException",
        400..=499 => "ValidationException",
        503 => "ServiceUnavailableException",
        504 => "ModelTimeoutException",
        _ => "InternalServerException",
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        400..=499 => "INVALID_ARGUMENT",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

/// Writes a string as a JSON literal. Own code because three fields do not need a document model.
struct Json<'a>(&'a str);

impl std::fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_family_gets_json_of_its_own_shape() {
        let read = |family: Family| -> serde_json::Value {
            serde_json::from_str(&family.refusal(503, "hsm_unavailable", "no \"hsm\"\n", "req_1"))
                .unwrap()
        };
        let openai = read(Family::Openai);
        assert_eq!(openai["error"]["code"], "hsm_unavailable");
        assert_eq!(openai["error"]["message"], "no \"hsm\"\n");
        assert_eq!(openai["error"]["type"], "server_error");
        let anthropic = read(Family::Anthropic);
        assert_eq!(anthropic["type"], "error");
        assert_eq!(anthropic["error"]["type"], "api_error");
        assert_eq!(anthropic["request_id"], "req_1");
        let gemini = read(Family::Gemini);
        assert_eq!(gemini["error"]["code"], 503);
        assert_eq!(gemini["error"]["status"], "UNAVAILABLE");
        assert_eq!(gemini["error"]["details"][0]["reason"], "hsm_unavailable");
    }

    #[test]
    fn every_provider_gets_json_that_carries_the_message() {
        for provider in crate::all() {
            for status in [400, 403, 421, 429, 502, 503, 504] {
                let text = provider
                    .api()
                    .refusal(status, "bad_request", "a \u{1}\"b\"", "req_1");
                let read: serde_json::Value = serde_json::from_str(&text).unwrap();
                let message = read.get("message").or_else(|| read["error"].get("message"));
                assert_eq!(message.unwrap(), "a \u{1}\"b\"", "{}", provider.name);
            }
        }
    }

    #[test]
    fn bedrock_alone_names_an_exception_in_a_header() {
        let of = |name: &str, status| Api::known(name).unwrap().refusal_header(status);
        let named = |exception| Some(("x-amzn-errortype", exception));
        assert_eq!(of("bedrock", 403), named("AccessDeniedException"));
        assert_eq!(of("bedrock", 429), named("ThrottlingException"));
        assert_eq!(of("bedrock", 400), named("ValidationException"));
        assert_eq!(of("bedrock", 502), named("InternalServerException"));
        assert_eq!(of("cohere", 403), None);
    }

    #[test]
    fn mistral_has_an_envelope_of_its_own() {
        let text = Api::known("mistral")
            .unwrap()
            .refusal(429, "rate_limited", "later", "req_1");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["object"], "error");
        assert_eq!(read["code"], "rate_limited");
        assert!(read.get("error").is_none());
    }
}
