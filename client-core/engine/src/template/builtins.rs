//! The filters, tests and functions that templates have: those of minijinja that Jinja has too, with the budget before and
//! after them, and our own where what comes out is not bounded by what goes in.
//!
//! Which ones there are follows Jinja2's documentation; what they make is compared with Python's word for word (see
//! `golden_tests.rs`). Left out: `lipsum`, which makes text by chance.

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters, functions, tests};

use super::args::invalid;
use super::budget::{charge, charge_each, charge_items, charge_text, check_stop, kept, shallow, text};
use super::{filters as own, functions as own_functions, json, pyformat, python, repr, rewrite};

/// What a filter may make of its input.
#[derive(Clone, Copy)]
enum FilterOutput {
    /// A number, or a part of the input that is there already.
    Nothing,
    /// A text of the whole input, however it is nested.
    Text,
    /// A list of the input's items.
    Items,
}

/// Whether `value` is a list of any kind.
fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn is_zero(value: &Value) -> bool {
    value.is_number() && f64::try_from(value.clone()).is_ok_and(|number| number == 0.0)
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

pub(super) fn add(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge(state, a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        charge_items(state, a.len().unwrap_or(0).saturating_add(b.len().unwrap_or(0)))?;
        if a.is_tuple() && b.is_tuple() {
            return Ok(python::tuple(a.try_iter()?.chain(b.try_iter()?).collect()));
        }
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
    let all = std::iter::repeat_n(items, times).flatten();
    Ok(if what.is_tuple() { python::tuple(all.collect()) } else { all.collect() })
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
        let part = places(items.len()).filter_map(|place| items.get(place).cloned());
        if value.is_tuple() { python::tuple(part.collect()) } else { part.collect() }
    } else {
        return Err(invalid(format!("a {} has no slices", value.kind())));
    };
    kept(state, part)
}

/// Adds the filter `inner` under `name`, with its costs.
fn add_filter(environment: &mut Environment<'static>, name: &'static str, makes: FilterOutput, inner: Value) {
    environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        check_stop(state)?;
        for (at, arg) in args.iter().enumerate() {
            match (makes, arg.as_str()) {
                (FilterOutput::Nothing, _) => {}
                (FilterOutput::Items, Some(text)) if at == 0 => charge_items(state, text.len())?,
                (FilterOutput::Items, None) if at == 0 => {}
                _ => charge_text(state, arg)?,
            }
        }
        let result = inner.call(state, &args)?;
        if matches!(makes, FilterOutput::Nothing) { Ok(result) } else { kept(state, result) }
    });
}

/// Adds a filter of our own, which charges for what it makes while it makes it.
pub(super) fn add_own(
    environment: &mut Environment<'static>,
    name: &'static str,
    filter: fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>,
) {
    environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        check_stop(state)?;
        let made = filter(state, &args.into_values())?;
        kept(state, made)
    });
}

/// Adds a test. A filter such as `select` runs it once an item, and looking for an item in a long list takes milliseconds.
fn add_test(environment: &mut Environment<'static>, name: &'static str, inner: Value) {
    environment.add_test(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| -> Result<bool, Error> {
        check_stop(state)?;
        Ok(inner.call(state, &args.into_values())?.is_true())
    });
}

/// Adds a function that takes any arguments, once they have been looked at.
fn add_function(environment: &mut Environment<'static>, name: &'static str, inner: Value) {
    environment.add_function(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        check_stop(state)?;
        for arg in &args {
            shallow(state, arg)?;
        }
        inner.call(state, &args)
    });
}

/// Adds what the rewritten tree calls.
fn add_operators(environment: &mut Environment<'static>) {
    environment
        .add_filter(rewrite::KEPT, |state: &mut State<'_, '_>, value: ValueOrKwargs| kept(state, value.into_value()));
    environment.add_filter(rewrite::COMPARED, |state: &mut State<'_, '_>, value: ValueOrKwargs| {
        check_stop(state)?;
        Ok(value.into_value())
    });
    environment.add_filter(rewrite::STORED, |state: &mut State<'_, '_>, value: ValueOrKwargs| {
        shallow(state, &value)?;
        Ok(value.into_value())
    });
    environment.add_filter(rewrite::CONCAT, |state: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| {
        text(state, |out| repr::write_str(&a, out).and_then(|()| repr::write_str(&b, out)))
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
        Ok(repr::write_str(value, out)?)
    });
    environment.add_filter(rewrite::REMAINDER, |state: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| {
        if let Some(format) = a.as_str() {
            charge_text(state, &a)?;
            return pyformat::percent(state, format, &b);
        }
        // As in Python, the remainder has the sign of what is divided by.
        let whole = |a: i128, b: i128| {
            a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        };
        let float = |a: f64, b: f64| a - b * (a / b).floor();
        if is_zero(&b) {
            return Err(invalid("nothing has a remainder by zero"));
        }
        arithmetic((&a, &b), "%", whole, float)
    });
    environment.add_filter(rewrite::METHOD, |_: &mut State<'_, '_>, value: ValueOrKwargs, name: &str| {
        let value = value.into_value();
        match python::bound(&value, name) {
            Some(method) => Ok(method),
            None => value.get_attr(name),
        }
    });
    environment.add_filter(rewrite::QUOTIENT, |_: &mut State<'_, '_>, a: ValueOrKwargs, b: ValueOrKwargs| {
        if is_zero(&b) {
            return Err(invalid("nothing is divided by zero"));
        }
        let whole =
            |a: i128, b: i128| a.checked_div(b).map(|n| if a % b != 0 && (a < 0) != (b < 0) { n - 1 } else { n });
        arithmetic((&a, &b), "//", whole, |a, b| (a / b).floor())
    });
}

/// An environment with all that a chat template has, and without a budget.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    add_operators(&mut environment);
    macro_rules! add {
        ($makes:ident: $($name:ident as $inner:ident),*) => {
            $(add_filter(&mut environment, stringify!($name), FilterOutput::$makes, Value::from_function(filters::$inner));)*
        };
    }
    add!(Nothing: abs as abs, attr as attr, first as first);
    add!(Nothing: last as last, max as max, min as min, round as round);
    add!(Text: safe as safe);
    add!(Items: list as list, map as map, reject as reject);
    add!(Items: rejectattr as rejectattr, select as select, selectattr as selectattr);
    own::add(&mut environment);
    environment.add_filter("tojson", json::tojson);

    macro_rules! test {
        ($($name:literal as $inner:ident),*) => {
            $(add_test(&mut environment, $name, Value::from_function(tests::$inner));)*
        };
    }
    test!("boolean" as is_boolean, "defined" as is_defined, "escaped" as is_safe);
    test!("even" as is_even, "false" as is_false, "filter" as is_filter, "float" as is_float, "in" as is_in);
    test!("integer" as is_integer, "lower" as is_lower, "mapping" as is_mapping);
    test!("none" as is_none, "number" as is_number, "odd" as is_odd, "sameas" as is_sameas);
    test!("string" as is_string, "test" as is_test, "true" as is_true);
    test!("undefined" as is_undefined, "upper" as is_upper);
    test!("==" as is_eq, "eq" as is_eq, "equalto" as is_eq, "!=" as is_ne, "ne" as is_ne);
    test!("<" as is_lt, "lt" as is_lt, "lessthan" as is_lt, "<=" as is_le, "le" as is_le);
    test!(">" as is_gt, "gt" as is_gt, "greaterthan" as is_gt, ">=" as is_ge, "ge" as is_ge);

    for (name, function) in [
        ("dict", own_functions::dict as fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>),
        ("cycler", own_functions::cycler),
        ("joiner", own_functions::joiner),
    ] {
        environment.add_function(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            function(state, &args.into_values())
        });
    }
    add_function(&mut environment, "namespace", Value::from_function(functions::namespace));
    environment.add_function("range", functions::range);
    let is_sequence = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String);
    add_test(&mut environment, "sequence", Value::from_function(is_sequence));
    // minijinja's own panics at zero.
    let is_divisible = |value: &Value, by: &Value| -> Result<bool, Error> {
        if is_zero(by) {
            return Err(invalid("nothing has a remainder by zero"));
        }
        Ok(tests::is_divisibleby(value, by))
    };
    add_test(&mut environment, "divisibleby", Value::from_function(is_divisible));
    let is_iterable = |value: &Value| !value.is_none() && value.try_iter().is_ok();
    add_test(&mut environment, "iterable", Value::from_function(is_iterable));
    let is_callable = |value: &Value| value.kind() == ValueKind::Plain && value.as_object().is_some();
    add_test(&mut environment, "callable", Value::from_function(is_callable));
    environment.add_function("raise_exception", |state: &mut State<'_, '_>, message: Value| -> Result<Value, Error> {
        charge_text(state, &message)?;
        Err(invalid(message.to_string()))
    });
    environment.set_unknown_method_callback(python::method);
    environment
}
