//! The provider's zero-token call: proves that a key works without using it up. What it is stands in `providers`;
//! only what the answer says of the key is told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use providers::{Probe, Verdict};
use tokio::io::AsyncReadExt as _;

use crate::http1::{Decoder, RequestHead, ResponseHead};
use crate::inject::Outgoing;
use crate::policy::Grant;
use crate::route::{Route, Source};
use crate::targets::Target;

/// Lists of models come within a second.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What of the answer is looked at.
const ANSWER_MAX: usize = 64 * 1024;

/// Makes the call with one key of a route. The line is for the operator and says nothing of the answer but its status.
pub async fn test_key(route: &Arc<Route>, target: &Target) -> Result<String, String> {
    match tokio::time::timeout(TIMEOUT, call(route, target)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "{} did not answer within 20 s",
            target.wanted.origin
        )),
    }
}

/// The probe as an app would send it.
fn request(probe: &Probe) -> String {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n",
        probe.method, probe.target
    );
    for (name, value) in probe.headers {
        // Writing to a String does not fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !probe.body.is_empty() {
        let _ = write!(
            text,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            probe.body.len()
        );
    }
    text.push_str("\r\n");
    text
}

async fn call(route: &Arc<Route>, target: &Target) -> Result<String, String> {
    let Source::Live { upstream, .. } = &route.source else {
        return Err("the route answers by itself (mode = \"mock\")".to_owned());
    };
    let wanted = &target.wanted;
    let probe = route.api.probe();
    let (head, _) = RequestHead::parse(request(&probe).as_bytes(), 0)
        .ok()
        .flatten()
        .expect("the probe's own request is valid");
    let lease = target
        .keys
        .lease(wanted)
        .await
        .map_err(|refusal| refusal.to_string())?;
    let version = lease.version;
    let grant = Grant::for_probe(
        route.api,
        &head.path,
        &lease.terms,
        upstream.origin().host(),
    )
    .map_err(|refusal| refusal.to_string())?;
    let bound = upstream
        .bind(&wanted.provider, lease)
        .map_err(|refusal| refusal.to_string())?;
    let mut connection = bound
        .new_connection()
        .await
        .map_err(|refusal| refusal.to_string())?;
    let unanswered = || format!("{} closed the connection without an answer", wanted.origin);
    let sent = connection
        .send_head(
            &Outgoing::new(&head, route, &grant, head.framing),
            probe.body,
        )
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
    let origin = &wanted.origin;
    match probe.verdict(status, &body) {
        Verdict::Accepted => Ok(format!(
            "version {version}: accepted by {origin} (HTTP {status})"
        )),
        Verdict::AcceptedNoScope => Ok(format!(
            "version {version}: accepted by {origin}, which does not let it make this call (HTTP {status})"
        )),
        Verdict::Refused => Err(format!(
            "version {version}: refused by {origin} (HTTP {status}): rotate it"
        )),
        Verdict::Unclear => Err(format!(
            "version {version}: {origin} answered HTTP {status}, which says nothing about the key"
        )),
    }
}
