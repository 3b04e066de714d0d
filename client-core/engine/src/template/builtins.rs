//! The filters, tests and functions that templates have: those of minijinja that Jinja has too, with the budget before and
//! after them, and our own where what comes out is not bounded by what goes in.
//!
//! Left out: `batch` and `slice`, which make as many lists as they are told to, and `pprint`, `random`, `wordwrap` and the
//! like, which no chat template calls for.

use std::fmt::Write;

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions, tests};

use super::budget::{charge, charge_each, charge_items, charge_text, kept, shallow, text};
use super::{python, rewrite};

/// What a filter may make of its input.
#[derive(Clone, Copy)]
enum Makes {
    /// A number, or a part of the input that is there already.
    Nothing,
    /// A text of the whole input, however it is nested.
    Text,
    /// A list of the input's items.
    Items,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Whether `value` is a list of any kind.
fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// An operation on two numbers; whole ones stay whole.
fn arithmetic(
    (a, b): (&Value, &Value),
    sign: &str,
    whole: fn(i128, i128) -> Option<i128>,
    float: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(a) || !is_number(b) {
        return Err(invalid(format!("{sign} is not for {} and {}", a.kind(), b.kind())));
    }
    let is_float = |value: &Value| value.is_number() && !value.is_integer();
    if is_float(a) || is_float(b) {
        return Ok(float(f64::try_from(a.clone())?, f64::try_from(b.clone())?).into());
    }
    let result = whole(i128::try_from(a.clone())?, i128::try_from(b.clone())?);
    let result = result.ok_or_else(|| invalid(format!("{a} {sign} {b} is too large")))?;
    Ok(i64::try_from(result).map_or_else(|_| result.into(), Value::from))
}

fn add(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge(state, a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_list(a) && is_list(b) {
        charge_items(state, a.len().unwrap_or(0).saturating_add(b.len().unwrap_or(0)))?;
        return Ok(Value::from_iter(a.try_iter()?.chain(b.try_iter()?)));
    }
    arithmetic((a, b), "+", i128::checked_add, |a, b| a + b)
}

fn repeat(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let (what, times) = if is_list(b) || b.as_str().is_some() { (b, a) } else { (a, b) };
    if what.as_str().is_none() && !is_list(what) {
        return arithmetic((a, b), "*", i128::checked_mul, |a, b| a * b);
    }
    // As in Python, fewer times than none is none.
    let times =
        i64::try_from(times.clone()).map_err(|_| invalid("a text or a list is repeated a whole number of times"))?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = what.as_str() {
        charge_each(state, times, text.len())?;
        return Ok(Value::from(text.repeat(times)));
    }
    charge_items(state, times.saturating_mul(what.len().unwrap_or(0)))?;
    let items: Vec<Value> = what.try_iter()?.collect();
    Ok(std::iter::repeat_n(items, times).flatten().collect())
}

/// `value[start:stop:step]` as in Python. minijinja's own panics where it goes backwards through nothing.
fn slice(state: &mut State<'_, '_>, value: &Value, bounds: [Option<i64>; 3]) -> Result<Value, Error> {
    let [start, stop, step] = bounds.map(|bound| bound.map(i128::from));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(invalid("a slice takes steps of at least one"));
    }
    let places = |length: usize| {
        let length = length as i128;
        let (first, last) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |bound: i128| if bound < 0 { bound + length } else { bound }.clamp(first, last);
        let (begin, end) = if step > 0 { (first, last) } else { (last, first) };
        let (start, stop) = (start.map_or(begin, place), stop.map_or(end, place));
        let count = if step > 0 { stop - start + step - 1 } else { stop - start + step + 1 } / step;
        (0..count.max(0)).map(move |n| (start + n * step) as usize)
    };
    let part = if let Some(text) = value.as_str() {
        charge_each(state, text.len(), size_of::<char>())?;
        let letters: Vec<char> = text.chars().collect();
        Value::from(places(letters.len()).filter_map(|place| letters.get(place)).collect::<String>())
    } else if is_list(value) || value.is_undefined() || value.is_none() {
        let items: Vec<Value> = value.try_iter()?.collect();
        places(items.len()).filter_map(|place| items.get(place).cloned()).collect()
    } else {
        return Err(invalid(format!("a {} has no slices", value.kind())));
    };
    kept(state, part)
}

/// What [`filters::join`], [`filters::indent`] and [`filters::format`] make beyond the text of their arguments.
fn charge_growth(state: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<(), Error> {
    let Some((value, rest)) = args.split_first() else { return Ok(()) };
    let whole = |value: &Value| value.as_usize();
    match name {
        "join" => {
            let between = |value: &Value| value.as_str().map(str::len);
            let named = rest.iter().find_map(|arg| arg.get_attr("d").ok().as_ref().and_then(between));
            let length = rest.iter().find_map(between).or(named).unwrap_or(0);
            charge_each(state, value.len().unwrap_or(0), length)
        }
        "indent" => {
            let named = rest.iter().find_map(|arg| arg.get_attr("width").ok().as_ref().and_then(whole));
            let width = rest.first().and_then(whole).or(named).unwrap_or(4);
            let lines = value.as_str().map_or(1, |text| 1 + text.matches('\n').count());
            charge_each(state, lines, width)
        }
        "format" => {
            let format = value.as_str().unwrap_or_default();
            let long = |digits: &str| digits.len() > 2;
            if format.contains('*') || format.split(|c: char| !c.is_ascii_digit()).any(long) {
                return Err(invalid("`format` takes widths of up to two digits here"));
            }
            if !has_ascii_names(format) {
                return Err(invalid("`format` takes names in ASCII here"));
            }
            let directives = format.matches('%').count();
            for arg in rest {
                for _ in 0..directives {
                    charge_text(state, arg)?;
                }
            }
            charge_each(state, directives, 128)
        }
        _ => Ok(()),
    }
}

/// Whether all names are ASCII in fields like `%(name)s`: minijinja reads them byte by byte, and panics inside a letter.
fn has_ascii_names(format: &str) -> bool {
    let mut rest = format;
    while let Some((_, field)) = rest.split_once('%') {
        rest = field.strip_prefix('%').unwrap_or(field);
        let name = field.strip_prefix('(').and_then(|field| field.split(')').next());
        if name.is_some_and(|name| !name.is_ascii()) {
            return false;
        }
    }
    true
}

/// Adds the filter `inner` under `name`, with its costs.
fn add_filter(environment: &mut Environment<'static>, name: &'static str, makes: Makes, inner: Value) {
    environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        for (at, arg) in args.iter().enumerate() {
            match (makes, arg.as_str()) {
                (Makes::Nothing, _) => {}
                (Makes::Items, Some(text)) if at == 0 => charge_items(state, text.len())?,
                (Makes::Items, None) if at == 0 => {}
                _ => charge_text(state, arg)?,
            }
        }
        charge_growth(state, name, &args)?;
        let result = inner.call(state, &args)?;
        if matches!(makes, Makes::Nothing) { Ok(result) } else { kept(state, result) }
    });
}

/// Adds a function that takes any arguments, once they have been looked at.
fn add_function(environment: &mut Environment<'static>, name: &'static str, inner: Value) {
    environment.add_function(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        for arg in &args {
            shallow(state, arg)?;
        }
        let result = inner.call(state, &args)?;
        // A range is worked out as it is walked through, and is short.
        if name == "dict" { kept(state, result) } else { Ok(result) }
    });
}

/// Adds what the rewritten tree calls.
fn add_operators(environment: &mut Environment<'static>) {
    environment
        .add_filter(rewrite::KEPT, |state: &mut State<'_, '_>, value: ValueOrKwargs| kept(state, value.into_value()));
    environment.add_filter(rewrite::STORED, |state: &mut State<'_, '_>, value: ValueOrKwargs| {
        shallow(state, &value)?;
        Ok(value.into_value())
    });
    environment.add_filter(rewrite::CONCAT, |state: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| {
        text(state, |out| write!(out, "{}{}", *a, *b))
    });
    environment
        .add_filter(rewrite::ADD, |state: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| add(state, &a, &b));
    environment.add_filter(rewrite::REPEAT, |state: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| {
        repeat(state, &a, &b)
    });
    environment.add_filter(
        rewrite::SLICE,
        |state: &mut State<'_, '_>, value: Value, start: Option<i64>, stop: Option<i64>, step: Option<i64>| {
            slice(state, &value, [start, stop, step])
        },
    );
    environment.set_formatter(|out, state, value| {
        charge_text(state, value)?;
        // A prompt is no HTML: nothing is escaped, whatever `autoescape` says.
        Ok(write!(out, "{value}")?)
    });
}

/// An environment with all that a chat template has, and without a budget.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    add_operators(&mut environment);
    macro_rules! add {
        ($makes:ident: $($name:ident as $inner:ident),*) => {
            $(add_filter(&mut environment, stringify!($name), Makes::$makes, Value::from_function(filters::$inner));)*
        };
    }
    add!(Nothing: abs as abs, attr as attr, count as length, d as default, default as default, first as first);
    add!(Nothing: float as float, int as int, last as last, length as length, max as max, min as min, round as round);
    add!(Text: capitalize as capitalize, e as escape, escape as escape, format as format, indent as indent, join as join);
    add!(Text: lower as lower, safe as safe, string as string, sum as sum, title as title, trim as trim, upper as upper);
    add!(Items: dictsort as dictsort, groupby as groupby, items as items, list as list, map as map, reject as reject);
    add!(Items: rejectattr as rejectattr, reverse as reverse, select as select, selectattr as selectattr);
    add!(Items: sort as sort, unique as unique);
    environment.add_filter("replace", python::replace);
    environment.add_filter("tojson", python::tojson);

    macro_rules! test {
        ($($name:literal as $inner:ident),*) => { $(environment.add_test($name, tests::$inner);)* };
    }
    test!("boolean" as is_boolean, "defined" as is_defined, "divisibleby" as is_divisibleby, "escaped" as is_safe);
    test!("even" as is_even, "false" as is_false, "filter" as is_filter, "float" as is_float, "in" as is_in);
    test!("integer" as is_integer, "iterable" as is_iterable, "lower" as is_lower, "mapping" as is_mapping);
    test!("none" as is_none, "number" as is_number, "odd" as is_odd, "sameas" as is_sameas);
    test!("sequence" as is_sequence, "string" as is_string, "test" as is_test, "true" as is_true);
    test!("undefined" as is_undefined, "upper" as is_upper);
    test!("==" as is_eq, "eq" as is_eq, "equalto" as is_eq, "!=" as is_ne, "ne" as is_ne);
    test!("<" as is_lt, "lt" as is_lt, "lessthan" as is_lt, "<=" as is_le, "le" as is_le);
    test!(">" as is_gt, "gt" as is_gt, "greaterthan" as is_gt, ">=" as is_ge, "ge" as is_ge);

    add_function(&mut environment, "dict", Value::from_function(functions::dict));
    add_function(&mut environment, "namespace", Value::from_function(functions::namespace));
    environment.add_function("range", functions::range);
    environment.add_function("raise_exception", |state: &mut State<'_, '_>, message: Value| -> Result<Value, Error> {
        charge_text(state, &message)?;
        Err(invalid(message.to_string()))
    });
    environment.set_unknown_method_callback(python::method);
    environment
}
