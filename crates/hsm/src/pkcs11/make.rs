//! Making resident objects, also on modules that do not know every attribute that we set.
//!
//! CKA_COPYABLE and CKA_ALLOWED_MECHANISMS came late to the standard. NSS refuses whole templates for them. They are left out
//! only where the module itself says, of an object that it made, that it has no such attribute; a module that knows them and
//! fails is not asked for less. What was made is examined either way (`find::compare`).

use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeInfo, AttributeType};
use cryptoki::session::Session;

use super::{During, Token, rv};
use crate::token::{Hsm, Outcome};

/// What a module may not know.
const LATE: [AttributeType; 2] = [AttributeType::Copyable, AttributeType::AllowedMechanisms];

impl Token {
    /// Makes an object (or a pair) from these templates.
    pub(super) fn make<T, const N: usize>(
        &mut self,
        what: &str,
        templates: [Vec<Attribute>; N],
        call: impl Fn(&Session, &[Vec<Attribute>; N]) -> cryptoki::error::Result<T>,
    ) -> Outcome<T> {
        let error = match call(self.work()?, &templates) {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let fault = rv::fault(what, &error);
        if !could_be_an_attribute(&error) {
            return Err(fault);
        }
        let unknown = self.unknown()?;
        if unknown.is_empty() {
            return Err(fault);
        }
        let known = templates.map(|mut template| {
            template.retain(|attribute| !unknown.contains(&attribute.attribute_type()));
            template
        });
        call(self.work()?, &known).during(what)
    }

    /// Those of [`LATE`] that the module does not know, by its own word about a session object.
    fn unknown(&mut self) -> Outcome<Vec<AttributeType>> {
        let probe = self.generate_probe()?;
        let work = self.work()?;
        let mut unknown = Vec::new();
        for late in LATE {
            let info = work
                .get_attribute_info(probe, &[late])
                .during("ask which attributes there are")?;
            if info
                .iter()
                .any(|info| matches!(info, AttributeInfo::TypeInvalid))
            {
                unknown.push(late);
            }
        }
        self.destroy(probe)?;
        Ok(unknown)
    }
}

fn could_be_an_attribute(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::GeneralError
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::TemplateInconsistent,
            _
        )
    )
}
