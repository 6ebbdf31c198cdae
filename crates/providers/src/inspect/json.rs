//! JSON as bytes with places: objects that keep every key they were written with, and values that know where they stand.
//!
//! What two parsers could read as two documents is refused where it matters: a key written twice, and a key that only differs from the
//! wanted one in case or underscores (some parsers take `Model` for `model`).

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::BodyFault;

/// Members of one object that is looked into. Real ones have dozens.
const MEMBERS_MAX: usize = 4096;

/// Elements of one array that is looked into: the requests of the largest batch.
const ELEMENTS_MAX: usize = 100_000;

/// Up to here every key is compared with every other one.
const COMPARED_MAX: usize = 16;

/// How names may be spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As the table has them.
    Exact,
    /// In snake case too: Google's parser takes both.
    Snake,
}

/// One object, its members in order.
#[derive(Debug)]
pub(super) struct Object<'a> {
    members: Vec<(String, &'a RawValue)>,
    /// What its keys begin with: most keys that are asked for are not there, and that shows here.
    initials: u32,
}

impl<'a> Object<'a> {
    /// Reads a text that holds one object and nothing else.
    pub fn read(text: &'a [u8]) -> Result<Self, BodyFault> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let members = reader
            .deserialize_map(Members)
            .map_err(|_| BodyFault::Json)?;
        reader.end().map_err(|_| BodyFault::Json)?;
        if members.len() > MEMBERS_MAX {
            return Err(BodyFault::TooMuch);
        }
        if has_twins(&members) {
            return Err(BodyFault::Duplicate);
        }
        let initials = members.iter().fold(0, |all, (key, _)| all | initial(key));
        Ok(Self { members, initials })
    }

    /// The member of this name; `null` is none.
    pub fn get(&self, name: &str, spelling: Spelling) -> Result<Option<&'a RawValue>, BodyFault> {
        let found = self.raw(name, spelling)?;
        Ok(found.filter(|value| value.get() != "null"))
    }

    /// The member of this name, `null` or not.
    pub fn raw(&self, name: &str, spelling: Spelling) -> Result<Option<&'a RawValue>, BodyFault> {
        let mut found = None;
        if self.initials & initial(name) == 0 {
            return Ok(None);
        }
        for (key, value) in &self.members {
            if !folded(key).eq(folded(name)) {
                continue;
            }
            let spelled = key == name || (spelling == Spelling::Snake && is_snake_of(key, name));
            if !spelled {
                return Err(BodyFault::Spelling);
            }
            if found.replace(*value).is_some() {
                return Err(BodyFault::Duplicate);
            }
        }
        Ok(found)
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Whether a key stands there twice. Small objects, which most are, are compared without a list of their keys.
fn has_twins<T>(members: &[(String, T)]) -> bool {
    if members.len() <= COMPARED_MAX {
        let mut rest = members;
        while let [(key, _), others @ ..] = rest {
            if others.iter().any(|(other, _)| other == key) {
                return true;
            }
            rest = others;
        }
        return false;
    }
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// The elements of an array; anything else stands for itself.
pub(super) fn elements(value: &RawValue) -> Result<Vec<&RawValue>, BodyFault> {
    if !value.get().starts_with('[') {
        return Ok(vec![value]);
    }
    let mut reader = serde_json::Deserializer::from_str(value.get());
    let elements = reader
        .deserialize_seq(Elements)
        .map_err(|_| BodyFault::Json)?;
    if elements.len() > ELEMENTS_MAX {
        return Err(BodyFault::TooMuch);
    }
    Ok(elements)
}

/// The objects that stand at `value`: itself, or those of its elements that are objects.
///
/// # Errors
/// No API has lists of lists here; a parser that flattened one would see what we do not.
pub(super) fn objects(
    value: &RawValue,
) -> Result<impl Iterator<Item = Result<Object<'_>, BodyFault>>, BodyFault> {
    let objects =
        elements(value)?
            .into_iter()
            .filter_map(|element| match element.get().as_bytes().first() {
                Some(b'[') => Some(Err(BodyFault::Nesting)),
                Some(b'{') => Some(Object::read(element.get().as_bytes())),
                _ => None,
            });
    Ok(objects)
}

/// A text value, decoded.
pub(super) fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// How a lenient parser compares names: Go's folds case with two letters beyond ASCII, others drop underscores.
fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| *c != '_').map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    })
}

/// A bit for the letter that a name begins with, however it is spelled.
fn initial(name: &str) -> u32 {
    folded(name)
        .next()
        .map_or(0, |c| 1 << (u32::from(c) % u32::BITS))
}

/// Whether `key` is `camelCase` written as `camel_case`.
fn is_snake_of(key: &str, camel: &str) -> bool {
    let mut key = key.chars();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && key.next() != Some('_') {
            return false;
        }
        if key.next() != Some(c.to_ascii_lowercase()) {
            return false;
        }
    }
    key.next().is_none()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            // One more than allowed says enough; the rest is only checked for syntax.
            if members.len() <= MEMBERS_MAX {
                members.push(member);
            }
        }
        Ok(members)
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
            if elements.len() > ELEMENTS_MAX {
                // Read to its end, and kept no more.
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn get(text: &str, name: &str, spelling: Spelling) -> Result<Option<String>, BodyFault> {
        let object = Object::read(text.as_bytes())?;
        Ok(object
            .get(name, spelling)?
            .map(|value| value.get().to_owned()))
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_however_it_is_written() {
        use Spelling::{Exact, Snake};
        let one = Ok(Some("1".to_owned()));
        for (text, name, spelling, wanted) in [
            (r#"{"model":1}"#, "model", Exact, one.clone()),
            (
                r#" { "x" : [2] , "model" : 1 } "#,
                "model",
                Exact,
                one.clone(),
            ),
            (r#"{"mod\u0065l":1}"#, "model", Exact, one.clone()),
            (r#"{"model":null}"#, "model", Exact, Ok(None)),
            (r#"{"models":1}"#, "model", Exact, Ok(None)),
            (
                r#"{"model":1,"model":1}"#,
                "model",
                Exact,
                Err(BodyFault::Duplicate),
            ),
            (
                r#"{"model":1,"mod\u0065l":1}"#,
                "model",
                Exact,
                Err(BodyFault::Duplicate),
            ),
            (
                r#"{"x":1,"x":1,"model":1}"#,
                "model",
                Exact,
                Err(BodyFault::Duplicate),
            ),
            (r#"{"Model":1}"#, "model", Exact, Err(BodyFault::Spelling)),
            (
                r#"{"model":1,"mo_del":1}"#,
                "model",
                Exact,
                Err(BodyFault::Spelling),
            ),
            (
                "{\"too\u{212a}\":1}",
                "took",
                Exact,
                Err(BodyFault::Spelling),
            ),
            (r#"{"input_config":1}"#, "inputConfig", Snake, one.clone()),
            (r#"{"inputConfig":1}"#, "inputConfig", Snake, one),
            (
                r#"{"input_config":1}"#,
                "inputConfig",
                Exact,
                Err(BodyFault::Spelling),
            ),
            (
                r#"{"inputconfig":1}"#,
                "inputConfig",
                Snake,
                Err(BodyFault::Spelling),
            ),
            (
                r#"{"inputConfig":1,"input_config":1}"#,
                "inputConfig",
                Snake,
                Err(BodyFault::Duplicate),
            ),
            ("[1]", "model", Exact, Err(BodyFault::Json)),
            (r#"{"model":1}x"#, "model", Exact, Err(BodyFault::Json)),
            ("\u{feff}{}", "model", Exact, Err(BodyFault::Json)),
            (r#"{"model":1,}"#, "model", Exact, Err(BodyFault::Json)),
            (r#"{'model':1}"#, "model", Exact, Err(BodyFault::Json)),
            (r#"{"model":NaN}"#, "model", Exact, Err(BodyFault::Json)),
            ("", "model", Exact, Err(BodyFault::Json)),
        ] {
            assert_eq!(get(text, name, spelling), wanted, "{text}");
        }
    }

    #[test]
    fn twins_are_found_in_small_and_in_large_objects() {
        for others in [0, COMPARED_MAX - 2, COMPARED_MAX - 1, COMPARED_MAX] {
            let members = |last| {
                let others = (0..others).map(|n| format!(r#""{n}":0,"#));
                format!(r#"{{"a":0,{}"{last}":0}}"#, others.collect::<String>())
            };
            let (other, twin) = (members("b"), members("a"));
            assert!(Object::read(other.as_bytes()).is_ok());
            let twins = Object::read(twin.as_bytes());
            assert_eq!(twins.err(), Some(BodyFault::Duplicate), "{others}");
        }
    }

    #[test]
    fn members_are_bounded() {
        let many = |n: usize| {
            let members: Vec<_> = (0..n).map(|i| format!("\"{i}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(Object::read(many(MEMBERS_MAX).as_bytes()).is_ok());
        let over = many(MEMBERS_MAX + 1);
        assert_eq!(
            Object::read(over.as_bytes()).err(),
            Some(BodyFault::TooMuch)
        );
    }

    #[test]
    fn objects_in_an_array_are_entered_and_arrays_in_an_array_are_not() {
        let at = |text: &str| {
            let value: &RawValue = serde_json::from_str(text).unwrap();
            let found: Result<Vec<_>, BodyFault> = objects(value)?
                .map(|object| Ok(object?.get("b", Spelling::Exact)?.is_some()))
                .collect();
            found
        };
        assert_eq!(at(r#"[{"b":1},{"c":3},4]"#), Ok(vec![true, false]));
        assert_eq!(at(r#"{"b":1}"#), Ok(vec![true]));
        assert_eq!(at(r#""b""#), Ok(vec![]));
        assert_eq!(at(r#"[[{"b":1}]]"#), Err(BodyFault::Nesting));
        assert_eq!(at(r#"[{"b":1,"b":1}]"#), Err(BodyFault::Duplicate));
    }
}
