//! Letters, words and lines.

use minijinja::value::Value;
use minijinja::{Error, State};

use super::{number, shown};
use crate::template::args::{Args, invalid};
use crate::template::budget::{charge, charge_each};
use crate::template::letters;

pub(super) fn center(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "width"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let width = number(&args, "width", 80)?.max(0) as usize;
    charge(state, width)?;
    Ok(letters::filled(&whole, "center", width, ' ').into())
}

pub(super) fn indent(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn strip_tags(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn truncate(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn word_count(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    let words = whole.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    Ok(words.filter(|word| !word.is_empty()).count().into())
}

pub(super) fn word_wrap(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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
            // Without going through a long word anew for each of its lines.
            let longer = |word: &str, room: usize| word.chars().nth(room).is_some();
            if longer(word, room(&current)) && !current.trim_end().is_empty() && (!longer(word, width) || !long) {
                lines.push(std::mem::take(&mut current).trim_end().to_owned());
            }
            if current.is_empty() && word.trim_start().is_empty() && !lines.is_empty() {
                continue;
            }
            while long && longer(word, room(&current)) && !word.trim_start().is_empty() {
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
        let end = rest.find(|letter: char| letter.is_whitespace() != space).unwrap_or(rest.len());
        let (mut word, after) = rest.split_at(end);
        rest = after;
        while hyphens
            && !space
            && let Some(at) = word.find('-').filter(|at| *at > 0 && at + 1 < word.len())
        {
            let (begin, more) = word.split_at(at + 1);
            pieces.push(begin);
            word = more;
        }
        pieces.push(word);
    }
    pieces
}

pub(super) fn title(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
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

pub(super) fn trim(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "chars"])?;
    let whole = shown(state, &args.get("value")?.unwrap_or_default())?;
    let chars = args.text("chars")?;
    Ok(letters::stripped(&whole, chars.as_deref(), true, true).into())
}

pub(super) fn upper(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.to_uppercase().into())
}

pub(super) fn lower(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.to_lowercase().into())
}

pub(super) fn capitalize(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let whole = shown(state, &args.first().cloned().unwrap_or_default())?;
    Ok(letters::changed(&whole, "capitalize").unwrap_or_default().into())
}

pub(super) fn string(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    Ok(shown(state, &args.first().cloned().unwrap_or_default())?.into())
}
