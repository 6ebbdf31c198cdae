//! Gemini Live: frames of a WebSocket, answered with frames.

use serde_json::{Value, json};

use super::gemini::prompt;
use super::record::Tokens;
use super::reply::{Piece, Reply};
use super::turn::{MISSING_MODEL, Turn};
use super::websocket::Farewell;

/// A session; its model is named by the first frame.
#[derive(Default)]
pub(super) struct Live {
    model: Option<String>,
}

impl Live {
    pub fn react(&mut self, frame: &Value) -> Result<Reply, Farewell> {
        let either = |one: &str, other: &str| frame.get(one).or_else(|| frame.get(other)).cloned();
        if let Some(setup) = frame.get("setup") {
            let model = setup["model"].as_str().unwrap_or_default();
            if model.ends_with(MISSING_MODEL) {
                let reason = format!("{model} is not found for API version v1beta");
                return Err(Farewell { code: 1008, reason });
            }
            self.model = Some(model.to_owned());
            let complete = json!({"setupComplete": {}}).to_string();
            return Ok(Reply::frames(vec![Piece::free(complete.into_bytes())]));
        }
        if self.model.is_none() {
            let reason = "setup must be the first message".to_owned();
            return Err(Farewell { code: 1007, reason });
        }
        let content = either("clientContent", "client_content").map(|content| {
            let last = content["turns"]
                .as_array()
                .and_then(|turns| turns.last())
                .cloned();
            prompt(&json!({"contents": [last.unwrap_or_default()]}))
        });
        let spoken = either("realtimeInput", "realtime_input")
            .and_then(|input| input["text"].as_str().map(str::to_owned));
        Ok(match content.or(spoken) {
            Some(prompt) => speak(&prompt),
            None => Reply::frames(Vec::new()),
        })
    }
}

fn speak(prompt: &str) -> Reply {
    let extra = Tokens {
        cache_read: 2,
        reasoning: 1,
        ..Tokens::default()
    };
    let turn = Turn::new(prompt, extra);
    let text = |value: Value| value.to_string().into_bytes();
    let delta =
        |piece: &&str| text(json!({"serverContent": {"modelTurn": {"parts": [{"text": piece}]}}}));
    let tokens = turn.tokens;
    let input = tokens.input + tokens.cache_read;
    let closing = vec![
        text(json!({"serverContent": {"generationComplete": true}})),
        text(
            json!({"serverContent": {"turnComplete": true}, "usageMetadata": {
            "promptTokenCount": input, "responseTokenCount": tokens.output - tokens.reasoning,
            "thoughtsTokenCount": tokens.reasoning, "cachedContentTokenCount": tokens.cache_read,
            "totalTokenCount": input + tokens.output}}),
        ),
    ];
    let failure = text(json!({"serverContent": {"interrupted": true}}));
    turn.stream(
        "",
        vec![],
        turn.pieces().iter().map(delta).collect(),
        closing,
        failure,
    )
}
