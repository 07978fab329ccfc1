//! What arrived and what became of it: the journal that tests read, and the counts.
//!
//! The journal is a bounded ring. An entry is visible from the moment its request has been read; the fields that
//! change later are atomics, so that finishing a request takes no lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::multipart::Part;

/// How much of a request body an entry keeps, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How much heads and bodies the journal keeps together, in bytes.
const MAX_TOTAL: usize = 64 * 1024 * 1024;
/// Stands for "not closed yet" in [`Entry::closed_after_ms`].
const NOT_CLOSED: u32 = u32::MAX;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Open = 0,
    /// The reply went out as HTTP wants it, whatever its status.
    Completed = 1,
    /// The client closed or reset the connection before the reply's end.
    ClientDisconnected = 2,
    /// A directive broke the reply off or left something out.
    Fault = 3,
}

/// The outcomes that end a request, with their names.
const ENDINGS: [(Outcome, &str); 3] = [
    (Outcome::Completed, "completed"),
    (Outcome::ClientDisconnected, "client_disconnected"),
    (Outcome::Fault, "fault"),
];

/// The paths that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    ChatCompletions,
    Messages,
    CountTokens,
    Models,
    Generate,
    Completions,
    Responses,
    Gemini,
    Vertex,
    Tokens,
    Embeddings,
    Moderations,
    Rerank,
    Images,
    Audio,
    CohereChat,
    Wenxin,
    Bedrock,
    Other,
}

/// Names of the routes, in the order of [`Route`].
const ROUTES: &[&str] = &[
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/generate",
    "/v1/completions",
    "/v1/responses",
    "gemini",
    "vertex",
    "tokens",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images",
    "/v1/audio",
    "/v2/chat",
    "wenxin",
    "bedrock",
    "other",
];

/// One request.
#[derive(Debug)]
struct Entry {
    seq: u64,
    at_ms: u64,
    method: String,
    path: String,
    /// The request's head as it arrived; taken apart only when somebody reads the journal.
    head: Box<[u8]>,
    body: Box<[u8]>,
    credential: Option<String>,
    tag: OnceLock<String>,
    /// Of a form that is read as it arrives.
    upload: Option<Arc<Upload>>,
    status: AtomicU16,
    outcome: AtomicU8,
    chunks_sent: AtomicU32,
    closed_after_ms: AtomicU32,
}

impl Entry {
    fn size(&self) -> usize {
        self.head.len() + self.body.len() + 256
    }

    fn view(&self) -> EntryView {
        let outcome = self.outcome.load(Relaxed);
        let closed = self.closed_after_ms.load(Relaxed);
        EntryView {
            seq: self.seq,
            at_ms: self.at_ms,
            method: self.method.clone(),
            path: self.path.clone(),
            headers: headers(&self.head),
            body: String::from_utf8_lossy(&self.body).into_owned(),
            credential: self.credential.clone(),
            tag: self.tag.get().cloned(),
            upload: self.upload.as_deref().map(Upload::view),
            status: self.status.load(Relaxed),
            outcome: ENDINGS.iter().find(|(ending, _)| *ending as u8 == outcome).map_or("open", |(_, name)| name),
            chunks_sent: self.chunks_sent.load(Relaxed),
            closed_after_ms: (closed != NOT_CLOSED).then_some(closed),
        }
    }
}

/// An entry as the control plane shows it.
#[derive(Debug, Serialize)]
pub struct EntryView {
    pub seq: u64,
    pub at_ms: u64,
    pub method: String,
    pub path: String,
    pub headers: Map<String, Value>,
    pub body: String,
    pub tag: Option<String>,
    /// What the dialect says of the credential that came with it.
    pub credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadView>,
    pub status: u16,
    pub outcome: &'static str,
    pub chunks_sent: u32,
    pub closed_after_ms: Option<u32>,
}

/// A form on its way in.
#[derive(Debug)]
pub struct Upload {
    started: Instant,
    bytes: AtomicU64,
    first_ms: AtomicU32,
    last_ms: AtomicU32,
    /// What it consisted of, once all of it has come.
    parts: OnceLock<Vec<Part>>,
}

impl Upload {
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            bytes: AtomicU64::new(0),
            first_ms: AtomicU32::new(NOT_CLOSED),
            last_ms: AtomicU32::new(NOT_CLOSED),
            parts: OnceLock::new(),
        }
    }

    /// Notes that so many bytes more have come.
    pub fn arrived(&self, bytes: usize) {
        let now = u32::try_from(self.started.elapsed().as_millis()).unwrap_or(NOT_CLOSED - 1);
        if self.bytes.fetch_add(bytes as u64, Relaxed) == 0 {
            self.first_ms.store(now, Relaxed);
        }
        self.last_ms.store(now, Relaxed);
    }

    pub fn complete(&self, parts: &[Part]) {
        let _ = self.parts.set(parts.to_vec());
    }

    fn view(&self) -> UploadView {
        let time = |ms: &AtomicU32| Some(ms.load(Relaxed)).filter(|ms| *ms != NOT_CLOSED);
        UploadView {
            bytes: self.bytes.load(Relaxed),
            first_byte_ms: time(&self.first_ms),
            last_byte_ms: time(&self.last_ms),
            parts: self.parts.get().cloned(),
        }
    }
}

/// An upload as the control plane shows it. Times are milliseconds after the head had come.
#[derive(Debug, Serialize)]
pub struct UploadView {
    pub bytes: u64,
    pub first_byte_ms: Option<u32>,
    pub last_byte_ms: Option<u32>,
    /// None while the form is still arriving, or when it broke off.
    pub parts: Option<Vec<Part>>,
}

/// The header fields of a request's head, with lower-case names; a name that occurs twice has its values joined.
fn headers(head: &[u8]) -> Map<String, Value> {
    let mut storage = [httparse::EMPTY_HEADER; crate::http::MAX_HEADERS];
    let mut request = httparse::Request::new(&mut storage);
    let mut fields = Map::new();
    if request.parse(head).is_ok() {
        for header in request.headers.iter() {
            let name = header.name.to_ascii_lowercase();
            let value = String::from_utf8_lossy(header.value).into_owned();
            let joined = match fields.get(&name).and_then(Value::as_str) {
                Some(first) => format!("{first}, {value}"),
                None => value,
            };
            fields.insert(name, Value::String(joined));
        }
    }
    fields
}

/// The ring of entries.
#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    last_seq: u64,
    evicted: u64,
}

/// The journal and the counts of one server.
#[derive(Debug)]
pub struct Journal {
    /// Most entries the ring holds; zero switches it off.
    capacity: usize,
    ring: Mutex<Ring>,
    counts: [[AtomicU64; ENDINGS.len()]; ROUTES.len()],
    arrived: [AtomicU64; ROUTES.len()],
    open_streams: AtomicU64,
    pub connections: AtomicU64,
}

/// What a request brings into the journal.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    pub route: Route,
    pub method: &'a str,
    pub path: &'a str,
    pub head: &'a [u8],
    pub body: &'a [u8],
    pub tag: Option<&'a str>,
    pub credential: Option<String>,
    pub upload: Option<&'a Arc<Upload>>,
    pub received: Instant,
}

impl Journal {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ring: Mutex::default(),
            counts: Default::default(),
            arrived: Default::default(),
            open_streams: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has been read.
    pub fn open(&self, arrival: Arrival<'_>) -> Ticket<'_> {
        if let Some(count) = self.arrived.get(arrival.route as usize) {
            count.fetch_add(1, Relaxed);
        }
        let (route, received) = (arrival.route, arrival.received);
        let entry = (self.capacity > 0).then(|| self.insert(arrival));
        Ticket { journal: self, route, received, entry, stream: false, finished: false }
    }

    fn insert(&self, arrival: Arrival<'_>) -> Arc<Entry> {
        let kept = arrival.body.get(..MAX_BODY).unwrap_or(arrival.body);
        let mut entry = Entry {
            seq: 0,
            at_ms: unix_ms(),
            method: arrival.method.to_owned(),
            path: arrival.path.to_owned(),
            head: arrival.head.into(),
            body: kept.into(),
            credential: arrival.credential,
            tag: arrival.tag.map(|tag| OnceLock::from(tag.to_owned())).unwrap_or_default(),
            upload: arrival.upload.cloned(),
            status: AtomicU16::new(0),
            outcome: AtomicU8::new(Outcome::Open as u8),
            chunks_sent: AtomicU32::new(0),
            closed_after_ms: AtomicU32::new(NOT_CLOSED),
        };
        let size = entry.size();
        // What falls out of the ring is freed after the lock is given back.
        let mut fallen = Vec::new();
        let mut ring = self.lock();
        ring.last_seq += 1;
        entry.seq = ring.last_seq;
        let entry = Arc::new(entry);
        ring.bytes += size;
        ring.entries.push_back(Arc::clone(&entry));
        while ring.entries.len() > self.capacity || ring.bytes > MAX_TOTAL {
            let Some(oldest) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes = ring.bytes.saturating_sub(oldest.size());
            ring.evicted += 1;
            fallen.push(oldest);
        }
        drop(ring);
        entry
    }

    /// Entries in the order they came: the first `limit` after `since`, or the last `limit` without it.
    pub fn read(&self, tag: Option<&str>, since: Option<u64>, limit: usize) -> Vec<EntryView> {
        let chosen: Vec<Arc<Entry>> = {
            let ring = self.lock();
            let matching = ring
                .entries
                .iter()
                .filter(|entry| tag.is_none_or(|tag| entry.tag.get().map(String::as_str) == Some(tag)))
                .filter(|entry| since.is_none_or(|since| entry.seq > since));
            if since.is_some() {
                matching.take(limit).cloned().collect()
            } else {
                let mut last: Vec<_> = matching.rev().take(limit).cloned().collect();
                last.reverse();
                last
            }
        };
        chosen.iter().map(|entry| entry.view()).collect()
    }

    /// Counts by path and outcome.
    pub fn stats(&self) -> Value {
        let mut paths = Map::new();
        for ((name, endings), arrived) in ROUTES.iter().zip(&self.counts).zip(&self.arrived) {
            let arrived = arrived.load(Relaxed);
            let mut counts = Map::new();
            let mut ended = 0_u64;
            for ((_, ending), count) in ENDINGS.iter().zip(endings) {
                let count = count.load(Relaxed);
                ended = ended.saturating_add(count);
                counts.insert((*ending).to_owned(), count.into());
            }
            counts.insert("open".to_owned(), arrived.saturating_sub(ended).into());
            counts.insert("total".to_owned(), arrived.into());
            paths.insert((*name).to_owned(), Value::Object(counts));
        }
        let ring = self.lock();
        serde_json::json!({
            "paths": paths,
            "open_streams": self.open_streams.load(Relaxed),
            "open_connections": self.connections.load(Relaxed),
            "journal": {
                "enabled": self.capacity > 0,
                "entries": ring.entries.len(),
                "first_seq": ring.entries.front().map(|entry| entry.seq),
                "last_seq": ring.last_seq,
                "evicted": ring.evicted,
            },
        })
    }

    /// Forgets entries and counts. Sequence numbers go on, so that a reader's `since` stays good.
    pub fn reset(&self) {
        for count in self.counts.iter().flatten().chain(&self.arrived) {
            count.store(0, Relaxed);
        }
        let mut ring = self.lock();
        let fallen = std::mem::take(&mut ring.entries);
        ring.bytes = 0;
        ring.evicted = 0;
        drop(ring);
        drop(fallen);
    }
}

/// A request that is being answered. Dropped unfinished, it counts as one whose client went away: that is the
/// only way its task can end early.
#[derive(Debug)]
pub struct Ticket<'a> {
    journal: &'a Journal,
    route: Route,
    received: Instant,
    entry: Option<Arc<Entry>>,
    stream: bool,
    finished: bool,
}

impl Ticket<'_> {
    /// Names the request, where that could not be done when it was opened.
    pub fn tag(&self, tag: &str) {
        if let Some(entry) = &self.entry {
            let _ = entry.tag.set(tag.to_owned());
        }
    }

    pub fn status(&self, status: u16) {
        if let Some(entry) = &self.entry {
            entry.status.store(status, Relaxed);
        }
    }

    /// Counts this reply among the open streams until it ends.
    pub fn stream_opened(&mut self) {
        if !self.stream {
            self.stream = true;
            self.journal.open_streams.fetch_add(1, Relaxed);
        }
    }

    pub fn chunk_sent(&self) {
        if let Some(entry) = &self.entry {
            entry.chunks_sent.fetch_add(1, Relaxed);
        }
    }

    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if self.stream {
            self.journal.open_streams.fetch_sub(1, Relaxed);
        }
        let ending = ENDINGS.iter().position(|(ending, _)| *ending == outcome);
        let counts = self.journal.counts.get(self.route as usize);
        if let Some(count) = ending.and_then(|ending| counts.and_then(|counts| counts.get(ending))) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(entry) = &self.entry {
            let elapsed = u32::try_from(self.received.elapsed().as_millis()).unwrap_or(NOT_CLOSED - 1);
            entry.closed_after_ms.store(elapsed, Relaxed);
            entry.outcome.store(outcome as u8, Relaxed);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.end(Outcome::ClientDisconnected);
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival<'a>(tag: &'a str, body: &'a [u8]) -> Arrival<'a> {
        Arrival {
            route: Route::Messages,
            method: "POST",
            path: "/v1/messages",
            head: b"POST /v1/messages HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nHost: h\r\n\r\n",
            body,
            tag: Some(tag),
            credential: None,
            upload: None,
            received: Instant::now(),
        }
    }

    #[test]
    fn an_entry_is_visible_while_its_request_is_open() {
        let journal = Journal::new(8);
        let mut ticket = journal.open(arrival("t", b"body"));
        ticket.stream_opened();
        ticket.status(200);
        ticket.chunk_sent();
        let entry = journal.read(Some("t"), None, 10).remove(0);
        assert_eq!((entry.outcome, entry.status, entry.chunks_sent), ("open", 200, 1));
        assert_eq!((entry.closed_after_ms, entry.body.as_str()), (None, "body"));
        assert_eq!(entry.headers.get("x-a"), Some(&Value::from("1, 2")));
        assert_eq!(journal.stats()["open_streams"], 1);
        assert_eq!(journal.stats()["paths"]["/v1/messages"]["open"], 1);
        ticket.finish(Outcome::Completed);
        let entry = journal.read(Some("t"), None, 10).remove(0);
        assert_eq!(entry.outcome, "completed");
        assert!(entry.closed_after_ms.is_some());
        assert_eq!(journal.stats()["open_streams"], 0);
    }

    #[test]
    fn a_dropped_ticket_counts_as_a_lost_client() {
        let journal = Journal::new(8);
        drop(journal.open(arrival("t", b"")));
        assert_eq!(journal.read(None, None, 1).remove(0).outcome, "client_disconnected");
    }

    #[test]
    fn the_ring_is_bounded_and_can_be_paged() {
        let journal = Journal::new(3);
        for tag in ["a", "b", "c", "d", "e"] {
            journal.open(arrival(tag, b"")).finish(Outcome::Completed);
        }
        let tags = |since, limit| -> Vec<String> {
            journal.read(None, since, limit).into_iter().filter_map(|entry| entry.tag).collect()
        };
        assert_eq!(tags(None, 10), ["c", "d", "e"]);
        assert_eq!(tags(None, 2), ["d", "e"]);
        assert_eq!(tags(Some(3), 1), ["d"]);
        assert_eq!(tags(Some(5), 9), Vec::<String>::new());
        assert_eq!(journal.stats()["journal"]["evicted"], 2);
    }

    #[test]
    fn bodies_are_kept_up_to_their_bound() {
        let journal = Journal::new(2);
        let body = vec![b'x'; MAX_BODY + 10];
        journal.open(arrival("t", &body)).finish(Outcome::Fault);
        assert_eq!(journal.read(None, None, 1).remove(0).body.len(), MAX_BODY);
    }

    #[test]
    fn a_journal_that_is_off_still_counts() {
        let journal = Journal::new(0);
        journal.open(arrival("t", b"")).finish(Outcome::Fault);
        assert!(journal.read(None, None, 10).is_empty());
        assert_eq!(journal.stats()["paths"]["/v1/messages"]["fault"], 1);
        journal.reset();
        assert_eq!(journal.stats()["paths"]["/v1/messages"]["total"], 0);
    }
}
