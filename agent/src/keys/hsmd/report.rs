//! Reports of how keys were used, every few seconds, and at once when a provider refused or repeated one.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{KeyUsage, ReportUsageRequest};
use tonic::Request;

use super::{Hsmd, HsmdError};
use crate::usage::{Counts, Usage, Used};

/// Fresh enough for `tacit usage`, rare enough to be free.
const INTERVAL: Duration = Duration::from_secs(10);

/// Rows in one message. A row has at most 350 bytes: two names of up to 64 and sixteen numbers; the message, 64 KiB.
const ROWS_MAX: usize = 128;

/// Reports for ever; dropped with the agent.
pub async fn report(hsmd: Arc<Hsmd>, usage: Arc<Usage>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = usage.urgent.notified() => {}
        }
        hsmd.report_now(&usage).await;
    }
}

fn row((key_id, version, provider): &Used, counts: &Counts) -> KeyUsage {
    KeyUsage {
        key_id: key_id.clone(),
        version: *version,
        provider: provider.clone(),
        ok: counts.ok,
        refused: counts.refused,
        failed: counts.failed,
        credentials_rejected: counts.credentials_rejected,
        last_used_ms: counts.last_used_ms,
        input_tokens: counts.tokens.input,
        output_tokens: counts.tokens.output,
        cache_read_tokens: counts.tokens.cache_read,
        cache_write_tokens: counts.tokens.cache_write,
        reasoning_tokens: counts.tokens.reasoning,
        cost_picousd: counts.tokens.cost_picousd,
        estimated: counts.estimated,
        echo_blocked: counts.echo_blocked,
    }
}

impl Hsmd {
    /// Reports what waits; what cannot be reported waits on.
    pub async fn report_now(&self, usage: &Usage) {
        let counts = usage.take();
        if counts.is_empty() {
            return;
        }
        let rows: Vec<KeyUsage> = counts
            .iter()
            .map(|(used, counts)| row(used, counts))
            .collect();
        if let Err(error) = self.send_usage(rows).await {
            tracing::debug!(
                error = super::chain(&error),
                "usage not reported; kept for the next time"
            );
            usage.put_back(counts);
        }
    }

    async fn send_usage(&self, rows: Vec<KeyUsage>) -> Result<(), HsmdError> {
        // To one daemon, and be it one of several: what each counts would otherwise be counted more than once in their sum.
        let mut order: Vec<usize> = (0..self.daemons.len()).collect();
        order.sort_by_key(|source| self.daemons[*source].late());
        let mut last = HsmdError::Contract("no socket is configured");
        for source in order {
            match self.send_usage_to(source, &rows).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn send_usage_to(&self, source: usize, rows: &[KeyUsage]) -> Result<(), HsmdError> {
        let connected = self.connected(source).await?;
        let messages: Vec<ReportUsageRequest> = rows
            .chunks(ROWS_MAX)
            .map(|rows| ReportUsageRequest {
                session_id: connected.session_id.to_vec(),
                usage: rows.to_vec(),
            })
            .collect();
        let mut request = Request::new(tokio_stream::iter(messages));
        request.set_timeout(super::CALL_TIMEOUT);
        connected.client.clone().report_usage(request).await?;
        Ok(())
    }
}
