//! `[providers.NAME]`: one route, its API, its key and its origin.

use std::path::{Path, PathBuf};

use custody::{KeyId, Origin};
use providers::Family;
use secret::Secret;

use super::reader::{self, Fields};

/// One `[providers.NAME]`.
#[derive(Debug)]
pub struct Provider {
    /// The path prefix, and the provider that must stand in the key's header.
    pub name: String,
    /// The API that it speaks.
    pub family: Family,
    /// Where its key is.
    pub key: KeyRef,
    /// Where its requests go.
    pub origin: Origin,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// `secret_key_ref`.
#[derive(Debug)]
pub enum KeyRef {
    /// A key in the daemon's store.
    Store(KeyId),
    /// A value that was read from a file or a variable, for development.
    Fixed(Secret<[u8]>),
}

impl Provider {
    pub(super) fn read(
        name: String,
        fields: &mut Fields<'_>,
        env: reader::Env<'_>,
    ) -> Option<Self> {
        if name.parse::<KeyId>().is_err() {
            fields.refuse("name", "must be 1 to 128 of ASCII letters, digits, _ - .");
        }
        let known = providers::find(&name);
        let family = match (fields.text("family"), known) {
            (None, Some(provider)) => Some(provider.family),
            (None, None) => {
                fields.refuse(
                    "family",
                    "is required for a provider of your own: anthropic, azure, bedrock, cohere, gemini, openai or vertex",
                );
                None
            }
            (Some(_), Some(_)) => {
                fields.refuse(
                    "family",
                    "is fixed for a provider that Tacit knows; leave it out",
                );
                None
            }
            (Some(family), None) => Family::find(&family).or_else(|| {
                fields.refuse(
                    "family",
                    "must be anthropic, azure, bedrock, cohere, gemini, openai or vertex",
                );
                None
            }),
        };
        match fields.text("mode").as_deref() {
            None | Some("live") => {}
            Some("mock") => fields.refuse(
                "mode",
                "mock is not in this version; leave it out, or say live",
            ),
            Some(_) => fields.refuse("mode", "must be live"),
        }
        if fields.any("target").is_some() {
            fields.refuse(
                "target",
                "several keys per provider are not in this version; use one secret_key_ref",
            );
        }
        let origin = Self::origin(fields, known.and_then(|provider| provider.default_origin));
        let ca_file = fields.text("ca_file").map(PathBuf::from);
        let key = Self::key(fields, env);
        Some(Self {
            name,
            family: family?,
            key: key?,
            origin: origin?,
            ca_file,
        })
    }

    fn origin(fields: &mut Fields<'_>, default: Option<&str>) -> Option<Origin> {
        let Some(text) = fields
            .text("base_url")
            .or_else(|| default.map(str::to_owned))
        else {
            fields.refuse(
                "base_url",
                "is required for azure, bedrock and a provider of your own",
            );
            return None;
        };
        // The rule's text never repeats the value.
        text.parse::<Origin>()
            .map_err(|rule| fields.refuse("base_url", &rule.to_string()))
            .ok()
    }

    fn key(fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<KeyRef> {
        const RULE: &str = "is required: { store = \"KEY-ID\" }, or for development { file = \"PATH\" } or { env = \"NAME\" }";
        let Some(table) = fields.table("secret_key_ref") else {
            fields.refuse("secret_key_ref", RULE);
            return None;
        };
        let mut inner = fields.inner("secret_key_ref", table);
        let refs = (inner.text("store"), inner.text("file"), inner.text("env"));
        let key = match refs {
            (Some(id), None, None) => id
                .parse()
                .map(KeyRef::Store)
                .map_err(|rule: custody::NameError| inner.refuse("store", &rule.to_string()))
                .ok(),
            (None, Some(path), None) => {
                let read = secret::read_file(Path::new(&path));
                read.map(KeyRef::Fixed)
                    .map_err(|error| inner.refuse("file", reader::secret_rule(&error)))
                    .ok()
            }
            (None, None, Some(name)) => inner.secret_from_env(&name, env).map(KeyRef::Fixed),
            _ => {
                inner.refuse("", "must have exactly one of store, file, env");
                None
            }
        };
        inner.finish();
        key
    }
}
