//! What the daemon may ask of a token process.

use super::codec::{Reader, Writer};
use super::{WireError, write_frame};
use crate::revoked::{RevokedSet, Span};

/// A stored share with its identity, as one custodian wrote it ([`super::Ingested`]). The MAC covers both other fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareRow<'a> {
    /// Which share it is: the encoding of a [`custody::RowIdentity`].
    pub identity: &'a [u8],
    /// The share as it rests: AES-KW under the KEK, or the sealed share itself (`rsa-oaep`).
    pub wrapped: &'a [u8],
    /// This custodian's MAC over identity and SHA-256(wrapped).
    pub mac: &'a [u8; 32],
}

/// A sealed share to take in. The identity of the row comes out of the header, not from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingest<'a> {
    /// The canonical header.
    pub header: &'a [u8],
    /// Under whose KEK to wrap.
    pub compartment: &'a str,
    /// The share as sealed to this custodian.
    pub sealed: &'a [u8],
    /// The check value that the operator signed.
    pub check: &'a [u8; 32],
}

/// What the daemon shows of the caller for whom a session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presented<'a> {
    /// The service account token that the caller sent; empty when it sent none.
    pub token: &'a [u8],
    /// Whether the descriptor of the caller's witness connection comes along with this frame.
    pub witness: bool,
}

/// A key version that a token must never release again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// The provider key's id.
    pub key_id: String,
    /// Its version.
    pub version: u32,
}

/// One request. The names are those of DESIGN.md section 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// First on each connection: the protocol version of the client.
    Hello {
        /// The client's [`super::VERSION`].
        version: u32,
    },
    /// Create what is missing on the token, pick the profile, make the descriptor. A second run changes nothing.
    Init,
    /// The descriptor.
    Describe,
    /// Bind an agent's ephemeral public key to a session id.
    OpenSession {
        /// The session.
        session: &'a [u8; 16],
        /// The agent's public key in the profile's encoding.
        agent: &'a [u8],
        /// Whose it is, for a process that wants to know.
        evidence: Presented<'a>,
    },
    /// Forget a session.
    CloseSession {
        /// The session.
        session: &'a [u8; 16],
    },
    /// Open a sealed share inside the token, compare its check value, wrap it again.
    Ingest(Ingest<'a>),
    /// Re-wrap a share to a session.
    Deliver {
        /// The session.
        session: &'a [u8; 16],
        /// The share.
        row: ShareRow<'a>,
    },
    /// Recompute the check value of a share.
    Check {
        /// The share.
        row: ShareRow<'a>,
    },
    /// Answer a receipt's challenge.
    Answer {
        /// The share.
        row: ShareRow<'a>,
        /// The one-time challenge.
        challenge: &'a [u8; 32],
    },
    /// MAC a record of the store. The token process adds the purpose; callers cannot.
    MacRecord {
        /// The record.
        bytes: &'a [u8],
    },
    /// Verify such a MAC.
    VerifyRecord {
        /// The record.
        bytes: &'a [u8],
        /// The MAC to compare with.
        mac: &'a [u8; 32],
    },
    /// What the token remembers of the store.
    ReadState,
    /// Remember a newer store; `revoked` is added to the set, which never shrinks.
    WriteState {
        /// The store's revision; may not fall.
        revision: u64,
        /// The digest of its inventory.
        digest: &'a [u8; 32],
        /// Versions to add to the revoked set.
        revoked: RevokedSet,
    },
    /// Sign a statement. The token process adds the purpose; callers cannot.
    SignStatement {
        /// The statement.
        bytes: &'a [u8],
    },
    /// Sign a fresh challenge with the descriptor's key. The token process adds the purpose; callers cannot.
    ProvePossession {
        /// Chosen at random by whoever wants the proof.
        challenge: &'a [u8; 32],
    },
    /// The key under which this custodian's part of the store's key rests. The token process adds the purpose; callers cannot.
    StorePart {
        /// Drawn at random for this part.
        salt: &'a [u8; 32],
    },
    /// A real generate, wrap, unwrap and MAC on the token.
    SelfTest,
    /// Remove the PIN latch and forgive poisoned inputs, then try again.
    Unlatch,
    /// End the process.
    Shutdown,
}

/// Appends a request frame.
///
/// # Errors
/// The request is longer than a frame may be.
pub fn write_request(out: &mut Vec<u8>, id: u64, request: &Request<'_>) -> Result<(), WireError> {
    write_frame(out, id, |w| match request {
        Request::Hello { version } => {
            w.u8(1);
            w.u32(*version);
        }
        Request::Init => w.u8(2),
        Request::Describe => w.u8(3),
        Request::OpenSession {
            session,
            agent,
            evidence,
        } => {
            w.u8(4);
            w.fixed(*session);
            w.bytes(agent);
            w.bytes(evidence.token);
            w.u8(u8::from(evidence.witness));
        }
        Request::CloseSession { session } => {
            w.u8(5);
            w.fixed(*session);
        }
        Request::Ingest(ingest) => write_ingest(w, ingest),
        Request::Deliver { session, row } => {
            w.u8(7);
            w.fixed(*session);
            write_row(w, row);
        }
        Request::Check { row } => {
            w.u8(8);
            write_row(w, row);
        }
        Request::Answer { row, challenge } => {
            w.u8(9);
            w.fixed(*challenge);
            write_row(w, row);
        }
        Request::MacRecord { bytes } => {
            w.u8(10);
            w.bytes(bytes);
        }
        Request::VerifyRecord { bytes, mac } => {
            w.u8(11);
            w.fixed(*mac);
            w.bytes(bytes);
        }
        Request::ReadState => w.u8(12),
        Request::WriteState {
            revision,
            digest,
            revoked,
        } => {
            w.u8(13);
            w.u64(*revision);
            w.fixed(*digest);
            write_revoked(w, revoked);
        }
        Request::SignStatement { bytes } => {
            w.u8(14);
            w.bytes(bytes);
        }
        Request::SelfTest => w.u8(15),
        Request::Unlatch => w.u8(16),
        Request::Shutdown => w.u8(17),
        Request::ProvePossession { challenge } => {
            w.u8(18);
            w.fixed(*challenge);
        }
        Request::StorePart { salt } => {
            w.u8(21);
            w.fixed(*salt);
        }
    })
}

/// The request in a frame's body.
///
/// # Errors
/// Any deviation from the one canonical encoding.
pub fn parse_request(body: &[u8]) -> Result<Request<'_>, WireError> {
    let mut r = Reader::new(body);
    let request = match r.u8()? {
        1 => Request::Hello { version: r.u32()? },
        2 => Request::Init,
        3 => Request::Describe,
        4 => Request::OpenSession {
            session: r.fixed()?,
            agent: r.bytes()?,
            evidence: Presented {
                token: r.bytes()?,
                witness: r.bool()?,
            },
        },
        5 => Request::CloseSession {
            session: r.fixed()?,
        },
        6 => Request::Ingest(read_ingest(&mut r)?),
        7 => Request::Deliver {
            session: r.fixed()?,
            row: read_row(&mut r)?,
        },
        8 => Request::Check {
            row: read_row(&mut r)?,
        },
        9 => {
            let challenge = r.fixed()?;
            Request::Answer {
                row: read_row(&mut r)?,
                challenge,
            }
        }
        10 => Request::MacRecord { bytes: r.bytes()? },
        11 => {
            let mac = r.fixed()?;
            Request::VerifyRecord {
                bytes: r.bytes()?,
                mac,
            }
        }
        12 => Request::ReadState,
        13 => Request::WriteState {
            revision: r.u64()?,
            digest: r.fixed()?,
            revoked: read_revoked(&mut r)?,
        },
        14 => Request::SignStatement { bytes: r.bytes()? },
        15 => Request::SelfTest,
        16 => Request::Unlatch,
        17 => Request::Shutdown,
        18 => Request::ProvePossession {
            challenge: r.fixed()?,
        },
        21 => Request::StorePart { salt: r.fixed()? },
        _ => return Err(WireError::Verb),
    };
    r.end()?;
    Ok(request)
}

fn write_ingest(w: &mut Writer<'_>, ingest: &Ingest<'_>) {
    w.u8(6);
    w.bytes(ingest.header);
    w.bytes(ingest.compartment.as_bytes());
    w.bytes(ingest.sealed);
    w.fixed(ingest.check);
}

fn read_ingest<'a>(r: &mut Reader<'a>) -> Result<Ingest<'a>, WireError> {
    Ok(Ingest {
        header: r.bytes()?,
        compartment: r.name()?,
        sealed: r.bytes()?,
        check: r.fixed()?,
    })
}

fn write_row(w: &mut Writer<'_>, row: &ShareRow<'_>) {
    w.bytes(row.identity);
    w.bytes(row.wrapped);
    w.fixed(row.mac);
}

fn read_row<'a>(r: &mut Reader<'a>) -> Result<ShareRow<'a>, WireError> {
    Ok(ShareRow {
        identity: r.bytes()?,
        wrapped: r.bytes()?,
        mac: r.fixed()?,
    })
}

/// The set as a list of spans in strictly rising order, none touching the next, so that one set has one encoding.
pub(super) fn write_revoked(w: &mut Writer<'_>, revoked: &RevokedSet) {
    let spans = revoked.spans();
    w.u32(u32::try_from(spans.len()).unwrap_or(u32::MAX));
    for span in spans {
        w.bytes(span.key_id.as_bytes());
        w.u32(span.first);
        w.u32(span.last);
    }
}

pub(super) fn read_revoked(r: &mut Reader<'_>) -> Result<RevokedSet, WireError> {
    let count = r.u32()?;
    // No capacity from the count: the peer chose that number, the frame's own length bounds what follows.
    let mut revoked = RevokedSet::default();
    for _ in 0..count {
        let span = Span {
            key_id: r.name()?.to_owned(),
            first: r.u32()?,
            last: r.u32()?,
        };
        if !revoked.push(span) {
            return Err(WireError::Order);
        }
    }
    Ok(revoked)
}
