//! Endpoint → permission: what a method and a path ask for.
//!
//! An allow-list. What is not listed is denied, so that a new endpoint of a provider is closed until somebody has looked at it, and endpoints
//! that manage the account or mint credentials are closed for good.

use crate::{Family, Permission};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An endpoint that a policy may allow.
    Needs(Permission),
    /// Account management, credentials, or nothing we know: refused whatever the policy says.
    Denied,
}

use Endpoint::{Denied, Needs};

impl Family {
    /// What `method` on `path` needs. `path` is the canonical upstream path: it begins with `/` and has no query.
    pub fn endpoint(self, method: &str, path: &str) -> Endpoint {
        let Some(path) = path.strip_prefix('/') else {
            return Denied;
        };
        match self {
            Self::Openai => match path.strip_prefix("v1/") {
                Some(rest) => openai(method, rest),
                None => Denied,
            },
            Self::Anthropic => match path.strip_prefix("v1/") {
                Some(rest) => anthropic(method, rest),
                None => Denied,
            },
            Self::Gemini => gemini(method, path),
            Self::Azure | Self::Bedrock | Self::Cohere | Self::Vertex => Denied,
        }
    }
}

fn openai(method: &str, rest: &str) -> Endpoint {
    let mut segments = rest.split('/');
    let head = segments.next().unwrap_or("");
    let next = segments.next().unwrap_or("");
    Needs(match head {
        "chat" if next == "completions" => Permission::Chat,
        "completions" => Permission::Chat,
        "responses" | "conversations" | "assistants" | "threads" => Permission::Responses,
        "embeddings" => Permission::Embeddings,
        "images" | "videos" => Permission::Images,
        "audio" => Permission::Audio,
        "files" | "uploads" | "vector_stores" | "containers" | "skills" => Permission::Files,
        "batches" | "evals" => Permission::Batches,
        "fine_tuning" => Permission::FineTuning,
        "models" if matches!(method, "GET" | "HEAD") => Permission::Models,
        "models" if method == "DELETE" => Permission::FineTuning,
        "moderations" => Permission::Moderation,
        "realtime" if next.is_empty() => Permission::Realtime,
        // All of these answer with `ek_…` keys, or open a call outside of us; so may whatever is added below the session itself.
        "realtime" | "chatkit" => Permission::EphemeralKeys,
        _ => return Denied,
    })
}

fn anthropic(method: &str, rest: &str) -> Endpoint {
    let mut segments = rest.split('/');
    let head = segments.next().unwrap_or("");
    let next = segments.next();
    Needs(match (head, next) {
        ("messages", None | Some("count_tokens")) | ("complete", None) => Permission::Chat,
        ("messages", Some("batches")) => Permission::Batches,
        ("files" | "skills", _) => Permission::Files,
        ("models", _) if matches!(method, "GET" | "HEAD") => Permission::Models,
        _ => return Denied,
    })
}

/// The rest of a path under Gemini's OpenAI-compatible layer, `/v1beta/openai/…`.
pub(crate) fn gemini_compat(path: &str) -> Option<&str> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    (is_version(version)).then_some(())?;
    rest.strip_prefix("openai/")
}

/// `v1`, `v1beta`, `v1alpha2`: a `v`, digits, letters, digits.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else {
        return false;
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() + 1 < segment.len()
        && matches!(
            rest.trim_end_matches(|c: char| c.is_ascii_digit()),
            "" | "alpha" | "beta"
        )
}

fn gemini(method: &str, path: &str) -> Endpoint {
    let Some((first, rest)) = path.split_once('/') else {
        return Denied;
    };
    if first == "ws" {
        return Needs(Permission::Realtime);
    }
    if matches!(first, "upload" | "download") {
        return match rest.split_once('/') {
            Some((version, rest)) if is_version(version) && is_files(collection(rest)) => {
                Needs(Permission::Files)
            }
            _ => Denied,
        };
    }
    if !is_version(first) {
        return Denied;
    }
    if let Some(rest) = rest.strip_prefix("openai/") {
        return openai(method, rest);
    }
    let read = matches!(method, "GET" | "HEAD");
    let verb = rest.rsplit_once(':').map(|(_, verb)| verb);
    Needs(match (collection(rest), verb) {
        ("models" | "tunedModels" | "dynamic", Some(verb)) if !verb.contains('/') => {
            return gemini_verb(verb);
        }
        ("models", None) if read && rest.contains("/operations") => Permission::Images,
        ("models" | "tunedModels", None) if read => Permission::Models,
        ("tunedModels", None) => Permission::FineTuning,
        ("interactions" | "cachedContents", _) => Permission::Chat,
        ("batches", _) => Permission::Batches,
        (name, _) if is_files(name) => Permission::Files,
        ("auth_tokens", _) => Permission::EphemeralKeys,
        _ => return Denied,
    })
}

/// The first segment of a resource path, without a verb.
fn collection(rest: &str) -> &str {
    let first = rest.split('/').next().unwrap_or("");
    first.split(':').next().unwrap_or("")
}

fn is_files(collection: &str) -> bool {
    matches!(
        collection,
        "files" | "fileSearchStores" | "corpora" | "generatedFiles"
    )
}

fn gemini_verb(verb: &str) -> Endpoint {
    Needs(match verb {
        "generateContent"
        | "streamGenerateContent"
        | "countTokens"
        | "computeTokens"
        | "generateAnswer" => Permission::Chat,
        "embedContent" | "batchEmbedContents" | "asyncBatchEmbedContent" => Permission::Embeddings,
        "batchGenerateContent" => Permission::Batches,
        "predict" | "predictLongRunning" | "fetchPredictOperation" => Permission::Images,
        _ => return Denied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
