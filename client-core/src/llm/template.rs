//! Chat templates: the Jinja text that a model's file carries, rendered by minijinja with the few Python methods that
//! templates in use call on texts and lists.
//!
//! A template is outside data: it runs with a budget of steps, and cannot reach anything but the messages.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, context};

use super::ChatMessage;
use super::error::EngineError;

/// Steps that a template may take. Templates in use need some thousands for a long conversation.
const FUEL: u64 = 2_000_000;

/// What is used when a file has no template: the conversation as plain lines.
const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                     {% if add_generation_prompt %}assistant: {% endif %}";

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    bos_text: String,
    eos_text: String,
}

impl ChatTemplate {
    /// Compiles `source`, or the plain form when there is none. The texts of the special tokens are what the template
    /// sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The template's syntax is wrong.
    pub fn new(source: Option<&str>, bos_text: &str, eos_text: &str) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        // As transformers configures Jinja for chat templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source.unwrap_or(PLAIN).to_owned()).map_err(template_error)?;
        Ok(Self { environment: Arc::new(environment), bos_text: bos_text.to_owned(), eos_text: eos_text.to_owned() })
    }

    /// The conversation as one text that ends where the assistant is to begin.
    ///
    /// # Errors
    /// The template refuses the messages or runs out of its budget.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, EngineError> {
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        let template = self.environment.get_template("chat").map_err(template_error)?;
        let rendered = template.render(context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos_text.as_str(),
            eos_token => self.eos_text.as_str(),
        });
        rendered.map_err(template_error)
    }
}

fn template_error(error: Error) -> EngineError {
    // `{:#}` adds the line in the template.
    EngineError::Template(format!("{error:#}"))
}

/// Methods of Python's `str` and `dict` that chat templates call.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    if value.kind() == ValueKind::Map {
        return match method {
            "items" => state.apply_filter("items", std::slice::from_ref(value)),
            "get" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                let found = value.get_item(&key)?;
                Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
            }
            _ => Err(unknown()),
        };
    }
    let text = value.as_str().ok_or_else(unknown)?;
    let trimmed = |start: bool, end: bool| -> Result<Value, Error> {
        let (chars,): (Option<String>,) = from_args(args)?;
        let drop = |c: char| chars.as_ref().map_or_else(|| c.is_whitespace(), |set| set.contains(c));
        let text = if start { text.trim_start_matches(drop) } else { text };
        Ok(Value::from(if end { text.trim_end_matches(drop) } else { text }))
    };
    match method {
        "strip" => trimmed(true, true),
        "lstrip" => trimmed(true, false),
        "rstrip" => trimmed(false, true),
        "startswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.starts_with(part))),
        "endswith" => from_args::<(&str,)>(args).map(|(part,)| Value::from(text.ends_with(part))),
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "replace" => from_args::<(&str, &str)>(args).map(|(from, to)| Value::from(text.replace(from, to))),
        "split" => {
            let (separator,): (Option<&str>,) = from_args(args)?;
            Ok(match separator {
                Some(separator) => text.split(separator).map(Value::from).collect(),
                None => text.split_whitespace().map(Value::from).collect(),
            })
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }

    #[test]
    fn renders_the_formats_in_use() {
        let chatml = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
                      '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let llama = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]\
                     {% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
        let blocks =
            "{% for m in messages %}\n  {% if loop.first %}\nA\n  {% endif %}\n{{ m.content | trim }}\n{% endfor %}";
        for (template, expect) in [
            (Some(chatml), "<|im_start|>user\n  hi <|im_end|>\n<|im_start|>assistant\n"),
            (Some(llama), "<s>[INST] hi [/INST]"),
            (Some(blocks), "A\nhi\n"),
            (None, "user:   hi \nassistant: "),
        ] {
            let template = ChatTemplate::new(template, "<s>", "</s>").unwrap();
            assert_eq!(template.render(&[message("user", "  hi ")]).unwrap(), expect);
        }
    }

    #[test]
    fn python_methods() {
        for (expression, expect) in [
            ("'abc'.startswith('ab')", "True"),
            ("'a,b'.split(',')[1]", "b"),
            ("'xAx'.strip('x').lower()", "a"),
            ("'a-b'.replace('-', '+').upper()", "A+B"),
            ("{'k': 1}.get('z', 7)", "7"),
        ] {
            let template = ChatTemplate::new(Some(&format!("{{{{ {expression} }}}}")), "", "").unwrap();
            assert_eq!(template.render(&[]).unwrap(), expect, "{expression}");
        }
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
        for source in [endless, "{{ raise_exception('no system role') }}", "{{ messages.nothing.at.all }}"] {
            let template = ChatTemplate::new(Some(source), "", "").unwrap();
            assert!(template.render(&[message("user", "hi")]).is_err(), "{source}");
        }
        assert!(ChatTemplate::new(Some("{% for %}"), "", "").is_err());
    }
}
