//! Landlock: the files and the TCP ports that a plan names, and nothing else.
//!
//! Rules hold for what lies *beneath* a directory, by inode: a file that is replaced by a rename is another file, so a plan
//! names directories, and a reload finds new contents. Handled are the rights of ABI 5 for files (Linux 6.10), the ports
//! of ABI 4 (6.7) and signals of ABI 6 (6.12); on an older kernel what it does not know falls away, and the report says
//! which ABI holds. Denials are written to the audit log by kernels from 6.15 on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, Compatible, LandlockStatus, NetPort, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use crate::plan::Plan;
use crate::report::{Finding, Measure, State};

/// The newest rights on files that were tested here. Later ones (Unix sockets by path, ABI 9) are not handled.
const FILES: ABI = ABI::V5;

/// From here on the kernel knows ports.
const PORTS: ABI = ABI::V4;

/// Confines the calling thread, and all that it starts from now on. `files` and `ports`: which of the two.
pub(crate) fn confine(plan: &Plan, files: bool, ports: bool) -> [Finding; 2] {
    if !files && !ports {
        let off = |measure| Finding::new(measure, State::Off, "");
        return [off(Measure::Landlock), off(Measure::LandlockPorts)];
    }
    let status = match restrict(plan, files, ports) {
        Ok(status) => status,
        Err(error) => {
            let refused = |measure, wanted| match wanted {
                true => Finding::new(measure, State::Refused(error.to_string()), ""),
                false => Finding::new(measure, State::Off, ""),
            };
            return [
                refused(Measure::Landlock, files),
                refused(Measure::LandlockPorts, ports),
            ];
        }
    };
    let (abi, missing) = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => (effective_abi, ""),
        LandlockStatus::NotEnabled => (ABI::Unsupported, "not enabled at boot: add it to lsm="),
        LandlockStatus::NotImplemented => (ABI::Unsupported, "needs Linux 5.13"),
    };
    [
        finding(Measure::Landlock, files, abi, ABI::V1, missing, || {
            let (read, write) = (plan.read.len(), plan.write.len());
            format!("ABI {abi}; {read} places to read, {write} to write")
        }),
        finding(Measure::LandlockPorts, ports, abi, PORTS, missing, || {
            format!(
                "connects to {}; binds {}",
                list(&plan.connect),
                list(&plan.bind)
            )
        }),
    ]
}

fn finding(
    measure: Measure,
    wanted: bool,
    abi: ABI,
    needed: ABI,
    missing: &str,
    detail: impl FnOnce() -> String,
) -> Finding {
    match (wanted, abi >= needed) {
        (false, _) => Finding::new(measure, State::Off, ""),
        (true, true) => Finding::new(measure, State::On, detail()),
        (true, false) if missing.is_empty() => {
            Finding::new(measure, State::Unsupported, "needs Linux 6.7")
        }
        (true, false) => Finding::new(measure, State::Unsupported, missing),
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    match ports.len() {
        0 => "none".to_owned(),
        _ => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            ports.join(" ")
        }
    }
}

fn restrict(plan: &Plan, files: bool, ports: bool) -> Result<RestrictionStatus, RulesetError> {
    use landlock::Access as _;
    let mut ruleset = Ruleset::default().set_compatibility(landlock::CompatLevel::BestEffort);
    if files {
        ruleset = ruleset
            .handle_access(AccessFs::from_all(FILES))?
            // A process of ours has nobody to signal but itself and its own children.
            .scope(Scope::Signal)?;
    }
    if ports {
        ruleset = ruleset.handle_access(AccessNet::from_all(PORTS))?;
    }
    let mut created = ruleset.create()?;
    if files {
        let beneath = |paths: &BTreeSet<PathBuf>, access: BitFlags<AccessFs>| {
            path_beneath_rules(paths.clone(), access).collect::<Vec<_>>()
        };
        created = created
            .add_rules(beneath(&plan.read, reading()))?
            .add_rules(beneath(&plan.write, writing()))?
            .add_rules(beneath(
                &plan.devices,
                reading() | AccessFs::WriteFile | AccessFs::IoctlDev,
            ))?
            .add_rules(beneath(&plan.execute, reading() | AccessFs::Execute))?;
    }
    if ports {
        for port in &plan.connect {
            created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        for port in &plan.bind {
            created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
    }
    created.restrict_self()
}

/// Without `Execute`, which the library counts as reading.
fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Files, directories and sockets may come and go; devices and symbolic links may not be made.
fn writing() -> BitFlags<AccessFs> {
    reading()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}
