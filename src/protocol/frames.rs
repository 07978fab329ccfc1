//! How the events of a reply are divided. A dialect's reader never sees a cut: it gets whole events, however the bytes
//! came.

use std::borrow::Cow;

use serde_json::Value;

use super::chat::{ChatEvent, ReplyDecoder, ReplyFault};
use super::sse::SseDecoder;

/// The largest single event that a stream may contain.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// Its name: the `event:` field of server-sent events, the `:event-type` of Amazon's; empty where there is none.
    pub name: &'a [u8],
    /// Its data.
    pub data: Cow<'a, [u8]>,
    /// Whether the framing itself says that it is an error (Amazon's `:exception-type`, then in `name`).
    pub exception: bool,
}

/// Divides a stream into events.
pub trait Framing {
    /// Takes the next bytes in, and hands every event that they complete to `take`.
    ///
    /// # Errors
    /// [`ReplyFault::Malformed`] if they cannot be divided; whatever `take` returns.
    fn push(&mut self, bytes: &[u8], take: &mut TakeEvent<'_>) -> Result<(), ReplyFault>;

    /// The stream has ended: hands on what is left if that is an event whose end was merely not marked.
    ///
    /// # Errors
    /// [`ReplyFault::Truncated`] if the framing itself shows that something is missing; whatever `take` returns.
    fn finish(&mut self, take: &mut TakeEvent<'_>) -> Result<(), ReplyFault>;
}

/// What is done with an event.
pub type TakeEvent<'t> = dyn FnMut(&RawEvent<'_>) -> Result<(), ReplyFault> + 't;

/// The data that ends a stream in most dialects.
const DONE: &str = "[DONE]";

/// Server-sent events.
#[derive(Debug)]
pub struct Sse {
    decoder: SseDecoder,
    done: String,
}

impl Sse {
    /// Events of which one with this data ends the stream.
    pub fn ending_with(done: &str) -> Self {
        Self { decoder: SseDecoder::new(MAX_EVENT_BYTES), done: done.to_owned() }
    }
}

impl Default for Sse {
    fn default() -> Self {
        Self::ending_with(DONE)
    }
}

impl Framing for Sse {
    fn push(&mut self, bytes: &[u8], take: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        self.decoder.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.decoder.next_frame() {
            if let Some(data) = frame.data {
                take(&RawEvent { name: frame.name, data, exception: false })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, take: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        // Some providers leave out the last blank line; an event that broke off is left alone.
        match self.decoder.unfinished() {
            Some((_, Some(data))) if data.trim_ascii() == self.done.as_bytes() || is_json(&data) => {
                take(&RawEvent { name: b"", data: data.into(), exception: false })
            }
            // What came was no stream at all: an error told as plain JSON, as a rule.
            Some((raw, None)) if is_json(&raw) => take(&RawEvent { name: b"", data: raw.into(), exception: false }),
            _ => Ok(()),
        }
    }
}

/// One event a line.
#[derive(Debug)]
pub struct Lines {
    pending: Vec<u8>,
    done: String,
}

impl Lines {
    /// Lines of which one like this ends the stream.
    pub fn ending_with(done: &str) -> Self {
        Self { pending: Vec::new(), done: done.to_owned() }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::ending_with(DONE)
    }
}

impl Framing for Lines {
    fn push(&mut self, bytes: &[u8], take: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        // Only the new bytes are searched, or a long line in many pieces would take quadratic time.
        let last = memchr::memrchr(b'\n', bytes).map(|at| at.saturating_add(self.pending.len()));
        self.pending.extend_from_slice(bytes);
        if let Some(last) = last {
            let rest = self.pending.split_off(last.saturating_add(1));
            let lines = std::mem::replace(&mut self.pending, rest);
            for line in lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
                take(&RawEvent { name: b"", data: line.into(), exception: false })?;
            }
        }
        if self.pending.len() > MAX_EVENT_BYTES {
            return Err(ReplyFault::Malformed(format!("a line is larger than {MAX_EVENT_BYTES} bytes")));
        }
        Ok(())
    }

    fn finish(&mut self, take: &mut TakeEvent<'_>) -> Result<(), ReplyFault> {
        let rest = std::mem::take(&mut self.pending);
        match rest.trim_ascii() {
            rest if rest == self.done.as_bytes() || is_json(rest) => {
                take(&RawEvent { name: b"", data: rest.into(), exception: false })
            }
            _ => Ok(()),
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Reads the events of one reply in one dialect.
pub trait EventReader {
    /// Takes one event of a stream.
    ///
    /// # Errors
    /// [`ReplyFault`] if it reports an error or cannot be understood.
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;

    /// Takes a whole reply; nothing else comes before or after it.
    ///
    /// # Errors
    /// [`ReplyFault`] if it is not a successful reply.
    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;

    /// The stream has ended.
    ///
    /// # Errors
    /// [`ReplyFault::Truncated`] unless the reply is complete.
    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;
}

/// A stream's framing and its dialect's reader.
pub struct Decoding {
    framing: Box<dyn Framing>,
    reader: Box<dyn EventReader>,
}

impl Decoding {
    /// A decoder for one stream.
    pub fn new(framing: Box<dyn Framing>, reader: Box<dyn EventReader>) -> Self {
        Self { framing, reader }
    }
}

impl ReplyDecoder for Decoding {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Self { framing, reader } = self;
        framing.push(bytes, &mut |event| reader.event(event, out))
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Self { framing, reader } = self;
        framing.finish(&mut |event| reader.event(event, out))?;
        reader.ended(out)
    }
}

/// Reads a whole reply.
///
/// # Errors
/// [`ReplyFault`] if it is not a successful reply.
pub fn read_whole(mut reader: Box<dyn EventReader>, body: &[u8]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut events = Vec::new();
    reader.whole(&parse_json(body)?, &mut events)?;
    if !events.iter().any(|event| matches!(event, ChatEvent::Finish { .. })) {
        return Err(ReplyFault::Malformed("it does not say why it ended".to_owned()));
    }
    Ok(events)
}

/// Parses an event's data.
///
/// # Errors
/// [`ReplyFault::Malformed`]
pub fn parse_json(data: &[u8]) -> Result<Value, ReplyFault> {
    serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))
}
