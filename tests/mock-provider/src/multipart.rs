//! `multipart/form-data`, read as it arrives. Files are hashed and counted, not kept, so that a long upload costs no
//! memory and its bytes can still be proved to be those that were sent.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Longest head of a part, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest value of a part that is no file, in bytes.
const MAX_VALUE: usize = 1024 * 1024;
/// Most parts of a form.
const MAX_PARTS: usize = 1000;

/// A part that has been read.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    pub name: String,
    pub filename: Option<String>,
    pub content_type: Option<String>,
    pub bytes: u64,
    /// Of the part's content, as lower-case hexadecimal.
    pub sha256: String,
    /// The content, unless the part is a file.
    pub value: Option<String>,
}

/// A whole form.
#[derive(Debug, Default)]
pub struct Form {
    pub parts: Vec<Part>,
}

impl Form {
    /// The files of this name, with or without brackets.
    pub fn files<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(move |part| part.filename.is_some() && plain(&part.name) == name)
    }

    /// The fields as an object: texts, and lists of texts where a name has brackets.
    pub fn fields(&self) -> Value {
        let mut fields = Map::new();
        for part in &self.parts {
            let Some(value) = &part.value else { continue };
            let value = Value::String(value.clone());
            if part.name.ends_with("[]") {
                let list = fields.entry(plain(&part.name)).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    list.push(value);
                }
            } else {
                fields.insert(part.name.clone(), value);
            }
        }
        Value::Object(fields)
    }
}

fn plain(name: &str) -> &str {
    name.strip_suffix("[]").unwrap_or(name)
}

/// The boundary in a `content-type` of `multipart/form-data`; empty where it is missing.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let found = parameters.split(';').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    });
    Some(found.unwrap_or_default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, or in a part's content.
    Content,
    /// After a delimiter.
    Delimited,
    Head,
    /// After the last delimiter.
    Ended,
}

/// The part that is being read.
#[derive(Debug)]
struct Open {
    name: String,
    filename: Option<String>,
    content_type: Option<String>,
    bytes: u64,
    hash: Sha256,
    value: Vec<u8>,
}

/// Reads a form piece by piece.
#[derive(Debug)]
pub struct Reader {
    /// The line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    state: State,
    rest: Vec<u8>,
    open: Option<Open>,
    form: Form,
}

impl Reader {
    pub fn new(boundary: &str) -> Self {
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            state: State::Content,
            // The first delimiter needs no line break before it.
            rest: b"\r\n".to_vec(),
            open: None,
            form: Form::default(),
        }
    }

    /// Takes what came next.
    ///
    /// # Errors
    /// A sentence that says what is no form about it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.delimiter.len() == 4 {
            return Err("no multipart boundary param in Content-Type".to_owned());
        }
        self.rest.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// Whether there may be more to be done with what has come.
    fn step(&mut self) -> Result<bool, String> {
        match self.state {
            State::Ended => {
                self.rest.clear();
                Ok(false)
            }
            State::Content => {
                let found = find(&self.rest, &self.delimiter);
                // What could be the beginning of a delimiter waits.
                let sure = found.unwrap_or_else(|| self.rest.len().saturating_sub(self.delimiter.len() - 1));
                if let Some(open) = &mut self.open {
                    let content = self.rest.get(..sure).unwrap_or_default();
                    open.hash.update(content);
                    open.bytes += content.len() as u64;
                    if open.filename.is_none() {
                        open.value.extend_from_slice(content);
                        if open.value.len() > MAX_VALUE {
                            return Err("a field is too long".to_owned());
                        }
                    }
                }
                match found {
                    None => {
                        self.rest.drain(..sure);
                        Ok(false)
                    }
                    Some(at) => {
                        self.rest.drain(..at + self.delimiter.len());
                        self.close();
                        self.state = State::Delimited;
                        Ok(true)
                    }
                }
            }
            State::Delimited => match self.rest.get(..2) {
                None => Ok(false),
                Some(b"--") => {
                    self.state = State::Ended;
                    Ok(true)
                }
                Some(b"\r\n") => {
                    // The line break stays: with it the empty line that ends a head is found where there is no field.
                    self.state = State::Head;
                    Ok(true)
                }
                Some(_) => Err("a multipart boundary is not followed by a line break".to_owned()),
            },
            State::Head => match find(&self.rest, b"\r\n\r\n") {
                None if self.rest.len() > MAX_HEAD => Err("the head of a part is too long".to_owned()),
                None => Ok(false),
                Some(at) => {
                    let head = String::from_utf8_lossy(self.rest.get(..at).unwrap_or_default()).into_owned();
                    self.rest.drain(..at + 4);
                    self.open = Some(open(&head)?);
                    if self.form.parts.len() >= MAX_PARTS {
                        return Err("the form has too many parts".to_owned());
                    }
                    self.state = State::Content;
                    // The delimiter's own line break may follow at once: an empty part.
                    Ok(true)
                }
            },
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let sha256 = open.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            self.form.parts.push(Part {
                value: open.filename.is_none().then(|| String::from_utf8_lossy(&open.value).into_owned()),
                name: open.name,
                filename: open.filename,
                content_type: open.content_type,
                bytes: open.bytes,
                sha256,
            });
        }
    }

    /// The form, when all of it has come.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn finish(self) -> Result<Form, String> {
        match self.state {
            State::Ended => Ok(self.form),
            _ => Err("the multipart body ends before its last boundary".to_owned()),
        }
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(rest) = within.get(from..) {
        let at = from + rest.iter().position(|byte| *byte == b'\r')?;
        if within.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// A part from its head.
fn open(head: &str) -> Result<Open, String> {
    let (mut name, mut filename, mut content_type) = (None, None, None);
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let Some((field, value)) = line.split_once(':') else {
            return Err("a part has a malformed header".to_owned());
        };
        if field.eq_ignore_ascii_case("content-disposition") {
            name = parameter(value, "name");
            filename = parameter(value, "filename");
        } else if field.eq_ignore_ascii_case("content-type") {
            content_type = Some(value.trim().to_owned());
        }
    }
    let name = name.ok_or_else(|| "a part has no name".to_owned())?;
    Ok(Open { name, filename, content_type, bytes: 0, hash: Sha256::new(), value: Vec::new() })
}

/// A parameter of a header, without its quotes. Browsers write a quote within it as `%22`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                after.split_once(';').map_or((after, ""), |(text, _)| (text, after.get(text.len()..).unwrap_or("")))
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text.replace("%22", "\""));
        }
        rest = tail.split_once(';')?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;b.wav\"\r\n\
        Content-Type: audio/wav\r\n\r\none\r\n--bogus\r\n-two\r\n--b\r\nContent-Disposition: form-data; name=model\r\n\r\n\
        whisper-1\r\n--b\r\nContent-Disposition: form-data; name=\"include[]\"\r\n\r\nlogprobs\r\n--b\r\n\
        content-disposition: form-data; name=\"empty\"\r\n\r\n\r\n--b--\r\nepilogue";

    fn read(body: &[u8], size: usize) -> Result<Form, String> {
        let mut reader = Reader::new("b");
        for piece in body.chunks(size) {
            reader.push(piece)?;
        }
        reader.finish()
    }

    #[test]
    fn a_form_is_the_same_however_it_is_cut() {
        // "--bogus" is the delimiter followed by something else, which no writer of forms lets happen.
        let body = BODY.replace("--bogus", "--Bogus");
        for size in 1..body.len() {
            let form = read(body.as_bytes(), size).unwrap();
            let [file, model, include, empty] = form.parts.as_slice() else { panic!("{form:?}") };
            assert_eq!((file.filename.as_deref(), file.content_type.as_deref()), (Some("a;b.wav"), Some("audio/wav")));
            assert_eq!((file.bytes, file.value.as_deref()), (18, None));
            let hash: String =
                Sha256::digest(b"one\r\n--Bogus\r\n-two").iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(file.sha256, hash);
            assert_eq!((model.name.as_str(), model.value.as_deref()), ("model", Some("whisper-1")));
            assert_eq!((include.name.as_str(), empty.value.as_deref()), ("include[]", Some("")));
            let fields = form.fields();
            assert_eq!(fields["include"], serde_json::json!(["logprobs"]));
            assert_eq!(form.files("file").count(), 1);
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        assert!(read(BODY.as_bytes(), 7).is_err(), "a boundary goes on");
        assert!(read(b"--b\r\nx-y: z\r\n\r\na\r\n--b--", 9).is_err(), "no name");
        assert!(read(b"--b\r\nnonsense\r\n\r\na\r\n--b--", 9).is_err());
        for length in 0..BODY.find("--b--").unwrap() {
            let body = BODY.replace("--bogus", "--Bogus");
            assert!(read(&body.as_bytes()[..length], 11).is_err(), "{length}");
        }
        assert!(Reader::new("").push(b"a").is_err());
    }

    #[test]
    fn the_boundary_stands_in_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data").as_deref(), Some(""));
        assert_eq!(boundary("application/json"), None);
    }
}
