//! What the token keeps for us: the descriptor, and the state with its revoked set.
//!
//! As private data objects where the module has them. NSS keeps no data objects on its token, so there the bytes stand as the
//! CKA_ID of a generated secret that nobody uses, under the label of the data object, with a MAC by the custodian's own key:
//! attributes beside the value are not protected by the module. The MAC has a purpose of its own, so nothing that the daemon
//! may have MACed can stand there.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use custody::sha256;

use super::{During, Token, objects, rv};
use crate::error::ErrorClass;
use crate::token::{DataObject, Fault, Hsm, MacKey, Outcome};

/// No other MAC of a custodian begins like this.
const PURPOSE: &[u8] = b"tacit/kept/v1";
const MAC_BYTES: usize = 32;

impl Token {
    /// All values under this name.
    pub(super) fn read_kept(&mut self, name: DataObject) -> Outcome<Vec<Vec<u8>>> {
        let (data, carriers) = self.stored(name)?;
        let mut values = Vec::new();
        for object in data {
            let found = self
                .work()?
                .get_attributes(object, &[AttributeType::Value])
                .during("read a data object")?;
            values.extend(found.into_iter().filter_map(|attribute| match attribute {
                Attribute::Value(value) => Some(value),
                _ => None,
            }));
        }
        for object in carriers {
            let found = self
                .work()?
                .get_attributes(object, &[AttributeType::Id])
                .during("read a data object")?;
            for attribute in found {
                if let Attribute::Id(carried) = attribute {
                    values.push(self.unsealed(name, &carried)?);
                }
            }
        }
        Ok(values)
    }

    /// Writes the value, then destroys the older ones.
    pub(super) fn replace_kept(&mut self, name: DataObject, value: &[u8]) -> Outcome<()> {
        let (data, carriers) = self.stored(name)?;
        if self.carries == Some(true) {
            self.carry(name, value)?;
        } else {
            let mut template = data_object(name);
            template.push(Attribute::Value(value.to_vec()));
            match self.work()?.create_object(&template) {
                Ok(_) => self.carries = Some(false),
                Err(error) if self.carries.is_none() && has_no_data_objects(&error) => {
                    self.carry(name, value)?;
                    self.carries = Some(true);
                }
                Err(error) => return Err(rv::fault("write a data object", &error)),
            }
        }
        for object in data.into_iter().chain(carriers) {
            self.work()?
                .destroy_object(object)
                .during("remove an older data object")?;
        }
        Ok(())
    }

    /// The objects under this name: data objects, and secrets that carry data. A module has the one or the other, and looking
    /// for objects is the slowest call that there is: what was found once is looked for alone from then on.
    fn stored(&mut self, name: DataObject) -> Outcome<(Vec<ObjectHandle>, Vec<ObjectHandle>)> {
        if self.carries != Some(true) {
            let data = self.matching(&data_object(name))?;
            if !data.is_empty() {
                self.carries = Some(false);
            }
            if self.carries == Some(false) {
                return Ok((data, Vec::new()));
            }
        }
        let carriers = self.matching(&carrier(name))?;
        if !carriers.is_empty() {
            self.carries = Some(true);
        }
        Ok((Vec::new(), carriers))
    }

    fn matching(&mut self, template: &[Attribute]) -> Outcome<Vec<ObjectHandle>> {
        self.work()?
            .find_objects(template)
            .during("find a data object")
    }

    fn carry(&mut self, name: DataObject, value: &[u8]) -> Outcome<()> {
        let mac = self.hmac(MacKey::Own, &message(name, value))?;
        let mut template = carrier(name);
        template.extend([
            Attribute::Id([value, &mac].concat()),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::ValueLen(objects::ulong(32)),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]);
        self.work()?
            .generate_key(&Mechanism::GenericSecretKeyGen, &template)
            .during("write a data object")?;
        Ok(())
    }

    /// The value out of what an object carries, if this custodian put it there.
    fn unsealed(&mut self, name: DataObject, carried: &[u8]) -> Outcome<Vec<u8>> {
        let foreign = || {
            let text = format!(
                "the object {} on the token was not written by this custodian, or was changed since: restore the token from its backup",
                name.label()
            );
            Fault::refuse(ErrorClass::MacMismatch, text)
        };
        let (value, mac) = carried
            .split_last_chunk::<MAC_BYTES>()
            .ok_or_else(foreign)?;
        if self.hmac_matches(&message(name, value), mac)? {
            Ok(value.to_vec())
        } else {
            Err(foreign())
        }
    }
}

fn message(name: DataObject, value: &[u8]) -> Vec<u8> {
    // The label's length first, so that no label and value can be read as others.
    let label = name.label().as_bytes();
    let length = u8::try_from(label.len()).expect("our labels are short");
    [PURPOSE, &[0, length], label, &sha256(value)].concat()
}

fn data_object(name: DataObject) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(b"tacit".to_vec()),
        Attribute::Label(name.label().as_bytes().to_vec()),
    ]
}

fn carrier(name: DataObject) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(name.label().as_bytes().to_vec()),
    ]
}

/// What a module answers that has no data objects on its token.
fn has_no_data_objects(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::AttributeValueInvalid
                | RvError::AttributeTypeInvalid
                | RvError::TemplateInconsistent
                | RvError::FunctionNotSupported,
            _
        )
    )
}
