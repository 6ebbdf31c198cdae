#![allow(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::*;

const POD: &str = "2c48913c-b29f-41e7-9350-020968147796";
const OTHER: &str = "daa5c7ee-3484-4533-af39-3591564fd03e";

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

fn v2(path: &str) -> Result<Container, Refused> {
    container(&format!("0::{path}\n"), None)
}

fn slice(pod: &str) -> String {
    format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        pod.replace('-', "_")
    )
}

/// `tests/cgroups/*.txt`: a comment that says where the layout is documented and what must come out, then the file itself.
#[test]
fn every_documented_layout_gives_its_pod_and_container_or_its_refusal() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cgroups");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read_to_string(&path).unwrap();
        let field = |name: &str| {
            whole
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# {name}: ")))
        };
        let text: String = whole
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(field("source").is_some(), "{path:?} says where it is from");
        let wanted = match (field("pod"), field("container"), field("refused")) {
            (Some(pod_uid), Some(id), None) => Ok(Container {
                pod_uid: pod_uid.to_owned(),
                id: id.to_owned(),
            }),
            (None, None, Some(name)) => Err(name.to_owned()),
            _ => panic!("{path:?} says what must come out"),
        };
        let found =
            container(&text, field("cgroup_root")).map_err(|refused| refused.name().to_owned());
        assert_eq!(found, wanted, "{path:?}");
        seen += 1;
    }
    assert!(seen >= 20, "{seen} files in {corpus}");
}

#[test]
fn a_pod_inside_of_a_container_a_user_session_or_another_pod_is_refused() {
    let good = format!("{}/cri-containerd-{}.scope", slice(POD), id('a'));
    assert_eq!(v2(&good).unwrap().pod_uid, POD);
    let forged = format!("{}/cri-containerd-{}.scope", slice(OTHER), id('b'));
    for outer in [
        good.clone(),
        slice(POD),
        "/user.slice/user-1000.slice/user@1000.service".to_owned(),
        "/system.slice/app.service".to_owned(),
        format!("/docker/{}", id('c')),
        "/kubepods.slice".to_owned(),
        "/..".to_owned() + &good,
    ] {
        assert_eq!(
            v2(&format!("{outer}{forged}")),
            Err(Refused::CgroupNested),
            "{outer}"
        );
    }
    // The nearest neighbours: below a root that the operator named, and one name more.
    let text = format!("0::/docker/{}{forged}", id('c'));
    let root = format!("/docker/{}", id('c'));
    assert_eq!(container(&text, Some(&root)).unwrap().pod_uid, OTHER);
    assert_eq!(v2(&format!("{good}/app")), Err(Refused::CgroupNested));
    assert_eq!(v2(&slice(POD)), Err(Refused::NotInContainer));
}

#[test]
fn hierarchies_that_disagree_are_refused() {
    let path = |pod: &str, digit| format!("/kubepods/burstable/pod{pod}/{}", id(digit));
    let two = |one: &str, other: &str| {
        container(&format!("2:pids:{one}\n1:name=systemd:{other}\n"), None)
    };
    let good = path(POD, 'a');
    assert!(two(&good, &good).is_ok());
    assert!(two(&good, "/").is_ok(), "a hierarchy without containers");
    assert_eq!(two(&good, &path(OTHER, 'a')), Err(Refused::CgroupAmbiguous));
    assert_eq!(two(&good, &path(POD, 'b')), Err(Refused::CgroupAmbiguous));
    assert_eq!(
        two(&good, "/system.slice/app.service"),
        Err(Refused::CgroupAmbiguous)
    );
    assert_eq!(two("/", "/user.slice"), Err(Refused::NotInPod));
}

#[test]
fn what_the_kernel_does_not_write_is_no_cgroup_file() {
    let good = format!("{}/crio-{}.scope", slice(POD), id('a'));
    for bad in [
        String::new(),
        "\n".to_owned(),
        good.clone(),
        format!("0:pids:{good}"),
        format!("1::{good}"),
        format!("0::{}", good.trim_start_matches('/')),
        format!("0::{good}/../x"),
        format!("0::/{good}"),
    ] {
        assert_eq!(
            container(&bad, None),
            Err(Refused::CgroupMalformed),
            "{bad:?}"
        );
    }
    assert_eq!(
        v2(&format!("{good} (deleted)")),
        Err(Refused::NotInContainer),
        "a cgroup that is gone"
    );
}

#[test]
fn a_unit_is_the_outermost_one_since_users_name_those_inside() {
    let unit_of = |path: &str| unit(&format!("0::{path}\n"));
    assert_eq!(
        unit_of("/system.slice/tacit-agent.service").unwrap(),
        "tacit-agent.service"
    );
    assert_eq!(
        unit_of("/system.slice/system-tacit.slice/tacit@a.service/x").unwrap(),
        "tacit@a.service"
    );
    assert_eq!(
        unit_of("/user.slice/user-1000.slice/user@1000.service/app.slice/tacit-agent.service")
            .unwrap(),
        "user@1000.service"
    );
    assert_eq!(unit_of("/system.slice"), None);
    assert_eq!(unit_of("/../tacit-agent.service"), None);
    assert_eq!(
        unit("4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n").unwrap(),
        "a.service"
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_what_comes_out_stands_in_it(text in "([0-9]{1,2}:[a-z=]{0,8}:(/[a-z0-9.:_-]{0,80}){0,6}\n){0,4}") {
        if let Ok(found) = container(&text, None) {
            prop_assert!(text.contains(&found.id));
        }
        let _ = unit(&text);
    }

    #[test]
    fn another_pod_in_any_further_hierarchy_makes_it_ambiguous(pod in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", digit in "[0-9a-f]") {
        prop_assume!(pod != POD);
        let line = |pod: &str, digit: char| format!("/kubepods/pod{pod}/{}", id(digit));
        let text = format!("2:pids:{}\n1:name=systemd:{}\n", line(POD, 'a'), line(&pod, digit.chars().next().unwrap()));
        prop_assert_eq!(container(&text, None), Err(Refused::CgroupAmbiguous));
    }
}
