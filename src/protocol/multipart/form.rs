//! A form whose bytes pass through with the value of one field replaced: held until the field is known, then piped.

use std::ops::Range;

use super::{Multipart, MultipartFault, Piece};

/// Bytes of a field that is looked at, at most.
const MAX_FIELD_BYTES: usize = 4 * 1024;

/// A form that is held while its fields are read.
#[derive(Debug)]
pub struct Form {
    reader: Multipart,
    fields: Fields,
    held: Vec<u8>,
    /// Where the value that is replaced stands in what is held, as far as it has come.
    value: Option<Range<usize>>,
    /// Where the closing boundary stands.
    end: Option<usize>,
    /// Where the first file begins.
    file: Option<usize>,
}

/// The rest of a form, with the value replaced in what passes.
#[derive(Debug)]
pub struct Pipe {
    reader: Multipart,
    fields: Fields,
    value: Option<String>,
}

/// The fields that are looked at, as they come.
#[derive(Debug)]
struct Fields {
    boundary: String,
    /// Their names; the first is the one whose value is replaced.
    wanted: &'static [&'static str],
    /// Place among those wanted, and content. The last may still grow.
    found: Vec<(usize, Vec<u8>)>,
    /// The content that comes is that of the last one found.
    is_open: bool,
}

impl Form {
    /// A form with this boundary. The fields `wanted` are read, and the value of the first can be replaced.
    pub fn new(boundary: &str, wanted: &'static [&'static str]) -> Self {
        Self {
            reader: Multipart::new(boundary),
            fields: Fields { boundary: boundary.to_owned(), wanted, found: Vec::new(), is_open: false },
            held: Vec::new(),
            value: None,
            end: None,
            file: None,
        }
    }

    /// Takes in the next bytes and holds them.
    ///
    /// # Errors
    /// [`MultipartFault`], and the same from then on.
    pub fn hold(&mut self, bytes: &[u8]) -> Result<(), MultipartFault> {
        let Self { reader, fields, held, value, end, file } = self;
        reader.push(bytes, &mut |piece| {
            let is_replaced = fields.see(&piece)?;
            let from = held.len();
            match piece {
                Piece::Between(raw) | Piece::Content(raw) | Piece::Head { raw, .. } => held.extend_from_slice(raw),
                Piece::End => *end = Some(from),
                Piece::PartEnd => {}
            }
            if let Piece::Head { head, .. } = &piece
                && head.filename.is_some()
            {
                file.get_or_insert(held.len());
            }
            match piece {
                Piece::Head { .. } if is_replaced => *value = Some(held.len()..held.len()),
                Piece::Content(_) if is_replaced => *value = value.take().map(|range| range.start..held.len()),
                _ => {}
            }
            Ok(())
        })
    }

    /// The text of a field, once all of it has come.
    ///
    /// # Errors
    /// [`MultipartFault::NotText`] if it is not UTF-8.
    pub fn field(&self, name: &str) -> Result<Option<&str>, MultipartFault> {
        self.fields.text(name)
    }

    /// The first file's content as far as it has come, and what follows it; empty before it has begun.
    pub fn file(&self) -> &[u8] {
        self.file.and_then(|from| self.held.get(from..)).unwrap_or_default()
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.len().saturating_add(self.reader.buffered())
    }

    /// Whether the closing boundary has come. What may follow it means nothing.
    pub fn is_complete(&self) -> bool {
        self.reader.is_complete()
    }

    /// What is held, with `value`, a single line, in the field that is replaced; where a complete form has no such field,
    /// it gets one. Without a value it is as it came. May be asked for again, with another value.
    pub fn with(&self, value: Option<&str>) -> Vec<u8> {
        let Some(value) = value else { return self.held.clone() };
        let (at, inserted) = match (&self.value, self.end) {
            (Some(range), _) => (range.clone(), value.to_owned()),
            (None, Some(end)) => (end..end, self.fields.part(value)),
            (None, None) => (self.held.len()..self.held.len(), String::new()),
        };
        let mut bytes = Vec::with_capacity(self.held.len().saturating_add(inserted.len()));
        bytes.extend_from_slice(self.held.get(..at.start).unwrap_or_default());
        bytes.extend_from_slice(inserted.as_bytes());
        bytes.extend_from_slice(self.held.get(at.end..).unwrap_or_default());
        bytes
    }

    /// By how many bytes the whole form grows, or shrinks, by this value; `None` as long as the field may still come.
    pub fn growth(&self, value: &str) -> Option<i64> {
        let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        match (&self.value, self.end) {
            (Some(_), _) if self.fields.is_replacing() => None,
            (Some(range), _) => Some(length(value.len()).saturating_sub(length(range.len()))),
            (None, Some(_)) => Some(length(self.fields.part(value).len())),
            (None, None) => None,
        }
    }

    /// Goes on without holding: the bytes to send first, and what the rest goes through.
    pub fn pipe(self, value: Option<String>) -> (Vec<u8>, Pipe) {
        let first = if value.is_some() { self.with(value.as_deref()) } else { self.held };
        (first, Pipe { reader: self.reader, fields: self.fields, value })
    }
}

impl Pipe {
    /// Takes in the next bytes and appends what is to be sent for them.
    ///
    /// # Errors
    /// [`MultipartFault`], and the same from then on: what was sent so far must not be taken for a whole form.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MultipartFault> {
        let Self { reader, fields, value } = self;
        reader.push(bytes, &mut |piece| {
            let is_seen = fields.see(&piece)?;
            let value = value.as_deref();
            let is_replaced = is_seen && value.is_some();
            match piece {
                Piece::Content(_) if is_replaced => {}
                Piece::Between(raw) | Piece::Content(raw) => out.extend_from_slice(raw),
                Piece::Head { raw, .. } => {
                    out.extend_from_slice(raw);
                    if let Some(value) = value.filter(|_| is_replaced) {
                        out.extend_from_slice(value.as_bytes());
                    }
                }
                Piece::End => {
                    if let Some(value) = value.filter(|_| !fields.has_replaced()) {
                        out.extend_from_slice(fields.part(value).as_bytes());
                    }
                }
                Piece::PartEnd => {}
            }
            Ok(())
        })
    }

    /// The bytes have ended.
    ///
    /// # Errors
    /// [`MultipartFault::Truncated`] if the closing boundary has not come.
    pub fn finish(&self) -> Result<(), MultipartFault> {
        if self.reader.is_complete() { Ok(()) } else { Err(MultipartFault::Truncated) }
    }
}

impl Fields {
    /// Takes note of a piece; whether it is of the field whose value is replaced.
    fn see(&mut self, piece: &Piece<'_>) -> Result<bool, MultipartFault> {
        match piece {
            Piece::Head { head, .. } => {
                let nth = self.wanted.iter().position(|wanted| *wanted == head.name);
                self.is_open = nth.is_some();
                if let Some(nth) = nth {
                    let name = self.wanted.get(nth).copied().unwrap_or_default();
                    if self.found.iter().any(|(known, _)| *known == nth) {
                        return Err(MultipartFault::Duplicate { name });
                    }
                    if head.filename.is_some() {
                        return Err(MultipartFault::NotText { name });
                    }
                    self.found.push((nth, Vec::new()));
                }
            }
            Piece::Content(bytes) if self.is_open => {
                if let Some((nth, content)) = self.found.last_mut() {
                    if content.len().saturating_add(bytes.len()) > MAX_FIELD_BYTES {
                        let name = self.wanted.get(*nth).copied().unwrap_or_default();
                        return Err(MultipartFault::FieldTooLarge { name, max: MAX_FIELD_BYTES });
                    }
                    content.extend_from_slice(bytes);
                }
            }
            Piece::PartEnd => self.is_open = false,
            Piece::Content(_) | Piece::Between(_) | Piece::End => {}
        }
        Ok(self.is_replacing())
    }

    /// Whether what comes is content of the field whose value is replaced.
    fn is_replacing(&self) -> bool {
        self.is_open && self.found.last().is_some_and(|(nth, _)| *nth == 0)
    }

    fn has_replaced(&self) -> bool {
        self.found.iter().any(|(nth, _)| *nth == 0)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, MultipartFault> {
        let complete = self.found.len().saturating_sub(usize::from(self.is_open));
        for (nth, content) in self.found.iter().take(complete) {
            if let Some(wanted) = self.wanted.get(*nth).filter(|wanted| **wanted == name) {
                let text = std::str::from_utf8(content).map_err(|_| MultipartFault::NotText { name: wanted })?;
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// The field that is replaced, as a part to stand before a delimiter.
    fn part(&self, value: &str) -> String {
        let name = self.wanted.first().copied().unwrap_or_default();
        format!("\r\n--{}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}", self.boundary)
    }
}
