//! The provider's zero-token call: proves that a key works without using it up. Lists the models and looks at the status alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use providers::{Api, Verdict};
use tokio::io::AsyncReadExt as _;

use crate::http1::{Decoder, RequestHead, ResponseHead};
use crate::inject::Outgoing;
use crate::route::Route;

/// A list of models comes within a second.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What of the answer is looked at.
const ANSWER_MAX: usize = 64 * 1024;

/// Makes the call. The line is for the operator and says nothing of the answer but its status.
pub async fn test_key(route: &Arc<Route>) -> Result<String, String> {
    match tokio::time::timeout(TIMEOUT, call(route)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "{} did not answer within 20 s",
            route.wanted.origin
        )),
    }
}

async fn call(route: &Arc<Route>) -> Result<String, String> {
    let probe = Api::own(route.family).probe();
    let mut request = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n",
        probe.method, probe.target
    );
    for (name, value) in probe.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let (head, _) = RequestHead::parse(request.as_bytes(), 0)
        .ok()
        .flatten()
        .expect("the probe's own request is valid");
    let path = route
        .check(&head, &head.path)
        .map_err(|refusal| refusal.to_string())?;
    let lease = route
        .keys
        .lease(&route.wanted)
        .await
        .map_err(|refusal| refusal.to_string())?;
    let version = lease.version;
    let bound = route
        .upstream
        .bind(&route.wanted.provider, lease)
        .map_err(|refusal| refusal.to_string())?;
    let mut connection = bound
        .new_connection()
        .await
        .map_err(|refusal| refusal.to_string())?;
    let unanswered = || {
        format!(
            "{} closed the connection without an answer",
            route.wanted.origin
        )
    };
    let sent = connection
        .send_head(&Outgoing::new(&head, route, path), b"")
        .await
        .map_err(|refusal| refusal.to_string())?;
    sent.map_err(|_| unanswered())?;
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut answer: Option<(ResponseHead, Decoder)> = None;
    while buffer.len() + body.len() < ANSWER_MAX {
        if connection
            .stream
            .read_buf(&mut buffer)
            .await
            .map_err(|_| unanswered())?
            == 0
        {
            break;
        }
        if answer.is_none() {
            let parsed = ResponseHead::parse(&buffer, 0, head.method).map_err(|_| unanswered())?;
            if let Some((head, length)) = parsed {
                let _ = buffer.split_to(length);
                answer =
                    Some((Decoder::new(head.framing), head)).map(|(decoder, head)| (head, decoder));
            }
        }
        if let Some((_, decoder)) = &mut answer {
            decoder
                .decode(&buffer, |content| body.extend_from_slice(content))
                .map_err(|_| unanswered())?;
            buffer.clear();
            if decoder.is_done() {
                break;
            }
        }
    }
    let Some((answer, _)) = answer else {
        return Err(unanswered());
    };
    let status = answer.status;
    match probe.verdict(status, &body) {
        Verdict::Accepted => Ok(format!(
            "version {version}: accepted by {} (HTTP {status})",
            route.wanted.origin
        )),
        Verdict::AcceptedNoScope => Ok(format!(
            "version {version}: accepted by {}, which does not let it list models (HTTP {status})",
            route.wanted.origin
        )),
        Verdict::Refused => Err(format!(
            "version {version}: refused by {} (HTTP {status}): rotate it",
            route.wanted.origin
        )),
        Verdict::Unclear => Err(format!(
            "version {version}: {} answered HTTP {status}, which says nothing about the key",
            route.wanted.origin
        )),
    }
}
