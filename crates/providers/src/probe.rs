//! The zero-token call of each provider, which proves that a key works without using it up.

use serde_json::Value;

use crate::provider::Vendor;
use crate::{Api, UpstreamFault};

/// A call that costs nothing and needs the key. Its target is Tacit's own and need not be an endpoint that apps may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: &'static str,
    /// Headers beside host, credential and length.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body; empty for `GET`.
    pub body: &'static [u8],
    api: Api,
}

/// What the answer says about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key works.
    Accepted,
    /// The key is good, but may not make this call, or has nothing left to pay with.
    AcceptedNoScope,
    /// The key is wrong, expired, revoked or suspended.
    Refused,
    /// The answer says nothing about the key.
    Unclear,
}

use Verdict::{Accepted, AcceptedNoScope, Refused, Unclear};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

impl Api {
    /// The zero-token call.
    pub fn probe(self) -> Probe {
        let get = |target| Probe {
            method: "GET",
            target,
            headers: &[],
            body: b"",
            api: self,
        };
        let post = |target, body| Probe {
            method: "POST",
            target,
            headers: JSON,
            body,
            api: self,
        };
        match self.vendor() {
            Vendor::Anthropic => Probe {
                headers: &[("anthropic-version", "2023-06-01")],
                ..get("/v1/models?limit=1")
            },
            Vendor::Gemini => get("/v1beta/models?pageSize=1"),
            Vendor::Vertex => get("/v1beta1/publishers/google/models?pageSize=1"),
            Vendor::Azure => get("/openai/v1/models"),
            // The list of models is on another host; this list is on the runtime's.
            Vendor::Bedrock => get("/async-invoke?maxResults=1"),
            Vendor::Cohere => post("/v1/check-api-key", b"{}"),
            Vendor::Groq => get("/openai/v1/models"),
            // Says whether the key or its team is blocked.
            Vendor::Xai => get("/v1/api-key"),
            Vendor::Fireworks => get("/inference/v1/models"),
            // Its list of models is public.
            Vendor::Openrouter => get("/api/v1/key"),
            // It has nothing that is free; a model that does not exist costs nothing.
            Vendor::Perplexity => post(
                "/chat/completions",
                br#"{"model":"tacit-key-test","messages":[{"role":"user","content":"x"}]}"#,
            ),
            Vendor::Openai | Vendor::Mistral | Vendor::Deepseek | Vendor::Together => {
                get("/v1/models")
            }
        }
    }
}

impl Probe {
    /// What an answer with this status and (bounded) body says about the key.
    pub fn verdict(&self, status: u16, body: &[u8]) -> Verdict {
        let vendor = self.api.vendor();
        match (vendor, status) {
            (Vendor::Cohere, 200..=299) if says(body, &["valid"], false) => return Refused,
            (Vendor::Xai, 200..=299) if says(body, &XAI_BLOCKS, true) => return Refused,
            (_, 200..=299) => return Accepted,
            // It looked at the model, so it had accepted the key.
            (Vendor::Perplexity, 400 | 404 | 422) => return Accepted,
            // A gateway in front of it, or the key: it has no scopes.
            (Vendor::Perplexity, 401 | 403) => return Refused,
            _ => {}
        }
        match self.api.classify(status, body) {
            UpstreamFault::AuthBad => Refused,
            UpstreamFault::AuthScope | UpstreamFault::Quota => AcceptedNoScope,
            UpstreamFault::Rate
            | UpstreamFault::Overloaded
            | UpstreamFault::Server
            | UpstreamFault::Other => Unclear,
        }
    }
}

const XAI_BLOCKS: [&str; 4] = [
    "api_key_blocked",
    "api_key_disabled",
    "disabled",
    "team_blocked",
];

/// Whether a document has one of these fields at this value.
fn says(body: &[u8], fields: &[&str], value: bool) -> bool {
    let document: Option<Value> = serde_json::from_slice(body).ok();
    let document = document.unwrap_or_default();
    fields
        .iter()
        .any(|field| document.get(field) == Some(&Value::Bool(value)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_provider_has_a_call_that_names_no_token() {
        for provider in crate::all() {
            let probe = provider.api().probe();
            assert!(probe.target.starts_with('/'), "{}", provider.name);
            assert_eq!(
                probe.method == "POST",
                !probe.body.is_empty(),
                "{}",
                provider.name
            );
            let query = probe.target.split_once('?').map_or("", |(_, query)| query);
            for parameter in query.split('&') {
                let name = parameter.split('=').next().unwrap();
                assert!(!crate::is_credential_parameter(name.as_bytes()));
            }
            assert!(
                probe
                    .headers
                    .iter()
                    .all(|(name, _)| !crate::is_credential_header(name))
            );
        }
    }

    #[test]
    fn verdicts_tell_a_good_key_from_a_bad_one() {
        let invalid = r#"{"error":{"code":"invalid_api_key"}}"#;
        let cases = [
            ("openai", 200, r#"{"data":[]}"#, Accepted),
            ("openai", 401, invalid, Refused),
            (
                "openai",
                403,
                r#"{"error":{"message":"Missing scopes: api.model.read"}}"#,
                AcceptedNoScope,
            ),
            (
                "openai",
                429,
                r#"{"error":{"code":"insufficient_quota"}}"#,
                AcceptedNoScope,
            ),
            ("openai", 429, "{}", Unclear),
            ("openai", 500, "", Unclear),
            ("openai", 302, "", Unclear),
            ("cohere", 200, r#"{"valid":true}"#, Accepted),
            ("cohere", 200, r#"{"valid":false}"#, Refused),
            (
                "xai",
                200,
                r#"{"api_key_blocked":false,"team_blocked":false}"#,
                Accepted,
            ),
            (
                "xai",
                200,
                r#"{"api_key_blocked":false,"team_blocked":true}"#,
                Refused,
            ),
            (
                "xai",
                400,
                r#"{"code":"invalid-argument","error":"Incorrect API key provided."}"#,
                Refused,
            ),
            (
                "perplexity",
                400,
                r#"{"error":{"message":"Invalid model"}}"#,
                Accepted,
            ),
            ("perplexity", 401, "<html>", Refused),
            ("perplexity", 500, "", Unclear),
            ("bedrock", 200, r#"{"asyncInvokeSummaries":[]}"#, Accepted),
            (
                "bedrock",
                403,
                r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#,
                Refused,
            ),
            (
                "bedrock",
                403,
                r#"{"Message":"User is not authorized to perform: bedrock:ListAsyncInvokes"}"#,
                AcceptedNoScope,
            ),
            (
                "gemini",
                400,
                r#"{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}"#,
                Refused,
            ),
            (
                "vertex",
                403,
                r#"{"error":{"status":"PERMISSION_DENIED"}}"#,
                AcceptedNoScope,
            ),
        ];
        for (provider, status, body, wanted) in cases {
            let probe = Api::known(provider).unwrap().probe();
            assert_eq!(
                probe.verdict(status, body.as_bytes()),
                wanted,
                "{provider} {status} {body}"
            );
        }
    }
}
