//! The log: one line an event, on the error output.
//!
//! Much of what is logged was written by others: an engine's error, a file's name. A line break in it would make a line of
//! its own, and an escape sequence would move the reader's cursor; both are written out instead.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Sets the log up; `TANDEM_LOG` says what is logged.
pub fn init() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TANDEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tandem=info"));
    let coloured = io::stderr().is_terminal();
    // The only error is that a log was set up before, which is fine.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(coloured)
        .with_writer(Stderr { coloured })
        .try_init();
}

#[derive(Clone, Copy, Debug)]
struct Stderr {
    coloured: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Stderr {
    /// Gets one event, whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(one_line(&String::from_utf8_lossy(event), self.coloured).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// An event with its own line break at the end, and no other; colours stay where they are wanted.
fn one_line(event: &str, coloured: bool) -> String {
    let text = event.strip_suffix('\n').unwrap_or(event);
    let mut line = String::with_capacity(event.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter == '\u{1b}'
            && coloured
            && let Some(length) = colour(rest.as_str())
        {
            line.push(letter);
            line.extend(rest.by_ref().take(length));
        } else if letter.is_control() && letter != '\t' {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line.push('\n');
    line
}

/// Length of the rest of a sequence that sets colours: `[1;31m`.
fn colour(rest: &str) -> Option<usize> {
    let numbers = rest.strip_prefix('[')?;
    let end = numbers.find(|letter: char| !letter.is_ascii_digit() && letter != ';')?;
    numbers.get(end..)?.starts_with('m').then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line() {
        let forged = "WARN \u{1b}[31mred\u{1b}[0m failed: x\r\n2026 ERROR forged \u{1b}[2J\u{9b}K\n";
        let plain = one_line(forged, false);
        assert_eq!(plain.matches('\n').count(), 1);
        assert!(!plain.contains(['\u{1b}', '\r', '\u{9b}']), "{plain:?}");
        let coloured = one_line(forged, true);
        assert!(coloured.starts_with("WARN \u{1b}[31mred\u{1b}[0m failed: x\\r\\n2026"), "{coloured:?}");
        assert!(!coloured.contains("\u{1b}[2J") && coloured.matches('\n').count() == 1, "{coloured:?}");
        assert_eq!(one_line("fine\n", true), "fine\n");
    }
}
