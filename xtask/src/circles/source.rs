//! What a file of Rust says of modules: its child modules and the paths in it, without comments, texts and tests.

use std::collections::BTreeSet;

/// A path such as `crate::a::b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Its names.
    pub names: Vec<String>,
    /// Whether it stands in a `pub use`.
    pub is_reexport: bool,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `mod NAME;`, but for tests.
    pub children: BTreeSet<String>,
    /// Every path of more than one name, or that is imported.
    pub paths: BTreeSet<Path>,
}

/// Reads a file.
pub fn read(text: &str) -> Source {
    let tokens = without_tests(&tokens(&code(text)));
    let mut source = Source::default();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|next| next == ";") => {
                source.children.insert(tokens[at + 1].clone());
                at += 3;
            }
            "use" => {
                let is_reexport = is_public(&tokens[..at]);
                let end = tokens[at..].iter().position(|token| token == ";").map_or(tokens.len(), |length| at + length);
                expand(&tokens[at + 1..end], &mut Vec::new(), &mut |names| {
                    source.paths.insert(Path { names: names.to_vec(), is_reexport });
                });
                at = end;
            }
            first if is_name(first) => {
                let mut names = vec![first.to_owned()];
                at += 1;
                while tokens.get(at).is_some_and(|token| token == "::")
                    && let Some(name) = tokens.get(at + 1).filter(|name| is_name(name))
                {
                    names.push(name.clone());
                    at += 2;
                }
                if names.len() > 1 {
                    source.paths.insert(Path { names, is_reexport: false });
                }
            }
            _ => at += 1,
        }
    }
    source
}

/// Whether what comes next is `pub` or `pub(…)`.
fn is_public(before: &[String]) -> bool {
    match before.last().map(String::as_str) {
        Some("pub") => true,
        Some(")") => {
            let open = before.iter().rposition(|token| token == "(");
            open.is_some_and(|open| open > 0 && before[open - 1] == "pub")
        }
        _ => false,
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Every path of the tree behind a `use`.
fn expand(tree: &[String], before: &mut Vec<String>, found: &mut dyn FnMut(&[String])) {
    let depth = before.len();
    let mut at = 0;
    while at < tree.len() {
        match tree[at].as_str() {
            "{" => {
                let mut open = 0;
                let close = tree[at..].iter().position(|token| {
                    open += i32::from(token == "{") - i32::from(token == "}");
                    open == 0
                });
                let close = close.map_or(tree.len(), |length| at + length);
                let mut level = 0;
                for branch in tree[at + 1..close].split(|token| {
                    level += i32::from(token == "{") - i32::from(token == "}");
                    level == 0 && token == ","
                }) {
                    expand(branch, before, found);
                }
                before.truncate(depth);
                return;
            }
            "as" => break,
            token if is_name(token) => before.push(token.to_owned()),
            _ => {}
        }
        at += 1;
    }
    if before.len() > depth || depth > 0 {
        // `self` at the end is the module itself.
        let is_module = before.len() > 1 && before.last().is_some_and(|last| last == "self");
        found(&before[..before.len() - usize::from(is_module)]);
    }
    before.truncate(depth);
}

/// The code alone: comments become blanks, texts and characters empty ones.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let is = |at: usize, wanted: &str| wanted.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let begins_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        if is(at, "//") {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if is(at, "/*") {
            let mut depth = 0;
            while at < chars.len() {
                let (opens, closes) = (is(at, "/*"), is(at, "*/"));
                depth += i32::from(opens) - i32::from(closes);
                at += if opens || closes { 2 } else { 1 };
                if depth == 0 {
                    break;
                }
            }
            out.push(' ');
        } else if begins_word
            && (is(at, "r\"") || is(at, "r#\"") || is(at, "r##\"") || is(at, "br\"") || is(at, "br#\""))
        {
            at += chars[at..].iter().take_while(|c| **c == 'b' || **c == 'r').count();
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            let end = format!("\"{}", "#".repeat(hashes));
            at += hashes + 1;
            while at < chars.len() && !is(at, &end) {
                at += 1;
            }
            at += end.len();
            out.push_str("\"\"");
        } else if chars[at] == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            out.push_str("\"\"");
        } else if chars[at] == '\'' {
            // A character, or else a lifetime.
            if chars.get(at + 1) == Some(&'\\') {
                at += 3;
                at += chars.get(at..).unwrap_or_default().iter().take_while(|c| **c != '\'').count() + 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                at += 1;
                at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            }
            out.push(' ');
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Names, `::` and single signs.
fn tokens(code: &str) -> Vec<String> {
    let chars: Vec<char> = code.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let word = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        if word > 0 {
            out.push(chars[at..at + word].iter().collect());
            at += word;
        } else if chars[at] == ':' && chars.get(at + 1) == Some(&':') {
            out.push("::".to_owned());
            at += 2;
        } else {
            if !chars[at].is_whitespace() {
                out.push(chars[at].to_string());
            }
            at += 1;
        }
    }
    out
}

/// Leaves out the items behind `#[cfg(test)]` or a `cfg(all(test, …))`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "#" && tokens.get(at + 1).is_some_and(|token| token == "[") {
            let end = closing(tokens, at + 1);
            let attribute = &tokens[at + 2..end.min(tokens.len())];
            let of_tests = attribute.starts_with(&["cfg", "(", "test", ")"].map(str::to_owned))
                || attribute.starts_with(&["cfg", "(", "all", "(", "test"].map(str::to_owned));
            if of_tests {
                at = item_end(tokens, end + 1);
                continue;
            }
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

/// Where the bracket closes that opens at a place.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        depth +=
            i32::from(matches!(token.as_str(), "(" | "[" | "{")) - i32::from(matches!(token.as_str(), ")" | "]" | "}"));
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The place behind an item, whose attributes may come first: behind its block, or its semicolon or comma.
fn item_end(tokens: &[String], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].as_str() {
            ";" | "," => return at + 1,
            "{" => return closing(tokens, at) + 1,
            // Of a field or a statement, at the end of its block.
            "}" => return at,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}
