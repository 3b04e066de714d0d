//! Filters of Jinja2 that minijinja does not have, or has otherwise.
//!
//! | file | holds |
//! | --- | --- |
//! | `numbers.rs` | numbers out of values, and numbers for people |
//! | `words.rs` | letters, words and lines |
//! | `markup.rs` | text for addresses and for HTML |
//! | `sequences.rs` | lists, mappings and what is in them |
//!
//! This file holds what they share, and their names.

use minijinja::value::Value;
use minijinja::{Environment, Error, State};

use super::args::{Args, invalid};
use super::budget::{charge_items, charge_text, text};
use super::{pyformat, python, repr};

mod markup;
mod numbers;
mod sequences;
mod words;

use markup::{escape, url_encode, xml_attributes};
use numbers::{file_size, float, int};
pub(super) use sequences::attribute;
use sequences::{default, join, length, pairs, pretty, random, reverse, rows, unique};
use words::{
    capitalize, center, indent, lower, string, strip_tags, title, trim, truncate, upper, word_count, word_wrap,
};

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
