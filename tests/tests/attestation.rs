//! Who may have a session: the real daemon asked by processes that are, and are not, what it wants.
//!
//! The test is the agent: it speaks to the workload socket itself. Where a second process is needed it is this program again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests; another process is told in its environment what to do"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use tests::daemon::{Daemon, Post};
use tests::scene::Scene;
use tests::stack::Stack;
use tests::upstream::Provider;
use tests::workload::{connect, hello, marked};

const ISSUER: &str = "https://kubernetes.default.svc";
const POD: &str = "2c48913c-b29f-41e7-9350-020968147796";
const AGENT_IMAGE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const APP_IMAGE: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const SOCKET: &str = "TACIT_TEST_SOCKET";
const TOKEN: &str = "TACIT_TEST_TOKEN";

/// An API server's signing key.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn write_jwks(&self, file: &Path) {
        let point = self.0.public_key().as_ref();
        let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
                          "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]) });
        fs::write(file, json!({ "keys": [key] }).to_string()).unwrap();
    }

    /// A projected token of that pod, with one claim changed.
    fn token(&self, pod_uid: &str, claim: &str, value: Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": ISSUER, "aud": ["tacit"], "sub": "system:serviceaccount:shop:checkout", "iat": now, "nbf": now, "exp": now + 600,
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "checkout", "uid": "s" },
                               "pod": { "name": "app-0", "uid": pod_uid }, "node": { "name": "n1", "uid": "n" } },
        });
        claims[claim] = value;
        let header = json!({ "alg": "ES256", "kid": "k1" });
        let input = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64.encode(signature.as_ref()))
    }

    fn good(&self, pod_uid: &str) -> String {
        self.token(pod_uid, "jti", json!("one"))
    }
}

/// A daemon with an `[attest]` of the test's own.
struct Place {
    post: Post,
    config: PathBuf,
    socket: PathBuf,
    _daemon: Daemon,
}

impl Place {
    fn start(attest: &str, kubernetes: &str, rules: &str) -> anyhow::Result<Self> {
        let stack = Stack::plain()?;
        let (config, socket) = (stack.path("hsmd_config")?, stack.path("hsmd_socket")?);
        let mut post = stack.into_post()?;
        let original = fs::read_to_string(&config)?;
        let mark = "danger_shared_uid = true\n";
        ensure!(original.contains(mark), "no {mark} in {original}");
        let policy = post.dir().join("policy.toml");
        fs::write(&policy, rules)?;
        let more = format!("{mark}policy = \"{}\"\n{attest}\n", policy.display());
        let edited = original.replace(mark, &more) + "\n[attest.kubernetes]\n" + kubernetes;
        fs::write(&config, edited)?;
        let daemon = post.start()?;
        Ok(Self {
            post,
            config,
            socket,
            _daemon: daemon,
        })
    }

    /// What the daemon says to a session with this token: `ok`, or the name that its refusal begins with.
    async fn open(&self, token: &str) -> anyhow::Result<String> {
        open(&self.socket, token).await
    }

    /// Whether the audit log has a refusal of that name.
    fn audited(&self, name: &str) -> anyhow::Result<bool> {
        let dir = self
            .config
            .parent()
            .context("a directory")?
            .join("state/audit");
        let mut found = false;
        for file in fs::read_dir(dir)? {
            for line in fs::read_to_string(file?.path())?.lines() {
                let record: Value = serde_json::from_str(line)?;
                found |= record["action"] == "session.open" && record["outcome"] == name;
            }
        }
        Ok(found)
    }
}

async fn open(socket: &Path, token: &str) -> anyhow::Result<String> {
    let mut client = connect(socket).await?;
    let mut request = hello("openai-prod");
    request.service_account_token = token.as_bytes().to_vec();
    Ok(match client.open_session(marked(request)).await {
        Ok(_) => "ok".to_owned(),
        Err(status) => {
            let (name, _) = status
                .message()
                .split_once(':')
                .unwrap_or((status.message(), ""));
            name.to_owned()
        }
    })
}

/// Opens a session with the token in its environment, and says what came of it.
#[tokio::test]
#[ignore = "run by other tests, as another process"]
async fn helper_opens() {
    let (socket, token) = (
        std::env::var(SOCKET).unwrap(),
        std::env::var(TOKEN).unwrap(),
    );
    println!("OPENED {}", open(Path::new(&socket), &token).await.unwrap());
}

fn opened_by_another_process(socket: &Path, token: &str) -> anyhow::Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "helper_opens", "--nocapture"])
        .env(SOCKET, socket)
        .env(TOKEN, token)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("OPENED ").with_context(|| text.clone())?;
    Ok(rest.lines().next().unwrap_or_default().to_owned())
}

const RULES: &str = "[[rule]]\nname = \"shop\"\nnamespace = \"shop\"\nservice_account = \"checkout\"\nenvironments = [\"production\"]\nteams = [\"shop\"]\nlabels = { tier = \"gold\" }\n";

fn kubernetes(dir: &Path) -> String {
    format!(
        "issuer = \"{ISSUER}\"\naudience = \"tacit\"\njwks_file = \"{}\"\n",
        dir.join("jwks.json").display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_decides_and_each_thing_that_is_wrong_with_one_is_named_and_audited()
-> anyhow::Result<()> {
    let (dir, issuer) = (tempfile::tempdir()?, Issuer::new());
    issuer.write_jwks(&dir.path().join("jwks.json"));
    let place = Place::start("require = [\"k8s-token\"]", &kubernetes(dir.path()), RULES)?;
    let good = issuer.good(POD);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let with = |claim: &str, value: Value| issuer.token(POD, claim, value);
    let (head, _) = good.rsplit_once('.').context("a token")?;
    for (token, wanted) in [
        (String::new(), "token_missing"),
        (with("aud", json!(["api"])), "token_audience"),
        (with("iss", json!("https://elsewhere")), "token_issuer"),
        (with("exp", json!(now - 60)), "token_expired"),
        (with("exp", json!(now + 86_400)), "token_lifetime"),
        (with("kubernetes.io", json!(null)), "token_not_of_pod"),
        (Issuer::new().good(POD), "token_signature"),
        (
            format!(
                "{}.{}.",
                BASE64.encode("{\"alg\":\"none\",\"kid\":\"k1\"}"),
                head.split('.').nth(1).unwrap()
            ),
            "token_algorithm",
        ),
    ] {
        let outcome = place.open(&token).await?;
        ensure!(outcome == wanted, "{outcome} instead of {wanted}");
        ensure!(place.audited(wanted)?, "{wanted} is not audited");
    }
    // The nearest neighbour; and the same token in the hands of another process.
    ensure!(place.open(&good).await? == "ok");
    ensure!(place.open(&good).await? == "ok", "the same process, again");
    ensure!(opened_by_another_process(&place.socket, &good)? == "token_replayed");
    ensure!(place.audited("token_replayed")?);
    let agents = place.post.tacit_json(&["agent", "list"])?;
    let text = agents.to_string();
    for part in ["sa:shop/checkout", POD, "k8s-token", "\"shop\"", "gold"] {
        ensure!(text.contains(part), "{part} in {text}");
    }
    // Keys are replaced without a restart.
    let next = Issuer::new();
    next.write_jwks(&dir.path().join("jwks.json"));
    ensure!(place.open(&next.token(POD, "jti", json!("two"))).await? == "ok");
    ensure!(place.open(&good).await? == "token_signature");
    Ok(())
}

/// An API server that answers every TokenReview alike, on a port of its own.
fn api_server(status: Value) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut chunk = [0; 4096];
            // The question ends with its object: left unread, it would reset the connection.
            while !head.ends_with(b"}") {
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => head.extend_from_slice(&chunk[..read]),
                }
            }
            assert!(head.starts_with(b"POST /apis/authentication.k8s.io/v1/tokenreviews "));
            let body = json!({ "kind": "TokenReview", "status": status }).to_string();
            let answer = format!(
                "HTTP/1.1 201 Created\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_pod_was_deleted_is_refused_though_its_signature_is_good()
-> anyhow::Result<()> {
    let (dir, issuer) = (tempfile::tempdir()?, Issuer::new());
    issuer.write_jwks(&dir.path().join("jwks.json"));
    let user = json!({ "username": "system:serviceaccount:shop:checkout", "extra": { "authentication.kubernetes.io/pod-uid": [POD] } });
    for (status, wanted) in [
        (
            json!({ "authenticated": true, "audiences": ["tacit"], "user": user }),
            "ok",
        ),
        (
            json!({ "authenticated": false, "error": "pod was deleted" }),
            "token_reviewed",
        ),
        (
            json!({ "authenticated": true, "audiences": ["other"], "user": user }),
            "token_reviewed",
        ),
    ] {
        let more = format!(
            "token_review = true\napi_server = \"{}\"\n",
            api_server(status)?
        );
        let place = Place::start(
            "require = [\"k8s-token\"]",
            &(kubernetes(dir.path()) + &more),
            RULES,
        )?;
        // The daemon waits a second and a half for the API server, which a machine under load may take.
        let mut outcome = "review_unavailable".to_owned();
        for _try in 0..20 {
            if outcome != "review_unavailable" {
                break;
            }
            outcome = place.open(&issuer.good(POD)).await?;
        }
        ensure!(outcome == wanted, "{outcome} instead of {wanted}");
    }
    Ok(())
}

/// A pod's cgroups in every hierarchy where this process is not at the root; `None` where we may not make any.
struct PodCgroup(Vec<PathBuf>);

impl PodCgroup {
    fn mounts() -> Vec<PathBuf> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let mut mounts: Vec<PathBuf> = own
            .lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                let name = controllers.strip_prefix("name=").unwrap_or(controllers);
                (path != "/" && !name.is_empty()).then(|| Path::new("/sys/fs/cgroup").join(name))
            })
            .collect();
        for one in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
            if mounts.is_empty() && Path::new(one).join("cgroup.procs").exists() {
                mounts.push(one.into());
            }
        }
        mounts
    }

    fn enter(container: char) -> Option<Self> {
        let id = container.to_string().repeat(64);
        let mut made = Self(Vec::new());
        for mount in Self::mounts() {
            let path = mount
                .join("kubepods/besteffort")
                .join(format!("pod{POD}"))
                .join(&id);
            let entered = fs::create_dir_all(&path).and_then(|()| {
                fs::write(path.join("cgroup.procs"), std::process::id().to_string())
            });
            made.0.push(path);
            if let Err(error) = entered {
                eprintln!("not run: no cgroup can be made here ({error})");
                return None;
            }
        }
        Some(made)
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        for path in &self.0 {
            for above in path.ancestors().skip(1).take(4) {
                if above.join("cgroup.procs").exists()
                    && !above.to_string_lossy().contains("kubepods")
                {
                    let _ = fs::write(above.join("cgroup.procs"), std::process::id().to_string());
                }
            }
            for made in path
                .ancestors()
                .take_while(|one| one.to_string_lossy().contains("kubepods"))
            {
                let _ = fs::remove_dir(made);
            }
        }
    }
}

fn write_pods(file: &Path, pod_uid: &str) {
    let status = |id: char, image: &str| {
        json!({ "containerID": format!("containerd://{}", id.to_string().repeat(64)), "imageID": format!("registry.example/x@{image}"),
                "state": { "running": {} } })
    };
    let pod = json!({
        "metadata": { "uid": pod_uid, "name": "app-0", "namespace": "shop" }, "spec": { "serviceAccountName": "checkout" },
        "status": { "containerStatuses": [status('a', AGENT_IMAGE), status('b', APP_IMAGE)] },
    });
    let fresh = file.with_extension("new");
    fs::write(&fresh, json!({ "items": [pod] }).to_string()).unwrap();
    fs::rename(fresh, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_in_an_apps_container_is_of_no_use_and_kernel_kubelet_and_token_must_agree()
-> anyhow::Result<()> {
    let (dir, issuer) = (tempfile::tempdir()?, Issuer::new());
    issuer.write_jwks(&dir.path().join("jwks.json"));
    let pods = dir.path().join("pods.json");
    write_pods(&pods, POD);
    let attest = format!(
        "require = [\"unix\", \"k8s-cgroup\", \"k8s-token\"]\nagent_images = [\"{AGENT_IMAGE}\"]"
    );
    let more = format!("pods_file = \"{}\"\n", pods.display());
    let place = Place::start(&attest, &(kubernetes(dir.path()) + &more), RULES)?;
    let good = issuer.good(POD);
    ensure!(
        place.open(&good).await? == "not_in_pod",
        "outside of any pod"
    );
    let Some(app) = PodCgroup::enter('b') else {
        return Ok(());
    };
    ensure!(place.open(&good).await? == "image_not_agent");
    ensure!(place.audited("image_not_agent")?);
    drop(app);
    let stranger = PodCgroup::enter('c').context("a second container")?;
    ensure!(place.open(&good).await? == "container_unknown");
    drop(stranger);
    let _agent = PodCgroup::enter('a').context("a third container")?;
    ensure!(
        place.open(&good).await? == "ok",
        "the agent in its own container"
    );
    // The token of another pod, and the same token where the kernel vouches for the pod: no memory is needed for that.
    let stolen = issuer.good("daa5c7ee-3484-4533-af39-3591564fd03e");
    ensure!(place.open(&stolen).await? == "pod_mismatch");
    // The pod is deleted, and another of its name has taken its place: the token is good, the pod is gone.
    write_pods(&pods, "daa5c7ee-3484-4533-af39-3591564fd03e");
    ensure!(place.open(&good).await? == "pod_unknown");
    ensure!(place.audited("pod_mismatch")? && place.audited("pod_unknown")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_agent_passes_the_gate_of_token_processes_and_a_client_without_witness_does_not()
-> anyhow::Result<()> {
    let mut scene = Scene::start("60s").await?;
    let config = scene.stack.path("hsmd_config")?;
    let gate = scene.outside.path().join("gate.toml");
    let uid = nix::unistd::geteuid();
    fs::write(
        &gate,
        format!("require = [\"unix\"]\n[[rule]]\nname = \"agents\"\nuid = {uid}\n"),
    )?;
    fs::set_permissions(&gate, fs::Permissions::from_mode(0o644))?;
    let original = fs::read_to_string(&config)?;
    let mark = "danger_shared_uid = true\n";
    let gated = format!("{mark}token_gate = \"{}\"\n", gate.display());
    fs::write(&config, original.replace(mark, &gated))?;
    scene.stack = scene.stack.restart()?;
    scene.add(Provider::OpenAi)?;
    scene.stack.agent_ready()?;
    let answer = scene.chat()?;
    ensure!(answer.status == 200, "{} {}", answer.head, answer.text());
    // The daemon would let this client in; the tokens do not, since nobody vouches for its key.
    let socket = scene.stack.path("hsmd_socket")?;
    let refused = open(&socket, "").await?;
    ensure!(refused.contains("does not admit the caller"), "{refused}");
    Ok(())
}

#[test]
fn a_user_that_apps_share_is_refused_by_check_and_by_doctor() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    let config = stack.path("hsmd_config")?;
    let check = || {
        Command::new(tests::process::bin("hsmd").unwrap())
            .arg("--check")
            .arg("--config")
            .arg(&config)
            .output()
    };
    ensure!(check()?.status.success(), "development accepts it");
    let original = fs::read_to_string(&config)?;
    fs::write(
        &config,
        original.replace("danger_shared_uid = true", "danger_shared_uid = false"),
    )?;
    let refused = check()?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(78) && text.contains("apps may run as"),
        "{text}"
    );
    let daemon = stack.pid("hsmd")?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon.cast_signed()),
        nix::sys::signal::Signal::SIGHUP,
    )?;
    tests::process::eventually("doctor hears of it", || {
        let output = stack.tacit(&["doctor", "--output", "json"], b"").ok()?;
        String::from_utf8_lossy(&output.stdout)
            .contains("apps may run as")
            .then_some(())
    })?;
    Ok(())
}
