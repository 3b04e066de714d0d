//! Chat templates: the Jinja text that a model's file carries, rendered by minijinja with the few Python methods that
//! templates in use call on texts and lists.
//!
//! | file | holds |
//! | --- | --- |
//! | `python.rs` | what templates use of Python |
//!
//! A template is outside data: it runs with a budget of steps, its source and its result are bounded, and it cannot reach
//! anything but the messages. What is not bounded is the size of values between: minijinja has no hook for it, so a file
//! whose template doubles a text again and again ends as any other lack of memory does.

mod python;

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use super::ChatMessage;
use super::error::EngineError;

/// Steps that a template may take whatever the conversation. Also bounds how deep it can nest lists in each other, which
/// are taken down recursively.
const FUEL: u64 = 20_000;
/// Steps that it may take for each message besides; templates in use need about a hundred.
const FUEL_PER_MESSAGE: u64 = 1_000;
/// Longest source, bytes. Templates in use stay below 64 KiB.
const MAX_SOURCE: usize = 1 << 20;
/// Longest conversation as text, bytes.
const MAX_RENDERED: usize = 64 << 20;
/// The day that templates are told until [`ChatTemplate::set_now`] is called: 26 July 2024, which Llama 3's own template
/// falls back to. Seconds since 1970.
const DEFAULT_NOW: i64 = 1_721_952_000;

/// What is used when a file has no template: the conversation as plain lines.
const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                     {% if add_generation_prompt %}assistant: {% endif %}";

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    bos_text: String,
    eos_text: String,
    now_unix_s: i64,
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

/// Takes text up to [`MAX_RENDERED`] bytes.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + part.len() > MAX_RENDERED {
            return Err(std::io::Error::other(format!("the text grows beyond {MAX_RENDERED} bytes")));
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ChatTemplate {
    /// Compiles `source`, or the plain form when there is none. The texts of the special tokens are what the template
    /// sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The template's syntax is wrong, or it is longer than 1 MiB.
    pub fn new(source: Option<&str>, bos_text: &str, eos_text: &str) -> Result<Self, EngineError> {
        let source = source.unwrap_or(PLAIN);
        if source.len() > MAX_SOURCE {
            return Err(EngineError::Template(format!("it has {} bytes, more than {MAX_SOURCE}", source.len())));
        }
        let mut environment = Environment::new();
        // As transformers configures Jinja for chat templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_unknown_method_callback(python::method);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", python::tojson);
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(template_error)?;
        Ok(Self {
            environment: Arc::new(environment),
            bos_text: bos_text.to_owned(),
            eos_text: eos_text.to_owned(),
            now_unix_s: DEFAULT_NOW,
        })
    }

    /// States the time that templates see (`strftime_now`): seconds since 1970, shown as UTC.
    pub fn set_now(&mut self, unix_s: i64) {
        self.now_unix_s = unix_s;
    }

    /// The conversation as one text that ends where the assistant is to begin.
    ///
    /// # Errors
    /// The template refuses the messages, runs out of its budget, or writes more than 64 MiB.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, EngineError> {
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() as u64;
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(fuel));
        let template = environment.get_template("chat").map_err(template_error)?;
        let now = self.now_unix_s;
        let mut text = Bounded(Vec::new());
        let variables = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos_text.as_str(),
            eos_token => self.eos_text.as_str(),
            strftime_now => Value::from_function(move |format: String| python::strftime(now, &format)),
        };
        template.render_captured_to(variables, &mut text).map_err(template_error)?;
        String::from_utf8(text.0).map_err(|error| EngineError::Template(error.to_string()))
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
mod tests;
