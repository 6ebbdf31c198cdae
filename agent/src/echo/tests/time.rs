//! What is withheld, and what a pause lets go.

use super::*;

fn fed(key: &[u8], piece: &[u8]) -> (Guard, Vec<u8>) {
    let (mut guard, mut out) = (Guard::new(), Vec::new());
    guard.feed(key, piece, &mut out);
    (guard, out)
}

#[test]
fn only_the_beginning_of_a_hit_is_withheld() {
    let key = key("sk-proj-", 164);
    let free = [
        "data: {\"delta\":\"task\"}\n\n",
        "{\"id\":1}",
        "the end.\n",
        "Hello",
        "日本語…\n",
        "x ",
        "....",
        "***",
    ];
    for piece in free {
        let (guard, out) = fed(&key, piece.as_bytes());
        assert_eq!(out, piece.as_bytes(), "{piece}");
        assert!(!guard.holding(), "{piece}");
    }
    let held = [
        ("key: sk-proj-", 8),
        ("as", 1),
        ("%", 1),
        ("a\\", 1),
        ("\\u00", 4),
        ("sk-proj-***", 11),
        ("sk-proj-\u{2026}Q7", 13),
        ("***Q7", 2),
        ("sk-pro*w!", 0),
        ("sk***wZ", 7),
    ];
    for (piece, held) in held {
        let (guard, out) = fed(&key, piece.as_bytes());
        assert_eq!(out.len(), piece.len() - held, "{piece}");
        assert_eq!(guard.holding(), held > 0, "{piece}");
    }
}

#[test]
fn a_pause_releases_what_may_be_anything_and_masks_what_cannot() {
    let key = key("sk-proj-", 164);
    for (length, masked) in [(1, false), (8, false), (19, false), (20, true), (163, true)] {
        let (mut guard, mut out) = fed(&key, &[b"so: ", &key[..length]].concat());
        assert_eq!(out, b"so: ");
        guard.flush(&key, &mut out);
        assert!(!guard.holding());
        let expected = if masked {
            vec![b'*'; length]
        } else {
            key[..length].to_vec()
        };
        assert_eq!(out[4..], expected);
        assert_eq!(guard.hits(), u32::from(masked));
        // The rest of a slow echo is masked all the same, and counts once.
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
    }
}

#[test]
fn an_echo_that_comes_byte_by_byte_shows_less_than_the_fragment() {
    let key = key("sk-ant-api03-", 108);
    let forms = [
        (key.clone(), 19),
        (hex(&key, |_| true), 39),
        (base64(b"a", &key, b"b", true), 27),
        (percent(&key, |_| true, true), 59),
        (json(&key, |_| true, "\\"), 119),
    ];
    for (text, shown) in forms {
        let (mut guard, mut out) = (Guard::new(), Vec::new());
        for byte in text.chunks(1) {
            guard.feed(&key, byte, &mut out);
            guard.flush(&key, &mut out);
            assert!(!guard.holding());
        }
        guard.finish(&key, &mut out);
        assert_eq!(out.len(), text.len());
        let first = out.iter().position(|&byte| byte == b'*').unwrap();
        assert!(first <= shown, "{first} of {}", text.len());
        let last = out.iter().rposition(|&byte| byte == b'*').unwrap();
        assert!(last + 2 >= text.len() && out[first..=last].iter().all(|&byte| byte == b'*'));
        assert_eq!(guard.hits(), 1);
    }
}

#[test]
fn a_body_that_ends_inside_the_key_does_not_show_it() {
    let key = key("sk-", 51);
    for (length, masked) in [(19, false), (20, true), (50, true)] {
        let (out, hits) = guarded(&key, [&key[..length]]);
        assert_eq!(out.iter().all(|&byte| byte == b'*'), masked);
        assert_eq!(hits, u32::from(masked));
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
