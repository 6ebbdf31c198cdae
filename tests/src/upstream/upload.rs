//! Gemini's resumable upload: a start that names an address, and the content sent there.

use serde_json::json;

use super::form::digest;
use super::reply::Reply;
use super::wire::Request;

/// The query parameter by which the second half is known.
pub(super) const ID: &str = "upload_id";

/// The answer when this is a step of an upload, or a question about an uploaded file.
pub(super) fn answer(request: &Request) -> Option<Reply> {
    let uploading = ["/upload/v1beta/files", "/upload/v1/files"];
    if request.path.ends_with("/files/test-file") {
        return Some(Reply::json(file(0, "")));
    }
    if !uploading.contains(&request.path.as_str()) {
        return None;
    }
    let command = request.header("x-goog-upload-command").unwrap_or_default();
    if command == "start" {
        // An absolute address: an SDK that is given it goes there by itself.
        let host = request.header("host").unwrap_or_default();
        let to = format!(
            "https://{host}{}?{ID}=test&upload_protocol=resumable",
            request.path
        );
        return Some(
            Reply::json(json!({}))
                .header("x-goog-upload-url", to)
                .header("x-goog-upload-status", "active"),
        );
    }
    let digest = digest(&request.body);
    let reply = Reply::json(json!({"file": file(request.body.len(), &digest)}));
    Some(reply.header("x-goog-upload-status", "final"))
}

fn file(size: usize, digest: &str) -> serde_json::Value {
    json!({
        "name": "files/test-file", "mimeType": "text/plain", "sizeBytes": size.to_string(), "state": "ACTIVE",
        "uri": "https://generativelanguage.googleapis.com/v1beta/files/test-file", "sha256Hash": digest,
        "createTime": "2026-09-21T00:00:00Z", "updateTime": "2026-09-21T00:00:00Z",
    })
}
