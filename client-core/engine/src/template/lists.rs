//! Jinja2's filters that put lists in order: by values, by attributes, large and small letters alike unless told otherwise.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::args::{Args, invalid};
use super::budget::charge_items;
use super::filters::attribute;
use super::python::{pair, tuple};

fn items(state: &mut State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    for item in value.try_iter()? {
        charge_items(state, 2)?;
        items.push(item);
    }
    Ok(items)
}

/// What is compared: texts in small letters unless `exact`.
fn key(value: Value, exact: bool) -> Value {
    match value.as_str() {
        Some(text) if !exact => Value::from(text.to_lowercase()),
        _ => value,
    }
}

/// Python compares numbers with numbers, texts with texts, and lists with lists, and nothing else.
fn compare(a: &Value, b: &Value) -> Result<Ordering, Error> {
    let kind = |value: &Value| match value.kind() {
        ValueKind::Bool | ValueKind::Number => ValueKind::Number,
        kind => kind,
    };
    match (kind(a), kind(b)) {
        (ValueKind::Seq, ValueKind::Seq) => {
            for (a, b) in a.try_iter()?.zip(b.try_iter()?) {
                let order = if a == b { Ordering::Equal } else { compare(&a, &b)? };
                if order.is_ne() {
                    return Ok(order);
                }
            }
            Ok(a.len().cmp(&b.len()))
        }
        (left, right) if left == right && matches!(left, ValueKind::Number | ValueKind::String) => Ok(a.cmp(b)),
        (left, right) => Err(invalid(format!("a {left} and a {right} have no order"))),
    }
}

/// In order by their keys, those with equal keys as they were.
fn ordered(list: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>, Error> {
    let mut list = list;
    let mut problem = None;
    list.sort_by(|(a, _), (b, _)| {
        let order = compare(a, b).unwrap_or_else(|error| {
            problem.get_or_insert(error);
            a.cmp(b)
        });
        if reverse { order.reverse() } else { order }
    });
    problem.map_or(Ok(list), Err)
}

pub(super) fn sort(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "reverse", "case_sensitive", "attribute"])?;
    let list = items(state, &args.get("value")?.unwrap_or_default())?;
    let (reverse, exact, path) = (args.flag("reverse")?, args.flag("case_sensitive")?, args.get("attribute")?);
    args.done()?;
    let keyed = list.into_iter().map(|item| {
        let by = match &path {
            None => key(item.clone(), exact),
            Some(path) => {
                let paths = path.to_string();
                let keys = paths.split(',').map(|path| key(attribute(&item, &path.trim().into(), None), exact));
                tuple(keys.collect())
            }
        };
        (by, item)
    });
    Ok(ordered(keyed.collect(), reverse)?.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn dict_sort(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "case_sensitive", "by", "reverse"])?;
    let value = args.get("value")?.unwrap_or_default();
    if value.kind() != ValueKind::Map {
        return Err(invalid("dictsort takes a mapping"));
    }
    let (exact, reverse) = (args.flag("case_sensitive")?, args.flag("reverse")?);
    let by_value = match args.text("by")?.as_deref() {
        None | Some("key") => false,
        Some("value") => true,
        Some(other) => return Err(invalid(format!("dictsort goes by key or value, not by {other:?}"))),
    };
    args.done()?;
    let mut keyed = Vec::new();
    for name in items(state, &value)? {
        let of = value.get_item(&name)?;
        keyed.push((key(if by_value { of.clone() } else { name.clone() }, exact), pair(name, of)));
    }
    Ok(ordered(keyed, reverse)?.into_iter().map(|(_, item)| item).collect())
}

/// Pairs of a value and the items that have it as `attribute`, which also answer to `grouper` and `list`.
pub(super) fn group_by(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "attribute", "default", "case_sensitive"])?;
    let list = items(state, &args.get("value")?.unwrap_or_default())?;
    let path = args.get("attribute")?.ok_or_else(|| invalid("groupby takes an attribute"))?;
    let (default, exact) = (args.get("default")?, args.flag("case_sensitive")?);
    args.done()?;
    let keyed = list.into_iter().map(|item| (attribute(&item, &path, default.as_ref()), item));
    let keyed: Vec<(Value, Value)> = keyed.map(|(by, item)| (key(by.clone(), exact), pair(by, item))).collect();
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (by, both) in ordered(keyed, false)? {
        let (shown, item) = (both.get_item_by_index(0)?, both.get_item_by_index(1)?);
        match groups.last_mut() {
            Some((last, _, group)) if *last == by => group.push(item),
            _ => groups.push((by, shown, vec![item])),
        }
    }
    Ok(groups.into_iter().map(|(_, shown, group)| Value::from_object(Group(shown, group.into()))).collect())
}

/// A named pair, as Jinja2 has it.
#[derive(Debug)]
struct Group(Value, Value);

impl minijinja::value::Object for Group {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Seq
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.0.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.1.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(2)
    }
}

/// Whether a value is one of groupby's pairs, which are written as tuples.
pub(super) fn is_group(value: &Value) -> bool {
    value.downcast_object_ref::<Group>().is_some()
}

pub(super) fn sum(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "attribute", "start"])?;
    let list = items(state, &args.get("value")?.unwrap_or_default())?;
    let path = args.get("attribute")?;
    let mut total = args.get("start")?.unwrap_or_else(|| Value::from(0));
    for item in list {
        let item = path.as_ref().map_or_else(|| item.clone(), |path| attribute(&item, path, None));
        total = super::builtins::add(state, &total, &item)?;
    }
    Ok(total)
}
