//! One pass over one piece of text: where the key is, and where it may have begun when the text ends.

use std::ops::Range;

use memchr::{memchr, memchr2, memchr3, memmem};

use super::alphabet::Signs;
use super::form::{Anchored, Base64, Form, Hex, Raw, Step, Text};
use super::mask::{self, Masks};

/// Shorter keys are not looked for: no provider has them, and masking every short word that looks like one would only break answers.
const KEY_MIN: usize = 8;

/// A piece of the key this long that is followed by nothing counts as the key. It is longer than the public beginnings of keys
/// (`sk-ant-api03-` has 13 characters), so that it is no coincidence; of a short key, half.
const FRAGMENT: usize = 20;

/// By then, every form but of the strangest keys has a character that can be looked for.
const CERTAIN_MAX: usize = 3;

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
    pub(super) open: Option<Open>,
}

/// A form of the key may have begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// What comes before this can be forgotten.
    pub(super) keep: usize,
    /// What comes before this is no part of the key. Not below `keep`.
    pub(super) from: usize,
}

impl Found {
    pub(super) fn hit(&mut self, range: Range<usize>) {
        self.hits.push(range);
    }

    pub(super) fn hold(&mut self, keep: usize, from: usize) {
        let open = self.open.get_or_insert(Open { keep, from });
        open.keep = open.keep.min(keep);
        open.from = open.from.min(from);
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

    /// How much of `text` a form of the key can go on with.
    pub(super) fn goes_on(&self, text: &[u8]) -> usize {
        let mut at = 0;
        loop {
            at = self.signs.run_end(text, at);
            match text.get(at) {
                Some(&byte) if mask::has(byte) => at += 1,
                _ => return at,
            }
        }
    }

    fn can_contain(&self, byte: u8) -> bool {
        self.signs.has(byte) || mask::has(byte)
    }

    /// Finds the key in `text`. `after_word`: a letter or digit came before it.
    pub(super) fn scan(&self, text: &[u8], after_word: bool, end: End) -> Found {
        let mut found = Found::default();
        let mut from = 0;
        while let Some(run) = self.signs.long_run(text, from, self.key.len()) {
            from = run.end;
            self.find_in(text, run, end, &mut found);
        }
        let masks = Masks {
            key: self.key,
            text,
            after_word,
        };
        masks.find(end, &mut found);
        if end != End::Broken && text.last().is_some_and(|&last| self.can_contain(last)) {
            self.find_begun(text, end, &mut found);
            masks.open(&mut found);
        }
        if end == End::Over {
            found.open = None;
        }
        found
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

    /// Finds copies of which the text has only the beginning.
    fn find_begun(&self, text: &[u8], end: End, found: &mut Found) {
        let length = self.key.len();
        let mut begun = Begun {
            text,
            end,
            found,
            fragment: FRAGMENT.min(length / 2),
        };
        let first = self.signs.last_run(text, 2 * length);
        begun.anchored(&Raw(self.key), first);
        for lead in Base64::LEADS {
            begun.anchored(&Base64::new(self.key, lead), first);
        }
        begun.anchored(&Hex(self.key), first);

        let most = Text::UNIT_MAX * length;
        let near = &text[text.len().saturating_sub(most)..];
        if memchr2(b'%', b'\\', near).is_none() {
            return;
        }
        let (escaped, first) = (self.escaped(end), self.signs.last_run(text, most));
        let mut done = false;
        self.each_escaped(&text[first..], |at| {
            done = done || begun.at(&escaped, first + at);
        });
    }
}

/// Collects copies that have begun.
struct Begun<'a> {
    text: &'a [u8],
    end: End,
    found: &'a mut Found,
    /// How much of the key is unmistakable.
    fragment: usize,
}

impl Begun<'_> {
    /// The earliest copy is the longest. Before `first` there is none.
    fn anchored(&mut self, form: &impl Anchored, first: usize) {
        let length = self.text.len();
        let mut from = first.max(length.saturating_sub(form.length() - 1));
        let certain = |place| form.certain(place).map(|char| (place, char));
        if let Some((place, char)) = (0..CERTAIN_MAX).find_map(certain) {
            while let Some(at) = self
                .text
                .get(from + place..)
                .and_then(|text| memchr(char, text))
            {
                if self.at(form, from + at) {
                    return;
                }
                from += at + 1;
            }
            // What is too short to have that character.
            from = from.max(length.saturating_sub(place));
        }
        (from..length).any(|start| self.at(form, start));
    }

    fn at(&mut self, form: &impl Form, start: usize) -> bool {
        let Step::Cut(matched) = form.at(self.text, start) else {
            return false;
        };
        if self.end != End::Open && matched >= self.fragment {
            self.found.hit(start..self.text.len());
        }
        self.found.hold(start, start);
        true
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
