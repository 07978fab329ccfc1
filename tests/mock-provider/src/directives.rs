//! Directives: how a request tells the mock what to do with it.
//!
//! They stand in the last user message (`[[mock key=value key=value]]`), in the `x-mock` request header
//! (`key=value;key=value`) or in `--defaults` (same form as the header). The mock keeps no other steering
//! state, so tests that run side by side cannot disturb each other. The README lists the keys.

use std::borrow::Cow;

/// Largest text a directive may ask for, in bytes: a typing error must not exhaust the machine.
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;
/// Most content deltas a directive may ask for.
const MAX_CHUNKS: usize = 1_000_000;
/// Longest delay a directive may ask for: an hour, in milliseconds.
const MAX_DELAY_MS: u64 = 3_600_000;

/// Where in a reply a fault strikes. Ordered: what strikes first is smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// Before the status line.
    Head,
    /// After the response headers, before the first event.
    Start,
    /// After this many content events.
    Content(u64),
}

/// What ends a stream before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Stop sending and keep the socket open.
    Stall,
    /// TCP reset.
    Reset,
    /// FIN with the chunked encoding left open.
    Close,
    /// The chunked encoding ends properly, the conversation does not.
    Truncate,
    /// As `Truncate`, in the middle of an event's bytes.
    CutEvent,
    /// The dialect's own error event, then the end.
    Error,
    /// As `Error`; in Amazon's framing an exception that the API knows.
    Exception,
}

/// How lines end on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnd {
    #[default]
    Lf,
    CrLf,
    Cr,
}

impl LineEnd {
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::Cr => b"\r",
        }
    }
}

/// Everything a request can ask of the mock. Delays are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directives {
    pub tag: Option<String>,
    // What is said.
    pub text: Option<String>,
    pub chunks: Option<usize>,
    pub chunk_bytes: Option<usize>,
    pub tools: Option<usize>,
    pub reasoning: Option<u64>,
    pub reasoning_content: bool,
    pub finish: Option<String>,
    pub huge: Option<usize>,
    pub big_reply: Option<usize>,
    pub unicode: bool,
    /// Proofs of reasoning, which must come back with the next turn.
    pub signature: bool,
    pub citations: Option<usize>,
    /// `image` or `audio`.
    pub media: Option<String>,
    /// Parallel calls alternate in the stream.
    pub interleave: bool,
    /// The answer is a refusal.
    pub refusal: bool,
    /// Gemini streams a JSON array whatever was asked for.
    pub json_array: bool,
    /// Bedrock streams begin without `messageStart`.
    pub no_start: bool,
    // When.
    pub ttfb_ms: u64,
    pub first_chunk_ms: u64,
    pub gap_ms: u64,
    pub slow_body_ms: u64,
    // Usage numbers.
    pub usage_in: Option<u64>,
    pub usage_out: Option<u64>,
    pub cached: Option<u64>,
    pub cache_write: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub no_usage: bool,
    pub usage_inline: bool,
    pub two_usage: bool,
    // Replies that are not the answer.
    pub status: Option<u16>,
    pub error_message: Option<String>,
    pub error_code: Option<String>,
    pub error_type: Option<String>,
    pub fail_times: Option<u64>,
    pub html: Option<u16>,
    pub empty: bool,
    pub badjson: bool,
    /// The error comes with status 200.
    pub error_at_200: bool,
    /// Seconds in Gemini's `RetryInfo`.
    pub retry_delay: Option<u64>,
    /// The prompt or the answer is withheld.
    pub block: bool,
    /// The model called a tool in a way that cannot be read.
    pub malformed_call: bool,
    // Tokens.
    pub token_ttl: Option<u64>,
    pub token_fail: Option<u64>,
    pub token_reject: bool,
    // Headers.
    pub headers: Vec<(String, String)>,
    pub content_type: Option<String>,
    // Faults in a body.
    pub stall_at: Option<At>,
    pub reset_at: Option<At>,
    pub close_at: Option<At>,
    pub truncate_at: Option<At>,
    pub cut_event_at: Option<At>,
    pub error_at: Option<At>,
    pub exception_at: Option<At>,
    /// The content event, counted from one, that gets a wrong checksum.
    pub badcrc: Option<u64>,
    pub no_done: bool,
    pub double_finish: bool,
    pub body_reset: bool,
    // Wire shape.
    pub split: Option<usize>,
    pub line_end: LineEnd,
    pub comments: bool,
    pub multiline: bool,
    pub bom: bool,
    pub nospace: bool,
    pub retry_id: bool,
    pub whole: bool,
    pub nolength: bool,
}

impl Directives {
    /// Applies the `key=value;key=value` form of the `x-mock` header and of `--defaults`.
    ///
    /// # Errors
    /// A sentence that names the key which is unknown or whose value does not fit.
    pub fn apply_list(&mut self, list: &str, model: &str) -> Result<(), String> {
        self.apply(list.split(';'), model)
    }

    /// Applies the inside of one `[[mock …]]` block, whose entries are separated by white space.
    ///
    /// # Errors
    /// As [`Directives::apply_list`].
    pub fn apply_block(&mut self, block: &str, model: &str) -> Result<(), String> {
        self.apply(block.split_whitespace(), model)
    }

    fn apply<'a>(&mut self, entries: impl Iterator<Item = &'a str>, model: &str) -> Result<(), String> {
        let mut pairs = Vec::new();
        for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
            let (key, value) = entry.split_once('=').unwrap_or((entry, "1"));
            let value = percent_decode(value.trim());
            if key.trim() == "if_model" {
                if value != model {
                    return Ok(());
                }
            } else {
                pairs.push((key.trim(), value));
            }
        }
        for (key, value) in pairs {
            self.set(key, &value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let owned = || Some(value.to_owned());
        if let Some(name) = key.strip_prefix("header.") {
            let (name, value) = header(name, value)?;
            self.headers.push((name, value));
            return Ok(());
        }
        match key {
            "tag" => self.tag = owned(),
            "text" => self.text = owned(),
            "chunks" => self.chunks = Some(size(key, value, MAX_CHUNKS)?),
            "chunk_bytes" => self.chunk_bytes = Some(size(key, value, MAX_TEXT_BYTES)?.max(1)),
            "tools" => self.tools = Some(size(key, value, 128)?),
            "reasoning" => self.reasoning = Some(number(key, value)?),
            "reasoning_content" => self.reasoning_content = flag(key, value)?,
            "finish" => self.finish = owned(),
            "huge" => self.huge = Some(size(key, value, MAX_TEXT_BYTES)?),
            "big_reply" => self.big_reply = Some(size(key, value, MAX_TEXT_BYTES)?),
            "unicode" => self.unicode = flag(key, value)?,
            "signature" => self.signature = flag(key, value)?,
            "citations" => self.citations = Some(size(key, value, 1000)?),
            "media" => match value {
                "image" | "audio" => self.media = owned(),
                _ => return Err(format!("mock directive 'media' takes image or audio, not '{value}'")),
            },
            "interleave" => self.interleave = flag(key, value)?,
            "refusal" => self.refusal = flag(key, value)?,
            "json_array" => self.json_array = flag(key, value)?,
            "no_start" => self.no_start = flag(key, value)?,
            "ttfb_ms" => self.ttfb_ms = delay(key, value)?,
            "first_chunk_ms" => self.first_chunk_ms = delay(key, value)?,
            "gap_ms" => self.gap_ms = delay(key, value)?,
            "slow_body_ms" => self.slow_body_ms = delay(key, value)?,
            "usage_in" => self.usage_in = Some(number(key, value)?),
            "usage_out" => self.usage_out = Some(number(key, value)?),
            "cached" => self.cached = Some(number(key, value)?),
            "cache_write" => self.cache_write = Some(number(key, value)?),
            "cache_write_1h" => self.cache_write_1h = Some(number(key, value)?),
            "no_usage" => self.no_usage = flag(key, value)?,
            "usage_inline" => self.usage_inline = flag(key, value)?,
            "two_usage" => self.two_usage = flag(key, value)?,
            "status" => self.status = Some(status(key, value)?),
            "error_message" => self.error_message = owned(),
            "error_code" => self.error_code = owned(),
            "error_type" => self.error_type = owned(),
            "fail_times" => self.fail_times = Some(number(key, value)?),
            "html" => {
                self.html = match value {
                    "0" => None,
                    "1" => Some(0),
                    _ => Some(status(key, value)?),
                }
            }
            "empty" => self.empty = flag(key, value)?,
            "badjson" => self.badjson = flag(key, value)?,
            "error_at_200" => self.error_at_200 = flag(key, value)?,
            "retry_delay" => self.retry_delay = Some(number(key, value)?),
            "block" => self.block = flag(key, value)?,
            "malformed_call" => self.malformed_call = flag(key, value)?,
            "token_ttl" => self.token_ttl = Some(number(key, value)?),
            "token_fail" => self.token_fail = Some(number(key, value)?),
            "token_reject" => self.token_reject = flag(key, value)?,
            "contenttype" => self.content_type = Some(header("content-type", value)?.1),
            "stall_at" => self.stall_at = Some(place(key, value)?),
            "reset_at" => self.reset_at = Some(place(key, value)?),
            "close_at" => self.close_at = Some(place(key, value)?),
            "truncate_at" => self.truncate_at = Some(place(key, value)?),
            "cut_event_at" => self.cut_event_at = Some(place(key, value)?),
            "error_at" => self.error_at = Some(place(key, value)?),
            "exception_at" => self.exception_at = Some(place(key, value)?),
            "badcrc" => self.badcrc = Some(number(key, value)?.max(1)),
            "no_done" => self.no_done = flag(key, value)?,
            "double_finish" => self.double_finish = flag(key, value)?,
            "body_reset" => self.body_reset = flag(key, value)?,
            "split" => self.split = Some(size(key, value, MAX_TEXT_BYTES)?.max(1)),
            "crlf" => self.line_end = if flag(key, value)? { LineEnd::CrLf } else { LineEnd::Lf },
            "cr" => self.line_end = if flag(key, value)? { LineEnd::Cr } else { LineEnd::Lf },
            "comments" => self.comments = flag(key, value)?,
            "multiline" => self.multiline = flag(key, value)?,
            "bom" => self.bom = flag(key, value)?,
            "nospace" => self.nospace = flag(key, value)?,
            "retry_id" => self.retry_id = flag(key, value)?,
            "whole" => self.whole = flag(key, value)?,
            "nolength" => self.nolength = flag(key, value)?,
            _ => return Err(format!("unknown mock directive '{key}'")),
        }
        Ok(())
    }

    /// The fault that strikes first, if any.
    pub fn fault(&self) -> Option<(At, Fault)> {
        [
            (self.stall_at, Fault::Stall),
            (self.reset_at, Fault::Reset),
            (self.close_at, Fault::Close),
            (self.truncate_at, Fault::Truncate),
            (self.cut_event_at, Fault::CutEvent),
            (self.error_at, Fault::Error),
            (self.exception_at, Fault::Exception),
        ]
        .into_iter()
        .filter_map(|(at, fault)| at.map(|at| (at, fault)))
        .min_by_key(|(at, _)| *at)
    }

    /// The error status that was asked for, if any; a status below 400 only changes an ordinary answer's status.
    pub fn error_status(&self) -> Option<u16> {
        self.status.filter(|status| *status >= 400)
    }

    /// What remains of the request once `fail_times` has run out: the faults go, the shape stays. Delays count
    /// as the fault when there is no other.
    pub fn without_faults(self) -> Self {
        let only_delays = self.fault().is_none()
            && self.error_status().is_none()
            && self.html.is_none()
            && !(self.empty || self.badjson || self.no_done || self.double_finish || self.body_reset)
            && !(self.error_at_200 || self.block || self.malformed_call || self.token_reject)
            && self.badcrc.is_none()
            && self.token_fail.is_none();
        let delays = if only_delays { [0, 0, 0] } else { [self.ttfb_ms, self.first_chunk_ms, self.slow_body_ms] };
        let [ttfb_ms, first_chunk_ms, slow_body_ms] = delays;
        Self {
            status: self.status.filter(|status| *status < 400),
            html: None,
            empty: false,
            badjson: false,
            stall_at: None,
            reset_at: None,
            close_at: None,
            truncate_at: None,
            cut_event_at: None,
            error_at: None,
            exception_at: None,
            badcrc: None,
            error_at_200: false,
            block: false,
            malformed_call: false,
            token_fail: None,
            token_reject: false,
            no_done: false,
            double_finish: false,
            body_reset: false,
            ttfb_ms,
            first_chunk_ms,
            slow_body_ms,
            ..self
        }
    }
}

/// Takes the `[[mock …]]` blocks out of a message: the message without them, and the inside of each.
pub fn extract(text: &str) -> (Cow<'_, str>, Vec<&str>) {
    const OPEN: &str = "[[mock";
    if !text.contains(OPEN) {
        return (Cow::Borrowed(text), Vec::new());
    }
    let mut clean = String::with_capacity(text.len());
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        clean.push_str(before);
        match after.split_once("]]") {
            Some((block, tail)) if block.is_empty() || block.starts_with(char::is_whitespace) => {
                blocks.push(block);
                // "a [[mock …]] b" must read "a b".
                let joined = clean.is_empty() || clean.ends_with(char::is_whitespace);
                rest = if joined { tail.trim_start_matches(' ') } else { tail };
            }
            _ => {
                clean.push_str(OPEN);
                rest = after;
            }
        }
    }
    clean.push_str(rest);
    if !blocks.is_empty() {
        clean.truncate(clean.trim_end().len());
    }
    (Cow::Owned(clean), blocks)
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("mock directive '{key}' takes 1 or 0, not '{value}'")),
    }
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    value
        .parse()
        .ok()
        .filter(|number| *number <= u64::from(u32::MAX))
        .ok_or_else(|| format!("mock directive '{key}' takes a whole number, not '{value}'"))
}

fn size(key: &str, value: &str, most: usize) -> Result<usize, String> {
    let size = usize::try_from(number(key, value)?).unwrap_or(usize::MAX);
    if size > most {
        return Err(format!("mock directive '{key}' takes at most {most}"));
    }
    Ok(size)
}

fn delay(key: &str, value: &str) -> Result<u64, String> {
    let delay = number(key, value)?;
    if delay > MAX_DELAY_MS {
        return Err(format!("mock directive '{key}' takes at most {MAX_DELAY_MS} milliseconds"));
    }
    Ok(delay)
}

fn status(key: &str, value: &str) -> Result<u16, String> {
    value
        .parse()
        .ok()
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| format!("mock directive '{key}' takes a status between 200 and 599, not '{value}'"))
}

fn place(key: &str, value: &str) -> Result<At, String> {
    match value {
        "head" => Ok(At::Head),
        "start" => Ok(At::Start),
        _ => Ok(At::Content(number(key, value)?)),
    }
}

/// A header that can stand in a response without breaking its framing.
fn header(name: &str, value: &str) -> Result<(String, String), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("'{name}' is not a header name"));
    }
    let name = name.to_ascii_lowercase();
    if ["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
        return Err(format!("header '{name}' belongs to the mock's own framing"));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("the value of header '{name}' has control characters"));
    }
    Ok((name, value.to_owned()))
}

/// Decodes `%XX`; a percent sign that starts no such triple stands for itself.
pub fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%'
            && let Some((&[high, low], after)) = tail.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (char::from(high).to_digit(16), char::from(low).to_digit(16))
        {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Directives {
        let mut directives = Directives::default();
        directives.apply_block(text, "m").unwrap();
        directives
    }

    #[test]
    fn a_block_is_taken_out_of_the_message() {
        let (clean, blocks) = extract("Hello [[mock tag=a chunks=3]] world");
        assert_eq!(clean, "Hello world");
        assert_eq!(blocks, [" tag=a chunks=3"]);
        let (clean, blocks) = extract("[[mock a=1]] one [[mock b=2]]");
        assert_eq!(clean, "one");
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn text_that_only_looks_like_a_block_stays() {
        for text in ["[[mockery]]", "[[mock tag=1", "[[mock", "a [[ mock x]]"] {
            let (clean, blocks) = extract(text);
            assert_eq!(clean, text);
            assert!(blocks.is_empty());
        }
    }

    #[test]
    fn values_are_percent_decoded() {
        assert_eq!(block("text=a%20b%5D%5D%C3%A9").text.as_deref(), Some("a b]]é"));
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
        assert_eq!(percent_decode("%ff"), "\u{fffd}");
    }

    #[test]
    fn the_header_form_is_separated_by_semicolons() {
        let mut directives = Directives::default();
        directives.apply_list("tag=a b; status=429 ;header.retry-after=7;", "m").unwrap();
        assert_eq!(directives.tag.as_deref(), Some("a b"));
        assert_eq!(directives.status, Some(429));
        assert_eq!(directives.headers, [("retry-after".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn a_key_without_a_value_is_a_flag() {
        let directives = block("crlf comments=1 bom=0");
        assert_eq!(directives.line_end, LineEnd::CrLf);
        assert!(directives.comments && !directives.bom);
    }

    #[test]
    fn unknown_keys_and_unfit_values_are_errors() {
        for bad in [
            "stal_at=1",
            "chunks=many",
            "status=99",
            "crlf=2",
            "huge=99999999999",
            "header.bad(name=1",
            "header.x=a%0d%0ab",
            "header.content-length=1",
            "ttfb_ms=99999999",
        ] {
            assert!(Directives::default().apply_block(bad, "m").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_can_be_meant_for_one_model() {
        let mut directives = Directives::default();
        directives.apply_block("status=500 if_model=other", "m").unwrap();
        assert_eq!(directives.status, None);
        directives.apply_block("status=500 if_model=m", "m").unwrap();
        assert_eq!(directives.status, Some(500));
    }

    #[test]
    fn the_fault_that_strikes_first_wins() {
        assert_eq!(block("stall_at=4 reset_at=2 close_at=3").fault(), Some((At::Content(2), Fault::Reset)));
        assert_eq!(block("stall_at=0 close_at=start").fault(), Some((At::Start, Fault::Close)));
        assert_eq!(block("tag=x").fault(), None);
    }

    #[test]
    fn without_faults_keeps_the_shape() {
        let rest = block("status=500 chunks=4 ttfb_ms=5 crlf=1").without_faults();
        assert_eq!((rest.status, rest.chunks, rest.ttfb_ms, rest.line_end), (None, Some(4), 5, LineEnd::CrLf));
        assert_eq!(block("ttfb_ms=5 chunks=4").without_faults().ttfb_ms, 0);
    }
}
