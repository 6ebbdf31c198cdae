//! What stands beside the model that runs, what cannot be seen, and what an app could make us hold or believe.

use super::*;

#[test]
fn a_model_of_a_tool_does_not_stand_for_the_model_that_runs() {
    // The stored prompt's model runs; the tool's is only that of the picture.
    let found = read(
        "openai",
        "POST /v1/responses",
        r#"{"prompt":{"id":"p"},"input":"x","tools":[{"type":"image_generation","model":"allowed"}]}"#,
    )
    .unwrap();
    assert!(found.unnamed, "{:?}", found.models);
    // The assistant's model runs.
    let found = read(
        "openai",
        "POST /v1/threads/t/runs",
        r#"{"assistant_id":"a","tools":[{"type":"image_generation","model":"allowed"}]}"#,
    )
    .unwrap();
    assert!(found.unnamed, "{:?}", found.models);
    // The account's default runs.
    let found = read(
        "openrouter",
        "POST /api/v1/chat/completions",
        r#"{"messages":[],"plugins":[{"id":"x","model":"allowed"}]}"#,
    )
    .unwrap();
    assert!(found.unnamed, "{:?}", found.models);
}

#[test]
fn a_line_of_a_batch_without_a_model_is_not_for_a_key_of_certain_models() {
    let (api, call) = call("openai", "POST /v1/files");
    let body = concat!(
        "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n",
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        r#"{"custom_id":"1","url":"/v1/responses","body":{"prompt":{"id":"p"}}}"#,
        "\r\n--XX--\r\n"
    );
    let found = inspect(
        api,
        &call,
        "multipart/form-data; boundary=XX",
        body.as_bytes(),
    )
    .unwrap();
    assert!(found.unnamed || found.unseen);
}

#[test]
fn what_a_body_makes_us_hold_is_bounded() {
    // 16 MiB here; the agent collects 64 MiB. One slice reference for each element is eight times the body.
    let body = format!(
        r#"{{"model":"m","tools":[{}0]}}"#,
        "0,".repeat(8 * 1024 * 1024)
    );
    let found = chat(&body);
    assert_eq!(found.err(), Some(BodyFault::TooMuch));
}

#[test]
fn what_the_app_sent_does_not_make_a_403_about_the_key() {
    // OpenAI quotes the model that the app asked for.
    let body = br#"{"error":{"message":"Project `proj_1` does not have access to model `incorrect api key`","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
    let fault = Api::known("openai").unwrap().classify(403, body);
    assert_ne!(fault, crate::UpstreamFault::AuthBad);
}
