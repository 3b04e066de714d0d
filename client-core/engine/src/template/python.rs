//! What templates use of Python: methods of texts and mappings, `json.dumps`, `strftime`.

use std::borrow::Cow;
use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use super::budget::{Text, charge, charge_each, charge_items, charge_text, kept, text};

/// Methods of Python's `str` and `dict` that chat templates call.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    if value.kind() == ValueKind::Map {
        return match method {
            "items" => state.apply_filter("items", std::slice::from_ref(value)),
            "get" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                let found = value.get_item(&key)?;
                Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
            }
            _ => Err(unknown()),
        };
    }
    let text = value.as_str().ok_or_else(unknown)?;
    let trimmed = |start: bool, end: bool| -> Result<Value, Error> {
        let (chars,): (Option<&str>,) = from_args(args)?;
        let drop = |c: char| chars.map_or_else(|| c.is_whitespace(), |set| set.contains(c));
        let text = if start { text.trim_start_matches(drop) } else { text };
        Ok(Value::from(if end { text.trim_end_matches(drop) } else { text }))
    };
    let made = match method {
        "strip" => trimmed(true, true)?,
        "lstrip" => trimmed(true, false)?,
        "rstrip" => trimmed(false, true)?,
        "startswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.starts_with(part)))?,
        "endswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.ends_with(part)))?,
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "replace" => {
            let (from, to): (Value, Value) = from_args(args)?;
            return replace(state, value.clone(), from, to);
        }
        "split" => {
            let (separator,): (Option<&str>,) = from_args(args)?;
            // Before the list is made, of which every part may be empty.
            charge_items(
                state,
                separator.map_or_else(|| text.split_whitespace().count(), |s| text.matches(s).count()),
            )?;
            charge(state, text.len())?;
            match separator {
                Some(separator) => text.split(separator).map(Value::from).collect(),
                None => text.split_whitespace().map(Value::from).collect(),
            }
        }
        _ => return Err(unknown()),
    };
    kept(state, made)
}

/// The filter `replace`, and the method.
pub(super) fn replace(state: &mut State<'_, '_>, value: Value, from: Value, to: Value) -> Result<Value, Error> {
    for part in [&value, &from, &to] {
        charge_text(state, part)?;
    }
    let text = |part: &'_ Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    let (from, to) = (text(&from), text(&to));
    let value = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
    charge_each(state, value.matches(&from).count(), to.len())?;
    Ok(Value::from(value.replace(&from, &to)))
}

/// The filter `tojson` as `transformers` defines it: Python's `json.dumps` without escaping of other scripts. It takes
/// `indent`, and accepts and ignores what else templates in use pass.
pub(super) fn tojson(state: &mut State<'_, '_>, value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    text(state, |out| dump(&value, indent.map(|indent| indent.min(16)), 0, out))
}

/// Writes between the quotes of a JSON text.
struct Quoted<'a>(&'a mut Text);

impl Write for Quoted<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            match c {
                '"' => self.0.write_str("\\\"")?,
                '\\' => self.0.write_str("\\\\")?,
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                '\u{8}' => self.0.write_str("\\b")?,
                '\u{c}' => self.0.write_str("\\f")?,
                c if c < ' ' => write!(self.0, "\\u{:04x}", c as u32)?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Writes `value` as a JSON text, whatever it is.
fn quote(value: &Value, out: &mut Text) -> fmt::Result {
    out.write_char('"')?;
    write!(Quoted(out), "{value}")?;
    out.write_char('"')
}

/// Writes `value` with Python's spacing: `, ` and `: ` on one line, or one entry a line.
fn dump(value: &Value, indent: Option<usize>, depth: usize, out: &mut Text) -> fmt::Result {
    let line = |out: &mut Text, depth: usize| match indent {
        Some(indent) => write!(out, "\n{:1$}", "", indent * depth),
        None => Ok(()),
    };
    let gap = if indent.is_some() { "," } else { ", " };
    let is_map = value.kind() == ValueKind::Map;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.write_str("null"),
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write!(out, "{value}"),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            out.write_char(if is_map { '{' } else { '[' })?;
            let mut empty = true;
            for item in value.try_iter().into_iter().flatten() {
                out.write_str(if empty { "" } else { gap })?;
                empty = false;
                line(out, depth + 1)?;
                if is_map {
                    quote(&item, out)?;
                    out.write_str(": ")?;
                    dump(&value.get_item(&item).unwrap_or_default(), indent, depth + 1, out)?;
                } else {
                    dump(&item, indent, depth + 1, out)?;
                }
            }
            if !empty {
                line(out, depth)?;
            }
            out.write_char(if is_map { '}' } else { ']' })
        }
        _ => quote(value, out),
    }
}

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
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Seconds since 1970 in UTC, written as `format` says, as Python's `strftime` in the C locale.
///
/// # Errors
/// A directive that templates in use do not have.
pub(super) fn strftime(unix_s: i64, format: &str) -> Result<String, Error> {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let (year, month, day, day_of_year) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let name = |names: &[&'static str], at: i64| names.get(at as usize).copied().unwrap_or_default();
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, days.rem_euclid(7)));
    let short = |text: &str| text.chars().take(3).collect::<String>();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().unwrap_or(' ');
        // `%-d`: without the leading zero.
        let (directive, plain) =
            if directive == '-' { (chars.next().unwrap_or(' '), true) } else { (directive, false) };
        let two = |value: i64| if plain { value.to_string() } else { format!("{value:02}") };
        out += &match directive {
            'Y' => year.to_string(),
            'y' => two(year.rem_euclid(100)),
            'm' => two(month),
            'd' => two(day),
            'H' => two(hour),
            'I' => two((hour + 11) % 12 + 1),
            'M' => two(minute),
            'S' => two(second % 60),
            'j' => {
                if plain {
                    day_of_year.to_string()
                } else {
                    format!("{day_of_year:03}")
                }
            }
            'B' => month_name.to_owned(),
            'b' => short(month_name),
            'A' => day_name.to_owned(),
            'a' => short(day_name),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            '%' => "%".to_owned(),
            other => {
                let message = format!("strftime_now does not know %{other}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        };
    }
    Ok(out)
}

/// Year, month (from 1), day of the month (from 1) and of the year (from 1) of a day counted from 1970-01-01, in the
/// Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // Whole cycles of 400 years first, so that the loop below is short for any input.
    let (mut year, mut rest) = (1970 + 400 * days.div_euclid(146_097), days.rem_euclid(146_097));
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let day_of_year = rest + 1;
    let february = if leap(year) { 29 } else { 28 };
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
