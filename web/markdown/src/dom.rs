//! The tree as DOM nodes, each text in the colours of who wrote it.

use wasm_bindgen::prelude::*;
use web_sys::{Document, HtmlElement, Node as DomNode};

use crate::blocks::{Growing, Grown, blocks};
use crate::tree::{Element, Node};

/// Who wrote, as the page numbers them: class and test id's value.
const ORIGINS: [&str; 2] = ["device", "server"];

/// An answer on the page, as far as it has come.
#[wasm_bindgen]
pub struct Answer {
    parent: HtmlElement,
    growing: Growing,
    /// What the blocks became that may still change.
    open: Vec<DomNode>,
}

#[wasm_bindgen]
impl Answer {
    /// Begins in an element, whose content goes.
    #[wasm_bindgen(constructor)]
    pub fn new(parent: HtmlElement) -> Self {
        parent.set_text_content(None);
        Self { parent, growing: Growing::default(), open: Vec::new() }
    }

    /// Shows the text, which has grown since the last time. `ends` are the bytes at which parts of it end, `origins` who wrote
    /// them, 0 for the device and 1 for the server.
    ///
    /// # Errors
    /// The browser's.
    pub fn grow(&mut self, text: &str, ends: &[u32], origins: &[u8]) -> Result<(), JsValue> {
        let found = self.growing.read(text);
        self.show(text, &found, ends, origins)
    }

    /// Shows the text as a whole: a definition at its end may change what a link at its beginning means.
    ///
    /// # Errors
    /// The browser's.
    pub fn whole(&mut self, text: &str, ends: &[u32], origins: &[u8]) -> Result<(), JsValue> {
        self.parent.set_text_content(None);
        self.open.clear();
        let grown = Grown { blocks: blocks(text, 0), settled: 0 };
        self.show(text, &grown, ends, origins)
    }

    /// Puts blocks in place of those that were open.
    fn show(&mut self, text: &str, found: &Grown, ends: &[u32], origins: &[u8]) -> Result<(), JsValue> {
        let document = self.parent.owner_document().ok_or("the answer is not on a page")?;
        let draw = Drawing { document, text, ends, origins };
        for node in self.open.drain(..) {
            self.parent.remove_child(&node)?;
        }
        for (place, block) in found.blocks.iter().enumerate() {
            for node in &block.nodes {
                let node = draw.node(node)?;
                self.parent.append_child(&node)?;
                if place >= found.settled {
                    self.open.push(node);
                }
            }
        }
        Ok(())
    }
}

/// What is needed to draw nodes.
struct Drawing<'d> {
    document: Document,
    text: &'d str,
    ends: &'d [u32],
    origins: &'d [u8],
}

impl Drawing<'_> {
    fn node(&self, node: &Node) -> Result<DomNode, JsValue> {
        match node {
            Node::Text(text, at) => {
                let fragment = self.document.create_document_fragment();
                self.coloured(text, *at, &fragment)?;
                // A text by one hand needs no fragment.
                match (fragment.first_child(), fragment.child_nodes().length()) {
                    (Some(only), 1) => Ok(only),
                    _ => Ok(fragment.into()),
                }
            }
            Node::Element(element) if element.name == "pre" => self.code(element),
            Node::Element(element) => {
                let drawn = self.element(element)?;
                // A wide table scrolls by itself.
                if element.name == "table" {
                    let frame = self.document.create_element("div")?;
                    frame.set_class_name("md-wide");
                    frame.append_child(&drawn)?;
                    return Ok(frame.into());
                }
                Ok(drawn.into())
            }
        }
    }

    fn element(&self, element: &Element) -> Result<web_sys::Element, JsValue> {
        let drawn = self.document.create_element(element.name)?;
        if !element.class.is_empty() {
            drawn.set_class_name(element.class);
        }
        if let Some(href) = &element.href {
            drawn.set_attribute("href", href)?;
            drawn.set_attribute("rel", "noopener noreferrer nofollow")?;
            drawn.set_attribute("target", "_blank")?;
        }
        if let Some(start) = element.start.filter(|start| *start != 1) {
            drawn.set_attribute("start", &start.to_string())?;
        }
        for child in &element.children {
            drawn.append_child(&self.node(child)?)?;
        }
        Ok(drawn)
    }

    /// A code block with its language and a button, whose click is the page's to hear.
    fn code(&self, element: &Element) -> Result<DomNode, JsValue> {
        let create = |name: &str, class: &str| -> Result<web_sys::Element, JsValue> {
            let drawn = self.document.create_element(name)?;
            drawn.set_class_name(class);
            Ok(drawn)
        };
        let (frame, head) = (create("div", "md-code")?, create("div", "md-code-head")?);
        let (language, copy) = (create("span", "")?, create("button", "quiet md-copy")?);
        language.set_text_content(Some(&element.language));
        copy.set_text_content(Some("Copy"));
        copy.set_attribute("type", "button")?;
        let (pre, code) = (create("pre", "")?, create("code", "")?);
        // It scrolls: the keyboard has to reach it.
        pre.set_attribute("tabindex", "0")?;
        for child in &element.children {
            code.append_child(&self.node(child)?)?;
        }
        pre.append_child(&code)?;
        head.append_child(&language)?;
        head.append_child(&copy)?;
        frame.append_child(&head)?;
        frame.append_child(&pre)?;
        Ok(frame.into())
    }

    /// A text, cut where another hand wrote on.
    fn coloured(&self, text: &str, at: usize, into: &DomNode) -> Result<(), JsValue> {
        // An entity or an escape is shorter or longer than what was written: it has one author.
        let is_source = self.text.get(at..at + text.len()) == Some(text);
        let (mut from, mut part) = (0, self.ends.partition_point(|end| *end as usize <= at));
        while from < text.len() {
            let end = self.ends.get(part).map_or(usize::MAX, |end| *end as usize);
            let to = if is_source { end.saturating_sub(at).min(text.len()) } else { text.len() };
            // A part ends between characters; should it not, the rest stays together.
            let to = if to > from && text.is_char_boundary(to) { to } else { text.len() };
            let origin = self.origins.get(part).and_then(|number| ORIGINS.get(usize::from(*number)));
            let words = self.document.create_text_node(text.get(from..to).unwrap_or_default());
            match origin {
                Some(origin) => {
                    let span = self.document.create_element("span")?;
                    span.set_class_name(&format!("token {origin}"));
                    span.set_attribute("data-testid", "token")?;
                    span.set_attribute("data-origin", origin)?;
                    span.append_child(&words)?;
                    into.append_child(&span)?;
                }
                None => drop(into.append_child(&words)?),
            }
            (from, part) = (to, part + 1);
        }
        Ok(())
    }
}
