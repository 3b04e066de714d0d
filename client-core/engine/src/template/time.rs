//! `strftime_now`: a moment in UTC as Python's `datetime.strftime` writes it on Linux in the C locale, for a time that does
//! not know its zone.

use std::fmt::Write;

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, taken apart.
struct Moment {
    unix_s: i64,
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
    /// From 1.
    day_of_year: i64,
    /// From Sunday, 0.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// How a number is filled up to its width.
#[derive(Clone, Copy)]
struct Flags {
    fill: Option<char>,
    plain: bool,
    upper: bool,
    swap: bool,
    width: Option<usize>,
}

/// Seconds since 1970 in UTC, written as `format` says. A directive that nobody knows is written as it stands.
///
/// # Errors
/// A width of more than two digits.
pub(super) fn strftime(unix_s: i64, format: &str) -> Result<String, Error> {
    let moment = Moment::of(unix_s);
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let mut flags = Flags { fill: None, plain: false, upper: false, swap: false, width: None };
        let mut letters = after.char_indices();
        let mut directive = None;
        for (at, letter) in letters.by_ref() {
            match letter {
                '-' => flags.plain = true,
                '_' => flags.fill = Some(' '),
                '0' if flags.width.is_none() => flags.fill = Some('0'),
                '^' => flags.upper = true,
                '#' => flags.swap = true,
                '0'..='9' => {
                    let digit = letter.to_digit(10).unwrap_or(0) as usize;
                    flags.width = Some(flags.width.unwrap_or(0) * 10 + digit);
                    if flags.width > Some(99) {
                        let message = "strftime_now takes widths of up to two digits here";
                        return Err(Error::new(ErrorKind::InvalidOperation, message));
                    }
                }
                'E' | 'O' => {}
                letter => {
                    directive = Some((letter, at + letter.len_utf8()));
                    break;
                }
            }
        }
        let Some((letter, end)) = directive else {
            // The format ends here.
            out.push('%');
            out.push_str(after);
            return Ok(out);
        };
        match moment.write(letter, flags) {
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                out.push_str(after.get(..end).unwrap_or_default());
            }
        }
        rest = after.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

impl Moment {
    fn of(unix_s: i64) -> Self {
        let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
        let (year, month, day, day_of_year) = civil(days);
        Self {
            unix_s,
            year,
            month,
            day,
            day_of_year,
            // 1970 began on a Thursday.
            weekday: (days.rem_euclid(7) + 4) % 7,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// What a directive stands for.
    fn write(&self, directive: char, flags: Flags) -> Option<String> {
        let name = |names: &[&'static str], at: i64| names.get(at as usize).copied().unwrap_or_default();
        let (month, day) = (name(&MONTHS, self.month - 1), name(&DAYS, self.weekday));
        let short = |text: &str| text.chars().take(3).collect::<String>();
        let number = |value: i64, width: usize, fill: char| {
            if flags.plain {
                return value.to_string();
            }
            let width = flags.width.unwrap_or(width);
            let digits = value.abs().to_string();
            let sign = if value < 0 { "-" } else { "" };
            let fill = flags.fill.unwrap_or(fill).to_string().repeat(width.saturating_sub(digits.len() + sign.len()));
            if fill.starts_with(' ') { format!("{fill}{sign}{digits}") } else { format!("{sign}{fill}{digits}") }
        };
        let two = |value: i64| number(value, 2, '0');
        let twelve = (self.hour + 11) % 12 + 1;
        let (iso_year, iso_week) = self.iso_week();
        let all = |format: &str| {
            let mut out = String::new();
            let mut letters = format.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    '%' => {
                        let none = Flags { fill: None, plain: false, upper: flags.upper, swap: false, width: None };
                        out.push_str(&self.write(letters.next()?, none)?);
                    }
                    letter => out.push(letter),
                }
            }
            Some(out)
        };
        let text = match directive {
            'a' => short(day),
            'A' => day.to_owned(),
            'b' | 'h' => short(month),
            'B' => month.to_owned(),
            'c' => all("%a %b %e %H:%M:%S %Y")?,
            'C' => two(self.year.div_euclid(100)),
            'd' => two(self.day),
            'D' | 'x' => all("%m/%d/%y")?,
            'e' => number(self.day, 2, ' '),
            'F' => all("%Y-%m-%d")?,
            'f' => "000000".to_owned(),
            'g' => two(iso_year.rem_euclid(100)),
            'G' => number(iso_year, 1, '0'),
            'H' => two(self.hour),
            'I' => two(twelve),
            'j' => number(self.day_of_year, 3, '0'),
            'k' => number(self.hour, 2, ' '),
            'l' => number(twelve, 2, ' '),
            'm' => two(self.month),
            'M' => two(self.minute),
            'n' => "\n".to_owned(),
            'p' if flags.swap => if self.hour < 12 { "am" } else { "pm" }.to_owned(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'P' => if self.hour < 12 { "am" } else { "pm" }.to_owned(),
            'r' => all("%I:%M:%S %p")?,
            'R' => all("%H:%M")?,
            's' => self.unix_s.to_string(),
            'S' => two(self.second),
            't' => "\t".to_owned(),
            'T' | 'X' => all("%H:%M:%S")?,
            'u' => number(if self.weekday == 0 { 7 } else { self.weekday }, 1, '0'),
            'U' => two((self.day_of_year + 6 - self.weekday) / 7),
            'V' => two(iso_week),
            'w' => number(self.weekday, 1, '0'),
            'W' => two((self.day_of_year + 6 - (self.weekday + 6) % 7) / 7),
            'y' => two(self.year.rem_euclid(100)),
            'Y' => number(self.year, 1, '0'),
            // The time does not know its zone.
            'z' | 'Z' => String::new(),
            '%' => "%".to_owned(),
            _ => return None,
        };
        let text = if flags.upper || (flags.swap && "aAbBh".contains(directive)) { text.to_uppercase() } else { text };
        let mut padded = String::new();
        if let Some(width) = flags.width.filter(|_| "aAbBhcDxFprRTXP".contains(directive)) {
            let fill = flags.fill.unwrap_or(' ');
            (text.chars().count()..width).try_for_each(|_| padded.write_char(fill)).ok()?;
        }
        Some(padded + &text)
    }

    /// Year and week of ISO 8601, in which weeks begin on Mondays and belong to the year of their Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let monday_based = (self.weekday + 6) % 7;
        let week = (self.day_of_year - 1 - monday_based + 10).div_euclid(7);
        let length = |year: i64| if is_leap(year) { 366 } else { 365 };
        if week < 1 {
            let day = self.day_of_year + length(self.year - 1);
            return (self.year - 1, (day - 1 - monday_based + 10).div_euclid(7));
        }
        // Too late for a Thursday of this year.
        if self.day_of_year - monday_based + 3 > length(self.year) {
            return (self.year + 1, 1);
        }
        (self.year, week)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Year, month (from 1), day of the month (from 1) and of the year (from 1) of a day counted from 1970-01-01, in the
/// Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64, i64) {
    // Whole cycles of 400 years first, so that the loop below is short for any input.
    let (mut year, mut rest) = (1970 + 400 * days.div_euclid(146_097), days.rem_euclid(146_097));
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let day_of_year = rest + 1;
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1, day_of_year)
}
