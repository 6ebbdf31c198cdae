//! The upstream's response on its way down: what it says of our key is replaced, where it leads away from us is turned back, and all of it
//! goes through the sieve.

use std::io;

use bytes::{Buf as _, BytesMut};
use providers::UpstreamFault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::io::{RESPONSE_IDLE_TIMEOUT, more, read, write};
use super::{Marks, Progress, Rejected, Stop};
use crate::echo;
use crate::http1::{Decoder, Encoder, Framing, ResponseHead, response, target};
use crate::inject::Outgoing;
use crate::listen::Scheme;
use crate::respond::{Code, Refusal};
use crate::sieve::{HOLD, LengthChanges, Sieve, Unreadable};

/// Error bodies up to this size are read before they are relayed, to see whether they are about our key. Real ones are under 2 KiB.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// Interim responses (1xx) tolerated before the real one.
const INTERIM_MAX: usize = 8;

/// The provider's no to our key, said in our own words.
pub const CREDENTIALS_REJECTED: Refusal = Refusal::new(
    Code::UpstreamCredentialsRejected,
    "the provider did not accept the key that Tacit holds; your security team has been told",
);

const ECHO_BLOCKED: Refusal = Refusal::new(
    Code::EchoBlocked,
    "the provider's answer is encoded so that it cannot be searched for the key, although it was asked not to be",
);

/// Relays the response. `Ok((status, reusable))` when it was complete.
pub(super) async fn relay_response(
    (upstream, buffer): (&mut (impl AsyncRead + Unpin), &mut BytesMut),
    client: &mut (impl AsyncWrite + Unpin),
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
    sieve: &mut Sieve,
) -> Result<(u16, bool), Stop> {
    let head = read_head(upstream, buffer, request.head().method, progress).await?;
    let mut decoder = Decoder::new(head.framing);
    let mut early = Vec::new();
    if head.status >= 400 {
        collect(upstream, buffer, &mut decoder, &mut early).await;
        judge_error(&head, &early, request, marks)?;
        // An error that is about something else may name a key in passing, half masked.
        if head.fields.first("content-encoding").is_none() {
            echo::blank_masks(&mut early);
        }
    }
    let changes = sieve.begin(&head, request.drops_usage());
    let LengthChanges(changes) = changes.map_err(|_| Stop::Refused(ECHO_BLOCKED))?;
    let framing = match head.framing {
        // What may come out longer or shorter has its length in no head.
        Framing::Length(1..) if changes => Framing::Chunked,
        framing => framing,
    };
    let (mut out, encoder) = render_head(&head, framing, request, marks, progress, sieve);
    let mut clear = Vec::new();
    // Before anything went out the app is told; after that its connection breaks off.
    let unreadable = |_: Unreadable| Stop::Refused(ECHO_BLOCKED);
    sieve.feed(&early, &mut clear).map_err(unreadable)?;
    loop {
        // In the first round what has come of the body goes in one write with the head.
        let mut sieved = Ok(());
        let taken = decoder
            .decode(buffer, |content| {
                if sieved.is_ok() {
                    sieved = sieve.feed(content, &mut clear);
                }
            })
            .map_err(|_| Stop::UpstreamDied)?;
        sieved.map_err(unreadable)?;
        buffer.advance(taken);
        if decoder.is_done() {
            sieve.finish(&mut clear).map_err(unreadable)?;
        }
        encoder.piece(&clear, &mut out);
        clear.clear();
        if decoder.is_done() {
            encoder.end(&mut out);
        }
        if !out.is_empty() {
            Progress::set(&progress.responded);
            write(client, &out).await.map_err(|_| Stop::ClientGone)?;
            out.clear();
        }
        if decoder.is_done() {
            return Ok((head.status, head.keep_alive));
        }
        let came = match sieve.is_holding() {
            false => more(upstream, buffer).await,
            true => match timeout(HOLD, more(upstream, buffer)).await {
                Ok(came) => came,
                Err(_) => {
                    sieve.release(&mut clear);
                    encoder.piece(&clear, &mut out);
                    clear.clear();
                    write(client, &out).await.map_err(|_| Stop::ClientGone)?;
                    out.clear();
                    more(upstream, buffer).await
                }
            },
        };
        if !matches!(came, Ok(true)) {
            if matches!(came, Ok(false)) && decoder.ends_with_connection() {
                sieve.finish(&mut clear).map_err(unreadable)?;
                encoder.piece(&clear, &mut out);
                encoder.end(&mut out);
                write(client, &out).await.map_err(|_| Stop::ClientGone)?;
                return Ok((head.status, false));
            }
            // Broken off; what was withheld has come all the same.
            sieve.release(&mut clear);
            encoder.piece(&clear, &mut out);
            write(client, &out).await.map_err(|_| Stop::ClientGone)?;
            return Err(Stop::UpstreamDied);
        }
    }
}

/// Decides what an error answer means before any of it goes on.
fn judge_error(
    head: &ResponseHead,
    body: &[u8],
    request: &Outgoing<'_>,
    marks: Marks<'_>,
) -> Result<(), Stop> {
    let body = match Sieve::peek(head, body) {
        Ok(body) => body,
        // What may name the key and cannot be read is taken for what it most likely is.
        Err(Unreadable) if UpstreamFault::may_name_key(head.status) => {
            return Err(Stop::Rejected(Rejected {
                fault: UpstreamFault::AuthBad,
                retry_after: None,
            }));
        }
        Err(Unreadable) => return Err(Stop::Refused(ECHO_BLOCKED)),
    };
    let fault = request.api().classify(head.status, &body);
    match fault {
        UpstreamFault::AuthBad => Err(Stop::Rejected(Rejected {
            fault,
            retry_after: None,
        })),
        UpstreamFault::AuthScope
        | UpstreamFault::Quota
        | UpstreamFault::Rate
        | UpstreamFault::Overloaded
        | UpstreamFault::Server
            if !marks.last =>
        {
            Err(Stop::Rejected(Rejected {
                fault,
                retry_after: providers::retry_after(head.fields.iter(), &body),
            }))
        }
        UpstreamFault::AuthScope
        | UpstreamFault::Other
        | UpstreamFault::Quota
        | UpstreamFault::Rate
        | UpstreamFault::Overloaded
        | UpstreamFault::Server => Ok(()),
    }
}

/// The head of the final response; interim ones are dropped (we have answered `Expect` ourselves).
async fn read_head(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    method: &str,
    progress: &Progress,
) -> Result<ResponseHead, Stop> {
    const PROTOCOL: Refusal = Refusal::new(
        Code::UpstreamUnreachable,
        "the provider's answer is not valid HTTP/1.1",
    );
    let mut interim = 0;
    let mut seen = 0;
    loop {
        match ResponseHead::parse(buffer, seen, method) {
            Err(_) => return Err(Stop::Refused(PROTOCOL)),
            Ok(Some((head, length))) => {
                buffer.advance(length);
                seen = 0;
                match head.status {
                    101 => return Err(Stop::Refused(PROTOCOL)),
                    100..=199 if interim < INTERIM_MAX => interim += 1,
                    100..=199 => return Err(Stop::Refused(PROTOCOL)),
                    _ => return Ok(head),
                }
            }
            Ok(None) => {
                seen = buffer.len();
                match read(upstream, buffer, RESPONSE_IDLE_TIMEOUT).await {
                    Ok(0) => return Err(Stop::UpstreamDied),
                    Ok(_) => Progress::set(&progress.answered),
                    // While the app is still sending, the upstream has nothing to answer; the body has a time limit of its own.
                    Err(error)
                        if error.kind() == io::ErrorKind::TimedOut
                            && !Progress::is(&progress.request_done) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Err(Stop::Refused(Refusal::new(
                            Code::UpstreamTimeout,
                            "the provider was silent for ten minutes",
                        )));
                    }
                    Err(_) => return Err(Stop::UpstreamDied),
                }
            }
        }
    }
}

/// Reads the beginning of an error body. Whatever goes wrong shows again when the rest is relayed.
async fn collect(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    into: &mut Vec<u8>,
) {
    while !decoder.is_done() && into.len() < ERROR_BODY_MAX {
        if buffer.is_empty() && !matches!(more(upstream, buffer).await, Ok(true)) {
            return;
        }
        match decoder.decode(buffer, |content| into.extend_from_slice(content)) {
            Ok(taken) => buffer.advance(taken),
            Err(_) => return,
        }
    }
}

/// The response head for the app, and how its body is written.
fn render_head(
    head: &ResponseHead,
    framing: Framing,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
    sieve: &mut Sieve,
) -> (Vec<u8>, Encoder) {
    let asked = request.head();
    let mut out = Vec::with_capacity(1024);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    line(&[
        b"HTTP/1.1 ",
        head.status.to_string().as_bytes(),
        b" ",
        response::reason(head.status).as_bytes(),
        b"\r\n",
    ]);
    for (name, value) in head.forwarded() {
        line(&[name.as_bytes(), b": ", value, b"\r\n"]);
    }
    for name in ["x-goog-upload-url", "x-goog-upload-control-url"] {
        if let Some(url) = head
            .fields
            .first(name)
            .and_then(|url| through_us(url, request, marks.scheme))
        {
            line(&[name.as_bytes(), b": ", url.as_bytes(), b"\r\n"]);
        }
    }
    // All that the provider wrote, at once: a key in names, values or addresses of it.
    sieve.mask(&mut out);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    line(&[
        b"x-tacit-request-id: ",
        marks.request_id.as_bytes(),
        b"\r\n",
    ]);
    let encoder = match framing {
        Framing::Length(length) => {
            line(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]);
            Encoder::Plain
        }
        Framing::None => {
            // To a HEAD this says how long the body would be.
            if let Some(length) = head
                .fields
                .first("content-length")
                .filter(|_| asked.method == "HEAD")
            {
                line(&[b"content-length: ", length, b"\r\n"]);
            }
            Encoder::Plain
        }
        Framing::Chunked | Framing::UntilClose if asked.is_http10 => Encoder::Plain,
        Framing::Chunked | Framing::UntilClose => {
            line(&[b"transfer-encoding: chunked\r\n"]);
            Encoder::Chunked
        }
    };
    let unbounded = asked.is_http10 && matches!(framing, Framing::Chunked | Framing::UntilClose);
    if !asked.keep_alive || unbounded || marks.closing || !Progress::is(&progress.request_done) {
        Progress::set(&progress.promised_close);
        line(&[b"connection: close\r\n"]);
    } else if asked.is_http10 {
        line(&[b"connection: keep-alive\r\n"]);
    }
    line(&[b"\r\n"]);
    (out, encoder)
}

/// Google answers a resumable upload with an absolute URL that SDKs call next: it must lead through us, or the key would be missing there.
fn through_us(url: &[u8], request: &Outgoing<'_>, scheme: Scheme) -> Option<String> {
    let url = std::str::from_utf8(url).ok()?;
    let rest = url.strip_prefix(&request.route().origin()?.to_string())?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return None;
    }
    let query = target::without_credentials(query);
    let mark = if query.is_empty() { "" } else { "?" };
    Some(format!(
        "{}://{}/{}{path}{mark}{query}",
        scheme.name(),
        request.head().authority,
        request.route().name
    ))
}
