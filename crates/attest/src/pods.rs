//! What runs on this node: the kubelet's own list of pods, and which images are an agent's.
//!
//! The list is the answer of the kubelet's `/pods` (a `v1.PodList`), fetched by whoever may open connections, or put into a file. Only the
//! few fields that decide are read. An app that got hold of the socket runs in a container of its own, and that runs another image.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::cgroup::Container;
use crate::refused::Refused;

/// Longest list: 256 pods (the kubelet's usual bound is 110) of 64 KiB each.
pub const PODS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An image that agents run: a digest, in one repository or in any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    repository: Option<String>,
    digest: String,
}

/// Not an image by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be sha256:DIGEST or REPOSITORY@sha256:DIGEST")]
pub struct NoImage;

impl FromStr for ImageRule {
    type Err = NoImage;

    fn from_str(text: &str) -> Result<Self, NoImage> {
        let (repository, digest) = match text.split_once('@') {
            Some((repository, digest)) if !repository.is_empty() => (Some(repository), digest),
            Some(_) => return Err(NoImage),
            None => (None, text),
        };
        let hex = digest.strip_prefix("sha256:").ok_or(NoImage)?;
        let is_digest = hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_digest
            .then(|| Self {
                repository: repository.map(str::to_owned),
                digest: digest.to_owned(),
            })
            .ok_or(NoImage)
    }
}

impl fmt::Display for ImageRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            Some(repository) => write!(f, "{repository}@{}", self.digest),
            None => f.write_str(&self.digest),
        }
    }
}

impl ImageRule {
    /// Whether the running image is this one. Without a repository any name of the same digest is: the digest is the content.
    #[must_use]
    pub fn allows(&self, running: &ImageRule) -> bool {
        self.digest == running.digest
            && (self.repository.is_none() || self.repository == running.repository)
    }
}

#[derive(Debug, Deserialize)]
struct PodList {
    items: Vec<PodItem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodItem {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    uid: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<ContainerStatus>,
    /// Sidecars of the native kind are init containers that go on.
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    #[serde(rename = "containerID")]
    container_id: String,
    #[serde(rename = "imageID")]
    image_id: String,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<serde::de::IgnoredAny>,
}

/// The pods of this node.
#[derive(Debug)]
pub struct Pods(Vec<PodItem>);

/// A container that runs, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// Service account of its pod.
    pub service_account: String,
    /// Its image, by digest.
    pub image: ImageRule,
}

impl Pods {
    /// From a `v1.PodList`.
    ///
    /// # Errors
    /// [`Refused::PodsUnavailable`].
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        let refuse = |why: &str| Refused::PodsUnavailable(why.to_owned());
        if json.len() > PODS_BYTES_MAX {
            return Err(refuse("the list of pods is too long"));
        }
        serde_json::from_slice::<PodList>(json)
            .map(|list| Self(list.items))
            .map_err(|_| refuse("the list of pods is no v1.PodList"))
    }

    /// The container, if it runs.
    ///
    /// # Errors
    /// [`Refused::PodUnknown`] (a fresh list may know it), [`Refused::ContainerUnknown`], [`Refused::EphemeralContainer`],
    /// [`Refused::ImageNotAgent`] for an image without a digest.
    pub fn find(&self, container: &Container) -> Result<Running, Refused> {
        let mut pods = self
            .0
            .iter()
            .filter(|pod| pod.metadata.uid == container.pod_uid);
        let (Some(pod), None) = (pods.next(), pods.next()) else {
            return Err(Refused::PodUnknown);
        };
        let is_it = |status: &&ContainerStatus| {
            let id = status.container_id.split_once("://").map(|(_, id)| id);
            id == Some(container.id.as_str())
        };
        if pod
            .status
            .ephemeral_container_statuses
            .iter()
            .any(|status| is_it(&status))
        {
            return Err(Refused::EphemeralContainer);
        }
        let statuses = pod.status.container_statuses.iter();
        let status = statuses
            .chain(&pod.status.init_container_statuses)
            .find(is_it)
            .filter(|status| status.state.running.is_some())
            .ok_or(Refused::ContainerUnknown)?;
        // Docker's shim writes a scheme before it.
        let image = status.image_id.rsplit("://").next().unwrap_or_default();
        Ok(Running {
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
            service_account: pod.spec.service_account_name.clone(),
            image: image.parse().map_err(|_| Refused::ImageNotAgent)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn container(digit: char) -> Container {
        Container {
            pod_uid: "u-1".to_owned(),
            id: digit.to_string().repeat(64),
        }
    }

    fn pods() -> Pods {
        let status = |id: char, image: String, state: &str| serde_json::json!({ "containerID": format!("containerd://{}", id.to_string().repeat(64)), "imageID": image, "state": { state: {} } });
        let pod = serde_json::json!({
            "metadata": { "uid": "u-1", "name": "app-0", "namespace": "shop" },
            "spec": { "serviceAccountName": "checkout", "nodeName": "n1" },
            "status": {
                "containerStatuses": [
                    status('a', format!("registry.example/app@{}", digest('1')), "running"),
                    status('b', "registry.example/app:latest".into(), "running"),
                ],
                "initContainerStatuses": [
                    status('c', format!("docker-pullable://registry.example/agent@{}", digest('2')), "running"),
                    status('d', format!("registry.example/agent@{}", digest('2')), "terminated"),
                ],
                "ephemeralContainerStatuses": [status('e', format!("registry.example/agent@{}", digest('2')), "running")],
            },
        });
        let list = serde_json::json!({ "kind": "PodList", "items": [pod] });
        Pods::parse(list.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_running_container_has_its_image_and_its_neighbours_are_refused_by_name() {
        let pods = pods();
        let sidecar = pods.find(&container('c')).unwrap();
        assert_eq!(sidecar.namespace, "shop");
        assert_eq!(sidecar.service_account, "checkout");
        let rule: ImageRule = format!("registry.example/agent@{}", digest('2'))
            .parse()
            .unwrap();
        assert!(rule.allows(&sidecar.image));
        assert!(
            !rule.allows(&pods.find(&container('a')).unwrap().image),
            "the app's own container"
        );
        for (id, wanted) in [
            ('b', Refused::ImageNotAgent),
            ('d', Refused::ContainerUnknown),
            ('e', Refused::EphemeralContainer),
            ('f', Refused::ContainerUnknown),
        ] {
            assert_eq!(pods.find(&container(id)), Err(wanted), "{id}");
        }
        let elsewhere = Container {
            pod_uid: "u-2".to_owned(),
            ..container('c')
        };
        assert_eq!(pods.find(&elsewhere), Err(Refused::PodUnknown));
    }

    #[test]
    fn images_are_named_by_digest_and_by_nothing_else() {
        let any: ImageRule = digest('2').parse().unwrap();
        let one: ImageRule = format!("r/agent@{}", digest('2')).parse().unwrap();
        let copy: ImageRule = format!("r/copy@{}", digest('2')).parse().unwrap();
        assert!(any.allows(&one) && any.allows(&copy) && one.allows(&one));
        assert!(
            !one.allows(&copy),
            "another repository than the one that was named"
        );
        assert!(
            !one.allows(&any),
            "a repository was named and none is known"
        );
        for bad in [
            "r/agent:1",
            "",
            "@",
            "sha256:abc",
            "sha512:00",
            &digest('G'),
            &format!("@{}", digest('2')),
        ] {
            assert!(bad.parse::<ImageRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_list_of_pods_is_refused_without_being_quoted() {
        for bad in [
            "",
            "[]",
            "{}",
            "{\"items\": [{\"metadata\": {\"uid\": \"secret\"}}]}",
        ] {
            let refused = Pods::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(refused.name(), "pods_unavailable");
            assert!(!refused.to_string().contains("secret"));
        }
    }
}
