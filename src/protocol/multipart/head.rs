//! The head of a part, and the boundary that a content type names.

use memchr::memmem;

use super::MultipartFault;

/// What the head of a part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHead {
    /// The field's name.
    pub name: String,
    /// The name of the file that the part is, if it is one.
    pub filename: Option<String>,
    /// The content's type, if it is told.
    pub content_type: Option<String>,
}

/// The boundary of a form, from its `content-type`.
///
/// # Errors
/// [`MultipartFault::Boundary`]
pub fn boundary(content_type: &str) -> Result<String, MultipartFault> {
    let (kind, parameters) = parameters(content_type).ok_or(MultipartFault::Boundary)?;
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    match unique(&parameters, "boundary") {
        Some(Some(boundary))
            if kind.eq_ignore_ascii_case("multipart/form-data")
                && (1..=70).contains(&boundary.len())
                && boundary.bytes().all(is_usual)
                && !boundary.ends_with(' ') =>
        {
            Ok(boundary.to_owned())
        }
        _ => Err(MultipartFault::Boundary),
    }
}

/// The length of the head at the beginning of these bytes, its blank line included.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    memmem::find(bytes, b"\r\n\r\n").map(|at| at.saturating_add(4))
}

impl PartHead {
    /// Reads a head, its blank line included.
    pub(super) fn read(raw: &[u8]) -> Result<Self, MultipartFault> {
        let wrong = |what| MultipartFault::Malformed { what };
        let text = std::str::from_utf8(raw).map_err(|_| wrong("the head of a part is not UTF-8"))?;
        let (mut disposition, mut content_type) = (None, None);
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or_default();
            // A line that goes on in the next one has no name; nor may a lone line end hide one.
            if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
                return Err(wrong("a line in the head of a part is no \"name: value\""));
            }
            let value = value.trim_matches([' ', '\t']);
            let place = match () {
                () if name.eq_ignore_ascii_case("content-disposition") => &mut disposition,
                () if name.eq_ignore_ascii_case("content-type") => &mut content_type,
                () if name.eq_ignore_ascii_case("content-transfer-encoding") => {
                    if !["7bit", "8bit", "binary"].iter().any(|plain| value.eq_ignore_ascii_case(plain)) {
                        return Err(wrong("a part has a content-transfer-encoding; send its bytes as they are"));
                    }
                    continue;
                }
                () => continue,
            };
            if place.replace(value).is_some() {
                return Err(wrong("a part has a header twice"));
            }
        }
        let (_, parameters) = disposition
            .and_then(parameters)
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("form-data"))
            .ok_or(wrong("a part has no content-disposition: form-data; name=\"…\""))?;
        let (Some(Some(name)), Some(filename)) = (unique(&parameters, "name"), unique(&parameters, "filename")) else {
            return Err(wrong("a part must have one name, and at most one filename"));
        };
        // Readers disagree on what escapes in a name stand for.
        if name.contains(['\\', '"']) || parameters.iter().any(|(key, _)| key == "name*") {
            return Err(wrong("the name of a part has escapes in it"));
        }
        let is_file = filename.is_some() || parameters.iter().any(|(key, _)| key == "filename*");
        Ok(Self {
            name: name.to_owned(),
            filename: is_file.then(|| filename.unwrap_or_default().to_owned()),
            content_type: content_type.map(str::to_owned),
        })
    }
}

/// The one value of a parameter, or that there is none; `None` if there are several.
fn unique<'a>(parameters: &'a [(String, String)], name: &str) -> Option<Option<&'a str>> {
    let mut found = parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let first = found.next();
    found.next().is_none().then_some(first)
}

/// A header's value and its parameters, names in lower case: `form-data; name="a"; filename="b"`.
fn parameters(text: &str) -> Option<(&str, Vec<(String, String)>)> {
    let (kind, mut rest) = text.split_once(';').unwrap_or((text, ""));
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some((kind.trim_matches([' ', '\t']), parameters));
        }
        let (name, behind) = rest.split_once('=')?;
        if name.is_empty() || name.contains([' ', '\t', ';', '"']) {
            return None;
        }
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (token, behind) = behind.split_at(behind.find(';').unwrap_or(behind.len()));
                (token.trim_end_matches([' ', '\t']).to_owned(), behind)
            }
        };
        let behind = behind.trim_start_matches([' ', '\t']);
        if value.contains(char::is_control) || !(behind.is_empty() || behind.starts_with(';')) {
            return None;
        }
        parameters.push((name.to_ascii_lowercase(), value));
        rest = behind;
    }
}

/// What stands before the closing quote, and what behind it. Only quotes and backslashes can be escaped: old browsers
/// send paths with backslashes in them.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => {
                let behind = chars.as_str();
                if behind.starts_with(['"', '\\']) {
                    value.extend(chars.next());
                } else {
                    value.push('\\');
                }
            }
            c => value.push(c),
        }
    }
}
