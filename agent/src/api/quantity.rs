//! Quantities: `500m`, `64Mi`, `1e3`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest text that is read as a quantity: the API server's own canonical form never has more than
/// 19 digits, a sign, a point and a suffix.
const MAX_TEXT: usize = 64;

/// A `resource.Quantity`, kept as it was written. Values are reckoned when asked for, in 128 bits, and
/// stop at the ends of `i64` rather than overflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantity(pub String);

impl Quantity {
    /// Whole units, fractions rounded up, as Kubernetes' `Value()`. `None`: not a quantity.
    #[must_use]
    pub fn value(&self) -> Option<i64> {
        scaled(&self.0, 1)
    }

    /// Thousandths, finer parts rounded up, as Kubernetes' `MilliValue()`. `None`: not a quantity.
    #[must_use]
    pub fn milli(&self) -> Option<i64> {
        scaled(&self.0, 1000)
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a suffix multiplies by: `2^binary · 10^decimal`.
fn suffix(text: &str) -> Option<(u32, i32)> {
    Some(match text {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = text.strip_prefix(['e', 'E'])?;
            // An exponent that i16 does not hold is as good as infinite or zero, but also nonsense.
            (0, i32::from(exponent.parse::<i16>().ok()?))
        }
    })
}

/// `text` times `per_unit`, rounded away from zero.
fn scaled(text: &str, per_unit: i128) -> Option<i64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (binary, mut decimal) = suffix(unit)?;
    let mut mantissa: i128 = 0;
    for (digit, after_point) in whole.bytes().map(|b| (b, false)).chain(fraction.bytes().map(|b| (b, true))) {
        let digit = i128::from(digit.saturating_sub(b'0'));
        mantissa = mantissa.saturating_mul(10).saturating_add(digit);
        if after_point {
            decimal = decimal.saturating_sub(1);
        }
    }
    let up = mantissa
        .saturating_mul(per_unit)
        .saturating_mul(1_i128.checked_shl(binary).unwrap_or(i128::MAX))
        .saturating_mul(power_of_ten(decimal));
    let down = power_of_ten(decimal.saturating_neg());
    let value = i64::try_from(up / down + i128::from(up % down != 0)).unwrap_or(i64::MAX);
    Some(if negative { value.saturating_neg() } else { value })
}

/// `10^exponent`; 1 for negative exponents.
fn power_of_ten(exponent: i32) -> i128 {
    u32::try_from(exponent).map_or(1, |exponent| 10_i128.saturating_pow(exponent))
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// A string, or a plain number as people write it in manifests.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Number(serde_json::Number),
        }
        Ok(Quantity(match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_and_thousandths_of_every_suffix() {
        for (text, value, milli) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("500m", 1, 500),
            ("1500m", 2, 1500),
            ("0.1", 1, 100),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("100n", 1, 1),
            ("100u", 1, 1),
            ("2k", 2000, 2_000_000),
            ("2M", 2_000_000, 2_000_000_000),
            ("1G", 1_000_000_000, 1_000_000_000_000),
            ("1T", 1_000_000_000_000, 1_000_000_000_000_000),
            ("1P", 1_000_000_000_000_000, 1_000_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1Ki", 1024, 1_024_000),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1Ti", 1 << 40, 1000 << 40),
            ("1Pi", 1 << 50, 1000 << 50),
            ("1Ei", 1 << 60, i64::MAX),
            ("1e3", 1000, 1_000_000),
            ("1E3", 1000, 1_000_000),
            ("12e-1", 2, 1200),
            ("1e30000", i64::MAX, i64::MAX),
            ("1e-30000", 1, 1),
            ("0e-30000", 0, 0),
            ("99999999999999999999999999999999999999999999999", i64::MAX, i64::MAX),
            ("-2", -2, -2000),
            ("+2", 2, 2000),
        ] {
            let quantity = Quantity::from(text);
            assert_eq!((quantity.value(), quantity.milli()), (Some(value), Some(milli)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        let long = "1".repeat(MAX_TEXT + 1);
        for text in ["", ".", "-", "m", "1x", "1.2.3", "1 Ki", "1e", "1ee3", "0x10", "1e99999", "1Kié", &long]
        {
            assert_eq!(Quantity::from(text).value(), None, "{text}");
        }
    }

    #[test]
    fn plain_numbers_are_read_as_quantities() {
        for (json, text) in [("1", "1"), ("0.5", "0.5"), ("\"2Gi\"", "2Gi")] {
            assert_eq!(serde_json::from_str::<Quantity>(json).unwrap(), Quantity::from(text));
        }
    }
}
