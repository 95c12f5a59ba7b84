//! Go's durations: `1h30m`, `500ms`, `1.5s`. Exactly Go's syntax and range, since these strings stand in people's manifests.

use jiff::SignedDuration;

/// Why a string is no duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not follow the grammar, or is out of range.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A number has a unit that Go does not know.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole duration.
        text: String,
    },
}

/// Reads a duration: an optional sign, then numbers with units, such as `1h30m`; `0` needs no unit.
///
/// # Errors
///
/// Where Go's `time.ParseDuration` has one: no unit, an unknown unit, nothing at all, over 2⁶³ nanoseconds.
pub fn parse(text: &str) -> Result<SignedDuration, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = cut(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = cut(after, |c| !c.is_ascii_digit() && c != '.');
        if unit.is_empty() && !number.is_empty() {
            return Err(Error::MissingUnit(text.to_owned()));
        }
        let nanos_per_unit = nanos_of(unit);
        if number.is_empty() || number == "." {
            return Err(invalid());
        }
        let nanos_per_unit = nanos_per_unit.ok_or_else(|| Error::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        let nanos = nanos(number, nanos_per_unit).ok_or_else(invalid)?;
        total = total.checked_add(nanos).ok_or_else(invalid)?;
        rest = after;
    }
    signed(total, negative).ok_or_else(invalid)
}

/// Writes a duration as Go prints it: `1h30m0s`, `1.5s`, `500ms`, `0s`.
#[must_use]
pub fn format(duration: SignedDuration) -> String {
    let nanos = duration.as_nanos().unsigned_abs();
    let sign = if duration.is_negative() { "-" } else { "" };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => clock(nanos),
    };
    format!("{sign}{text}")
}

/// `1h2m3.5s`, without the leading units that are 0.
fn clock(nanos: u128) -> String {
    let seconds = nanos / 1_000_000_000;
    let last = decimal(nanos % 60_000_000_000, 1_000_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{last}s"),
        (0, _) => format!("{minutes}m{last}s"),
        _ => format!("{hours}h{minutes}m{last}s"),
    }
}

/// `value ÷ unit` with as many decimals as it has.
fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        (value / unit).to_string()
    } else {
        format!("{}.{fraction}", value / unit)
    }
}

fn cut(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number of units in nanoseconds; digits beyond the 18th after the point are below any unit's nanosecond.
fn nanos(number: &str, nanos_per_unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: String = fraction.chars().take(18).collect();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    whole
        .checked_mul(nanos_per_unit)?
        .checked_add(fraction * nanos_per_unit / scale)
}

fn signed(nanos: u128, negative: bool) -> Option<SignedDuration> {
    let nanos = i128::try_from(nanos).ok()?;
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let seconds = SignedDuration::from_secs;
        let cases = [
            ("0", Ok(seconds(0))),
            ("+5s", Ok(seconds(5))),
            ("-1.5h", Ok(seconds(-5400))),
            ("1h30m", Ok(seconds(5400))),
            ("1m1m", Ok(seconds(120))),
            (".5s", Ok(SignedDuration::from_millis(500))),
            ("5.s", Ok(seconds(5))),
            ("100us", Ok(SignedDuration::from_micros(100))),
            ("100µs", Ok(SignedDuration::from_micros(100))),
            ("", Err("time: invalid duration \"\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("s", Err("time: invalid duration \"s\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("5d", Err("time: unknown unit \"d\" in duration \"5d\"")),
            ("5 s", Err("time: unknown unit \" s\" in duration \"5 s\"")),
            ("9223372037s", Err("time: invalid duration \"9223372037s\"")),
            ("-", Err("time: invalid duration \"-\"")),
        ];
        for (text, expected) in cases {
            let actual = parse(text).map_err(|error| error.to_string());
            assert_eq!(actual, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn writes_as_go_prints() {
        let cases = [
            ("5400s", "1h30m0s"),
            ("61s", "1m1s"),
            ("1500ms", "1.5s"),
            ("1500us", "1.5ms"),
            ("1500ns", "1.5µs"),
            ("7ns", "7ns"),
            ("-30s", "-30s"),
            ("0", "0s"),
        ];
        for (text, expected) in cases {
            assert_eq!(format(parse(text).unwrap()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in any::<i64>()) {
            let duration = SignedDuration::from_nanos(nanos);
            // The lowest i64 is in range for Go too, but only as one number.
            prop_assume!(nanos != i64::MIN);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.to_string().starts_with("time: "));
            }
        }
    }
}
