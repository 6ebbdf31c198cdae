//! Answers that lead elsewhere: passed on as they are, never followed.

use tests::raw::authority::Certificate;
use tests::raw::scene::Scene;
use tests::raw::script::{answer, ok};
use tests::raw::trap::Trap;
use tests::raw::upstream::Upstream;

use crate::requests::{MODELS, chat, get, post_to};

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_passed_on_and_never_followed() {
    let scene = Scene::start().await;
    // One that would take the key in the clear, and one that could prove the very name of the upstream.
    let trap = Trap::set().await;
    let attacker = Upstream::start(&scene.authority, Certificate::Good).await;
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        for location in [
            format!("http://127.0.0.1:{}/steal", trap.port()),
            format!("{}/steal", attacker.url()),
            format!("//localhost:{}/steal", attacker.port()),
            format!("{}/v1/elsewhere", scene.upstream.url()),
            "/v1/elsewhere".to_owned(),
        ] {
            let before = scene.upstream.requests().len();
            let headers = format!("location: {location}\r\nrefresh: 0; url={location}\r\n");
            scene.upstream.answers(answer(status, &headers, ""));
            for request in [get(MODELS, ""), chat("")] {
                let seen = scene.ask(request).await;
                assert_eq!(seen.status.to_string(), status[..3]);
                assert_eq!(seen.field("location").as_deref(), Some(location.as_str()));
            }
            assert_eq!(
                scene.upstream.requests().len(),
                before + 2,
                "asked once each"
            );
        }
    }
    scene.upstream.answers(ok());
    scene.passes("no redirect", get(MODELS, "")).await;
    assert_eq!((trap.connections(), attacker.log().accepted), (0, 0));
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_address_leads_back_through_the_agent_or_nowhere() {
    let scene = Scene::start().await;
    let path = "/gemini/upload/v1beta/files";
    let own = scene.agent.listen;
    for name in ["x-goog-upload-url", "x-goog-upload-control-url"] {
        let url = format!(
            "{}/upload/v1beta/files?upload_id=7&key={}",
            scene.upstream.url(),
            scene.keys()[2]
        );
        scene
            .upstream
            .answers(answer("200 OK", &format!("{name}: {url}\r\n"), "{}"));
        let request =
            post_to(path, "Content-Length: 2\r\n", "{}").replacen("localhost", &own.to_string(), 1);
        let seen = scene.ask(&request).await;
        let led = seen.field(name).unwrap();
        assert_eq!(
            led,
            format!("http://{own}/gemini/upload/v1beta/files?upload_id=7")
        );
        for elsewhere in [
            "https://evil.example/upload/v1beta/files",
            &format!("{}.evil.example/x", scene.upstream.url()),
            &format!("{}@evil.example/x", scene.upstream.url()),
            "/upload",
        ] {
            scene
                .upstream
                .answers(answer("200 OK", &format!("{name}: {elsewhere}\r\n"), "{}"));
            let seen = scene.ask(&request).await;
            assert_eq!((seen.status, seen.field(name)), (200, None), "{elsewhere}");
        }
    }
    scene.holds();
}
