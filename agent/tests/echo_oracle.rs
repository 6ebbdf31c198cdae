//! The echo guard as an oracle: an app can have a provider repeat what the app wrote (files, `instructions`, errors), and must learn nothing of
//! the key from what becomes of its guesses, neither from the bytes nor from when they come.
#![allow(clippy::unwrap_used)]

use agent::echo::{Guard, blank_masks};

/// A key of Mistral: 32 letters and digits. Azure's have 32 hexadecimal digits.
const KEY: &str = "q7Rz2Lm9VcV4bN8sKd1HwT6yPf3GjA5e";

/// Everything that an app can see of an answer in these pieces: what comes after each of them.
fn seen(pieces: &[&str]) -> Vec<Vec<u8>> {
    let mut guard = Guard::new();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut out = Vec::new();
        guard.feed(KEY.as_bytes(), piece.as_bytes(), &mut out);
        seen.push(out);
        let mut out = Vec::new();
        if guard.holding() {
            guard.flush(KEY.as_bytes(), &mut out);
        }
        seen.push(out);
    }
    let mut out = Vec::new();
    guard.finish(KEY.as_bytes(), &mut out);
    seen.push(out);
    seen
}

/// The shapes in which an app may try a guess.
fn tries(guess: &str) -> Vec<Vec<String>> {
    let end = &guess[guess.len().saturating_sub(4)..];
    vec![
        vec![format!("x {guess}")],
        vec![format!("x {guess}"), " y".to_owned()],
        vec![format!("{guess}***{end}")],
        vec![format!("***{end} \n")],
        vec![format!("{}…{end}", &guess[..guess.len().min(8)])],
    ]
}

#[test]
fn a_right_guess_of_a_part_looks_like_a_wrong_one() {
    let wrong: String = KEY.chars().rev().collect();
    for length in 2..KEY.len() {
        for (at, other) in [(0, 0), (KEY.len() - length, KEY.len() - length)] {
            let (right, wrong) = (&KEY[at..at + length], &wrong[other..other + length]);
            for (right_try, wrong_try) in tries(right).iter().zip(tries(wrong)) {
                let of = |pieces: &[String]| {
                    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                    let lengths: Vec<usize> = seen(&pieces).iter().map(Vec::len).collect();
                    let text = seen(&pieces).concat();
                    (lengths, text == pieces.concat().into_bytes())
                };
                assert_eq!(of(right_try), of(&wrong_try), "{right_try:?}");
            }
        }
    }
    // The neighbour: all of it is no guess any more.
    assert!(!seen(&[&format!("x {KEY} y")]).concat().ends_with(b"e y"));
}

#[test]
fn masks_in_errors_are_blanked_whoevers_they_are() {
    for end in [&KEY[28..], "aaaa"] {
        let mut text = format!("key ****{end} is wrong").into_bytes();
        blank_masks(&mut text);
        assert_eq!(text, b"key ******** is wrong");
    }
}
