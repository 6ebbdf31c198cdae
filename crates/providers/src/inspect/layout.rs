//! Where in the bodies of each API a model, a tool or a server is named.
//!
//! A place is written as keys joined by dots; arrays on the way are entered by themselves. `[]` at the end: a list of names.

/// The places of one kind of body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Names of models.
    pub models: &'static [&'static str],
    /// Names of settings stored with the provider that choose a model: reported as `@preset/NAME`.
    pub presets: &'static [&'static str],
    /// Lists of tools, each of which may be a remote server or name a model.
    pub tools: &'static [&'static str],
    /// Lists of remote servers that the provider itself calls: MCP, Cohere's connectors.
    pub servers: &'static [&'static str],
    /// Objects that name a prompt stored with the provider. It may have tools of its own, remote servers among them, that no one can see here.
    pub stored: &'static [&'static str],
    /// Whether models named here must be the one of the path.
    pub agrees: bool,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model: the one that runs, or one that works beside it.
    Model { beside: bool },
    /// A setting stored with the provider.
    Preset,
    /// A tool, or a list of them.
    Tools,
    /// A list of remote servers.
    Servers,
    /// A stored prompt, if it is an object.
    Stored,
}

/// A place, or what is left of the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Keys joined by dots, without the mark of a list.
    way: &'static str,
    pub kind: Kind,
    /// Whether a list of values stands there.
    pub is_list: bool,
}

impl Place {
    fn new(text: &'static str, kind: Kind) -> Self {
        let (way, is_list) = match text.strip_suffix("[]") {
            Some(way) => (way, true),
            None => (text, false),
        };
        Self { way, kind, is_list }
    }

    /// The next key, and the place below it, if this is not the last one.
    pub fn next(self) -> (&'static str, Option<Self>) {
        match self.way.split_once('.') {
            Some((step, way)) => (step, Some(Self { way, ..self })),
            None => (self.way, None),
        }
    }
}

impl Layout {
    /// All places.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let of = |places: &'static [&'static str], kind| {
            places.iter().map(move |place| Place::new(place, kind))
        };
        let models = self.models.iter().map(|place| {
            let beside = is_beside(place);
            Place::new(place, Kind::Model { beside })
        });
        models
            .chain(of(self.presets, Kind::Preset))
            .chain(of(self.tools, Kind::Tools))
            .chain(of(self.servers, Kind::Servers))
            .chain(of(self.stored, Kind::Stored))
    }
}

/// Places whose model works beside the one that runs.
fn is_beside(place: &str) -> bool {
    ["plugins.", "data_source", "compound_custom."]
        .iter()
        .any(|start| place.starts_with(start))
        || place.contains("transcription.")
}

const EMPTY: Layout = Layout {
    stored: &[],
    models: &[],
    presets: &[],
    tools: &[],
    servers: &[],
    agrees: false,
};

/// OpenAI and its copies, with what these have of their own: fallbacks and plugins of OpenRouter, fallbacks of Perplexity and its
/// envelope for asynchronous requests, Groq's compound systems, Together's batches, the deployment that Azure takes for search.
pub(crate) const OPENAI: Layout = Layout {
    models: &[
        "model",
        "model_id",
        "models[]",
        "plugins.model",
        "plugins.models[]",
        "plugins.analysis_models[]",
        "compound_custom.models.answering_model",
        "compound_custom.models.reasoning_model",
        "data_source.model",
        "data_sources.parameters.embedding_dependency.deployment_name",
        "request.model",
        "request.models[]",
    ],
    presets: &["preset", "request.preset"],
    tools: &["tools", "request.tools"],
    servers: &["mcp_servers"],
    stored: &["prompt", "request.prompt"],
    ..EMPTY
};

/// OpenAI's body where the path has the model, and what the body says of it is ignored.
pub(crate) const OPENAI_UNNAMED: Layout = Layout {
    models: &["data_sources.parameters.embedding_dependency.deployment_name"],
    tools: &["tools"],
    servers: &["mcp_servers"],
    ..EMPTY
};

/// Frames of OpenAI's WebSockets, and the bodies that describe a session.
pub(crate) const OPENAI_FRAME: Layout = Layout {
    models: &[
        "model",
        "models[]",
        "audio.input.transcription.model",
        "input_audio_transcription.model",
        "response.model",
        "session.model",
        "session.audio.input.transcription.model",
        "session.input_audio_transcription.model",
    ],
    presets: &["preset"],
    tools: &["tools", "response.tools", "session.tools"],
    servers: &["mcp_servers"],
    stored: &["prompt", "response.prompt", "session.prompt"],
    ..EMPTY
};

/// Anthropic's messages, with the fallbacks and plugins that OpenRouter adds.
pub(crate) const ANTHROPIC: Layout = Layout {
    models: &[
        "model",
        "models[]",
        "plugins.model",
        "plugins.models[]",
        "plugins.analysis_models[]",
    ],
    presets: &["preset"],
    tools: &["tools"],
    servers: &["mcp_servers"],
    ..EMPTY
};

/// A batch of messages.
pub(crate) const ANTHROPIC_BATCH: Layout = Layout {
    models: &["requests.params.model"],
    tools: &["requests.params.tools"],
    servers: &["requests.params.mcp_servers"],
    ..EMPTY
};

/// Gemini and Vertex: requests, and requests within requests.
pub(crate) const GOOGLE: Layout = Layout {
    models: &[
        "model",
        "agent",
        "baseModel",
        "tunedModelSource.tunedModel",
        "generateContentRequest.model",
        "requests.model",
        "batch.model",
        "batch.inputConfig.requests.requests.request.model",
    ],
    tools: &[
        "tools",
        "generateContentRequest.tools",
        "batch.inputConfig.requests.requests.request.tools",
    ],
    agrees: true,
    ..EMPTY
};

/// Frames of the Live API: the first one sets it up.
pub(crate) const GOOGLE_FRAME: Layout = Layout {
    models: &["setup.model"],
    tools: &["setup.tools"],
    ..EMPTY
};

/// Partner models on Vertex, each in its own format.
pub(crate) const PARTNER: Layout = Layout {
    models: &["model"],
    tools: &["tools"],
    servers: &["mcp_servers"],
    ..EMPTY
};

/// Bedrock: the path has the model.
pub(crate) const NATIVE: Layout = Layout {
    tools: &[
        "tools",
        "toolConfig.tools",
        "additionalModelRequestFields.tools",
    ],
    servers: &["mcp_servers", "additionalModelRequestFields.mcp_servers"],
    ..EMPTY
};

/// Bedrock's asynchronous invocation.
pub(crate) const ASYNC_INVOKE: Layout = Layout {
    models: &["modelId"],
    ..EMPTY
};

/// Cohere. The connectors of its first API are servers that it calls with what the app says.
pub(crate) const COHERE: Layout = Layout {
    models: &["model"],
    tools: &["tools"],
    servers: &["connectors"],
    ..EMPTY
};
