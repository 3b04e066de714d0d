//! Arguments as Python's functions take them: by place or by name.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};

/// What a call was given.
pub(super) struct Args<'a> {
    places: &'a [Value],
    names: &'a [&'static str],
    named: Option<Kwargs>,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl<'a> Args<'a> {
    /// Arguments that are called `names`, in this order.
    pub(super) fn new(args: &'a [Value], names: &'a [&'static str]) -> Result<Self, Error> {
        let (places, named) = match args.split_last() {
            Some((last, places)) if last.is_kwargs() => (places, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let this = Self { places, names, named };
        if this.places.len() > this.names.len() {
            return Err(invalid("there are too many arguments"));
        }
        Ok(this)
    }

    /// The argument called `name`, where there is one that is not none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        let place = self.names.iter().position(|known| *known == name).and_then(|at| self.places.get(at).cloned());
        let named: Option<Value> = match &self.named {
            Some(named) if named.has(name) => Some(named.get(name)?),
            _ => None,
        };
        Ok(place.or(named).filter(|value| !value.is_none() && !value.is_undefined()))
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| invalid(format!("{name} is not a text")))
    }

    /// A text that has to be there.
    pub(super) fn need(&self, name: &str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| invalid(format!("{name} is missing")))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Error> {
        self.get(name)?.map(i64::try_from).transpose()
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.get(name)?.is_some_and(|value| value.is_true()))
    }

    /// Refuses names that nothing has asked for.
    pub(super) fn done(&self) -> Result<(), Error> {
        self.named.as_ref().map_or(Ok(()), Kwargs::assert_all_used)
    }
}
