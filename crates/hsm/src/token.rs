//! `trait Hsm`: the few things that the policy kernel asks of a token, and how it fails.
//!
//! No method returns a share or a key in clear; an implementation that could would not be one. What is inside the token is
//! named by an [`Hsm::Object`] that is valid until [`Hsm::epoch`] changes.

use custody::p256::Point;
use custody::rsa::RsaPublic;
use custody::{Kdf, OaepHash, Profile};

use crate::error::{ErrorClass, HsmError};
use crate::fips::Service;

/// What a failure calls for. One place decides it for PKCS#11: `pkcs11/rv.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// The sessions are gone or confused: open new ones, once, and try again.
    NewSession,
    /// The login is gone: log in, once, and try again.
    LogIn,
    /// The library or the token was reset: initialise again, once, and try again.
    Reinitialise,
    /// The PIN was refused: stop, and latch.
    Latch,
    /// The input is bad; the token is well.
    BadInput,
    /// It may be the input or the token: a self-test decides.
    SelfTest,
    /// A limit of the token: later may do.
    Later,
    /// The token refuses what was asked; trying again or restarting changes nothing.
    Refuse,
}

/// A failed operation on a token.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What to do about it.
    pub reaction: Reaction,
    /// What to say about it.
    pub error: HsmError,
}

impl Fault {
    /// A failure that neither a retry nor a restart helps.
    pub fn refuse(class: ErrorClass, text: impl Into<String>) -> Fault {
        Fault {
            reaction: Reaction::Refuse,
            error: HsmError::new(class, text),
        }
    }
}

/// The result of an operation on a token.
pub type Outcome<T> = std::result::Result<T, Fault>;

/// Who the token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// The module's manufacturer and version.
    pub module: String,
}

/// The resident private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resident {
    /// EC: shares are sealed to it.
    Seal,
    /// EC: sessions agree with it.
    Transport,
    /// RSA: shares are sealed to it.
    RsaSeal,
    /// Signs descriptors.
    SignDescriptor,
    /// Signs statements.
    SignStatement,
    /// Signs audit checkpoints.
    SignCheckpoint,
}

impl Resident {
    /// The object's label on the token.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Resident::Seal => "tacit/seal",
            Resident::Transport => "tacit/transport",
            // The compartment `*` serves all that have no key of their own.
            Resident::RsaSeal => "tacit/rsa-seal/*",
            Resident::SignDescriptor => "tacit/sign-descriptor",
            Resident::SignStatement => "tacit/sign-statement",
            Resident::SignCheckpoint => "tacit/sign-checkpoint",
        }
    }
}

/// A resident public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Public {
    /// P-256.
    Ec(Point),
    /// RSA.
    Rsa(RsaPublic),
}

/// What wraps or unwraps a share.
#[derive(Debug, Clone, Copy)]
pub enum Wrapper<'a, O> {
    /// AES-KW under the compartment's KEK.
    Kek(&'a str),
    /// AES-KW under a derived session key.
    Session(O),
    /// RSA-OAEP: unwraps with the resident seal key.
    RsaSeal(OaepHash),
    /// RSA-OAEP: wraps to an agent's public key that was imported.
    RsaAgent(O, OaepHash),
}

/// The key of an HMAC.
#[derive(Debug, Clone, Copy)]
pub enum MacKey<O> {
    /// The custodian's resident MAC object.
    Own,
    /// A share that was unwrapped.
    Share(O),
}

/// Data objects that the token keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataObject {
    /// The signed descriptor.
    Descriptor,
    /// Store revision, digest and revoked set.
    State,
}

impl DataObject {
    /// The object's label on the token.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            DataObject::Descriptor => "tacit/descriptor",
            DataObject::State => "tacit/state",
        }
    }
}

/// A token.
pub trait Hsm {
    /// A session object inside the token.
    type Object: Copy + std::fmt::Debug;

    /// Reaches the token and logs in, if that has not been done. Cheap when it has.
    ///
    /// # Errors
    /// Token missing or another, PIN refused or latched.
    fn ready(&mut self) -> Outcome<Identity>;

    /// Rises when session objects were lost: older [`Hsm::Object`]s are then invalid.
    fn epoch(&self) -> u64;

    /// Does what a failure calls for, before the second and last attempt.
    ///
    /// # Errors
    /// It could not be done.
    fn recover(&mut self, reaction: Reaction) -> Outcome<()>;

    /// Removes the PIN latch: the operator wants another attempt.
    ///
    /// # Errors
    /// The latch cannot be removed.
    fn unlatch(&mut self) -> Outcome<()>;

    /// Whether the token's list of mechanisms has this, for the key size that we use.
    ///
    /// # Errors
    /// The token cannot be asked.
    fn offers(&mut self, service: Service) -> Outcome<bool>;

    /// Runs the step of this profile that no list shows, on session objects of its own; nothing stays.
    ///
    /// # Errors
    /// The token refuses the profile's parameter.
    fn rehearse(&mut self, profile: Profile) -> Outcome<()>;

    /// Whether this key's messages are hashed inside the token, as part of the signature.
    ///
    /// # Errors
    /// It is missing.
    fn hashes(&mut self, key: Resident) -> Outcome<bool>;

    /// Creates the resident key unless it exists.
    ///
    /// # Errors
    /// The token refuses; two exist.
    fn create(&mut self, key: Resident) -> Outcome<()>;

    /// Creates the MAC object unless it exists.
    ///
    /// # Errors
    /// The token refuses; two exist.
    fn create_mac(&mut self) -> Outcome<()>;

    /// Creates the compartment's KEK unless it exists.
    ///
    /// # Errors
    /// The token refuses; two exist.
    fn create_kek(&mut self, compartment: &str) -> Outcome<()>;

    /// The public half of a resident key, read from the token.
    ///
    /// # Errors
    /// It is missing; two exist.
    fn public(&mut self, key: Resident) -> Outcome<Public>;

    /// Derives a session key from a resident EC key.
    ///
    /// # Errors
    /// The token cannot.
    fn derive(
        &mut self,
        own: Resident,
        peer: &Point,
        kdf: Kdf,
        context: &[u8; 32],
    ) -> Outcome<Self::Object>;

    /// Imports an agent's RSA public key.
    ///
    /// # Errors
    /// The token cannot.
    fn import(&mut self, agent: &RsaPublic) -> Outcome<Self::Object>;

    /// Generates a 64-byte share-like secret, for self-tests.
    ///
    /// # Errors
    /// The token cannot.
    fn generate_probe(&mut self) -> Outcome<Self::Object>;

    /// Unwraps a share into a session object.
    ///
    /// # Errors
    /// The ciphertext or the token is bad.
    fn unwrap(
        &mut self,
        wrapper: Wrapper<'_, Self::Object>,
        wrapped: &[u8],
    ) -> Outcome<Self::Object>;

    /// Wraps a share.
    ///
    /// # Errors
    /// The token cannot.
    fn wrap(&mut self, wrapper: Wrapper<'_, Self::Object>, share: Self::Object)
    -> Outcome<Vec<u8>>;

    /// Checks that the attributes of an unwrapped share or derived key are what was asked for: sensitive, value not readable.
    ///
    /// # Errors
    /// [`ErrorClass::ModuleUnfit`] when the module ignored them.
    fn read_back(&mut self, object: Self::Object, kind: Kind) -> Outcome<()>;

    /// Destroys a session object.
    ///
    /// # Errors
    /// The token cannot.
    fn destroy(&mut self, object: Self::Object) -> Outcome<()>;

    /// HMAC-SHA256.
    ///
    /// # Errors
    /// The token cannot.
    fn hmac(&mut self, key: MacKey<Self::Object>, message: &[u8]) -> Outcome<[u8; 32]>;

    /// Verifies an HMAC of the custodian's own MAC object inside the token.
    ///
    /// # Errors
    /// The token cannot. A MAC that differs is `Ok(false)`.
    fn hmac_matches(&mut self, message: &[u8], mac: &[u8; 32]) -> Outcome<bool>;

    /// ECDSA P-256 over SHA-256 of the message: r ‖ s.
    ///
    /// # Errors
    /// The token cannot.
    fn sign(&mut self, key: Resident, message: &[u8]) -> Outcome<[u8; 64]>;

    /// All values kept under this name: more than one only after an interrupted replacement.
    ///
    /// # Errors
    /// The token cannot.
    fn read_data(&mut self, name: DataObject) -> Outcome<Vec<Vec<u8>>>;

    /// Writes the value first and destroys the others then, so that an interruption leaves one too many, never none.
    ///
    /// # Errors
    /// The token cannot.
    fn replace_data(&mut self, name: DataObject, value: &[u8]) -> Outcome<()>;
}

/// What an object whose attributes are read back should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An unwrapped share: sensitive, extractable (it will be wrapped), signs, nothing else.
    Share,
    /// An ECDH secret on its way to a session key: sensitive, not extractable, derives, nothing else.
    Agreed,
    /// A derived session key: sensitive, not extractable, wraps and unwraps, nothing else.
    SessionKey,
}
