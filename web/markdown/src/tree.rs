//! What an answer may become on the page: these elements, these links, and text.

use std::ops::Range;

use pulldown_cmark::{Alignment, CodeBlockKind, Event, Tag, TagEnd};

/// Elements within each other at most; what is deeper joins the deepest. Nobody reads more, and a page that draws ten thousand
/// of them hangs.
const MOST_DEEP: usize = 24;

/// A node of the page.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// Text, and the byte of the answer that it begins at. As long as there where the answer holds the very text; else (an
    /// entity, an escape) it belongs to who wrote that byte.
    Text(String, usize),
}

/// An element of the list in this file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// Its name.
    pub name: &'static str,
    /// Its class; empty for none.
    pub class: &'static str,
    /// Where a link goes; checked.
    pub href: Option<String>,
    /// Number of the first entry of a list.
    pub start: Option<u64>,
    /// Language of a code block; empty for none.
    pub language: String,
    /// What is in it.
    pub children: Vec<Node>,
}

impl Element {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn of_class(name: &'static str, class: &'static str) -> Self {
        Self { name, class, ..Self::default() }
    }
}

/// Builds the nodes of a block from its events.
pub(crate) struct Trees<'t> {
    text: &'t str,
    /// Where the part that is read begins.
    from: usize,
    /// Open elements; `None` for what only passes on its children.
    open: Vec<Option<Element>>,
    roots: Vec<Node>,
    /// Alignment of a table's columns, the next column, and whether its head is being read.
    columns: (Vec<Alignment>, usize, bool),
}

impl<'t> Trees<'t> {
    pub(crate) fn new(text: &'t str, from: usize) -> Self {
        Self { text, from, open: Vec::new(), roots: Vec::new(), columns: (Vec::new(), 0, false) }
    }

    /// What was built since the last time.
    pub(crate) fn finish(&mut self) -> Vec<Node> {
        while !self.open.is_empty() {
            self.close();
        }
        std::mem::take(&mut self.roots)
    }

    /// Takes the next event, which stands there in the answer.
    pub(crate) fn take(&mut self, event: Event<'_>, at: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(end) => self.end(end),
            // HTML is text like any other.
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.push_text(&text, at.start),
            Event::Code(code) => {
                // Between the ticks, where that can be seen.
                let inner = self.text.get(at.clone()).and_then(|source| source.find(&*code)).unwrap_or(0);
                self.open.push(Some(Element::new("code")));
                self.push_text(&code, at.start + inner);
                self.close();
            }
            Event::SoftBreak => self.push_text("\n", at.start),
            Event::HardBreak => self.push(Node::Element(Element::new("br"))),
            Event::Rule => self.push(Node::Element(Element::new("hr"))),
            Event::TaskListMarker(done) => self.push_text(if done { "☑ " } else { "☐ " }, at.start),
            // Switched off.
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                self.push_text(&text, at.start);
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        let element = match tag {
            Tag::Paragraph | Tag::HtmlBlock => Element::new("p"),
            // The page has headings of its own above these.
            Tag::Heading { level, .. } => Element::new(["h3", "h4", "h5", "h6", "h6", "h6"][level as usize - 1]),
            Tag::BlockQuote(_) => Element::new("blockquote"),
            Tag::CodeBlock(kind) => {
                let language = match &kind {
                    CodeBlockKind::Fenced(info) => info.split_whitespace().next().unwrap_or_default().to_owned(),
                    CodeBlockKind::Indented => String::new(),
                };
                Element { language, ..Element::of_class("pre", "md-code") }
            }
            Tag::List(Some(start)) => Element { start: Some(start), ..Element::new("ol") },
            Tag::List(None) => Element::new("ul"),
            Tag::Item => Element::new("li"),
            Tag::Table(columns) => {
                self.columns = (columns, 0, false);
                Element::of_class("table", "md-table")
            }
            Tag::TableHead => {
                self.columns.2 = true;
                Element::new("tr")
            }
            Tag::TableRow => {
                self.columns.1 = 0;
                Element::new("tr")
            }
            Tag::TableCell => self.cell(),
            Tag::Emphasis => Element::new("em"),
            Tag::Strong => Element::new("strong"),
            Tag::Strikethrough => Element::new("s"),
            Tag::Link { dest_url, .. } => link(&dest_url, ""),
            Tag::Image { dest_url, .. } => link(&dest_url, "md-image"),
            // Switched off: whatever is in them is shown as it is.
            _ => Element::new("span"),
        };
        let deep = self.open.iter().flatten().count() >= MOST_DEEP;
        self.open.push((!deep).then_some(element));
    }

    fn end(&mut self, end: TagEnd) {
        if end == TagEnd::TableHead {
            self.columns.2 = false;
        }
        self.close();
    }

    fn cell(&mut self) -> Element {
        let (columns, next, is_head) = &mut self.columns;
        let class = match columns.get(*next) {
            Some(Alignment::Right) => "right",
            Some(Alignment::Center) => "center",
            _ => "",
        };
        *next += 1;
        Element::of_class(if *is_head { "th" } else { "td" }, class)
    }

    /// Closes the innermost element.
    fn close(&mut self) {
        if let Some(Some(element)) = self.open.pop() {
            self.push(Node::Element(element));
        }
    }

    fn push_text(&mut self, text: &str, at: usize) {
        if !text.is_empty() {
            self.push(Node::Text(text.to_owned(), at.max(self.from)));
        }
    }

    fn push(&mut self, node: Node) {
        match self.open.iter_mut().rev().find_map(Option::as_mut) {
            Some(parent) => parent.children.push(node),
            None => self.roots.push(node),
        }
    }
}

/// A link where it may go there, else the text alone.
fn link(to: &str, class: &'static str) -> Element {
    match safe(to) {
        Some(href) => Element { href: Some(href), ..Element::of_class("a", class) },
        None => Element::of_class("span", class),
    }
}

/// Addresses that a link of an answer may have: absolute ones of the web and of mail. What a browser would pass over at the
/// beginning of an address, or within its scheme, is none.
fn safe(to: &str) -> Option<String> {
    let (scheme, _) = to.split_once(':')?;
    let allowed = ["http", "https", "mailto"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (allowed && !to.chars().any(char::is_control)).then(|| to.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::blocks::blocks;

    /// Nodes as text, for reading in tests.
    pub(crate) fn html(nodes: &[Node]) -> String {
        let one = |node: &Node| match node {
            Node::Text(text, _) => text.replace('<', "‹"),
            Node::Element(Element { name, class, href, start, language, children }) => {
                let mut open = (*name).to_owned();
                let parts = [("class", (*class).to_owned()), ("href", href.clone().unwrap_or_default())];
                let more = [("start", start.map_or(String::new(), |n| n.to_string())), ("lang", language.clone())];
                for (key, value) in parts.into_iter().chain(more).filter(|(_, value)| !value.is_empty()) {
                    open += &format!(" {key}={value}");
                }
                format!("<{open}>{}</{name}>", html(children))
            }
        };
        nodes.iter().map(one).collect()
    }

    fn of(text: &str) -> String {
        blocks(text, 0).iter().map(|block| html(&block.nodes)).collect()
    }

    #[test]
    fn the_usual_elements() {
        for (text, expect) in [
            ("a\nb", "<p>a\nb</p>"),
            ("a  \nb", "<p>a<br></br>b</p>"),
            ("# A *b*", "<h3>A <em>b</em></h3>"),
            ("###### A", "<h6>A</h6>"),
            ("**a** ~~b~~ `c < d`", "<p><strong>a</strong> <s>b</s> <code>c ‹ d</code></p>"),
            ("> a", "<blockquote><p>a</p></blockquote>"),
            ("- a\n- [x] b", "<ul><li>a</li><li>☑ b</li></ul>"),
            ("3. a\n4. b", "<ol start=3><li>a</li><li>b</li></ol>"),
            ("```rust\nfn a() {}\n```", "<pre class=md-code lang=rust>fn a() {}\n</pre>"),
            ("    a", "<pre class=md-code>a</pre>"),
            ("---", "<hr></hr>"),
            (
                "| a | b |\n| - | -: |\n| c | d |",
                "<table class=md-table><tr><th>a</th><th class=right>b</th></tr><tr><td>c</td><td class=right>d</td></tr></table>",
            ),
            ("a &amp; \\*b\\*", "<p>a & *b*</p>"),
            ("", ""),
        ] {
            assert_eq!(of(text), expect, "{text:?}");
        }
    }

    #[test]
    fn nothing_of_an_answer_becomes_markup_or_runs() {
        for (text, expect) in [
            ("<script>alert(1)</script>", "<p>‹script>alert(1)‹/script></p>"),
            ("a <img src=x onerror=alert(1)> b", "<p>a ‹img src=x onerror=alert(1)> b</p>"),
            ("[a](https://b.example)", "<p><a href=https://b.example>a</a></p>"),
            ("[a](HTTP://b.example/?c=d&e)", "<p><a href=HTTP://b.example/?c=d&e>a</a></p>"),
            ("<mailto:a@b.example>", "<p><a href=mailto:a@b.example>mailto:a@b.example</a></p>"),
            ("[a](javascript:alert(1))", "<p><span>a</span></p>"),
            ("[a](JaVaScRiPt:alert(1))", "<p><span>a</span></p>"),
            ("[a](data:text/html,b)", "<p><span>a</span></p>"),
            ("[a](/room.html)", "<p><span>a</span></p>"),
            ("[a](//b.example)", "<p><span>a</span></p>"),
            ("[a](java&#10;script:alert(1))", "<p><span>a</span></p>"),
            ("[a](&#1;https://b.example)", "<p><span>a</span></p>"),
            ("![a](https://b.example/c.png)", "<p><a class=md-image href=https://b.example/c.png>a</a></p>"),
        ] {
            assert_eq!(of(text), expect, "{text:?}");
        }
    }

    #[test]
    fn text_knows_where_it_stands() {
        let text = "é **b** `c` &amp;\n\n- d";
        let mut found = Vec::new();
        fn walk(nodes: &[Node], found: &mut Vec<(String, usize)>) {
            for node in nodes {
                match node {
                    Node::Text(text, at) => found.push((text.clone(), *at)),
                    Node::Element(element) => walk(&element.children, found),
                }
            }
        }
        blocks(text, 0).iter().for_each(|block| walk(&block.nodes, &mut found));
        let expect = [("é ", 0), ("b", 5), (" ", 8), ("c", 10), (" ", 12), ("&", 13), ("d", 22)];
        assert_eq!(found, expect.map(|(text, at)| (text.to_owned(), at)));
    }

    #[test]
    fn depth_is_bounded() {
        let text = format!("{} deep", ">".repeat(2000));
        let shown = of(&text);
        assert!(shown.matches("<blockquote>").count() <= MOST_DEEP && shown.contains("deep"));
    }
}
