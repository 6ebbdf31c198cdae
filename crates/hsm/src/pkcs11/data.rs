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
        let mut values = Vec::new();
        for object in self.matching(&data(name))? {
            let found = self
                .work()?
                .get_attributes(object, &[AttributeType::Value])
                .during("read a data object")?;
            values.extend(found.into_iter().filter_map(|attribute| match attribute {
                Attribute::Value(value) => Some(value),
                _ => None,
            }));
        }
        for object in self.matching(&carrier(name))? {
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
        let mut older = self.matching(&data(name))?;
        let carriers = self.matching(&carrier(name))?;
        if carriers.is_empty() {
            let mut template = data(name);
            template.push(Attribute::Value(value.to_vec()));
            match self.work()?.create_object(&template) {
                Ok(_) => {}
                Err(error) if older.is_empty() && has_no_data_objects(&error) => {
                    self.carry(name, value)?;
                }
                Err(error) => return Err(rv::fault("write a data object", &error)),
            }
        } else {
            self.carry(name, value)?;
        }
        older.extend(carriers);
        for object in older {
            self.work()?
                .destroy_object(object)
                .during("remove an older data object")?;
        }
        Ok(())
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

fn data(name: DataObject) -> Vec<Attribute> {
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
