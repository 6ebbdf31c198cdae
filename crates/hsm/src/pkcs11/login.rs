//! Reaching the token: initialise, find it by label and serial, open sessions, log in once; and the same again after a fault.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;

use super::initialise::initialise;
use super::{During, Live, Token, rv};
use crate::error::ErrorClass;
use crate::token::{Fault, Identity, Outcome, Reaction};

impl Token {
    /// Opens the token as far as it is not open.
    pub(super) fn connect(&mut self) -> Outcome<()> {
        let module = self.module()?;
        let (slot, info) = self.find_slot(&module)?;
        let version = module
            .get_library_info()
            .during("ask for the module's version")?;
        let home = module.open_rw_session(slot).during("open a session")?;
        let work = module.open_rw_session(slot).during("open a session")?;
        self.login(&work)?;
        let identity = Identity {
            label: info.label().to_owned(),
            serial: info.serial_number().to_owned(),
            module: format!(
                "{} {}.{}",
                version.manufacturer_id(),
                version.library_version().major(),
                version.library_version().minor()
            ),
        };
        self.live = Some(Live {
            identity,
            home,
            work,
        });
        Ok(())
    }

    /// The module, once the token is reached.
    pub(super) fn loaded(&mut self) -> Outcome<Pkcs11> {
        self.live()?;
        self.module()
    }

    /// The module, loaded once and never unloaded: vendors' libraries have threads that do not survive that.
    fn module(&mut self) -> Outcome<Pkcs11> {
        let module = match &self.module {
            Some(module) => module.clone(),
            None => {
                let path = &self.settings.module;
                let loaded = Pkcs11::new(path).map_err(|error| {
                    let text = format!(
                        "cannot load the PKCS#11 module {}: {error}: is it installed?",
                        path.display()
                    );
                    Fault::refuse(ErrorClass::ModuleUnfit, text)
                })?;
                self.module.insert(loaded).clone()
            }
        };
        if !self.initialised {
            match initialise(&module, self.settings.init_args.as_deref()) {
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(rv::fault("initialise the module", &error)),
            }
            self.initialised = true;
        }
        Ok(module)
    }

    /// The slot whose token has our label and serial. Slot numbers differ from run to run and say nothing.
    fn find_slot(&self, module: &Pkcs11) -> Outcome<(Slot, TokenInfo)> {
        let (label, serial) = (&self.settings.label, &self.settings.serial);
        let mut present = Vec::new();
        let mut found = Vec::new();
        let mut unreadable = None;
        for slot in module.get_slots_with_token().during("list the slots")? {
            let info = match module.get_token_info(slot) {
                Ok(info) => info,
                // opencryptoki writes a clock that is none. Another slot may still be ours.
                Err(error @ (Error::ParseInt(_) | Error::InvalidValue)) => {
                    unreadable = Some(error);
                    continue;
                }
                Err(error) => return Err(rv::fault("ask which token is in a slot", &error)),
            };
            if !info.token_initialized() {
                continue;
            }
            let fits = label.as_ref().is_none_or(|label| label == info.label())
                && serial
                    .as_ref()
                    .is_none_or(|serial| serial == info.serial_number());
            present.push(format!(
                "{} (serial {})",
                info.label(),
                info.serial_number()
            ));
            if fits {
                found.push((slot, info));
            }
        }
        if let (Some(error), []) = (unreadable, found.as_slice()) {
            return Err(misdescribed(module, &error));
        }
        let wanted = [
            label.as_ref().map(|label| format!("label {label}")),
            serial.as_ref().map(|serial| format!("serial {serial}")),
        ];
        let wanted = wanted
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" and ");
        match (found.len(), present.is_empty()) {
            (1, _) => Ok(found.remove(0)),
            (0, true) => {
                // It may come back: the next request looks again, after a fresh C_Initialize.
                let text = format!(
                    "no token is present, {wanted} is wanted: is it in its slot, and is the module's configuration right?"
                );
                let error = crate::error::HsmError::new(ErrorClass::TokenMissing, text);
                Err(Fault {
                    reaction: Reaction::Reinitialise,
                    error,
                })
            }
            (0, false) => Err(Fault::refuse(
                ErrorClass::WrongToken,
                format!(
                    "no token has {wanted}; the module shows {}: correct token_label or serial",
                    present.join(", ")
                ),
            )),
            (count, _) => Err(Fault::refuse(
                ErrorClass::WrongToken,
                format!(
                    "{count} tokens have {wanted}: name the serial as well ({})",
                    present.join(", ")
                ),
            )),
        }
    }

    /// One attempt, written down before it is made. A refusal is latched before it is reported.
    fn login(&self, session: &Session) -> Outcome<()> {
        let pin = self.settings.pin.read().map_err(|error| Fault {
            reaction: Reaction::Refuse,
            error,
        })?;
        self.settings.pin.trying(&pin).map_err(|error| Fault {
            reaction: Reaction::Refuse,
            error,
        })?;
        #[expect(clippy::disallowed_methods, reason = "C_Login takes the PIN")]
        let raw = RawAuthPin::new(Box::new(pin.value.expose().to_vec()));
        let error = match session.login_with_raw(UserType::User, &raw) {
            Ok(()) => {
                self.settings.pin.accepted(&pin);
                return Ok(());
            }
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.settings.pin.answered();
                return Ok(());
            }
            Err(error) => error,
        };
        let fault = rv::fault("log in", &error);
        if fault.reaction == Reaction::Latch {
            self.settings
                .pin
                .latch(&pin, &fault.error.text)
                .map_err(|error| Fault {
                    reaction: Reaction::Latch,
                    error,
                })?;
        } else {
            self.settings.pin.answered();
        }
        Err(fault)
    }

    /// What `Hsm::recover` does.
    pub(super) fn recover_from(&mut self, reaction: Reaction) -> Outcome<()> {
        match reaction {
            Reaction::NewSession => self.reopen(),
            Reaction::LogIn => {
                self.lost_objects();
                match self.live.take() {
                    Some(live) => {
                        self.login(&live.work)?;
                        self.live = Some(live);
                        Ok(())
                    }
                    None => self.connect(),
                }
            }
            Reaction::Reinitialise => {
                self.lost_objects();
                self.live = None;
                self.initialised = false;
                if let Some(module) = self.module.clone() {
                    // It may say that it is not initialised: that is what is being repaired.
                    let _ = module.finalize();
                }
                self.connect()
            }
            Reaction::Latch
            | Reaction::BadInput
            | Reaction::SelfTest
            | Reaction::Later
            | Reaction::Refuse => Ok(()),
        }
    }

    /// Replaces both sessions. Derived keys die with the old ones: a stale handle among them may be what the fault was about.
    fn reopen(&mut self) -> Outcome<()> {
        self.lost_objects();
        let Some(old) = self.live.take() else {
            return self.connect();
        };
        let module = self.module()?;
        let (slot, _) = self.find_slot(&module)?;
        // The new ones first: closing the last session would log out, and a login more is a login too many.
        let home = module.open_rw_session(slot).during("open a session")?;
        let work = module.open_rw_session(slot).during("open a session")?;
        let identity = old.identity.clone();
        drop(old);
        let state = work
            .get_session_info()
            .during("ask after the session")?
            .session_state();
        if !matches!(state, SessionState::RwUser) {
            self.login(&work)?;
        }
        self.live = Some(Live {
            identity,
            home,
            work,
        });
        Ok(())
    }
}

/// A module whose tokens cannot even be told apart; what else it gets wrong need not be found out.
fn misdescribed(module: &Pkcs11, error: &Error) -> Fault {
    let name = module
        .get_library_info()
        .map(|info| format!("{} {}", info.manufacturer_id(), info.library_version()))
        .unwrap_or_default();
    let text = format!(
        "the module ({name}) describes a token otherwise than the standard says ({error}): use another one"
    );
    Fault::refuse(ErrorClass::ModuleUnfit, text)
}
