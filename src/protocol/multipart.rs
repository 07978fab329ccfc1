//! Forms as `multipart/form-data` (RFC 7578, RFC 2046), read piece by piece as their bytes come.
//!
//! What the gateway believes about a form must be what the provider will see in it. Where readers of forms are known to
//! disagree, a form is refused: about a boundary that goes on as something else, a name with escapes, a field encoded
//! for transport.

mod form;
mod head;

pub use form::{Form, Pipe};
pub use head::{PartHead, boundary};

use memchr::memmem;

use crate::error::Problem;

/// Bytes of a part's head at most.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Parts of a form at most.
pub const MAX_PARTS: u32 = 256;

/// A piece of a form. The bytes of all pieces, one after the other, are the form's.
#[derive(Debug)]
pub enum Piece<'a> {
    /// What belongs to no part: preamble, delimiters, epilogue.
    Between(&'a [u8]),
    /// A part begins.
    Head {
        /// What its head says.
        head: PartHead,
        /// The head with its blank line.
        raw: &'a [u8],
    },
    /// Content of the part.
    Content(&'a [u8]),
    /// The part is complete; its delimiter follows.
    PartEnd,
    /// The last part was complete; the closing delimiter follows.
    End,
}

/// Why a form cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartFault {
    /// The content type has no usable boundary.
    #[error("the content-type must be multipart/form-data with one boundary of 1 to 70 characters")]
    Boundary,
    /// It is no form, or one that readers disagree about.
    #[error("the form is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A part's head is too large.
    #[error("the head of a part of the form has more than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// There are too many parts.
    #[error("the form has more than {MAX_PARTS} parts")]
    TooManyParts,
    /// A field that is looked at is too long.
    #[error("{name}: must have at most {max} bytes")]
    FieldTooLarge {
        /// The field.
        name: &'static str,
        /// The bound.
        max: usize,
    },
    /// A field that is looked at is no text.
    #[error("{name}: must be a plain text field, not a file")]
    NotText {
        /// The field.
        name: &'static str,
    },
    /// A field that is looked at stands twice.
    #[error("{name}: given more than once")]
    Duplicate {
        /// The field.
        name: &'static str,
    },
    /// The closing boundary has not come.
    #[error("the form breaks off before its closing boundary")]
    Truncated,
}

impl From<MultipartFault> for Problem {
    fn from(fault: MultipartFault) -> Self {
        let field = match fault {
            MultipartFault::FieldTooLarge { name, .. }
            | MultipartFault::NotText { name }
            | MultipartFault::Duplicate { name } => name,
            _ => "",
        };
        Self { code: "invalid_form".to_owned(), ..Self::invalid(field, format!("{fault}.")) }
    }
}

/// Takes a form apart.
#[derive(Debug)]
pub struct Multipart {
    /// What has come and is not handed out: part of a delimiter or of a head, as a rule nothing.
    buffer: Vec<u8>,
    /// CRLF, two hyphens, the boundary.
    delimiter: memmem::Finder<'static>,
    state: State,
    parts: u32,
    fault: Option<MultipartFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter. As that one may stand at the very beginning, where no line end is, the buffer starts
    /// with a line end that is not the form's.
    Preamble {
        /// How much of this line end is still there.
        lent: usize,
    },
    Head,
    Content {
        /// Nothing of it has come.
        is_empty: bool,
    },
    Epilogue,
}

/// What comes next out of the buffer.
enum Next {
    /// More bytes have to come first.
    Nothing,
    /// So many bytes that belong to no delimiter.
    Bytes(usize),
    /// A delimiter with its line end, of so many bytes.
    Delimiter(usize),
    /// The closing delimiter, of so many bytes.
    Close(usize),
}

impl Multipart {
    /// A reader for a form with this boundary.
    pub fn new(boundary: &str) -> Self {
        let delimiter = memmem::Finder::new(&["\r\n--", boundary].concat()).into_owned();
        Self { buffer: b"\r\n".to_vec(), delimiter, state: State::Preamble { lent: 2 }, parts: 0, fault: None }
    }

    /// Takes in the next bytes and hands on the pieces that they complete.
    ///
    /// # Errors
    /// [`MultipartFault`], and the same from then on; what `take` returns.
    pub fn push(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), MultipartFault>,
    ) -> Result<(), MultipartFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            match self.step(rest, take) {
                Ok(0) => break,
                Ok(taken) => at = at.saturating_add(taken),
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(fault);
                }
            }
        }
        buffer.drain(..at.min(buffer.len()));
        self.buffer = buffer;
        Ok(())
    }

    /// Whether the closing boundary has come.
    pub fn is_complete(&self) -> bool {
        self.fault.is_none() && self.state == State::Epilogue
    }

    /// How many bytes have come and are not handed out.
    pub fn buffered(&self) -> usize {
        let lent = if let State::Preamble { lent } = self.state { lent } else { 0 };
        self.buffer.len().saturating_sub(lent)
    }

    /// Hands on what can be told of these bytes; how many that took, 0 if more have to come.
    fn step(
        &mut self,
        rest: &[u8],
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), MultipartFault>,
    ) -> Result<usize, MultipartFault> {
        let upto = |count: usize| rest.get(..count).unwrap_or_default();
        match self.state {
            State::Epilogue => {
                if !rest.is_empty() {
                    take(Piece::Between(rest))?;
                }
                Ok(rest.len())
            }
            State::Head => {
                let Some(length) = head::length(rest) else {
                    return if rest.len() > MAX_HEAD_BYTES { Err(MultipartFault::HeadTooLarge) } else { Ok(0) };
                };
                if length > MAX_HEAD_BYTES {
                    return Err(MultipartFault::HeadTooLarge);
                }
                self.parts = self.parts.saturating_add(1);
                if self.parts > MAX_PARTS {
                    return Err(MultipartFault::TooManyParts);
                }
                let raw = upto(length);
                take(Piece::Head { head: PartHead::read(raw)?, raw })?;
                self.state = State::Content { is_empty: true };
                Ok(length)
            }
            State::Preamble { lent } => match self.next(rest)? {
                Next::Nothing => Ok(0),
                next @ (Next::Bytes(count) | Next::Delimiter(count)) => {
                    let raw = upto(count).get(lent.min(count)..).unwrap_or_default();
                    if !raw.is_empty() {
                        take(Piece::Between(raw))?;
                    }
                    self.state = match next {
                        Next::Delimiter(_) => State::Head,
                        _ => State::Preamble { lent: lent.saturating_sub(count) },
                    };
                    Ok(count)
                }
                Next::Close(_) => Err(MultipartFault::Malformed { what: "it has no part" }),
            },
            State::Content { is_empty } => {
                if is_empty && self.begins_with_boundary(rest)? {
                    return Ok(0);
                }
                match self.next(rest)? {
                    Next::Nothing => Ok(0),
                    Next::Bytes(count) => {
                        self.state = State::Content { is_empty: false };
                        take(Piece::Content(upto(count)))?;
                        Ok(count)
                    }
                    Next::Delimiter(count) => {
                        self.state = State::Head;
                        take(Piece::PartEnd)?;
                        take(Piece::Between(upto(count)))?;
                        Ok(count)
                    }
                    Next::Close(count) => {
                        self.state = State::Epilogue;
                        take(Piece::PartEnd)?;
                        take(Piece::End)?;
                        take(Piece::Between(upto(count)))?;
                        Ok(count)
                    }
                }
            }
        }
    }

    fn next(&self, rest: &[u8]) -> Result<Next, MultipartFault> {
        let delimiter = self.delimiter.needle();
        let Some(found) = self.delimiter.find(rest) else {
            // What may be the beginning of a delimiter stays.
            let undecided = (1..delimiter.len()).rev().find(|length| rest.ends_with(start(delimiter, *length)));
            let count = rest.len().saturating_sub(undecided.unwrap_or(0));
            return Ok(if count == 0 { Next::Nothing } else { Next::Bytes(count) });
        };
        if found > 0 {
            return Ok(Next::Bytes(found));
        }
        let behind = rest.get(delimiter.len()..).unwrap_or_default();
        if behind.starts_with(b"--") {
            return Ok(Next::Close(delimiter.len().saturating_add(2)));
        }
        let padding = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match behind.get(padding..).unwrap_or_default() {
            _ if padding > MAX_HEAD_BYTES => Err(MultipartFault::HeadTooLarge),
            [b'\r', b'\n', ..] => Ok(Next::Delimiter(delimiter.len().saturating_add(padding).saturating_add(2))),
            [] | [b'\r'] => Ok(Next::Nothing),
            [b'-'] if padding == 0 => Ok(Next::Nothing),
            _ => {
                Err(MultipartFault::Malformed { what: "a line begins with the boundary and goes on as something else" })
            }
        }
    }

    /// Whether a part without content may be about to end without a line end of its own, which some take for its end and
    /// others for its content: refused if it does.
    fn begins_with_boundary(&self, rest: &[u8]) -> Result<bool, MultipartFault> {
        let boundary = self.delimiter.needle().get(2..).unwrap_or_default();
        if rest.starts_with(boundary) {
            return Err(MultipartFault::Malformed {
                what: "a part without content has no line end before its boundary",
            });
        }
        Ok(!rest.is_empty() && boundary.starts_with(rest))
    }
}

fn start(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests;
