//! Jinja2's functions `dict`, `cycler` and `joiner`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::args::invalid;
use super::budget::{charge_items, shallow};

/// `dict(mapping_or_pairs, name=value, …)`.
pub(super) fn dict(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for arg in args {
        shallow(state, arg)?;
        let is_map = arg.kind() == ValueKind::Map;
        for item in arg.try_iter()? {
            charge_items(state, 2)?;
            pairs.push(if is_map {
                (item.clone(), arg.get_item(&item)?)
            } else {
                (item.get_item_by_index(0)?, item.get_item_by_index(1)?)
            });
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// Goes round its items.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items.get(self.at.load(Ordering::Relaxed)).cloned().unwrap_or_default()
    }
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        _args: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "next" => {
                let current = self.current();
                let next = (self.at.load(Ordering::Relaxed) + 1) % self.items.len().max(1);
                self.at.store(next, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `cycler(items…)`.
pub(super) fn cycler(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    if args.is_empty() {
        return Err(invalid("cycler takes at least one item"));
    }
    for arg in args {
        shallow(state, arg)?;
    }
    charge_items(state, args.len())?;
    Ok(Value::from_object(Cycler { items: args.to_vec(), at: AtomicUsize::new(0) }))
}

/// Nothing when it is called first, its text from then on.
#[derive(Debug)]
struct Joiner {
    between: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn call(self: &Arc<Self>, _state: &mut State<'_, '_>, _args: &[Value]) -> Result<Value, Error> {
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(if used { self.between.clone() } else { Value::from("") })
    }
}

/// `joiner(sep=', ')`.
pub(super) fn joiner(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = super::args::Args::new(args, &["sep"])?;
    let between = args.get("sep")?.unwrap_or_else(|| Value::from(", "));
    args.done()?;
    shallow(state, &between)?;
    Ok(Value::from_object(Joiner { between, used: AtomicBool::new(false) }))
}
