//! `/proc/PID/cgroup`: never a panic; what comes out stands in the text, and one more hierarchy that names another pod ends it.
#![no_main]

use attest::cgroup::{container, unit};
use libfuzzer_sys::fuzz_target;

const OTHER: &str = "99:other:/kubepods/pod00000000-0000-0000-0000-00000000dead/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\n";

fuzz_target!(|text: &str| {
    let _ = (unit(text), container(text, Some("/some/root")));
    let Ok(found) = container(text, None) else {
        return;
    };
    assert!(text.contains(&found.id));
    assert!(text.contains(&found.pod_uid) || text.contains(&found.pod_uid.replace('-', "_")));
    let more = format!("{}\n{OTHER}", text.trim_end_matches('\n'));
    if let Ok(other) = container(&more, None) {
        assert!(other == found && OTHER.contains(&found.pod_uid));
    }
});
