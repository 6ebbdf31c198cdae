//! What a document said: the values that were asked for, the length of the model's text, and the bare counts.

use super::field::Field;

/// Values kept of one document. An honest one has five.
const FOUND_MAX: usize = 16;
/// Bytes for which room is made at first: a model's name, a report, the beginning of the choices.
const RAW_USUAL: usize = 512;
/// Bytes kept of one document: one of Bedrock's inner events, and the rest.
const RAW_MAX: usize = 72 * 1024;

/// What a document said.
#[derive(Default)]
pub(super) struct Facts {
    /// The kept values, one after the other.
    raw: Vec<u8>,
    found: Vec<(Field, std::ops::Range<usize>)>,
    /// Values too long to keep: a bit for each field.
    long: u16,
    /// Bytes of the model's text, decoded to within an escape.
    pub(super) text: u64,
    /// The model said why it stopped.
    pub(super) finished: bool,
    /// Bare counts, added up.
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
}

impl Facts {
    /// The kept values in the order in which they came.
    pub(super) fn found(&self) -> impl Iterator<Item = (Field, &[u8])> {
        self.found
            .iter()
            .map(|(field, range)| (*field, &self.raw[range.clone()]))
    }

    /// The last value of this kind.
    pub(super) fn last(&self, field: Field) -> Option<&[u8]> {
        let (_, range) = self.found.iter().rfind(|(found, _)| *found == field)?;
        Some(&self.raw[range.clone()])
    }

    /// Whether a value was too long to keep.
    pub(super) fn was_long(&self, field: Field) -> bool {
        self.long & field.bit() != 0
    }

    pub(super) fn clear(&mut self) {
        self.raw.clear();
        self.found.clear();
        self.long = 0;
        self.text = 0;
        self.finished = false;
        self.input = None;
        self.output = None;
    }

    /// Where the next value will begin.
    pub(super) fn end(&self) -> usize {
        self.raw.len()
    }

    /// Appends to the value that began at `from`. Says whether it may still be kept; if not, it is forgotten, but not that it was there.
    pub(super) fn append(&mut self, field: Field, from: usize, value: &[u8]) -> bool {
        let all = self.raw.len() + value.len();
        if all - from > field.len_max() || all > RAW_MAX {
            self.raw.truncate(from);
            self.long |= field.bit();
            return false;
        }
        if self.raw.capacity() == 0 {
            self.raw.reserve(RAW_USUAL);
        }
        self.raw.extend_from_slice(value);
        true
    }

    /// The value that began at `from` is whole.
    pub(super) fn keep(&mut self, field: Field, from: usize) {
        let value = &self.raw[from..];
        match field {
            Field::Input | Field::Output => {
                let count = std::str::from_utf8(value)
                    .ok()
                    .and_then(|digits| digits.parse().ok());
                let sum = if field == Field::Input {
                    &mut self.input
                } else {
                    &mut self.output
                };
                *sum = match (*sum, count) {
                    (Some(sum), Some(count)) => Some(u64::saturating_add(sum, count)),
                    (sum, count) => sum.or(count),
                };
                self.raw.truncate(from);
            }
            _ if self.found.len() < FOUND_MAX => self.found.push((field, from..self.raw.len())),
            _ => self.raw.truncate(from),
        }
    }
}
