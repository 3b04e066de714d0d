//! The filter `urlize`.

use minijinja::value::Value;
use minijinja::{Error, State};

use super::args::Args;
use super::budget::charge_each;

/// Addresses in a text become links of HTML: those with a scheme, those that begin with www., and those of mail.
pub(super) fn urlize(state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let args = Args::new(args, &["value", "trim_url_limit", "nofollow", "target", "rel", "extra_schemes"])?;
    let whole = args.text("value")?.unwrap_or_default();
    let limit = args.number("trim_url_limit")?.and_then(|limit| usize::try_from(limit).ok());
    let (nofollow, target, rel) = (args.flag("nofollow")?, args.text("target")?, args.text("rel")?);
    let attribute = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    // A link has its address twice; each of its signs may become a name.
    charge_each(state, whole.len() + 1, 12)?;
    let places = whole.matches(['.', '@']).count();
    charge_each(state, places, 64 + attribute(&target) + attribute(&rel))?;
    let mut names: std::collections::BTreeSet<String> =
        rel.iter().flat_map(|rel| rel.split_whitespace()).map(str::to_owned).collect();
    names.insert("noopener".to_owned());
    if nofollow {
        names.insert("nofollow".to_owned());
    }
    let rel = format!(" rel=\"{}\"", names.into_iter().collect::<Vec<_>>().join(" "));
    let target = target.map_or_else(String::new, |target| format!(" target=\"{target}\""));
    let escape = |text: &str| {
        let signs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")];
        signs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    let short = |text: &str| match limit {
        Some(limit) if text.chars().count() > limit => text.chars().take(limit).collect::<String>() + "...",
        _ => text.to_owned(),
    };
    let mut out = String::new();
    for word in whole.split_inclusive(char::is_whitespace) {
        let text = word.trim_end();
        let (space, mut middle) = (&word[text.len()..], text);
        let begin = middle.len() - middle.trim_start_matches(['(', '<']).len();
        let head = &middle[..begin];
        middle = &middle[begin..];
        let mut end = middle.trim_end_matches([')', '>', '.', ',']).len();
        // A bracket that was opened inside belongs to the address.
        while middle[..end].matches('(').count() > middle[..end].matches(')').count() && middle[end..].starts_with(')')
        {
            end += 1;
        }
        let tail = &middle[end..];
        middle = &middle[..end];
        let is_host = |host: &str| {
            let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default();
            let top = host.rsplit('.').next().unwrap_or_default();
            host.contains('.') && host.split('.').all(|part| !part.is_empty()) && host.is_ascii() && top.len() > 1
        };
        let rest = middle.strip_prefix("https://").or_else(|| middle.strip_prefix("http://"));
        let link = if rest.is_some_and(is_host) {
            Some(format!("<a href=\"{}\"{rel}{target}>{}</a>", escape(middle), escape(&short(middle))))
        } else if middle.starts_with("www.") && is_host(middle) {
            Some(format!("<a href=\"https://{}\"{rel}{target}>{}</a>", escape(middle), escape(&short(middle))))
        } else if middle
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && is_host(host) && !host.contains('@'))
        {
            Some(format!("<a href=\"mailto:{}\">{}</a>", escape(middle), escape(middle)))
        } else {
            None
        };
        out += &escape(head);
        out += &link.unwrap_or_else(|| escape(middle));
        out += &escape(tail);
        out += space;
    }
    Ok(out.into())
}
