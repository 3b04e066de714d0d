//! Server-sent events, as a parser that is fed whatever chunks the network cuts.
//!
//! Follows the event stream format of the HTML standard: lines end with CR, LF or CRLF, a leading byte order mark is
//! skipped, `data` lines of one event are joined by line feeds, comments and unknown fields are ignored, an event that
//! the stream's end cuts off is dropped. An `id` holds for its own event only (who resumes keeps the last one), and `retry`
//! is read over.

/// Longest event that is put together before the stream counts as broken; a chat completion's are far below 1 KiB.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field; empty for a plain message.
    pub event: String,
    /// The `data` lines.
    pub data: String,
    /// The `id` field; empty without one.
    pub id: String,
}

/// An event grew over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT_BYTES} bytes")]
pub struct EventTooLong;

/// The parser.
#[derive(Clone, Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    event: String,
    data: String,
    id: String,
    has_data: bool,
    after_cr: bool,
    past_start: bool,
}

impl SseParser {
    /// Takes the next bytes of the stream and returns the events that they complete.
    ///
    /// # Errors
    /// [`EventTooLong`]; the parser is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let line_feed_of_crlf = byte == b'\n' && std::mem::take(&mut self.after_cr);
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if line_feed_of_crlf => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => {
                    if self.line.len() + self.data.len() >= MAX_EVENT_BYTES {
                        return Err(EventTooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    /// What the stream's end has cut off: the standard drops it, but some engines leave the last blank line out.
    pub fn rest(&mut self) -> Option<SseEvent> {
        let unfinished = if self.line.is_empty() { None } else { self.end_of_line() };
        unfinished.or_else(|| self.end_of_line())
    }

    fn end_of_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.past_start, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            let [event, data, id] = [&mut self.event, &mut self.data, &mut self.id].map(std::mem::take);
            return std::mem::take(&mut self.has_data).then_some(SseEvent { event, data, id });
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event),
            "id" => value.clone_into(&mut self.id),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(stream: &[u8]) -> Vec<(String, String)> {
        let events = SseParser::default().push(stream).expect("short events");
        events.into_iter().map(|event| (event.event, event.data)).collect()
    }

    #[test]
    fn the_rest_is_what_the_end_cuts_off() {
        for (stream, rest) in
            [("data: a\n\ndata: b", Some("b")), ("data: a\ndata: b\n", Some("a\nb")), ("data: a\n\n", None)]
        {
            let mut parser = SseParser::default();
            parser.push(stream.as_bytes()).expect("short events");
            assert_eq!(parser.rest().map(|event| event.data).as_deref(), rest, "{stream:?}");
            assert_eq!(parser.rest(), None);
        }
    }

    #[test]
    fn known_streams() {
        let cases: [(&str, &[(&str, &str)]); 8] = [
            ("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]),
            ("data: a\r\n\r\ndata:b\r\r", &[("", "a"), ("", "b")]),
            ("data: a\ndata: b\n\n", &[("", "a\nb")]),
            ("event: ping\ndata: {}\nid: 7\nretry: 9\n\n", &[("ping", "{}")]),
            (": comment\n\nevent: nothing\n\ndata: x\n\n", &[("", "x")]),
            ("\u{feff}data: é ü\n\n", &[("", "é ü")]),
            ("data\n\n", &[("", "")]),
            ("data: cut off", &[]),
        ];
        for (stream, expect) in cases {
            let expect: Vec<_> = expect.iter().map(|(e, d)| ((*e).to_owned(), (*d).to_owned())).collect();
            assert_eq!(parse(stream.as_bytes()), expect, "{stream:?}");
        }
    }

    #[test]
    fn an_id_belongs_to_its_event() {
        let events = SseParser::default().push(b"id: 0.7\ndata: a\n\ndata: b\n\n").expect("short events");
        let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids, ["0.7", ""]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = SseParser::default();
        let chunk = vec![b'x'; 1 << 16];
        let refused = (0..32).find(|_| parser.push(&chunk).is_err());
        assert_eq!(refused, Some(16));
    }

    proptest! {
        #[test]
        fn chunk_borders_do_not_matter(
            lines in prop::collection::vec("(data: ?|event: |: |)[a-zé😀]{0,6}(\n|\r|\r\n)", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut parser = SseParser::default();
            let mut pieces = Vec::new();
            for pair in cuts.windows(2) {
                pieces.extend(parser.push(&stream[pair[0]..pair[1]]).expect("short events"));
            }
            let whole = SseParser::default().push(&stream).expect("short events");
            prop_assert_eq!(pieces, whole);
        }
    }
}
