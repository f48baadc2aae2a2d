//! Server-sent events out of bytes, however they are cut (WHATWG HTML, section 9.2).
//!
//! Written here because the parsers to be had keep whatever a line brings; this one has a bound, since the line comes from the
//! network.

use std::collections::VecDeque;

/// Longest event, all its lines together: 8 MiB. The longest real ones are a whole answer repeated at its end.
pub(super) const MAX_EVENT_BYTES: usize = 8 << 20;

/// One event. Its name, when it has one, is repeated inside the data by all APIs read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub data: String,
}

/// An event is longer than [`MAX_EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that is not over yet.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    begun: bool,
}

impl Parser {
    /// Adds bytes; events that are complete now go to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut VecDeque<Event>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.keep(bytes);
            };
            self.keep(&bytes[..end])?;
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.line_ended(out);
        }
        Ok(())
    }

    /// The bytes are over. What is left is an event if its last line break was forgotten.
    pub fn finish(&mut self, out: &mut VecDeque<Event>) {
        self.line_ended(out);
        self.dispatch(out);
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line_ended(&mut self, out: &mut VecDeque<Event>) {
        let mut line = self.line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            self.line.clear();
            self.dispatch(out);
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        if &line[..colon] == b"data" {
            let value = line.get(colon + 1..).unwrap_or_default();
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        self.line.clear();
    }

    fn dispatch(&mut self, out: &mut VecDeque<Event>) {
        if std::mem::take(&mut self.has_data) {
            let data = std::mem::take(&mut self.data);
            let data = String::from_utf8(data).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
            if !data.is_empty() {
                out.push_back(Event { data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        pieces.into_iter().for_each(|piece| parser.push(piece, &mut out).unwrap());
        parser.finish(&mut out);
        out.into_iter().map(|event| event.data).collect()
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(parse([text.as_bytes()]), expected, "{text:?} at once");
        assert_eq!(parse(text.as_bytes().chunks(1)), expected, "{text:?} byte by byte");
    }

    #[test]
    fn events() {
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data:a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check("\u{feff}data: a\n\n", &["a"]);
        // The examples of the specification.
        check("data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10"]);
        check(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &["first event", "second event", " third event"],
        );
        check("event: message_start\ndata: {}\n\n: OPENROUTER PROCESSING\n\ndata: [DONE]\n\n", &["{}", "[DONE]"]);
        check("data: [DONE]", &["[DONE]"]);
        check("data: [DONE]\n", &["[DONE]"]);
        check("event: ping\n\nretry: 10\n\ndatax: 1\n\ndata\n\n", &[]);
        check("data: é\u{1f99e}\n\n", &["é\u{1f99e}"]);
    }

    #[test]
    fn an_event_has_a_bound() {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        let megabyte = vec![b'x'; 1 << 20];
        let pushed = (0..9).map(|_| parser.push(&megabyte, &mut out)).find(Result::is_err);
        assert_eq!(pushed, Some(Err(TooLong)));
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        let line = [b"data: ".as_slice(), &megabyte, b"\n"].concat();
        let pushed = (0..9).map(|_| parser.push(&line, &mut out)).find(Result::is_err);
        assert_eq!(pushed, Some(Err(TooLong)), "also over many lines");
    }

    proptest! {
        /// Where the network cuts the bytes makes no difference.
        #[test]
        fn cuts_do_not_matter(text in "(data: ?|event: x|: c|\r|\n|\r\n|[a-z\u{e9}]){0,60}", cuts in prop::collection::vec(0_usize..200, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(parse(pieces), parse([bytes]));
        }
    }
}
