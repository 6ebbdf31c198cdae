//! How a command fails: what the daemon refused, what was asked wrongly, and the next step for either.

use tonic::Code;

use crate::output::clean;

/// The command line parsed, but does not make sense here; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The daemon said no, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// What the daemon calls it: the value of the metadata key [`proto::ERROR_KEY`], else the gRPC code.
    pub(crate) code: String,
    /// Its words.
    pub(crate) message: String,
    /// gRPC's word for it.
    pub(crate) grpc: Code,
}

impl Refusal {
    /// From what tonic returns.
    pub(crate) fn new(status: &tonic::Status) -> Self {
        let named = status.metadata().get(proto::ERROR_KEY);
        let named = named.and_then(|value| value.to_str().ok());
        let message = match status.message() {
            "" => status.code().description(),
            said => said,
        };
        Self {
            code: named.map_or_else(|| code_name(status.code()).to_owned(), clean),
            message: clean(message), // one line: a second one could look like a next step of ours
            grpc: status.code(),
        }
    }

    /// Whether the change was surely not made: the daemon itself said no, rather than falling silent.
    pub(crate) fn is_definite(&self) -> bool {
        matches!(
            self.grpc,
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::ResourceExhausted
                | Code::Unimplemented
        )
    }

    /// What to do now, where the daemon's own words cannot know it.
    pub(crate) fn next_step(&self) -> Option<&'static str> {
        match self.grpc {
            Code::Unavailable => Some("see how it is: tacit status, tacit doctor"),
            Code::DeadlineExceeded => Some(
                "the daemon did not answer in time; a change may still have been made: look with tacit key show, tacit status",
            ),
            Code::Unimplemented => Some("the daemon is older than this command: upgrade hsmd"),
            Code::PermissionDenied | Code::Unauthenticated => {
                Some("the admin socket is for the uids in hsmd.toml: [admin] uids = [...]")
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => None,
        }
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_own_code_wins_over_the_grpc_code() {
        let mut status = tonic::Status::permission_denied("key openai-prod is revoked");
        assert_eq!(Refusal::new(&status).code, "permission_denied");
        let code = "key_revoked".parse().expect("ASCII");
        status.metadata_mut().insert(proto::ERROR_KEY, code);
        let refusal = Refusal::new(&status);
        assert_eq!(refusal.code, "key_revoked");
        assert_eq!(refusal.to_string(), "key openai-prod is revoked");
    }

    #[test]
    fn an_empty_message_still_says_something() {
        let refusal = Refusal::new(&tonic::Status::unavailable(""));
        assert!(!refusal.to_string().is_empty());
        assert!(refusal.next_step().is_some());
    }
}
