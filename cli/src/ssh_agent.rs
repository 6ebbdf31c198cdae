//! An Ed25519 key in ssh-agent as sealer: two messages of its protocol (draft-ietf-sshm-ssh-agent), over a Unix socket.
//!
//! What is signed begins with a length-prefixed `tacit/manifest/v1`, which no SSH session does (there the first string
//! is a session hash), so neither signature can stand for the other.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use custody::{Sealer, SealerKey, sha256};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const ED25519: &[u8] = b"ssh-ed25519";

/// Longest message accepted: OpenSSH's own bound.
const MESSAGE_MAX_BYTES: usize = 256 * 1024;
/// Longest wait for an agent that has a person confirm each signature, or touch a card.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why ssh-agent gave no sealer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("cannot talk to ssh-agent at {path}")]
    Talk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "ssh-agent holds no Ed25519 key; add one with ssh-add (sk-… keys sign something else and do not fit)"
    )]
    NoKey,
    #[error("ssh-agent holds no Ed25519 key {asked}; it holds: {held}")]
    NotHeld { asked: String, held: String },
    #[error(
        "ssh-agent holds several Ed25519 keys and the trust file pins not exactly one of them; choose: --sealer \
         ssh-agent:FINGERPRINT out of {held}"
    )]
    Ambiguous { held: String },
}

/// A sealer whose private key stays in ssh-agent.
#[derive(Debug)]
pub(crate) struct SshAgentSealer {
    socket: PathBuf,
    key: SealerKey,
}

impl SshAgentSealer {
    /// The key with this fingerprint; without one, the only key, or the only one that is pinned.
    pub(crate) fn choose(
        socket: &Path,
        fingerprint: Option<&str>,
        pinned: impl Fn(&SealerKey) -> bool,
    ) -> Result<Self, AgentError> {
        let keys = identities(socket).map_err(|source| AgentError::Talk {
            path: socket.to_owned(),
            source,
        })?;
        let key = pick(&keys, fingerprint, pinned)?;
        Ok(Self {
            socket: socket.to_owned(),
            key,
        })
    }
}

fn pick(
    keys: &[SealerKey],
    fingerprint: Option<&str>,
    pinned: impl Fn(&SealerKey) -> bool,
) -> Result<SealerKey, AgentError> {
    let held = || {
        let names: Vec<_> = keys.iter().map(fingerprint_of).collect();
        names.join(", ")
    };
    if keys.is_empty() {
        return Err(AgentError::NoKey);
    }
    if let Some(asked) = fingerprint {
        let found = keys.iter().find(|key| fingerprint_of(key) == asked);
        return found.copied().ok_or_else(|| AgentError::NotHeld {
            asked: asked.to_owned(),
            held: held(),
        });
    }
    let trusted: Vec<_> = keys.iter().filter(|key| pinned(key)).collect();
    match (keys, trusted.as_slice()) {
        ([only], _) => Ok(*only),
        (_, [only]) => Ok(**only),
        _ => Err(AgentError::Ambiguous { held: held() }),
    }
}

/// As `ssh-add -l` shows it.
fn fingerprint_of(key: &SealerKey) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(sha256(&blob(key))))
}

/// RFC 8709, 4: the key as SSH writes it.
fn blob(key: &SealerKey) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, ED25519);
    put(&mut out, key.as_bytes());
    out
}

impl Sealer for SshAgentSealer {
    fn public(&self) -> SealerKey {
        self.key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, &blob(&self.key));
        put(&mut request, message);
        request.extend_from_slice(&0u32.to_be_bytes()); // no flags: they choose hashes of RSA
        let answer = ask(&self.socket, &request).map_err(|error| format!("ssh-agent: {error}"))?;
        let signature = read_signature(&answer).ok_or(
            "ssh-agent refused (locked, key removed, or the signature was not confirmed?)",
        )?;
        // A wrong signature would be found out by the daemon only; here the next step is still near.
        if self.key.verify(message, &signature) {
            Ok(signature)
        } else {
            Err("ssh-agent returned a signature that does not verify".to_owned())
        }
    }
}

fn identities(socket: &Path) -> io::Result<Vec<SealerKey>> {
    let answer = ask(socket, &[REQUEST_IDENTITIES])?;
    read_identities(&answer).ok_or_else(|| io::Error::other("the list of keys does not parse"))
}

fn read_identities(answer: &[u8]) -> Option<Vec<SealerKey>> {
    let mut rest = answer.strip_prefix(&[IDENTITIES_ANSWER])?;
    let count = take_u32(&mut rest)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let mut key = take(&mut rest)?;
        let _comment = take(&mut rest)?;
        if take(&mut key) == Some(ED25519) {
            let point: [u8; 32] = take(&mut key)?.try_into().ok()?;
            keys.push(SealerKey::new(point));
        }
    }
    Some(keys)
}

fn read_signature(answer: &[u8]) -> Option<[u8; 64]> {
    let mut rest = answer.strip_prefix(&[SIGN_RESPONSE])?;
    let mut signature = take(&mut rest)?;
    if take(&mut signature)? != ED25519 {
        return None;
    }
    take(&mut signature)?.try_into().ok()
}

fn ask(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut framed = Vec::new();
    put(&mut framed, request);
    stream.write_all(&framed)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(1..=MESSAGE_MAX_BYTES).contains(&length) {
        return Err(io::Error::other("the answer has an impossible length"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and manifests are a few KiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_u32(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
#[path = "ssh_agent_tests.rs"]
mod tests;
