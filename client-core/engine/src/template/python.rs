//! Methods of Python's `str`, `dict`, `list` and numbers, as far as they change nothing: chat templates run in a sandbox in
//! which nothing can be changed.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::args::{Args, invalid};
use super::budget::{charge, charge_each, charge_items, charge_text, kept, text};
use super::{letters, pyformat, repr};

/// Methods of texts, mappings and lists that this file has.
const TEXTS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
    "encode",
    "format_map",
    "maketrans",
];
const MAPPINGS: [&str; 11] =
    ["items", "keys", "values", "get", "copy", "pop", "popitem", "update", "clear", "setdefault", "fromkeys"];
const LISTS: [&str; 11] =
    ["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];

/// Whether some value of Python has a method of this name.
pub(super) fn is_method(name: &str) -> bool {
    TEXTS.contains(&name) || MAPPINGS.contains(&name) || LISTS.contains(&name)
}

/// A method as a value, which has not been called.
#[derive(Debug)]
struct Bound(Value, String);

impl Object for Bound {
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        method(state, &self.0, &self.1, args)
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<built-in method {}>", self.1)
    }

    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// The method `name` of `value`, where that has one.
pub(super) fn bound(value: &Value, name: &str) -> Option<Value> {
    let has = match value.kind() {
        ValueKind::String => TEXTS.contains(&name),
        ValueKind::Map => repr::is_map(value) && MAPPINGS.contains(&name),
        ValueKind::Seq if value.is_tuple() => ["count", "index"].contains(&name),
        ValueKind::Seq => LISTS.contains(&name),
        _ => false,
    };
    has.then(|| Value::from_object(Bound(value.clone(), name.to_owned())))
}

/// What a method call on `value` gives.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        // Each goes through the text a few times.
        charge(state, text.len())?;
        return of_text(state, text, name, args);
    }
    match value.kind() {
        ValueKind::Map => of_map(state, value, name, args),
        ValueKind::Seq => of_list(value, name, args),
        ValueKind::Number => of_number(value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_map(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let of = |name: &'static str, items: Vec<Value>| Value::from_object(repr::View { name, items });
    let keys = || value.try_iter().map(Iterator::collect::<Vec<Value>>);
    match name {
        "get" => {
            if args.is_empty() || args.iter().any(Value::is_kwargs) {
                return Err(invalid("get takes a key, and nothing by name"));
            }
            let args = Args::new(args, &["key", "default"])?;
            let key = args.get("key")?.unwrap_or_else(|| Value::from(()));
            let found = value.get_item(&key)?;
            let default = args.get("default")?.unwrap_or_else(|| Value::from(()));
            args.done()?;
            return Ok(if found.is_undefined() { default } else { found });
        }
        "keys" | "values" | "items" | "copy" => {
            Args::new(args, &[])?.done()?;
            charge_items(state, value.len().unwrap_or(0))?;
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    }
    Ok(match name {
        "keys" => of("dict_keys", keys()?),
        "values" => {
            let values: Result<Vec<Value>, Error> = keys()?.iter().map(|key| value.get_item(key)).collect();
            of("dict_values", values?)
        }
        "items" => {
            charge_items(state, value.len().unwrap_or(0).saturating_mul(2))?;
            let pairs = keys()?.into_iter().map(|key| Ok(pair(key.clone(), value.get_item(&key)?)));
            of("dict_items", pairs.collect::<Result<Vec<Value>, Error>>()?)
        }
        _ => value.clone(),
    })
}

/// A tuple of two.
pub(super) fn pair(first: Value, second: Value) -> Value {
    Value::from_object(minijinja::value::Tuple::from(vec![first, second]))
}

/// A tuple.
pub(super) fn tuple(items: Vec<Value>) -> Value {
    Value::from_object(minijinja::value::Tuple::from(items))
}

fn of_list(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "count" | "index" => {
            let names: &[&str] = if name == "count" { &["value"] } else { &["value", "start", "stop"] };
            let args = Args::new(args, names)?;
            let wanted = args.get("value")?.unwrap_or_else(|| Value::from(()));
            let length = value.len().unwrap_or(0) as i64;
            let place = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length) as usize;
            let (start, stop) =
                (args.number("start")?.map_or(0, place), args.number("stop")?.map_or(usize::MAX, place));
            args.done()?;
            let items = value.try_iter()?;
            if name == "count" {
                return Ok(items.filter(|item| *item == wanted).count().into());
            }
            items
                .take(stop)
                .enumerate()
                .position(|(at, item)| at >= start && item == wanted)
                .map(Value::from)
                .ok_or_else(|| invalid("the value is not in the list"))
        }
        "copy" if !value.is_tuple() => Ok(value.clone()),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_number(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    Args::new(args, &[])?.done()?;
    match name {
        "is_integer" => Ok(f64::try_from(value.clone())?.fract().eq(&0.0).into()),
        "bit_length" if value.is_integer() => {
            let number = i128::try_from(value.clone())?.unsigned_abs();
            Ok((u128::BITS - number.leading_zeros()).into())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The part of a text between two places that are counted in letters, and the place that it begins at; `None` where it
/// begins behind the end.
fn part<'t>(whole: &'t str, args: &Args<'_>) -> Result<Option<(&'t str, usize)>, Error> {
    let length = whole.chars().count() as i64;
    let place = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length);
    let start = args.number("start")?.unwrap_or(0);
    let stop = args.number("end")?.map_or(length, place);
    if start > length {
        return Ok(None);
    }
    let start = place(start);
    let byte = |at: i64| whole.char_indices().nth(at as usize).map_or(whole.len(), |(byte, _)| byte);
    Ok(whole.get(byte(start)..byte(stop)).map(|part| (part, start as usize)))
}

fn of_text(state: &mut State<'_, '_>, whole: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let plain = |made: String| -> Result<Value, Error> { Ok(Value::from(made)) };
    if let Some(made) = letters::test(whole, name) {
        Args::new(args, &[])?.done()?;
        return Ok(made.into());
    }
    if let Some(made) = letters::changed(whole, name) {
        Args::new(args, &[])?.done()?;
        return kept(state, made.into());
    }
    let made = match name {
        "strip" | "lstrip" | "rstrip" => {
            let args = Args::new(args, &["chars"])?;
            let chars = args.text("chars")?;
            args.done()?;
            plain(letters::stripped(whole, chars.as_deref(), name != "rstrip", name != "lstrip").to_owned())?
        }
        "startswith" | "endswith" => {
            let args = Args::new(args, &["part", "start", "end"])?;
            let wanted = args.get("part")?.ok_or_else(|| invalid("a text is missing"))?;
            let Some((part, _)) = part(whole, &args)? else { return Ok(false.into()) };
            let fits = |text: &str| if name == "startswith" { part.starts_with(text) } else { part.ends_with(text) };
            match wanted.as_str() {
                Some(text) => fits(text).into(),
                None if wanted.is_tuple() => wanted.try_iter()?.any(|text| text.as_str().is_some_and(fits)).into(),
                None => return Err(invalid(format!("{name} takes a text or a tuple of texts"))),
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let args = Args::new(args, &["sub", "start", "end"])?;
            let wanted = args.need("sub")?;
            let place = part(whole, &args)?;
            if name == "count" {
                return Ok(place.map_or(0, |(part, _)| part.matches(wanted.as_str()).count()).into());
            }
            let found = place.and_then(|(part, start)| {
                let at = if name.starts_with('r') { part.rfind(&wanted) } else { part.find(&wanted) }?;
                Some(start + part.get(..at)?.chars().count())
            });
            match found {
                Some(at) => at.into(),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(invalid("the text is not found")),
            }
        }
        "partition" | "rpartition" => {
            let args = Args::new(args, &["sep"])?;
            let separator = args.need("sep")?;
            args.done()?;
            if separator.is_empty() {
                return Err(invalid("the separator is empty"));
            }
            let last = name == "rpartition";
            let parts = if last { whole.rsplit_once(&separator) } else { whole.split_once(&separator) };
            let texts = match parts {
                Some((before, after)) => [before, separator.as_str(), after],
                None if last => ["", "", whole],
                None => [whole, "", ""],
            };
            tuple(texts.into_iter().map(Value::from).collect())
        }
        "split" | "rsplit" => {
            let args = Args::new(args, &["sep", "maxsplit"])?;
            let (separator, most) = (args.text("sep")?, args.number("maxsplit")?.unwrap_or(-1));
            args.done()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            return split(state, whole, separator.as_deref(), most, name == "rsplit");
        }
        "splitlines" => {
            let args = Args::new(args, &["keepends"])?;
            let keep = args.flag("keepends")?;
            args.done()?;
            let lines = letters::lines(whole, keep);
            charge_items(state, lines.len())?;
            lines.into_iter().map(Value::from).collect()
        }
        "replace" => {
            let args = Args::new(args, &["old", "new", "count"])?;
            let count = args.number("count")?;
            let (old, new) = (args.need("old")?, args.need("new")?);
            args.done()?;
            return replaced(state, whole, &old, &new, count);
        }
        "removeprefix" | "removesuffix" => {
            let args = Args::new(args, &["part"])?;
            let part = args.need("part")?;
            args.done()?;
            let cut = if name == "removeprefix" { whole.strip_prefix(&part) } else { whole.strip_suffix(&part) };
            plain(cut.unwrap_or(whole).to_owned())?
        }
        "join" => {
            let args = Args::new(args, &["iterable"])?;
            let items = args.get("iterable")?.ok_or_else(|| invalid("what is joined is missing"))?;
            args.done()?;
            let mut out = String::new();
            for (at, item) in items.try_iter()?.enumerate() {
                let item = item.as_str().ok_or_else(|| invalid("join takes texts alone"))?;
                charge(state, item.len() + whole.len())?;
                out += if at > 0 { whole } else { "" };
                out += item;
            }
            plain(out)?
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => {
            let names = if name == "expandtabs" { ["tabsize", "fillchar"] } else { ["width", "fillchar"] };
            let args = Args::new(args, &names)?;
            let width = args.number("width")?.or(args.number("tabsize")?);
            let fill = args.text("fillchar")?;
            args.done()?;
            let width = usize::try_from(width.unwrap_or(if name == "expandtabs" { 8 } else { 0 }).max(0));
            let width = width.unwrap_or(usize::MAX);
            let fill = fill.as_deref().map_or(Some(' '), letters::only).ok_or_else(|| invalid("one letter fills"))?;
            let times = if name == "expandtabs" { whole.matches('\t').count() } else { 1 };
            charge_each(state, times, width.saturating_mul(fill.len_utf8()))?;
            plain(letters::filled(whole, name, width, fill))?
        }
        "format" => return pyformat::format(state, whole, args),
        "format_map" => {
            let args = Args::new(args, &["mapping"])?;
            let named = args.get("mapping")?.ok_or_else(|| invalid("format_map takes a mapping"))?;
            args.done()?;
            return pyformat::format_map(state, whole, &named);
        }
        "translate" => {
            let args = Args::new(args, &["table"])?;
            let table = args.get("table")?.ok_or_else(|| invalid("translate takes a table"))?;
            args.done()?;
            return translated(state, whole, &table);
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    kept(state, made)
}

/// `split` and `rsplit`: at most `most` times, from the end if `last`.
fn split(
    state: &mut State<'_, '_>,
    whole: &str,
    separator: Option<&str>,
    most: usize,
    last: bool,
) -> Result<Value, Error> {
    if separator == Some("") {
        return Err(invalid("the separator is empty"));
    }
    // Before the list is made, of which every part may be empty.
    let parts = separator.map_or_else(|| whole.split_whitespace().count(), |s| whole.matches(s).count());
    charge_items(state, parts.min(most) + 1)?;
    charge(state, whole.len())?;
    let pieces = most.saturating_add(1);
    let mut texts: Vec<&str> = match (separator, last) {
        (Some(separator), false) => whole.splitn(pieces, separator).collect(),
        (Some(separator), true) => whole.rsplitn(pieces, separator).collect(),
        (None, _) => letters::words(whole, most, last),
    };
    if last && separator.is_some() {
        texts.reverse();
    }
    let made = texts.into_iter().map(Value::from).collect();
    kept(state, made)
}

/// `translate`: each letter becomes what `table` has for its number; nothing for none.
fn translated(state: &mut State<'_, '_>, whole: &str, table: &Value) -> Result<Value, Error> {
    let mut out = String::with_capacity(whole.len());
    for letter in whole.chars() {
        let to = table.get_item(&Value::from(u32::from(letter)))?;
        let before = out.len();
        match (to.as_str(), to.kind()) {
            (Some(text), _) => out += text,
            (None, ValueKind::Undefined) => out.push(letter),
            (None, ValueKind::None) => {}
            (None, ValueKind::Number) if to.is_integer() => {
                let letter = u32::try_from(to).ok().and_then(char::from_u32);
                out.push(letter.ok_or_else(|| invalid("there is no letter of that number"))?);
            }
            (None, kind) => return Err(invalid(format!("translate does not take a {kind}"))),
        }
        charge(state, out.len() - before)?;
    }
    Ok(out.into())
}

/// `replace`, at most `count` times where it is not negative.
fn replaced(state: &mut State<'_, '_>, whole: &str, old: &str, new: &str, count: Option<i64>) -> Result<Value, Error> {
    let count = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    charge(state, whole.len() + old.len())?;
    charge_each(state, whole.matches(old).count().min(count), new.len())?;
    Ok(Value::from(whole.replacen(old, new, count)))
}

/// The filter `replace`: of anything, as a text.
pub(super) fn replace(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "old", "new", "count"])?;
    let mut texts = Vec::new();
    for name in ["value", "old", "new"] {
        let value = args.get(name)?.ok_or_else(|| invalid(format!("{name} is missing")))?;
        charge_text(state, &value)?;
        texts.push(text(state, |out| repr::write_str(&value, out))?);
    }
    let count = args.number("count")?;
    args.done()?;
    let [whole, old, new] = &texts[..] else { return Err(invalid("a text is missing")) };
    replaced(state, whole, old, new, count)
}
