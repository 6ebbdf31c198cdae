//! Which pod and which container a process runs in, from the text of its `/proc/PID/cgroup` and from nothing else.
//!
//! The kernel writes that file, so it is true; but anybody to whom a part of the tree was delegated chooses the names below it. So a
//! place counts only where kubelets put pods, at the root of the tree or below a root that the operator named, and only in the
//! exact form that a kubelet and a container runtime give it: a pod inside of something else, something inside of a container, or
//! two hierarchies that disagree are refused. `mountinfo`, which SPIRE gave up in 2026 because a process can arrange its own, is not read.
//!
//! A daemon with a cgroup namespace of its own sees `/../..` in front: what was cut off is above its own cgroup. Such a path is
//! believed when its first name says by itself that it is a kubelet's slice, since nobody but root makes those there.

use crate::refused::Refused;

mod place;

pub use place::Container;
use place::{Place, locate};

/// Lines that are read; v1 has fourteen hierarchies.
const LINES_MAX: usize = 64;

/// One line: `ID:CONTROLLERS:PATH`.
struct Line<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl Line<'_> {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

fn lines(text: &str) -> Result<Vec<Line<'_>>, Refused> {
    let parse = |line| {
        let mut parts = str::splitn(line, 3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_id = !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit());
        // The unified hierarchy is number 0 and has no controllers; the others have both.
        let fits = is_id && (id == "0") == controllers.is_empty() && path.starts_with('/');
        fits.then_some(Line { controllers, path })
    };
    let lines: Option<Vec<_>> = text.lines().take(LINES_MAX + 1).map(parse).collect();
    lines
        .filter(|lines| !lines.is_empty() && lines.len() <= LINES_MAX)
        .ok_or(Refused::CgroupMalformed)
}

/// The container that this cgroup file speaks of. `root` is the kubelet's `--cgroup-root`, when it is not one that is known.
///
/// # Errors
/// [`Refused`], by the rule that it breaks.
pub fn container(text: &str, root: Option<&str>) -> Result<Container, Refused> {
    let lines = lines(text)?;
    let is_v1 = lines.iter().any(|line| !line.is_unified());
    let (mut found, mut outside): (Option<Container>, bool) = (None, false);
    for line in &lines {
        match locate(line.path, root) {
            // A v1 process that runs in no part of a hierarchy is at its root.
            Ok(Place::Root) => {}
            // Beside v1 hierarchies the unified one does no accounting, and runtimes leave their containers in their own service.
            Ok(Place::Outside) | Err(_) if is_v1 && line.is_unified() => {}
            Ok(Place::Outside) => outside = true,
            Ok(Place::Inside(container)) => match &found {
                Some(other) if *other != container => return Err(Refused::CgroupAmbiguous),
                _ => found = Some(container),
            },
            Err(refused) => return Err(refused),
        }
    }
    match (found, outside) {
        (Some(_), true) => Err(Refused::CgroupAmbiguous),
        (Some(container), false) => Ok(container),
        (None, _) => Err(Refused::NotInPod),
    }
}

/// The unit of the *system's* manager that the process belongs to, if it does. A user's own manager may name units as it likes, so
/// what counts is the outermost one: for those it is `user@1000.service`.
#[must_use]
pub fn unit(text: &str) -> Option<String> {
    let lines = lines(text).ok()?;
    let named = |line: &&Line<'_>| line.controllers == "name=systemd";
    let managed = |line: &&Line<'_>| line.is_unified() && line.path != "/";
    let line = lines
        .iter()
        .find(named)
        .or_else(|| lines.iter().find(managed))?;
    let first = line
        .path
        .split('/')
        .skip(1)
        .find(|name| !name.ends_with(".slice"))?;
    let is_unit = first.ends_with(".service") || first.ends_with(".scope");
    let plain = first
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    (is_unit && plain).then(|| first.to_owned())
}

#[cfg(test)]
mod tests;
