//! Durations in the format of Go: `1h30m`, `1.5s`, `500ms`.

use std::time::Duration;

/// The supported units in nanoseconds. Longer names come first, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Parses a duration.
///
/// # Errors
/// The text is not a duration, or it exceeds 292 years.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || {
        format!(
            "\"{text}\" is not a duration; use a number with a unit, such as 10s, 500ms or 1h30m"
        )
    };
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .ok_or_else(invalid)?;
        let (number, after) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS
            .into_iter()
            .find(|(unit, _)| after.starts_with(unit))
            .ok_or_else(invalid)?;
        let part = part(number, nanoseconds).ok_or_else(invalid)?;
        total = total
            .checked_add(part)
            .filter(|total| total.as_nanos() <= i64::MAX as u128)
            .ok_or_else(invalid)?;
        rest = &after[unit.len()..];
    }
    Ok(total)
}

/// Parses a number with an optional fraction, and multiplies it by the unit.
fn part(number: &str, unit: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // Digits after the ninth are below one nanosecond.
    let digits = &fraction[..fraction.len().min(9)];
    let scale = 10u128.pow(u32::try_from(digits.len()).ok()?);
    let fraction = u128::from(digits.parse::<u64>().ok()?) * u128::from(unit) / scale;
    Some(Duration::from_nanos(
        whole.checked_add(u64::try_from(fraction).ok()?)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_format_of_go() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("1m1.25s", 61_250),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "s",
            "1 s",
            "1S",
            "1.s",
            ".5s",
            "1.2.3s",
            "-1s",
            "1d",
            "99999999999999999999s",
            "9999999h",
            "1é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
