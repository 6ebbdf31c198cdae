//! From a CK_RV to what is done about it: one function, every code named, no default arm.
//!
//! A vendor's odd answer is one arm here and one case in the fault tests.

use cryptoki::error::{Error, RvError};

use crate::error::{ErrorClass, HsmError};
use crate::token::{Fault, Reaction};

/// The reaction to a CK_RV.
pub(crate) fn reaction(rv: RvError) -> Reaction {
    use RvError as R;
    match rv {
        // Sessions, handles and operations that are gone or stuck: a new session finds everything again.
        R::SessionClosed
        | R::SessionHandleInvalid
        | R::SessionReadOnly
        | R::SessionExists
        | R::SessionReadOnlyExists
        | R::SessionReadWriteSoExists
        | R::SessionParallelNotSupported
        | R::OperationActive
        | R::OperationNotInitialized
        | R::ObjectHandleInvalid
        | R::KeyHandleInvalid
        | R::UnwrappingKeyHandleInvalid
        | R::WrappingKeyHandleInvalid
        | R::KeyChanged
        | R::KeyNeeded
        | R::KeyNotNeeded
        | R::SavedStateInvalid
        | R::StateUnsaveable => Reaction::NewSession,
        R::UserNotLoggedIn | R::UserAnotherAlreadyLoggedIn => Reaction::LogIn,
        // The token or the library was taken away or reset under us.
        R::CryptokiNotInitialized
        | R::CryptokiAlreadyInitialized
        | R::DeviceRemoved
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::SlotIdInvalid => Reaction::Reinitialise,
        // One attempt was one too many: another would bring the token nearer to locking itself for good.
        R::PinIncorrect
        | R::PinInvalid
        | R::PinLenRange
        | R::PinExpired
        | R::PinLocked
        | R::PinTooWeak
        | R::NewPinMode
        | R::NextOtp
        | R::UserPinNotInitialized
        | R::UserTypeInvalid
        | R::UserTooManyTypes => Reaction::Latch,
        // The module looked at the input and found it wrong.
        R::DataInvalid
        | R::DataLenRange
        | R::EncryptedDataInvalid
        | R::EncryptedDataLenRange
        | R::WrappedKeyInvalid
        | R::WrappedKeyLenRange
        | R::SignatureInvalid
        | R::SignatureLenRange
        | R::DomainParamsInvalid
        | R::PublicKeyInvalid => Reaction::BadInput,
        // SoftHSM says GENERAL_ERROR for a corrupt share, a wrong KEK and a broken token alike.
        R::GeneralError
        | R::FunctionFailed
        | R::DeviceError
        | R::DeviceMemory
        | R::HostMemory
        | R::Cancel
        | R::FunctionCanceled
        | R::FunctionNotParallel
        | R::FunctionRejected
        | R::NoEvent
        | R::MutexBad
        | R::MutexNotLocked
        | R::CantLock
        | R::NeedToCreateThreads
        | R::LibraryLoadFailed
        | R::FipsSelfTestFailed
        | R::ExceededMaxIterations
        | R::BufferTooSmall
        | R::ArgumentsBad
        | R::UnknownErrorCode(_)
        | R::VendorDefined(_) => Reaction::SelfTest,
        R::SessionCount => Reaction::Later,
        // The token is configured otherwise than custody needs; saying it again changes nothing.
        R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::FunctionNotSupported
        | R::CurveNotSupported
        | R::AttributeReadOnly
        | R::AttributeSensitive
        | R::AttributeTypeInvalid
        | R::AttributeValueInvalid
        | R::ActionProhibited
        | R::TemplateIncomplete
        | R::TemplateInconsistent
        | R::TokenWriteProtected
        | R::KeySizeRange
        | R::KeyTypeInconsistent
        | R::KeyFunctionNotPermitted
        | R::KeyNotWrappable
        | R::KeyUnextractable
        | R::KeyIndigestible
        | R::UnwrappingKeySizeRange
        | R::UnwrappingKeyTypeInconsistent
        | R::WrappingKeySizeRange
        | R::WrappingKeyTypeInconsistent
        | R::RandomSeedNotSupported
        | R::RandomNoRng
        | R::InformationSensitive => Reaction::Refuse,
        // Success under another name where it can occur (login); handled there, so here it is a lost session's echo.
        R::UserAlreadyLoggedIn => Reaction::LogIn,
    }
}

/// The fault for a failed call; `what` says what was being done, without values.
pub(crate) fn fault(what: &str, error: &Error) -> Fault {
    let Error::Pkcs11(rv, function) = error else {
        return Fault::refuse(ErrorClass::Device, format!("{what}: {error}"));
    };
    let reaction = reaction(*rv);
    let name = code(*rv);
    let (class, next) = match reaction {
        Reaction::Latch if matches!(rv, RvError::PinLocked) => (
            ErrorClass::PinLocked,
            ": the token's PIN is locked; the Security Officer must reset it",
        ),
        Reaction::Latch => (
            ErrorClass::PinIncorrect,
            ": no second attempt is made; put the right PIN into the PIN file",
        ),
        Reaction::Reinitialise => (ErrorClass::TokenMissing, ": is the token in its slot?"),
        Reaction::BadInput => (ErrorClass::BadRecord, ""),
        Reaction::Later => (
            ErrorClass::Busy,
            ": the token has no session left; it is tried again",
        ),
        Reaction::NewSession | Reaction::LogIn | Reaction::SelfTest | Reaction::Refuse => {
            (ErrorClass::Device, "")
        }
    };
    Fault {
        reaction,
        error: HsmError::new(
            class,
            format!("{what}: C_{function:?} returned {name}{next}"),
        ),
    }
}

/// `CKR_SESSION_HANDLE_INVALID` from `SessionHandleInvalid`: the name that vendors document.
fn code(rv: RvError) -> String {
    if let RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) = rv {
        return format!("{code:#010x}");
    }
    let variant = format!("{rv:?}");
    let mut name = String::from("CKR");
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn a_fault_names_call_and_code() {
        let fault = fault(
            "unwrap a share",
            &Error::Pkcs11(RvError::SessionHandleInvalid, Function::UnwrapKey),
        );
        assert_eq!(fault.reaction, Reaction::NewSession);
        assert_eq!(
            fault.error.text,
            "unwrap a share: C_UnwrapKey returned CKR_SESSION_HANDLE_INVALID"
        );
    }
}
