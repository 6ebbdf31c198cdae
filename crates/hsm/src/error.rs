//! What can go wrong with a token, as one closed list that travels on the wire.
//!
//! The daemon decides by [`ErrorClass`] alone (re-open the session, mark the row bad, tell the operator), so a class exists
//! exactly where the reaction differs. The text names the cause and the next step; it must never hold key material or a PIN.

use std::fmt;

/// What kind of failure it was: the reaction depends on this and on nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorClass {
    /// The peer's public key is no valid point or key of this profile. Refused before the token saw it.
    BadPoint = 1,
    /// The record cannot be opened although the token passes its self-test: the record is bad, not the token.
    BadRecord = 2,
    /// The request breaks the protocol or a limit.
    BadRequest = 3,
    /// The record was not written by this custodian, or was changed since.
    MacMismatch = 4,
    /// The share is not the one that the operator signed.
    CheckMismatch = 5,
    /// This key version is in the token's revoked set.
    Revoked = 6,
    /// The token process does not know the session (it was restarted, or the session was evicted): open it again.
    UnknownSession = 7,
    /// A state older than the one that the token remembers.
    StateOlder = 8,
    /// The revoked set does not fit the token's data object.
    StateFull = 9,
    /// No slot holds the token.
    TokenMissing = 10,
    /// A token is there, but its label or serial is another.
    WrongToken = 11,
    /// The PIN file cannot be used (owner, mode, missing).
    PinFile = 12,
    /// The token refused the PIN; no second attempt is made.
    PinIncorrect = 13,
    /// The token locked its PIN.
    PinLocked = 14,
    /// An earlier attempt with this PIN file failed; nothing is tried until it changes or `unlatch`.
    PinLatched = 15,
    /// Objects are missing on the token: run `hsmd init`.
    ObjectsMissing = 16,
    /// Two objects match where one may exist.
    DuplicateObject = 17,
    /// The module ignores attributes that custody rests on, or cannot run any profile.
    ModuleUnfit = 18,
    /// This input killed the token process twice and is refused.
    Poisoned = 19,
    /// Any other answer of the device; the text names the CK_RV.
    Device = 20,
    /// A limit of the token or of the protocol was reached; later may do.
    Busy = 21,
    /// The deadline passed; the token process is being replaced.
    Timeout = 22,
    /// The token process died while the call was under way.
    Lost = 23,
    /// There is no token process now; the text says why.
    Down = 24,
    /// What was shown of the caller does not satisfy the token process's own rules. The text begins with the reason's name.
    NotAttested = 25,
}

impl ErrorClass {
    /// All classes, in wire order: for metrics that show zeros from the start.
    pub const ALL: [ErrorClass; 25] = [
        ErrorClass::BadPoint,
        ErrorClass::BadRecord,
        ErrorClass::BadRequest,
        ErrorClass::MacMismatch,
        ErrorClass::CheckMismatch,
        ErrorClass::Revoked,
        ErrorClass::UnknownSession,
        ErrorClass::StateOlder,
        ErrorClass::StateFull,
        ErrorClass::TokenMissing,
        ErrorClass::WrongToken,
        ErrorClass::PinFile,
        ErrorClass::PinIncorrect,
        ErrorClass::PinLocked,
        ErrorClass::PinLatched,
        ErrorClass::ObjectsMissing,
        ErrorClass::DuplicateObject,
        ErrorClass::ModuleUnfit,
        ErrorClass::Poisoned,
        ErrorClass::Device,
        ErrorClass::Busy,
        ErrorClass::Timeout,
        ErrorClass::Lost,
        ErrorClass::Down,
        ErrorClass::NotAttested,
    ];

    /// The name used in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::BadPoint => "bad_point",
            ErrorClass::BadRecord => "bad_record",
            ErrorClass::BadRequest => "bad_request",
            ErrorClass::MacMismatch => "mac_mismatch",
            ErrorClass::CheckMismatch => "check_mismatch",
            ErrorClass::Revoked => "revoked",
            ErrorClass::UnknownSession => "unknown_session",
            ErrorClass::StateOlder => "state_older",
            ErrorClass::StateFull => "state_full",
            ErrorClass::TokenMissing => "token_missing",
            ErrorClass::WrongToken => "wrong_token",
            ErrorClass::PinFile => "pin_file",
            ErrorClass::PinIncorrect => "pin_incorrect",
            ErrorClass::PinLocked => "pin_locked",
            ErrorClass::PinLatched => "pin_latched",
            ErrorClass::ObjectsMissing => "objects_missing",
            ErrorClass::DuplicateObject => "duplicate_object",
            ErrorClass::ModuleUnfit => "module_unfit",
            ErrorClass::Poisoned => "poisoned",
            ErrorClass::Device => "device",
            ErrorClass::Busy => "busy",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Lost => "lost",
            ErrorClass::Down => "down",
            ErrorClass::NotAttested => "not_attested",
        }
    }

    /// The class with this number on the wire.
    #[must_use]
    pub fn from_wire(code: u8) -> Option<ErrorClass> {
        let index = usize::from(code).checked_sub(1)?;
        ErrorClass::ALL.get(index).copied()
    }

    /// Whether the same request may succeed at this custodian soon, without anyone acting.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorClass::UnknownSession
                | ErrorClass::TokenMissing
                | ErrorClass::Device
                | ErrorClass::Busy
                | ErrorClass::Timeout
                | ErrorClass::Lost
                | ErrorClass::Down
        )
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed operation at one custodian: the class to react to, and what to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {text}")]
pub struct HsmError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// Which operation failed on what, and the next step.
    pub text: String,
}

impl HsmError {
    /// An error of this class.
    pub fn new(class: ErrorClass, text: impl Into<String>) -> HsmError {
        HsmError {
            class,
            text: text.into(),
        }
    }
}

/// The result of an operation at a custodian.
pub type Result<T> = std::result::Result<T, HsmError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_the_wire_and_nothing_else_parses() {
        for (index, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index + 1);
            assert_eq!(ErrorClass::from_wire(class as u8), Some(class));
        }
        assert_eq!(ErrorClass::from_wire(0), None);
        assert_eq!(ErrorClass::from_wire(26), None);
    }
}
