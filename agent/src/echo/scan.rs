//! One pass over one piece of text: where the key is, and where it may have begun when the text ends.

use std::ops::Range;

use memchr::{memchr2, memchr3, memmem};

use super::MASKS;
use super::alphabet::Signs;
use super::form::{Anchored, Base64, Form, Hex, Raw, Step, Text};

/// Shorter keys are not looked for: no provider has them, and masking every short word that looks like one would only break answers.
const KEY_MIN: usize = 8;

/// Below this, building a searcher costs more than it saves.
const SEARCHER_MIN: usize = 64;

/// What follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Something that is not known yet.
    Open,
    /// Something that no form of the key can contain.
    Broken,
    /// Something, but it did not come in time.
    Paused,
    /// Nothing.
    Over,
}

/// What a scan has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Where the key stands, in no order. They may overlap.
    pub(super) hits: Vec<Range<usize>>,
    /// From here on a copy may have begun. It depends on what kind of characters the text ends with, and not on which: what is withheld is
    /// seen by the app, which must not be able to ask whether a guess is right so far.
    pub(super) open: Option<usize>,
}

impl Found {
    fn hit(&mut self, range: Range<usize>) {
        self.hits.push(range);
    }
}

/// The key to look for. Borrowed for one call; nothing made from it outlives the call.
pub(super) struct Needle<'k> {
    key: &'k [u8],
    /// What its copies consist of.
    signs: Signs,
}

impl<'k> Needle<'k> {
    pub(super) fn new(key: &'k [u8]) -> Option<Self> {
        if key.len() < KEY_MIN {
            return None;
        }
        let signs = Signs::of(key);
        Some(Self { key, signs })
    }

    /// What stands for a byte of it.
    pub(super) fn mask(&self) -> u8 {
        let absent = MASKS.into_iter().find(|sign| !self.key.contains(sign));
        absent.unwrap_or(MASKS[0])
    }

    /// How much of `text` a form of the key can go on with.
    pub(super) fn goes_on(&self, text: &[u8]) -> usize {
        self.signs.run_end(text, 0)
    }

    /// Finds the key in `text`.
    pub(super) fn scan(&self, text: &[u8], end: End) -> Found {
        let mut found = Found::default();
        let mut from = 0;
        while let Some(run) = self.signs.long_run(text, from, self.key.len()) {
            from = run.end;
            self.find_in(text, run, end, &mut found);
        }
        if matches!(end, End::Open | End::Paused) {
            let open = self.signs.last_run(text, self.length_max(text));
            found.open = (open < text.len()).then_some(open);
        }
        found
    }

    /// How long a copy of the key can be that has begun in `text`. Of the key, only its length counts.
    fn length_max(&self, text: &[u8]) -> usize {
        let escaped = Text::UNIT_MAX * self.key.len();
        let near = &text[text.len().saturating_sub(escaped)..];
        match memchr2(b'%', b'\\', near) {
            Some(_) => escaped,
            // In hex, or in base64 with what stands around it.
            None => 2 * self.key.len(),
        }
    }

    /// Finds whole copies in one long run.
    fn find_in(&self, text: &[u8], run: Range<usize>, end: End, found: &mut Found) {
        let escaped = self.escaped(end);
        anchored(&Raw(self.key), text, &run, found);
        self.each_escaped(&text[run.clone()], |at| {
            whole(&escaped, text, run.start + at, found);
        });
        for lead in Base64::LEADS {
            anchored(&Base64::new(self.key, lead), text, &run, found);
        }
        anchored(&Hex(self.key), text, &run, found);
    }

    fn escaped(&self, end: End) -> Text<'k> {
        Text {
            key: self.key,
            goes_on: matches!(end, End::Open | End::Paused),
        }
    }

    /// Places where the key may begin, if anything in `text` is escaped at all.
    fn each_escaped(&self, text: &[u8], mut place: impl FnMut(usize)) {
        if memchr2(b'%', b'\\', text).is_none() {
            return;
        }
        let mut from = 0;
        while let Some(at) = memchr3(self.key[0], b'%', b'\\', &text[from..]) {
            place(from + at);
            from += at + 1;
        }
    }
}

/// Finds whole copies of a form whose length is known by some characters that they all have.
fn anchored(form: &impl Anchored, text: &[u8], run: &Range<usize>, found: &mut Found) {
    if run.len() < form.length() {
        return;
    }
    match form.anchor() {
        Some((before, chars)) => each(&text[run.clone()], &chars[..], |at| {
            if let Some(at) = at.checked_sub(before) {
                whole(form, text, run.start + at, found);
            }
        }),
        None => run.clone().for_each(|at| whole(form, text, at, found)),
    }
}

fn whole(form: &impl Form, text: &[u8], start: usize, found: &mut Found) {
    if let Step::Whole(end) = form.at(text, start) {
        found.hit(start..end);
    }
}

/// Every place of `needle` in `text`, also where they overlap.
fn each(text: &[u8], needle: &[u8], mut place: impl FnMut(usize)) {
    if text.len() < SEARCHER_MIN {
        let windows = text.windows(needle.len()).enumerate();
        for (at, _) in windows.filter(|&(_, window)| window == needle) {
            place(at);
        }
        return;
    }
    let finder = memmem::Finder::new(needle);
    let mut from = 0;
    while let Some(at) = finder.find(&text[from..]) {
        place(from + at);
        from += at + 1;
    }
}
