//! Chat templates: the Jinja text that a model's file carries, rendered by minijinja with the few Python methods that
//! templates in use call on texts and lists.
//!
//! | file | holds |
//! | --- | --- |
//! | `budget.rs` | what a template may make, and what it is charged |
//! | `builtins.rs` | its filters, tests and functions |
//! | `filters/`, `lists.rs`, `links.rs`, `functions.rs` | filters and functions that minijinja has otherwise or not at all |
//! | `python.rs`, `letters.rs`, `pyformat.rs` | methods of Python's values, texts' letters, values put into texts |
//! | `json.rs`, `time.rs`, `repr.rs`, `args.rs` | `json.dumps`, `strftime`, `str` and `repr`, arguments as Python takes them |
//! | `source.rs`, `rewrite.rs` | what minijinja reads otherwise than Python; the operators that would pass the budget by |
//!
//! A template is outside data: it runs with a budget of steps and one of memory, its source is bounded, and it cannot reach
//! anything but the messages. The time of one step is bounded by what it may have made (comparing two long lists is one), and
//! before each step that may take long it is asked whether anybody waits for the text.

mod args;
mod budget;
mod builtins;
mod filters;
mod functions;
mod json;
mod letters;
mod links;
mod lists;
mod pyformat;
mod python;
mod repr;
mod rewrite;
mod source;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{self, CodeGenerator, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, State, context};

use super::ChatMessage;
use super::error::EngineError;

/// Steps that a template may take whatever the conversation.
const FUEL: u64 = 20_000;
/// Steps that it may take for each message besides; templates in use need about a hundred.
const FUEL_PER_MESSAGE: u64 = 1_000;
/// Bytes that it may make whatever the conversation (see `budget.rs`).
const ROOM: usize = 16 << 20;
/// Bytes that it may make for each message besides: enough to go through all messages anew at each of a thousand.
const ROOM_PER_MESSAGE: usize = 64 << 10;
/// Bytes that it may make for each byte of the conversation besides; templates in use cut, trim and join each message a
/// few times.
const ROOM_PER_BYTE: usize = 32;
/// Longest source, bytes: compiled, it may take a hundred times as much. Templates in use stay below 64 KiB.
const MAX_SOURCE: usize = 256 << 10;
/// Most names and signs in one tag, and most `elif`s of all tags: what follows one after the other lies in each other once it
/// is read, and is walked through recursively. Templates in use stay below a hundred.
const MAX_LINKS: usize = 500;
/// The day that templates are told until [`ChatTemplate::set_now`] is called: 26 July 2024, which Llama 3's own template
/// falls back to. Seconds since 1970.
const DEFAULT_NOW: i64 = 1_721_952_000;

/// What errors call the template.
const NAME: &str = "chat";

/// What is used when a file has no template: the conversation as plain lines.
const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                     {% if add_generation_prompt %}assistant: {% endif %}";

/// Says whether a render is to be given up.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
    bos_text: String,
    eos_text: String,
    now_unix_s: i64,
    /// Why it cannot be rendered.
    broken: Option<String>,
    /// What is asked whether a render is to be given up.
    stop: Option<Arc<budget::Stops>>,
}

/// Turns `{% generation %}` and its end, with which templates mark what the assistant says for training, into a
/// condition that always holds: the text inside stays, and so does the control of white space.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        rest = after;
        let Some((tag, after)) = after.split_once("%}") else { continue };
        let inside = tag.trim_matches(['-', '+']).trim();
        let replacement = match inside {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        out.push_str(&tag.replacen(inside, replacement, 1));
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// As transformers configures Jinja for chat templates.
fn syntax() -> Result<SyntaxConfig, EngineError> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)
}

/// Refuses a template whose tags are too long to be walked through.
fn check_links(source: &str) -> Result<(), EngineError> {
    let (mut links, mut elifs) = (0, 0);
    for token in machinery::tokenize(source, false, syntax()?) {
        match token.map_err(template_error)?.0 {
            Token::VariableStart | Token::BlockStart => links = 0,
            Token::TemplateData(_) | Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Float(_) => {}
            Token::Comma | Token::Colon => {}
            token => {
                links += 1;
                elifs += usize::from(matches!(token, Token::Ident("elif")));
            }
        }
        if links.max(elifs) > MAX_LINKS {
            return Err(EngineError::Template(format!(
                "a tag has more than {MAX_LINKS} names and signs, or as many elifs"
            )));
        }
    }
    Ok(())
}

impl ChatTemplate {
    /// Compiles `source`, or the plain form when there is none. The texts of the special tokens are what the template
    /// sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The template's syntax is wrong, or it is longer than 256 KiB, or one of its tags is longer than any tag in use.
    pub fn new(source: Option<&str>, bos_text: &str, eos_text: &str) -> Result<Self, EngineError> {
        let source = source.unwrap_or(PLAIN);
        if source.len() > MAX_SOURCE {
            return Err(EngineError::Template(format!("it has {} bytes, more than {MAX_SOURCE}", source.len())));
        }
        // As Jinja2, whatever wrote the file.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let source: Arc<str> = source::pythonic(&without_generation_tags(&source))?.into();
        check_links(&source)?;
        machinery::parse(&source, NAME, syntax()?).map_err(template_error)?;
        Ok(Self {
            source,
            environment: Arc::new(builtins::environment()),
            bos_text: bos_text.to_owned(),
            eos_text: eos_text.to_owned(),
            now_unix_s: DEFAULT_NOW,
            broken: None,
            stop: None,
        })
    }

    /// One that cannot be rendered, and says `why` when it is to be.
    #[must_use]
    pub fn broken(why: &str) -> Self {
        Self {
            source: "".into(),
            environment: Arc::new(Environment::empty()),
            bos_text: String::new(),
            eos_text: String::new(),
            now_unix_s: DEFAULT_NOW,
            broken: Some(why.to_owned()),
            stop: None,
        }
    }

    /// States the time that templates see (`strftime_now`): seconds since 1970, shown as UTC.
    pub fn set_now(&mut self, unix_s: i64) {
        self.now_unix_s = unix_s;
    }

    /// What [`render`](Self::render) asks at every step that may take long, and ends with [`EngineError::Stopped`] where it
    /// says so.
    pub fn stop_when(&mut self, stop: Option<Stop>) {
        self.stop = stop.map(|stop| Arc::new(budget::Stops(stop)));
    }

    /// The conversation as one text that ends where the assistant is to begin.
    ///
    /// # Errors
    /// The template refuses the messages, runs out of its budget of steps or of memory, or was stopped.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, EngineError> {
        if let Some(why) = &self.broken {
            return Err(EngineError::Template(format!(
                "the model's file has one that cannot be used ({why}); texts can be completed without it"
            )));
        }
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() as u64;
        let bytes: usize = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let room = ROOM + ROOM_PER_MESSAGE * messages.len() + bytes.saturating_mul(ROOM_PER_BYTE);
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(fuel));
        let now = self.now_unix_s;
        let variables = context! {
            messages,
            add_generation_prompt => true,
            // As transformers passes them where nobody gives any.
            tools => Value::from(()),
            documents => Value::from(()),
            bos_token => self.bos_text.as_str(),
            eos_token => self.eos_text.as_str(),
            strftime_now => Value::from_function(move |state: &mut State<'_, '_>, format: &str| {
                // No directive writes more than 16 times its own length.
                budget::charge_each(state, format.len(), 16)?;
                time::strftime(now, format)
            }),
            ..Value::from(BTreeMap::from([
                (budget::ROOM, Value::from(room)),
                (budget::STOP, self.stop.clone().map_or_else(|| Value::from(()), Value::from_dyn_object)),
            ]))
        };
        let tree = machinery::parse(&self.source, NAME, syntax()?).map_err(template_error)?;
        let mut code = CodeGenerator::new(NAME, &self.source);
        code.compile_stmt(&rewrite::stmt(&tree));
        let (instructions, blocks) = code.finish();
        let mut text = String::new();
        let mut out = machinery::make_string_output(&mut text);
        let result = machinery::eval(&environment, &instructions, variables, &blocks, &mut out, AutoEscape::None);
        match result {
            Ok(_) => Ok(text),
            Err(_) if self.stop.as_ref().is_some_and(|stop| (stop.0)()) => Err(EngineError::Stopped),
            Err(error) => Err(template_error(error)),
        }
    }
}

fn template_error(error: Error) -> EngineError {
    // `{:#}` adds the line in the template; what caused it may say more.
    let mut text = format!("{error:#}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    EngineError::Template(text)
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
