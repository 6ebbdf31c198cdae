//! What the request said, and what is answered to it.

use serde_json::Value;

use super::MODEL;
use crate::estimate_tokens;

/// How much of what was said comes back: enough to recognise it.
const ECHO_MAX_CHARS: usize = 200;
/// The longest name of a model that comes back: longer ones are none.
const MODEL_MAX: usize = 256;
/// What a request costs beyond its text, as every API adds a few tokens of its own.
const OVERHEAD_TOKENS: u64 = 3;

/// The body of a request, if it is JSON; forms and nothing at all are `Null`.
pub(super) struct Said {
    pub(super) body: Value,
}

impl Said {
    pub(super) fn read(body: &[u8]) -> Self {
        Self {
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    /// The model that the body names.
    pub(super) fn model(&self) -> &str {
        self.body["model"]
            .as_str()
            .filter(|model| model.len() <= MODEL_MAX)
            .unwrap_or(MODEL)
    }

    pub(super) fn streams(&self) -> bool {
        self.body["stream"] == true
    }

    /// Whether the app asked for a JSON document in the OpenAI way.
    pub(super) fn wants_json(&self) -> bool {
        let format =
            |at: &Value| matches!(at["type"].as_str(), Some("json_object" | "json_schema"));
        format(&self.body["response_format"]) || format(&self.body["text"]["format"])
    }

    /// The last thing that the user said, in whichever API: the last text under the fields that carry prompts.
    fn prompt(&self) -> &str {
        [
            "messages",
            "contents",
            "input",
            "prompt",
            "message",
            "content",
            "inputText",
        ]
        .iter()
        .find_map(|field| last_text(&self.body[*field], 0))
        .unwrap_or_default()
    }

    /// The words of the answer, each with the blank behind it.
    pub(super) fn words(&self) -> Vec<String> {
        let prompt = self.prompt();
        let echo: String = prompt.chars().take(ECHO_MAX_CHARS).collect();
        if self.wants_json() {
            let document = serde_json::json!({ "mock": echo }).to_string();
            return vec![document];
        }
        let text = if echo.is_empty() {
            "mock: you said nothing".to_owned()
        } else {
            format!("mock: you said {echo}")
        };
        text.split_inclusive(' ').map(str::to_owned).collect()
    }

    /// The whole answer.
    pub(super) fn text(&self) -> String {
        self.words().concat()
    }

    /// What the request counts for. Depends on what was said and on nothing else.
    pub(super) fn input_tokens(&self) -> u64 {
        estimate_tokens(self.prompt().len() as u64) + OVERHEAD_TOKENS
    }

    /// What the answer counts for: a token a word.
    pub(super) fn output_tokens(&self) -> u64 {
        self.words().len() as u64
    }
}

/// How deep a prompt may be packed: message, content, part, text.
const DEPTH_MAX: usize = 6;

/// The last text in a prompt, however it is packed. Answers of the model in a conversation are passed over.
fn last_text(prompt: &Value, depth: usize) -> Option<&str> {
    if depth > DEPTH_MAX {
        return None;
    }
    match prompt {
        Value::String(text) => Some(text),
        Value::Array(parts) => parts
            .iter()
            .rev()
            .find_map(|part| last_text(part, depth + 1)),
        Value::Object(part) => {
            let role = part.get("role").and_then(Value::as_str).unwrap_or("user");
            if role != "user" {
                return None;
            }
            ["text", "content", "parts"]
                .iter()
                .find_map(|field| last_text(part.get(*field)?, depth + 1))
        }
        _ => None,
    }
}

/// A made-up vector of unit length: the first axis, so that any two texts are alike.
pub(super) fn vector(dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0; dimensions];
    if let Some(first) = vector.first_mut() {
        *first = 1.0;
    }
    vector
}

/// How many texts an `input` or `texts` field holds.
pub(super) fn count(texts: &Value) -> usize {
    match texts {
        // A list of numbers is one text in tokens.
        Value::Array(items) if !items.iter().any(Value::is_number) => items.len(),
        Value::Null => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_user_is_found_in_every_packing() {
        let cases = [
            (r#"{"messages":[{"role":"user","content":"hi"}]}"#, "hi"),
            (
                r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"no"}]}"#,
                "hi",
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{}}]}]}"#,
                "hi",
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#,
                "hi",
            ),
            (r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#, "hi"),
            (r#"{"input":"hi"}"#, "hi"),
            (
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#,
                "hi",
            ),
            (r#"{"content":{"parts":[{"text":"hi"}]}}"#, "hi"),
            (r#"{"model":"m"}"#, ""),
            ("no json", ""),
        ];
        for (body, wanted) in cases {
            assert_eq!(Said::read(body.as_bytes()).prompt(), wanted, "{body}");
        }
    }

    #[test]
    fn the_echo_is_bounded_and_marked() {
        let long = format!(r#"{{"input":"{}"}}"#, "é".repeat(5000));
        let said = Said::read(long.as_bytes());
        assert!(said.text().starts_with("mock: "));
        assert!(said.text().chars().count() < 250);
        assert_eq!(said.input_tokens(), 2503);
    }
}
