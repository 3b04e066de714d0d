//! A text that grows as blocks: paragraphs, lists, code. Whatever is behind the last of them can only change that one, so only
//! that one is read again; and the one before it while the first line of the last is not whole: what looks like the beginning
//! of a code block may turn out to be a word of the paragraph above.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser};

use crate::tree::{Node, Trees};

/// One block of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Where in the whole text it stands, in bytes; from the beginning of its first line.
    pub at: Range<usize>,
    /// What it becomes.
    pub nodes: Vec<Node>,
}

/// A text of which all but the end is settled.
#[derive(Debug, Default)]
pub struct Growing {
    /// Where the first block begins that may still change.
    settled: usize,
}

/// What has become of the end of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    /// The blocks from the first on that could still change before.
    pub blocks: Vec<Block>,
    /// How many of them, from the first on, cannot change any more: they are not returned again.
    pub settled: usize,
}

impl Growing {
    /// Reads the end of a text that has grown.
    pub fn read(&mut self, text: &str) -> Grown {
        let from = self.settled.min(text.len());
        let blocks = blocks(text, if text.is_char_boundary(from) { from } else { 0 });
        let is_certain = |block: &Block| text.get(block.at.start..).is_some_and(|rest| rest.contains('\n'));
        let settled = blocks.iter().rposition(is_certain).unwrap_or(0);
        if let Some(first) = blocks.get(settled) {
            self.settled = first.at.start;
        }
        Grown { blocks, settled }
    }
}

/// The blocks of a text from a byte on.
#[must_use]
pub fn blocks(text: &str, from: usize) -> Vec<Block> {
    let tail = text.get(from..).unwrap_or_default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut found = Vec::new();
    let mut trees = Trees::new(text, from);
    let mut depth = 0_usize;
    for (event, at) in Parser::new_ext(tail, options).into_offset_iter() {
        depth = match event {
            Event::Start(_) => depth + 1,
            Event::End(_) => depth.saturating_sub(1),
            _ => depth,
        };
        let at = from + at.start..from + at.end;
        trees.take(event, at.clone());
        if depth == 0 {
            // An indented block begins with its indentation.
            let line = text.get(..at.start).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
            found.push(Block { at: line.max(from)..at.end, nodes: trees.finish() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::tests::html;

    fn shown(blocks: &[Block]) -> Vec<String> {
        blocks.iter().map(|block| html(&block.nodes)).collect()
    }

    /// What stands on the page when a text comes in these pieces.
    fn grown(pieces: &[&str]) -> (Vec<String>, usize) {
        let (mut text, mut growing, mut page, mut most) = (String::new(), Growing::default(), Vec::new(), 0);
        let mut open = 0;
        for piece in pieces {
            text.push_str(piece);
            let from = growing.settled;
            let found = growing.read(&text);
            most = most.max(text.len() - from);
            // What was open is replaced by what it has become.
            page.truncate(page.len() - open);
            page.extend(shown(&found.blocks));
            open = found.blocks.len() - found.settled;
        }
        (page, most)
    }

    #[test]
    fn only_the_last_block_is_read_again() {
        let text = "One **bold**.\n\nTwo\n\n- a\n- b\n\n```rust\nfn main() {}\n```\n\nEnd";
        let pieces: Vec<&str> = text.split_inclusive(' ').collect();
        let (page, _) = grown(&pieces);
        assert_eq!(page, shown(&blocks(text, 0)));
        assert_eq!(page.len(), 5);
        let paragraphs = "Some words of a paragraph.\n\n".repeat(200);
        let pieces: Vec<&str> = paragraphs.split_inclusive(' ').collect();
        let (page, most) = grown(&pieces);
        assert_eq!(page.len(), 200);
        assert!(most < 64, "{most} bytes were read at once");
    }

    #[test]
    fn an_indented_block_keeps_its_indentation() {
        let (page, _) = grown(&["Text\n\n    let a", " = 1;\n    let b", " = 2;\n"]);
        assert_eq!(page, shown(&blocks("Text\n\n    let a = 1;\n    let b = 2;\n", 0)));
        assert!(page[1].contains("let a = 1;\nlet b"), "{page:?}");
    }

    proptest! {
        /// However a text comes in, it ends as if it had come at once. Reference definitions, which change what is before
        /// them, are the page's to look for.
        #[test]
        fn pieces_make_the_whole(
            parts in prop::collection::vec("(a|\\*\\*b\\*\\*|`c`|- d|1\\. e|> f|# g|\\||---|<b>|```|    |\n|\n\n| |é)", 0..40),
        ) {
            let text: String = parts.concat();
            let pieces: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(grown(&pieces).0, shown(&blocks(&text, 0)), "{:?}", text);
        }

        #[test]
        fn anything_is_read(text in "\\PC{0,200}") {
            let _ = blocks(&text, 0);
        }
    }
}
