//! Every reason why a caller is not believed, each with a stable name for logs, audit and metrics, and a next step.
//!
//! The texts quote nothing that the caller chose: a forged token or a forged cgroup must not write into our log.

/// Why evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The process that connected has ended: whoever speaks inherited its socket, or took its process id.
    #[error(
        "the process that opened the connection has ended: whoever holds its socket now must connect by itself"
    )]
    DeadPeer,
    /// The peer's process id is not visible from here.
    #[error(
        "the caller lives in another PID namespace, so the kernel cannot name its process here: this daemon needs hostPID (or must run outside of a container)"
    )]
    OtherPidNamespace,
    /// No SO_PEERPIDFD.
    #[error(
        "this kernel has no SO_PEERPIDFD (Linux 6.5 has): a process id that is used again could not be noticed; upgrade it, or set old_kernel = \"start-time\" and accept a weaker check"
    )]
    OldKernel,
    /// The kernel gave no credentials.
    #[error("the kernel did not say who is at the other end ({0})")]
    KernelRefused(String),
    /// `/proc` cannot be read where it must.
    #[error(
        "/proc/PID/{0} of the caller cannot be read: with systemd set ProtectProc=default, in a container use hostPID"
    )]
    ProcUnreadable(&'static str),
    /// The cgroup file is not what the kernel writes.
    #[error(
        "the caller's cgroup cannot be understood: its layout is not one that is documented in docs/attestation.md"
    )]
    CgroupMalformed,
    /// Not below kubepods.
    #[error("the caller runs in no pod: its cgroup is not below kubepods")]
    NotInPod,
    /// In a pod's cgroup, in no container's.
    #[error("the caller runs in a pod's cgroup and in none of its containers")]
    NotInContainer,
    /// Below the container's own cgroup, or a pod inside of something else.
    #[error(
        "the caller's cgroup is nested in a way that no kubelet makes: anybody who may create cgroups could have chosen its name"
    )]
    CgroupNested,
    /// Two answers.
    #[error("the caller's cgroup names more than one pod or container, depending on the hierarchy")]
    CgroupAmbiguous,
    /// The list of pods cannot be had.
    #[error("what runs on this node is not known ({0}), so the caller's image cannot be checked")]
    PodsUnavailable(String),
    /// The kubelet knows no such pod.
    #[error("the kubelet lists no such pod on this node (any more)")]
    PodUnknown,
    /// Nor such a container in it.
    #[error("the kubelet lists no such running container in the caller's pod")]
    ContainerUnknown,
    /// A debugging container.
    #[error(
        "the caller runs in an ephemeral container, which anybody with debug rights may add to a pod"
    )]
    EphemeralContainer,
    /// It is not the agent that asks.
    #[error(
        "the caller's container does not run an image of agent_images: is the socket mounted into an app's container?"
    )]
    ImageNotAgent,
    /// A token is needed.
    #[error("the caller sent no service account token: set [attest] token_file in agent.toml")]
    TokenMissing,
    /// Not a token.
    #[error("the service account token is none, or is too long")]
    TokenMalformed,
    /// Signed in a way that nobody asked for.
    #[error(
        "the service account token is not signed with RS256 or ES256, or not in the way that its key is for"
    )]
    TokenAlgorithm,
    /// Signed by nobody we know.
    #[error(
        "the service account token names a signing key that the issuer's key set does not have"
    )]
    TokenKeyUnknown,
    /// Not signed by whom it says.
    #[error("the service account token's signature is wrong")]
    TokenSignature,
    /// Issued by somebody else.
    #[error(
        "the service account token is of another issuer: compare [attest.kubernetes] issuer with the API server's --service-account-issuer"
    )]
    TokenIssuer,
    /// Issued for somebody else.
    #[error(
        "the service account token is for another audience: set `audience` of the projected volume to that of [attest.kubernetes]"
    )]
    TokenAudience,
    /// Too old.
    #[error("the service account token has expired, or the clocks differ")]
    TokenExpired,
    /// Too young.
    #[error("the service account token is not valid yet: compare the clocks")]
    TokenNotYet,
    /// Valid for too long.
    #[error(
        "the service account token is valid for longer than token_lifetime_max: set expirationSeconds of the projected volume"
    )]
    TokenLifetime,
    /// A token that belongs to no pod.
    #[error(
        "the service account token is not bound to a pod, or says of itself what does not fit together: use a projected volume, not a secret or `kubectl create token`"
    )]
    TokenNotOfPod,
    /// For a pod elsewhere.
    #[error("the service account token is of a pod on another node")]
    TokenNode,
    /// Used by a process other than the one that brought it first.
    #[error(
        "the service account token was presented by another process before: it is good for one at a time"
    )]
    TokenReplayed,
    /// The API server does not stand by it any more.
    #[error(
        "the API server does not accept the service account token (any more): its pod or account was deleted?"
    )]
    TokenReviewed,
    /// The API server's opinion cannot be had.
    #[error(
        "the API server cannot be asked about the token ({0}), and token_review = true needs its word"
    )]
    ReviewUnavailable(String),
    /// The keys cannot be had.
    #[error("the issuer's key set is not at hand ({0})")]
    KeysUnavailable(String),
    /// Kernel and token speak of different pods.
    #[error("the caller's token is of another pod than the one that the kernel says it runs in")]
    PodMismatch,
    /// No rule.
    #[error("no rule of the policy matches what was proven of the caller, and no match means no")]
    NoRule,
    /// The session's key has no witness.
    #[error(
        "the session comes without a witness connection of the caller: update tacit-agent, and mount the directory of hsmd.sock, not the socket alone"
    )]
    WitnessMissing,
    /// The witness is no such thing.
    #[error("the witness connection does not carry what an agent writes there")]
    WitnessMalformed,
    /// The caller vouches for another key.
    #[error(
        "the caller's own connection vouches for another session key than the one presented here"
    )]
    WitnessOtherKey,
    /// A bound was reached.
    #[error("too many callers are remembered at once: those whose process has ended make room")]
    TooMany,
}

impl Refused {
    /// The stable name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Refused::DeadPeer => "dead_peer",
            Refused::OtherPidNamespace => "other_pid_namespace",
            Refused::OldKernel => "old_kernel",
            Refused::KernelRefused(_) => "kernel_refused",
            Refused::ProcUnreadable(_) => "proc_unreadable",
            Refused::CgroupMalformed => "cgroup_malformed",
            Refused::NotInPod => "not_in_pod",
            Refused::NotInContainer => "not_in_container",
            Refused::CgroupNested => "cgroup_nested",
            Refused::CgroupAmbiguous => "cgroup_ambiguous",
            Refused::PodsUnavailable(_) => "pods_unavailable",
            Refused::PodUnknown => "pod_unknown",
            Refused::ContainerUnknown => "container_unknown",
            Refused::EphemeralContainer => "ephemeral_container",
            Refused::ImageNotAgent => "image_not_agent",
            Refused::TokenMissing => "token_missing",
            Refused::TokenMalformed => "token_malformed",
            Refused::TokenAlgorithm => "token_algorithm",
            Refused::TokenKeyUnknown => "token_key_unknown",
            Refused::TokenSignature => "token_signature",
            Refused::TokenIssuer => "token_issuer",
            Refused::TokenAudience => "token_audience",
            Refused::TokenExpired => "token_expired",
            Refused::TokenNotYet => "token_not_yet",
            Refused::TokenLifetime => "token_lifetime",
            Refused::TokenNotOfPod => "token_not_of_pod",
            Refused::TokenNode => "token_node",
            Refused::TokenReplayed => "token_replayed",
            Refused::TokenReviewed => "token_reviewed",
            Refused::ReviewUnavailable(_) => "review_unavailable",
            Refused::KeysUnavailable(_) => "keys_unavailable",
            Refused::PodMismatch => "pod_mismatch",
            Refused::NoRule => "no_rule",
            Refused::WitnessMissing => "witness_missing",
            Refused::WitnessMalformed => "witness_malformed",
            Refused::WitnessOtherKey => "witness_other_key",
            Refused::TooMany => "too_many_callers",
        }
    }
}
