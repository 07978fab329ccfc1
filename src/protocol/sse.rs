//! Server-sent events: a decoder that accepts whatever the standard allows
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), fed in pieces that may break anywhere, and the
//! writing of single events.
//!
//! The decoder hands out each event together with the exact bytes it stood in, so that a relay can pass events on
//! untouched and leave single ones out.

use std::borrow::Cow;

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct SseDecoder {
    buffer: Vec<u8>,
    /// Start of the event being read.
    start: usize,
    /// Everything before this offset has been looked at for line ends.
    scanned: usize,
    /// Start of the line being read.
    line: usize,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Value ranges of the `data:` lines of the event being read.
    data: Vec<(usize, usize)>,
    /// Value range of its last `event:` line.
    name: (usize, usize),
    /// A byte order mark may still come.
    at_beginning: bool,
    max_event_bytes: usize,
}

/// One event, or the block of comments and fields without data between two blank lines.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The bytes it stood in, its blank line included.
    pub raw: &'a [u8],
    /// The `event:` field, empty if there is none.
    pub name: &'a [u8],
    /// The `data:` lines joined with line feeds; `None` where there is no `data:` line.
    pub data: Option<Cow<'a, [u8]>>,
}

/// An event that is larger than the decoder will hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the upstream's stream is larger than {max} bytes")]
pub struct EventTooLarge {
    /// The bound in bytes.
    pub max: usize,
}

impl SseDecoder {
    /// A decoder that holds at most `max_event_bytes` of an unfinished event.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            line: 0,
            after_cr: false,
            data: Vec::new(),
            name: (0, 0),
            at_beginning: true,
            max_event_bytes,
        }
    }

    /// Takes in the next bytes. Call [`Self::next_frame`] until it has no more before pushing again.
    ///
    /// # Errors
    /// [`EventTooLarge`] if the unfinished event outgrows the bound; the stream cannot be read further then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        self.forget_read_events();
        if self.buffer.len() > self.max_event_bytes {
            return Err(EventTooLarge { max: self.max_event_bytes });
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete event, if the bytes pushed so far hold one.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        loop {
            if self.after_cr && self.line == self.scanned {
                // The LF of a CRLF whose CR already ended the line.
                match self.buffer.get(self.scanned) {
                    Some(b'\n') => {
                        self.scanned = self.scanned.saturating_add(1);
                        self.line = self.scanned;
                        self.after_cr = false;
                    }
                    Some(_) => self.after_cr = false,
                    None => return None,
                }
            }
            let rest = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.scanned = self.buffer.len();
                return None;
            };
            let end = self.scanned.saturating_add(found);
            self.after_cr = rest.get(found) == Some(&b'\r');
            let line = (self.line, end);
            self.scanned = end.saturating_add(1);
            self.line = self.scanned;
            if self.take_line(line) {
                return Some(self.take_frame());
            }
        }
    }

    /// What is left when the stream has ended: an event whose blank line never came. The standard would discard it;
    /// some providers end that way on purpose, others because they were cut off, so the caller must judge.
    pub fn unfinished(&mut self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut rest = std::mem::replace(self, Self::new(self.max_event_bytes));
        let end = rest.buffer.len();
        if rest.line < end {
            rest.take_line((rest.line, end));
        }
        let raw = rest.buffer.get(rest.start..).unwrap_or_default();
        (!raw.is_empty()).then(|| (raw.to_vec(), join(&rest.buffer, &rest.data).map(Cow::into_owned)))
    }

    /// Digests one line; true if it was the blank line that ends an event.
    fn take_line(&mut self, (mut from, to): (usize, usize)) -> bool {
        if self.at_beginning {
            self.at_beginning = false;
            if self.slice(from, to).starts_with(b"\xef\xbb\xbf") {
                from = from.saturating_add(3);
            }
        }
        if from == to {
            return true;
        }
        let line = self.slice(from, to);
        let (field, value_at) = match memchr::memchr(b':', line) {
            Some(colon) => (line.get(..colon).unwrap_or_default(), from.saturating_add(colon).saturating_add(1)),
            None => (line, to),
        };
        let is_data = field == b"data";
        let is_name = field == b"event";
        let value_at = if self.buffer.get(value_at) == Some(&b' ') && value_at < to {
            value_at.saturating_add(1)
        } else {
            value_at
        };
        if is_data {
            self.data.push((value_at, to));
        } else if is_name {
            self.name = (value_at, to);
        }
        false
    }

    fn take_frame(&mut self) -> Frame<'_> {
        let (start, end) = (self.start, self.scanned);
        self.start = end;
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        Frame { raw: self.slice(start, end), name: self.slice(name.0, name.1), data: join(&self.buffer, &data) }
    }

    fn slice(&self, from: usize, to: usize) -> &[u8] {
        self.buffer.get(from..to).unwrap_or_default()
    }

    /// Drops the bytes of the events that were handed out.
    fn forget_read_events(&mut self) {
        let by = self.start;
        if by == 0 {
            return;
        }
        self.buffer.drain(..by);
        self.start = 0;
        self.scanned = self.scanned.saturating_sub(by);
        self.line = self.line.saturating_sub(by);
        for (from, to) in self.data.iter_mut().chain(std::iter::once(&mut self.name)) {
            *from = from.saturating_sub(by);
            *to = to.saturating_sub(by);
        }
    }
}

fn join<'a>(buffer: &'a [u8], lines: &[(usize, usize)]) -> Option<Cow<'a, [u8]>> {
    let slice = |(from, to): (usize, usize)| buffer.get(from..to).unwrap_or_default();
    match lines {
        [] => None,
        [one] => Some(Cow::Borrowed(slice(*one))),
        many => {
            let mut joined = Vec::new();
            for (nth, line) in many.iter().enumerate() {
                if nth > 0 {
                    joined.push(b'\n');
                }
                joined.extend_from_slice(slice(*line));
            }
            Some(Cow::Owned(joined))
        }
    }
}

/// Writes `data: <json>` and the blank line.
pub fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// Writes `event: <name>`, `data: <json>` and the blank line.
pub fn write_event(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    write_data(out, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);
    type Rest = Option<(Vec<u8>, Option<Vec<u8>>)>;

    fn decode(pieces: &[&[u8]]) -> (Vec<Owned>, Rest) {
        let mut decoder = SseDecoder::new(1 << 20);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece).unwrap();
            while let Some(frame) = decoder.next_frame() {
                events.push((frame.raw.to_vec(), frame.name.to_vec(), frame.data.map(Cow::into_owned)));
            }
        }
        (events, decoder.unfinished())
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let (events, rest) = decode(&[
            b"\xef\xbb\xbf: hello\nevent: a\ndata:one\ndata: two\ndata:  three\nid: 4\nretry: 5\n\ndata\n\nevent: b\n\ndata: x",
        ]);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].1, b"a");
        assert_eq!(events[0].2.as_deref(), Some(b"one\ntwo\n three".as_slice()));
        assert_eq!(events[1].2.as_deref(), Some(b"".as_slice()));
        assert_eq!((events[2].1.as_slice(), events[2].2.as_deref()), (b"b".as_slice(), None));
        assert_eq!(rest, Some((b"data: x".to_vec(), Some(b"x".to_vec()))));
    }

    #[test]
    fn an_event_is_out_as_soon_as_its_blank_line_is_in_whatever_the_line_ends() {
        for end in ["\n", "\r\n", "\r"] {
            let mut decoder = SseDecoder::new(100);
            decoder.push(format!("data: 1{end}{end}").as_bytes()).unwrap();
            let frame = decoder.next_frame().unwrap();
            assert_eq!(frame.data.as_deref(), Some(b"1".as_slice()), "{end:?}");
            assert!(decoder.next_frame().is_none());
        }
    }

    #[test]
    fn an_event_over_the_bound_is_refused() {
        let mut decoder = SseDecoder::new(100);
        decoder.push(b"data: a\n\n").unwrap();
        assert!(decoder.next_frame().is_some());
        decoder.push(&[b'x'; 200]).unwrap();
        assert!(decoder.next_frame().is_none());
        assert_eq!(decoder.push(b"y"), Err(EventTooLarge { max: 100 }));
    }

    fn stream() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "data: ?[a-z{}\" é🦀:]{0,12}",
            "event: [a-z]{1,5}",
            ": [a-z ]{0,8}",
            Just(String::new()),
            Just(String::new()),
        ];
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
        (proptest::collection::vec((line, end), 0..14), any::<bool>()).prop_map(|(lines, bom)| {
            let text: String = lines.into_iter().map(|(line, end)| line + end).collect();
            if bom { format!("\u{feff}{text}") } else { text }
        })
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(text in stream(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len().saturating_add(1))).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let strip = |(events, rest): (Vec<Owned>, Rest)| {
                (events.into_iter().map(|e| (e.1, e.2)).collect::<Vec<_>>(), rest.and_then(|r| r.1))
            };
            prop_assert_eq!(strip(decode(&[bytes])), strip(decode(&pieces)));
        }

        #[test]
        fn no_byte_is_lost_or_doubled(text in stream(), n in 1usize..7) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(n).collect();
            let (events, rest) = decode(&pieces);
            let mut all: Vec<u8> = events.into_iter().flat_map(|e| e.0).collect();
            all.extend(rest.map(|r| r.0).unwrap_or_default());
            prop_assert_eq!(all, text.into_bytes());
        }
    }
}
