//! What is withheld, and what a pause lets go.

use super::*;

fn fed(key: &[u8], piece: &[u8]) -> (Guard, Vec<u8>) {
    let (mut guard, mut out) = (Guard::new(), Vec::new());
    guard.feed(key, piece, &mut out);
    (guard, out)
}

#[test]
fn what_is_withheld_depends_on_the_kind_of_characters_and_not_on_which() {
    let key = key("sk-proj-", 164);
    for (piece, held) in [
        ("data: {\"delta\":\"task\"}\n\n", 0),
        ("{\"id\":1}", 0),
        ("the end.\n", 0),
        ("日本語…\n", 0),
        ("x ", 0),
        ("***", 0),
        ("Hello", 5),
        ("key: sk-proj-", 8),
        ("key: ab-cdef-", 8),
        ("a\\", 2),
        ("sk-pro*w!", 0),
    ] {
        let (guard, out) = fed(&key, piece.as_bytes());
        assert_eq!(out.len(), piece.len() - held, "{piece}");
        assert_eq!(guard.holding(), held > 0, "{piece}");
    }
    // A right guess of any length looks like a wrong one.
    for length in 1..key.len() {
        let wrong = vec![b'A'; length];
        let (right, out) = fed(&key, &[b"so: ", &key[..length]].concat());
        let (other, same) = fed(&key, &[b"so: ", &wrong[..]].concat());
        assert_eq!((out, right.holding()), (same, other.holding()), "{length}");
    }
}

#[test]
fn a_pause_releases_what_is_withheld_and_the_rest_of_a_slow_echo_is_masked() {
    let key = key("sk-proj-", 164);
    for length in [1, 8, 19, 20, 163] {
        let (mut guard, mut out) = fed(&key, &[b"so: ", &key[..length]].concat());
        assert_eq!(out, b"so: ");
        guard.flush(&key, &mut out);
        assert!(!guard.holding());
        assert_eq!(out[4..], key[..length]);
        guard.feed(&key, &[&key[length..], b" end"].concat(), &mut out);
        guard.finish(&key, &mut out);
        assert_eq!(
            out[4 + length..],
            [vec![b'*'; 164 - length], b" end".to_vec()].concat()
        );
        assert_eq!(guard.hits(), 1);
        // What only began like it goes on unchanged.
        let (mut guard, mut out) = fed(&key, &key[..length]);
        guard.flush(&key, &mut out);
        guard.feed(&key, b" else", &mut out);
        guard.finish(&key, &mut out);
        assert_eq!(out[length..], *b" else");
        assert_eq!(guard.hits(), 0);
    }
}

#[test]
fn a_part_of_the_key_is_no_hit_however_long() {
    let key = key("sk-", 51);
    for length in [19, 20, 50] {
        let (out, hits) = guarded(&key, [&key[..length]]);
        assert_eq!((out.as_slice(), hits), (&key[..length], 0));
    }
}

#[test]
fn nothing_is_printed_of_what_is_withheld() {
    let key = key("sk-proj-", 164);
    let (guard, _) = fed(&key, &key[..100]);
    let printed = format!("{guard:?}");
    assert!(guard.holding() && !printed.contains("sk-proj"), "{printed}");
}

#[test]
fn what_is_withheld_is_bounded() {
    let key = key("sk-", 51);
    for unit in ["sk-sk-sk", "*", "\\", "%25", "xXx", "…", "A", "\\\\u0073"] {
        let mut guard = Guard::new();
        let (mut out, mut fed) = (Vec::new(), 0);
        while fed < 20_000 {
            guard.feed(&key, unit.as_bytes(), &mut out);
            fed += unit.len();
            assert!(fed - out.len() <= 13 * key.len(), "{unit}");
            assert!(guard.tail.bytes().len() <= 13 * key.len(), "{unit}");
        }
        guard.finish(&key, &mut out);
        assert_eq!(out.len(), fed);
    }
}
