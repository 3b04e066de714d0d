//! The elements of web/index.html that a builder of the page replaces: those with `data-trunk`.
//!
//! Deliberately absent: HTML at large. The file is ours; what cannot be read here is an error, and not a guess.

use std::ops::Range;

use anyhow::{Context, Result, bail};

/// One element with `data-trunk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// `link` or `script`.
    pub name: String,
    /// Attributes in order; those without a value have an empty one.
    pub attributes: Vec<(String, String)>,
    /// Where it stands, with its closing tag.
    pub span: Range<usize>,
}

impl Element {
    /// An attribute's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// As [`get`](Self::get), for one that has to be there.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.get(name).with_context(|| format!("<{} data-trunk> needs the attribute {name}: {self:?}", self.name))
    }
}

/// All start tags of these names, in order, comments left out. A `script` ends with its closing tag.
pub fn tags(html: &str, names: &[&str]) -> Result<Vec<Element>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = html[at..].find('<').map(|offset| at + offset) {
        let rest = &html[start + 1..];
        if rest.starts_with("!--") {
            let end = rest.find("-->").context("a comment does not end")?;
            at = start + 1 + end + 3;
            continue;
        }
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !names.contains(&name.as_str()) {
            at = start + 1;
            continue;
        }
        let (attributes, mut end) = attributes(html, start + 1 + name.len())?;
        if name == "script" {
            let close =
                html[end..].find("</script>").with_context(|| format!("a script does not end: {attributes:?}"))?;
            end += close + "</script>".len();
        }
        found.push(Element { name, attributes, span: start..end });
        at = end;
    }
    Ok(found)
}

/// Attributes from `at` on, and where the tag is over.
fn attributes(html: &str, mut at: usize) -> Result<(Vec<(String, String)>, usize)> {
    let mut attributes = Vec::new();
    loop {
        let rest = html[at..].trim_start();
        at = html.len() - rest.len();
        if let Some(end) = ["/>", ">"].into_iter().find(|end| rest.starts_with(end)) {
            return Ok((attributes, at + end.len()));
        }
        let name: String = rest.chars().take_while(|c| !c.is_whitespace() && !"=/>\"'".contains(*c)).collect();
        if name.is_empty() {
            bail!("web/index.html cannot be read from {:?} on", rest.chars().take(40).collect::<String>());
        }
        at += name.len();
        let mut value = String::new();
        if let Some(quoted) = html[at..].strip_prefix('=') {
            let inner =
                quoted.strip_prefix('"').with_context(|| format!("the value of {name} has no double quotes"))?;
            value = inner.split_once('"').with_context(|| format!("the value of {name} does not end"))?.0.to_owned();
            at += value.len() + 3;
        }
        attributes.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_with_their_attributes() {
        let html = "<!-- <link data-trunk> --><link\n  data-trunk rel=\"css\"\n href=\"a b.css\" />\n<p>1 < 2</p>\
                    <script data-trunk src=\"x.js\" defer></script><link rel=\"icon\" href=\"x\">";
        let found = tags(html, &["link", "script"]).unwrap();
        let texts: Vec<_> = found.iter().map(|element| &html[element.span.clone()]).collect();
        assert_eq!(texts[0], "<link\n  data-trunk rel=\"css\"\n href=\"a b.css\" />");
        assert_eq!(texts[1], "<script data-trunk src=\"x.js\" defer></script>");
        assert_eq!((found[0].get("href"), found[0].get("data-trunk")), (Some("a b.css"), Some("")));
        assert_eq!((found[1].get("defer"), found[2].get("data-trunk")), (Some(""), None));
        assert!(found[2].need("rel").is_ok() && found[2].need("src").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for html in ["<link rel=css>", "<link rel=\"css>", "<!-- ", "<script src=\"x\">", "<link rel", "<link \"x\">"] {
            assert!(tags(html, &["link", "script"]).is_err(), "{html}");
        }
    }
}
