//! `fips = true` in the kernel: refuse before anything is made on a token, and again at every start.
//!
//! Everything that is missing is named at once, so that an operator asks the vendor one time and not five.

use custody::Profile;

use super::Kernel;
use crate::error::ErrorClass;
use crate::fips::{ALWAYS, NEXT, Service, objection, parameter};
use crate::token::{Fault, Hsm, Identity, Outcome, Reaction, Resident};

impl<H: Hsm> Kernel<H> {
    /// Before `init` makes anything: the approved profiles that can run here, at least one. Leaves nothing on the token.
    pub(super) fn approved(
        &mut self,
        identity: &Identity,
        candidates: &[Profile],
    ) -> Outcome<Vec<Profile>> {
        let mut missing = self.not_offered(&ALWAYS)?;
        let signs = missing.is_empty();
        let (mut fits, mut refused) = (Vec::new(), Vec::new());
        for profile in candidates {
            if objection(*profile).is_some() {
                refused.push(profile.mechanisms());
                continue;
            }
            let lacking = self.not_offered(Service::of(*profile))?;
            if lacking.is_empty() {
                match self.hsm.rehearse(*profile) {
                    Ok(()) => fits.push(*profile),
                    Err(fault) => missing.push(format!(
                        "{} for {} ({})",
                        parameter(*profile),
                        profile.name(),
                        decided(fault)?
                    )),
                }
            }
            let named = lacking
                .into_iter()
                .map(|name| format!("{name} for {}", profile.name()));
            missing.extend(named);
        }
        if signs && !fits.is_empty() {
            return Ok(fits);
        }
        let not_tried = match refused.as_slice() {
            [] => String::new(),
            some => format!(
                "; not tried, since it is not approved: {}",
                some.join(" and ")
            ),
        };
        Err(Fault::refuse(
            ErrorClass::ModuleUnfit,
            format!(
                "fips is set and {} lacks {}{not_tried}. Nothing was made on the token: {NEXT}",
                identity.module,
                missing.join(", ")
            ),
        ))
    }

    /// At each start: the descriptor's profile is approved, the token still offers what it needs, and its signing keys hash
    /// in the token.
    pub(super) fn is_approved(&mut self, profile: Profile) -> Outcome<()> {
        let refuse = |text: String| Err(Fault::refuse(ErrorClass::ModuleUnfit, text));
        const FRESH: &str = "initialise a fresh token with `fips = true` and let it take this custodian's place, or take `fips` out";
        if let Some(reason) = objection(profile) {
            return refuse(format!(
                "fips is set, but this custodian was initialised with {} ({}): {reason}; {FRESH}",
                profile.name(),
                profile.mechanisms()
            ));
        }
        let mut missing = self.not_offered(&ALWAYS)?;
        missing.extend(self.not_offered(Service::of(profile))?);
        if !missing.is_empty() {
            return refuse(format!(
                "fips is set and the token no longer offers {}: {NEXT}",
                missing.join(", ")
            ));
        }
        for key in [
            Resident::SignDescriptor,
            Resident::SignStatement,
            Resident::SignCheckpoint,
        ] {
            if !self.hsm.hashes(key)? {
                return refuse(format!(
                    "fips is set, but {} was made for CKM_ECDSA over a hash from outside of the token; {FRESH}",
                    key.label()
                ));
            }
        }
        Ok(())
    }

    fn not_offered(&mut self, services: &[Service]) -> Outcome<Vec<String>> {
        let mut missing = Vec::new();
        for service in services {
            if !self.hsm.offers(*service)? {
                missing.push(service.mechanism().to_owned());
            }
        }
        Ok(missing)
    }
}

/// What the token said, if it was an answer about the mechanism; a fault that may pass must not decide anything.
pub(super) fn decided(fault: Fault) -> Outcome<String> {
    match fault.reaction {
        Reaction::NewSession
        | Reaction::LogIn
        | Reaction::Reinitialise
        | Reaction::Latch
        | Reaction::Later => Err(fault),
        Reaction::BadInput | Reaction::SelfTest | Reaction::Refuse => Ok(fault.error.text),
    }
}
