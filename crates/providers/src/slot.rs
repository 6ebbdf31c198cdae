//! Where a credential travels on the wire, and every place where one could.
//!
//! The agent strips *all* of these slots for *every* provider and then fills exactly one: Google answers 400 when two credentials arrive, and
//! an app must not be able to send its own key past Tacit.

use crate::Family;

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

impl Family {
    /// The slot for a request to `path` (as sent upstream, without the query).
    ///
    /// Anthropic's SDKs changed from `x-api-key` to `Authorization: Bearer` between majors; the API takes both for a key, and `x-api-key` is
    /// the one that works with old and new API versions alike, so that is what leaves, whichever the app used.
    pub fn slot(self, path: &str) -> Slot {
        match self {
            Self::Openai | Self::Bedrock | Self::Cohere | Self::Vertex => BEARER,
            Self::Azure => Slot {
                header: "api-key",
                prefix: "",
            },
            Self::Anthropic => Slot {
                header: "x-api-key",
                prefix: "",
            },
            Self::Gemini if gemini_compat(path) => BEARER,
            Self::Gemini => Slot {
                header: "x-goog-api-key",
                prefix: "",
            },
        }
    }

    /// Whether a request header is dropped on its way to this family although it is no credential slot.
    ///
    /// Organisation and project of OpenAI choose who is billed; Google's compatibility layer takes them for a second credential.
    /// Override headers would make the provider see another method or path than the one that was checked.
    pub fn drops_header(self, name: &str) -> bool {
        const ALWAYS: [&str; 8] = [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-goog-user-project",
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
        ];
        const OPENAI_ONLY: [&str; 2] = ["openai-organization", "openai-project"];
        ALWAYS.iter().any(|n| name.eq_ignore_ascii_case(n))
            || (self != Self::Openai && OPENAI_ONLY.iter().any(|n| name.eq_ignore_ascii_case(n)))
    }
}

impl crate::Api {
    /// The slot for a request to `path` (as sent upstream, without the query).
    pub fn slot(self, path: &str) -> Slot {
        self.family().slot(path)
    }

    /// Whether a request header is dropped on its way upstream although it is no credential slot.
    pub fn drops_header(self, name: &str) -> bool {
        self.family().drops_header(name)
    }

    /// Headers that every request gets, whatever the app sent under these names.
    pub fn adds_headers(self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// Whether a path is of Gemini's OpenAI-compatible layer, `/v1beta/openai/…`.
fn gemini_compat(path: &str) -> bool {
    let mut segments = path.split('/').skip(2);
    segments.next() == Some("openai")
}

/// Whether a header of this name can carry a credential for any provider. Compared without regard to case.
pub fn is_credential_header(name: &str) -> bool {
    const SLOTS: [&str; 12] = [
        "api-key",
        "apikey",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
        "x-goog-iap-jwt-assertion",
    ];
    SLOTS.iter().any(|slot| name.eq_ignore_ascii_case(slot))
}

/// Whether a query parameter of this (percent-decoded) name can carry a credential or change headers for any provider.
///
/// Names that begin with `$` are system parameters of Google's front end; `$httpHeaders` there sets request headers.
pub fn is_credential_parameter(name: &[u8]) -> bool {
    const SLOTS: [&str; 8] = [
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "authorization",
        "key",
        "oauth_token",
        "x-goog-api-key",
    ];
    name.first() == Some(&b'$')
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
    fn strips_slots_in_any_case_and_leaves_their_neighbours() {
        assert!(is_credential_header("X-Api-Key") && is_credential_header("Cookie"));
        assert!(
            !is_credential_header("x-api-key-id") && !is_credential_header("anthropic-version")
        );
        assert!(is_credential_parameter(b"KEY") && is_credential_parameter(b"$httpHeaders"));
        assert!(!is_credential_parameter(b"keys") && !is_credential_parameter(b"alt"));
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
    }
}
