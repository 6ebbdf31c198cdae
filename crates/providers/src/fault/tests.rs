//! Error bodies as the providers write them, keys made up.

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
            Quota,
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
    assert_eq!(Family::Gemini.classify(500, b"API key"), Server);
}

/// Bodies as the providers write them, keys made up.
#[test]
fn every_provider_says_it_differently() {
    let cases = [
        (
            "azure",
            401,
            r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
            AuthBad,
        ),
        (
            "azure",
            401,
            r#"{"error":{"code":"PermissionDenied","message":"The principal lacks the required data action."}}"#,
            AuthScope,
        ),
        (
            "azure",
            403,
            r#"{"error":{"code":"AuthenticationTypeDisabled","message":"Key based authentication is disabled for this resource."}}"#,
            AuthBad,
        ),
        (
            "azure",
            403,
            r#"{"error":{"code":"insufficient_quota","message":"x"}}"#,
            Quota,
        ),
        (
            "azure",
            403,
            r#"{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}"#,
            AuthScope,
        ),
        (
            "bedrock",
            403,
            r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#,
            AuthBad,
        ),
        (
            "bedrock",
            403,
            r#"{"Message":"Invalid API Key format: Must start with pre-defined prefix"}"#,
            AuthBad,
        ),
        (
            "bedrock",
            403,
            r#"{"message":"Bearer Token has expired"}"#,
            AuthBad,
        ),
        (
            "bedrock",
            403,
            r#"{"__type":"com.amazon#UnrecognizedClientException","message":"x"}"#,
            AuthBad,
        ),
        (
            "bedrock",
            403,
            r#"{"message":"The security token included in the request is invalid."}"#,
            AuthBad,
        ),
        (
            "bedrock",
            403,
            r#"{"message":"You don't have access to the model with the specified model ID."}"#,
            AuthScope,
        ),
        (
            "bedrock",
            400,
            r#"{"__type":"ServiceQuotaExceededException","message":"x"}"#,
            Quota,
        ),
        (
            "bedrock",
            400,
            r#"{"message":"The provided model identifier is invalid."}"#,
            Other,
        ),
        (
            "bedrock",
            429,
            r#"{"message":"Too many tokens, please wait before trying again."}"#,
            Rate,
        ),
        ("cohere", 401, r#"{"message":"invalid api token"}"#, AuthBad),
        ("mistral", 401, r#"{"detail":"Unauthorized"}"#, AuthBad),
        (
            "mistral",
            401,
            r#"{"message":"Unauthorized","request_id":"x"}"#,
            AuthBad,
        ),
        (
            "groq",
            401,
            r#"{"error":{"message":"Invalid API Key","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            AuthBad,
        ),
        (
            "groq",
            400,
            r#"{"error":{"message":"Organization has been restricted.","code":"organization_restricted"}}"#,
            Quota,
        ),
        (
            "deepseek",
            401,
            r#"{"error":{"message":"Authentication Fails, Your api key: ****Cr8A is invalid","type":"authentication_error"}}"#,
            AuthBad,
        ),
        (
            "deepseek",
            402,
            r#"{"error":{"message":"Insufficient Balance"}}"#,
            Quota,
        ),
        (
            "xai",
            400,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***UQ. You can obtain an API key from the console."}"#,
            AuthBad,
        ),
        (
            "xai",
            403,
            r#"{"code":"The caller does not have permission","error":"Your team has either used all available credits or reached its monthly spending limit."}"#,
            Quota,
        ),
        (
            "xai",
            400,
            r#"{"code":"invalid-argument","error":"Model not found: incorrect api key"}"#,
            Other,
        ),
        (
            "openrouter",
            401,
            r#"{"error":{"message":"User not found.","code":401}}"#,
            AuthBad,
        ),
        (
            "openrouter",
            403,
            r#"{"error":{"message":"Key limit exceeded (total limit).","code":403}}"#,
            Quota,
        ),
        (
            "openrouter",
            402,
            r#"{"error":{"message":"Insufficient credits","code":402}}"#,
            Quota,
        ),
        (
            "fireworks",
            401,
            r#"{"error":{"message":"The API key you provided is invalid.","code":"UNAUTHORIZED"}}"#,
            AuthBad,
        ),
        (
            "perplexity",
            401,
            "<html><h1>401 Authorization Required</h1></html>",
            AuthBad,
        ),
        (
            "together",
            429,
            r#"{"error":{"message":"You have reached the rate limit","type":"rate_limit"}}"#,
            Rate,
        ),
        (
            "vertex",
            401,
            r#"{"error":{"code":401,"message":"Request had invalid authentication credentials.","status":"UNAUTHENTICATED"}}"#,
            AuthBad,
        ),
        (
            "vertex",
            403,
            r#"{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"IAM_PERMISSION_DENIED"}]}}"#,
            AuthScope,
        ),
        (
            "vertex",
            403,
            r#"{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"BILLING_DISABLED"}]}}"#,
            Quota,
        ),
        (
            "anthropic",
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
            Quota,
        ),
        (
            "anthropic",
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits."}}"#,
            Quota,
        ),
        (
            "anthropic",
            402,
            r#"{"type":"error","error":{"type":"billing_error"}}"#,
            Quota,
        ),
        (
            "anthropic",
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
            Rate,
        ),
        (
            "anthropic",
            529,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            Overloaded,
        ),
        (
            "gemini",
            429,
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]}]}}"#,
            Quota,
        ),
        (
            "gemini",
            429,
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProject"}]}]}}"#,
            Rate,
        ),
        ("openai", 429, "", Rate),
        ("openai", 503, "", Overloaded),
        ("openai", 502, "api key", Server),
        (
            "openai",
            404,
            r#"{"error":{"code":"invalid_api_key"}}"#,
            Other,
        ),
    ];
    for (provider, status, body, wanted) in cases {
        let api = Api::known(provider).expect("known");
        assert_eq!(
            api.classify(status, body.as_bytes()),
            wanted,
            "{provider} {status} {body}"
        );
    }
}

#[test]
fn an_app_cannot_have_a_key_reported_by_what_it_sends() {
    let quoted =
        r#"{"error":{"message":"Invalid value: 'incorrect api key'.","code":"invalid_value"}}"#;
    assert_eq!(Family::Openai.classify(400, quoted.as_bytes()), Other);
    let money = r#"{"error":{"message":"Invalid value: 'insufficient credits'."}}"#;
    assert_eq!(Family::Openai.classify(400, money.as_bytes()), Other);
    let long = format!(
        "{{\"error\":{{\"message\":\"bad input: api key {}",
        "x".repeat(KEY_ERROR_MAX)
    );
    assert_eq!(Family::Openai.classify(400, long.as_bytes()), Other);
    assert_eq!(Family::Openai.classify(401, long.as_bytes()), AuthBad);
}

#[test]
fn bodies_are_read_where_they_decide() {
    for status in [400, 401, 403, 429] {
        assert!(UpstreamFault::possible(status));
    }
    for status in [200, 402, 404, 422, 500, 503, 529] {
        assert!(!UpstreamFault::possible(status));
    }
    assert!(UpstreamFault::may_name_key(403) && !UpstreamFault::may_name_key(429));
}
