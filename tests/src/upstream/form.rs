//! Multipart forms: file uploads and audio transcriptions.

use serde_json::json;

use super::Provider;
use super::flavour;
use super::openai::CREATED;
use super::record::Tokens;
use super::reply::{Reply, count};
use super::turn::MISSING_MODEL;
use super::wire::{Request, find};

/// The answer carries a digest of the content, so that a story can hold upload against receipt.
pub(super) fn upload(request: &Request) -> Reply {
    let Some(parts) = parts(request) else {
        return refused("the body is no multipart form");
    };
    let (Some(file), Some(purpose)) = (named(&parts, "file"), named(&parts, "purpose")) else {
        return refused("file or purpose is missing");
    };
    Reply::json(json!({
        "id": "file-test", "object": "file", "bytes": file.content.len(), "created_at": CREATED,
        "filename": file.filename, "purpose": String::from_utf8_lossy(purpose.content),
        "status": "processed", "status_details": null, "expires_at": null, "sha256": digest(file.content),
        // Mistral's SDK insists on these.
        "sample_type": "instruct", "source": "upload",
    }))
}

/// The "speech" is a text after a few bytes that look like a sound file; a byte of it is an audio token.
pub(super) fn transcription(provider: Provider, request: &Request) -> Reply {
    let Some(parts) = parts(request) else {
        return refused("the body is no multipart form");
    };
    let (Some(file), Some(model)) = (named(&parts, "file"), named(&parts, "model")) else {
        return refused("file or model is missing");
    };
    if model.content == MISSING_MODEL.as_bytes() {
        return flavour::model_missing(provider, MISSING_MODEL);
    }
    let Some(speech) = file.content.strip_prefix(b"RIFF") else {
        return refused("Invalid file format.");
    };
    let text = String::from_utf8_lossy(speech).into_owned();
    let tokens = Tokens {
        input: speech.len() as u64,
        output: count(&text),
        ..Tokens::default()
    };
    Reply::json(json!({
        "text": text, "sha256": digest(file.content),
        "usage": {"type": "tokens", "input_tokens": tokens.input, "output_tokens": tokens.output,
            "input_token_details": {"text_tokens": 0, "audio_tokens": tokens.input},
            "total_tokens": tokens.input + tokens.output},
    }))
    .costing(tokens)
}

fn refused(message: &str) -> Reply {
    flavour::error(400, message, "invalid_request_error", None)
}

pub(super) fn digest(content: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        content,
    ))
}

struct Part<'a> {
    name: String,
    filename: Option<String>,
    content: &'a [u8],
}

fn named<'a, 'b>(parts: &'b [Part<'a>], name: &str) -> Option<&'b Part<'a>> {
    parts.iter().find(|part| part.name == name)
}

/// Enough of RFC 7578 for what SDKs send.
fn parts(request: &Request) -> Option<Vec<Part<'_>>> {
    let boundary = request
        .header("content-type")?
        .split_once("boundary=")?
        .1
        .trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut rest = &request.body[find(&request.body, delimiter.as_bytes())? + delimiter.len()..];
    let next = format!("\r\n{delimiter}");
    while let Some(body) = rest.strip_prefix(b"\r\n") {
        let head_end = find(body, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&body[..head_end]).ok()?;
        let content = &body[head_end + 4..];
        let end = find(content, next.as_bytes())?;
        parts.push(Part {
            name: quoted(head, "name=\"")?,
            filename: quoted(head, "filename=\""),
            content: &content[..end],
        });
        rest = &content[end + next.len()..];
    }
    rest.starts_with(b"--").then_some(parts)
}

fn quoted(head: &str, after: &str) -> Option<String> {
    // `name="` also ends `filename="`; the blank or semicolon before it tells them apart.
    let start = head
        .match_indices(after)
        .find(|(at, _)| !head[..*at].ends_with("file"))?
        .0
        + after.len();
    Some(head[start..].split('"').next()?.to_owned())
}
