//! What an app says of credentials is thrown away, and one key is put in, last.

use tests::raw::agent::{self, Agent, Route};
use tests::raw::scene::{SLOTS, Scene, secret_file};
use tests::raw::{find, lines};

use crate::requests::{BODY, MODELS, OWN, chat, get, length, post};

/// A call without a body on each route.
const LISTS: [&str; 3] = [
    "/openai/v1/models",
    "/anthropic/v1/models",
    "/gemini/v1beta/models",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_arrives_as_exactly_this_head() {
    let scene = Scene::start().await;
    for ((path, (_, slot, prefix)), key) in LISTS.iter().zip(SLOTS).zip(scene.keys()) {
        let seen = scene.passes(path, get(path, "X-Custom: 1\r\n")).await;
        let mut have: Vec<String> = lines(&seen.head)
            .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
            .collect();
        have.sort();
        let mut wanted = [
            "accept-encoding: identity".to_owned(),
            format!("host: {}", scene.upstream.authority()),
            format!("{slot}: {prefix}{key}"),
            "x-custom: 1".to_owned(),
        ];
        wanted.sort();
        assert_eq!(have, wanted);
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn nominating_a_slot_as_hop_by_hop_does_not_delete_the_key() {
    let scene = Scene::start().await;
    for path in LISTS {
        for nominated in [
            "authorization",
            "x-api-key",
            "X-Goog-Api-Key, Authorization, api-key",
            "close, authorization",
            "host",
            "keep-alive, host, accept-encoding",
            "authorization\r\nConnection: x-api-key\r\nConnection: x-goog-api-key",
        ] {
            let request = get(path, &format!("Connection: {nominated}\r\n"));
            scene.passes(nominated, request).await;
        }
    }
    let lines = "Connection: x-hop\r\nX-Hop: 1\r\nX-Stays: 1\r\n";
    let seen = scene.passes(lines, get(MODELS, lines)).await;
    assert!(seen.fields("x-hop").is_empty() && seen.fields("x-stays") == ["1"]);
    let seen = scene
        .passes("not nominated", get(MODELS, "X-Hop: 1\r\n"))
        .await;
    assert_eq!(seen.fields("x-hop"), ["1"]);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn nominating_a_length_does_not_unframe_the_body() {
    let scene = Scene::start().await;
    for nominated in [
        "content-length",
        "Content-Length, Content-Type",
        "transfer-encoding",
    ] {
        let answer = scene
            .ask(post(
                &format!("Connection: {nominated}\r\n{}", length()),
                BODY,
            ))
            .await;
        if answer.status == 200 {
            let seen = scene.upstream.requests().pop().unwrap();
            assert_eq!(seen.body, BODY.as_bytes(), "{nominated}");
        } else {
            assert_eq!(answer.code().as_deref(), Some("bad_request"), "{nominated}");
        }
    }
    scene.passes("none", chat("")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_own_credentials_are_replaced_by_exactly_one() {
    let scene = Scene::start().await;
    let every: String = [
        "Authorization: Bearer",
        "AUTHORIZATION: Basic",
        "x-api-key:",
        "X-Api-Key:",
        "api-key:",
        "Api-KEY:",
        "x-goog-api-key:",
        "X-GOOG-API-KEY:",
        "Proxy-Authorization: Basic",
        "X-Amz-Security-Token:",
        "Cookie: session=",
    ]
    .iter()
    .map(|start| format!("{start} {OWN}\r\n"))
    .collect();
    for path in LISTS {
        for lines in every.split_inclusive("\r\n").chain([every.as_str()]) {
            let seen = scene.passes(lines, get(path, lines)).await;
            assert!(!seen.head.contains(OWN), "{lines}: {}", seen.head);
        }
        let seen = scene
            .passes(
                "organisation",
                get(
                    path,
                    "OpenAI-Organization: org-1\r\nOpenAI-Project: proj_1\r\n",
                ),
            )
            .await;
        // Only OpenAI knows these; to Google they are a second credential.
        let kept = seen.fields("openai-organization").len() + seen.fields("openai-project").len();
        assert!(kept == 0 || path == LISTS[0], "{path}: {}", seen.head);
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_among_subprotocols_does_not_arrive() {
    let scene = Scene::start().await;
    // Where browsers put a key for want of headers; outside a WebSocket it is a slot all the same.
    let lines = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{OWN}\r\n");
    let answer = scene.ask(get(MODELS, &lines)).await;
    assert!(answer.status == 200 || answer.code().is_some());
    for seen in scene.upstream.requests() {
        assert!(!seen.head.contains(OWN), "{}", seen.head);
    }
    scene.passes("none", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn underscore_twins_of_headers_do_not_arrive() {
    let scene = Scene::start().await;
    let lines = format!(
        "x_api_key: {OWN}\r\nX_Goog_Api_Key: {OWN}\r\nhttp_authorization: {OWN}\r\ncontent_length: 3\r\nTransfer_Encoding: chunked\r\nx_custom: {OWN}\r\nx-custom: 1\r\n"
    );
    let seen = scene.passes("twins", chat(&lines)).await;
    assert!(!seen.head.contains('_'), "{}", seen.head);
    assert_eq!(seen.fields("x-custom"), ["1"]);
    assert_eq!(seen.body, BODY.as_bytes());
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_query_do_not_arrive_however_they_are_spelled() {
    let scene = Scene::start().await;
    for path in LISTS {
        let upstream = &path[path[1..].find('/').unwrap() + 1..];
        for name in [
            "key",
            "%6Bey",
            "%6bey",
            "k%65y",
            "%6b%65%79",
            "KEY",
            "Key",
            "%4BEY",
            "api-key",
            "api%2Dkey",
            "API-Key",
            "access_token",
            "access%5ftoken",
            "%61ccess_token",
        ] {
            for query in [
                format!("{name}={OWN}"),
                format!("pageSize=3&{name}={OWN}"),
                format!("{name}={OWN}&pageSize=3"),
                format!("{name}={OWN}&{name}={OWN}"),
                format!("pageSize=3&&{name}={OWN}"),
                format!("pageSize=3;{name}={OWN}"),
            ] {
                let request = get(&format!("{path}?{query}"), "");
                let seen = scene.passes(&query, request).await;
                assert!(!seen.target().contains(OWN), "{query}: {}", seen.target());
            }
        }
        for kept in ["pageSize=3", "keys=1", "monkey=1", "a=key", "a%3Dkey=1"] {
            let request = get(&format!("{path}?key={OWN}&{kept}"), "");
            let seen = scene.passes(kept, request).await;
            assert_eq!(seen.target(), format!("{upstream}?{kept}"));
        }
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_not_carried_through_with_the_key() {
    let scene = Scene::start().await;
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    scene
        .refuses("h2c", get(MODELS, h2c), 400, "bad_request")
        .await;
    for lines in [
        "Upgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
    ] {
        scene
            .refuses(lines, get(MODELS, lines), 400, "bad_request")
            .await;
    }
    // A WebSocket where the API has none.
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = scene.ask(get(MODELS, websocket)).await;
    assert!(
        (400..500).contains(&answer.status) && answer.code().is_some(),
        "{}",
        answer.head
    );
    assert!(scene.upstream.requests().is_empty());
    // What names no protocol is a header of the hop, and stays behind.
    let settings = "Connection: HTTP2-Settings, keep-alive\r\nHTTP2-Settings: AAMAAABk\r\n";
    let seen = scene.passes(settings, get(MODELS, settings)).await;
    assert!(seen.fields("http2-settings").is_empty() && seen.fields("connection").is_empty());
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_split_the_head_is_never_sent() {
    let scene = Scene::start().await;
    let check = |name: &str, key: &str| {
        let file = scene.dir().join(name);
        secret_file(&file, key);
        let url = scene.upstream.url();
        let ca = scene.dir().join("ca.pem");
        let routes = [Route {
            provider: "openai",
            base_url: &url,
            ca: &ca,
            key: &file,
        }];
        let dir = tempfile::tempdir().unwrap();
        Agent::check(dir.path(), &agent::config(&routes))
    };
    for (name, key) in [
        ("crlf", "sk-canary\r\nx-evil: 1"),
        ("lf", "sk-canary\nx-evil: 1"),
        ("cr", "sk-canary\rx-evil"),
        ("nul", "sk-canary\0x"),
        ("escape", "sk-canary\u{1b}x"),
        ("two-line-ends", "sk-canary\n\n"),
        ("empty", ""),
        ("blank", " "),
    ] {
        let output = check(name, key);
        assert!(!output.status.success(), "{name}");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            find(&said, b"sk-canary").is_none(),
            "{name}: the value is repeated"
        );
    }
    for (name, key) in [
        ("plain", "sk-canary"),
        ("editor", "sk-canary\n"),
        ("notepad", "sk-canary\r\n"),
    ] {
        let output = check(name, key);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
    }
    scene.holds();
    // And on the wire: the line end of an editor is no part of the key.
    let scene = Scene::start_with_key("sk-canary-0123456789abcdef0123456789").await;
    let seen = scene.passes("a key from a file", get(MODELS, "")).await;
    assert_eq!(seen.key(), scene.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_never_configured_to_leave_in_the_clear() {
    let scene = Scene::start().await;
    let file = scene.dir().join("plain.key");
    secret_file(&file, OWN);
    let ca = scene.dir().join("ca.pem");
    for (url, good) in [
        ("http://api.example", false),
        ("http://10.0.0.1:8080", false),
        ("ftp://api.example", false),
        ("https://user:pass@api.example", false),
        ("https://api.example/\\r\\nx-evil: 1", false),
        ("https://api.example", true),
        ("https://10.0.0.1:8443", true),
    ] {
        let routes = [Route {
            provider: "openai",
            base_url: url,
            ca: &ca,
            key: &file,
        }];
        let dir = tempfile::tempdir().unwrap();
        let output = Agent::check(dir.path(), &agent::config(&routes));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), good, "{url}: {said}");
    }
}
