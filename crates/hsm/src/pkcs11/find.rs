//! Finding objects by class and label, and believing them only with the attributes that they were made with.

use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass, ObjectHandle};
use custody::p256::Point;
use custody::rsa::RsaPublic;

use super::{During, Token, objects};
use crate::error::ErrorClass;
use crate::token::{Fault, Hsm, Outcome, Public, Resident};

impl Token {
    /// The one object of this class and label; none and two are errors.
    fn one(&mut self, class: ObjectClass, label: &str) -> Outcome<ObjectHandle> {
        self.find(class, label)?.ok_or_else(|| {
            Fault::refuse(
                ErrorClass::ObjectsMissing,
                format!(
                    "the object {label} is missing on the token: run `hsmd init --config FILE`"
                ),
            )
        })
    }

    pub(super) fn find(
        &mut self,
        class: ObjectClass,
        label: &str,
    ) -> Outcome<Option<ObjectHandle>> {
        let template = [
            Attribute::Class(class),
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        let found = self
            .work()?
            .find_objects(&template)
            .during("find an object")?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(Fault::refuse(
                ErrorClass::DuplicateObject,
                format!(
                    "{} objects on the token are called {label}: remove those that are not ours",
                    found.len()
                ),
            )),
        }
    }

    /// A resident key that this process has examined: found, single, and with the attributes that it was made with.
    pub(super) fn resident(&mut self, class: ObjectClass, label: &str) -> Outcome<ObjectHandle> {
        if let Some(handle) = self.handles.get(label) {
            return Ok(*handle);
        }
        let handle = self.one(class, label)?;
        let mut expected = objects::resident(label);
        let mut ignored = self.ignored(handle, &expected)?;
        if ignored == Some(Attribute::Local(true)) && self.keeps_no_local()? {
            expected.retain(|attribute| *attribute != Attribute::Local(true));
            ignored = self.ignored(handle, &expected)?;
        }
        self.refuse_ignored(ignored, label)?;
        self.hides_value(handle, label)?;
        self.handles.insert(label.to_owned(), handle);
        Ok(handle)
    }

    /// Whether the module, as NSS does, never says of a key that it was generated here, and tells generated keys from imported
    /// ones by their history instead. Both are seen on session objects of our own: the first generated, the second imported.
    fn keeps_no_local(&mut self) -> Outcome<bool> {
        let generated = self.generate_probe()?;
        let marked = self.ignored(generated, &[Attribute::Local(true)]);
        self.destroy(generated)?;
        if marked?.is_none() {
            return Ok(false);
        }
        let work = self.work()?;
        let imported = work
            .create_object(&objects::worthless())
            .during("import a worthless key")?;
        let history = [
            AttributeType::AlwaysSensitive,
            AttributeType::NeverExtractable,
        ];
        let found = work
            .get_attributes(imported, &history)
            .during("read attributes back");
        self.destroy(imported)?;
        let found = found?;
        Ok(found.contains(&Attribute::AlwaysSensitive(false))
            && found.contains(&Attribute::NeverExtractable(false)))
    }

    /// Compares attributes, and asks for the size of the value: a module that would tell it, would tell the value.
    pub(super) fn compare(
        &mut self,
        object: ObjectHandle,
        expected: &[Attribute],
        what: &str,
    ) -> Outcome<()> {
        let ignored = self.ignored(object, expected)?;
        self.refuse_ignored(ignored, what)?;
        self.hides_value(object, what)
    }

    /// The first of these that the object does not have.
    fn ignored(
        &mut self,
        object: ObjectHandle,
        expected: &[Attribute],
    ) -> Outcome<Option<Attribute>> {
        let found = self
            .work()?
            .get_attributes(object, &objects::types(expected))
            .during("read attributes back")?;
        let differs = |wanted: &&Attribute| {
            let present = found
                .iter()
                .find(|attribute| attribute.attribute_type() == wanted.attribute_type());
            // An attribute that the object does not have (CKA_DECRYPT of an EC key) is as good as false.
            present.map_or_else(|| is_true(wanted), |present| present != *wanted)
        };
        Ok(expected.iter().find(differs).cloned())
    }

    fn refuse_ignored(&mut self, ignored: Option<Attribute>, what: &str) -> Outcome<()> {
        let Some(ignored) = ignored else {
            return Ok(());
        };
        let module = &self.live()?.identity.module;
        let text = format!(
            "the module ({module}) ignores {ignored:?} of {what}: it cannot hold shares, use another one"
        );
        Err(Fault::refuse(ErrorClass::ModuleUnfit, text))
    }

    fn hides_value(&mut self, object: ObjectHandle, what: &str) -> Outcome<()> {
        let live = self.live()?;
        let value = live
            .work
            .get_attribute_info(object, &[AttributeType::Value])
            .during("ask whether a value is readable")?;
        if value
            .iter()
            .any(|info| matches!(info, AttributeInfo::Available(_)))
        {
            let text = format!(
                "the module ({}) would return the value of {what} in clear: it cannot hold shares, use another one",
                live.identity.module
            );
            return Err(Fault::refuse(ErrorClass::ModuleUnfit, text));
        }
        Ok(())
    }
}

fn is_true(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Sensitive(true)
            | Attribute::AlwaysSensitive(true)
            | Attribute::NeverExtractable(true)
            | Attribute::Extractable(true)
            | Attribute::Sign(true)
            | Attribute::Wrap(true)
            | Attribute::Unwrap(true)
            | Attribute::Derive(true)
    )
}

/// A public key out of its attributes.
pub(super) fn read_public(key: Resident, attributes: Vec<Attribute>) -> Outcome<Public> {
    let unfit = |rule: String| {
        Fault::refuse(
            ErrorClass::ModuleUnfit,
            format!("the public key {} on the token {rule}", key.label()),
        )
    };
    if key == Resident::RsaSeal {
        let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
        for attribute in attributes {
            match attribute {
                Attribute::Modulus(value) => modulus = value,
                Attribute::PublicExponent(value) => exponent = value,
                _ => {}
            }
        }
        return RsaPublic::from_components(&modulus, &exponent)
            .map(Public::Rsa)
            .map_err(|error| unfit(format!("is refused: {error}")));
    }
    let point = attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            Attribute::EcPoint(point) => Some(point),
            _ => None,
        });
    let point = point.ok_or_else(|| unfit("has no CKA_EC_POINT".into()))?;
    // PKCS#11 wants a DER OCTET STRING; some modules give the bare point.
    let bare = point
        .strip_prefix(&[0x04, 65])
        .filter(|rest| rest.len() == 65)
        .unwrap_or(&point);
    Point::parse(bare)
        .map(Public::Ec)
        .map_err(|error| unfit(format!("is refused: {error}")))
}
