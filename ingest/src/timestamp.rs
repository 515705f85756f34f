//! Parses times like Go's `time.RFC3339`, which Flux's API uses.
//!
//! More lenient than RFC 3339: an hour may have one digit, a comma may precede the fraction, and
//! an offset may be 24:00. Stricter: no lower-case `t` or `z`, and no leap second.

use jiff::civil::{Date, DateTime};

/// Go's zero time, 0001-01-01T00:00:00Z. Go programs write it if no time is set.
const ZERO_TIME: i64 = -62_135_596_800;

/// Parses a time to seconds since 1970 and drops the fraction. Returns `None` if the text is not a
/// time, and `Some(None)` for Go's zero time.
pub fn parse(text: &str) -> Option<Option<i64>> {
    let (date, clock) = text.split_once('T')?;
    let (hour, clock) = clock.split_once(':')?;
    let (minute, clock) = clock.split_once(':')?;
    let (second, rest) = clock.split_at_checked(2)?;
    let hour = if hour.len() == 1 {
        digits(hour, 1)?
    } else {
        digits(hour, 2)?
    };
    let time = DateTime::from_parts(
        parse_date(date)?,
        jiff::civil::Time::new(
            narrow(hour)?,
            narrow(digits(minute, 2)?)?,
            narrow(digits(second, 2)?)?,
            0,
        )
        .ok()?,
    );
    let seconds = time
        .duration_since(Date::constant(1970, 1, 1).at(0, 0, 0, 0))
        .as_secs()
        - offset(after_fraction(rest)?)?;
    Some((seconds != ZERO_TIME).then_some(seconds))
}

fn parse_date(text: &str) -> Option<Date> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year = i16::try_from(digits(year, 4)?).ok()?;
    Date::new(year, narrow(digits(month, 2)?)?, narrow(digits(day, 2)?)?).ok()
}

fn after_fraction(text: &str) -> Option<&str> {
    let Some(fraction) = text.strip_prefix(['.', ',']) else {
        return Some(text);
    };
    let zone = fraction.trim_start_matches(|character: char| character.is_ascii_digit());
    (zone.len() < fraction.len()).then_some(zone)
}

/// The UTC offset in seconds; positive is east.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, clock) = match zone.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    // Go accepts 24 hours and 60 minutes.
    (hours <= 24 && minutes <= 60)
        .then_some(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

fn digits(text: &str, count: usize) -> Option<u16> {
    let all_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { text.parse().ok() } else { None }
}

fn narrow(number: u16) -> Option<i8> {
    i8::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_like_in_go() {
        let base = 1_767_323_045;
        for (text, seconds) in [
            ("2026-01-02T03:04:05Z", base),
            ("2026-01-02T3:04:05Z", base),
            ("2026-01-02T03:04:05.999999999Z", base),
            ("2026-01-02T03:04:05,5Z", base),
            ("2026-01-02T03:04:05+02:00", base - 7200),
            ("2026-01-02T03:04:05-00:00", base),
            ("2026-01-02T03:04:05-01:30", base + 5400),
            ("2026-01-02T03:04:05+24:00", base - 86_400),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(Some(seconds)), "{text}");
        }
    }

    #[test]
    fn gos_zero_time_means_no_time() {
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(None));
        assert_eq!(parse("0001-01-01T02:00:00+02:00"), Some(None));
        assert_eq!(parse("0001-01-01T00:00:01Z"), Some(Some(ZERO_TIME + 1)));
    }

    #[test]
    fn invalid_times_are_rejected() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-01-02t03:04:05z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05z",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05+25:00",
            "2026-01-02T03:04:05+02:61",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T23:59:60Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T003:04:05Z",
            "2026-02-30T00:00:00Z",
            "2026-1-02T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "-001-01-01T00:00:00Z",
            "2026-01-02T03:04:é5Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
