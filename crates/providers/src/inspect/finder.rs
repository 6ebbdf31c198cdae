//! Walks the places of a layout and notes what stands there.

use serde_json::value::RawValue;

use super::json::{self, Object, Spelling};
use super::layout::{Kind, Layout, Place};
use super::{BodyFault, Edit, Inspected, Named, Quoting, Scope};
use crate::Permission;

/// Different models in one body. A batch that names more is no batch.
const MODELS_MAX: usize = 256;

/// Places that name a model: one per request of the largest batch that a provider takes (100,000).
const NAMED_MAX: usize = 100_000;

/// The longest name: an ARN has at most 2,048 characters.
const NAME_MAX: usize = 2048;

/// Collects what one body says.
pub(super) struct Finder<'a> {
    body: &'a [u8],
    /// Whether names are Google's resource names.
    resources: bool,
    pub found: Inspected,
}

impl<'a> Finder<'a> {
    pub fn new(body: &'a [u8], resources: bool) -> Self {
        Self {
            body,
            resources,
            found: Inspected::default(),
        }
    }

    fn spelling(&self) -> Spelling {
        if self.resources {
            Spelling::Snake
        } else {
            Spelling::Exact
        }
    }

    /// Reads one JSON object, which is the body or a part of it.
    pub fn document(&mut self, text: &'a [u8], layout: &Layout) -> Result<Object<'a>, BodyFault> {
        let root = Object::read(text)?;
        self.look(&root, &mut layout.places())?;
        Ok(root)
    }

    /// Notes what stands at `places` in an object. What is below it is read once, however many places lie there: how long a body takes
    /// is bounded by its length times its depth, and not by what we look for.
    fn look(
        &mut self,
        object: &Object<'a>,
        places: &mut dyn Iterator<Item = Place>,
    ) -> Result<(), BodyFault> {
        let spelling = self.spelling();
        let mut deeper: Vec<(&'static str, &'a RawValue, Place)> = Vec::new();
        for place in places {
            let (step, rest) = place.next();
            // Most places are in no body: nothing is made for those.
            let Some(value) = object.get(step, spelling)? else {
                continue;
            };
            match rest {
                None => self.arrive(value, place)?,
                Some(rest) => deeper.push((step, value, rest)),
            }
        }
        while let Some(&(step, value, _)) = deeper.first() {
            let below: Vec<Place> = deeper
                .extract_if(.., |(other, _, _)| *other == step)
                .map(|(_, _, place)| place)
                .collect();
            for element in json::objects(value)? {
                self.look(&element?, &mut below.iter().copied())?;
            }
        }
        Ok(())
    }

    /// Notes the value of a place, or each of a list of them.
    fn arrive(&mut self, value: &'a RawValue, place: Place) -> Result<(), BodyFault> {
        if place.is_list {
            json::elements(value)?
                .into_iter()
                .try_for_each(|element| self.note(element, place))
        } else {
            self.note(value, place)
        }
    }

    fn note(&mut self, value: &'a RawValue, place: Place) -> Result<(), BodyFault> {
        match place.kind {
            Kind::Model { beside } => {
                self.model(value)?;
                self.found.main |= !beside;
            }
            Kind::Preset => {
                self.preset(value)?;
                self.found.main = true;
            }
            Kind::Tools => self.tool(value)?,
            Kind::Servers => self.server(value)?,
            Kind::Stored => {
                if value.get().starts_with('{') {
                    self.needs(Permission::Mcp);
                }
            }
        }
        Ok(())
    }

    fn model(&mut self, value: &'a RawValue) -> Result<(), BodyFault> {
        let name = json::text(value).ok_or(BodyFault::Model)?;
        let start = value.get().as_ptr().addr() - self.body.as_ptr().addr();
        let range = start..start + value.get().len();
        self.name(&name, range, Quoting::Json)
    }

    /// Notes a model by its name.
    pub fn name(
        &mut self,
        name: &str,
        range: std::ops::Range<usize>,
        quoting: Quoting,
    ) -> Result<(), BodyFault> {
        if name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(BodyFault::Model);
        }
        let (lead, name) = if self.resources {
            let resource = Resource::read(name);
            self.scope(resource.scope)?;
            (resource.lead, resource.name)
        } else {
            ("", name)
        };
        if name.is_empty() {
            return Err(BodyFault::Model);
        }
        let lead = lead.to_owned();
        let model = self.number(name)?;
        if self.found.named.len() >= NAMED_MAX {
            return Err(BodyFault::TooMuch);
        }
        self.found.named.push(Named {
            model,
            range,
            lead,
            quoting,
        });
        Ok(())
    }

    /// Notes whose project a resource is of.
    fn scope(&mut self, scope: Option<(&str, &str)>) -> Result<(), BodyFault> {
        let scopes = &mut self.found.scopes;
        let Some((project, location)) = scope else {
            return Ok(());
        };
        let is_known = |known: &Scope| known.project == project && known.location == location;
        if scopes.iter().any(is_known) {
            return Ok(());
        }
        if scopes.len() >= MODELS_MAX {
            return Err(BodyFault::TooMuch);
        }
        scopes.push(Scope {
            project: project.to_owned(),
            location: location.to_owned(),
        });
        Ok(())
    }

    /// The place of a name in the list of models.
    fn number(&mut self, name: &str) -> Result<usize, BodyFault> {
        let models = &mut self.found.models;
        if let Some(n) = models.iter().position(|known| known == name) {
            return Ok(n);
        }
        if models.len() >= MODELS_MAX {
            return Err(BodyFault::TooMuch);
        }
        models.push(name.to_owned());
        Ok(models.len() - 1)
    }

    fn preset(&mut self, value: &'a RawValue) -> Result<(), BodyFault> {
        let name = json::text(value).ok_or(BodyFault::Model)?;
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(BodyFault::Model);
        }
        self.number(&format!("@preset/{name}")).map(|_| ())
    }

    /// A list of tools, or a single one.
    fn tool(&mut self, value: &'a RawValue) -> Result<(), BodyFault> {
        let spelling = self.spelling();
        for tool in json::elements(value)? {
            if tool.get().starts_with('[') {
                return Err(BodyFault::Nesting);
            }
            if !tool.get().starts_with('{') {
                continue;
            }
            let tool = Object::read(tool.get().as_bytes())?;
            let kind = tool.get("type", spelling)?.and_then(json::text);
            if kind.as_deref().is_some_and(is_remote) {
                self.needs(Permission::Mcp);
            }
            if let Some(servers) = tool.get("mcpServers", Spelling::Snake)? {
                self.server(servers)?;
            }
            // Tools that ask another model: image generation, advisors. A tool's own text of another kind is not ours to judge.
            if let Some(model) = tool.get("model", spelling)?
                && model.get().starts_with('"')
            {
                self.model(model)?;
            }
        }
        Ok(())
    }

    /// A list of servers: an empty one asks for nothing.
    fn server(&mut self, value: &'a RawValue) -> Result<(), BodyFault> {
        let is_empty = match value.get().as_bytes().first() {
            Some(b'[') => json::elements(value)?.is_empty(),
            Some(b'{') => Object::read(value.get().as_bytes())?.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.needs(Permission::Mcp);
        }
        Ok(())
    }

    fn needs(&mut self, permission: Permission) {
        if !self.found.needs.contains(&permission) {
            self.found.needs.push(permission);
        }
    }
}

/// Tool types that make the provider call a third party: `mcp`, `mcp_server`, `mcp_toolset`, `connector`.
fn is_remote(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("mcp") || kind == "connector"
}

/// A resource name of Google's.
struct Resource<'n> {
    /// The collection that goes without saying.
    lead: &'n str,
    /// What a key's terms know the model as.
    name: &'n str,
    /// Project and location, where it has them.
    scope: Option<(&'n str, &'n str)>,
}

impl<'n> Resource<'n> {
    /// `models/m` and `publishers/p/models/m`, of a location or not, are the model `m` of its publisher. A model that lies in a project is
    /// whatever somebody put there under that name, so its whole name counts. `tunedModels/m` and `endpoints/e` are names.
    fn read(full: &'n str) -> Self {
        let segments: Vec<&str> = full.splitn(9, '/').collect();
        let (scope, rest) = match segments.as_slice() {
            ["projects", project, "locations", location, rest @ ..] => {
                (Some((*project, *location)), rest)
            }
            rest => (None, rest),
        };
        let (name, is_whole) = match (rest, scope) {
            (["publishers", _, "models", name], _) | (["models", name], None) => (*name, false),
            (["endpoints", name], Some(_)) => (*name, true),
            _ => (full, false),
        };
        let kept = if is_whole { "endpoints/".len() } else { 0 };
        let (lead, name) = full.split_at(full.len() - name.len() - kept);
        Self { lead, name, scope }
    }
}

/// Makes an OpenAI-like stream report usage. `None`: it does already, or has `stream_options` that only the provider can judge.
pub(super) fn usage_edit(root: &Object<'_>, body: &[u8]) -> Result<Option<Edit>, BodyFault> {
    const ASK: &str = r#""include_usage":true"#;
    let place = |value: &RawValue| value.get().as_ptr().addr() - body.as_ptr().addr();
    let Some(options) = root.get("stream_options", Spelling::Exact)? else {
        return Ok(Some(absent(root, body, ASK, place)?));
    };
    if !options.get().starts_with('{') {
        return Ok(None);
    }
    let start = place(options);
    let inner = Object::read(options.get().as_bytes())?;
    let edit = |range, text: String| {
        Some(Edit {
            range,
            text: text.into_bytes(),
        })
    };
    Ok(match inner.raw("include_usage", Spelling::Exact)? {
        Some(value) if value.get() == "true" => None,
        Some(value) => edit(
            place(value)..place(value) + value.get().len(),
            "true".into(),
        ),
        None if inner.is_empty() => edit(start..start + options.get().len(), format!("{{{ASK}}}")),
        None => edit(start + 1..start + 1, format!("{ASK},")),
    })
}

/// The edit where no `stream_options` stand, or `null`. The root is not empty: it has `stream`.
fn absent(
    root: &Object<'_>,
    body: &[u8],
    ask: &str,
    place: impl Fn(&RawValue) -> usize,
) -> Result<Edit, BodyFault> {
    if let Some(null) = root.raw("stream_options", Spelling::Exact)? {
        let start = place(null);
        return Ok(Edit {
            range: start..start + null.get().len(),
            text: format!("{{{ask}}}").into_bytes(),
        });
    }
    let brace = body.iter().position(|byte| *byte == b'{');
    let start = brace.ok_or(BodyFault::Json)? + 1;
    Ok(Edit {
        range: start..start,
        text: format!(r#""stream_options":{{{ask}}},"#).into_bytes(),
    })
}
