//! The bytes of a stream: how events are written, and where a fault cuts them off.
//!
//! An [`EventStream`] is what a provider would say. A [`Script`] is what this request gets to see of it: a
//! sequence of [`Step`]s that the connection loop carries out. Nothing here touches a socket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::amazon;
use crate::directives::{At, Directives, Fault, LineEnd};

/// What an event is for, in the order a stream has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Role chunk, `message_start`, the start and end of blocks, `ping`.
    Opening,
    /// Something the model said. Faults count these.
    Content,
    /// The reason why the answer ended.
    Finish,
    /// Usage in an event of its own.
    Usage,
    /// `[DONE]`, `message_stop`, `[END]`.
    Done,
}

/// How events are told apart on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Sse,
    Ndjson,
    /// One JSON array, an element an event.
    JsonArray,
    /// Amazon's binary event stream.
    Amazon,
    /// No events at all: the data's bytes with their highest bit turned over, so that letters become what is no text.
    Raw,
    /// The same, and every event is the Base64 of another provider's.
    AmazonChunks,
}

/// The bytes that all deltas of one kind share, and the text they are cut from. A long stream then costs a few
/// bytes an event.
#[derive(Debug)]
pub struct Template {
    pub name: Option<&'static str>,
    /// The event's JSON up to the delta's string.
    pub head: String,
    /// The text of which each delta sends a part.
    pub source: String,
    /// The event's JSON after the delta's string.
    pub tail: String,
}

/// One event of a stream.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes `from..to` of a template's source.
    Delta { template: usize, from: u32, to: u32 },
    /// An event written out.
    Fixed { kind: Kind, name: Option<&'static str>, data: String },
    /// What went wrong, in Amazon's framing: an exception of the API's, or an error that the API does not know.
    Failure { modelled: bool, code: String, data: String },
}

impl Event {
    pub fn fixed(kind: Kind, name: Option<&'static str>, data: String) -> Self {
        Self::Fixed { kind, name, data }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Delta { .. } => Kind::Content,
            Self::Fixed { kind, .. } => *kind,
            Self::Failure { .. } => Kind::Done,
        }
    }
}

/// A whole streamed answer.
#[derive(Debug)]
pub struct EventStream {
    pub framing: Framing,
    pub templates: Vec<Template>,
    pub events: Vec<Event>,
    /// What the provider sends when it fails in the middle of a stream.
    pub error: Event,
    /// Every event, a JSON object, gets its number in sequence.
    numbered: bool,
    /// What `exception_at` sends; None where that is nothing but `error`.
    pub exception: Option<Event>,
}

impl EventStream {
    pub fn new(framing: Framing, error: Event) -> Self {
        Self { framing, templates: Vec::new(), events: Vec::new(), error, exception: None, numbered: false }
    }

    /// Puts `sequence_number` at the end of every event.
    pub fn numbered(self) -> Self {
        Self { numbered: true, ..self }
    }

    pub fn push(&mut self, kind: Kind, name: Option<&'static str>, data: String) {
        self.events.push(Event::fixed(kind, name, data));
    }

    /// Adds a template and returns its number for [`Event::Delta`].
    pub fn template(&mut self, template: Template) -> usize {
        self.templates.push(template);
        self.templates.len() - 1
    }

    pub fn push_delta(&mut self, template: usize, (from, to): (u32, u32)) {
        self.events.push(Event::Delta { template, from, to });
    }
}

/// What the connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Let this many milliseconds pass.
    Wait(u64),
    /// Send what was rendered.
    Send { content: bool },
    /// Send nothing more, keep the socket open.
    Stall,
    /// Reset the connection.
    Reset,
    /// Close the connection without ending the chunked encoding.
    Close,
    /// End the chunked encoding. `fault` says whether something is missing.
    End { fault: bool },
}

/// Which of an event's letters are written how.
#[derive(Debug, Clone, Copy)]
struct Shape {
    line_end: LineEnd,
    comments: bool,
    multiline: bool,
    nospace: bool,
    retry_id: bool,
    /// Whether this event's checksum is to be wrong.
    bad_crc: bool,
}

/// A stream as one request sees it.
#[derive(Debug)]
pub struct Script {
    stream: EventStream,
    shape: Shape,
    /// The content event whose checksum is to be wrong, counted from one.
    bad_crc: Option<u64>,
    fault: Option<(At, Fault)>,
    /// What is still to be waited before the first event, in milliseconds.
    first_ms: u64,
    gap_ms: u64,
    /// Whether the pause before the next event has been made.
    paused: bool,
    bom: bool,
    next: usize,
    content: u64,
    /// Whether the answer lacks something by the time it ends.
    incomplete: bool,
    ended: bool,
}

impl Script {
    pub fn new(mut stream: EventStream, directives: &Directives) -> Self {
        if directives.no_done {
            // A dialect without an end mark says its end with the finish.
            let marked = stream.framing == Framing::Ndjson || stream.events.iter().any(|e| e.kind() == Kind::Done);
            let end = if marked { Kind::Done } else { Kind::Finish };
            stream.events.retain(|event| event.kind() != end);
        }
        if directives.double_finish
            && let Some(at) = stream.events.iter().position(|event| event.kind() == Kind::Finish)
            && let Some(finish) = stream.events.get(at).cloned()
        {
            stream.events.insert(at, finish);
        }
        Self {
            stream,
            shape: Shape {
                line_end: directives.line_end,
                comments: directives.comments,
                multiline: directives.multiline,
                nospace: directives.nospace,
                retry_id: directives.retry_id,
                bad_crc: false,
            },
            bad_crc: directives.badcrc,
            fault: directives.fault(),
            first_ms: directives.first_chunk_ms,
            gap_ms: directives.gap_ms,
            paused: true,
            bom: directives.bom,
            next: 0,
            content: 0,
            incomplete: directives.no_done,
            ended: false,
        }
    }

    /// The next step. What [`Step::Send`] sends is appended to `out`.
    pub fn step(&mut self, out: &mut Vec<u8>) -> Step {
        if self.ended {
            return Step::End { fault: self.incomplete };
        }
        if self.first_ms > 0 {
            return Step::Wait(std::mem::take(&mut self.first_ms));
        }
        let Some(event) = self.stream.events.get(self.next) else {
            self.ended = true;
            return Step::End { fault: self.incomplete };
        };
        let kind = event.kind();
        if let Some((at, fault)) = self.fault
            && strikes(at, kind, self.content)
        {
            return self.fail(fault, out);
        }
        if self.gap_ms > 0 && !self.paused {
            self.paused = true;
            return Step::Wait(self.gap_ms);
        }
        let text = matches!(self.stream.framing, Framing::Sse | Framing::Ndjson);
        if std::mem::take(&mut self.bom) && text {
            out.extend_from_slice("\u{feff}".as_bytes());
        }
        let content = kind == Kind::Content;
        let bad_crc = content && self.bad_crc == Some(self.content + 1);
        render(&self.stream, event, Shape { bad_crc, ..self.shape }, self.next, out);
        self.incomplete |= bad_crc && matches!(self.stream.framing, Framing::Amazon | Framing::AmazonChunks);
        self.next += 1;
        self.paused = false;
        self.content += u64::from(content);
        Step::Send { content }
    }

    fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) -> Step {
        self.ended = true;
        self.incomplete = true;
        match fault {
            Fault::Stall => Step::Stall,
            Fault::Reset => Step::Reset,
            Fault::Close => Step::Close,
            Fault::Truncate => Step::End { fault: true },
            Fault::CutEvent => {
                if let Some(event) = self.stream.events.get(self.next) {
                    let start = out.len();
                    render(&self.stream, event, self.shape, self.next, out);
                    let half = (out.len() - start) / 2;
                    out.truncate(start + half);
                }
                Step::Send { content: false }
            }
            Fault::Error => {
                render(&self.stream, &self.stream.error, self.shape, self.next, out);
                self.end_array(out);
                Step::Send { content: false }
            }
            Fault::Exception => {
                let event = self.stream.exception.as_ref().unwrap_or(&self.stream.error);
                render(&self.stream, event, self.shape, self.next, out);
                self.end_array(out);
                Step::Send { content: false }
            }
        }
    }

    /// The end of an array that an error is the last element of.
    fn end_array(&self, out: &mut Vec<u8>) {
        if self.stream.framing == Framing::JsonArray {
            out.extend_from_slice(b"\n]");
        }
    }
}

/// Whether a fault strikes before an event of this kind, `content` content events having been sent. A fault
/// placed beyond the last content event strikes where the answer would finish, so it is never lost.
fn strikes(at: At, kind: Kind, content: u64) -> bool {
    match at {
        At::Head | At::Start => true,
        At::Content(after) => kind >= Kind::Finish || (kind == Kind::Content && content >= after),
    }
}

/// Writes one event.
fn render(stream: &EventStream, event: &Event, shape: Shape, number: usize, out: &mut Vec<u8>) {
    let end = shape.line_end.bytes();
    let name = match event {
        Event::Delta { template, .. } => stream.templates.get(*template).and_then(|template| template.name),
        Event::Fixed { name, .. } => *name,
        Event::Failure { .. } => None,
    };
    match stream.framing {
        Framing::Sse => {}
        Framing::Raw => {
            if let Event::Delta { template, from, to } = event
                && let Some(template) = stream.templates.get(*template)
            {
                let part = template.source.get(*from as usize..*to as usize).unwrap_or_default();
                out.extend(part.bytes().map(|byte| byte ^ 0x80));
            }
            return;
        }
        Framing::Ndjson => {
            data(stream, event, number, out);
            return out.extend_from_slice(end);
        }
        Framing::JsonArray => {
            // The end of the array is an event of its own, so that `no_done` and cuts can leave it out.
            let separator: &[u8] = match event.kind() {
                _ if number == 0 => b"[",
                Kind::Done if matches!(event, Event::Fixed { data, .. } if data == "]") => b"\n",
                _ => b",\r\n",
            };
            out.extend_from_slice(separator);
            return data(stream, event, number, out);
        }
        Framing::Amazon | Framing::AmazonChunks => {
            let mut payload = Vec::new();
            data(stream, event, number, &mut payload);
            return amazon_message(stream.framing, event, name, &payload, shape.bad_crc, out);
        }
    }
    let line = |parts: &[&[u8]], out: &mut Vec<u8>| {
        for part in parts {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(end);
    };
    if shape.comments {
        line(&[b": keep-alive"], out);
        line(&[], out);
    }
    if shape.retry_id {
        line(&[b"id: ", number.to_string().as_bytes()], out);
        line(&[b"retry: 3000"], out);
    }
    let space: &[u8] = if shape.nospace { b"" } else { b" " };
    if let Some(name) = name {
        line(&[b"event:", space, name.as_bytes()], out);
    }
    if shape.multiline {
        let mut json = Vec::new();
        data(stream, event, number, &mut json);
        for part in json_lines(&json) {
            line(&[b"data:", space, part], out);
        }
    } else {
        out.extend_from_slice(b"data:");
        out.extend_from_slice(space);
        data(stream, event, number, out);
        out.extend_from_slice(end);
    }
    line(&[], out);
}

/// Writes an event in Amazon's framing. An error that the API does not know has its text in the headers alone.
fn amazon_message(
    framing: Framing,
    event: &Event,
    name: Option<&str>,
    payload: &[u8],
    bad_crc: bool,
    out: &mut Vec<u8>,
) {
    let kind = |kind| (":message-type", kind);
    match event {
        Event::Failure { modelled: true, code, .. } => {
            amazon::push_message(out, &[kind("exception"), (":exception-type", code)], payload, bad_crc);
        }
        Event::Failure { code, data, .. } => {
            let fields = [kind("error"), (":error-code", code), (":error-message", data)];
            amazon::push_message(out, &fields, b"", bad_crc);
        }
        _ if framing == Framing::AmazonChunks => {
            let chunk = format!(r#"{{"bytes":"{}","p":"abcd"}}"#, STANDARD.encode(payload));
            amazon::push_message(out, &[kind("event"), (":event-type", "chunk")], chunk.as_bytes(), bad_crc);
        }
        _ => {
            let fields = [kind("event"), (":event-type", name.unwrap_or_default())];
            amazon::push_message(out, &fields, payload, bad_crc);
        }
    }
}

/// Writes an event's data alone.
fn data(stream: &EventStream, event: &Event, number: usize, out: &mut Vec<u8>) {
    match event {
        Event::Fixed { data, .. } | Event::Failure { data, .. } => out.extend_from_slice(data.as_bytes()),
        Event::Delta { template, from, to } => {
            let Some(template) = stream.templates.get(*template) else {
                return;
            };
            let part = template.source.get(*from as usize..*to as usize).unwrap_or_default();
            out.extend_from_slice(template.head.as_bytes());
            push_json_string(out, part);
            out.extend_from_slice(template.tail.as_bytes());
        }
    }
    if stream.numbered && out.pop().is_some() {
        out.extend_from_slice(format!(r#","sequence_number":{number}}}"#).as_bytes());
    }
}

/// Appends `text` as a JSON string.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Cuts JSON at places where it may have a line break: after the first brace and after the outermost commas.
fn json_lines(json: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in json.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        let cut = match byte {
            b'"' => {
                in_string = true;
                false
            }
            b'{' => {
                depth += 1;
                depth == 1
            }
            b'[' => {
                depth += 1;
                false
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                false
            }
            b',' => depth == 1,
            _ => false,
        };
        if cut {
            lines.extend(json.get(start..=at));
            start = at + 1;
        }
    }
    lines.extend(json.get(start..).filter(|rest| !rest.is_empty()));
    lines
}

/// Appends one chunk of HTTP's chunked encoding. An empty chunk would end the body, so it is left out.
pub fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    use std::io::Write as _;
    if bytes.is_empty() {
        return;
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{:x}\r\n", bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(framing: Framing) -> EventStream {
        let error = Event::fixed(Kind::Done, None, r#"{"error":1}"#.to_owned());
        let mut stream = EventStream::new(framing, error);
        stream.push(Kind::Opening, None, r#"{"open":1,"b":[1,2]}"#.to_owned());
        let template = stream.template(Template {
            name: Some("delta"),
            head: r#"{"t":"#.to_owned(),
            source: "añ\"b".to_owned(),
            tail: "}".to_owned(),
        });
        stream.push_delta(template, (0, 3));
        stream.push_delta(template, (3, 5));
        stream.push(Kind::Finish, None, r#"{"stop":1}"#.to_owned());
        stream.push(Kind::Done, None, "[DONE]".to_owned());
        stream
    }

    fn directives(list: &str) -> Directives {
        let mut directives = Directives::default();
        directives.apply_list(list, "m").unwrap();
        directives
    }

    /// Runs a script to its last step.
    fn run(framing: Framing, list: &str) -> (String, Vec<Step>) {
        let mut script = Script::new(stream(framing), &directives(list));
        let (mut out, mut steps) = (Vec::new(), Vec::new());
        loop {
            let step = script.step(&mut out);
            steps.push(step);
            if !matches!(step, Step::Wait(_) | Step::Send { .. }) {
                return (String::from_utf8(out).unwrap(), steps);
            }
        }
    }

    #[test]
    fn an_untouched_stream_is_plain_server_sent_events() {
        let (text, steps) = run(Framing::Sse, "");
        assert_eq!(
            text,
            "data: {\"open\":1,\"b\":[1,2]}\n\nevent: delta\ndata: {\"t\":\"añ\"}\n\nevent: delta\ndata: {\"t\":\"\\\"b\"}\n\n\
             data: {\"stop\":1}\n\ndata: [DONE]\n\n"
        );
        assert_eq!(steps.last(), Some(&Step::End { fault: false }));
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Send { content: true })).count(), 2);
    }

    #[test]
    fn ndjson_has_one_document_a_line() {
        let (text, _) = run(Framing::Ndjson, "no_done=1");
        assert_eq!(text, "{\"open\":1,\"b\":[1,2]}\n{\"t\":\"añ\"}\n{\"t\":\"\\\"b\"}\n{\"stop\":1}\n");
    }

    #[test]
    fn shapes_change_the_letters_and_not_the_events() {
        let (text, _) = run(Framing::Sse, "crlf=1;comments=1;retry_id=1;nospace=1;bom=1");
        assert!(text.starts_with(
            "\u{feff}: keep-alive\r\n\r\nid: 0\r\nretry: 3000\r\ndata:{\"open\":1,\"b\":[1,2]}\r\n\r\n: keep-alive\r\n"
        ));
        assert!(text.contains("id: 1\r\nretry: 3000\r\nevent:delta\r\ndata:{"));
        let (text, _) = run(Framing::Sse, "cr=1");
        assert!(text.starts_with("data: {\"open\":1,\"b\":[1,2]}\r\revent: delta\rdata: "));
        assert!(!text.contains('\n'));
    }

    #[test]
    fn multiline_cuts_only_between_json_tokens() {
        let (text, _) = run(Framing::Sse, "multiline=1");
        assert!(text.starts_with("data: {\ndata: \"open\":1,\ndata: \"b\":[1,2]}\n\n"));
        assert!(text.ends_with("data: [DONE]\n\n"));
        let json = br#"{"a":"x,{\"","b":{"c":1,"d":2},"e":[1,2]}"#;
        let lines = json_lines(json);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines.concat(), json);
    }

    #[test]
    fn faults_strike_after_the_given_number_of_content_events() {
        let last = |list: &str| run(Framing::Sse, list).1.last().copied();
        assert_eq!(last("stall_at=1"), Some(Step::Stall));
        assert_eq!(last("reset_at=0"), Some(Step::Reset));
        assert_eq!(last("close_at=99"), Some(Step::Close));
        let (text, steps) = run(Framing::Sse, "truncate_at=1");
        assert!(text.ends_with("{\"t\":\"añ\"}\n\n"));
        assert_eq!(steps.last(), Some(&Step::End { fault: true }));
        assert_eq!(run(Framing::Sse, "reset_at=start").0, "");
        // Beyond the last content event: everything that was said, not the finish.
        let (text, _) = run(Framing::Sse, "truncate_at=99");
        assert!(text.contains("\\\"b") && !text.contains("stop"));
    }

    #[test]
    fn a_cut_event_ends_within_its_bytes() {
        let (text, steps) = run(Framing::Sse, "cut_event_at=1");
        assert!(text.ends_with("event: delta\ndat") || text.ends_with("event: delta\ndata") || !text.ends_with('\n'));
        assert_eq!(steps.last(), Some(&Step::End { fault: true }));
    }

    #[test]
    fn an_error_event_ends_the_stream() {
        let (text, _) = run(Framing::Sse, "error_at=1");
        assert!(text.ends_with("{\"t\":\"añ\"}\n\ndata: {\"error\":1}\n\n"));
    }

    #[test]
    fn the_end_can_be_missing_or_said_twice() {
        let (text, steps) = run(Framing::Sse, "no_done=1");
        assert!(text.ends_with("{\"stop\":1}\n\n"));
        assert_eq!(steps.last(), Some(&Step::End { fault: true }));
        assert_eq!(run(Framing::Sse, "double_finish=1").0.matches("stop").count(), 2);
    }

    #[test]
    fn pauses_stand_before_the_first_event_and_between_events() {
        let (_, steps) = run(Framing::Sse, "first_chunk_ms=7;gap_ms=3");
        assert_eq!(steps.first(), Some(&Step::Wait(7)));
        assert_eq!(steps.iter().filter(|step| **step == Step::Wait(3)).count(), 4);
        assert!(matches!(steps.get(1), Some(Step::Send { .. })));
    }

    #[test]
    fn an_array_is_json_until_its_end_is_missing() {
        let run = |list: &str| {
            let mut array = stream(Framing::JsonArray);
            array.events.pop();
            array.push(Kind::Done, None, "]".to_owned());
            let mut script = Script::new(array, &directives(list));
            let mut out = Vec::new();
            while matches!(script.step(&mut out), Step::Wait(_) | Step::Send { .. }) {}
            serde_json::from_slice::<serde_json::Value>(&out).ok().and_then(|value| Some(value.as_array()?.len()))
        };
        assert_eq!(run("bom=1;crlf=1"), Some(4));
        assert_eq!(run("error_at=1"), Some(3));
        assert_eq!(run("error_at=start"), Some(1));
        assert_eq!(run("truncate_at=1"), None);
        assert_eq!(run("no_done=1"), None);
    }

    #[test]
    fn amazon_messages_are_whole_until_one_is_cut_or_spoiled() {
        let count = |list: &str| {
            let mut script = Script::new(stream(Framing::Amazon), &directives(list));
            let mut out = Vec::new();
            while matches!(script.step(&mut out), Step::Wait(_) | Step::Send { .. }) {}
            amazon::tests::read(&out).map(|messages| messages.len())
        };
        assert_eq!(count("crlf=1;comments=1;multiline=1;bom=1;retry_id=1"), Ok(5));
        assert_eq!(count("truncate_at=1"), Ok(2));
        assert_eq!(count("cut_event_at=1"), Err(2));
        assert_eq!(count("badcrc=2"), Err(2));
        assert_eq!(count("error_at=1"), Ok(3));
    }

    #[test]
    fn chunks_carry_their_length_and_are_never_empty() {
        let mut out = Vec::new();
        push_chunk(&mut out, b"");
        push_chunk(&mut out, b"hello world, hello");
        assert_eq!(out, b"12\r\nhello world, hello\r\n");
    }
}
