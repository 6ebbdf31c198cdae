//! One path of a cgroup file: is it where a kubelet puts containers?

use crate::refused::Refused;

/// Where kubelets put `kubepods` by default: at the root, or (kind) below a cgroup of their own.
const ROOTS: [&[&str]; 3] = [&[], &["kubelet"], &["kubelet.slice"]];

/// Where containerd puts containers whose kubelet speaks systemd and which itself does not: one flat name.
const FLAT_ROOTS: [&[&str]; 2] = [&[], &["system.slice", "containerd.service"]];

/// Beginnings of names of slices that only a kubelet makes, in the systemd driver's way: `kubepods`, below a root `kubelet` too.
const SLICES: [&str; 2] = ["kubepods", "kubelet-kubepods"];

/// Length of a container's id: SHA-256 in hexadecimal digits, with every runtime.
const CONTAINER_ID: usize = 64;

/// A container of a pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// The pod's UID, with dashes where it has any (static pods have none).
    pub pod_uid: String,
    /// The container's id: 64 hexadecimal digits.
    pub id: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The root of the hierarchy.
    Root,
    /// Somewhere that is no pod's.
    Outside,
    /// In a container.
    Inside(Container),
}

/// Finds the place of a path.
pub(super) fn locate(path: &str, root: Option<&str>) -> Result<Place, Refused> {
    if path == "/" {
        return Ok(Place::Root);
    }
    let mut names: Vec<&str> = path.split('/').skip(1).collect();
    let above = names.iter().take_while(|name| **name == "..").count();
    names.drain(..above);
    if names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        return Err(Refused::CgroupMalformed);
    }
    if names.is_empty() {
        return Ok(Place::Outside);
    }
    if above > 0 {
        return relative(&names);
    }
    let named: Option<Vec<&str>> =
        root.map(|root| root.split('/').filter(|name| !name.is_empty()).collect());
    let flat_roots = FLAT_ROOTS.iter();
    if let Some(container) = flat_roots
        .filter_map(|root| names.strip_prefix(*root))
        .find_map(flat)
    {
        return Ok(Place::Inside(container));
    }
    let roots = ROOTS.iter().copied().chain(named.as_deref());
    for rest in roots.filter_map(|root| names.strip_prefix(root)) {
        match rest.split_first() {
            Some((&"kubepods", pods)) => return plain(pods).map(Place::Inside),
            Some((first, pods)) if top_slice(first).is_some() => {
                return slices(first, pods).map(Place::Inside);
            }
            _ => {}
        }
    }
    outside(&names)
}

/// A path that is no kubelet's must not look like one either: whoever made it meant to be taken for it.
fn outside(names: &[&str]) -> Result<Place, Refused> {
    if names.iter().any(|name| name.contains("kubepods")) {
        Err(Refused::CgroupNested)
    } else {
        Ok(Place::Outside)
    }
}

/// Below an ancestor that cannot be seen: the first name must say by itself where it stands.
fn relative(names: &[&str]) -> Result<Place, Refused> {
    let (first, rest) = names.split_first().expect("checked by locate");
    if let Some(container) = flat(names) {
        return Ok(Place::Inside(container));
    }
    if *first == "kubepods" {
        return plain(rest).map(Place::Inside);
    }
    for slice in SLICES {
        let Some(after) = first.strip_prefix(slice) else {
            continue;
        };
        if after == ".slice" || after == "-burstable.slice" || after == "-besteffort.slice" {
            return slices(first, rest).map(Place::Inside);
        }
        if let Some(pod_uid) = pod_slice(first, slice).or_else(|| {
            ["burstable", "besteffort"]
                .iter()
                .find_map(|qos| pod_slice(first, &format!("{slice}-{qos}")))
        }) {
            return in_pod(pod_uid, rest).map(Place::Inside);
        }
    }
    outside(names)
}

/// `kubepods[/QOS]/podUID/ID`: the cgroupfs driver.
fn plain(names: &[&str]) -> Result<Container, Refused> {
    let names = match names {
        ["burstable" | "besteffort", rest @ ..] => rest,
        other => other,
    };
    let (first, rest) = names.split_first().ok_or(Refused::NotInContainer)?;
    let uid = first
        .strip_prefix("pod")
        .and_then(pod_uid)
        .ok_or(Refused::CgroupNested)?;
    in_pod(uid, rest)
}

fn top_slice(name: &str) -> Option<&str> {
    name.strip_suffix(".slice")
        .filter(|name| SLICES.contains(name))
}

/// `kubepods.slice[/kubepods-QOS.slice]/kubepods[-QOS]-podUID.slice/ID.scope`: the systemd driver. `first` may be the QoS slice.
fn slices(first: &str, names: &[&str]) -> Result<Container, Refused> {
    let mut parent = first.strip_suffix(".slice").ok_or(Refused::CgroupNested)?;
    let mut names = names;
    if let Some((next, rest)) = names.split_first()
        && let Some(slice) = next.strip_suffix(".slice")
        && let Some("-burstable" | "-besteffort") = slice.strip_prefix(parent)
    {
        (parent, names) = (slice, rest);
    }
    let (pod, rest) = names.split_first().ok_or(Refused::NotInContainer)?;
    let uid = pod_slice(pod, parent).ok_or(Refused::CgroupNested)?;
    in_pod(uid, rest)
}

/// `PARENT-podUID.slice`.
fn pod_slice(name: &str, parent: &str) -> Option<String> {
    let uid = name
        .strip_suffix(".slice")?
        .strip_prefix(parent)?
        .strip_prefix("-pod")?;
    pod_uid(uid)
}

/// What stands below a pod: one container, and nothing below that but the subgroup that crun makes for CRI-O.
fn in_pod(pod_uid: String, names: &[&str]) -> Result<Container, Refused> {
    let (name, below) = names.split_first().ok_or(Refused::NotInContainer)?;
    let id = container_id(name).ok_or(match below {
        [] => Refused::NotInContainer,
        _ => Refused::CgroupNested,
    })?;
    let is_crun = name.starts_with("crio-") && below == ["container"];
    if !below.is_empty() && !is_crun {
        return Err(Refused::CgroupNested);
    }
    Ok(Container { pod_uid, id })
}

/// `[kubelet-]kubepods[-QOS]-podUID.slice:cri-containerd:ID`, alone.
fn flat(names: &[&str]) -> Option<Container> {
    let [name] = names else { return None };
    let (slice, rest) = name.split_once(':')?;
    let id = rest
        .strip_prefix("cri-containerd:")
        .or_else(|| rest.strip_prefix("crio:"))?;
    let parent = |slice: &str, qos: &str| format!("{slice}{qos}");
    let pod_uid = SLICES.iter().find_map(|top| {
        ["", "-burstable", "-besteffort"]
            .iter()
            .find_map(|qos| pod_slice(slice, &parent(top, qos)))
    })?;
    is_container_id(id).then(|| Container {
        pod_uid,
        id: id.to_owned(),
    })
}

/// The id in a container's own cgroup: bare, or in a scope with the runtime's name before it.
fn container_id(name: &str) -> Option<String> {
    let id = match name.strip_suffix(".scope") {
        Some(scope) => ["cri-containerd-", "crio-", "docker-"]
            .iter()
            .find_map(|runtime| scope.strip_prefix(runtime))?,
        None => name.strip_prefix("crio-").unwrap_or(name),
    };
    is_container_id(id).then(|| id.to_owned())
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_container_id(id: &str) -> bool {
    id.len() == CONTAINER_ID && is_hex(id)
}

/// A UUID, with the dashes that the systemd driver turns into underscores, or the 32 digits of a static pod.
fn pod_uid(text: &str) -> Option<String> {
    if text.len() == 32 && is_hex(text) {
        return Some(text.to_owned());
    }
    let uid = text.replace('_', "-");
    let lengths = uid.split('-').map(str::len);
    let is_uuid = lengths.eq([8, 4, 4, 4, 12]) && uid.split('-').all(is_hex);
    is_uuid.then_some(uid)
}
