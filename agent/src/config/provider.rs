//! `[providers.NAME]`: one route, its API, its keys and its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use custody::{KeyId, Origin};
use providers::{Api, Family};
use secret::Secret;

use super::reader::{self, Fields};
use crate::targets::{TARGETS_MAX, WEIGHT_MAX};
use crate::upstream::address::Network;

/// Model aliases of one route. A list longer than this is a catalogue.
const ALIASES_MAX: usize = 256;

/// Routes that one may fall back to. Each costs the app another wait.
const FALLBACK_MAX: usize = 4;

/// One `[providers.NAME]`.
#[derive(Debug)]
pub struct Provider {
    /// The path prefix, and the provider that must stand in the key's header.
    pub name: String,
    /// The API that it speaks.
    pub api: Api,
    /// Where answers come from.
    pub source: Source,
    /// Names by which apps may call models.
    pub aliases: BTreeMap<String, String>,
    /// Routes of the same API family that take over when this one fails, in order.
    pub fallback: Vec<String>,
}

/// Where the answers of a route come from.
#[derive(Debug)]
pub enum Source {
    /// The provider.
    Live(Live),
    /// This process, in the provider's own format.
    Mock,
}

/// A provider that is really called.
#[derive(Debug)]
pub struct Live {
    /// Where requests go.
    pub origin: Origin,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Networks that the origin's name may lead to although they are not public.
    pub networks: Vec<Network>,
    /// The keys, at least one.
    pub targets: Vec<Target>,
}

/// One key of a route.
#[derive(Debug)]
pub struct Target {
    /// Its name: `id`, or the provider's name where there is one `secret_key_ref`.
    pub id: String,
    /// Where its key is.
    pub key: KeyRef,
    /// Its share of requests.
    pub weight: u32,
}

/// `secret_key_ref`.
#[derive(Debug)]
pub enum KeyRef {
    /// A key in the daemon's store.
    Store(KeyId),
    /// A value that was read from a variable, or from this file, for development.
    Fixed(Secret<[u8]>, Option<PathBuf>),
}

impl Provider {
    /// Every key of this route.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRef> {
        let targets = match &self.source {
            Source::Live(live) => live.targets.as_slice(),
            Source::Mock => &[],
        };
        targets.iter().map(|target| &target.key)
    }

    pub(super) fn read(
        name: String,
        fields: &mut Fields<'_>,
        env: reader::Env<'_>,
    ) -> Option<Self> {
        if name.parse::<KeyId>().is_err() {
            fields.refuse("name", "must be 1 to 128 of ASCII letters, digits, _ - .");
        }
        let api = Self::api(&name, fields);
        let aliases = Self::aliases(fields);
        let fallback = fields.texts("fallback").unwrap_or_default();
        if fallback.len() > FALLBACK_MAX {
            fields.refuse("fallback", "must name at most 4 routes");
        }
        let source = match fields.text("mode").as_deref() {
            Some("mock") => {
                // What a live route needs may stay in the file while it answers by itself.
                for field in [
                    "base_url",
                    "ca_file",
                    "allow_addresses",
                    "secret_key_ref",
                    "target",
                ] {
                    let _ = fields.any(field);
                }
                Some(Source::Mock)
            }
            mode => {
                if !matches!(mode, None | Some("live")) {
                    fields.refuse("mode", "must be live or mock");
                }
                Live::read(&name, fields, env).map(Source::Live)
            }
        };
        Some(Self {
            name,
            api: api?,
            source: source?,
            aliases,
            fallback,
        })
    }

    fn api(name: &str, fields: &mut Fields<'_>) -> Option<Api> {
        const FAMILIES: &str = "openai, anthropic, gemini, vertex, azure, bedrock or cohere";
        match (fields.text("family"), Api::known(name)) {
            (None, Some(api)) => Some(api),
            (None, None) => {
                let known: Vec<&str> = providers::all().iter().map(|one| one.name).collect();
                let known = known.join(", ");
                fields.refuse(
                    "family",
                    &format!(
                        "is required for a provider of your own: {FAMILIES}; Tacit knows {known}"
                    ),
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
            (Some(family), None) => {
                let found = Family::find(&family).map(Api::own);
                if found.is_none() {
                    fields.refuse("family", &format!("must be {FAMILIES}"));
                }
                found
            }
        }
    }

    fn aliases(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
        const RULE: &str = "must map names to model names, each a text of 1 to 256 visible characters, at most 256 of them";
        let name = |text: &str| {
            (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let mut aliases = BTreeMap::new();
        for (alias, model) in fields.table("aliases").unwrap_or_default() {
            match model.as_str() {
                Some(model) if name(&alias) && name(model) => {
                    aliases.insert(alias, model.to_owned());
                }
                _ => {
                    fields.refuse("aliases", RULE);
                    return BTreeMap::new();
                }
            }
        }
        if aliases.len() > ALIASES_MAX {
            fields.refuse("aliases", RULE);
        }
        aliases
    }

    /// What can only be seen with all routes at hand.
    pub(super) fn check_fallbacks(all: &[Self], fields: &mut Fields<'_>) {
        for provider in all {
            let mut seen = BTreeSet::from([provider.name.as_str()]);
            for name in &provider.fallback {
                let field = format!("providers.{}.fallback", provider.name);
                let Some(other) = all.iter().find(|other| other.name == *name) else {
                    fields.refuse(&field, "names a route that is not in this file");
                    continue;
                };
                if !seen.insert(name) {
                    fields.refuse(&field, "names this route itself, or another one twice");
                }
                if other.api.family() != provider.api.family() {
                    fields.refuse(&field, "names a route of another API family");
                }
                if matches!(other.source, Source::Mock) != matches!(provider.source, Source::Mock) {
                    fields.refuse(&field, "mixes live and mock routes");
                }
            }
        }
    }
}

impl Live {
    fn read(name: &str, fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<Self> {
        let default = providers::find(name).and_then(|provider| provider.default_origin);
        let origin = Self::origin(fields, default);
        let ca_file = fields.text("ca_file").map(PathBuf::from);
        let networks = Self::networks(fields);
        let targets = match fields.any("target") {
            None => Self::key(fields, env).map(|key| {
                vec![Target {
                    id: name.to_owned(),
                    key,
                    weight: 1,
                }]
            }),
            Some(tables) => Self::targets(tables, fields, env),
        };
        Some(Self {
            origin: origin?,
            ca_file,
            networks,
            targets: targets?,
        })
    }

    fn origin(fields: &mut Fields<'_>, default: Option<&str>) -> Option<Origin> {
        let Some(text) = fields
            .text("base_url")
            .or_else(|| default.map(str::to_owned))
        else {
            fields.refuse(
                "base_url",
                "is required here: https://HOST, without a path (Azure: your resource's host; Bedrock: https://bedrock-runtime.REGION.amazonaws.com)",
            );
            return None;
        };
        // The rule's text never repeats the value.
        text.parse::<Origin>()
            .map_err(|rule| fields.refuse("base_url", &rule.to_string()))
            .ok()
    }

    fn networks(fields: &mut Fields<'_>) -> Vec<Network> {
        let texts = fields.texts("allow_addresses").unwrap_or_default();
        let read: Result<Vec<Network>, _> = texts.iter().map(|text| text.parse()).collect();
        read.map_err(|rule: crate::upstream::address::BadNetwork| {
            fields.refuse("allow_addresses", &rule.to_string());
        })
        .unwrap_or_default()
    }

    fn targets(
        tables: toml::Value,
        fields: &mut Fields<'_>,
        env: reader::Env<'_>,
    ) -> Option<Vec<Target>> {
        if fields.any("secret_key_ref").is_some() {
            fields.refuse("target", "and secret_key_ref exclude each other");
        }
        let tables: Option<Vec<toml::Table>> = match tables {
            toml::Value::Array(list) => list.into_iter().map(|one| one.try_into().ok()).collect(),
            _ => None,
        };
        let Some(tables) = tables.filter(|list| (1..=TARGETS_MAX).contains(&list.len())) else {
            fields.refuse("target", "must be 1 to 16 tables [[providers.NAME.target]]");
            return None;
        };
        let count = tables.len();
        let mut targets: Vec<Target> = Vec::with_capacity(count);
        for (n, table) in tables.into_iter().enumerate() {
            let mut inner = fields.inner(&format!("target[{n}]"), table);
            let target = Target::read(&mut inner, env);
            if let Some(target) = &target
                && targets.iter().any(|other| other.id == target.id)
            {
                inner.refuse("id", "stands at two targets");
            }
            targets.extend(target);
            inner.finish();
        }
        if targets.iter().all(|target| target.weight == 0) {
            fields.refuse("target", "must have at least one weight above 0");
        }
        (targets.len() == count).then_some(targets)
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
                read.map(|key| KeyRef::Fixed(key, Some(path.into())))
                    .map_err(|error| inner.refuse("file", reader::secret_rule(&error)))
                    .ok()
            }
            (None, None, Some(name)) => {
                let key = inner.secret_from_env(&name, env);
                key.map(|key| KeyRef::Fixed(key, None))
            }
            _ => {
                inner.refuse("", "must have exactly one of store, file, env");
                None
            }
        };
        inner.finish();
        key
    }
}

impl Target {
    fn read(fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<Self> {
        let id = fields.text("id").filter(|id| id.parse::<KeyId>().is_ok());
        if id.is_none() {
            fields.refuse(
                "id",
                "is required: 1 to 128 of ASCII letters, digits, _ - .",
            );
        }
        let weight = match fields.any("weight") {
            None => Some(1),
            Some(value) => value
                .as_integer()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number <= WEIGHT_MAX),
        };
        if weight.is_none() {
            fields.refuse("weight", "must be a number from 0 to 1000");
        }
        let key = Live::key(fields, env);
        Some(Self {
            id: id?,
            key: key?,
            weight: weight?,
        })
    }
}
