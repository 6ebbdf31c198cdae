//! Answers that go wrong, on demand.

use super::wish::Wish;
use super::{Answer, Reply, SLOW_PAUSE_MS};
use crate::{Api, Family};

/// The request id of every made-up error.
const REQUEST_ID: &str = "req_mock";

/// An error in the API's own envelope.
pub(super) fn envelope(api: Api, status: u16, code: &str, message: &str) -> Answer {
    error(api, status, api.refusal(status, code, message, REQUEST_ID))
}

fn error(api: Api, status: u16, body: String) -> Answer {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    let own = api.refusal_header(status);
    headers.extend(own.map(|(name, value)| (name, value.to_owned())));
    if matches!(status, 429 | 503) {
        headers.push(("retry-after", "1".to_owned()));
    }
    finished(status, headers, vec![body.into_bytes()])
}

fn finished(status: u16, mut headers: Vec<(&'static str, String)>, pieces: Vec<Vec<u8>>) -> Answer {
    headers.push(("x-tacit-mock", "true".to_owned()));
    Answer {
        status,
        headers,
        pieces,
        cut: false,
        pause_ms: 0,
    }
}

/// What the API says of an endpoint that it does not have.
pub(super) fn not_found(api: Api) -> Answer {
    envelope(
        api,
        404,
        "not_found",
        "mock: this endpoint is not known, or not part of mock mode",
    )
}

/// The wishes that leave nothing of the answer.
pub(super) fn instead(api: Api, provider: Option<&str>, wish: Wish) -> Option<Answer> {
    Some(match wish {
        Wish::Status(status) => envelope(api, status, "mock_error", "mock: as you wished"),
        Wish::InvalidKey => {
            let (status, body) = invalid_key(api.family(), provider);
            error(api, status, body.to_owned())
        }
        Wish::NoQuota => {
            let (status, body) = no_quota(api.family());
            error(api, status, body.to_owned())
        }
        Wish::None | Wish::MidStream | Wish::Cut | Wish::Slow => return None,
    })
}

/// The other wishes, fulfilled along the way.
pub(super) fn along(api: Api, reply: Reply, wish: Wish) -> Answer {
    let failure = reply.failure;
    let mut answer = finished(200, reply.headers, reply.pieces);
    match (wish, failure) {
        (Wish::MidStream, Some(failure)) => {
            answer.pieces.truncate(answer.pieces.len().div_ceil(2));
            answer.pieces.push(failure);
        }
        (Wish::MidStream, None) => {
            return envelope(api, 500, "mock_error", "mock: as you wished");
        }
        (Wish::Cut, _) => {
            answer.cut = true;
            let half = answer.pieces.len() / 2;
            if let [document] = answer.pieces.as_mut_slice() {
                document.truncate(document.len() / 2);
            } else {
                answer.pieces.truncate(half);
            }
        }
        (Wish::Slow, _) => answer.pause_ms = SLOW_PAUSE_MS,
        _ => {}
    }
    answer
}

/// What each provider says of a bad key. The masks stand where the real ones stand, and nothing in them is of any key.
fn invalid_key(family: Family, provider: Option<&str>) -> (u16, &'static str) {
    match (family, provider) {
        (Family::Openai, Some("xai")) => (
            400,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: mo***ck. You can obtain an API key from https://console.x.ai."}"#,
        ),
        (Family::Openai, Some("deepseek")) => (
            401,
            r#"{"error":{"message":"Authentication Fails, Your api key: ****mock is invalid","type":"authentication_error","param":null,"code":"invalid_request_error"}}"#,
        ),
        (Family::Openai, Some("mistral")) => {
            (401, r#"{"message":"Unauthorized","request_id":"req_mock"}"#)
        }
        (Family::Openai, _) => (
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-mock-********mock. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
        ),
        (Family::Azure, _) => (
            401,
            r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}"#,
        ),
        (Family::Anthropic, _) => (
            401,
            r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_mock"}"#,
        ),
        (Family::Bedrock, _) => (
            403,
            r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#,
        ),
        (Family::Cohere, _) => (401, r#"{"message":"invalid api token"}"#),
        (Family::Gemini, _) => (
            400,
            r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#,
        ),
        (Family::Vertex, _) => (
            401,
            r#"{"error":{"code":401,"message":"Request had invalid authentication credentials.","status":"UNAUTHENTICATED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_TYPE_UNSUPPORTED","domain":"googleapis.com"}]}}"#,
        ),
    }
}

fn no_quota(family: Family) -> (u16, &'static str) {
    match family {
        Family::Openai | Family::Azure => (
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        ),
        Family::Anthropic => (
            402,
            r#"{"type":"error","error":{"type":"billing_error","message":"mock: your credit balance is too low"},"request_id":"req_mock"}"#,
        ),
        Family::Bedrock => (400, r#"{"message":"mock: the service quota is exceeded"}"#),
        Family::Cohere => (402, r#"{"message":"mock: billing limit reached"}"#),
        Family::Gemini | Family::Vertex => (
            429,
            r#"{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}]}}"#,
        ),
    }
}
