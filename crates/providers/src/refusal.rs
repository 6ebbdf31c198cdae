//! A local refusal in the error envelope of the route's own API, so that every SDK raises its ordinary exception.

use std::fmt::Write as _;

use crate::Family;

impl Family {
    /// The body of a refusal with HTTP `status`, Tacit's error `code`, and a `message` for the developer. Always `application/json`.
    pub fn refusal(self, status: u16, code: &str, message: &str, request_id: &str) -> String {
        let (code, message, request_id) = (Json(code), Json(message), Json(request_id));
        match self {
            Self::Openai | Self::Azure => {
                let kind = openai_type(status);
                format!(
                    r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code}}}}}"#
                )
            }
            Self::Anthropic => {
                let kind = anthropic_type(status);
                format!(
                    r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}},"request_id":{request_id}}}"#
                )
            }
            Self::Bedrock | Self::Cohere => format!(r#"{{"message":{message}}}"#),
            Self::Gemini | Self::Vertex => {
                let name = google_status(status);
                format!(
                    r#"{{"error":{{"code":{status},"message":{message},"status":"{name}","details":[{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{code},"domain":"tacit"}}]}}}}"#
                )
            }
        }
    }
}

impl crate::Api {
    /// The body of a refusal in this API's own envelope. Always `application/json`.
    pub fn refusal(self, status: u16, code: &str, message: &str, request_id: &str) -> String {
        self.family().refusal(status, code, message, request_id)
    }

    /// Headers that belong to a refusal with this status: Bedrock's SDKs read the error's name from one.
    pub fn refusal_headers(self, status: u16) -> &'static [(&'static str, &'static str)] {
        let _ = status;
        &[]
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
}
