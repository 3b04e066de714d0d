//! Text for addresses and for HTML.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::{items, shown};
use crate::template::args::{Args, invalid};
use crate::template::budget::{charge_each, charge_text};

/// Letters that stay as they are in an address.
fn quoted(text: &str, slash: bool, plus: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if slash => out.push('/'),
            b' ' if plus => out.push('+'),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

pub(super) fn url_encode(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    charge_text(state, &value)?;
    let pairs: Vec<(Value, Value)> = match value.kind() {
        ValueKind::Map => items(state, &value)?
            .into_iter()
            .map(|key| Ok((key.clone(), value.get_item(&key)?)))
            .collect::<Result<_, Error>>()?,
        ValueKind::Seq | ValueKind::Iterable => items(state, &value)?
            .into_iter()
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect::<Result<_, Error>>()?,
        _ => {
            let whole = shown(state, &value)?;
            charge_each(state, whole.len(), 3)?;
            return Ok(quoted(&whole, true, false).into());
        }
    };
    let mut parts = Vec::new();
    for (key, value) in pairs {
        let (key, value) = (shown(state, &key)?, shown(state, &value)?);
        charge_each(state, key.len() + value.len() + 2, 3)?;
        parts.push(format!("{}={}", quoted(&key, false, true), quoted(&value, false, true)));
    }
    Ok(parts.join("&").into())
}

pub(super) fn xml_attributes(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "autospace"])?;
    let value = args.get("value")?.unwrap_or_default();
    let space = args.get("autospace")?.is_none_or(|value| value.is_true());
    if value.kind() != ValueKind::Map {
        return Err(invalid("xmlattr takes a mapping"));
    }
    let mut parts = Vec::new();
    for key in items(state, &value)? {
        let of = value.get_item(&key)?;
        if of.is_none() || of.is_undefined() {
            continue;
        }
        let (key, of) = (shown(state, &key)?, shown(state, &of)?);
        if key.contains(|letter: char| letter.is_whitespace() || matches!(letter, '/' | '>' | '=')) {
            return Err(invalid("a name of an attribute has a space or a sign in it"));
        }
        charge_each(state, key.len() + of.len() + 4, 5)?;
        parts.push(format!("{}=\"{}\"", escaped(&key), escaped(&of)));
    }
    let joined = parts.join(" ");
    Ok(if space && !joined.is_empty() { format!(" {joined}") } else { joined }.into())
}

fn escaped(text: &str) -> String {
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

pub(super) fn escape(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    let whole = shown(state, &value)?;
    charge_each(state, whole.len(), 5)?;
    Ok(Value::from_safe_string(escaped(&whole)))
}
