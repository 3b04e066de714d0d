//! The memory that a template may take: every value that it makes is charged for, and never given back.
//!
//! Nothing is given back because minijinja does not say when a value goes. So the budget bounds what a template makes from
//! beginning to end, which is more than it ever holds; it is far from what templates in use come to.

use std::fmt::{self, Write};

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::Stop;

/// Bytes charged for an item of a list.
const ITEM: usize = 32;
/// Bytes charged for a value that was looked at in search of what lies deep, so that this ends, too.
const LOOK: usize = 4;
/// How deep lists and mappings may lie in each other: they are shown, compared and taken down recursively.
const MAX_DEPTH: usize = 64;
/// The variable that holds the budget. No template can name it, because of the space.
pub(super) const ROOM: &str = "room left";

/// The variable that holds what is asked whether the render is to be given up; there is none where nobody may say so.
pub(super) const STOP: &str = "stop now";

/// Bytes left to a render.
struct BytesLeft(usize);

/// What says whether a render is to be given up, as a value of a template that cannot name it.
pub(super) struct Stops(pub(super) Stop);

impl fmt::Debug for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stops")
    }
}

impl Object for Stops {}

/// The same, found once a render.
struct Asked(Option<Stop>);

/// Ends the render if nobody waits for it any more. What takes long asks this first: one step may take milliseconds.
pub(super) fn check_stop(state: &mut State<'_, '_>) -> Result<(), Error> {
    if state.get_extension::<Asked>().is_none() {
        let stop = state.lookup(STOP).and_then(|stop| Some(stop.downcast_object_ref::<Stops>()?.0.clone()));
        state.get_or_insert_extension(Asked(stop));
    }
    let Asked(stop) = state.get_or_insert_extension(Asked(None));
    if stop.as_ref().is_some_and(|stop| stop()) {
        return Err(Error::new(ErrorKind::InvalidOperation, "nobody waits for it any more"));
    }
    Ok(())
}

fn bytes_left<'s>(state: &'s mut State<'_, '_>) -> &'s mut usize {
    if state.get_extension::<BytesLeft>().is_none() {
        let left = state.lookup(ROOM).and_then(|left| left.as_usize()).unwrap_or(0);
        state.get_or_insert_extension(BytesLeft(left));
    }
    &mut state.get_or_insert_extension(BytesLeft(0)).0
}

fn exhausted() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "the template makes more text or longer lists than this conversation calls for",
    )
}

/// Takes `bytes` from what the render may still make.
pub(super) fn charge(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    check_stop(state)?;
    let left = bytes_left(state);
    *left = left.checked_sub(bytes).ok_or_else(exhausted)?;
    Ok(())
}

/// As [`charge`], for `count` times `bytes`.
pub(super) fn charge_each(state: &mut State<'_, '_>, count: usize, bytes: usize) -> Result<(), Error> {
    charge(state, count.saturating_mul(bytes))
}

/// As [`charge`], for a list of `count` items.
pub(super) fn charge_items(state: &mut State<'_, '_>, count: usize) -> Result<(), Error> {
    charge_each(state, count, ITEM)
}

/// Counts what is written, and refuses more than is left.
struct Counter(usize);

impl Write for Counter {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(part.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Charges for `value` as a text, before anybody makes it. A list counts with all that is in it, however often.
pub(super) fn charge_text(state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return charge(state, text.len());
    }
    check_stop(state)?;
    let left = bytes_left(state);
    let mut counter = Counter(*left);
    let fits = super::repr::write_str(value, &mut counter);
    *left = counter.0;
    fits.map_err(|_| exhausted())
}

/// Charges for `value`, which an operation has made. What would be worked out item by item later is worked out here, so
/// that its length is known and charged for.
pub(super) fn kept(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = match value.kind() {
        ValueKind::String => {
            charge(state, value.as_str().map_or(0, str::len))?;
            return Ok(value);
        }
        ValueKind::Seq | ValueKind::Map => {
            charge_items(state, value.len().unwrap_or(0))?;
            value
        }
        ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                charge_items(state, 1 + if item.kind() == ValueKind::Seq { item.len().unwrap_or(0) } else { 0 })?;
                items.push(item);
            }
            Value::from(items)
        }
        _ => return Ok(value),
    };
    shallow(state, &value)?;
    Ok(value)
}

/// Refuses a value that is nested too deep or holds a namespace. A namespace in a namespace could hold itself: it would
/// never be shown to the end, nor be given back.
pub(super) fn shallow(state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    fn look(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
        *left = left.checked_sub(LOOK).ok_or_else(exhausted)?;
        let is_map = value.kind() == ValueKind::Map;
        if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Ok(());
        }
        let refuse = |what: String| Err(Error::new(ErrorKind::InvalidOperation, what));
        if value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace")) {
            return refuse("a namespace cannot be kept inside another value".into());
        }
        if depth == MAX_DEPTH {
            return refuse(format!("lists and mappings lie in each other more than {MAX_DEPTH} deep"));
        }
        for item in value.try_iter()? {
            if is_map {
                look(&value.get_item(&item)?, depth + 1, left)?;
            }
            look(&item, depth + 1, left)?;
        }
        Ok(())
    }
    look(value, 0, bytes_left(state))
}

/// A text that is written bit by bit and charged for at the end, and that does not grow beyond what is left.
pub(super) struct Text {
    out: String,
    left: usize,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.left = self.left.checked_sub(part.len()).ok_or(fmt::Error)?;
        self.out.push_str(part);
        Ok(())
    }
}

/// The text that `write` writes.
pub(super) fn text(
    state: &mut State<'_, '_>,
    write: impl FnOnce(&mut Text) -> Result<(), fmt::Error>,
) -> Result<String, Error> {
    check_stop(state)?;
    let left = bytes_left(state);
    let mut text = Text { out: String::new(), left: *left };
    let written = write(&mut text);
    *left = text.left;
    written.map_err(|_| exhausted())?;
    Ok(text.out)
}
