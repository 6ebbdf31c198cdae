//! Attributes that are pinned to a key: they are put into the request or held against it, and the app's own values do not count.
//!
//! What cannot be enforced on a request is refused: a pin never silently does nothing.

use crate::Api;
use crate::inspect::Scope;
use crate::provider::Vendor;

/// The attributes that a key's definition pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// OpenAI: `openai-organization`.
    pub organization: Option<String>,
    /// OpenAI: `openai-project`. Vertex: the project in the path.
    pub project: Option<String>,
    /// Vertex: the location in the path.
    pub location: Option<String>,
    /// Azure: the first label of the host.
    pub resource: Option<String>,
    /// Bedrock: the region in the host.
    pub region: Option<String>,
}

/// What the pins make of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The path to send, when it is another one.
    pub path: Option<String>,
    /// Headers to add.
    pub headers: Vec<(&'static str, String)>,
    /// Headers of the app that are dropped, in lower case.
    pub drops: &'static [&'static str],
}

/// Which pin cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinFault {
    /// The provider has no such attribute.
    #[error("the key is pinned to an attribute that this provider does not have")]
    Unknown,
    /// The value cannot stand in a header, a path or a host.
    #[error("the key is pinned to a value that no such attribute has")]
    Value,
    /// The path has no place for the pinned project or location.
    #[error(
        "the key is pinned to a project or location, and this endpoint names none that could be checked"
    )]
    Place,
    /// The host is that of another location.
    #[error("the key is pinned to another location than the one that this route leads to")]
    Location,
    /// The host is not that of the pinned resource.
    #[error("the key is pinned to another resource than the one that this route leads to")]
    Resource,
    /// The body names a resource of another project or location.
    #[error(
        "the key is pinned to another project or location than that of a resource that the body names"
    )]
    Body,
    /// The host is not in the pinned region.
    #[error("the key is pinned to another region than the one that this route leads to")]
    Region,
}

/// Both choose who pays; with one of them pinned neither is the app's to say.
const OPENAI_DROPS: &[&str] = &["openai-organization", "openai-project"];

impl Pins {
    /// Holds what the body names against what is pinned.
    ///
    /// # Errors
    /// [`PinFault::Body`]: a resource of another project or location.
    pub fn hold(&self, scopes: &[Scope]) -> Result<(), PinFault> {
        let is = |pin: &Option<String>, found: &str| pin.as_deref().is_none_or(|pin| pin == found);
        let holds = |scope: &Scope| {
            is(&self.project, &scope.project) && is(&self.location, &scope.location)
        };
        scopes.iter().all(holds).then_some(()).ok_or(PinFault::Body)
    }
}

impl Api {
    /// Enforces what is pinned to the key on a request to `path` (as sent upstream) at `host`.
    pub fn pin(self, pins: &Pins, path: &str, host: &str) -> Result<Pinned, PinFault> {
        let Pins {
            organization,
            project,
            location,
            resource,
            region,
        } = pins;
        let known: [&Option<String>; 2] = match self.vendor() {
            Vendor::Openai => [organization, project],
            Vendor::Vertex => [project, location],
            Vendor::Azure => [resource, &None],
            Vendor::Bedrock => [region, &None],
            _ => [&None, &None],
        };
        let all = [organization, project, location, resource, region];
        let count = |pins: &[&Option<String>]| pins.iter().filter(|pin| pin.is_some()).count();
        if count(&all) > count(&known) {
            return Err(PinFault::Unknown);
        }
        if !known.into_iter().flatten().all(|value| is_value(value)) {
            return Err(PinFault::Value);
        }
        if count(&all) == 0 {
            return Ok(Pinned::default());
        }
        match self.vendor() {
            Vendor::Openai => Ok(openai(organization.as_deref(), project.as_deref())),
            Vendor::Vertex => vertex(project.as_deref(), location.as_deref(), path, host),
            Vendor::Azure => holds(resource, host.split('.').next(), PinFault::Resource),
            Vendor::Bedrock => holds(region, bedrock_region(host), PinFault::Region),
            _ => Err(PinFault::Unknown),
        }
    }
}

/// What ids, projects, resources and regions are made of; `:` is in the projects of a domain.
fn is_value(value: &str) -> bool {
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    !value.is_empty() && value.bytes().all(is_legal) && !matches!(value, "." | "..")
}

fn holds(pin: &Option<String>, found: Option<&str>, fault: PinFault) -> Result<Pinned, PinFault> {
    let is_held = pin
        .as_deref()
        .zip(found)
        .is_some_and(|(pin, found)| pin.eq_ignore_ascii_case(found));
    is_held.then(Pinned::default).ok_or(fault)
}

fn openai(organization: Option<&str>, project: Option<&str>) -> Pinned {
    let named = [
        ("openai-organization", organization),
        ("openai-project", project),
    ];
    let headers = named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.to_owned())));
    Pinned {
        path: None,
        headers: headers.collect(),
        drops: OPENAI_DROPS,
    }
}

/// `bedrock-runtime.{region}.…`, whatever stands before and behind.
fn bedrock_region(host: &str) -> Option<&str> {
    let mut labels = host
        .split('.')
        .skip_while(|label| !label.starts_with("bedrock-"));
    labels.next()?;
    labels.next()
}

/// Puts project and location into `/{version}/projects/{p}/locations/{l}/…`.
fn vertex(
    project: Option<&str>,
    location: Option<&str>,
    path: &str,
    host: &str,
) -> Result<Pinned, PinFault> {
    if let Some((location, other)) = location.zip(host_location(host))
        && location != other
    {
        return Err(PinFault::Location);
    }
    let mut segments: Vec<&str> = path.split('/').collect();
    if let ["", _, "publishers", ..] = segments.as_slice()
        && !path.contains(':')
    {
        // The public list of models is nobody's.
        return Ok(Pinned::default());
    }
    let ["", _, "projects", in_project, "locations", in_location, ..] = segments.as_mut_slice()
    else {
        return Err(PinFault::Place);
    };
    *in_project = project.unwrap_or(in_project);
    *in_location = location.unwrap_or(in_location);
    let pinned = segments.join("/");
    Ok(Pinned {
        path: (pinned != path).then_some(pinned),
        ..Pinned::default()
    })
}

/// The location that a host of Vertex names: `{l}-aiplatform.googleapis.com`, `aiplatform.{l}.rep.googleapis.com`.
fn host_location(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".googleapis.com")?;
    let regional = name.strip_suffix("-aiplatform");
    regional.or_else(|| name.strip_prefix("aiplatform.")?.strip_suffix(".rep"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pins(pairs: &[(&str, &str)]) -> Pins {
        let mut pins = Pins::default();
        for (name, value) in pairs {
            let value = Some((*value).to_owned());
            match *name {
                "organization" => pins.organization = value,
                "project" => pins.project = value,
                "location" => pins.location = value,
                "resource" => pins.resource = value,
                _ => pins.region = value,
            }
        }
        pins
    }

    fn pin(
        provider: &str,
        pairs: &[(&str, &str)],
        path: &str,
        host: &str,
    ) -> Result<Pinned, PinFault> {
        Api::known(provider).unwrap().pin(&pins(pairs), path, host)
    }

    #[test]
    fn openai_gets_the_pinned_headers_and_loses_the_apps() {
        let path = "/v1/chat/completions";
        let host = "api.openai.com";
        let both = pin(
            "openai",
            &[("organization", "org-1"), ("project", "proj_1")],
            path,
            host,
        )
        .unwrap();
        assert_eq!(
            both.headers,
            [
                ("openai-organization", "org-1".to_owned()),
                ("openai-project", "proj_1".to_owned())
            ]
        );
        assert_eq!(both.drops, OPENAI_DROPS);
        let one = pin("openai", &[("project", "proj_1")], path, host).unwrap();
        assert_eq!((one.headers.len(), one.drops.len()), (1, 2));
        assert_eq!(pin("openai", &[], path, host), Ok(Pinned::default()));
        for bad in ["", "a b", "a\r\nx: y", "m\u{fc}", ".."] {
            assert_eq!(
                pin("openai", &[("project", bad)], path, host),
                Err(PinFault::Value)
            );
        }
    }

    #[test]
    fn vertex_paths_name_the_pinned_project_and_location() {
        let path = "/v1/projects/app/locations/us-east1/publishers/google/models/g:generateContent";
        let rewritten = "/v1/projects/acme/locations/eu/publishers/google/models/g:generateContent";
        let all = [("project", "acme"), ("location", "eu")];
        let sent = |path, host| pin("vertex", &all, path, host).map(|pinned| pinned.path);
        for host in [
            "aiplatform.googleapis.com",
            "eu-aiplatform.googleapis.com",
            "aiplatform.eu.rep.googleapis.com",
            "gateway.example",
        ] {
            assert_eq!(sent(path, host), Ok(Some(rewritten.to_owned())), "{host}");
        }
        assert_eq!(sent(rewritten, "gateway.example"), Ok(None));
        for host in [
            "us-east1-aiplatform.googleapis.com",
            "aiplatform.us.rep.googleapis.com",
        ] {
            assert_eq!(sent(path, host), Err(PinFault::Location), "{host}");
        }
        let anywhere = "aiplatform.googleapis.com";
        assert_eq!(
            sent("/v1beta1/publishers/google/models", anywhere),
            Ok(None)
        );
        for path in [
            "/v1/publishers/google/models/g:generateContent",
            "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent",
            "/v1/projects/app",
        ] {
            assert_eq!(sent(path, anywhere), Err(PinFault::Place), "{path}");
        }
        let project = pin("vertex", &[("project", "acme")], path, anywhere).unwrap();
        assert!(
            project
                .path
                .unwrap()
                .starts_with("/v1/projects/acme/locations/us-east1/")
        );
    }

    #[test]
    fn azure_and_bedrock_lead_to_what_is_pinned_or_nowhere() {
        let acme = [("resource", "acme")];
        let path = "/openai/v1/responses";
        assert!(pin("azure", &acme, path, "acme.openai.azure.com").is_ok());
        assert!(pin("azure", &acme, path, "ACME.services.ai.azure.com").is_ok());
        assert_eq!(
            pin("azure", &acme, path, "acme2.openai.azure.com"),
            Err(PinFault::Resource)
        );
        let region = [("region", "eu-west-1")];
        let path = "/model/m/converse";
        for host in [
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "bedrock-mantle.eu-west-1.api.aws",
            "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com",
        ] {
            assert!(pin("bedrock", &region, path, host).is_ok(), "{host}");
        }
        for host in [
            "bedrock-runtime.us-east-1.amazonaws.com",
            "eu-west-1.example",
            "bedrock-runtime",
        ] {
            assert_eq!(
                pin("bedrock", &region, path, host),
                Err(PinFault::Region),
                "{host}"
            );
        }
    }

    #[test]
    fn a_pin_that_a_provider_does_not_know_refuses_the_request() {
        for (provider, name) in [
            ("openai", "region"),
            ("anthropic", "project"),
            ("azure", "location"),
            ("bedrock", "resource"),
            ("vertex", "organization"),
            ("groq", "organization"),
        ] {
            assert_eq!(
                pin(provider, &[(name, "x")], "/", "h"),
                Err(PinFault::Unknown),
                "{provider} {name}"
            );
            assert!(pin(provider, &[], "/", "h").is_ok());
        }
    }
}
