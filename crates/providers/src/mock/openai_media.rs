//! OpenAI's files, pictures and audio: the least that an SDK takes for one.

use serde_json::{Value, json};

use super::{CREATED, Reply, Request};

/// A PNG of one transparent pixel, in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// One silent frame of MPEG-1 layer 3, 128 kbit/s, 44.1 kHz: a header, and nothing.
const SILENCE: [u8; 417] = {
    let mut frame = [0; 417];
    frame[0] = 0xff;
    frame[1] = 0xfb;
    frame[2] = 0x90;
    frame[3] = 0x64;
    frame
};

fn file(id: &str) -> Value {
    json!({
        "id": id,
        "object": "file",
        "bytes": 0,
        "created_at": CREATED,
        "filename": "mock.jsonl",
        "purpose": "assistants",
        "status": "processed",
    })
}

pub(super) fn files(method: &str, id: &str) -> Option<Reply> {
    Some(match (method, id) {
        ("POST", "") => Reply::json(&file("file-mock")),
        ("GET", "") => Reply::json(&json!({
            "object": "list",
            "data": [file("file-mock")],
            "first_id": "file-mock",
            "last_id": "file-mock",
            "has_more": false,
        })),
        ("GET", "file-mock") => Reply::json(&file(id)),
        ("GET", "file-mock/content") => {
            Reply::bytes("application/octet-stream", b"mock: no content".to_vec())
        }
        ("DELETE", "file-mock") => {
            Reply::json(&json!({"id": id, "object": "file", "deleted": true}))
        }
        _ => return None,
    })
}

pub(super) fn image(request: &Request<'_>) -> Reply {
    let input = request.said.input_tokens();
    Reply::json(&json!({
        "created": CREATED,
        "data": [{"b64_json": PIXEL}],
        "usage": {
            "input_tokens": input,
            "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
            "output_tokens": 1,
            "total_tokens": input + 1,
        },
    }))
}

pub(super) fn audio(request: &Request<'_>, kind: &str) -> Option<Reply> {
    match kind {
        "speech" => Some(Reply::bytes("audio/mpeg", SILENCE.to_vec())),
        "transcriptions" | "translations" => {
            let (input, output) = (request.said.input_tokens(), request.said.output_tokens());
            Some(Reply::json(&json!({
                "text": request.said.text(),
                "usage": {
                    "type": "tokens",
                    "input_tokens": input,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": input},
                    "output_tokens": output,
                    "total_tokens": input + output,
                },
            })))
        }
        _ => None,
    }
}
