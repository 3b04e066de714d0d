//! Values as Python writes them: `str(x)` where a template prints, `repr(x)` inside lists and mappings.

use std::fmt::{self, Write};

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};

/// `str(value)`; nothing for what is not defined.
pub(super) fn write_str(value: &Value, out: &mut dyn Write) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(value, out),
    }
}

/// `repr(value)`.
pub(super) fn write_repr(value: &Value, out: &mut dyn Write) -> fmt::Result {
    if let Some(text) = value.as_str() {
        return quoted(text, out);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.write_str(&float(number)),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Seq => {
            if let Some(view) = value.downcast_object_ref::<View>() {
                write!(out, "{}(", view.name)?;
                write_repr(&Value::from(view.items.clone()), out)?;
                return out.write_char(')');
            }
            let tuple = value.is_tuple() || super::lists::is_group(value);
            out.write_str(if tuple { "(" } else { "[" })?;
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                out.write_str(if count > 0 { ", " } else { "" })?;
                write_repr(&item, out)?;
                count += 1;
            }
            out.write_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            })
        }
        ValueKind::Map if is_map(value) => {
            out.write_char('{')?;
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                write_repr(&key, out)?;
                out.write_str(": ")?;
                write_repr(&value.get_item(&key).unwrap_or_default(), out)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// What a mapping's `keys`, `values` and `items` give: a list that says what it is of.
#[derive(Debug)]
pub(super) struct View {
    pub name: &'static str,
    pub items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// Mappings that are nothing else besides: those show themselves.
pub(super) fn is_map(value: &Value) -> bool {
    !value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A float's shortest digits, with an exponent where Python has one.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `ascii(value)`: as `repr`, with escapes for all that is not ASCII.
pub(super) fn write_ascii(value: &Value, out: &mut dyn Write) -> fmt::Result {
    struct Ascii<'o>(&'o mut dyn Write);
    impl Write for Ascii<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            part.chars().try_for_each(|letter| {
                if letter.is_ascii() { self.0.write_char(letter) } else { escaped(letter, self.0) }
            })
        }
    }
    write_repr(value, &mut Ascii(out))
}

/// A letter by its number.
fn escaped(letter: char, out: &mut dyn Write) -> fmt::Result {
    match u32::from(letter) {
        code @ 0..=0xFF => write!(out, "\\x{code:02x}"),
        code @ 0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\U{code:08x}"),
    }
}

fn quoted(text: &str, out: &mut dyn Write) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for letter in text.chars() {
        match letter {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            letter if letter == quote => write!(out, "\\{letter}")?,
            letter if is_printable(letter) => out.write_char(letter)?,
            letter => escaped(letter, out)?,
        }
    }
    out.write_char(quote)
}

/// Roughly Python's `str.isprintable`: no controls, no white space but the space.
pub(super) fn is_printable(letter: char) -> bool {
    letter == ' '
        || !(letter.is_control()
            || letter.is_whitespace()
            || matches!(u32::from(letter), 0xAD | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x2064 | 0xFEFF | 0xFFF9..=0xFFFB | 0xE000..=0xF8FF | 0xFDD0..=0xFDEF))
}
