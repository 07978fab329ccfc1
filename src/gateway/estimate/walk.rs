//! Finds in a chat request what a model will read: one pass over the raw bytes, which are taken as they are. The scan
//! of the envelope has refused what is no JSON before; here nothing is refused, and no bytes do harm.

use memchr::memchr2;

use super::picture::{self, Picture};
use super::{Measure, Weight, weigh};

/// Containers within each other that are followed. The envelope allows fewer.
const MAX_DEPTH: usize = 1024;

/// Bytes of sound in a second where its format does not tell: MP3 at 64 kbit/s.
const SOUND_BYTES_PER_SECOND: u64 = 8_000;

/// What the quotes, colon and comma around a name and its value weigh, in thousandths of a token.
const MEMBER: u64 = 1_500;

/// A token, as it weighs.
const TOKEN: Weight = Weight { western: 1_000, alphabets: 0, cjk: 0 };

/// What a value is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request itself.
    Request,
    /// Nothing that it reads.
    Unread,
    /// The list of messages, or a message.
    Message,
    /// A message's content, or a part of it.
    Content,
    /// A text, or JSON that is read as it is.
    Text,
    /// Calls of tools in a message.
    Call,
    /// Where a picture, a sound or a document is.
    Attachment,
    /// The picture, sound or document, or a link to it.
    File,
    /// How closely a picture is looked at.
    Detail,
    /// The list of tools.
    Tools,
    /// A tool or a schema.
    Schema,
    /// A schema's properties by their names.
    Properties,
    /// What in a schema is not for the model's eyes.
    Aside,
    /// How the reply is to be structured.
    Format,
    /// The schema that the reply is to follow, or what is in it.
    FormatSchema,
    /// How the model is to think.
    Thinking,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    place: Place,
    is_object: bool,
    /// What the next value is, for an object: told by the name before it.
    next: Place,
    /// Whether a name comes next.
    name_next: bool,
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    open: Vec<Frame>,
    measure: Measure,
    picture: Option<Picture>,
    low: bool,
}

/// Measures a body.
pub(super) fn measure(body: &[u8]) -> Measure {
    let mut walk =
        Walk { body, at: 0, open: Vec::with_capacity(16), measure: Measure::default(), picture: None, low: false };
    while let Some(&byte) = body.get(walk.at) {
        walk.step(byte);
    }
    walk.measure
}

impl<'a> Walk<'a> {
    fn step(&mut self, byte: u8) {
        match byte {
            b'"' => {
                let text = self.string();
                self.string_found(text);
            }
            b'{' | b'[' => {
                self.at = self.at.saturating_add(1);
                self.opened(byte == b'{');
            }
            b'}' | b']' => {
                self.at = self.at.saturating_add(1);
                self.closed();
            }
            b',' => {
                self.at = self.at.saturating_add(1);
                if let Some(frame) = self.open.last_mut() {
                    frame.name_next = frame.is_object;
                }
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                let start = self.at;
                while self.body.get(self.at).is_some_and(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)) {
                    self.at = self.at.saturating_add(1);
                }
                match self.place() {
                    Place::Text => self.read(start..self.at),
                    // An element of a list that could have texts: a token, in the model's own numbers.
                    Place::Message if byte.is_ascii_digit() => add(&mut self.measure.text, TOKEN),
                    _ => {}
                }
            }
            _ => self.at = self.at.saturating_add(1),
        }
    }

    /// Goes past the string that begins here: what is between its quotes.
    fn string(&mut self) -> &'a [u8] {
        let start = self.at.saturating_add(1);
        let mut end = start;
        loop {
            let rest = self.body.get(end..).unwrap_or_default();
            match memchr2(b'"', b'\\', rest) {
                Some(found) => {
                    end = end.saturating_add(found);
                    if self.body.get(end) == Some(&b'"') {
                        break;
                    }
                    end = end.saturating_add(2);
                }
                None => {
                    end = self.body.len();
                    break;
                }
            }
        }
        self.at = end.saturating_add(1);
        self.body.get(start..end.min(self.body.len())).unwrap_or_default()
    }

    /// What the value that begins here is.
    fn place(&self) -> Place {
        match self.open.last() {
            None => Place::Request,
            Some(frame) if frame.is_object => frame.next,
            Some(frame) => frame.place,
        }
    }

    fn string_found(&mut self, text: &[u8]) {
        if let Some(frame) = self.open.last_mut()
            && frame.name_next
        {
            frame.name_next = false;
            let place = frame.place;
            frame.next = inside(place, text);
            return self.name_found(place, text);
        }
        match self.place() {
            Place::Content | Place::Text | Place::Message => add(&mut self.measure.text, weigh(text)),
            Place::Schema | Place::Tools | Place::Properties => add(&mut self.measure.schema, weigh(text)),
            Place::Aside => add(&mut self.measure.keywords, weigh(text)),
            Place::FormatSchema => add(&mut self.measure.format, weigh(text)),
            Place::File | Place::Attachment => self.file(text),
            Place::Detail => self.low = text == b"low",
            Place::Request | Place::Unread | Place::Call | Place::Format | Place::Thinking => {}
        }
    }

    /// What a name means besides what its value is.
    fn name_found(&mut self, place: Place, name: &[u8]) {
        match place {
            Place::Text => self.member(name, |measure| &mut measure.text),
            Place::FormatSchema => self.member(name, |measure| &mut measure.format),
            Place::Properties => {
                self.measure.properties = self.measure.properties.saturating_add(1);
                add(&mut self.measure.schema, weigh(name));
            }
            Place::Schema | Place::Aside => add(&mut self.measure.keywords, weigh(name)),
            Place::Thinking if matches!(name, b"budget_tokens" | b"max_tokens" | b"effort" | b"enabled") => {
                self.measure.thinks = true;
            }
            Place::Request if matches!(name, b"system" | b"instructions") => {
                self.measure.messages = self.measure.messages.saturating_add(1)
            }
            Place::Content if matches!(name, b"tool_use_id" | b"input") => self.call(),
            Place::Message if matches!(name, b"tool_call_id" | b"function_call" | b"call_id") => self.call(),
            Place::Call if matches!(name, b"arguments" | b"input") => self.call(),
            _ => {}
        }
    }

    fn member(&mut self, name: &[u8], sum: fn(&mut Measure) -> &mut Weight) {
        let sum = sum(&mut self.measure);
        add(sum, weigh(name));
        add(sum, Weight { western: MEMBER, ..Weight::default() });
    }

    fn call(&mut self) {
        self.measure.calls = self.measure.calls.saturating_add(1);
    }

    fn opened(&mut self, is_object: bool) {
        if self.open.len() >= MAX_DEPTH {
            self.open.clear();
        }
        let outer = self.open.last().map(|frame| (frame.place, frame.is_object));
        let mut place = self.place();
        // The list's elements are what the list is named after.
        match (place, outer) {
            (Place::Message, Some((Place::Message, false))) if is_object => {
                self.measure.messages = self.measure.messages.saturating_add(1);
            }
            (Place::Tools, Some((Place::Tools, false))) if is_object => {
                self.measure.tools = self.measure.tools.saturating_add(1);
                place = Place::Schema;
            }
            _ => {}
        }
        self.open.push(Frame { place, is_object, next: Place::Unread, name_next: is_object });
    }

    fn closed(&mut self) {
        let frame = self.open.pop();
        if frame.is_some_and(|frame| frame.place == Place::Attachment) {
            let low = std::mem::take(&mut self.low);
            if let Some(found) = self.picture.take() {
                self.measure.pictures.push(Picture { low, ..found });
            }
        }
    }

    fn read(&mut self, range: std::ops::Range<usize>) {
        let text = self.body.get(range).unwrap_or_default();
        add(&mut self.measure.text, weigh(text));
    }

    /// A picture, a sound or a document: as base64, as such a `data:` URL, or as a link.
    fn file(&mut self, text: &[u8]) {
        let (media_type, data) = match text.strip_prefix(b"data:") {
            Some(url) => match memchr::memchr(b',', url) {
                Some(comma) => (url.get(..comma).unwrap_or_default(), url.get(comma.saturating_add(1)..)),
                None => (url, None),
            },
            None => (&b""[..], Some(text)),
        };
        let data = data.unwrap_or_default();
        let is_link = text.starts_with(b"http:") || text.starts_with(b"https:");
        let head = picture::decoded(data.get(..data.len().min(64)).unwrap_or_default(), 32).unwrap_or_default();
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX).saturating_mul(3) / 4;
        if is_link && data.ends_with(b".pdf") {
            self.measure.documents = self.measure.documents.saturating_add(1);
        } else if head.starts_with(b"%PDF") {
            self.measure.documents = self.measure.documents.saturating_add(1);
            self.measure.document_bytes = self.measure.document_bytes.saturating_add(bytes);
        } else if let Some(ms) = sound_ms(&head, bytes, media_type.starts_with(b"audio")) {
            self.measure.sound_ms = self.measure.sound_ms.saturating_add(ms);
        } else if is_link || media_type.starts_with(b"image") || is_picture(&head) {
            let size = if is_link { None } else { picture::size(data) };
            let found = Picture { size, low: false };
            // A link or data without an object around it has no detail to wait for.
            match self.open.last().map(|frame| frame.place) {
                Some(Place::Attachment) => self.picture = Some(found),
                _ => self.measure.pictures.push(found),
            }
        } else if data.iter().any(u8::is_ascii_whitespace) {
            // A document that is plain text.
            add(&mut self.measure.text, weigh(data));
        } else {
            // Most likely the base64 of one.
            add(&mut self.measure.text, Weight { western: bytes.saturating_mul(250), ..Weight::default() });
        }
    }
}

/// What the value of a member is, by the member's name and what its object is.
fn inside(place: Place, name: &[u8]) -> Place {
    // Names are compared as they are written. One with escapes, which nobody writes, is taken to be read.
    if name.contains(&b'\\') && place != Place::Unread {
        return Place::Text;
    }
    match (place, name) {
        (Place::Request, b"messages") => Place::Message,
        (Place::Request, b"system" | b"instructions") => Place::Content,
        // The Responses API: a text, or items, among which messages are but one kind.
        (Place::Request, b"input") => Place::Message,
        // What is no chat: a text or several, or tokens.
        (Place::Request, b"prompt") => Place::Message,
        (Place::Request, b"query") => Place::Content,
        (Place::Request, b"documents") => Place::Text,
        (Place::Message, b"text") => Place::Text,
        (Place::Message, b"image_url") => Place::Attachment,
        (Place::Request, b"text") => Place::Format,
        (Place::Message, b"output" | b"summary") => Place::Content,
        (Place::Message, b"arguments" | b"input") => Place::Text,
        (Place::Content, b"file_data" | b"file_url") => Place::Attachment,
        (Place::Request, b"tools" | b"functions") => Place::Tools,
        (Place::Request | Place::Format, b"response_format" | b"output_config" | b"output_format" | b"format") => {
            Place::Format
        }
        (Place::Format, b"json_schema" | b"schema") => Place::FormatSchema,
        (Place::FormatSchema, _) => Place::FormatSchema,
        (Place::Request, b"thinking" | b"reasoning") => Place::Thinking,
        (Place::Message, b"content") => Place::Content,
        (Place::Message, b"tool_calls" | b"function_call") => Place::Call,
        (Place::Message, b"name" | b"refusal" | b"reasoning" | b"reasoning_content") => Place::Text,
        (Place::Content, b"text" | b"thinking" | b"refusal" | b"name" | b"title" | b"context" | b"input") => {
            Place::Text
        }
        (Place::Content, b"content") => Place::Content,
        (Place::Content, b"image_url" | b"source" | b"input_audio" | b"file") => Place::Attachment,
        (Place::Call, b"function" | b"custom") => Place::Call,
        (Place::Call, b"name" | b"arguments" | b"input") => Place::Text,
        (Place::Attachment, b"url" | b"data" | b"file_data") => Place::File,
        (Place::Attachment, b"detail") => Place::Detail,
        (Place::Attachment, b"content") => Place::Content,
        (Place::Attachment, b"filename") => Place::Text,
        (Place::Text, _) => Place::Text,
        (Place::Schema, b"properties" | b"$defs" | b"definitions") => Place::Properties,
        (
            Place::Schema,
            b"type" | b"required" | b"title" | b"$schema" | b"$ref" | b"strict" | b"additionalProperties",
        ) => Place::Aside,
        (Place::Schema, b"cache_control" | b"defer_loading") => Place::Unread,
        (Place::Schema | Place::Properties, _) => Place::Schema,
        (Place::Aside, name) => inside(Place::Schema, name),
        _ => Place::Unread,
    }
}

fn is_picture(head: &[u8]) -> bool {
    [&b"\x89PNG"[..], b"\xff\xd8\xff", b"GIF8", b"RIFF"].iter().any(|magic| head.starts_with(magic))
}

/// How long a sound is, if it is one.
fn sound_ms(head: &[u8], bytes: u64, is_declared: bool) -> Option<u64> {
    let wave = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE");
    let per_second = match wave {
        true => head.get(28..).and_then(|rest| rest.first_chunk()).map(|rate| u64::from(u32::from_le_bytes(*rate))),
        false => None,
    };
    let is_mp3 = head.starts_with(b"ID3") || matches!(head, [0xff, 0xe2..=0xfb, ..]);
    if !wave && !is_mp3 && !is_declared {
        return None;
    }
    let per_second = per_second.filter(|rate| *rate > 0).unwrap_or(SOUND_BYTES_PER_SECOND);
    bytes.saturating_mul(1000).checked_div(per_second)
}

fn add(sum: &mut Weight, weight: Weight) {
    sum.western = sum.western.saturating_add(weight.western);
    sum.alphabets = sum.alphabets.saturating_add(weight.alphabets);
    sum.cjk = sum.cjk.saturating_add(weight.cjk);
}
