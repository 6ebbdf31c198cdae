//! What the tests of this crate share: a sealer and an agent in software, and ways to ask a token process.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests; each test binary uses a part"
)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use custody::p256::KeyPair;
use custody::rsa::RsaKeyPair;
use custody::session::{WrappingKey, deliver_context};
use custody::{Header, Profile, ShareRecord, SignedDescriptor, SystemRandom};
use hsm::TokenConfig;
use hsm::error::{ErrorClass, HsmError};
use hsm::wire::{Answer, Ingest, Ingested, Request, parse_answer, parse_frame, write_request};
use secret::Secret;
use softhsm::TokenDir;
use softhsm::nss::NssDir;

pub const TOKEN_PROGRAM: &str = env!("CARGO_BIN_EXE_tacit-token");

/// Something that answers requests: a kernel over the fake, or a token process over SoftHSM.
pub trait Subject {
    fn ask(&mut self, request: &Request<'_>) -> Answer;

    fn error(&mut self, request: &Request<'_>) -> HsmError {
        match self.ask(request) {
            Answer::Failed(error) => error,
            other => panic!("{request:?} should fail, but: {other:?}"),
        }
    }

    fn class(&mut self, request: &Request<'_>) -> ErrorClass {
        self.error(request).class
    }

    fn init(&mut self) -> SignedDescriptor {
        match self.ask(&Request::Init) {
            Answer::Descriptor(bytes) => SignedDescriptor::parse(&bytes).unwrap(),
            other => panic!("init: {other:?}"),
        }
    }
}

/// A token process that the test drives by hand.
pub struct Process {
    pub child: Child,
    stream: UnixStream,
    input: Vec<u8>,
    next: u64,
}

impl Process {
    pub fn start(token: &TokenDir, state: &Path, extra: &[&str]) -> Process {
        Process::on(&config(token, state), extra)
    }

    /// On whatever token that configuration names, through the arguments that the daemon would give.
    pub fn on(config: &TokenConfig, extra: &[&str]) -> Process {
        Process::through(Command::new(TOKEN_PROGRAM), config, extra)
    }

    /// The same, where `command` runs the token process in surroundings of its own.
    pub fn through(mut command: Command, config: &TokenConfig, extra: &[&str]) -> Process {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = command
            .args(config.arguments())
            .args(extra)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(&config.env)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Process {
            child,
            stream: ours,
            input: Vec::new(),
            next: 0,
        }
    }

    pub fn send(&mut self, request: &Request<'_>) {
        self.next += 1;
        let mut frame = Vec::new();
        write_request(&mut frame, self.next, request).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn receive(&mut self) -> Option<Answer> {
        loop {
            if let Some(frame) = parse_frame(&self.input).unwrap() {
                let (answer, taken) = (parse_answer(frame.body).unwrap(), frame.taken);
                self.input.drain(..taken);
                return Some(answer);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap_or(0) {
                0 => return None,
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// Closes the socket and says with which code the process ended.
    pub fn end(mut self) -> Option<i32> {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Subject for Process {
    fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.send(request);
        self.receive().expect("the token process answers")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sealed share of a random record, with everything around it.
pub struct Sealed {
    pub record: ShareRecord,
    pub header: Header,
    pub encoded: Vec<u8>,
    pub share: Vec<u8>,
    pub check: [u8; 32],
}

/// Seals a share of one version of `key` to this custodian as its first.
pub fn seal(descriptor: &SignedDescriptor, key: &str, version: u32) -> Sealed {
    let own = &descriptor.descriptor;
    let other = custody::Fingerprint::new([9; 32]);
    let header = Header {
        suite: custody::Suite::Aes256GcmSiv,
        key_id: key.parse().unwrap(),
        version,
        generation: 1,
        provider: "openai".into(),
        upstreams: vec!["https://api.openai.com".parse().unwrap()],
        threshold: 2,
        custodians: vec![own.fingerprint(), other],
        sealer: custody::SealerKey::new([7; 32]),
        created_at: 1_700_000_000,
        commitment: [8; 32],
    };
    let encoded = header.encode();
    let hash = header.hash();
    let record = ShareRecord::new(1, &Secret::new(Box::new([version as u8; 32])), &hash);
    let share =
        custody::seal::seal_share(own, "openai", &record, &hash, &mut SystemRandom::new()).unwrap();
    let check = record.check_value(&hash);
    Sealed {
        record,
        header,
        encoded,
        share,
        check,
    }
}

impl Sealed {
    pub fn ingest(&self) -> Ingest<'_> {
        Ingest {
            header: &self.encoded,
            compartment: "openai",
            sealed: &self.share,
            check: &self.check,
        }
    }

    pub fn ingest_into(&self, subject: &mut dyn Subject) -> Ingested {
        match subject.ask(&Request::Ingest(self.ingest())) {
            Answer::Ingested(ingested) => ingested,
            other => panic!("ingest: {other:?}"),
        }
    }
}

/// An agent's session with one custodian.
pub enum Agent {
    Ec(Box<KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Agent {
    pub fn new(profile: Profile) -> Agent {
        match profile {
            Profile::EcdhKw(_) => Agent::Ec(Box::new(KeyPair::generate(&mut SystemRandom::new()))),
            Profile::RsaOaep(_) => Agent::Rsa(Box::new(RsaKeyPair::generate().unwrap())),
        }
    }

    pub fn public(&self) -> Vec<u8> {
        match self {
            Agent::Ec(pair) => pair.public().as_bytes().to_vec(),
            Agent::Rsa(pair) => pair.public().as_der().to_vec(),
        }
    }

    /// Opens what was delivered; `None` when it was wrapped for another session, custodian or key.
    pub fn open(
        &self,
        descriptor: &SignedDescriptor,
        session: &[u8; 16],
        wrapped: &[u8],
    ) -> Option<ShareRecord> {
        let own = &descriptor.descriptor;
        let secret = match (self, own.profile, &own.seal) {
            (
                Agent::Ec(pair),
                Profile::EcdhKw(kdf),
                custody::descriptor::SealKeys::Ecdh { transport, .. },
            ) => {
                let context = deliver_context(&own.id, session, pair.public());
                WrappingKey::derive(pair, transport, kdf, &context).unwrap(wrapped)
            }
            (Agent::Rsa(pair), Profile::RsaOaep(hash), _) => pair.decrypt(hash, wrapped),
            _ => None,
        };
        secret.map(ShareRecord::from_secret)
    }
}

/// One provisioned token in a directory of the test's own.
pub fn token(dir: &Path) -> TokenDir {
    softhsm::up(dir, 1).unwrap().remove(0)
}

/// A client's configuration for it.
pub fn config(token: &TokenDir, state: &Path) -> TokenConfig {
    let mut config = TokenConfig::new(&token.id, &token.module, &token.pin_file, state);
    config.token_label = Some(token.label.clone());
    config
        .env
        .insert("SOFTHSM2_CONF".into(), token.conf.display().to_string());
    config.program = Some(TOKEN_PROGRAM.into());
    config
}

/// The fault shim beside the test programs.
pub fn shim() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let target = deps.parent().unwrap().parent().unwrap();
    let candidates = [
        target.join("libtacit_shim.so"),
        target.join("deps/libtacit_shim.so"),
    ];
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .expect("the shim is built: cargo build -p tacit-shim")
}

/// A process that ends with the test, also when that fails.
pub struct Service(pub Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration for an NSS database: nothing but other values in the same fields.
pub fn nss_config(token: &NssDir, state: &Path) -> TokenConfig {
    let mut config = TokenConfig::new(&token.id, &token.module, &token.pin_file, state);
    config.token_label = Some(token.label.clone());
    config.init_args = Some(token.init_args.clone());
    let (name, value) = softhsm::nss::QUICK;
    config.env.insert(name.into(), value.into());
    config.program = Some(TOKEN_PROGRAM.into());
    config
}
