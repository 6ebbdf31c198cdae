//! `[hardening]` as both daemons and the token process read it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::report::Measure;

/// What an operator may say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Measures without which the process does not start.
    pub require: BTreeSet<Measure>,
    /// Measures that are not taken: for a bad day, and for a vendor's library that cannot live with one.
    pub off: BTreeSet<Measure>,
    /// Files and directories to be read besides those that the configuration names.
    pub read: BTreeSet<PathBuf>,
    /// Files and directories to be read and written besides.
    pub write: BTreeSet<PathBuf>,
    /// TCP ports to connect to besides.
    pub connect: BTreeSet<u16>,
}

/// A name that is no measure, or one that may not stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMeasure {
    /// In `require`.
    #[error(
        "must be true, false or a list of dumps, no_new_privs, capabilities, landlock, landlock_ports, seccomp"
    )]
    Require,
    /// In `off`.
    #[error("must be a list of capabilities, landlock, landlock_ports, seccomp")]
    Off,
}

impl Settings {
    /// `require = true`: every measure.
    pub fn require_all(&mut self) {
        self.require = Measure::ALL.into();
    }

    /// `require = ["landlock", …]`.
    ///
    /// # Errors
    /// [`UnknownMeasure::Require`].
    pub fn require<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), UnknownMeasure> {
        self.require = measures(names, |_| true).ok_or(UnknownMeasure::Require)?;
        Ok(())
    }

    /// `off = ["seccomp", …]`.
    ///
    /// # Errors
    /// [`UnknownMeasure::Off`].
    pub fn off<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), UnknownMeasure> {
        self.off = measures(names, Measure::may_be_off).ok_or(UnknownMeasure::Off)?;
        Ok(())
    }

    /// What is wrong between the fields, if anything.
    pub fn contradiction(&self) -> Option<&'static str> {
        if self.require.intersection(&self.off).next().is_some() {
            return Some("require and off name the same measure");
        }
        let absolute = |paths: &BTreeSet<PathBuf>| paths.iter().all(|path| path.is_absolute());
        if !absolute(&self.read) || !absolute(&self.write) {
            return Some("read and write must be absolute paths");
        }
        None
    }
}

fn measures<'a>(
    names: impl IntoIterator<Item = &'a str>,
    allowed: impl Fn(Measure) -> bool,
) -> Option<BTreeSet<Measure>> {
    let find = |name: &str| {
        let found = Measure::ALL.into_iter().find(|one| one.name() == name)?;
        allowed(found).then_some(found)
    };
    names.into_iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_named_and_those_that_nothing_needs_off_stay_on() {
        let mut settings = Settings::default();
        assert!(settings.off(["landlock", "seccomp"]).is_ok());
        assert_eq!(settings.off(["dumps"]), Err(UnknownMeasure::Off));
        assert_eq!(settings.off(["selinux"]), Err(UnknownMeasure::Off));
        assert!(settings.require(["dumps"]).is_ok());
        assert_eq!(settings.contradiction(), None);
        settings.require_all();
        assert!(settings.contradiction().is_some());
    }

    #[test]
    fn relative_paths_are_refused() {
        let mut settings = Settings::default();
        settings.read.insert("/etc/more".into());
        assert_eq!(settings.contradiction(), None);
        settings.write.insert("more".into());
        assert!(settings.contradiction().is_some());
    }
}
