//! What is looked at in the messages of one socket: the app's, against the terms of the key; the provider's, for usage and for the key itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use providers::{Api, Call, Family, Meter, ModelPlace, Permission};

use super::relay::Hooks;
use crate::keys::{Lease, Terms};
use crate::policy::{self, MCP, MODEL, NO_MODEL};
use crate::respond::Refusal;
use crate::sieve::{Settled, Sieve};

/// The hooks of a socket that a key was leased for.
pub struct Frames<'a> {
    api: Api,
    call: Call,
    aliases: &'a BTreeMap<String, String>,
    terms: Arc<Terms>,
    /// A message has named a model.
    named: bool,
    meter: Meter,
    sieve: Sieve,
}

impl<'a> Frames<'a> {
    /// For a socket at the endpoint `call`, opened with `lease`.
    pub fn new(
        api: Api,
        call: Call,
        aliases: &'a BTreeMap<String, String>,
        lease: &Arc<Lease>,
    ) -> Self {
        Self {
            api,
            aliases,
            terms: Arc::clone(&lease.terms),
            named: false,
            // Every message is a document of its own.
            meter: Meter::new(call.usage, "application/json", false),
            sieve: Sieve::new(call.usage, lease),
            call,
        }
    }

    /// The sieve for an answer that is no socket.
    pub(super) fn sieve(&mut self) -> &mut Sieve {
        &mut self.sieve
    }

    /// What an answer that was no socket used.
    pub(super) fn settle_answer(self) -> Settled {
        self.sieve.settle()
    }

    /// What the socket used. `closed`: by a close frame, so that the provider has had its last word.
    pub(super) fn settle(self, closed: bool) -> Settled {
        Settled {
            metered: Some(self.meter.finish(closed, &mut Vec::new())),
            ..self.sieve.settle()
        }
    }
}

impl Hooks for Frames<'_> {
    fn app_says(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let found = providers::inspect_frame(self.api, &self.call, message)?;
        let allows = |need: &Permission| self.terms.allows_endpoint(*need);
        if !found.needs.iter().all(allows) {
            return Err(MCP);
        }
        if !found.scopes.is_empty() {
            policy::pins(&self.terms.attributes).hold(&found.scopes)?;
        }
        let mut edits = Vec::new();
        for model in &found.models {
            let meant = self.aliases.get(model);
            if !self.terms.allows_every_model() && !self.terms.allows_model(meant.unwrap_or(model))
            {
                return Err(MODEL);
            }
            if let Some(meant) = meant {
                edits.extend(found.alias_edits(model, meant));
            }
        }
        self.named |= found.main;
        // Before a model is named, a message could be for whichever the provider takes by itself.
        let expected = self.call.model == ModelPlace::Frame && !self.named;
        if (found.unseen || expected) && !self.terms.allows_every_model() {
            return Err(NO_MODEL);
        }
        Ok((!edits.is_empty()).then(|| providers::apply(message, &edits)))
    }

    fn upstream_says(&mut self, message: &mut [u8]) -> Result<(), Refusal> {
        self.meter.document(message);
        self.sieve.mask(message);
        Ok(())
    }

    fn close_reason(&mut self, reason: &mut [u8]) {
        self.sieve.mask(reason);
    }

    fn event(&self, refusal: &Refusal) -> Option<String> {
        match self.api.family() {
            // `{"error": …}` becomes `{"type": "error", "error": …}`, an event of Realtime and of Responses.
            Family::Openai | Family::Azure => {
                let envelope = self.api.refusal(
                    refusal.code.status(),
                    refusal.code.name(),
                    &format!("tacit-agent: {}", refusal.message),
                    "",
                );
                let rest = envelope.strip_prefix('{')?;
                Some(format!("{{\"type\":\"error\",{rest}"))
            }
            // Errors are the reason of the close frame there.
            Family::Anthropic
            | Family::Bedrock
            | Family::Cohere
            | Family::Gemini
            | Family::Vertex => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::keys::fake::Fake;
    use crate::keys::terms::{Models, Permissions};
    use crate::keys::{KeySource as _, Wanted};

    static NO_ALIASES: BTreeMap<String, String> = BTreeMap::new();

    async fn lease(models: &[&str]) -> Arc<Lease> {
        let fake = Fake::new(Duration::from_secs(60), Duration::ZERO);
        fake.set_terms(Terms {
            permissions: Permissions::from_words(["realtime"]),
            models: Models::from_names(models.iter().map(|one| (*one).to_owned())),
            ..Terms::open()
        });
        let wanted = Wanted {
            key_id: "k".parse().unwrap(),
            provider: "openai".to_owned(),
            origin: "https://api.openai.com".parse().unwrap(),
        };
        fake.lease(&wanted).await.unwrap()
    }

    fn frames<'a>(
        provider: &str,
        path: &str,
        aliases: &'a BTreeMap<String, String>,
        lease: &Arc<Lease>,
    ) -> Frames<'a> {
        let api = Api::known(provider).unwrap();
        let call = api.call("GET", path, "", true);
        Frames::new(api, call, aliases, lease)
    }

    const RESPONSES: &str = "/v1/responses";
    const LIVE: &str =
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

    #[tokio::test]
    async fn a_model_is_judged_in_the_message_that_names_it() {
        let lease = lease(&["good", "models/good", "gemini-good"]).await;
        let cases = [
            (
                "openai",
                RESPONSES,
                r#"{"type":"response.create","model":"good"}"#,
                Ok(None),
            ),
            (
                "openai",
                RESPONSES,
                r#"{"type":"response.create","model":"bad"}"#,
                Err(MODEL),
            ),
            (
                "openai",
                RESPONSES,
                r#"{"type":"response.create","response":{"model":"bad"}}"#,
                Err(MODEL),
            ),
            // None named yet.
            (
                "openai",
                RESPONSES,
                r#"{"type":"response.create"}"#,
                Err(NO_MODEL),
            ),
            (
                "gemini",
                LIVE,
                r#"{"setup":{"model":"models/gemini-good"}}"#,
                Ok(None),
            ),
            (
                "gemini",
                LIVE,
                r#"{"setup":{"model":"models/gemini-bad"}}"#,
                Err(MODEL),
            ),
            ("gemini", LIVE, r#"{"setup":{}}"#, Err(NO_MODEL)),
            (
                "openai",
                RESPONSES,
                r#"{"type":"response.create","model":"good","tools":[{"type":"mcp","server_url":"https://x"}]}"#,
                Err(MCP),
            ),
        ];
        for (provider, path, message, expected) in cases {
            let mut frames = frames(provider, path, &NO_ALIASES, &lease);
            assert_eq!(frames.app_says(message.as_bytes()), expected, "{message}");
        }
        let mut frames = frames("openai", RESPONSES, &NO_ALIASES, &lease);
        for (message, passes) in [
            (r#"{"type":"response.create","model":"good"}"#, true),
            (r#"{"type":"response.cancel"}"#, true),
            (r#"{"type":"response.create","model":"bad"}"#, false),
            (
                r#"{"type":"response.create","model":"good","model":"bad"}"#,
                false,
            ),
            (r#"{"type":"response.create","mod\u0065l":"bad"}"#, false),
            ("good", false),
        ] {
            assert_eq!(
                frames.app_says(message.as_bytes()).is_ok(),
                passes,
                "{message}"
            );
        }
    }

    #[tokio::test]
    async fn an_alias_becomes_the_model_it_stands_for_and_that_one_is_judged() {
        let lease = lease(&["real"]).await;
        let alias = |meant: &str| BTreeMap::from([("fast".to_owned(), meant.to_owned())]);
        let message = br#"{"type":"response.create","model":"fast"}"#;
        let aliases = alias("real");
        let mut known = frames("openai", RESPONSES, &aliases, &lease);
        assert_eq!(
            known.app_says(message).unwrap().unwrap(),
            br#"{"type":"response.create","model":"real"}"#
        );
        let aliases = alias("other");
        let mut other = frames("openai", RESPONSES, &aliases, &lease);
        assert_eq!(other.app_says(message), Err(MODEL));
    }

    #[tokio::test]
    async fn usage_of_a_session_adds_up_and_a_refusal_is_an_event_where_there_is_one() {
        let lease = lease(&["*"]).await;
        let mut frames = frames("openai", RESPONSES, &NO_ALIASES, &lease);
        for _ in 0..2 {
            let mut message = br#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":3,"total_tokens":8}}}"#.to_vec();
            frames.upstream_says(&mut message).unwrap();
        }
        let event = frames.event(&MODEL).unwrap();
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["type"], "error");
        assert_eq!(event["error"]["code"], "model_not_allowed");
        let metered = frames.settle(true).metered.unwrap();
        assert_eq!(
            (metered.usage.input, metered.usage.output),
            (Some(10), Some(6))
        );
        assert!(!metered.estimated);
        let live = self::frames("gemini", LIVE, &NO_ALIASES, &lease);
        assert_eq!(live.event(&MODEL), None);
    }

    #[tokio::test]
    async fn a_model_of_a_transcription_does_not_stand_for_the_one_that_runs() {
        let lease = lease(&["whisper-1"]).await;
        let mut frames = frames("openai", "/v1/realtime", &NO_ALIASES, &lease);
        let first = br#"{"type":"session.update","session":{"audio":{"input":{"transcription":{"model":"whisper-1"}}}}}"#;
        let _ = frames.app_says(first);
        let second = frames.app_says(br#"{"type":"response.create"}"#);
        assert_eq!(second, Err(NO_MODEL));
    }
}
