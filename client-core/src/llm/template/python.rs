//! What templates use of Python: methods of texts and mappings, `json.dumps`, `strftime`.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

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
        let (chars,): (Option<String>,) = from_args(args)?;
        let drop = |c: char| chars.as_ref().map_or_else(|| c.is_whitespace(), |set| set.contains(c));
        let text = if start { text.trim_start_matches(drop) } else { text };
        Ok(Value::from(if end { text.trim_end_matches(drop) } else { text }))
    };
    match method {
        "strip" => trimmed(true, true),
        "lstrip" => trimmed(true, false),
        "rstrip" => trimmed(false, true),
        "startswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.starts_with(part))),
        "endswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.ends_with(part))),
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "replace" => from_args::<(&str, &str)>(args).map(|(from, to)| Value::from(text.replace(from, to))),
        "split" => {
            let (separator,): (Option<&str>,) = from_args(args)?;
            Ok(match separator {
                Some(separator) => text.split(separator).map(Value::from).collect(),
                None => text.split_whitespace().map(Value::from).collect(),
            })
        }
        _ => Err(unknown()),
    }
}

/// The filter `tojson` as `transformers` defines it: Python's `json.dumps` without escaping of other scripts. It takes
/// `indent`, and accepts and ignores what else templates in use pass.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "not JSON").with_source(error))?;
    let mut out = String::new();
    dump(&json, indent.map(|indent| indent.min(16)), 0, &mut out);
    Ok(out)
}

/// Appends `value` with Python's spacing: `, ` and `: ` on one line, or one entry a line.
fn dump(value: &serde_json::Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let gap = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { gap });
                line(out, depth + 1);
                dump(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        serde_json::Value::Object(entries) if !entries.is_empty() => {
            out.push('{');
            for (i, (key, item)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { gap });
                line(out, depth + 1);
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                dump(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
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
