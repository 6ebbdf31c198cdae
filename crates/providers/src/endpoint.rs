//! What an endpoint needs.

use crate::{Api, Family, Permission};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An endpoint that a policy may allow.
    Needs(Permission),
    /// Account management, credentials, or nothing we know: refused whatever the policy says.
    Denied,
}

impl Family {
    /// What `method` on `path` needs. `path` is the canonical upstream path: it begins with `/` and has no query.
    pub fn endpoint(self, method: &str, path: &str) -> Endpoint {
        Api::own(self).call(method, path, "", false).endpoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Endpoint::{Denied, Needs};
    use Permission as P;

    #[test]
    fn openai_endpoints_need_what_the_table_says() {
        let cases = [
            ("POST", "/v1/chat/completions", Needs(P::Chat)),
            ("POST", "/v1/chat/other", Denied),
            ("POST", "/v1/responses", Needs(P::Responses)),
            ("POST", "/v1/responses/resp_1/cancel", Needs(P::Responses)),
            ("POST", "/v1/embeddings", Needs(P::Embeddings)),
            ("POST", "/v1/files", Needs(P::Files)),
            ("GET", "/v1/models", Needs(P::Models)),
            ("DELETE", "/v1/models/ft:x", Needs(P::FineTuning)),
            ("POST", "/v1/models", Denied),
            ("GET", "/v1/organization/admin_api_keys", Denied),
            ("GET", "/v1/projects/p/api_keys", Denied),
            ("GET", "/v1/realtime", Needs(P::Realtime)),
            (
                "POST",
                "/v1/realtime/client_secrets",
                Needs(P::EphemeralKeys),
            ),
            (
                "POST",
                "/v1/realtime/translations/client_secrets",
                Needs(P::EphemeralKeys),
            ),
            ("POST", "/v1/chatkit/sessions", Needs(P::EphemeralKeys)),
            ("GET", "/dashboard/billing/credit_grants", Denied),
            ("GET", "/v1/", Denied),
            ("GET", "/v1", Denied),
            ("GET", "", Denied),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(
                Family::Openai.endpoint(method, path),
                wanted,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn anthropic_endpoints_need_what_the_table_says() {
        let cases = [
            ("POST", "/v1/messages", Needs(P::Chat)),
            ("POST", "/v1/messages/count_tokens", Needs(P::Chat)),
            ("POST", "/v1/messages/batches", Needs(P::Batches)),
            ("POST", "/v1/messages/else", Denied),
            ("POST", "/v1/files", Needs(P::Files)),
            ("GET", "/v1/models/m", Needs(P::Models)),
            ("GET", "/v1/organizations/api_keys", Denied),
            ("POST", "/v1/oauth/token", Denied),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(
                Family::Anthropic.endpoint(method, path),
                wanted,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn gemini_endpoints_need_what_the_table_says() {
        let cases = [
            ("POST", "/v1/models/g:generateContent", Needs(P::Chat)),
            (
                "POST",
                "/v1beta/models/g:streamGenerateContent",
                Needs(P::Chat),
            ),
            (
                "POST",
                "/v1beta/models/g:embedContent",
                Needs(P::Embeddings),
            ),
            ("POST", "/v1beta/models/g:unheardOf", Denied),
            ("GET", "/v1beta/models", Needs(P::Models)),
            ("GET", "/v1beta/models/g", Needs(P::Models)),
            ("GET", "/v1beta/models/veo/operations/1", Needs(P::Images)),
            ("POST", "/upload/v1beta/files", Needs(P::Files)),
            ("GET", "/download/v1beta/files/f:download", Needs(P::Files)),
            ("GET", "/v1beta/files/f:download", Needs(P::Files)),
            ("POST", "/upload/v1beta/else", Denied),
            ("POST", "/v1beta/openai/chat/completions", Needs(P::Chat)),
            ("GET", "/v1beta/openai/organization/x", Denied),
            ("POST", "/v1alpha/auth_tokens", Needs(P::EphemeralKeys)),
            ("POST", "/v1alpha/auth_token", Denied),
            (
                "POST",
                "/v1beta/openai/realtime/sessions",
                Needs(P::EphemeralKeys),
            ),
            ("POST", "/v9gamma/models/g:generateContent", Denied),
            ("POST", "/models/g:generateContent", Denied),
            ("GET", "/v/models", Denied),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(
                Family::Gemini.endpoint(method, path),
                wanted,
                "{method} {path}"
            );
        }
    }
}
