//! Yes or no: what a request asks for, read once, and whether the terms of a key allow it. Pure.
//!
//! [`Ask::read`] needs no key and refuses what no key may do; [`Ask::grant`] compares the rest with the terms that came with a lease. Only a
//! [`Grant`] can be made into an upstream request, so a check that is forgotten does not compile.

use std::borrow::Cow;
use std::collections::BTreeMap;

use providers::{
    Api, BodyFault, Call, Edit, Endpoint, Inspected, ModelPlace, Permission, PinFault, Pins, Scope,
    Shape,
};

use crate::body::Whole;
use crate::http1::RequestHead;
use crate::keys::terms::{Attributes, Terms};
use crate::respond::{Code, Refusal};

/// What a request asks for, in terms of the API behind one route.
#[derive(Debug)]
pub struct Ask {
    api: Api,
    call: Call,
    permission: Permission,
    needs: Vec<Permission>,
    /// Whose resources the body names.
    scopes: Vec<Scope>,
    /// The models as the provider will know them, aliases resolved.
    models: Vec<String>,
    /// Path with an alias resolved in it.
    path: String,
    /// The query with an alias resolved in it.
    query: Option<String>,
    edits: Vec<Edit>,
    drops_usage: bool,
    /// A model will be used that cannot be seen here, or that the provider chooses.
    unchecked: bool,
    /// The body passes by unread, although it may name models and remote servers.
    unread: bool,
}

/// That the terms of a key allow one request; all that is sent of it besides the app's own fields. Given by [`Ask::grant`] alone.
#[derive(Debug)]
pub struct Grant {
    path: String,
    query: Option<String>,
    headers: Vec<(&'static str, String)>,
    drops: &'static [&'static str],
    shape: Shape,
    drops_usage: bool,
}

const DENIED: Refusal = Refusal::new(
    Code::PermissionDenied,
    "this method and path are not among the provider's endpoints that may be used through Tacit",
);

const WITHOUT_VERSION: Refusal = Refusal::new(
    Code::PermissionDenied,
    "the provider has no such endpoint, but has it below /v1: this API's base URL ends in /v1 (http://ADDRESS/ROUTE/v1)",
);

const EPHEMERAL: Refusal = Refusal::new(
    Code::PermissionDenied,
    "this endpoint hands out a provider credential of its own, with which requests would go round Tacit; it needs the permission ephemeral-keys, which no default gives",
);

pub(crate) const MCP: Refusal = Refusal::new(
    Code::PermissionDenied,
    "the request names remote MCP servers, to which the provider would send data on its own; the key lacks the permission mcp",
);

const ENDPOINT: Refusal = Refusal::new(
    Code::PermissionDenied,
    "the key lacks the permission for this kind of endpoint; your security team can add it (tacit key set --permission)",
);

pub(crate) const MODEL: Refusal = Refusal::new(
    Code::ModelNotAllowed,
    "the key may not be used for this model; your security team can add it (tacit key set --model)",
);

pub(crate) const NO_MODEL: Refusal = Refusal::new(
    Code::ModelNotAllowed,
    "the key is limited to certain models, and the request names none",
);

impl Ask {
    /// What method and path alone say: whether there is such an endpoint, and where its model stands.
    pub fn call(api: Api, head: &RequestHead, path: &str) -> Result<(Call, Permission), Refusal> {
        let call = api.call(head.method, path, &head.query, head.upgrade.is_some());
        match call.endpoint {
            Endpoint::Needs(permission) => Ok((call, permission)),
            Endpoint::Denied => Err(
                match api
                    .call(head.method, &format!("/v1{path}"), &head.query, false)
                    .endpoint
                {
                    Endpoint::Needs(_) => WITHOUT_VERSION,
                    Endpoint::Denied => DENIED,
                },
            ),
        }
    }

    /// What the body says, where it is known.
    pub fn inspect(
        api: Api,
        head: &RequestHead,
        call: &Call,
        body: Option<&Whole>,
    ) -> Result<Inspected, Refusal> {
        match body {
            Some(body) if !body.bytes().is_empty() => Ok(providers::inspect(
                api,
                call,
                content_type(head)?,
                body.bytes(),
            )?),
            // What an endpoint runs that is told nothing is the provider's choice.
            Some(_) | None if call.reads_body() && !head.has_body() && head.method == "POST" => {
                Ok(providers::inspect(api, call, "application/json", b"{}")?)
            }
            Some(_) | None => Ok(Inspected::default()),
        }
    }

    /// Puts together what a request asks for; `inspected` is what [`Self::inspect`] found in its body, if that is known.
    pub fn read(
        api: Api,
        aliases: &BTreeMap<String, String>,
        head: &RequestHead,
        (call, permission): (Call, Permission),
        body: Option<&Whole>,
        inspected: Inspected,
    ) -> Result<Self, Refusal> {
        let mut ask = Self {
            api,
            permission,
            needs: inspected.needs.clone(),
            scopes: inspected.scopes.clone(),
            models: Vec::new(),
            path: call.path.clone(),
            query: None,
            edits: Vec::new(),
            drops_usage: inspected.usage_edit.is_some(),
            unchecked: inspected.unseen || inspected.unnamed || call.is_unseen(),
            unread: body.is_none() && must_be_read(&call, permission, head),
            call,
        };
        ask.place_models(aliases, &inspected, &head.query)?;
        // Whoever holds such a credential chooses by themselves, unless it was made for a model.
        ask.unchecked |= permission == Permission::EphemeralKeys && ask.models.is_empty();
        ask.edits.extend(inspected.usage_edit);
        ask.edits.sort_by_key(|edit| edit.range.start);
        Ok(ask)
    }

    /// Resolves aliases where the model stands.
    fn place_models(
        &mut self,
        aliases: &BTreeMap<String, String>,
        inspected: &Inspected,
        sent: &str,
    ) -> Result<(), Refusal> {
        match &self.call.model {
            ModelPlace::Path(model) => {
                if let Some(meant) = aliases.get(model) {
                    self.path = self.call.with_model(meant).ok_or(Refusal::new(
                        Code::BadRequest,
                        "the model that this alias stands for cannot stand in the path",
                    ))?;
                    self.models.push(meant.clone());
                } else {
                    self.models.push(model.clone());
                }
            }
            ModelPlace::Query(model) => {
                let meant = aliases.get(model);
                if let Some(meant) = meant {
                    self.query =
                        Some(self.call.query_with_model(sent, meant).ok_or(Refusal::new(
                            Code::BadRequest,
                            "the model that this alias stands for cannot stand in the query",
                        ))?);
                }
                self.models.push(meant.unwrap_or(model).clone());
            }
            ModelPlace::Nowhere | ModelPlace::Body | ModelPlace::Frame | ModelPlace::Ambiguous => {}
        }
        for model in &inspected.models {
            match aliases.get(model) {
                Some(meant) => {
                    self.edits.extend(inspected.alias_edits(model, meant));
                    self.models.push(meant.clone());
                }
                None => self.models.push(model.clone()),
            }
        }
        Ok(())
    }

    /// Decides whether a key with these terms may be used for this, at `host`.
    pub fn grant(&self, terms: &Terms, host: &str) -> Result<Grant, Refusal> {
        if !terms.allows_endpoint(self.permission) {
            return Err(match self.permission {
                Permission::EphemeralKeys => EPHEMERAL,
                _ => ENDPOINT,
            });
        }
        if !self.needs.iter().all(|need| terms.allows_endpoint(*need)) {
            return Err(MCP);
        }
        // Streamed, because the terms allowed all of it; they may be others by now.
        if self.unread && !may_go_unread(terms) {
            return Err(NO_MODEL);
        }
        if !terms.allows_every_model() {
            if self.unchecked {
                return Err(NO_MODEL);
            }
            if !self.models.iter().all(|model| terms.allows_model(model)) {
                return Err(MODEL);
            }
        }
        let pins = pins(&terms.attributes);
        pins.hold(&self.scopes)?;
        let pinned = self.api.pin(&pins, &self.path, host)?;
        Ok(Grant {
            path: pinned.path.unwrap_or_else(|| self.path.clone()),
            query: self.query.clone(),
            headers: pinned.headers,
            drops: pinned.drops,
            shape: self.call.usage,
            drops_usage: self.drops_usage,
        })
    }

    /// The endpoint's permission, for metrics.
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// What the endpoint is, for frames of a WebSocket.
    pub fn into_call(self) -> Call {
        self.call
    }

    /// The body as it is sent.
    pub fn body(&self, body: &Whole) -> Whole {
        body.edited(&self.edits)
    }
}

/// Whether the body says something that counts. Of uploads a form does (a batch in one names models), and JSON (it announces parts).
pub fn must_be_read(call: &Call, permission: Permission, head: &RequestHead) -> bool {
    let starts = |with: &[u8]| {
        let content_type = head.fields.first("content-type").unwrap_or_default();
        let start = content_type.get(..with.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(with)
    };
    call.reads_body()
        && head.has_body()
        && (permission != Permission::Files || starts(b"multipart/") || starts(b"application/json"))
}

/// Whether a key with these terms has nothing to be looked for in an upload.
pub fn may_go_unread(terms: &Terms) -> bool {
    terms.allows_every_model() && terms.allows_endpoint(Permission::Mcp)
}

/// The content type of a body that is to be read here, and is not compressed. The gate has seen that there is but one.
pub fn content_type(head: &RequestHead) -> Result<&str, Refusal> {
    let content_type = head.fields.first("content-type").unwrap_or_default();
    let mut codings = head.fields.all("content-encoding");
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(
            Code::BadRequest,
            "the request body is compressed, and this endpoint's must be read before it is sent on; send it as it is",
        ));
    }
    Ok(std::str::from_utf8(content_type).unwrap_or_default())
}

impl Grant {
    /// Leave to make the provider's zero-token call, which is Tacit's own and stands in no table of endpoints.
    pub(crate) fn for_probe(
        api: Api,
        path: &str,
        terms: &Terms,
        host: &str,
    ) -> Result<Self, Refusal> {
        let pinned = api.pin(&pins(&terms.attributes), path, host)?;
        Ok(Self {
            path: pinned.path.unwrap_or_else(|| path.to_owned()),
            query: None,
            headers: pinned.headers,
            drops: pinned.drops,
            shape: Shape::Silent,
            drops_usage: false,
        })
    }

    /// The path as the provider will see it: canonical, decided upon, and exactly what is sent.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as the provider will see it.
    pub fn query<'a>(&self, sent: &'a str) -> Cow<'a, str> {
        match &self.query {
            None => Cow::Borrowed(sent),
            Some(query) => Cow::Owned(query.clone()),
        }
    }

    /// Fields that the key's attributes demand; the app's own of these names are dropped.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether a field of the app is dropped because the key is pinned to something else.
    pub fn drops(&self, name: &str) -> bool {
        let own = self.headers.iter().map(|(own, _)| *own);
        own.chain(self.drops.iter().copied())
            .any(|own| own.eq_ignore_ascii_case(name))
    }

    /// How the answer reports usage.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The provider is asked for a usage report that the app must not see.
    pub fn drops_usage(&self) -> bool {
        self.drops_usage
    }
}

/// The attributes of a key, for requests of its provider.
pub(crate) fn pins(attributes: &Attributes) -> Pins {
    let own = |value: Option<&str>| value.map(str::to_owned);
    Pins {
        organization: own(attributes.organization()),
        project: own(attributes.project()),
        location: own(attributes.location()),
        resource: own(attributes.resource()),
        region: own(attributes.region()),
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        Self::new(
            Code::BadRequest,
            match fault {
                BodyFault::Json => {
                    "the request body is not the JSON object that this endpoint takes"
                }
                BodyFault::ContentType => {
                    "the content type must be application/json, or multipart/form-data where the endpoint takes forms"
                }
                BodyFault::Duplicate => "a field that decides stands twice in the request body",
                BodyFault::Spelling => {
                    "a field of the request body is spelled so that it could be taken for another one"
                }
                BodyFault::Model => {
                    "the model in the request body is not a text that can be a name"
                }
                BodyFault::Nesting => {
                    "the request body has a list within a list where the API has none"
                }
                BodyFault::TooMuch => "the request body names more than can be checked",
                BodyFault::Form => "the form is not plain multipart/form-data (RFC 7578)",
                BodyFault::Line => "a line of the batch file is not a JSON object",
                BodyFault::Contradiction => "the request body names another model than the path",
            },
        )
    }
}

impl From<PinFault> for Refusal {
    fn from(fault: PinFault) -> Self {
        Self::new(
            Code::UpstreamNotAllowed,
            match fault {
                PinFault::Unknown => {
                    "the key is pinned to an attribute that this provider does not have; your security team can correct it (tacit key set)"
                }
                PinFault::Value => {
                    "the key is pinned to a value that no such attribute has; your security team can correct it (tacit key set)"
                }
                PinFault::Place => {
                    "the key is pinned to a project or location, and this endpoint names none that could be checked"
                }
                PinFault::Body => {
                    "the key is pinned to another project or location than that of a resource that the request names"
                }
                PinFault::Location => {
                    "the key is pinned to another location than the one that this route leads to"
                }
                PinFault::Resource => {
                    "the key is pinned to another resource than the one that this route leads to"
                }
                PinFault::Region => {
                    "the key is pinned to another region than the one that this route leads to"
                }
            },
        )
    }
}
