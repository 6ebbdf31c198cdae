//! Forms: models in fields, batches in files.

use super::*;

fn form(fields: &[(&str, &str)]) -> String {
    let parts = fields.iter().map(|(head, content)| {
        format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    });
    format!("{}--XX--\r\n", parts.collect::<String>())
}

fn read(line: &str, fields: &[(&str, &str)]) -> Result<Inspected, BodyFault> {
    let (api, call) = call("openai", line);
    let body = form(fields);
    inspect(
        api,
        &call,
        "multipart/form-data; boundary=XX",
        body.as_bytes(),
    )
}

const FILE: (&str, &str) = (
    "name=\"file\"; filename=\"a.wav\"",
    "RIFF\r\nname=\"model\"",
);

#[test]
fn the_model_is_found_in_either_order() {
    let model = ("name=\"model\"", "whisper-1");
    for fields in [&[model, FILE][..], &[FILE, model]] {
        let found = read("POST /v1/audio/transcriptions", fields).unwrap();
        assert_eq!(found.models, ["whisper-1"]);
        assert!(!found.stream);
        let edited = apply(form(fields).as_bytes(), &found.model_edits("other"));
        let swapped: Vec<_> = fields
            .iter()
            .map(|(head, content)| {
                (
                    *head,
                    if *content == "whisper-1" {
                        "other"
                    } else {
                        *content
                    },
                )
            })
            .collect();
        assert_eq!(edited, form(&swapped).into_bytes());
    }
    let stream = read(
        "POST /v1/audio/transcriptions",
        &[model, FILE, ("name=\"stream\"", "true")],
    );
    assert!(stream.unwrap().stream);
    assert_eq!(
        read("POST /v1/images/edits", &[FILE]).unwrap().models,
        [""; 0]
    );
    let call = read(
        "POST /v1/realtime/calls",
        &[
            ("name=\"sdp\"", "v=0"),
            ("name=\"session\"", r#"{"type":"realtime","model":"r"}"#),
        ],
    );
    assert_eq!(call.unwrap().models, ["r"]);
}

#[test]
fn a_model_that_two_parsers_could_read_differently_is_refused() {
    let line = "POST /v1/audio/transcriptions";
    let model = ("name=\"model\"", "a");
    for (fields, wanted) in [
        (&[model, model][..], BodyFault::Duplicate),
        (&[model, ("name=\"Model\"", "b")], BodyFault::Spelling),
        (&[model, ("name=\"model[]\"", "b")], BodyFault::Spelling),
        (&[("name=\" model\"", "b")], BodyFault::Spelling),
        (&[("name=\"model\"; filename=\"x\"", "b")], BodyFault::Model),
        (
            &[("name=\"model\"\r\nContent-Type: application/json", "\"b\"")],
            BodyFault::Model,
        ),
        (&[("name=\"model\"", " b")], BodyFault::Model),
        (&[("name=\"model\"", "b\r\n")], BodyFault::Model),
        (&[("name=\"model\"", "")], BodyFault::Model),
        (&[("name=\"model\"", "a\u{7}")], BodyFault::Model),
        (&[model, ("name=\"_charset_\"", "utf-7")], BodyFault::Form),
        (&[("name=\"x\"; name=\"model\"", "b")], BodyFault::Form),
    ] {
        assert_eq!(read(line, fields), Err(wanted), "{fields:?}");
    }
    assert!(read(line, &[model, ("name=\"models\"", "b")]).is_ok());
}

#[test]
fn the_lines_of_a_batch_name_its_models() {
    let lines = |models: &[&str]| -> String {
        let line = |model: &&str| {
            format!(
                "{{\"custom_id\":\"1\",\"url\":\"/v1/chat/completions\",\"body\":{{\"model\":\"{model}\"}}}}\n"
            )
        };
        models.iter().map(line).collect()
    };
    let file = "name=\"file\"; filename=\"b.jsonl\"";
    let purpose = ("name=\"purpose\"", "batch");
    let text = lines(&["a", "b", "a"]);
    for fields in [[purpose, (file, &text)], [(file, &*text), purpose]] {
        let found = read("POST /v1/files", &fields).unwrap();
        assert_eq!(found.models, ["a", "b"]);
        let edited = apply(form(&fields).as_bytes(), &found.alias_edits("a", "c"));
        assert_eq!(
            String::from_utf8(edited).unwrap(),
            form(&fields).replace("\"a\"", "\"c\"")
        );
    }
    let crlf = text.replace('\n', "\r\n");
    assert_eq!(
        read("POST /v1/files", &[purpose, (file, &crlf)])
            .unwrap()
            .models,
        ["a", "b"]
    );
    let mcp = r#"{"body":{"model":"a","tools":[{"type":"mcp"}]}}"#;
    assert_eq!(
        read("POST /v1/files", &[purpose, (file, mcp)])
            .unwrap()
            .needs,
        [Permission::Mcp]
    );
    for (line, wanted) in [
        ("no json", BodyFault::Line),
        ("[]", BodyFault::Line),
        (
            r#"{"body":{"model":"a","model":"b"}}"#,
            BodyFault::Duplicate,
        ),
        (
            r#"{"body":{"model":"a"},"body":{"model":"b"}}"#,
            BodyFault::Line,
        ),
        (r#"{"Body":{"model":"a"}}"#, BodyFault::Spelling),
        (r#"{"body":[{"model":"a"}]}"#, BodyFault::Json),
    ] {
        assert_eq!(
            read("POST /v1/files", &[purpose, (file, line)]),
            Err(wanted),
            "{line}"
        );
    }
    // Any other file is not read.
    let other = [("name=\"purpose\"", "assistants"), (file, "no json")];
    assert_eq!(read("POST /v1/files", &other).unwrap().models, [""; 0]);
    assert_eq!(read("POST /v1/files", &[purpose]), Err(BodyFault::Form));
    assert_eq!(
        read("POST /v1/files", &[purpose, purpose, (file, &text)]),
        Err(BodyFault::Duplicate)
    );
}

#[test]
fn batches_are_bounded() {
    let file = "name=\"file\"; filename=\"b.jsonl\"";
    let purpose = ("name=\"purpose\"", "batch");
    let many = |n: usize| -> String {
        (0..n)
            .map(|i| format!("{{\"body\":{{\"model\":\"{i}\"}}}}\n"))
            .collect()
    };
    assert!(read("POST /v1/files", &[purpose, (file, &many(256))]).is_ok());
    assert_eq!(
        read("POST /v1/files", &[purpose, (file, &many(257))]),
        Err(BodyFault::TooMuch)
    );
    assert_eq!(
        read(
            "POST /v1/files",
            &[purpose, (file, &"\n".repeat(LINES_MAX))]
        ),
        Err(BodyFault::TooMuch)
    );
}
