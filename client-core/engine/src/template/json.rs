//! The filter `tojson` as `transformers` defines it: Python's `json.dumps`.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::budget::{Text, text};
use super::repr;

/// Longest indentation of one level, and longest separator, bytes.
const MAX_STEP: usize = 64;

/// How it is written.
struct Style {
    indent: Option<String>,
    between: String,
    colon: String,
    ascii: bool,
    sorted: bool,
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &mut State<'_, '_>,
    value: Value,
    places: Rest<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let invalid = |message: &str| Error::new(ErrorKind::InvalidOperation, message.to_owned());
    // In the order of that function's arguments.
    let get = |at: usize, name: &str| -> Result<Value, Error> {
        let found: Option<Value> = named.get(name)?;
        Ok(places.get(at).cloned().or(found).unwrap_or_else(|| Value::from(())))
    };
    let [ascii, indent, separators, sorted] =
        [get(0, "ensure_ascii")?, get(1, "indent")?, get(2, "separators")?, get(3, "sort_keys")?];
    named.assert_all_used()?;
    if places.len() > 4 {
        return Err(invalid("tojson takes at most four arguments"));
    }
    let indent = match indent.as_str() {
        Some(text) => Some(text.to_owned()),
        None if indent.is_none() => None,
        // Fewer than none is none, on lines of their own.
        None => Some(" ".repeat(i64::try_from(indent)?.clamp(0, MAX_STEP as i64) as usize)),
    };
    let (between, colon) = if separators.is_none() {
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
    } else {
        let both = |at: usize| separators.get_item_by_index(at).ok().and_then(|text| text.as_str().map(str::to_owned));
        both(0).zip(both(1)).ok_or_else(|| invalid("tojson takes two texts as separators"))?
    };
    if [Some(&between), Some(&colon), indent.as_ref()].iter().flatten().any(|text| text.len() > MAX_STEP) {
        return Err(invalid("tojson takes separators and indentations of up to 64 bytes here"));
    }
    let style = Style { indent, between, colon, ascii: ascii.is_true(), sorted: sorted.is_true() };
    let mut strange = None;
    let written = text(state, |out| style.dump(&value, 0, &mut strange, out))?;
    match strange {
        None => Ok(written),
        Some(kind) => Err(invalid(&format!("tojson has no form for a value of the kind {kind}"))),
    }
}

impl Style {
    fn line(&self, depth: usize, out: &mut Text) -> fmt::Result {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_char('\n')?;
        (0..depth).try_for_each(|_| out.write_str(indent))
    }

    fn dump(&self, value: &Value, depth: usize, strange: &mut Option<ValueKind>, out: &mut Text) -> fmt::Result {
        if let Some(text) = value.as_str() {
            return self.quoted(text, out);
        }
        match value.kind() {
            ValueKind::None => out.write_str("null"),
            ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.write_str(&number(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                out.write_char('[')?;
                let mut empty = true;
                for item in value.try_iter().into_iter().flatten() {
                    out.write_str(if empty { "" } else { &self.between })?;
                    empty = false;
                    self.line(depth + 1, out)?;
                    self.dump(&item, depth + 1, strange, out)?;
                }
                if !empty {
                    self.line(depth, out)?;
                }
                out.write_char(']')
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter().into_iter().flatten().collect();
                if self.sorted {
                    keys.sort();
                }
                out.write_char('{')?;
                for (at, key) in keys.iter().enumerate() {
                    out.write_str(if at == 0 { "" } else { &self.between })?;
                    self.line(depth + 1, out)?;
                    match key.as_str() {
                        Some(text) => self.quoted(text, out)?,
                        None => {
                            out.write_char('"')?;
                            self.dump(key, depth + 1, strange, out)?;
                            out.write_char('"')?;
                        }
                    }
                    out.write_str(&self.colon)?;
                    self.dump(&value.get_item(key).unwrap_or_default(), depth + 1, strange, out)?;
                }
                if !keys.is_empty() {
                    self.line(depth, out)?;
                }
                out.write_char('}')
            }
            kind => {
                strange.get_or_insert(kind);
                Ok(())
            }
        }
    }

    fn quoted(&self, text: &str, out: &mut Text) -> fmt::Result {
        out.write_char('"')?;
        for letter in text.chars() {
            match letter {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                letter if letter < ' ' || (self.ascii && !letter.is_ascii()) => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
                letter => out.write_char(letter)?,
            }
        }
        out.write_char('"')
    }
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => match number {
            number if number.is_nan() => "NaN".into(),
            number if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            number => repr::float(number),
        },
        _ => value.to_string(),
    }
}
