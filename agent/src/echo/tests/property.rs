//! Generated texts: the key in some encoding somewhere, cut everywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::form::{Base64, Form, Hex, Step, Text};
use super::*;

fn a_key() -> impl Strategy<Value = Vec<u8>> {
    let signs = "[A-Za-z0-9_-]{8,60}";
    let prefix = select(vec!["", "sk-", "sk-proj-", "sk-ant-api03-", "AIza"]);
    prop_oneof![
        8 => (prefix, signs).prop_map(|(prefix, rest)| format!("{prefix}{rest}").into_bytes()),
        // Not the backslash: its double is a character escaped once, or half of one escaped twice.
        1 => "[!-\\[\\]-~]{8,40}".prop_map(String::into_bytes),
    ]
}

fn prose() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~\n]{0,80}".prop_map(String::into_bytes),
        "([a-z]{1,9}[ .,]){0,12}".prop_map(String::into_bytes),
        "\\PC{0,30}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..60),
    ]
}

/// An encoding, by number; `chosen` says which bytes it touches where it may choose.
fn encode(key: &[u8], number: u8, chosen: u64) -> Vec<u8> {
    let touch = |at: usize| chosen >> (at % 64) & 1 == 1;
    match number {
        0 => key.to_vec(),
        1 => percent(key, |at| touch(at) || key[at] == b'%', chosen & 1 == 0),
        2 => json(key, |at| touch(at) || matches!(key[at], b'"' | b'\\'), "\\"),
        3 => json(key, |_| true, "\\\\"),
        4 => hex(key, touch),
        _ => base64(&b"user:x"[..chosen as usize % 7], key, b":z", number == 5),
    }
}

/// Every encoding decoded, anywhere: what a reader of `text` could try to find the key.
fn is_readable(key: &[u8], text: &[u8]) -> bool {
    let contains = |text: &[u8]| text.windows(key.len()).any(|window| window == key);
    let lower = text.to_ascii_lowercase();
    contains(text)
        || lower
            .windows(2 * key.len())
            .any(|window| window == hex(key, |_| false))
        || (0..4).any(|skip| {
            let text: Vec<u8> = text
                .iter()
                .map(|byte| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => *byte,
                })
                .collect();
            // Each stretch that base64 can be, from each offset.
            text.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/'))
                .filter_map(|run| run.get(skip..))
                .any(|run| {
                    let run = &run[..run.len() - run.len() % 4];
                    STANDARD.decode(run).is_ok_and(|bytes| contains(&bytes))
                })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_embedded_key_never_comes_through_however_the_text_is_cut(
        key in a_key(), before in prose(), after in prose(), number in 0..7_u8, chosen: u64, cuts: [Index; 2],
    ) {
        let copy = encode(&key, number, chosen);
        let text = [&before[..], &copy, &after].concat();
        let (out, hits) = however_cut(&key, &text);
        prop_assert!(hits > 0);
        prop_assert!(!is_readable(&key, &out));
        // What stands around it is not touched.
        prop_assert_eq!(&out[..before.len().saturating_sub(8)], &before[..before.len().saturating_sub(8)]);
        prop_assert_eq!(&out[text.len() - after.len()..], &after[..]);
        let mut cuts = cuts.map(|cut| cut.index(text.len() + 1));
        cuts.sort_unstable();
        let pieces = [&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[1]..]];
        prop_assert_eq!(guarded(&key, pieces), (out, hits));
    }

    #[test]
    fn text_without_the_key_is_not_changed(key in a_key(), text in vec(prose(), 1..5), number in 0..7_u8, at: Index) {
        // Not the first byte, which an escape of another one can end with: `%71a` has `1a` in it.
        let other = encode(&changed(&key, 1 + at.index(key.len() - 1)), number, 0x5555);
        let text = [text.concat(), other, text.concat()].concat();
        let (out, hits) = however_cut(&key, &text);
        prop_assert_eq!(out, text);
        prop_assert_eq!(hits, 0);
    }

    /// Text made of nothing but parts of copies, for keys that repeat themselves: what is skipped unread must hold nothing.
    #[test]
    fn nothing_is_skipped_that_a_look_at_every_place_would_find(
        key in "[ab]{8,12}|(ab-){3,4}|[a%u]{8,9}", picks in vec((0..9_u8, any::<u64>(), any::<Index>(), any::<Index>()), 1..14), cuts: [Index; 2],
    ) {
        let key = key.as_bytes();
        let mut text = Vec::new();
        for (number, chosen, from, to) in picks {
            let part = match number {
                0..7 => encode(key, number, chosen),
                7 => b"***...\xe2\x80\xa6\\u2026xx".to_vec(),
                _ => b" \\\\%25".to_vec(),
            };
            let (mut from, mut to) = (from.index(part.len() + 1), to.index(part.len() + 1));
            if chosen % 3 == 0 {
                (from, to) = (0, part.len());
            }
            text.extend_from_slice(&part[from.min(to)..from.max(to)]);
        }
        let (out, _) = however_cut(key, &text);
        let [one, two, three] = Base64::LEADS.map(|lead| Base64::new(key, lead));
        let escaped = Text { key, goes_on: false };
        let forms: [&dyn Form; 5] = [&escaped, &Hex(key), &one, &two, &three];
        for start in 0..text.len() {
            for form in forms {
                if let Step::Whole(end) = form.at(&text, start) {
                    prop_assert!(out[start..end].iter().all(|&byte| byte == b'*'));
                }
            }
        }
        let mut cuts = cuts.map(|cut| cut.index(text.len() + 1));
        cuts.sort_unstable();
        let pieces = [&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[1]..]];
        prop_assert_eq!(guarded(key, pieces).0, out);
    }
}
