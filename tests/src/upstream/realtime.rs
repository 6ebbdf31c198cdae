//! OpenAI over WebSockets: Realtime, whose model is in the address, and Responses, whose model is in each frame.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{Piece, Reply};
use super::responses;
use super::turn::{MISSING_MODEL, Turn};

/// A Realtime session, in text.
pub(super) struct Realtime {
    model: String,
    prompt: String,
}

impl Realtime {
    pub fn new(model: &str) -> Self {
        Realtime {
            model: model.to_owned(),
            prompt: String::new(),
        }
    }

    /// What the server says before anybody else does.
    pub fn opened(&self) -> Value {
        if self.model == MISSING_MODEL {
            return missing(&self.model);
        }
        json!({"type": "session.created", "event_id": "event_1", "session": self.session()})
    }

    fn session(&self) -> Value {
        json!({"type": "realtime", "object": "realtime.session", "id": "sess_test", "model": self.model,
            "output_modalities": ["text"], "instructions": "", "tools": [], "tool_choice": "auto"})
    }

    pub fn react(&mut self, event: &Value) -> Reply {
        match event["type"].as_str().unwrap_or_default() {
            "session.update" => once(
                &json!({"type": "session.updated", "event_id": "event_2", "session": self.session()}),
            ),
            "conversation.item.create" => {
                self.prompt = event["item"]["content"][0]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                once(
                    &json!({"type": "conversation.item.added", "event_id": "event_3",
                    "previous_item_id": null, "item": item("completed", &self.prompt)}),
                )
            }
            "response.create" => respond(&self.prompt),
            other => once(&error(
                "invalid_value",
                &format!("Invalid value: '{other}'."),
            )),
        }
    }
}

/// A Responses connection.
pub(super) struct Responses;

impl Responses {
    pub fn react(&mut self, event: &Value) -> Reply {
        if event["type"] != "response.create" {
            return once(&error(
                "invalid_value",
                "Only response.create is known here.",
            ));
        }
        // Some clients nest the request, some do not.
        let body = event.get("response").unwrap_or(event);
        if body["model"] == MISSING_MODEL {
            return once(&missing(MISSING_MODEL));
        }
        let turn = responses::turn(body);
        let events = responses::Events::of(body, &turn);
        let framed = |events: &[Value]| events.iter().map(bytes).collect();
        turn.stream(
            "",
            framed(&events.opening),
            framed(&events.deltas),
            framed(&events.closing),
            bytes(&events.failure),
        )
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn once(event: &Value) -> Reply {
    Reply::frames(vec![Piece::free(bytes(event))])
}

fn error(code: &str, message: &str) -> Value {
    json!({"type": "error", "event_id": "event_9", "status": 400, "error": {"type": "invalid_request_error",
        "code": code, "message": message, "param": null, "event_id": null}})
}

fn missing(model: &str) -> Value {
    error(
        "model_not_found",
        &format!("The model `{model}` does not exist."),
    )
}

fn item(status: &str, text: &str) -> Value {
    json!({"id": "item_test", "object": "realtime.item", "type": "message", "status": status, "role": "user",
        "content": [{"type": "input_text", "text": text}]})
}

fn respond(prompt: &str) -> Reply {
    let extra = Tokens {
        cache_read: 2,
        ..Tokens::default()
    };
    let turn = Turn::new(prompt, extra);
    let (tokens, input) = (turn.tokens, turn.tokens.input + turn.tokens.cache_read);
    let response = |status: &str, output: Value, usage: Value| {
        json!({"object": "realtime.response", "id": "resp_test", "status": status, "status_details": null,
            "output": output, "output_modalities": ["text"], "usage": usage})
    };
    let at = json!({"response_id": "resp_test", "item_id": "item_test", "output_index": 0, "content_index": 0});
    let text = |kind: &str, name: &str, text: &str| {
        let mut event = at.clone();
        event["type"] = json!(kind);
        event["event_id"] = json!("event_5");
        event[name] = json!(text);
        bytes(&event)
    };
    let usage = |output: u64| {
        json!({"total_tokens": input + output, "input_tokens": input, "output_tokens": output,
            "input_token_details": {"text_tokens": input, "audio_tokens": 0, "image_tokens": 0,
                "cached_tokens": tokens.cache_read,
                "cached_tokens_details": {"text_tokens": tokens.cache_read, "audio_tokens": 0, "image_tokens": 0}},
            "output_token_details": {"text_tokens": output, "audio_tokens": 0}})
    };
    let content = json!([{"type": "output_text", "text": turn.answer}]);
    let output = json!([{"id": "item_test", "object": "realtime.item", "type": "message", "status": "completed",
        "role": "assistant", "content": content}]);
    let opening = json!({"type": "response.created", "event_id": "event_4",
        "response": response("in_progress", json!([]), Value::Null)});
    let done = json!({"type": "response.done", "event_id": "event_6",
        "response": response("completed", output, usage(tokens.output))});
    let failed = json!({"type": "response.done", "event_id": "event_6",
        "response": response("failed", json!([]), usage(turn.pieces().len() as u64))});
    let deltas = turn.pieces();
    turn.stream(
        "",
        vec![bytes(&opening)],
        deltas
            .iter()
            .map(|piece| text("response.output_text.delta", "delta", piece))
            .collect(),
        vec![
            text("response.output_text.done", "text", &turn.answer),
            bytes(&done),
        ],
        bytes(&failed),
    )
}
