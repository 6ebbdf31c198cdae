//! What edits make of a body.

use super::*;

#[test]
fn an_alias_is_written_as_the_name_it_replaces_was() {
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/responses",
            r#"{ "model" : "a" , "input":"a"}"#,
            r#"{ "model" : "n\"1" , "input":"a"}"#,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"mod\u0065l":"\u0061"}"#,
            r#"{"mod\u0065l":"n\"1"}"#,
        ),
        (
            "gemini",
            "POST /v1beta/cachedContents",
            r#"{"model":"models/a"}"#,
            r#"{"model":"models/n\"1"}"#,
        ),
        (
            "gemini",
            "POST /v1beta/interactions",
            r#"{"model":"a"}"#,
            r#"{"model":"n\"1"}"#,
        ),
    ] {
        let found = read(provider, line, body).unwrap();
        assert_eq!(found.models, ["a"]);
        let all = apply(body.as_bytes(), &found.model_edits("n\"1"));
        assert_eq!(String::from_utf8(all).unwrap(), wanted);
        let some = apply(body.as_bytes(), &found.alias_edits("a", "n\"1"));
        assert_eq!(String::from_utf8(some).unwrap(), wanted);
        assert_eq!(found.alias_edits("b", "n"), []);
    }
}

#[test]
fn edits_of_model_and_usage_go_together() {
    let body = r#"{"stream":true,"model":"a"}"#;
    let found = chat(body).unwrap();
    let mut edits = found.model_edits("b");
    edits.extend(found.usage_edit);
    let edited: serde_json::Value =
        serde_json::from_slice(&apply(body.as_bytes(), &edits)).unwrap();
    let wanted = serde_json::json!({"stream": true, "model": "b", "stream_options": {"include_usage": true}});
    assert_eq!(edited, wanted);
}
