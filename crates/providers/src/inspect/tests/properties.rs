//! Bodies of every shape, held against a full parser.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// JSON of any shape, whose keys are often those that matter.
fn json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("model".to_owned()),
        Just("stream".to_owned()),
        Just("stream_options".to_owned()),
        Just("include_usage".to_owned()),
        Just("tools".to_owned()),
        Just("type".to_owned()),
        Just("models".to_owned()),
        "\\PC{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn document() -> impl Strategy<Value = Map<String, Value>> {
    let rest = prop::collection::btree_map("\\PC{0,5}", json(), 0..5);
    let model = prop::option::of("[a-z/:.\u{e9}\"\\\\]{1,8}");
    let options = prop::option::of(json());
    (rest, model, any::<bool>(), options).prop_map(|(rest, model, stream, options)| {
        let mut map: Map<String, Value> = rest.into_iter().collect();
        map.extend(model.map(|model| ("model".to_owned(), model.into())));
        map.insert("stream".into(), stream.into());
        map.extend(options.map(|options| ("stream_options".to_owned(), options)));
        map
    })
}

/// Writes with blanks and escapes that mean nothing.
fn written(map: &Map<String, Value>, noisy: bool) -> String {
    if !noisy {
        return Value::Object(map.clone()).to_string();
    }
    let escaped = |text: &str| -> String {
        let units: String = text
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04X}"))
            .collect();
        format!("\"{units}\"")
    };
    let members = map.iter().map(|(key, value)| match value {
        Value::String(text) => format!("\t{} :\n{} ", escaped(key), escaped(text)),
        value => format!(" {} : {value}\r\n", escaped(key)),
    });
    format!(" {{{}}}\n", members.collect::<Vec<_>>().join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_model_is_the_one_that_a_full_parser_reads(map in document(), noisy: bool) {
        let body = written(&map, noisy);
        let whole: Value = serde_json::from_str(&body).unwrap();
        if let Ok(found) = chat(&body) {
            prop_assert_eq!(found.models.first().map(String::as_str), whole.get("model").and_then(Value::as_str));
            prop_assert_eq!(found.stream, whole["stream"] == Value::Bool(true));
        }
    }

    #[test]
    fn edits_yield_the_document_that_was_meant(map in document(), noisy: bool, alias in "\\PC{1,8}") {
        let body = written(&map, noisy);
        let Ok(found) = chat(&body) else { return Ok(()) };
        let mut edits = found.alias_edits(map.get("model").and_then(Value::as_str).unwrap_or_default(), &alias);
        edits.extend(found.usage_edit.clone());
        let edited: Value = serde_json::from_slice(&apply(body.as_bytes(), &edits)).unwrap();
        let mut wanted = map.clone();
        if map.contains_key("model") {
            wanted.insert("model".into(), alias.into());
        }
        let options = wanted.get("stream_options").cloned().unwrap_or_default();
        if found.stream && (options.is_object() || options.is_null()) {
            let mut options = options.as_object().cloned().unwrap_or_default();
            options.insert("include_usage".into(), true.into());
            wanted.insert("stream_options".into(), options.into());
        }
        prop_assert_eq!(edited, Value::Object(wanted));
    }

    #[test]
    fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), form: bool) {
        let (api, call) = call("openai", "POST /v1/files");
        let kind = if form { "multipart/form-data; boundary=a" } else { "application/json" };
        let _ = inspect(api, &call, kind, &bytes);
    }
}
