//! Filters of Jinja2 that minijinja does not have, or has otherwise.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::args::{Args, invalid};
use super::budget::{charge, charge_each, charge_items, charge_text, text};
use super::{letters, pyformat, python, repr};

/// Longest list of lists, and longest line, that a template may ask for.
const MOST: i64 = 100_000;

/// `str(value)`, charged for.
fn shown(state: &mut State<'_, '_>, value: &Value) -> Result<String, Error> {
    charge_text(state, value)?;
    text(state, |out| repr::write_str(value, out))
}

fn items(state: &mut State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    for item in value.try_iter()? {
        charge_items(state, 1)?;
        items.push(item);
    }
    Ok(items)
}

fn number(args: &Args<'_>, name: &str, usual: i64) -> Result<i64, Error> {
    let number = args.number(name)?.unwrap_or(usual);
    if number.abs() > MOST { Err(invalid(format!("{name} is more than {MOST}"))) } else { Ok(number) }
}

/// `batch(value, linecount, fill_with)` and `slice(value, slices, fill_with)`.
fn rows(state: &mut State<'_, '_>, args: &[Value], slices: bool) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "count", "fill_with"])?;
    let value = args.get("value")?.unwrap_or_else(|| Value::from(()));
    let items = items(state, &value)?;
    let count = usize::try_from(number(&args, "count", 0)?).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| invalid("there is no number of rows, or it is not positive"))?;
    let fill = args.get("fill_with")?;
    charge_items(state, count)?;
    let mut rows: Vec<Vec<Value>> = Vec::new();
    if slices {
        let (each, more) = (items.len() / count, items.len() % count);
        let mut rest = items.as_slice();
        for row in 0..count {
            let (row_items, after) = rest.split_at_checked(each + usize::from(row < more)).unwrap_or((rest, &[]));
            rest = after;
            rows.push(row_items.iter().cloned().chain(fill.clone().filter(|_| row >= more)).collect());
        }
    } else {
        rows = items.chunks(count).map(<[Value]>::to_vec).collect();
        if let (Some(fill), Some(last)) = (fill, rows.last_mut()) {
            last.resize(count, fill);
        }
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

fn center(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "width"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let width = number(&args, "width", 80)?.max(0) as usize;
    charge(state, width)?;
    Ok(letters::filled(&whole, "center", width, ' ').into())
}

fn file_size(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

fn float(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

fn int(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

fn indent(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "width", "first", "blank"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let width = args.get("width")?;
    let step = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => " ".repeat(number(&args, "width", 4)?.max(0) as usize),
    };
    let (first, blank) = (args.flag("first")?, args.flag("blank")?);
    args.done()?;
    charge_each(state, 1 + whole.matches('\n').count(), step.len())?;
    // Jinja2 adds a new line, cuts, and so keeps the last line's end.
    let whole = whole + "\n";
    let lines = letters::lines(&whole, false);
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if (at > 0 || first) && (at == 0 || blank || !line.is_empty()) {
            out.push_str(&step);
        }
        out.push_str(line);
    }
    charge(state, out.len())?;
    Ok(out.into())
}

/// Values by `attribute`, a name, a path with points or a place.
pub(super) fn attribute(value: &Value, path: &Value, default: Option<&Value>) -> Value {
    let mut found = value.clone();
    let path = path.to_string();
    for step in path.split('.') {
        found = match step.parse::<i64>() {
            Ok(at) => found.get_item(&Value::from(at)).unwrap_or_default(),
            Err(_) => found.get_attr(step).unwrap_or_default(),
        };
        if found.is_undefined() {
            return default.cloned().unwrap_or_default();
        }
    }
    found
}

fn pretty(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    charge_text(state, &value)?;
    // Python's pprint sorts the keys of mappings, and breaks what is longer than 80 letters, which this does not.
    fn sorted(value: &Value) -> Value {
        match value.kind() {
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter().into_iter().flatten().collect();
                keys.sort();
                let pairs =
                    keys.into_iter().map(|key| (key.clone(), sorted(&value.get_item(&key).unwrap_or_default())));
                Value::from_pairs(pairs)
            }
            ValueKind::Seq if !value.is_tuple() => value.try_iter().into_iter().flatten().map(|v| sorted(&v)).collect(),
            _ => value.clone(),
        }
    }
    let value = sorted(&value);
    Ok(text(state, |out| repr::write_repr(&value, out))?.into())
}

fn strip_tags(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    let mut out = String::new();
    let mut rest = whole.as_str();
    while let Some((before, after)) = rest.split_once('<') {
        out += before;
        let end = if after.starts_with("!--") {
            after.find("-->").map(|at| at + 3)
        } else {
            after.find('>').map(|at| at + 1)
        };
        match end {
            Some(end) => rest = after.get(end..).unwrap_or_default(),
            None => {
                out.push('<');
                out += after;
                rest = "";
            }
        }
    }
    out += rest;
    let words: Vec<&str> = out.split_whitespace().collect();
    let out = words.join(" ");
    let out = [("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(out, |out, (from, to)| out.replace(from, to));
    charge(state, out.len())?;
    Ok(out.into())
}

fn truncate(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "length", "killwords", "end", "leeway"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let (length, leeway) = (number(&args, "length", 255)?, number(&args, "leeway", 5)?);
    let (kill, end) = (args.flag("killwords")?, args.text("end")?.unwrap_or_else(|| "...".to_owned()));
    let letters = whole.chars().count() as i64;
    let room = length - end.chars().count() as i64;
    if room < 0 || leeway < 0 {
        return Err(invalid("truncate takes a length of at least that of its end, and no negative leeway"));
    }
    if letters <= length + leeway {
        return Ok(whole.into());
    }
    let cut: String = whole.chars().take(room as usize).collect();
    let cut = if kill { cut.as_str() } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before) };
    let made = format!("{cut}{end}");
    charge(state, made.len())?;
    Ok(made.into())
}

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

fn url_encode(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

fn word_count(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    let words = whole.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    Ok(words.filter(|word| !word.is_empty()).count().into())
}

fn word_wrap(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let width = number(&args, "width", 79)?.max(1) as usize;
    let long = args.get("break_long_words")?.is_none_or(|value| value.is_true());
    let hyphens = args.get("break_on_hyphens")?.is_none_or(|value| value.is_true());
    let between = args.text("wrapstring")?.unwrap_or_else(|| "\n".to_owned());
    charge_each(state, whole.chars().count() + 1, between.len().max(1))?;
    let mut lines: Vec<String> = Vec::new();
    for line in letters::lines(&whole, false) {
        let mut current = String::new();
        for word in pieces(line, hyphens) {
            let mut word = word;
            let room = |current: &str| width.saturating_sub(current.chars().count());
            let length = |word: &str| word.chars().count();
            if length(word) > room(&current) && !current.trim_end().is_empty() && (length(word) <= width || !long) {
                lines.push(std::mem::take(&mut current).trim_end().to_owned());
            }
            if current.is_empty() && word.trim().is_empty() && !lines.is_empty() {
                continue;
            }
            while long && length(word) > room(&current) && !word.trim().is_empty() {
                let at = word.char_indices().nth(room(&current)).map_or(word.len(), |(at, _)| at);
                let (first, rest) = word.split_at(at);
                current += first;
                lines.push(std::mem::take(&mut current).trim_end().to_owned());
                word = rest;
            }
            current += word;
        }
        lines.push(current.trim_end().to_owned());
    }
    Ok(lines.join(&between).into())
}

/// Words and the white space between them, words cut behind hyphens.
fn pieces(line: &str, hyphens: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let space = first.is_whitespace();
        let mut end = rest.find(|letter: char| letter.is_whitespace() != space).unwrap_or(rest.len());
        if hyphens && !space {
            let word = rest.get(..end).unwrap_or(rest);
            if let Some(at) = word.find('-').filter(|at| *at > 0 && at + 1 < word.len()) {
                end = at + 1;
            }
        }
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn xml_attributes(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

fn escape(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    let whole = shown(state, &value)?;
    charge_each(state, whole.len(), 5)?;
    Ok(Value::from_safe_string(escaped(&whole)))
}

/// One of several: there is no chance in a prompt, so it is the first.
fn random(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    Ok(value.try_iter()?.next().unwrap_or_default())
}

fn title(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    let (mut out, mut begins) = (String::new(), true);
    for letter in whole.chars() {
        if begins {
            out.extend(letter.to_uppercase());
        } else {
            out.extend(letter.to_lowercase());
        }
        begins = letter.is_whitespace() || "-({[<".contains(letter);
    }
    charge(state, out.len())?;
    Ok(out.into())
}

fn trim(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "chars"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let chars = args.text("chars")?;
    Ok(letters::stripped(&whole, chars.as_deref(), true, true).into())
}

fn unique(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "case_sensitive", "attribute"])?;
    let value = args.get("value")?.unwrap_or_default();
    let (exact, path) = (args.flag("case_sensitive")?, args.get("attribute")?);
    let mut seen = std::collections::BTreeSet::new();
    let mut kept_items = Vec::new();
    for item in items(state, &value)? {
        let key = path.as_ref().map_or_else(|| item.clone(), |path| attribute(&item, path, None));
        let key = match key.as_str() {
            Some(text) if !exact => Value::from(text.to_lowercase()),
            _ => key,
        };
        if seen.insert(key) {
            kept_items.push(item);
        }
    }
    Ok(kept_items.into())
}

fn upper(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.to_uppercase().into())
}

fn lower(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.to_lowercase().into())
}

fn capitalize(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    Ok(letters::changed(&whole, "capitalize").unwrap_or_default().into())
}

fn string(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.into())
}

fn join(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "d", "attribute"])?;
    let value = args.get("value")?.unwrap_or_default();
    let between = args.get("d")?.map_or(Ok(String::new()), |between| shown(state, &between))?;
    let path = args.get("attribute")?;
    let mut out = String::new();
    for (at, item) in items(state, &value)?.into_iter().enumerate() {
        let item = path.as_ref().map_or_else(|| item.clone(), |path| attribute(&item, path, None));
        let item = shown(state, &item)?;
        charge(state, item.len() + between.len())?;
        out += if at > 0 { &between } else { "" };
        out += &item;
    }
    Ok(out.into())
}

fn reverse(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    if let Some(text) = value.as_str() {
        charge(state, text.len())?;
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let mut items = items(state, &value)?;
    items.reverse();
    Ok(items.into())
}

/// `default(value, default_value='', boolean=False)`.
fn default(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, rest @ ..] = args else { return Err(invalid("default takes a value")) };
    let args = Args::new(rest, &["default_value", "boolean"])?;
    // None is a value here.
    let other = rest.first().filter(|value| !value.is_kwargs()).cloned();
    let other = other.map_or_else(|| args.get("default_value"), |other| Ok(Some(other)))?;
    let boolean = args.flag("boolean")?;
    args.done()?;
    let missing = value.is_undefined() || (boolean && !value.is_true());
    Ok(if missing { other.unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

fn length(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    match args {
        [value] if value.is_undefined() => Ok(0.into()),
        [value] => {
            let letters = value.as_str().map(|text| text.chars().count());
            letters.or(value.len()).map(Value::from).ok_or_else(|| invalid(format!("a {} has no length", value.kind())))
        }
        _ => Err(invalid("length takes a value")),
    }
}

fn pairs(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    match args {
        [value] if value.is_undefined() => Ok(Vec::<Value>::new().into()),
        [value] if value.kind() == ValueKind::Map => python::method(state, value, "items", &[]),
        _ => Err(invalid("items takes a mapping")),
    }
}

/// What a filter is here: it takes everything that it is called with, its value first.
type Filter = fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>;

/// Adds them all.
pub(super) fn add(environment: &mut Environment<'static>) {
    let all: [(&'static str, Filter); 39] = [
        ("batch", |state, args| rows(state, args, false)),
        ("slice", |state, args| rows(state, args, true)),
        ("capitalize", capitalize),
        ("count", length),
        ("d", default),
        ("default", default),
        ("items", pairs),
        ("length", length),
        ("center", center),
        ("e", escape),
        ("escape", escape),
        ("filesizeformat", file_size),
        ("float", float),
        ("forceescape", escape),
        ("format", pyformat::filter),
        ("indent", indent),
        ("int", int),
        ("join", join),
        ("lower", lower),
        ("pprint", pretty),
        ("random", random),
        ("replace", python::replace),
        ("reverse", reverse),
        ("string", string),
        ("striptags", strip_tags),
        ("title", title),
        ("trim", trim),
        ("truncate", truncate),
        ("unique", unique),
        ("upper", upper),
        ("urlencode", url_encode),
        ("urlize", super::links::urlize),
        ("wordcount", word_count),
        ("wordwrap", word_wrap),
        ("xmlattr", xml_attributes),
        ("groupby", super::lists::group_by),
        ("dictsort", super::lists::dict_sort),
        ("sort", super::lists::sort),
        ("sum", super::lists::sum),
    ];
    for (name, filter) in all {
        super::builtins::add_own(environment, name, filter);
    }
}
