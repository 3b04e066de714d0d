//! Python's two ways of putting values into a text: `'%s' % x`, also as the filter `format`, and `'{}'.format(x)`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::args::invalid;
use super::budget::{charge, charge_text, text};
use super::{python, repr};

/// Widest field, and most digits, that a format may ask for.
const WIDEST: usize = 99;

/// How a value is written.
#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    align: Option<char>,
    /// `+`, ` ` or nothing.
    sign: Option<char>,
    other: bool,
    comma: Option<char>,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

/// The digits that come next.
fn digits(letters: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, Error> {
    let mut number = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        number = Some(number.unwrap_or(0) * 10 + digit as usize);
        if number > Some(WIDEST) {
            return Err(invalid("`format` takes widths of up to two digits here"));
        }
    }
    Ok(number)
}

impl Spec {
    /// `[[fill]align][sign][#][0][width][,][.precision][type]`.
    fn parse(spec: &str) -> Result<Self, Error> {
        let is_align = |letter: char| matches!(letter, '<' | '>' | '^' | '=');
        let mut this = Self::default();
        let mut letters = spec.chars().peekable();
        let mut ahead = spec.chars();
        let (first, second) = (ahead.next(), ahead.next());
        if second.is_some_and(is_align) {
            (this.fill, this.align) = (letters.next(), letters.next());
        } else if first.is_some_and(is_align) {
            this.align = letters.next();
        }
        this.sign = letters.next_if(|letter| matches!(letter, '+' | '-' | ' ')).filter(|sign| *sign != '-');
        this.other = letters.next_if_eq(&'#').is_some();
        if letters.next_if_eq(&'0').is_some() {
            this.fill = this.fill.or(Some('0'));
            this.align = this.align.or(Some('='));
        }
        this.width = digits(&mut letters)?.unwrap_or(0);
        this.comma = letters.next_if(|letter| matches!(letter, ',' | '_'));
        if letters.next_if_eq(&'.').is_some() {
            this.precision = Some(digits(&mut letters)?.ok_or_else(|| invalid("a format has no precision"))?);
        }
        this.kind = letters.next();
        if letters.next().is_some() {
            return Err(invalid(format!("the format {spec:?} is not known")));
        }
        Ok(this)
    }

    fn padded(self, sign: &str, body: &str, usual: char) -> String {
        let missing = self.width.saturating_sub(sign.chars().count() + body.chars().count());
        let some = |count: usize| self.fill.unwrap_or(' ').to_string().repeat(count);
        match self.align.unwrap_or(usual) {
            '<' => format!("{sign}{body}{}", some(missing)),
            '^' => format!("{}{sign}{body}{}", some(missing / 2), some(missing - missing / 2)),
            '=' => format!("{sign}{}{body}", some(missing)),
            _ => format!("{}{sign}{body}", some(missing)),
        }
    }

    fn grouped(self, whole: &str, size: usize) -> String {
        let Some(comma) = self.comma else { return whole.to_owned() };
        let length = whole.chars().count();
        let parts = whole.chars().enumerate().flat_map(|(at, digit)| {
            let here = at > 0 && (length - at).is_multiple_of(size);
            here.then_some(comma).into_iter().chain([digit])
        });
        parts.collect()
    }

    /// A whole number.
    fn whole(self, number: i128) -> Result<String, Error> {
        let (body, prefix) = match self.kind {
            None | Some('d' | 'i' | 'u' | 'n') => (self.grouped(&number.unsigned_abs().to_string(), 3), ""),
            Some('x') => (self.grouped(&format!("{:x}", number.unsigned_abs()), 4), "0x"),
            Some('X') => (self.grouped(&format!("{:X}", number.unsigned_abs()), 4), "0X"),
            Some('o') => (self.grouped(&format!("{:o}", number.unsigned_abs()), 4), "0o"),
            Some('b') => (self.grouped(&format!("{:b}", number.unsigned_abs()), 4), "0b"),
            Some('c') => {
                let letter = u32::try_from(number).ok().and_then(char::from_u32);
                let letter = letter.ok_or_else(|| invalid("there is no letter of that number"))?;
                return Ok(self.padded("", &letter.to_string(), '<'));
            }
            _ => return self.float(number as f64),
        };
        let sign = if number < 0 { "-".to_owned() } else { self.sign.map(String::from).unwrap_or_default() };
        let prefix = if self.other { prefix } else { "" };
        Ok(self.padded(&(sign + prefix), &body, '>'))
    }

    /// Any number, with a point.
    fn float(self, number: f64) -> Result<String, Error> {
        let sign = if number.is_sign_negative() && !number.is_nan() {
            "-".to_owned()
        } else {
            self.sign.map(String::from).unwrap_or_default()
        };
        let size = number.abs();
        let precision = self.precision.unwrap_or(6);
        let exponential = |precision: usize| {
            let written = format!("{size:.precision$e}");
            let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            (digits.to_owned(), exponent)
        };
        let shown = |digits: &str, exponent: i32| {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        };
        let short = |digits: &str| {
            if digits.contains('.') && !self.other {
                digits.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                digits.to_owned()
            }
        };
        let kind = self.kind.map(|kind| kind.to_ascii_lowercase());
        let body = match kind {
            _ if number.is_nan() => "nan".to_owned(),
            _ if number.is_infinite() => "inf".to_owned(),
            None if self.precision.is_none() => repr::float(size),
            Some('f') => format!("{size:.precision$}"),
            Some('%') => format!("{:.precision$}%", size * 100.0),
            Some('e') => {
                let (digits, exponent) = exponential(precision);
                shown(&digits, exponent)
            }
            None | Some('g' | 'n') => {
                let digits = precision.max(1);
                let (mantissa, exponent) = exponential(digits - 1);
                if exponent < -4 || exponent >= digits as i32 {
                    shown(&short(&mantissa), exponent)
                } else {
                    let places = (digits as i32 - 1 - exponent).max(0) as usize;
                    short(&format!("{size:.places$}"))
                }
            }
            Some(kind) => return Err(invalid(format!("a number has no form {kind:?}"))),
        };
        let (whole, rest) = body.split_at(body.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(body.len()));
        let body = self.grouped(whole, 3) + rest;
        let body = if self.kind.is_some_and(char::is_uppercase) { body.to_uppercase() } else { body };
        Ok(self.padded(&sign, &body, '>'))
    }

    /// Whether it asks for anything.
    fn is_some(self) -> bool {
        self.kind.is_some()
            || self.width > 0
            || self.precision.is_some()
            || self.align.is_some()
            || self.sign.is_some()
            || self.comma.is_some()
            || self.other
    }

    fn text(self, text: &str) -> String {
        let cut: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        self.padded("", &cut, '<')
    }

    /// Any value, as `format(value, spec)`.
    fn value(self, value: &Value, state: &mut State<'_, '_>) -> Result<String, Error> {
        match value.kind() {
            ValueKind::Number if value.is_integer() => self.whole(i128::try_from(value.clone())?),
            ValueKind::Number => self.float(f64::try_from(value.clone())?),
            ValueKind::Bool if self.is_some() => self.whole(i128::from(value.is_true())),
            kind if kind != ValueKind::String && self.is_some() => {
                Err(invalid(format!("a value of the kind {kind} has no form but its own")))
            }
            _ if matches!(self.kind, None | Some('s')) => {
                charge_text(state, value)?;
                let shown = text(state, |out| repr::write_str(value, out))?;
                Ok(self.text(&shown))
            }
            kind => Err(invalid(format!("a value of the kind {kind} has no such form"))),
        }
    }
}

/// The arguments of `format`, and how far they were used.
struct Fields<'a> {
    places: &'a [Value],
    named: Option<&'a Value>,
    next: usize,
    /// Whether fields have numbers; they all do, or none does.
    numbered: Option<bool>,
}

/// `'{} {0} {name!r:>5} {:>{width}}'.format(…)`.
pub(super) fn format(state: &mut State<'_, '_>, format: &str, args: &[Value]) -> Result<Value, Error> {
    let (places, named) = match args.split_last() {
        Some((last, places)) if last.is_kwargs() => (places, Some(last)),
        _ => (args, None),
    };
    let mut fields = Fields { places, named, next: 0, numbered: None };
    Ok(fields.filled(state, format, 2)?.into())
}

/// `'{name}'.format_map(mapping)`.
pub(super) fn format_map(state: &mut State<'_, '_>, format: &str, named: &Value) -> Result<Value, Error> {
    let mut fields = Fields { places: &[], named: Some(named), next: 0, numbered: None };
    Ok(fields.filled(state, format, 2)?.into())
}

/// What is inside the brace that `text` begins with, braces in it included, and what follows.
fn braced(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((text.get(1..at)?, text.get(at + 1..)?));
        }
    }
    None
}

impl Fields<'_> {
    /// `format` with its fields filled; those lie in each other `depth` deep at most.
    fn filled(&mut self, state: &mut State<'_, '_>, format: &str, depth: usize) -> Result<String, Error> {
        if depth == 0 {
            return Err(invalid("fields lie too deep in a format"));
        }
        let (mut out, mut rest) = (String::new(), format);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            if let Some(doubled) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
                out.push_str(&after[..1]);
                rest = doubled;
                continue;
            }
            let field = if after.starts_with('{') { braced(after) } else { None };
            let (field, after) = field.ok_or_else(|| invalid("a brace in the format stands alone"))?;
            rest = after;
            let (field, spec) = field.split_once(':').unwrap_or((field, ""));
            let value = self.value(state, field)?;
            let spec = if spec.contains(['{', '}']) { self.filled(state, spec, depth - 1)? } else { spec.to_owned() };
            let made = Spec::parse(&spec)?.value(&value, state)?;
            charge(state, made.len())?;
            out.push_str(&made);
        }
        out.push_str(rest);
        charge(state, out.len())?;
        Ok(out)
    }

    /// The value of a field without its form: `name.attribute[0]!r`.
    fn value(&mut self, state: &mut State<'_, '_>, field: &str) -> Result<Value, Error> {
        let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
        let (name, path) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
        let place = if name.bytes().all(|digit| digit.is_ascii_digit()) { Some(name.parse::<usize>()) } else { None };
        let value = match place {
            Some(place) => {
                let is_numbered = !name.is_empty();
                if *self.numbered.get_or_insert(is_numbered) != is_numbered {
                    return Err(invalid("some fields of the format have numbers and some have none"));
                }
                let place = place.unwrap_or(self.next);
                self.next += usize::from(!is_numbered);
                self.places.get(place).cloned()
            }
            None => self.named.and_then(|named| named.get_attr(name).ok()).filter(|value| !value.is_undefined()),
        };
        let mut value = value.ok_or_else(|| invalid(format!("the format asks for {name:?}, which is not given")))?;
        for step in path.split(['.', '[']).skip(1) {
            let step = step.trim_end_matches(']');
            value = match step.parse::<usize>() {
                Ok(index) => value.get_item_by_index(index)?,
                Err(_) => value.get_attr(step)?,
            };
        }
        charge_text(state, &value)?;
        match conversion {
            "" => Ok(value),
            "s" => Ok(text(state, |out| repr::write_str(&value, out))?.into()),
            "r" => Ok(text(state, |out| repr::write_repr(&value, out))?.into()),
            "a" => Ok(text(state, |out| repr::write_ascii(&value, out))?.into()),
            other => Err(invalid(format!("the conversion {other:?} is not known"))),
        }
    }
}

/// `format % values`, of one value, a tuple or a mapping.
pub(super) fn percent(state: &mut State<'_, '_>, format: &str, values: &Value) -> Result<Value, Error> {
    let mut places = if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] }.into_iter();
    let mut used_names = false;
    let mut out = String::new();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        if letters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut name = None;
        if letters.next_if_eq(&'(').is_some() {
            name = Some(letters.by_ref().take_while(|letter| *letter != ')').collect::<String>());
        }
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        while let Some(flag) = letters.next_if(|letter| matches!(letter, '-' | '+' | ' ' | '0' | '#')) {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.other = true,
                _ => spec.fill = Some('0'),
            }
        }
        spec.width = digits(&mut letters)?.unwrap_or(0);
        if letters.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut letters)?.unwrap_or(0));
        }
        let kind = letters.find(|letter| !matches!(letter, 'h' | 'l' | 'L'));
        let kind = kind.ok_or_else(|| invalid("the format ends in the middle of a field"))?;
        let value = match &name {
            Some(name) => {
                used_names = true;
                Some(values.get_attr(name)?).filter(|value| !value.is_undefined())
            }
            None => places.next(),
        };
        let value = value.ok_or_else(|| invalid("the format asks for more values than there are"))?;
        spec.kind = Some(kind);
        let zeros = |spec: Spec| if spec.fill.is_some() && spec.align == Some('>') { Some('=') } else { spec.align };
        let made = match kind {
            's' | 'r' | 'a' => {
                charge_text(state, &value)?;
                let shown = text(state, |out| match kind {
                    's' => repr::write_str(&value, out),
                    'r' => repr::write_repr(&value, out),
                    _ => repr::write_ascii(&value, out),
                })?;
                Spec { fill: None, ..spec }.text(&shown)
            }
            'c' if value.as_str().is_some() => Spec { fill: None, ..spec }.text(value.as_str().unwrap_or_default()),
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' => {
                let number = match value.kind() {
                    ValueKind::Bool => i128::from(value.is_true()),
                    ValueKind::Number if value.is_integer() => i128::try_from(value)?,
                    ValueKind::Number => f64::try_from(value)? as i128,
                    _ => return Err(invalid("the format asks for a number")),
                };
                Spec { align: zeros(spec), ..spec }.whole(number)?
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => Spec { align: zeros(spec), ..spec }.float(f64::try_from(value)?)?,
            kind => return Err(invalid(format!("the format has no field {kind:?}"))),
        };
        charge(state, made.len())?;
        out.push_str(&made);
    }
    if !used_names && values.kind() != ValueKind::Map && places.next().is_some() {
        return Err(invalid("there are more values than the format asks for"));
    }
    charge(state, out.len())?;
    Ok(out.into())
}

/// The filter `format`: values by place, or by name.
pub(super) fn filter(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let (format, values) = args.split_first().ok_or_else(|| invalid("format is missing"))?;
    charge_text(state, format)?;
    let format = format.as_str().ok_or_else(|| invalid("format takes a text"))?.to_owned();
    match values {
        [named] if named.is_kwargs() => percent(state, &format, named),
        values if values.iter().any(Value::is_kwargs) => {
            Err(invalid("format takes values by place or by name, not both"))
        }
        values => percent(state, &format, &python::tuple(values.to_vec())),
    }
}
