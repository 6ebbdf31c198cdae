//! Upstreams that cannot prove who they are: no byte of a key leaves for them.

use tests::raw::authority::Certificate;
use tests::raw::scene::Scene;

use crate::requests::{MODELS, chat, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_its_name_gets_no_byte() {
    for certificate in [
        Certificate::OtherName,
        Certificate::Expired,
        Certificate::Future,
        Certificate::UnknownAuthority,
        Certificate::SelfSigned,
    ] {
        let scene = Scene::start_before(certificate).await;
        let what = format!("{certificate:?}");
        for request in [get(MODELS, ""), chat("")] {
            scene
                .refuses(&what, request, 502, "upstream_unreachable")
                .await;
        }
        scene
            .upstream
            .until("the handshakes fail", |log| (log.failed >= 2).then_some(()))
            .await;
        let log = scene.upstream.log();
        assert!(log.names.is_empty(), "{what}: a handshake was completed");
        assert!(log.wire.is_empty() && log.requests.is_empty(), "{what}");
        scene.holds();
    }
    let scene = Scene::start_before(Certificate::Good).await;
    scene.passes("the right one", get(MODELS, "")).await;
    assert_eq!(scene.upstream.log().failed, 0);
    scene.holds();
}
