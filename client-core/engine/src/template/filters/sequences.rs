//! Lists, mappings and what is in them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::{items, number, shown};
use crate::template::args::{Args, invalid};
use crate::template::budget::{charge, charge_items, charge_text, text};
use crate::template::{python, repr};

/// `batch(value, linecount, fill_with)` and `slice(value, slices, fill_with)`.
pub(super) fn rows(state: &mut State<'_, '_>, args: &[Value], slices: bool) -> Result<Value, Error> {
    let name = if slices { "slices" } else { "linecount" };
    let names = ["value", name, "fill_with"];
    let args = Args::new(args, &names)?;
    let value = args.get("value")?.unwrap_or_else(|| Value::from(()));
    let items = items(state, &value)?;
    let count = usize::try_from(number(&args, name, 0)?).ok().filter(|count| *count > 0);
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

/// Values by `attribute`, a name, a path with points or a place.
pub(in crate::template) fn attribute(value: &Value, path: &Value, default: Option<&Value>) -> Value {
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

pub(super) fn pretty(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    charge_text(state, &value)?;
    // Python's pprint sorts the keys of mappings, and breaks what is longer than 80 letters, which this does not.
    fn sorted(value: &Value) -> Value {
        match value.kind() {
            ValueKind::Map => {
                let keys: Vec<Value> = value.try_iter().into_iter().flatten().collect();
                let keys = crate::template::lists::merged(keys, &|a, b| a > b);
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

/// One of several: there is no chance in a prompt, so it is the first.
pub(super) fn random(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let value = args.first().cloned().unwrap_or_default();
    Ok(value.try_iter()?.next().unwrap_or_default())
}

pub(super) fn unique(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn join(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn reverse(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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
pub(super) fn default(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn length(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    match args {
        [value] if value.is_undefined() => Ok(0.into()),
        [value] => {
            let letters = value.as_str().map(|text| text.chars().count());
            letters.or(value.len()).map(Value::from).ok_or_else(|| invalid(format!("a {} has no length", value.kind())))
        }
        _ => Err(invalid("length takes a value")),
    }
}

pub(super) fn pairs(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    match args {
        [value] if value.is_undefined() => Ok(Vec::<Value>::new().into()),
        [value] if value.kind() == ValueKind::Map => python::method(state, value, "items", &[]),
        _ => Err(invalid("items takes a mapping")),
    }
}
