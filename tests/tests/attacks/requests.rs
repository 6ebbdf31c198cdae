//! Requests as apps write them, to be bent by the tests.

/// A list, without a body.
pub const MODELS: &str = "/openai/v1/models";

/// A call with a body.
pub const CHAT: &str = "/openai/v1/chat/completions";

/// A body that every check of bodies takes.
pub const BODY: &str =
    r#"{"model":"gpt-5.4-mini","messages":[{"role":"user","content":"one two"}]}"#;

/// What an app holds in place of a key; it must not get through where a credential could stand.
pub const OWN: &str = "sk-own-credential-of-the-app";

/// `GET path` with these extra lines.
pub fn get(path: &str, extra: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")
}

/// A chat call with these extra lines and this body, which frames itself: no length is added.
pub fn post(extra: &str, body: &str) -> String {
    post_to(CHAT, extra, body)
}

/// The same, to another path.
pub fn post_to(path: &str, extra: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}\r\n{body}"
    )
}

/// A whole chat call.
pub fn chat(extra: &str) -> String {
    post(&format!("{extra}{}", length()), BODY)
}

/// The length line of `BODY`.
pub fn length() -> String {
    format!("Content-Length: {}\r\n", BODY.len())
}

/// `BODY` in two chunks, each written by `chunk`.
pub fn in_chunks(chunk: impl Fn(&str) -> String) -> String {
    let (first, second) = BODY.split_at(BODY.len() / 2);
    format!("{}{}", chunk(first), chunk(second))
}

/// One well-formed chunk.
pub fn chunk(piece: &str) -> String {
    format!("{:x}\r\n{piece}\r\n", piece.len())
}

/// The line that announces chunks.
pub const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
