//! Numbers out of values, and numbers for people.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use crate::template::args::{Args, invalid};
use crate::template::budget::charge;

pub(super) fn file_size(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "binary"])?;
    let value = args.get("value")?.unwrap_or_default();
    let bytes = match value.as_str() {
        Some(text) => text.trim().parse().map_err(|_| invalid("filesizeformat takes a number"))?,
        None => f64::try_from(value)?,
    };
    let binary = args.flag("binary")?;
    charge(state, 32)?;
    let (base, units) = if binary {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes as i64).into());
    }
    let mut unit = base;
    for name in &units[..7] {
        unit *= base;
        if bytes < unit {
            return Ok(format!("{:.1} {name}", base * bytes / unit).into());
        }
    }
    Ok(format!("{:.1} {}", bytes / unit, units[7]).into())
}

pub(super) fn float(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    charge(state, 32)?;
    let args = Args::new(args, &["value", "default"])?;
    let value = args.get("value")?.unwrap_or_default();
    let default = args.get("default")?.unwrap_or_else(|| Value::from(0.0));
    let number = match (value.as_str(), value.kind()) {
        (Some(text), _) => text.trim().replace('_', "").parse::<f64>().ok(),
        (None, ValueKind::Bool) => Some(f64::from(u8::from(value.is_true()))),
        (None, ValueKind::Number) => f64::try_from(value).ok(),
        _ => None,
    };
    Ok(number.map_or(default, Value::from))
}

pub(super) fn int(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    charge(state, 32)?;
    let args = Args::new(args, &["value", "default", "base"])?;
    let value = args.get("value")?.unwrap_or_default();
    let default = args.get("default")?.unwrap_or_else(|| Value::from(0));
    let base = u32::try_from(args.number("base")?.unwrap_or(10)).unwrap_or(0);
    let number = match (value.as_str(), value.kind()) {
        (Some(text), _) => {
            let text = text.trim();
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text).replace('_', "").to_lowercase();
            let prefix = match base {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
            let whole = if (2..=36).contains(&base) { i128::from_str_radix(digits, base).ok() } else { None };
            // What is no whole number may be a float.
            let whole = whole.map(|number| if text.starts_with('-') { -number } else { number });
            whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number as i128))
        }
        (None, ValueKind::Bool) => Some(i128::from(value.is_true())),
        (None, ValueKind::Number) if value.is_integer() => return Ok(value),
        (None, ValueKind::Number) => f64::try_from(value).ok().filter(|n| n.is_finite()).map(|number| number as i128),
        _ => None,
    };
    Ok(number.map_or(default, |number| i64::try_from(number).map_or_else(|_| number.into(), Value::from)))
}
