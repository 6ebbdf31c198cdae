//! Mock mode: answers in each provider's own format, without a key and without a network.
//!
//! For developers and tests of apps: an unmodified SDK reads these answers. Everything is a pure function of the request, so that a test may
//! compare answers byte by byte: ids and times are fixed, the text repeats the beginning of what was said, and the usage numbers are those
//! that Tacit's own meters read back. What is no endpoint here gets the API's own 404. It must never be mistaken for the real thing: every
//! text begins with `mock:`, every answer has the header `x-tacit-mock: true`.
//!
//! A request may wish for trouble, with the header `x-tacit-mock`:
//!
//! | wish | the answer |
//! |---|---|
//! | `status=429` (400 to 599) | that status, in the API's own error envelope; 429 and 503 with `retry-after: 1` |
//! | `error=invalid_api_key` | what the provider says of a bad key |
//! | `error=insufficient_quota` | what it says when the account is empty |
//! | `error=mid_stream` | a stream that fails after its status said 200; a plain 500 where nothing streams |
//! | `cut` | the first half, and then the connection breaks off |
//! | `slow` | [`SLOW_PAUSE_MS`] between the pieces |
//!
//! Any other wish is refused with 400, so that a misspelt one does not pass as success.

mod anthropic;
mod bedrock;
mod cohere;
mod frame;
mod gemini;
mod openai;
mod openai_media;
mod responses;
mod said;
#[cfg(test)]
mod tests;
mod trouble;
mod wish;

use said::Said;
use wish::Wish;

use crate::{Api, Family};

/// Between the pieces of a slow answer: long enough to see in a terminal, short enough for a test.
pub const SLOW_PAUSE_MS: u64 = 100;

/// A made-up answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers, without those of framing.
    pub headers: Vec<(&'static str, String)>,
    /// The body, to be sent piece by piece; one piece is a whole document.
    pub pieces: Vec<Vec<u8>>,
    /// The connection breaks off after the last piece instead of ending the body.
    pub cut: bool,
    /// How long to wait before each piece but the first, in milliseconds.
    pub pause_ms: u64,
}

/// Answers a request as the provider would. `path` is the upstream path; `provider` is the name of a provider that Tacit knows, for the few
/// words in which the copies of an API differ; `wish` is the value of the request's header `x-tacit-mock`.
pub fn answer(
    family: Family,
    provider: Option<&str>,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
    wish: Option<&str>,
) -> Answer {
    let api = provider
        .and_then(Api::known)
        .filter(|api| api.family() == family)
        .unwrap_or(Api::own(family));
    let Ok(wish) = Wish::read(wish) else {
        return trouble::envelope(api, 400, "unknown_wish", wish::HELP);
    };
    if let Some(refused) = trouble::instead(api, provider, wish) {
        return refused;
    }
    let request = Request {
        provider: provider.unwrap_or_default(),
        method,
        path,
        query,
        said: Said::read(body),
    };
    match reply(family, &request) {
        Some(reply) => trouble::along(api, reply, wish),
        None => trouble::not_found(api),
    }
}

/// What a request says, as far as an answer depends on it.
struct Request<'a> {
    provider: &'a str,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    said: Said,
}

impl Request<'_> {
    fn is_post(&self) -> bool {
        self.method == "POST"
    }

    fn is_get(&self) -> bool {
        self.method == "GET"
    }
}

/// An answer with status 200.
struct Reply {
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Vec<u8>>,
    /// How this stream says that it has failed, as a last piece; `None` for documents.
    failure: Option<Vec<u8>>,
}

impl Reply {
    fn json(document: &serde_json::Value) -> Self {
        Self::bytes("application/json", document.to_string().into_bytes())
    }

    fn bytes(content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            headers: vec![("content-type", content_type.to_owned())],
            pieces: vec![body],
            failure: None,
        }
    }

    fn stream(content_type: &'static str, pieces: Vec<Vec<u8>>, failure: Vec<u8>) -> Self {
        Self {
            headers: vec![("content-type", content_type.to_owned())],
            pieces,
            failure: Some(failure),
        }
    }

    /// A stream of server-sent events.
    fn sse(pieces: Vec<Vec<u8>>, failure: Vec<u8>) -> Self {
        Self::stream("text/event-stream", pieces, failure)
    }
}

/// One server-sent event without a name.
fn data(event: &serde_json::Value) -> Vec<u8> {
    format!("data: {event}\n\n").into_bytes()
}

/// One server-sent event with the name that its `type` says.
fn named(event: &serde_json::Value) -> Vec<u8> {
    let name = event["type"].as_str().unwrap_or("message");
    format!("event: {name}\ndata: {event}\n\n").into_bytes()
}

fn reply(family: Family, request: &Request<'_>) -> Option<Reply> {
    match family {
        Family::Openai => openai::reply(request),
        Family::Azure => azure(request),
        Family::Anthropic => anthropic::reply(request, request.path.strip_prefix("/v1/")?),
        Family::Bedrock => bedrock::reply(request),
        Family::Cohere => cohere::reply(request),
        Family::Gemini => gemini::reply(request),
        Family::Vertex => gemini::vertex(request),
    }
}

/// OpenAI's API behind deployments, and Claude beside it.
fn azure(request: &Request<'_>) -> Option<Reply> {
    if let Some(rest) = request.path.strip_prefix("/anthropic/v1/") {
        return anthropic::reply(request, rest);
    }
    if let Some(rest) = request.path.strip_prefix("/openai/deployments/") {
        let (deployment, rest) = rest.split_once('/')?;
        return openai::endpoint(request, rest, Some(deployment));
    }
    let rest = ["/openai/v1/", "/openai/", "/models/"]
        .into_iter()
        .find_map(|prefix| request.path.strip_prefix(prefix))?;
    openai::endpoint(request, rest, None)
}

/// Fixed, so that answers can be compared: 14 November 2023, 22:13:20 UTC.
const CREATED: u64 = 1_700_000_000;
/// The same for APIs that write times out.
const CREATED_AT: &str = "2023-11-14T22:13:20Z";
/// The model of answers whose request names none, and of lists of models.
const MODEL: &str = "mock-model";
