//! Trouble on demand, and without.

use super::*;

#[test]
fn wishes_come_true() {
    for asked in CHATS {
        let good = ask(asked);
        let limited = ask_for(asked, Some("status=429"));
        assert_eq!(limited.status, 429);
        assert_eq!(header(&limited, "retry-after"), "1");
        assert_eq!(
            header(&ask_for(asked, Some("status=500")), "retry-after"),
            ""
        );

        let bad_key = ask_for(asked, Some("error=invalid_api_key"));
        assert!((400..404).contains(&bad_key.status), "{asked:?}");
        let api = Api::known(asked.0).unwrap();
        let fault = api.classify(bad_key.status, &bad_key.pieces.concat());
        assert_eq!(fault, crate::UpstreamFault::AuthBad, "{asked:?}");

        let failing = ask_for(asked, Some("error=mid_stream"));
        if good.pieces.len() > 1 {
            assert_eq!(failing.status, 200);
            assert!(metered(asked, &failing).failed, "{asked:?}");
        } else {
            assert_eq!(failing.status, 500);
        }

        let cut = ask_for(asked, Some("cut"));
        assert!(cut.cut && cut.status == 200);
        assert!(good.pieces.concat().starts_with(&cut.pieces.concat()));
        assert!(metered(asked, &cut).estimated, "{asked:?}");

        let slow = ask_for(asked, Some("slow"));
        assert_eq!((slow.pause_ms, slow.pieces), (SLOW_PAUSE_MS, good.pieces));
        assert_eq!(ask_for(asked, Some("fast")).status, 400);
    }
}

#[test]
fn an_unknown_endpoint_gets_the_apis_own_404() {
    let cases: [(&str, &str, &str, &str); 8] = [
        ("openai", "POST", "/v1/chat/completion", "/error/message"),
        ("openai", "GET", "/v1/chat/completions", "/error/message"),
        ("openai", "GET", "/v1/files/file-other", "/error/message"),
        ("anthropic", "POST", "/v1/messages/batches", "/error/type"),
        ("gemini", "POST", "/v1beta/models/g:other", "/error/status"),
        ("vertex", "GET", "/v1/projects/p", "/error/status"),
        ("bedrock", "POST", "/model/x/other", "/message"),
        ("cohere", "POST", "/v3/chat", "/message"),
    ];
    for (provider, method, path, pointer) in cases {
        let answer = ask((provider, method, path, "", CHAT));
        assert_eq!(answer.status, 404, "{provider} {path}");
        let document: Value = serde_json::from_slice(&answer.pieces.concat()).unwrap();
        assert!(document.pointer(pointer).is_some(), "{document}");
    }
}
