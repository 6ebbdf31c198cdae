//! Where a credential travels on the wire, and every place where one could.
//!
//! The agent strips *all* of these slots for *every* provider and then fills exactly one: Google answers 400 when two credentials arrive, and
//! an app must not be able to send its own key past Tacit.

use crate::provider::Vendor;
use crate::{Api, Family};

/// The one place in a request head where a provider expects its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Header name, in lower case.
    pub header: &'static str,
    /// What stands before the key in the value: `Bearer ` or nothing.
    pub prefix: &'static str,
}

const BEARER: Slot = Slot {
    header: "authorization",
    prefix: "Bearer ",
};

const fn bare(header: &'static str) -> Slot {
    Slot { header, prefix: "" }
}

impl Api {
    /// The slot for a request to `path` (as sent upstream, without the query).
    ///
    /// Anthropic's SDKs changed from `x-api-key` to `Authorization: Bearer` between majors; the API takes both for a key, and `x-api-key` is
    /// the one that works with old and new API versions alike, so that is what leaves, whichever the app used. It is also what the copies of
    /// that API at Azure and DeepSeek take.
    pub fn slot(self, path: &str) -> Slot {
        let is_messages = path.starts_with("/anthropic/");
        match self.vendor() {
            Vendor::Anthropic => bare("x-api-key"),
            Vendor::Azure | Vendor::Deepseek if is_messages => bare("x-api-key"),
            Vendor::Azure => bare("api-key"),
            Vendor::Gemini if is_gemini_compat(path) => BEARER,
            Vendor::Gemini => bare("x-goog-api-key"),
            Vendor::Vertex if is_vertex_express(path) => bare("x-goog-api-key"),
            Vendor::Openai
            | Vendor::Vertex
            | Vendor::Bedrock
            | Vendor::Mistral
            | Vendor::Cohere
            | Vendor::Groq
            | Vendor::Deepseek
            | Vendor::Xai
            | Vendor::Together
            | Vendor::Fireworks
            | Vendor::Openrouter
            | Vendor::Perplexity => BEARER,
        }
    }

    /// Whether a request header is dropped on its way upstream although it is no credential slot.
    ///
    /// Organisation and project of OpenAI choose who is billed; Google's compatibility layer takes them for a second credential. Override
    /// headers would make the provider see another method or path than the one that was checked, signing headers a signature that is not
    /// ours, and Azure's deployment header another model.
    pub fn drops_header(self, name: &str) -> bool {
        let is_in = |names: &[&str]| names.iter().any(|one| name.eq_ignore_ascii_case(one));
        is_in(&DROPPED)
            || (self.vendor() != Vendor::Openai
                && is_in(&["openai-organization", "openai-project"]))
    }

    /// Headers that every request gets, whatever the app sent under these names. No provider needs any today: versions are the app's choice.
    pub fn adds_headers(self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

impl Family {
    /// The slot for a request to `path`: see [`Api::slot`].
    pub fn slot(self, path: &str) -> Slot {
        Api::own(self).slot(path)
    }

    /// Whether a request header is dropped: see [`Api::drops_header`].
    pub fn drops_header(self, name: &str) -> bool {
        Api::own(self).drops_header(name)
    }
}

/// Dropped for everybody.
const DROPPED: [&str; 28] = [
    "azureml-model-deployment",
    "forwarded",
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-target",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-goog-user-project",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-ms-oai-image-generation-deployment",
    "x-original-host",
    "x-original-method",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Whether a path is of Gemini's OpenAI-compatible layer, `/v1beta/openai/…`.
fn is_gemini_compat(path: &str) -> bool {
    path.split('/').nth(2) == Some("openai") && path.split('/').nth(3).is_some()
}

/// Whether a call of Vertex names no project, which an API key then stands for: `/v1/publishers/google/models/m:verb`.
fn is_vertex_express(path: &str) -> bool {
    path.split('/').nth(2) == Some("publishers") && path.contains(':')
}

/// Whether a header of this name can carry a credential for any provider. Compared without regard to case.
pub fn is_credential_header(name: &str) -> bool {
    const SLOTS: [&str; 16] = [
        "api-key",
        "apikey",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-access-token",
        "x-amz-security-token",
        "x-api-key",
        "x-api-token",
        "x-auth-token",
        "x-goog-api-key",
        "x-goog-iam-authority-selector",
        "x-goog-iam-authorization-token",
        "x-goog-iap-jwt-assertion",
        "x-ms-authorization-auxiliary",
    ];
    SLOTS.iter().any(|slot| name.eq_ignore_ascii_case(slot))
}

/// Whether a query parameter of this (percent-decoded) name can carry a credential or change headers for any provider.
///
/// Names that begin with `$` are system parameters of Google's front end; `$httpHeaders` there sets request headers. Those that begin with
/// `x-amz-` are a signature in the URL.
pub fn is_credential_parameter(name: &[u8]) -> bool {
    const SLOTS: [&str; 10] = [
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "authorization",
        "bearer_token",
        "key",
        "oauth_token",
        "subscription-key",
        "x-goog-api-key",
    ];
    const SIGNATURE: &[u8] = b"x-amz-";
    name.first() == Some(&b'$')
        || name
            .get(..SIGNATURE.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(SIGNATURE))
        || SLOTS
            .iter()
            .any(|slot| name.eq_ignore_ascii_case(slot.as_bytes()))
}

/// Whether a WebSocket subprotocol carries a credential, or chooses who pays: browsers can set no header, so SDKs put both there.
pub fn is_credential_subprotocol(token: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        // Kubernetes' way, which gateways have copied.
        "base64url.bearer.",
        "openai-insecure-api-key.",
        "openai-organization.",
        "openai-project.",
    ];
    PREFIXES.iter().any(|prefix| {
        token
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_family_has_one_slot_and_it_is_among_those_stripped() {
        let cases = [
            (
                Family::Openai,
                "/v1/chat/completions",
                "authorization",
                "Bearer ",
            ),
            (Family::Anthropic, "/v1/messages", "x-api-key", ""),
            (
                Family::Gemini,
                "/v1beta/models/g:generateContent",
                "x-goog-api-key",
                "",
            ),
            (
                Family::Gemini,
                "/v1beta/openai/chat/completions",
                "authorization",
                "Bearer ",
            ),
            (Family::Gemini, "/v1beta/openaix/chat", "x-goog-api-key", ""),
        ];
        for (family, path, header, prefix) in cases {
            assert_eq!(family.slot(path), Slot { header, prefix }, "{path}");
            assert!(is_credential_header(header));
        }
    }

    #[test]
    fn each_provider_has_one_slot_and_it_is_among_those_stripped() {
        let cases = [
            (
                "vertex",
                "/v1/projects/p/locations/l/publishers/google/models/g:generateContent",
                "authorization",
            ),
            (
                "vertex",
                "/v1/publishers/google/models/g:generateContent",
                "x-goog-api-key",
            ),
            (
                "vertex",
                "/v1beta1/publishers/google/models",
                "authorization",
            ),
            (
                "vertex",
                "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent",
                "authorization",
            ),
            ("azure", "/openai/deployments/d/chat/completions", "api-key"),
            ("azure", "/openai/v1/responses", "api-key"),
            ("azure", "/anthropic/v1/messages", "x-api-key"),
            ("deepseek", "/chat/completions", "authorization"),
            ("deepseek", "/anthropic/v1/messages", "x-api-key"),
            ("bedrock", "/model/m/converse", "authorization"),
            ("bedrock", "/anthropic/v1/messages", "authorization"),
            ("openrouter", "/api/v1/messages", "authorization"),
            ("cohere", "/v2/chat", "authorization"),
        ];
        for (provider, path, header) in cases {
            let slot = Api::known(provider).unwrap().slot(path);
            assert_eq!(slot.header, header, "{provider} {path}");
            assert_eq!(slot.prefix == "Bearer ", header == "authorization");
            assert!(is_credential_header(header));
        }
        for provider in crate::all() {
            assert!(is_credential_header(provider.api().slot("/").header));
            for (name, _) in provider.api().adds_headers() {
                assert!(!is_credential_header(name), "{}", provider.name);
            }
        }
    }

    #[test]
    fn strips_slots_in_any_case_and_leaves_their_neighbours() {
        assert!(is_credential_header("X-Api-Key") && is_credential_header("Cookie"));
        assert!(
            !is_credential_header("x-api-key-id") && !is_credential_header("anthropic-version")
        );
        assert!(is_credential_parameter(b"KEY") && is_credential_parameter(b"$httpHeaders"));
        assert!(is_credential_parameter(b"X-Amz-Signature"));
        assert!(!is_credential_parameter(b"keys") && !is_credential_parameter(b"alt"));
        assert!(!is_credential_parameter(b"x-amz") && !is_credential_parameter(b"api-version"));
    }

    #[test]
    fn subprotocols_that_carry_credentials_and_their_neighbours() {
        for token in [
            "openai-insecure-api-key.sk-x",
            "OpenAI-Project.p",
            "openai-organization.",
        ] {
            assert!(is_credential_subprotocol(token), "{token}");
        }
        for token in [
            "realtime",
            "openai-beta.realtime-v1",
            "openai-insecure-api-key",
        ] {
            assert!(!is_credential_subprotocol(token), "{token}");
        }
    }

    #[test]
    fn openai_organisation_reaches_openai_only() {
        assert!(!Family::Openai.drops_header("OpenAI-Organization"));
        assert!(Family::Gemini.drops_header("OpenAI-Organization"));
        assert!(Family::Anthropic.drops_header("openai-project"));
        assert!(Family::Openai.drops_header("X-HTTP-Method-Override"));
        for provider in crate::all() {
            let api = provider.api();
            let is_openai = provider.name == "openai";
            assert_eq!(api.drops_header("openai-organization"), !is_openai);
            assert!(api.drops_header("X-Amz-Date") && api.drops_header("x-original-url"));
            for kept in [
                "anthropic-beta",
                "x-amzn-bedrock-trace",
                "http-referer",
                "content-type",
            ] {
                assert!(!api.drops_header(kept), "{kept}");
            }
        }
    }
}
