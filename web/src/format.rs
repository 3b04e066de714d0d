//! Numbers as people read them. What is not known is [`NA`], never zero.

/// What stands where nothing was measured.
pub const NA: &str = "N/A";

/// Some text for a value, or [`NA`] when there is none or it is not finite.
#[must_use]
pub fn or_na(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| NA.to_owned(), show)
}

/// Three significant digits at most, no trailing zeros dropped: `0.512`, `5.12`, `51.2`, `512`, `5120`.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Seconds as `12.3 ms` or `1.24 s`.
#[must_use]
pub fn seconds(value_s: f64) -> String {
    if value_s != 0.0 && value_s.abs() < 0.9995 {
        format!("{} ms", digits(value_s * 1e3))
    } else {
        format!("{value_s:.2} s")
    }
}

/// Milliseconds as `0.045 ms` or `79 ms`.
#[must_use]
pub fn millis(value_ms: f64) -> String {
    if value_ms < 0.995 { format!("{value_ms:.3} ms") } else { format!("{} ms", digits(value_ms)) }
}

/// A number with an SI prefix before its unit: `10.0 MHz`.
#[must_use]
pub fn si(value: f64, unit: &str) -> String {
    const PREFIXES: [(f64, &str); 7] =
        [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")];
    if value == 0.0 || !value.is_finite() {
        return format!("{value} {unit}").trim_end().to_owned();
    }
    let magnitude = value.abs() * 1.000_001;
    let (scale, prefix) = PREFIXES.into_iter().find(|(scale, _)| magnitude >= *scale).unwrap_or((1e-6, "µ"));
    format!("{} {prefix}{unit}", digits(value / scale))
}

/// Bits as `2.00 Mbit`.
#[must_use]
pub fn bits(value: f64) -> String {
    si(value, "bit")
}

/// A rate as `34.2 Mbit/s`.
#[must_use]
pub fn rate(value_bps: f64) -> String {
    si(value_bps, "bit/s")
}

/// Power as `1.34 W` or `20.0 mW`.
#[must_use]
pub fn watts(value_w: f64) -> String {
    si(value_w, "W")
}

/// Energy as `420 mJ`.
#[must_use]
pub fn joules(value_j: f64) -> String {
    si(value_j, "J")
}

/// A file size in decimal megabytes, as download managers show it.
#[must_use]
pub fn bytes(value: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    si(value as f64, "B")
}

/// A share of 0..=1 with two decimals.
#[must_use]
pub fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// A share of 0..=1 as `62 %`.
#[must_use]
pub fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// Tokens a second.
#[must_use]
pub fn tokens_per_s(value: f64) -> String {
    format!("{} tok/s", digits(value))
}

/// A count with a word that follows it: `1 question`, `3 questions`.
#[must_use]
pub fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// A whole number, its digits in groups of three.
#[must_use]
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let cases = [
            (seconds(0.1336), "134 ms"),
            (seconds(1.2), "1.20 s"),
            (seconds(0.9996), "1.00 s"),
            (seconds(0.0), "0.00 s"),
            (millis(0.0449), "0.045 ms"),
            (millis(79.04), "79.0 ms"),
            (si(10e6, "Hz"), "10.0 MHz"),
            (si(999_999.999, "Hz"), "1.00 MHz"),
            (rate(34.21e6), "34.2 Mbit/s"),
            (bits(2e6), "2.00 Mbit"),
            (watts(1.995), "2.00 W"),
            (watts(0.02), "20.0 mW"),
            (joules(0.42), "420 mJ"),
            (bytes(5_130_000), "5.13 MB"),
            (percent(0.625), "62 %"),
            (thousands(1_234_567), "1\u{202f}234\u{202f}567"),
            (thousands(999), "999"),
            (count(1, "question"), "1 question"),
            (count(4, "question"), "4 questions"),
        ];
        for (shown, expected) in cases {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn the_unknown_is_not_zero() {
        assert_eq!(or_na(None, seconds), NA);
        assert_eq!(or_na(Some(f64::NAN), seconds), NA);
        assert_eq!(or_na(Some(f64::INFINITY), seconds), NA);
        assert_eq!(or_na(Some(0.5), seconds), "500 ms");
    }
}
