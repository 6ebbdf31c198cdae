//! What a token process answers.

use std::sync::Arc;

use secret::Secret;

use super::codec::{Reader, Writer};
use super::request::{read_revoked, write_revoked};
use super::{WireError, write_frame};
use crate::error::{ErrorClass, HsmError};
use crate::revoked::RevokedSet;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The token process's [`super::VERSION`].
    pub version: u32,
    /// The custodian's id.
    pub custodian: String,
    /// The token's serial number.
    pub serial: String,
    /// The module's manufacturer and library version.
    pub module: String,
    /// Whether `init` has been completed: a descriptor is on the token.
    pub initialised: bool,
    /// Whether it was told to call nothing but approved algorithms.
    pub fips: bool,
}

/// A share that was taken in: the three parts of a [`super::ShareRow`], to be stored as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Which share it is: the encoding of a [`custody::RowIdentity`], taken from the header.
    pub identity: Vec<u8>,
    /// The share as it rests.
    pub wrapped: Vec<u8>,
    /// The row's MAC.
    pub mac: [u8; 32],
}

impl Ingested {
    /// The row, for later requests.
    #[must_use]
    pub fn row(&self) -> super::ShareRow<'_> {
        super::ShareRow {
            identity: &self.identity,
            wrapped: &self.wrapped,
            mac: &self.mac,
        }
    }
}

/// What the token remembers of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The store's revision; 0 before the first write.
    pub revision: u64,
    /// The digest of its inventory.
    pub digest: [u8; 32],
    /// Versions that this token refuses to release.
    pub revoked: RevokedSet,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The operation failed.
    Failed(HsmError),
    /// Done; there is nothing to return.
    Done,
    /// To `Hello`.
    Hello(Hello),
    /// The encoded descriptor, to `Init` and `Describe`.
    Descriptor(Vec<u8>),
    /// To `Ingest`.
    Ingested(Ingested),
    /// The share wrapped to the session, to `Deliver`.
    Delivered(Vec<u8>),
    /// A check value, receipt answer or record MAC.
    Digest([u8; 32]),
    /// To `SignStatement` and `ProvePossession`: r ‖ s.
    Signature([u8; 64]),
    /// To `ReadState`.
    State(State),
    /// To `StorePart`: wiped when the last holder drops it.
    PartKey(Arc<Secret<[u8; 32]>>),
}

/// Appends an answer frame.
///
/// # Errors
/// The answer is longer than a frame may be.
pub fn write_answer(out: &mut Vec<u8>, id: u64, answer: &Answer) -> Result<(), WireError> {
    write_frame(out, id, |w| match answer {
        Answer::Failed(error) => {
            w.u8(0);
            w.u8(error.class as u8);
            w.bytes(error.text.as_bytes());
        }
        Answer::Done => w.u8(1),
        Answer::Hello(hello) => write_hello(w, hello),
        Answer::Descriptor(bytes) => {
            w.u8(3);
            w.bytes(bytes);
        }
        Answer::Ingested(ingested) => {
            w.u8(4);
            w.bytes(&ingested.identity);
            w.bytes(&ingested.wrapped);
            w.fixed(&ingested.mac);
        }
        Answer::Delivered(bytes) => {
            w.u8(5);
            w.bytes(bytes);
        }
        Answer::Digest(digest) => {
            w.u8(6);
            w.fixed(digest);
        }
        Answer::Signature(signature) => {
            w.u8(7);
            w.fixed(signature);
        }
        Answer::State(state) => {
            w.u8(8);
            w.u64(state.revision);
            w.fixed(&state.digest);
            write_revoked(w, &state.revoked);
        }
        Answer::PartKey(key) => {
            w.u8(11);
            #[expect(
                clippy::disallowed_methods,
                reason = "the token's answer to its daemon"
            )]
            w.fixed(key.expose());
        }
    })
}

/// The answer in a frame's body.
///
/// # Errors
/// Any deviation from the one canonical encoding.
pub fn parse_answer(body: &[u8]) -> Result<Answer, WireError> {
    let mut r = Reader::new(body);
    let answer = match r.u8()? {
        0 => {
            let class = ErrorClass::from_wire(r.u8()?).ok_or(WireError::Class)?;
            Answer::Failed(HsmError {
                class,
                text: r.text()?.to_owned(),
            })
        }
        1 => Answer::Done,
        2 => Answer::Hello(read_hello(&mut r)?),
        3 => Answer::Descriptor(r.bytes()?.to_vec()),
        4 => Answer::Ingested(Ingested {
            identity: r.bytes()?.to_vec(),
            wrapped: r.bytes()?.to_vec(),
            mac: *r.fixed()?,
        }),
        5 => Answer::Delivered(r.bytes()?.to_vec()),
        6 => Answer::Digest(*r.fixed()?),
        7 => Answer::Signature(*r.fixed()?),
        8 => Answer::State(State {
            revision: r.u64()?,
            digest: *r.fixed()?,
            revoked: read_revoked(&mut r)?,
        }),
        11 => {
            let mut key = Secret::<[u8; 32]>::zeroed();
            #[expect(
                clippy::disallowed_methods,
                reason = "copied once, into a box that is wiped"
            )]
            key.expose_mut().copy_from_slice(r.fixed::<32>()?);
            Answer::PartKey(Arc::new(key))
        }
        _ => return Err(WireError::Verb),
    };
    r.end()?;
    Ok(answer)
}

fn write_hello(w: &mut Writer<'_>, hello: &Hello) {
    w.u8(2);
    w.u32(hello.version);
    w.bytes(hello.custodian.as_bytes());
    w.bytes(hello.serial.as_bytes());
    w.bytes(hello.module.as_bytes());
    w.u8(u8::from(hello.initialised));
    w.u8(u8::from(hello.fips));
}

fn read_hello(r: &mut Reader<'_>) -> Result<Hello, WireError> {
    Ok(Hello {
        version: r.u32()?,
        custodian: r.text()?.to_owned(),
        serial: r.text()?.to_owned(),
        module: r.text()?.to_owned(),
        initialised: r.bool()?,
        fips: r.bool()?,
    })
}
