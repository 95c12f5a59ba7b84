//! Amounts of resources as Kubernetes writes them: `500m`, `1Gi`, `1e3`.

/// The amount in units of 10⁻⁹, rounded up (away from zero); none where it is no quantity, or an exponent beyond ±18.
pub(super) fn nano(text: &str) -> Option<i128> {
    Some(Amount::read(text)?.nano)
}

/// How Kubernetes writes the quantity (`resource.Quantity`): no fraction, the largest suffix that loses nothing, the family of suffixes
/// kept; `0.5` is `500m`, `1024Mi` is `1Gi`. None where [`nano`] has none.
pub(super) fn canonical(text: &str) -> Option<String> {
    let amount = Amount::read(text)?;
    if amount.nano == 0 {
        return Some("0".to_owned());
    }
    if amount.is_kept {
        return Some(text.to_owned());
    }
    let is_whole = amount.nano % NANO == 0 && amount.nano.abs() >= NANO << 10;
    match amount.family == Family::Binary && is_whole {
        true => Some(binary(amount.nano / NANO)),
        false => decimal(&amount),
    }
}

fn binary(mut number: i128) -> String {
    let mut suffix = "";
    for larger in BINARY {
        if number % 1024 != 0 {
            break;
        }
        (number, suffix) = (number / 1024, larger);
    }
    format!("{number}{suffix}")
}

fn decimal(amount: &Amount) -> Option<String> {
    let (mut mantissa, mut exponent) = (amount.nano, -9);
    while mantissa % 10 == 0 {
        (mantissa, exponent) = (mantissa / 10, exponent + 1);
    }
    while exponent % 3 != 0 {
        (mantissa, exponent) = (mantissa * 10, exponent - 1);
    }
    if amount.family == Family::Exponent && exponent != 0 {
        return Some(format!("{mantissa}e{exponent}"));
    }
    let (suffix, _) = DECIMAL.iter().find(|(_, power)| *power == exponent)?;
    Some(format!("{mantissa}{suffix}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Decimal,
    Binary,
    Exponent,
}

struct Amount {
    nano: i128,
    family: Family,
    /// Kubernetes takes its text for canonical and leaves it alone, `1.500` and `+1` included.
    is_kept: bool,
}

impl Amount {
    fn read(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_suffix = |c: char| !c.is_ascii_digit() && c != '.';
        let end = unsigned.find(is_suffix).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?;
        let unit = Unit::read(suffix)?;
        let mut nano = scale(
            digits.checked_mul(1 << unit.shift)?,
            unit.power + 9 - places,
        )?;
        if unit.family == Family::Binary {
            nano = nano.min(MAX);
        }
        let whole = whole.trim_start_matches('0');
        let sign = if text.starts_with('-') { -1 } else { 1 };
        Some(Self {
            nano: sign * nano,
            family: unit.family,
            is_kept: match unit.family {
                Family::Binary => keeps_binary(whole, fraction, &unit),
                Family::Decimal | Family::Exponent => keeps_decimal(whole, fraction, &unit),
            },
        })
    }
}

fn keeps_decimal(whole: &str, fraction: &str, unit: &Unit) -> bool {
    let places = unit.power - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let digits = whole.len().max(1) + fraction.len();
    let ends_in_zeros = format!("{whole}{fraction}").ends_with("000");
    digits <= 18 && places >= -9 && places % 3 == 0 && !ends_in_zeros && !whole.is_empty()
}

fn keeps_binary(whole: &str, fraction: &str, unit: &Unit) -> bool {
    let number: i64 = whole.parse().unwrap_or(0);
    let fits = whole.len() + unit.shift * 3 / 10 <= 14;
    fraction.is_empty() && fits && number % 8 != 0
}

/// What a suffix multiplies by: a power of two and a power of ten.
struct Unit {
    shift: usize,
    power: i32,
    family: Family,
}

impl Unit {
    fn read(suffix: &str) -> Option<Self> {
        let unit = |shift, power, family| Self {
            shift,
            power,
            family,
        };
        if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
            return Some(unit(0, *power, Family::Decimal));
        }
        if let Some(index) = BINARY.iter().position(|known| *known == suffix) {
            return Some(unit(10 * (index + 1), 0, Family::Binary));
        }
        let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        (-18..=18)
            .contains(&power)
            .then(|| unit(0, power, Family::Exponent))
    }
}

/// Times a power of ten, rounded up.
fn scale(number: i128, power: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    match power < 0 {
        true => Some(number / factor + (number % factor).signum()),
        false => number.checked_mul(factor),
    }
}

const NANO: i128 = 1_000_000_000;

/// 2⁶³ − 1, the largest amount with a binary suffix.
const MAX: i128 = 9_223_372_036_854_775_807 * NANO;

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[cfg(test)]
mod tests {
    use super::*;

    /// What k8s.io/apimachinery 0.34.1 writes after reading it.
    #[test]
    fn has_the_form_that_kubernetes_writes() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("0.5", "500m"),
            ("0.001", "1m"),
            ("0.0005", "500u"),
            ("1", "1"),
            ("1000", "1k"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1.500", "1.500"),
            ("1.5000", "1500m"),
            ("0.1", "100m"),
            ("100m", "100m"),
            ("1k", "1k"),
            ("1000k", "1M"),
            ("1.5k", "1500"),
            ("12345", "12345"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1023Ki", "1023Ki"),
            ("1024Ki", "1Mi"),
            ("0012Ki", "0012Ki"),
            ("512Mi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1.1Gi", "1181116006400m"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1e3", "1e3"),
            ("1e-3", "1e-3"),
            ("12e6", "12e6"),
            ("1E6", "1E6"),
            ("1.2e3", "1200"),
            ("12E", "12E"),
            ("1E", "1E"),
            ("5n", "5n"),
            ("0.1n", "1n"),
            ("1500u", "1500u"),
            ("2000000u", "2"),
            ("64Mi", "64Mi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("123Mi", "123Mi"),
            ("7Ei", "7Ei"),
            ("10Ei", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5."),
            ("+1", "+1"),
            ("-1", "-1"),
            ("-1.5Gi", "-1536Mi"),
            ("-1000", "-1k"),
            ("1e2", "100"),
            ("15e2", "1500"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("0.33333333333", "333333334n"),
            ("1.0001Ki", "1024102400u"),
            ("2000e-3", "2"),
            ("1234567890123456789012m", "1234567890123456789012m"),
            ("99999999999Mi", "99999999999Mi"),
        ];
        for (written, expected) in cases {
            assert_eq!(canonical(written).as_deref(), Some(expected), "{written}");
        }
    }

    #[test]
    fn is_nothing_else() {
        for text in ["", "m", "one", "1X", "1e", "1.2.3", "1e40", "--1"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
