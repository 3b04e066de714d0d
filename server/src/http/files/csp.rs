//! The content security policy: scripts from here and those that the page itself carries, nothing else.
//!
//! Trunk starts the page by an inline script whose text changes with every build; its hash is taken from the page as it
//! is served. Styles may be inline: charts set them by attribute, and a style cannot run anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The policy of a page with these inline scripts.
#[must_use]
pub fn of_page(html: &str) -> String {
    let hashes: Vec<String> =
        inline_scripts(html).map(|script| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)))).collect();
    policy(&hashes.concat())
}

/// The policy of anything else that can run, a worker's script above all.
#[must_use]
pub fn base() -> String {
    policy("")
}

/// The policy of a document that is no page: it shows itself and does nothing.
pub const INERT: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox";

fn policy(script_hashes: &str) -> String {
    // A model may come from any address that a person names, so requests may go anywhere; scripts may not come from there.
    // 'wasm-unsafe-eval' compiles WebAssembly and nothing else; JavaScript's eval stays forbidden.
    format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'{script_hashes}; worker-src 'self' blob:; \
         style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: http: https:; \
         object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    )
}

/// The text of every `<script>` without `src`, as the browser hashes it: everything between the tags.
fn inline_scripts(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        loop {
            let start = find_ignoring_case(rest, "<script")?;
            let tag = rest.get(start + "<script".len()..)?;
            // `<scripted>` is another element.
            if !tag.starts_with(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/') {
                rest = tag;
                continue;
            }
            let attributes_end = end_of_tag(tag)?;
            let (attributes, after) = (tag.get(..attributes_end)?, tag.get(attributes_end + 1..)?);
            let close = find_ignoring_case(after, "</script").unwrap_or(after.len());
            let (text, after) = (after.get(..close)?, after.get(close..)?);
            rest = after;
            if !has_src(attributes) {
                return Some(text);
            }
        }
    })
}

/// Where the tag's `>` is; one inside quotes does not end it.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

fn has_src(attributes: &str) -> bool {
    let mut from = 0;
    while let Some(at) = attributes.get(from..).and_then(|rest| find_ignoring_case(rest, "src")) {
        let (start, end) = (from + at, from + at + 3);
        let is_name = attributes[..start].ends_with(|c: char| c.is_ascii_whitespace() || c == '/');
        if is_name && attributes[end..].trim_start().starts_with('=') {
            return true;
        }
        from = end;
    }
    false
}

/// ASCII only, so that positions stay those of the original text.
fn find_ignoring_case(text: &str, what: &str) -> Option<usize> {
    text.as_bytes().windows(what.len()).position(|window| window.eq_ignore_ascii_case(what.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_inline_scripts_and_no_others() {
        let html = r#"<script src="a.js"></script><SCRIPT type="module">
import init from '/web.js';</SCRIPT ><scripted>no</scripted>
<script type="application/json" data-src="x">{"a":">"}</script>
<script defer src = "b.js">ignored</script><script title="a > b">two</script><script>open"#;
        let found: Vec<&str> = inline_scripts(html).collect();
        assert_eq!(found, ["\nimport init from '/web.js';", "{\"a\":\">\"}", "two", "open"]);
        assert_eq!(inline_scripts("no script, <script").count(), 0);
    }

    #[test]
    fn the_hash_is_the_one_that_browsers_compute() {
        // The example of the CSP specification's text on hashes: alert('Hello, world.');
        let policy = of_page("<script>alert('Hello, world.');</script>");
        assert!(policy.contains("'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"), "{policy}");
        assert!(!base().contains("sha256"));
        assert!(base().contains("'wasm-unsafe-eval'") && !base().contains("'unsafe-eval'"));
    }
}
