//! Every "no" of this daemon: a stable code, a sentence that names cause and next step, and nothing secret.

use std::fmt;

use hsm::{ErrorClass, HsmError};

/// The kinds of refusal; each is a stable code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The store cannot be believed (changed, or older than the tokens remember).
    StoreRefused,
    /// Audit could not be written, so nothing is answered.
    AuditUnavailable,
    /// The request breaks a rule.
    BadRequest,
    /// Such a key, version or session exists already.
    Conflict,
    /// A provider refused one of our keys; told by agents, answered to nobody.
    CredentialsRejected,
    /// A provider's answer repeated one of our keys; likewise.
    EchoBlocked,
    /// Fewer than t custodians answer.
    HsmUnavailable,
    /// The key or version was revoked.
    KeyRevoked,
    /// What must be proven of the caller was not.
    NotAttested,
    /// No such key (for this caller), custodian or agent.
    NotFound,
    /// The caller may not do this.
    PermissionDenied,
    /// A limit of the caller was reached.
    RateLimited,
    /// The session is not known; open a new one.
    SessionUnknown,
    /// The key may not be sent to that origin.
    UpstreamNotAllowed,
    /// Our own fault.
    Internal,
}

impl Code {
    /// The code as it stands in metadata, audit and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Code::StoreRefused => "store_refused",
            Code::AuditUnavailable => "audit_unavailable",
            Code::BadRequest => "bad_request",
            Code::Conflict => "conflict",
            Code::CredentialsRejected => "upstream_credentials_rejected",
            Code::EchoBlocked => "echo_blocked",
            Code::HsmUnavailable => "hsm_unavailable",
            Code::KeyRevoked => "key_revoked",
            Code::NotAttested => "not_attested",
            Code::NotFound => "not_found",
            Code::PermissionDenied => "permission_denied",
            Code::RateLimited => "rate_limited",
            Code::SessionUnknown => "session_unknown",
            Code::UpstreamNotAllowed => "upstream_not_allowed",
            Code::Internal => "internal",
        }
    }
}

/// A refusal, told to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// Cause and next step.
    pub text: String,
    /// A finer name than the code, for the audit log.
    pub reason: Option<&'static str>,
}

impl Refusal {
    /// A refusal of that kind.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            reason: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)
    }
}

impl std::error::Error for Refusal {}

impl From<attest::Refused> for Refusal {
    fn from(refused: attest::Refused) -> Self {
        let text = format!("{}: {refused}", refused.name());
        Self {
            reason: Some(refused.name()),
            ..Self::new(Code::NotAttested, text)
        }
    }
}

impl From<HsmError> for Refusal {
    /// One custodian's failure, where it decides the whole answer.
    fn from(error: HsmError) -> Self {
        let code = match error.class {
            ErrorClass::Revoked => Code::KeyRevoked,
            ErrorClass::BadPoint | ErrorClass::BadRequest | ErrorClass::CheckMismatch => {
                Code::BadRequest
            }
            ErrorClass::MacMismatch | ErrorClass::StateOlder => Code::StoreRefused,
            ErrorClass::NotAttested => Code::NotAttested,
            ErrorClass::BadRecord
            | ErrorClass::UnknownSession
            | ErrorClass::StateFull
            | ErrorClass::TokenMissing
            | ErrorClass::WrongToken
            | ErrorClass::PinFile
            | ErrorClass::PinIncorrect
            | ErrorClass::PinLocked
            | ErrorClass::PinLatched
            | ErrorClass::ObjectsMissing
            | ErrorClass::DuplicateObject
            | ErrorClass::ModuleUnfit
            | ErrorClass::Poisoned
            | ErrorClass::Device
            | ErrorClass::Busy
            | ErrorClass::Timeout
            | ErrorClass::Lost
            | ErrorClass::Down => Code::HsmUnavailable,
        };
        Self::new(code, error.to_string())
    }
}
