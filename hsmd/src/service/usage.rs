//! Reports of use, as agents send them. An agent is believed for keys that it may use, and its counts only so far.

use proto::v1::{KeyUsage, ReportUsageRequest};

use crate::audit::Category;
use crate::daemon::Daemon;
use crate::policy::{self, Caller};
use crate::refusal::{Code, Refusal};
use crate::refused::Asker;

/// Events that one row may count: a counter that an agent could make jump is no measure.
const EVENTS_MAX: u64 = 10_000;
/// Tokens of one kind that one row may count: more than any agent spends between two reports, and 2^53 (where a
/// double stops counting) is ten thousand such rows away.
const TOKENS_MAX: u64 = 1_000_000_000_000;
/// Rows that one report may have.
const ROWS_MAX: usize = 256;

/// Notes a report; entries for keys that the caller may not use are dropped.
pub(super) async fn note(
    daemon: &Daemon,
    caller: &Caller,
    report: &ReportUsageRequest,
) -> Result<u64, Refusal> {
    let session: [u8; 16] = report
        .session_id
        .as_slice()
        .try_into()
        .map_err(|_| Refusal::new(Code::BadRequest, "session_id has 16 bytes"))?;
    daemon.agents.seed(&session, caller)?;
    let view = daemon.ledger()?.view();
    let config = daemon.config();
    let mut accepted = 0;
    for usage in report.usage.iter().take(ROWS_MAX) {
        let allowed = view
            .keys
            .0
            .get(&usage.key_id)
            .is_some_and(|key| policy::may_use(caller, &key.body, &config.defaults));
        if allowed {
            accepted += 1;
            note_row(daemon, caller, usage).await;
        }
    }
    Ok(accepted)
}

async fn note_row(daemon: &Daemon, caller: &Caller, usage: &KeyUsage) {
    daemon.note_used(&usage.key_id, usage.last_used_ms);
    let key = [usage.key_id.as_str()];
    for (kind, tokens) in [
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cache_read", usage.cache_read_tokens),
        ("cache_write", usage.cache_write_tokens),
        ("reasoning", usage.reasoning_tokens),
    ] {
        if tokens > 0 {
            let counter = daemon.metrics.tokens.with_label_values(&[key[0], kind]);
            counter.inc_by(tokens.min(TOKENS_MAX));
        }
    }
    if usage.credentials_rejected > 0 {
        let counter = daemon.metrics.credentials_rejected.with_label_values(&key);
        counter.inc_by(usage.credentials_rejected.min(EVENTS_MAX));
        tracing::warn!(key = %usage.key_id, version = usage.version, times = usage.credentials_rejected, "the provider refuses this key: rotate it");
        let text = format!("version {}: the provider refused the key", usage.version);
        let refusal = Refusal::new(Code::CredentialsRejected, text);
        audit(daemon, caller, usage, "key.rejected", refusal).await;
    }
    if usage.echo_blocked > 0 {
        let counter = daemon.metrics.echo_blocked.with_label_values(&key);
        counter.inc_by(usage.echo_blocked.min(EVENTS_MAX));
        tracing::warn!(key = %usage.key_id, version = usage.version, times = usage.echo_blocked, "an answer repeated this key and was masked or cut: find out why, and rotate it");
        let text = format!("version {}: an answer repeated the key", usage.version);
        let refusal = Refusal::new(Code::EchoBlocked, text);
        audit(daemon, caller, usage, "key.echo", refusal).await;
    }
}

/// By the door of refusals, which bounds how many lines one agent can cause.
async fn audit(
    daemon: &Daemon,
    caller: &Caller,
    usage: &KeyUsage,
    action: &'static str,
    refusal: Refusal,
) {
    let asker = Asker {
        uid: caller.uid,
        actor: caller.actor(),
    };
    let key = Some(usage.key_id.as_str());
    let noted = daemon.refused(Category::Inference, action, &asker, key, refusal);
    if noted.await.code == Code::AuditUnavailable {
        tracing::error!(key = %usage.key_id, action, "an agent's report could not be audited");
    }
}
