//! Bodies as apps send them: the models found are those that a full parser reads, what is edited is what was meant, and what passes once
//! passes again after it.
//!
//! The first byte chooses the endpoint; a second one, for forms, the boundary's length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use providers::{Api, Edit, Endpoint, Inspected, apply, inspect, inspect_frame};
use serde_json::Value;

const LINES: [(&str, &str, &str); 8] = [
    ("openai", "POST", "/v1/chat/completions"),
    ("openai", "POST", "/v1/audio/transcriptions"),
    ("openai", "POST", "/v1/files"),
    ("openrouter", "POST", "/api/v1/chat/completions"),
    ("anthropic", "POST", "/v1/messages/batches"),
    ("gemini", "POST", "/v1beta/models/g:countTokens"),
    (
        "vertex",
        "POST",
        "/v1/projects/p/locations/l/cachedContents",
    ),
    ("openai", "GET", "/v1/responses"),
];

const ALIAS: &str = "an alias\"\\";

/// Edits stay within the body, on their own.
fn check_edits(body: &[u8], edits: &[Edit]) {
    let mut ranges: Vec<_> = edits.iter().map(|edit| edit.range.clone()).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(
        ranges
            .iter()
            .all(|range| range.start <= range.end && range.end <= body.len())
    );
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
}

fn check_json(line: (&str, &str, &str), body: &[u8], found: &Inspected) {
    // The other reader gives up on deep nesting and on numbers beyond `f64`, which are the provider's business.
    let Ok(whole) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    assert_eq!(
        found.stream,
        whole.get("stream") == Some(&Value::Bool(true))
    );
    if line.2.ends_with("/chat/completions") {
        let model = whole.get("model").and_then(Value::as_str);
        let other = |name: &str| whole.get(name).is_some();
        match model {
            Some(model) => assert_eq!(found.models.first().map(String::as_str), Some(model)),
            None => assert!(
                found.models.is_empty()
                    || [
                        "models",
                        "preset",
                        "plugins",
                        "tools",
                        "request",
                        "data_source"
                    ]
                    .into_iter()
                    .chain(["data_sources", "compound_custom"])
                    .any(other)
            ),
        }
    }
    let mut edits = found.model_edits(ALIAS);
    edits.extend(found.usage_edit.clone());
    check_edits(body, &edits);
    let edited: Value = serde_json::from_slice(&apply(body, &edits)).expect("JSON stays JSON");
    if let (Some(Value::String(_)), true) = (whole.get("model"), line.0.starts_with("open")) {
        assert_eq!(edited.get("model").and_then(Value::as_str), Some(ALIAS));
    }
    if found.usage_edit.is_some() {
        assert_eq!(edited["stream_options"]["include_usage"], Value::Bool(true));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let line = LINES[usize::from(*choice) % LINES.len()];
    let api = Api::known(line.0).expect("a provider that is known");
    let is_socket = line.1 == "GET";
    let call = api.call(line.1, line.2, "", is_socket);
    assert!(matches!(call.endpoint, Endpoint::Needs(_)));
    if is_socket {
        if let Ok(found) = inspect_frame(api, &call, rest) {
            check_edits(rest, &found.model_edits(ALIAS));
        }
        return;
    }
    if *choice < 128 {
        if let Ok(found) = inspect(api, &call, "application/json", rest)
            && !rest.is_empty()
        {
            check_json(line, rest, &found);
        }
        return;
    }
    // A form: `--B` is what the body begins with, as far as a boundary may go.
    let Some((length, body)) = rest.split_first() else {
        return;
    };
    let boundary = body
        .get(2..2 + usize::from(*length % 70) + 1)
        .unwrap_or_default();
    let Ok(boundary) = std::str::from_utf8(boundary) else {
        return;
    };
    let kind = format!("multipart/form-data; boundary=\"{boundary}\"");
    if let Ok(found) = inspect(api, &call, &kind, body) {
        let edits = found.model_edits("alias");
        check_edits(body, &edits);
        let edited = apply(body, &edits);
        let again = inspect(api, &call, &kind, &edited);
        // An alias that looks like the boundary is the app's own doing.
        if !"alias".contains(boundary) && !boundary.contains("alias") {
            let models = again.expect("an edited form is a form").models;
            assert!(
                models
                    .iter()
                    .all(|model| model == "alias" || model.starts_with('@'))
            );
            assert_eq!(models.is_empty(), found.models.is_empty());
        }
    }
});
