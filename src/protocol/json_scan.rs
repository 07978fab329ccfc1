//! Looks at a JSON object without building it: checks the whole text against the grammar (RFC 8259) and notes where
//! each top-level member stands. Memory use is bounded by the number of top-level members, not by the text.
//!
//! The byte-faithful lane edits a request in its raw bytes, so what the gateway believes about a body must be what
//! every other parser sees in it. Therefore the scan is strict: one value, no trailing bytes, valid UTF-8, and no
//! member name twice among those the gateway acts on (see [`Members::unique`]).

use std::ops::Range;

/// Bounds on what a body may contain.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    /// Nesting of arrays and objects; the outermost object counts as 1.
    pub max_depth: usize,
    /// Bytes of one number literal.
    pub max_number_bytes: usize,
    /// Members of the outermost object.
    pub max_members: usize,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { max_depth: 64, max_number_bytes: 128, max_members: 512 }
    }
}

/// What kind of value a member holds, told from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number literal.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

impl ValueKind {
    /// The kind's name as an error message uses it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// One top-level member. Ranges are byte offsets into the scanned text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name between its quotes, escapes not resolved.
    pub name: Range<usize>,
    /// The value, without surrounding white space.
    pub value: Range<usize>,
    /// The value's kind.
    pub kind: ValueKind,
}

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not UTF-8.
    #[error("the body is not valid UTF-8 (at byte {at})")]
    Utf8 {
        /// Byte offset.
        at: usize,
    },
    /// Not JSON.
    #[error("the body is not valid JSON: {what} at byte {at}")]
    Syntax {
        /// Byte offset.
        at: usize,
        /// What was found or missing.
        what: &'static str,
    },
    /// JSON, but not an object.
    #[error("the body must be a JSON object, but it is {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// Nested too deeply.
    #[error("{path}: nested deeper than {max} levels")]
    TooDeep {
        /// The top-level member in which it happened.
        path: String,
        /// The bound.
        max: usize,
    },
    /// A number literal of absurd length.
    #[error("{path}: a number has more than {max} characters")]
    NumberTooLong {
        /// The top-level member in which it happened.
        path: String,
        /// The bound.
        max: usize,
    },
    /// Too many top-level members.
    #[error("the body has more than {max} members")]
    TooManyMembers {
        /// The bound.
        max: usize,
    },
    /// A member that the gateway acts on stands twice.
    #[error("{name}: given more than once")]
    Duplicate {
        /// The member's name.
        name: String,
    },
}

impl ScanError {
    /// The member that is at fault, if one is.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::TooDeep { path, .. } | Self::NumberTooLong { path, .. } if !path.is_empty() => Some(path),
            Self::Duplicate { name } => Some(name),
            _ => None,
        }
    }
}

/// The top-level members of a scanned object.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a [u8],
    /// Offset just behind the opening brace.
    pub open: usize,
    members: Vec<Member>,
}

impl<'a> Members<'a> {
    /// Finds the one member with this name. A name spelt with escapes (`"mod\u0065l"`) counts as the name it spells.
    ///
    /// # Errors
    /// [`ScanError::Duplicate`] if there is more than one: parsers disagree on which of them counts.
    pub fn unique(&self, name: &str) -> Result<Option<&Member>, ScanError> {
        Ok(self.position(name)?.and_then(|at| self.members.get(at)))
    }

    /// As [`Self::unique`], where it stands among [`Self::all`].
    ///
    /// # Errors
    /// As [`Self::unique`].
    pub fn position(&self, name: &str) -> Result<Option<usize>, ScanError> {
        let mut found = self.members.iter().enumerate().filter(|(_, member)| self.is_named(member, name));
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(ScanError::Duplicate { name: name.to_owned() }),
            (first, None) => Ok(first.map(|(at, _)| at)),
        }
    }

    /// All of them, in the order of the text.
    pub fn all(&self) -> &[Member] {
        &self.members
    }

    /// The text that was scanned.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// A member's value as it stands in the text.
    pub fn raw(&self, member: &Member) -> &'a [u8] {
        self.text.get(member.value.clone()).unwrap_or_default()
    }

    /// Whether the object has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The object without the members of some names and with `first` before the others, each of which keeps its bytes.
    pub fn without(&self, names: &[&str], first: &str) -> Vec<u8> {
        let mut out = format!("{{{first}").into_bytes();
        for member in &self.members {
            if names.iter().any(|name| self.is_named(member, name)) {
                continue;
            }
            // The name's quotes belong to it.
            let whole = self.text.get(member.name.start.saturating_sub(1)..member.value.end).unwrap_or_default();
            out.push(b',');
            out.extend_from_slice(whole);
        }
        out.push(b'}');
        out
    }

    fn is_named(&self, member: &Member, name: &str) -> bool {
        let raw = self.text.get(member.name.clone()).unwrap_or_default();
        if memchr::memchr(b'\\', raw).is_none() {
            return raw == name.as_bytes();
        }
        let quoted = self.text.get(member.name.start.saturating_sub(1)..member.name.end.saturating_add(1));
        quoted.and_then(|q| serde_json::from_slice::<String>(q).ok()).is_some_and(|n| n == name)
    }
}

/// Checks `text` and lists its top-level members.
///
/// # Errors
/// [`ScanError`] says what is wrong and where.
pub fn scan_object(text: &[u8], limits: ScanLimits) -> Result<Members<'_>, ScanError> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(ScanError::Utf8 { at: error.valid_up_to() });
    }
    let mut scanner = Scanner { text, at: 0, limits, path: 0..0 };
    scanner.skip_space();
    let kind = scanner.kind_here()?;
    if kind != ValueKind::Object {
        scanner.skip_value(0)?;
        scanner.expect_end()?;
        return Err(ScanError::NotAnObject { found: kind.name() });
    }
    scanner.advance();
    let open = scanner.at;
    let mut members = Vec::with_capacity(16);
    scanner.skip_space();
    if scanner.peek() == Some(b'}') {
        scanner.advance();
    } else {
        loop {
            scanner.skip_space();
            let name = scanner.member_name()?;
            scanner.path = name.clone();
            scanner.skip_space();
            let kind = scanner.kind_here()?;
            let start = scanner.at;
            scanner.skip_value(1)?;
            if members.len() >= limits.max_members {
                return Err(ScanError::TooManyMembers { max: limits.max_members });
            }
            members.push(Member { name, value: start..scanner.at, kind });
            scanner.skip_space();
            match scanner.next() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err(scanner.syntax("expected `,` or `}`")),
            }
        }
    }
    scanner.expect_end()?;
    Ok(Members { text, open, members })
}

/// Lists the elements of an array, with nothing else around it.
///
/// # Errors
/// As [`scan_object`].
pub fn scan_array(text: &[u8], limits: ScanLimits) -> Result<Vec<Range<usize>>, ScanError> {
    let mut scanner = Scanner { text, at: 0, limits, path: 0..0 };
    scanner.skip_space();
    if scanner.next() != Some(b'[') {
        return Err(scanner.syntax("expected an array"));
    }
    let mut elements = Vec::new();
    scanner.skip_space();
    if scanner.peek() == Some(b']') {
        scanner.advance();
    } else {
        loop {
            scanner.skip_space();
            let start = scanner.at;
            scanner.skip_value(1)?;
            elements.push(start..scanner.at);
            scanner.skip_space();
            match scanner.next() {
                Some(b',') => {}
                Some(b']') => break,
                _ => return Err(scanner.syntax("expected `,` or `]`")),
            }
        }
    }
    scanner.expect_end()?;
    Ok(elements)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    limits: ScanLimits,
    /// The name of the top-level member being read.
    path: Range<usize>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.advance();
        byte
    }

    /// A syntax error at the byte that was just read or is missing.
    fn syntax(&self, what: &'static str) -> ScanError {
        ScanError::Syntax { at: self.at.min(self.text.len()), what }
    }

    fn path_name(&self) -> String {
        String::from_utf8_lossy(self.text.get(self.path.clone()).unwrap_or_default()).into_owned()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.advance();
        }
    }

    fn expect_end(&mut self) -> Result<(), ScanError> {
        self.skip_space();
        if self.peek().is_some() { Err(self.syntax("unexpected bytes after the value")) } else { Ok(()) }
    }

    fn kind_here(&self) -> Result<ValueKind, ScanError> {
        match self.peek() {
            Some(b'{') => Ok(ValueKind::Object),
            Some(b'[') => Ok(ValueKind::Array),
            Some(b'"') => Ok(ValueKind::String),
            Some(b'-' | b'0'..=b'9') => Ok(ValueKind::Number),
            Some(b't' | b'f') => Ok(ValueKind::Bool),
            Some(b'n') => Ok(ValueKind::Null),
            Some(_) => Err(self.syntax("expected a value")),
            None => Err(self.syntax("unexpected end")),
        }
    }

    /// Reads `"name"` and the colon behind it; returns the range between the quotes.
    fn member_name(&mut self) -> Result<Range<usize>, ScanError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("expected a member name in double quotes"));
        }
        let start = self.at.saturating_add(1);
        self.skip_string()?;
        let name = start..self.at.saturating_sub(1);
        self.skip_space();
        if self.next() != Some(b':') {
            return Err(self.syntax("expected `:`"));
        }
        Ok(name)
    }

    /// Skips one value that stands inside `depth` open containers. Iterative: the text decides how deep it nests, so
    /// the call stack must not.
    fn skip_value(&mut self, depth: usize) -> Result<(), ScanError> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_space();
            match self.kind_here()? {
                kind @ (ValueKind::Object | ValueKind::Array) => {
                    if depth.saturating_add(open.len()) >= self.limits.max_depth {
                        return Err(ScanError::TooDeep { path: self.path_name(), max: self.limits.max_depth });
                    }
                    self.advance();
                    self.skip_space();
                    let close = if kind == ValueKind::Object { b'}' } else { b']' };
                    if self.peek() == Some(close) {
                        self.advance();
                    } else {
                        open.push(close);
                        if kind == ValueKind::Object {
                            self.member_name()?;
                        }
                        continue;
                    }
                }
                ValueKind::String => self.skip_string()?,
                ValueKind::Number => self.skip_number()?,
                ValueKind::Bool if self.peek() == Some(b't') => self.skip_word(b"true")?,
                ValueKind::Bool => self.skip_word(b"false")?,
                ValueKind::Null => self.skip_word(b"null")?,
            }
            // A value has ended: close what ends with it, or go on to the next element.
            loop {
                let Some(&close) = open.last() else { return Ok(()) };
                self.skip_space();
                match self.next() {
                    Some(b',') => {
                        if close == b'}' {
                            self.skip_space();
                            self.member_name()?;
                        }
                        break;
                    }
                    Some(byte) if byte == close => {
                        open.pop();
                    }
                    _ => return Err(self.syntax("expected `,` or the end of the array or object")),
                }
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), ScanError> {
        self.advance();
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => match self.next() {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                    Some(b'u') => {
                        for _ in 0..4 {
                            if !self.next().is_some_and(|b| b.is_ascii_hexdigit()) {
                                return Err(self.syntax("expected four hexadecimal digits"));
                            }
                        }
                    }
                    _ => return Err(self.syntax("invalid escape in a string")),
                },
                Some(byte) if byte >= 0x20 => {
                    // Most of a body is text: run ahead to the next byte that matters.
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let plain = rest.iter().take_while(|b| **b >= 0x20 && **b != b'"' && **b != b'\\').count();
                    self.at = self.at.saturating_add(plain);
                }
                Some(_) => return Err(self.syntax("unescaped control character in a string")),
                None => return Err(self.syntax("unterminated string")),
            }
        }
    }

    fn skip_number(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.advance();
        }
        match self.peek() {
            Some(b'0') => self.advance(),
            Some(b'1'..=b'9') => self.skip_digits()?,
            _ => return Err(self.syntax("expected a digit")),
        }
        if self.peek() == Some(b'.') {
            self.advance();
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.advance();
            if let Some(b'+' | b'-') = self.peek() {
                self.advance();
            }
            self.skip_digits()?;
        }
        if self.at.saturating_sub(start) > self.limits.max_number_bytes {
            return Err(ScanError::NumberTooLong { path: self.path_name(), max: self.limits.max_number_bytes });
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), ScanError> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.syntax("expected a digit"));
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.advance();
        }
        Ok(())
    }

    fn skip_word(&mut self, word: &[u8]) -> Result<(), ScanError> {
        let end = self.at.saturating_add(word.len());
        if self.text.get(self.at..end) != Some(word) {
            return Err(self.syntax("expected a value"));
        }
        self.at = end;
        Ok(())
    }
}

/// One replacement in a text: the bytes of `range` give way to `with` (an empty range inserts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Byte offsets in the original text.
    pub range: Range<usize>,
    /// What stands there afterwards.
    pub with: Vec<u8>,
}

/// Applies edits that do not overlap. Every byte outside them is copied as it is.
pub fn splice(text: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.range.start);
    let added: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = Vec::with_capacity(text.len().saturating_add(added));
    let mut at = 0;
    for edit in &edits {
        out.extend_from_slice(text.get(at..edit.range.start).unwrap_or_default());
        out.extend_from_slice(&edit.with);
        at = edit.range.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Result<Members<'_>, ScanError> {
        scan_object(text.as_bytes(), ScanLimits::default())
    }

    #[test]
    fn members_can_be_left_out_and_the_others_keep_their_bytes() {
        let text = r#" {"mod\u0065l" : "m" , "x" : [1, {"a": 1.0}] ,"y":null,"z":"}"} "#;
        let members = scan(text).unwrap();
        let left = |names: &[&str]| String::from_utf8(members.without(names, r#""v":1"#)).unwrap();
        assert_eq!(left(&["model", "z"]), r#"{"v":1,"x" : [1, {"a": 1.0}],"y":null}"#);
        assert_eq!(left(&["model", "x", "y", "z"]), r#"{"v":1}"#);
    }

    #[test]
    fn members_are_found_with_their_exact_bytes() {
        let text = r#" { "model" : "m" , "x":[1,{"a":null}], "stream":true } "#;
        let members = scan(text).unwrap();
        let model = members.unique("model").unwrap().unwrap();
        assert_eq!(members.raw(model), b"\"m\"");
        assert_eq!(model.kind, ValueKind::String);
        let x = members.unique("x").unwrap().unwrap();
        assert_eq!(members.raw(x), br#"[1,{"a":null}]"#);
        assert_eq!(members.unique("absent").unwrap(), None);
    }

    #[test]
    fn a_name_given_twice_is_refused_even_when_spelt_with_escapes() {
        let members = scan(r#"{"model":"a","mod\u0065l":"b"}"#).unwrap();
        assert_eq!(members.unique("model"), Err(ScanError::Duplicate { name: "model".into() }));
    }

    #[test]
    fn nesting_is_bounded_without_using_the_call_stack() {
        let deep = format!("{{\"messages\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(scan(&deep).unwrap_err(), ScanError::TooDeep { path: "messages".into(), max: 64 });
        let at_the_bound = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
        assert!(scan(&at_the_bound).is_ok());
        let over = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert!(scan(&over).is_err());
    }

    #[test]
    fn absurd_numbers_and_non_objects_are_refused() {
        let long = format!("{{\"n\":{}}}", "9".repeat(500));
        assert_eq!(scan(&long).unwrap_err(), ScanError::NumberTooLong { path: "n".into(), max: 128 });
        assert_eq!(scan("[1]").unwrap_err(), ScanError::NotAnObject { found: "an array" });
        assert!(matches!(scan("").unwrap_err(), ScanError::Syntax { at: 0, .. }));
        assert_eq!(scan_object(b"{\"a\":\"\xff\"}", ScanLimits::default()).unwrap_err(), ScanError::Utf8 { at: 6 });
        assert!(matches!(scan("{\"a\":\"\u{0}\"}").unwrap_err(), ScanError::Syntax { .. }));
        assert!(matches!(scan("\u{feff}{}").unwrap_err(), ScanError::Syntax { at: 0, .. }));
    }

    #[test]
    fn edits_leave_every_other_byte_alone() {
        let edited = splice(
            b"{\"a\": 1, \"b\":2}",
            vec![Edit { range: 13..14, with: b"33".to_vec() }, Edit { range: 1..1, with: b"\"z\":0,".to_vec() }],
        );
        assert_eq!(edited, b"{\"z\":0,\"a\": 1, \"b\":33}");
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(|f| serde_json::json!(f)),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map(".{0,6}", inner, 0..5)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scan_accepts_exactly_what_a_full_parser_accepts(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let limits = ScanLimits { max_depth: 127, ..ScanLimits::default() };
            let full = serde_json::from_slice::<Box<serde_json::value::RawValue>>(&bytes).is_ok();
            let ours = !matches!(scan_object(&bytes, limits), Err(ScanError::Syntax { .. } | ScanError::Utf8 { .. }));
            prop_assert_eq!(full, ours);
        }

        #[test]
        fn mutated_json_is_judged_as_a_full_parser_does(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = serde_json::to_vec(&value).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let full = serde_json::from_slice::<Box<serde_json::value::RawValue>>(&bytes).is_ok();
            let ours = !matches!(scan_object(&bytes, ScanLimits::default()), Err(ScanError::Syntax { .. } | ScanError::Utf8 { .. }));
            prop_assert_eq!(full, ours);
        }

        #[test]
        fn each_member_is_found_with_its_value(map in proptest::collection::btree_map("[a-z\"\\\\é]{1,6}", json(), 0..6)) {
            let text = serde_json::to_vec(&map).unwrap();
            let members = scan_object(&text, ScanLimits::default()).unwrap();
            for (name, value) in &map {
                let member = members.unique(name).unwrap().unwrap();
                let found: serde_json::Value = serde_json::from_slice(members.raw(member)).unwrap();
                prop_assert_eq!(&found, value);
            }
        }
    }
}
