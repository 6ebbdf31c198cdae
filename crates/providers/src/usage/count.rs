//! Numbers as anybody writes them: counts that may come as `12`, `12.0`, `null` or something else, and money, exactly.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A count that may be missing. What is no number is "not said", so that one odd field does not cost the whole report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything).map(Self)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E>(self, count: u64) -> Result<Self::Value, E> {
        Ok(Some(count))
    }

    fn visit_i64<E>(self, _negative: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    /// Cohere writes counts as floats. The cast saturates.
    fn visit_f64<E>(self, count: f64) -> Result<Self::Value, E> {
        Ok((count >= 0.0).then(|| count.round() as u64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Digits of a decimal number that are looked at. A cost has fewer; more would not fit the result.
const DIGITS_MAX: usize = 30;

/// A decimal number (`0.00014`, `1.4e-05`, also in quotes) times ten to the power of `scale`, rounded up; `None` when it is negative, no
/// number, or too large. Read from the digits: a float would lose the last ones, and bills are compared to the last digit.
pub(super) fn decimal(text: &str, scale: i32) -> Option<u64> {
    let text = text.trim().trim_matches('"');
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let mut value: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = digit.is_ascii_digit().then(|| u128::from(digit - b'0'))?;
        value = value * 10 + digit;
    }
    let fraction = i32::try_from(fraction.len()).ok()?;
    let power = exponent.checked_add(scale)?.checked_sub(fraction)?;
    let ten = 10_u128.checked_pow(power.unsigned_abs());
    let scaled = match (value, power >= 0, ten) {
        (0, _, _) => 0,
        (value, true, ten) => value.checked_mul(ten?)?,
        (value, false, Some(ten)) => value.div_ceil(ten),
        // Less than the smallest unit, yet not nothing.
        (_, false, None) => 1,
    };
    u64::try_from(scaled).ok()
}

/// US dollars as 1e-12 USD.
pub(super) fn picousd(text: &str) -> Option<u64> {
    decimal(text, 12)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn money_is_read_to_the_last_digit() {
        let cases = [
            ("0", Some(0)),
            ("0.00014", Some(140_000_000)),
            ("1.4e-05", Some(14_000_000)),
            ("1E-7", Some(100_000)),
            ("2.5e+1", Some(25_000_000_000_000)),
            ("\"0.25\"", Some(250_000_000_000)),
            // 0.1 + 0.2 as a float prints: seventeen digits, rounded up to the unit.
            ("0.30000000000000004", Some(300_000_000_001)),
            ("1e-13", Some(1)),
            ("1e-400", Some(1)),
            ("0e999", Some(0)),
            ("18446744.073709551615", Some(u64::MAX)),
            ("18446744.073709551616", None),
            ("1e400", None),
            ("-0.1", None),
            ("1e", None),
            ("1.2.3", None),
            (".5", None),
            ("null", None),
            ("", None),
            ("1e99999999999", None),
            ("0.0000000000000000000000000000001", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(picousd(text), wanted, "{text}");
        }
        assert_eq!(decimal("9.82", 3), Some(9820));
    }

    #[test]
    fn a_count_is_a_number_or_not_said() {
        let read = |text: &str| serde_json::from_str::<Count>(text).unwrap().0;
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("506.0"), Some(506));
        assert_eq!(read("1e300"), Some(u64::MAX));
        for other in ["-1", "null", "true", "\"12\"", "[1,2]", "{\"a\":1}", "-0.5"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
