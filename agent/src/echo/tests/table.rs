//! One line per encoding, with its nearest neighbour.

use super::*;

/// Keys as providers make them: length and alphabet decide what is looked for and how.
fn keys() -> Vec<Vec<u8>> {
    vec![
        key("sk-proj-", 164),
        key("sk-ant-api03-", 108),
        key("sk-", 51),
        key("xai-", 84),
        key("", 32),
        key("AQ.", 53),
        key("test-key", 13),
        // What base64 writes differently in its two alphabets, and what only an operator's own provider would use.
        key("~?>~~?>/+=\"{$}~~~?>", 40),
    ]
}

#[test]
fn the_key_as_it_is_and_behind_bearer_is_masked() {
    for key in keys() {
        assert_masked(&key, &key, "raw");
        let bearer = [b"Bearer ".as_slice(), &key].concat();
        assert_part_masked(&key, &bearer, 7..bearer.len(), "bearer");
    }
}

#[test]
fn a_key_with_one_byte_changed_passes_in_every_encoding() {
    for key in keys() {
        for at in [0, 1, key.len() / 2, key.len() - 2, key.len() - 1] {
            let other = changed(&key, at);
            assert_passes(&key, &other, "raw");
            assert_passes(&key, &percent(&other, |_| true, false), "percent");
            assert_passes(&key, &json(&other, |at| at % 2 == 0, "\\"), "json");
            assert_passes(&key, &hex(&other, |_| false), "hex");
            for before in ["", "a", "ab"] {
                assert_passes(
                    &key,
                    &base64(before.as_bytes(), &other, b":x", false),
                    "base64",
                );
            }
        }
    }
}

#[test]
fn an_unfinished_key_another_key_and_public_beginnings_pass() {
    let key = key("sk-proj-", 164);
    let other: Vec<u8> = key[..8]
        .iter()
        .chain(key[8..].iter().rev())
        .copied()
        .collect();
    assert_passes(&key, &other, "another key");
    for length in [8, 12, 19, 163] {
        let text = [&key[..length], b" and so on"].concat();
        assert_passes(&key, &text, "unfinished");
        let text = [&base64(b"", &key[..length], b"", false), &b" and so on"[..]].concat();
        assert_passes(&key, &text, "unfinished base64");
    }
    for text in [
        "keys begin with sk-proj-, as in sk-proj-...",
        "sk-proj-****",
        "Q7wZ",
        "say Q7wZ... or ...7wZ",
    ] {
        assert_passes(&key, text.as_bytes(), text);
    }
}

#[test]
fn percent_encoding_of_any_bytes_in_either_case_is_masked() {
    for key in keys() {
        for lower in [true, false] {
            assert_masked(&key, &percent(&key, |_| true, lower), "all");
            assert_masked(
                &key,
                &percent(&key, |at| !key[at].is_ascii_alphanumeric(), lower),
                "signs",
            );
            assert_masked(
                &key,
                &percent(&key, |at| at % 3 == 0 || key[at] == b'%', lower),
                "some",
            );
            let twice = percent(&percent(&key, |_| true, lower), |at| at % 3 == 0, lower);
            assert_masked(&key, &twice, "twice");
        }
    }
}

#[test]
fn json_escapes_of_any_bytes_are_masked() {
    for key in keys() {
        for backslashes in ["\\", "\\\\", "\\\\\\\\"] {
            if key.len() * backslashes.len() > 164 {
                continue;
            }
            assert_masked(&key, &json(&key, |_| true, backslashes), "all");
            assert_masked(
                &key,
                &json(&key, |at| !key[at].is_ascii_alphanumeric(), backslashes),
                "signs",
            );
            assert_masked(
                &key,
                &json(&key, |at| at % 3 == 1 || key[at] == b'"', backslashes),
                "some",
            );
        }
    }
    let key = key("ab/c\"/", 40);
    let text = String::from_utf8(key.clone()).unwrap();
    let escaped = text.replace('/', "\\/").replace('"', "\\\"");
    assert_masked(&key, escaped.as_bytes(), "slash and quote");
    assert_masked(&key, escaped.replace('\\', "\\\\\\").as_bytes(), "twice");
    assert_passes(&key, escaped.replace("c\\", "d\\").as_bytes(), "another");
    assert_masked(&key, text.replace('/', "\\x2F").as_bytes(), "as in Python");
}

#[test]
fn hex_in_any_case_is_masked() {
    for key in keys() {
        assert_masked(&key, &hex(&key, |_| false), "lower");
        assert_masked(&key, &hex(&key, |_| true), "upper");
        assert_masked(&key, &hex(&key, |at| at % 3 == 0), "mixed");
    }
}

#[test]
fn base64_is_masked_at_every_alignment_in_both_alphabets() {
    for key in keys() {
        for url in [false, true] {
            for before in ["", "a", "ab", "abc", "user:", "Bearer "] {
                for after in ["", ":y"] {
                    let text = base64(before.as_bytes(), &key, after.as_bytes(), url);
                    let start = before.len() * 4 / 3;
                    let end = ((before.len() + key.len()) * 8).div_ceil(6);
                    assert_part_masked(&key, &text, start..end, "base64");
                }
            }
        }
    }
}

#[test]
fn a_mask_of_the_key_is_none_of_its_encodings() {
    // A guard that blanked it would confirm guesses; see `mask`.
    let key = key("sk-proj-", 164);
    for text in ["sk-proj-****Q7wZ", "****Q7wZ", "sk***wZ"] {
        assert_passes(&key, text.as_bytes(), text);
    }
    // Seconds if each place were looked at.
    let row = vec![b'x'; 1_000_000];
    assert_eq!(guarded(&key, row.chunks(10_000)), (row.clone(), 0));
}

#[test]
fn several_copies_are_masked_and_counted() {
    let key = key("sk-", 51);
    let text = [&key[..], &key, b" ", &hex(&key, |_| false), b"/", &key].concat();
    let (out, hits) = however_cut(&key, &text);
    assert_eq!(hits, 4);
    let expected = [
        "*".repeat(102),
        " ".into(),
        "*".repeat(102),
        "/".into(),
        "*".repeat(51),
    ]
    .concat();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_word_that_is_too_short_to_be_a_key_is_left_alone() {
    assert_passes(b"example", b"an example of an example", "7 bytes");
    let (out, hits) = however_cut(b"example1", b"an example1 of an example.");
    assert_eq!(
        (out.as_slice(), hits),
        (&b"an ******** of an example."[..], 1)
    );
}
