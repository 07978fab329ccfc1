//! The connection loop: HTTP/1.1 by hand, because faults need the socket itself.
//!
//! A request is read whole, answered by [`crate::server`], and the reply is carried out. While a reply takes its
//! time (a stream, a delay, a stall) the socket is watched, so that a client's going away is noticed at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::directives::{At, Directives, Fault};
use crate::journal::{Outcome, Ticket, Upload};
use crate::multipart::{self, Form, Reader};
use crate::reply::{Body, Reply, reason};
use crate::server::{self, App, Handled};
use crate::wire::{EventStream, LAST_CHUNK, Script, Step, push_chunk};

/// Most header fields of a request.
pub const MAX_HEADERS: usize = 128;
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Longest body of a request, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Longest form, which is read as it arrives, in bytes.
const MAX_FORM: usize = 1024 * 1024 * 1024;
/// Longest line of a chunked body that is not data, in bytes.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// How much a client may send ahead while its reply is still being made, in bytes.
const MAX_AHEAD: usize = 64 * 1024;
/// A body up to this size is sent in one write with its head, in bytes.
const JOINED_BODY: usize = 64 * 1024;
/// How long what was sent before a reset is left to arrive.
const BEFORE_RESET: Duration = Duration::from_millis(10);
/// How long a stalled reply is held open for a client that does not go away.
const LONGEST_STALL: Duration = Duration::from_secs(3600);
/// How long a refused request may go on arriving, so that its sender gets to read the refusal.
const LINGER: Duration = Duration::from_millis(500);
/// After how many writes in a row a stream lets other tasks run.
const WRITES_IN_A_ROW: u32 = 16;

/// A request that has been read.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a [httparse::Header<'a>],
    /// The head as it arrived.
    pub head: &'a [u8],
    pub body: &'a [u8],
    /// A body of `multipart/form-data`, or what is wrong with it; `body` is empty then.
    pub form: Option<&'a Result<Form, String>>,
    pub received: Instant,
}

impl<'a> Request<'a> {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    }
}

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    app.journal.connections.fetch_add(1, Relaxed);
                    // A connection ends when its client goes away; nobody is left to be told.
                    let _ = connection(stream, &app).await;
                    app.journal.connections.fetch_sub(1, Relaxed);
                });
            }
            // Out of file descriptors: wait for some to come back.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
}

/// What the head of a request says about the connection.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    body: Length,
    keep_alive: bool,
    http11: bool,
    expects_continue: bool,
    is_head: bool,
    is_form: bool,
}

impl Head {
    fn longest_body(self) -> usize {
        if self.is_form { MAX_FORM } else { MAX_BODY }
    }
}

const TOO_LONG: &str = "the request body is longer than 64 MiB";

/// Where a body goes as it is read.
#[derive(Debug)]
enum Sink<'a> {
    /// Into memory.
    Kept(&'a mut Vec<u8>),
    Form {
        reader: &'a mut Reader,
        upload: &'a Upload,
        problem: &'a mut Option<String>,
    },
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Kept(body) => body.extend_from_slice(bytes),
            Self::Form { reader, upload, problem } => {
                upload.arrived(bytes.len());
                if problem.is_none() {
                    **problem = reader.push(bytes).err();
                }
            }
        }
    }
}

/// A request that cannot be read.
#[derive(Debug)]
enum Problem {
    Io(io::Error),
    /// The client closed between two requests.
    Closed,
    Refused(u16, &'static str),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What remains to be done with a connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The reply is complete; `incomplete` marks one that lacks what a directive left out.
    Sent { incomplete: bool },
    /// Reset.
    Reset,
    /// Close in the middle of the reply.
    Close,
}

async fn connection(mut stream: TcpStream, app: &App) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(8 * 1024);
    let mut out: Vec<u8> = Vec::with_capacity(4 * 1024);
    loop {
        let head = match read_head(&stream, &mut buffer).await {
            Ok(head) => head,
            Err(problem) => return refuse(stream, problem).await,
        };
        let mut decoded = Vec::new();
        let mut form = None;
        let mut ticket = None;
        let read = if head.is_form {
            let upload = Arc::new(Upload::new(Instant::now()));
            ticket = with_request(&buffer, head, &[], None, |request| server::open_form(app, request, &upload));
            let (read, result) = read_form(&stream, &mut buffer, head, &upload).await;
            form = Some(result);
            read
        } else {
            read_body(&stream, &mut buffer, head, &mut decoded).await
        };
        let consumed = match read {
            Ok(consumed) => consumed,
            Err(problem) => return refuse(stream, problem).await,
        };
        let body = match head.body {
            Length::Known(_) if form.is_none() => buffer.get(head.length..consumed).unwrap_or_default(),
            Length::Known(_) | Length::Chunked => decoded.as_slice(),
        };
        let answer = |request: &Request<'_>| server::handle(app, request, ticket);
        let Some(Handled { reply, directives, mut ticket }) = with_request(&buffer, head, body, form.as_ref(), answer)
        else {
            return refuse(stream, Problem::Refused(400, "malformed request")).await;
        };
        discard(&mut buffer, consumed);
        let watched = takes_time(&reply, &directives);
        out.clear();
        let sent = if watched {
            tokio::select! {
                biased;
                error = watch(&stream, &mut buffer) => Err(error),
                sent = deliver(&stream, &mut out, head, reply, &directives, ticket.as_mut()) => sent,
            }
        } else {
            deliver(&stream, &mut out, head, reply, &directives, ticket.as_mut()).await
        };
        let outcome = match sent {
            Ok(After::Sent { incomplete: false }) => Outcome::Completed,
            Ok(_) => Outcome::Fault,
            Err(_) => Outcome::ClientDisconnected,
        };
        if sent.as_ref().is_ok_and(|after| *after == After::Reset) {
            sleep(BEFORE_RESET).await;
            stream.set_zero_linger()?;
        }
        if let Some(ticket) = ticket {
            ticket.finish(outcome);
        }
        match sent? {
            After::Sent { .. } if head.keep_alive => {}
            After::Reset => return Ok(()),
            After::Sent { .. } | After::Close => return stream.shutdown().await,
        }
        if out.capacity() > 1024 * 1024 {
            out = Vec::with_capacity(4 * 1024);
        }
    }
}

/// Whether the client may go away while this reply is being made.
fn takes_time(reply: &Reply, directives: &Directives) -> bool {
    matches!(reply.body, Body::Stream(_))
        || directives.ttfb_ms > 0
        || directives.slow_body_ms > 0
        || directives.fault().is_some()
        || directives.nolength
}

// --- Reading -------------------------------------------------------------------------------------------------

/// Appends what the client sent next; zero bytes mean that it closed.
async fn read_more(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

async fn read_head(stream: &TcpStream, buffer: &mut Vec<u8>) -> Result<Head, Problem> {
    loop {
        if !buffer.is_empty()
            && let Some(head) = parse_head(buffer)?
        {
            return Ok(head);
        }
        if buffer.len() > MAX_HEAD {
            return Err(Problem::Refused(431, "the request head is longer than 64 KiB"));
        }
        if read_more(stream, buffer).await? == 0 {
            return Err(Problem::Closed);
        }
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<Head>, Problem> {
    const MALFORMED: Problem = Problem::Refused(400, "malformed request");
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut storage);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Problem::Refused(431, "too many header fields"));
        }
        Err(httparse::Error::Version) => {
            return Err(Problem::Refused(505, "this server speaks HTTP/1.1"));
        }
        Err(_) => return Err(MALFORMED),
    };
    if length > MAX_HEAD {
        return Err(Problem::Refused(431, "the request head is longer than 64 KiB"));
    }
    let http11 = request.version == Some(1);
    let mut head = Head {
        length,
        body: Length::Known(0),
        keep_alive: http11,
        http11,
        expects_continue: false,
        is_head: request.method == Some("HEAD"),
        is_form: false,
    };
    let (mut content_length, mut chunked) = (None, false);
    for header in request.headers.iter() {
        let value = || std::str::from_utf8(header.value).map(str::trim).map_err(|_| MALFORMED);
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = value()?;
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse::<usize>().ok().filter(|_| digits).ok_or(MALFORMED)?;
            if content_length.is_some_and(|other| other != length) {
                return Err(MALFORMED);
            }
            content_length = Some(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value()?.eq_ignore_ascii_case("chunked") {
                return Err(Problem::Refused(501, "the only transfer encoding is chunked"));
            }
            chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in value()?.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    head.keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    head.keep_alive = true;
                }
            }
        } else if header.name.eq_ignore_ascii_case("content-type") {
            head.is_form = multipart::boundary(value()?).is_some();
        } else if header.name.eq_ignore_ascii_case("expect") {
            head.expects_continue = value()?.eq_ignore_ascii_case("100-continue");
        }
    }
    head.body = match (content_length, chunked) {
        // Both at once is how requests are smuggled.
        (Some(_), true) => return Err(MALFORMED),
        (None, true) => Length::Chunked,
        (Some(length), false) if length > head.longest_body() => {
            return Err(Problem::Refused(413, TOO_LONG));
        }
        (length, false) => Length::Known(length.unwrap_or(0)),
    };
    Ok(Some(head))
}

/// Reads the body. A body of known length stays in the buffer; a chunked one is put into `decoded`. Returns how
/// many bytes of the buffer belong to the request.
async fn read_body(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    head: Head,
    decoded: &mut Vec<u8>,
) -> Result<usize, Problem> {
    let wanted = match head.body {
        Length::Known(length) => head.length.saturating_add(length),
        Length::Chunked => usize::MAX,
    };
    if head.expects_continue && buffer.len() <= head.length && wanted > head.length {
        write_all(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if head.body == Length::Chunked {
        return read_chunked(stream, buffer, head, &mut Sink::Kept(decoded)).await;
    }
    if wanted > buffer.capacity() {
        buffer.reserve_exact(wanted - buffer.len());
    }
    while buffer.len() < wanted {
        if read_more(stream, buffer).await? == 0 {
            return Err(Problem::Closed);
        }
    }
    Ok(wanted)
}

/// Reads a form as it arrives: how it ended, and what it is.
async fn read_form(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    head: Head,
    upload: &Upload,
) -> (Result<usize, Problem>, Result<Form, String>) {
    let boundary = with_request(buffer, head, &[], None, |request| {
        request.header("content-type").and_then(multipart::boundary).unwrap_or_default()
    });
    let mut reader = Reader::new(&boundary.unwrap_or_default());
    let mut problem = None;
    let mut sink = Sink::Form { reader: &mut reader, upload, problem: &mut problem };
    let read = read_into(stream, buffer, head, &mut sink).await;
    let form = problem.map_or_else(|| reader.finish(), Err);
    if let Ok(form) = &form {
        upload.complete(&form.parts);
    }
    (read, form)
}

/// Reads a body without keeping it.
async fn read_into(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    head: Head,
    sink: &mut Sink<'_>,
) -> Result<usize, Problem> {
    if head.expects_continue && buffer.len() <= head.length {
        write_all(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let Length::Known(mut missing) = head.body else {
        return read_chunked(stream, buffer, head, sink).await;
    };
    loop {
        let here = missing.min(buffer.len().saturating_sub(head.length));
        sink.take(buffer.get(head.length..head.length + here).unwrap_or_default());
        buffer.drain(head.length..head.length + here);
        missing -= here;
        if missing == 0 {
            return Ok(head.length);
        }
        if read_more(stream, buffer).await? == 0 {
            return Err(Problem::Closed);
        }
    }
}

async fn read_chunked(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    head: Head,
    sink: &mut Sink<'_>,
) -> Result<usize, Problem> {
    const MALFORMED: Problem = Problem::Refused(400, "malformed chunked body");
    let start = head.length;
    let longest = head.longest_body();
    let mut total = 0_usize;
    let mut at = start;
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        let (line, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) if rest.len() <= MAX_CHUNK_LINE => {
                if read_more(stream, buffer).await? == 0 {
                    return Err(Problem::Closed);
                }
                continue;
            }
            _ => return Err(MALFORMED),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        total = total.saturating_add(size);
        if total > longest {
            return Err(Problem::Refused(413, TOO_LONG));
        }
        at += line;
        if size == 0 {
            return read_trailers(stream, buffer, at).await;
        }
        // What has been taken is no longer needed; the head is.
        let mut missing = size;
        while missing > 0 {
            let here = missing.min(buffer.len().saturating_sub(at));
            sink.take(buffer.get(at..at + here).unwrap_or_default());
            buffer.drain(start..at + here);
            at = start;
            missing -= here;
            if missing > 0 && read_more(stream, buffer).await? == 0 {
                return Err(Problem::Closed);
            }
        }
        while buffer.len() < at + 2 {
            if read_more(stream, buffer).await? == 0 {
                return Err(Problem::Closed);
            }
        }
        if buffer.get(at..at + 2) != Some(b"\r\n".as_slice()) {
            return Err(MALFORMED);
        }
        buffer.drain(start..at + 2);
        at = start;
    }
}

/// Skips trailer fields up to the empty line; returns where the request ends.
async fn read_trailers(stream: &TcpStream, buffer: &mut Vec<u8>, mut at: usize) -> Result<usize, Problem> {
    let limit = at + MAX_HEAD;
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = rest.get(..end).unwrap_or_default();
                at += end + 1;
                if line.is_empty() || line == b"\r" {
                    return Ok(at);
                }
            }
            None if buffer.len() > limit => {
                return Err(Problem::Refused(431, "the trailers are too long"));
            }
            None => {
                if read_more(stream, buffer).await? == 0 {
                    return Err(Problem::Closed);
                }
            }
        }
    }
}

/// Takes a request's bytes out of the buffer and gives back memory that a large one needed.
fn discard(buffer: &mut Vec<u8>, consumed: usize) {
    if consumed >= buffer.len() {
        buffer.clear();
    } else {
        buffer.drain(..consumed);
    }
    if buffer.capacity() > 1024 * 1024 {
        buffer.shrink_to(8 * 1024);
    }
}

/// Does something with a request whose head lies at the beginning of the buffer.
fn with_request<T>(
    buffer: &[u8],
    head: Head,
    body: &[u8],
    form: Option<&Result<Form, String>>,
    act: impl FnOnce(&Request<'_>) -> T,
) -> Option<T> {
    let received = Instant::now();
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut storage);
    let bytes = buffer.get(..head.length)?;
    parsed.parse(bytes).ok()?;
    let target = parsed.path?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = parsed.method?;
    Some(act(&Request { method, target, path, query, headers: parsed.headers, head: bytes, body, form, received }))
}

/// Tells the client why its request cannot be read, and waits for it to read that.
async fn refuse(mut stream: TcpStream, problem: Problem) -> io::Result<()> {
    let (status, message) = match problem {
        Problem::Io(error) => return Err(error),
        Problem::Closed => return Ok(()),
        Problem::Refused(status, message) => (status, message),
    };
    let body = serde_json::json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}})
        .to_string();
    let text = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        reason(status),
        body.len()
    );
    write_all(&stream, text.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing while bytes still arrive would reset the connection and take the refusal with it.
    let drain = async {
        let mut rest = Vec::new();
        while read_more(&stream, &mut rest).await.is_ok_and(|count| count > 0) {
            rest.clear();
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
    Ok(())
}

/// Waits until the client is gone. What it sends ahead is kept for its next request.
async fn watch(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Error {
    loop {
        if buffer.len() > MAX_AHEAD {
            // No more can be taken in, so its end cannot be seen either: a failing write will tell.
            std::future::pending::<()>().await;
        }
        match read_more(stream, buffer).await {
            Ok(0) => return io::ErrorKind::ConnectionAborted.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

// --- Writing -------------------------------------------------------------------------------------------------

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Carries out a reply.
async fn deliver(
    stream: &TcpStream,
    out: &mut Vec<u8>,
    head: Head,
    reply: Reply,
    directives: &Directives,
    mut ticket: Option<&mut Ticket<'_>>,
) -> io::Result<After> {
    if let (Some(ticket), Body::Stream(_)) = (ticket.as_deref_mut(), &reply.body) {
        ticket.stream_opened();
    }
    if directives.ttfb_ms > 0 {
        sleep(Duration::from_millis(directives.ttfb_ms)).await;
    }
    match directives.fault() {
        Some((At::Head, Fault::Stall)) => return stall().await,
        Some((At::Head, Fault::Reset)) => return Ok(After::Reset),
        Some((At::Head, Fault::Close)) => return Ok(After::Close),
        _ => {}
    }
    if let Some(ticket) = ticket.as_deref() {
        ticket.status(reply.status);
    }
    let framing = framing(&reply, head, directives);
    write_head(out, &reply, head, framing, directives);
    match reply.body {
        _ if head.is_head || framing == Framing::None => {
            write_all(stream, out).await?;
            Ok(After::Sent { incomplete: false })
        }
        Body::Whole(body) => deliver_whole(stream, out, &body, framing, directives).await,
        Body::Stream(events) => deliver_stream(stream, out, events, framing, directives, ticket.as_deref()).await,
    }
}

/// How a reply's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    UntilClose,
    /// The status has no body.
    None,
}

fn framing(reply: &Reply, head: Head, directives: &Directives) -> Framing {
    let streamed = matches!(reply.body, Body::Stream(_)) || directives.nolength;
    match reply.status {
        204 | 304 => Framing::None,
        _ if !streamed => Framing::Length,
        _ if head.http11 => Framing::Chunked,
        _ => Framing::UntilClose,
    }
}

fn write_head(out: &mut Vec<u8>, reply: &Reply, head: Head, framing: Framing, directives: &Directives) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    let content_type = directives.content_type.as_deref().unwrap_or(&reply.content_type);
    let own = std::iter::once(("content-type", content_type));
    let all = own.chain(reply.headers.iter().map(|(name, value)| (*name, value.as_ref())));
    for (name, value) in all {
        // What a directive sets replaces what the provider would send.
        if directives.headers.iter().all(|(set, _)| set != name) {
            push_header(out, name, value);
        }
    }
    for (name, value) in &directives.headers {
        push_header(out, name, value);
    }
    match (framing, &reply.body) {
        (Framing::Length, Body::Whole(body)) => {
            let _ = write!(out, "content-length: {}\r\n", body.len());
        }
        (Framing::Chunked, _) => push_header(out, "transfer-encoding", "chunked"),
        (Framing::Length | Framing::UntilClose | Framing::None, _) => {}
    }
    if !head.keep_alive || framing == Framing::UntilClose {
        push_header(out, "connection", "close");
    }
    out.extend_from_slice(b"\r\n");
}

fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

async fn stall() -> io::Result<After> {
    sleep(LONGEST_STALL).await;
    Ok(After::Close)
}

/// Sends a body that is there at once. The faults of streams that make sense here break it off half-way.
async fn deliver_whole(
    stream: &TcpStream,
    out: &mut Vec<u8>,
    body: &[u8],
    framing: Framing,
    directives: &Directives,
) -> io::Result<After> {
    let fault = match directives.fault() {
        _ if directives.body_reset => Some(Fault::Reset),
        Some((_, fault @ (Fault::Stall | Fault::Reset | Fault::Close))) => Some(fault),
        _ => None,
    };
    if directives.slow_body_ms > 0 {
        write_all(stream, out).await?;
        out.clear();
        sleep(Duration::from_millis(directives.slow_body_ms)).await;
    }
    let sent = if fault.is_some() { body.get(..body.len() / 2).unwrap_or_default() } else { body };
    if framing == Framing::Chunked {
        let size = directives.split.unwrap_or(usize::MAX).max(1);
        for piece in sent.chunks(size) {
            push_chunk(out, piece);
            if directives.split.is_some() {
                write_all(stream, out).await?;
                out.clear();
                tokio::task::yield_now().await;
            }
        }
        if fault.is_none() {
            out.extend_from_slice(LAST_CHUNK);
        }
        write_all(stream, out).await?;
    } else if sent.len() <= JOINED_BODY {
        out.extend_from_slice(sent);
        write_all(stream, out).await?;
    } else {
        write_all(stream, out).await?;
        write_all(stream, sent).await?;
    }
    match fault {
        Some(Fault::Stall) => stall().await,
        Some(Fault::Reset) => Ok(After::Reset),
        Some(_) => Ok(After::Close),
        None => Ok(After::Sent { incomplete: false }),
    }
}

/// The way of a stream's bytes to the socket.
struct Pipe<'a> {
    stream: &'a TcpStream,
    /// What goes out with the next write, framed.
    out: &'a mut Vec<u8>,
    /// What has been rendered and not framed yet.
    plain: Vec<u8>,
    chunked: bool,
    split: Option<usize>,
    /// Content events in `plain`.
    content: u32,
    writes: u32,
    ticket: Option<&'a Ticket<'a>>,
}

impl Pipe<'_> {
    fn frame(out: &mut Vec<u8>, bytes: &[u8], chunked: bool) {
        if chunked {
            push_chunk(out, bytes);
        } else {
            out.extend_from_slice(bytes);
        }
    }

    /// Sends what has been rendered. With `split`, only whole pieces, unless `all` is asked for.
    async fn flush(&mut self, all: bool) -> io::Result<()> {
        if let Some(size) = self.split {
            let mut plain = std::mem::take(&mut self.plain);
            let whole = if all { plain.len() } else { plain.len() - plain.len() % size };
            for piece in plain.get(..whole).unwrap_or_default().chunks(size) {
                // The head of the reply goes out by itself.
                self.write().await?;
                Self::frame(self.out, piece, self.chunked);
                self.write().await?;
                tokio::task::yield_now().await;
            }
            plain.drain(..whole);
            self.plain = plain;
        } else {
            Self::frame(self.out, &self.plain, self.chunked);
            self.plain.clear();
        }
        self.write().await?;
        for _ in 0..std::mem::take(&mut self.content) {
            if let Some(ticket) = self.ticket {
                ticket.chunk_sent();
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        write_all(self.stream, self.out).await?;
        self.out.clear();
        self.writes += 1;
        if self.writes.is_multiple_of(WRITES_IN_A_ROW) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

async fn deliver_stream(
    stream: &TcpStream,
    out: &mut Vec<u8>,
    events: EventStream,
    framing: Framing,
    directives: &Directives,
    ticket: Option<&Ticket<'_>>,
) -> io::Result<After> {
    let mut script = Script::new(events, directives);
    let mut pipe = Pipe {
        stream,
        out,
        plain: Vec::with_capacity(512),
        chunked: framing == Framing::Chunked,
        split: directives.split,
        content: 0,
        writes: 0,
        ticket,
    };
    loop {
        let step = script.step(&mut pipe.plain);
        match step {
            Step::Send { content } => {
                pipe.content += u32::from(content);
                if !directives.whole {
                    pipe.flush(false).await?;
                }
            }
            Step::Wait(ms) => {
                if !directives.whole {
                    pipe.flush(true).await?;
                }
                sleep(Duration::from_millis(ms)).await;
            }
            Step::End { fault } => {
                pipe.flush(true).await?;
                if pipe.chunked {
                    pipe.out.extend_from_slice(LAST_CHUNK);
                    pipe.write().await?;
                }
                return Ok(After::Sent { incomplete: fault });
            }
            Step::Stall => {
                pipe.flush(true).await?;
                return stall().await;
            }
            Step::Reset => {
                pipe.flush(true).await?;
                return Ok(After::Reset);
            }
            Step::Close => {
                pipe.flush(true).await?;
                return Ok(After::Close);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, u16> {
        parse_head(text.as_bytes()).map_err(|problem| match problem {
            Problem::Refused(status, _) => status,
            _ => 0,
        })
    }

    #[test]
    fn a_head_says_how_the_connection_goes_on() {
        let parsed = head("POST / HTTP/1.1\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").unwrap().unwrap();
        assert_eq!(parsed.body, Length::Known(5));
        assert!(parsed.keep_alive && parsed.expects_continue && parsed.http11);
        let parsed = head("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n").unwrap().unwrap();
        assert!(!parsed.keep_alive);
        let parsed = head("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(!parsed.keep_alive && !parsed.http11);
        assert!(head("GET / HTTP/1.1\r\nhost: x\r\n").unwrap().is_none());
    }

    #[test]
    fn requests_that_cannot_be_told_apart_are_refused() {
        let refused = |fields: &str| head(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).err();
        assert_eq!(refused("content-length: 1\r\ntransfer-encoding: chunked"), Some(400));
        assert_eq!(refused("content-length: +1"), Some(400));
        assert_eq!(refused("content-length: 1\r\ncontent-length: 2"), Some(400));
        assert_eq!(refused("content-length: 99999999999"), Some(413));
        assert_eq!(refused("transfer-encoding: gzip"), Some(501));
        assert_eq!(head("nonsense\r\n\r\n").err(), Some(400));
        assert_eq!(head("GET / HTTP/2.0\r\n\r\n").err(), Some(505));
    }
}
