//! Stage 6, the moving part: a reply's bytes on their way to the caller.
//!
//! - [`native`]: the runtime moves the bytes; a second branch of the stream is read late and in large blocks, for the
//!   usage and to know whether the stream is complete. The end stays ours: a stream that was cut gets an error event.
//! - [`processed`]: the bytes pass through a [`StreamProcessor`].
//!
//! Both hand out the readable side at once and a task that runs until the stream has ended; the task settles the request.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::{Either, LocalBoxFuture, select};
use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, StreamPipeOptions, WritableStream};

use super::dispatch::UpstreamAbort;
use super::fault::{fault_problem, scrubbed};
use super::meter::{Meter, Metered};
use super::patience::Patience;
use super::recognise::Recogniser;
use super::reply::StreamProcessor;
use super::settle::settle;
use super::streams::{CHUNK_BYTES, Pieces, pipe, pipe_of, write};
use crate::http::shell::{now_ms, sleep, within};
use crate::protocol::chat::ReplyFault;
use crate::protocol::inbound::error_event;
use crate::providers::Api;
use crate::providers::auth::scrub::Scrubber;
use crate::telemetry::RequestRecord;

/// How much of a native stream's second branch is read at once …
const BLOCK_BYTES: u32 = 256 * 1024;
/// … and how long it waits between two reads, in milliseconds, while the stream is running.
const BLOCK_INTERVAL_MS: u64 = 500;

/// What surrounds a streamed reply.
pub struct Surroundings {
    /// The API that was called, for an error event.
    pub api: Api,
    /// How many choices or images were asked for.
    pub choices: u64,
    /// The request's id, likewise.
    pub request_id: String,
    /// The time bounds.
    pub patience: Patience,
    /// Ends the upstream request.
    pub abort: UpstreamAbort,
    /// Takes the credential that it was sent with out of what the provider reports.
    pub scrubber: Scrubber,
    /// When the request came in, in milliseconds.
    pub started: u64,
}

impl Surroundings {
    fn error_event(&self, fault: &ReplyFault) -> Vec<u8> {
        error_event(self.api, &fault_problem(fault), &self.request_id)
    }
}

/// A stream for the caller, and the task that feeds it.
pub struct Outgoing {
    /// The caller's side.
    pub readable: ReadableStream,
    writable: WritableStream,
    task: Box<dyn FnOnce(RequestRecord) -> LocalBoxFuture<'static, RequestRecord>>,
}

impl Outgoing {
    /// Feeds the stream to its end and settles the request: the result is its record. Must be run for as long as the
    /// stream goes.
    pub async fn run(self, record: RequestRecord, started: u64) -> RequestRecord {
        let begun = record.clone();
        match AssertUnwindSafe((self.task)(record)).catch_unwind().await {
            Ok(record) => record,
            Err(_) => {
                let request_id = begun.request_id.as_str();
                tracing::error!(target: "relay", message = "a stream's task panicked", request_id);
                // The caller must not wait for a stream that nobody feeds, nor take it for complete.
                let _already_closed = JsFuture::from(self.writable.abort()).await;
                // What the provider was asked for has a price all the same.
                let mut record = begun;
                record.told_or_estimated(None, 0);
                settle(record, Err(ReplyFault::Broken), false, started, now_ms())
            }
        }
    }
}

/// Passes a stream on as it is. Waits for its first bytes, as [`processed`] does: they are read on the second branch, so
/// that the first one stays the runtime's.
///
/// # Errors
/// The fault with which the stream began.
pub async fn native(body: &ReadableStream, api: Api, around: Surroundings) -> Result<Outgoing, ReplyFault> {
    let branches = body.tee();
    let to_client: ReadableStream = branches.get(0).unchecked_into();
    let to_meter: ReadableStream = branches.get(1).unchecked_into();
    let mut meter = Metering::new(&to_meter, Meter::new(api, around.choices));
    if let Err(fault) = meter.begin(around.patience).await {
        around.abort.abort();
        return Err(fault);
    }
    let (readable, writable) = pipe().map_err(|_| ReplyFault::Broken)?;
    let options = StreamPipeOptions::new();
    options.set_prevent_close(true);
    options.set_prevent_abort(true);
    let pump = JsFuture::from(to_client.pipe_to_with_options(&writable, &options));
    let end = writable.clone();
    let task = Box::new(move |mut record: RequestRecord| -> LocalBoxFuture<'static, RequestRecord> {
        Box::pin(async move {
            let Piped { metered, bytes, first_byte, client_left } = meter.run(pump, &around).await;
            record.bytes_out = bytes;
            record.told_or_estimated(metered.told, metered.pieces);
            record.first_byte_ms = first_byte.map(|at| at.saturating_sub(around.started));
            let gone = client_left || around.abort.client_closed();
            if gone {
                let _already_gone = JsFuture::from(end.abort()).await;
            } else if let Ok(writer) = end.get_writer() {
                // Behind a half-written event only a blank line makes the next one legible, and a last one that lacks it
                // is none to most readers.
                let mut end = b"\n\n".to_vec();
                let untold = metered.result.as_ref().err().filter(|_| !metered.fault_was_relayed);
                end.extend(untold.map(|fault| around.error_event(fault)).unwrap_or_default());
                if untold.is_some() || metered.lacks_blank_line {
                    let _client_gone = write(&writer, &end).await;
                }
                let _client_gone = JsFuture::from(writer.close()).await;
            }
            settle(record, metered.result, gone, around.started, now_ms())
        })
    });
    Ok(Outgoing { readable, writable, task })
}

/// Passes bytes on of which nobody knows what they are. Waits for the first of them. They are moved piece by piece and
/// never gathered: the caller takes one before the next is read. A reply that breaks off breaks the caller's off as well,
/// since nothing in it could tell. `length` is what was announced, if anything was.
///
/// # Errors
/// The fault with which the reply began.
pub async fn opaque(body: &ReadableStream, length: Option<u64>, around: Surroundings) -> Result<Outgoing, ReplyFault> {
    let pieces = Pieces::new(body, CHUNK_BYTES);
    let begun = match pieces.next_within(around.patience, None).await {
        Ok(Some(piece)) => Ok(piece),
        Ok(None) => Err(ReplyFault::Truncated),
        Err(fault) => Err(fault),
    };
    let mut piece = match begun {
        Ok(piece) => piece,
        Err(fault) => {
            around.abort.abort();
            return Err(fault);
        }
    };
    let (readable, writable) = length.map_or_else(pipe, pipe_of).map_err(|_| ReplyFault::Broken)?;
    let sink = writable.clone();
    let first_byte = now_ms().saturating_sub(around.started);
    let task = Box::new(move |mut record: RequestRecord| -> LocalBoxFuture<'static, RequestRecord> {
        Box::pin(async move {
            record.first_byte_ms = Some(first_byte);
            let Ok(writer) = sink.get_writer() else { return record };
            let mut client_closed = false;
            let result = loop {
                record.bytes_out = record.bytes_out.saturating_add(u64::from(piece.length()));
                // A client that takes nothing any more counts as gone when the time is up.
                let left = around.patience.left(now_ms()).max(BLOCK_INTERVAL_MS);
                let written = within(left, JsFuture::from(writer.write_with_chunk(&piece))).await;
                if written.is_none_or(|written| written.is_err()) {
                    client_closed = true;
                    break Err(ReplyFault::Broken);
                }
                // Silence counts from here on: the time that the client took for the last piece is not the provider's.
                match pieces.next_within(around.patience, Some(now_ms())).await {
                    Ok(Some(next)) => piece = next,
                    Ok(None) => break Ok(()),
                    Err(fault) => break Err(fault),
                }
            };
            client_closed |= around.abort.client_closed();
            let end = if result.is_ok() && !client_closed {
                writer.close()
            } else {
                around.abort.abort();
                writer.abort()
            };
            let _client_gone = JsFuture::from(end).await;
            record.told_or_estimated(None, 0);
            settle(record, result, client_closed, around.started, now_ms())
        })
    });
    Ok(Outgoing { readable, writable, task })
}

/// A reply of which nothing is known but this.
pub struct Opaque {
    /// Looks for its usage.
    pub recogniser: Recogniser,
    /// Whether it is charged by its length if it tells none.
    pub estimated: bool,
    /// Whether it is server-sent events.
    pub events: bool,
    /// Its length, if that was announced.
    pub length: Option<u64>,
}

/// Passes a reply on as it is, whatever it is. One that breaks off breaks off for the caller, too: events end with an error,
/// anything else without its end.
///
/// # Errors
/// [`ReplyFault::Broken`] if the runtime gives no stream.
pub fn passed(body: &ReadableStream, reply: Opaque, around: Surroundings) -> Result<Outgoing, ReplyFault> {
    let Opaque { recogniser, estimated, events, length } = reply;
    let branches = body.tee();
    let to_client: ReadableStream = branches.get(0).unchecked_into();
    let meter = Metering::new(&branches.get(1).unchecked_into(), recogniser);
    let (readable, writable) = length.map_or_else(pipe, pipe_of).map_err(|_| ReplyFault::Broken)?;
    let options = StreamPipeOptions::new();
    options.set_prevent_close(true);
    options.set_prevent_abort(true);
    let pump = JsFuture::from(to_client.pipe_to_with_options(&writable, &options));
    let end = writable.clone();
    let task = Box::new(move |mut record: RequestRecord| -> LocalBoxFuture<'static, RequestRecord> {
        Box::pin(async move {
            let Piped { metered, bytes, first_byte, client_left } = meter.run(pump, &around).await;
            record.bytes_out = bytes;
            if estimated || metered.told.is_some() {
                record.told_or_estimated(metered.told, metered.pieces);
            }
            record.first_byte_ms = first_byte.map(|at| at.saturating_sub(around.started));
            let gone = client_left || around.abort.client_closed();
            match &metered.result {
                Err(fault) if events && !metered.fault_was_relayed && !gone => {
                    if let Ok(writer) = end.get_writer() {
                        let error = [b"\n\n".as_slice(), &around.error_event(fault)].concat();
                        let _client_gone = write(&writer, &error).await;
                        let _client_gone = JsFuture::from(writer.close()).await;
                    }
                }
                result if !gone && (result.is_ok() || metered.fault_was_relayed) => {
                    let _client_gone = JsFuture::from(end.close()).await;
                }
                _ => {
                    let _already_gone = JsFuture::from(end.abort()).await;
                }
            }
            settle(record, metered.result, gone, around.started, now_ms())
        })
    });
    Ok(Outgoing { readable, writable, task })
}

/// What reads along with a reply that passes by.
trait ReadsAlong {
    /// Reads the next bytes.
    fn read(&mut self, bytes: &[u8]) -> Result<(), ReplyFault>;

    /// The reply has ended, with `fault` if it came to no good end.
    fn end(self, fault: Option<ReplyFault>) -> Metered;
}

impl ReadsAlong for Meter {
    fn read(&mut self, bytes: &[u8]) -> Result<(), ReplyFault> {
        Self::read(self, bytes)
    }

    fn end(mut self, fault: Option<ReplyFault>) -> Metered {
        let mut metered = self.finish(&mut Vec::new());
        // A stream that broke only after its finish reason is complete.
        if let Some(fault) = fault
            && metered.result == Err(ReplyFault::Truncated)
        {
            metered.result = Err(fault);
        }
        metered
    }
}

impl ReadsAlong for Recogniser {
    fn read(&mut self, bytes: &[u8]) -> Result<(), ReplyFault> {
        Self::read(self, bytes);
        Ok(())
    }

    fn end(mut self, fault: Option<ReplyFault>) -> Metered {
        let told = self.finish();
        let reported = self.reported();
        let fault_was_relayed = reported.is_some();
        let fault = reported.or(fault).or_else(|| self.is_cut().then_some(ReplyFault::Truncated));
        Metered {
            told,
            pieces: self.estimate(),
            result: fault.map_or(Ok(()), Err),
            fault_was_relayed,
            lacks_blank_line: false,
        }
    }
}

/// Reads along with a native stream.
struct Metering<M> {
    pieces: Pieces,
    meter: M,
    bytes: u64,
    first_byte: Option<u64>,
}

/// What became of a native stream.
struct Piped {
    metered: Metered,
    bytes: u64,
    first_byte: Option<u64>,
    client_left: bool,
}

/// How long a broken upstream may take to show on the second branch as well, in milliseconds.
const BREAK_SHOWS_WITHIN_MS: u64 = 50;

impl Metering<Meter> {
    /// Waits for the first bytes.
    async fn begin(&mut self, patience: Patience) -> Result<(), ReplyFault> {
        let Some(block) = self.pieces.next_within(patience, None).await? else { return Err(ReplyFault::Truncated) };
        self.take(&block)?;
        // The caller has not seen anything yet: it can still get an error status, or another provider's answer.
        self.meter.began_with_fault().map_or(Ok(()), Err)
    }
}

impl<M: ReadsAlong> Metering<M> {
    fn new(stream: &ReadableStream, meter: M) -> Self {
        Self { pieces: Pieces::new(stream, BLOCK_BYTES), meter, bytes: 0, first_byte: None }
    }

    /// Runs until both branches have ended: now and then looks at what has come.
    async fn run(mut self, mut pump: JsFuture, around: &Surroundings) -> Piped {
        let mut pumping = true;
        let mut pump_failed = false;
        let mut client_left = false;
        let fault = loop {
            if pumping {
                let tick = std::pin::pin!(sleep(BLOCK_INTERVAL_MS));
                if let Either::Left((result, _)) = select(&mut pump, tick).await {
                    pumping = false;
                    pump_failed = result.is_err();
                    if pump_failed {
                        client_left = !self.upstream_broke().await;
                        break Some(ReplyFault::Broken);
                    }
                }
            }
            // When bytes came while nobody looked is not known, so silence counts from the next look on.
            match self.pieces.next_within(around.patience, Some(now_ms())).await {
                Ok(None) => break None,
                Ok(Some(block)) => {
                    if let Err(fault) = self.take(&block) {
                        break Some(fault);
                    }
                }
                Err(fault) => break Some(fault),
            }
        };
        if fault.is_some() {
            around.abort.abort();
        }
        // The writable side is free once the pump has ended. It ends by itself, its source being exhausted or aborted,
        // unless the client takes nothing any more.
        if pumping {
            pump_failed = within(around.patience.left(now_ms()).max(BLOCK_INTERVAL_MS), pump)
                .await
                .is_none_or(|result| result.is_err());
        }
        let mut metered = self.meter.end(fault.or_else(|| pump_failed.then_some(ReplyFault::Broken)));
        metered.result = metered.result.map_err(|fault| scrubbed(fault, &around.scrubber));
        Piped { metered, bytes: self.bytes, first_byte: self.first_byte, client_left }
    }

    fn take(&mut self, block: &Uint8Array) -> Result<(), ReplyFault> {
        self.first_byte.get_or_insert(now_ms());
        self.bytes = self.bytes.saturating_add(u64::from(block.length()));
        self.meter.read(&block.to_vec())
    }

    /// Whose fault it is that the pump failed: a broken upstream breaks both branches (this one behind what it still
    /// holds), a client that left only its own.
    async fn upstream_broke(&mut self) -> bool {
        let until = now_ms().saturating_add(BREAK_SHOWS_WITHIN_MS);
        loop {
            let left = until.saturating_sub(now_ms());
            match within(left, self.pieces.next()).await {
                Some(Err(_)) => return true,
                Some(Ok(Some(block))) if left > 0 && self.take(&block).is_ok() => {}
                _ => return false,
            }
        }
    }
}

/// Passes a stream on through a processor. Waits for the first bytes that go out, so that a provider which begins with
/// an error gets an error status instead of a broken 200.
///
/// # Errors
/// The fault with which the stream began.
pub async fn processed(
    body: &ReadableStream,
    processor: Box<dyn StreamProcessor>,
    around: Surroundings,
) -> Result<Outgoing, ReplyFault> {
    let mut stream = Processed { pieces: Pieces::new(body, CHUNK_BYTES), processor, out: Vec::new(), began: false };
    let mut end = None;
    while stream.out.is_empty() && end.is_none() {
        end = stream.step(&around).await;
    }
    if let Some(Metered { result: Err(fault), fault_was_relayed: false, .. }) = &end
        && stream.out.is_empty()
    {
        return Err(fault.clone());
    }
    let (readable, writable) = pipe().map_err(|_| ReplyFault::Broken)?;
    let sink = writable.clone();
    let first_byte = now_ms().saturating_sub(around.started);
    let task = Box::new(move |mut record: RequestRecord| -> LocalBoxFuture<'static, RequestRecord> {
        Box::pin(async move {
            record.first_byte_ms = Some(first_byte);
            let Ok(writer) = sink.get_writer() else { return record };
            let mut client_closed = false;
            let metered = loop {
                if let Some(Metered { result: Err(fault), fault_was_relayed: false, .. }) = &end {
                    stream.processor.fail(&fault_problem(fault), &around.request_id, &mut stream.out);
                }
                record.bytes_out = record.bytes_out.saturating_add(stream.out.len() as u64);
                // A client that takes nothing any more counts as gone when the time is up.
                let left = around.patience.left(now_ms()).max(BLOCK_INTERVAL_MS);
                let written =
                    stream.out.is_empty() || within(left, write(&writer, &stream.out)).await.is_some_and(|w| w.is_ok());
                if !written {
                    client_closed = true;
                    around.abort.abort();
                    break end.unwrap_or_else(|| stream.processor.broken_off(ReplyFault::Broken));
                }
                stream.out.clear();
                if let Some(end) = end {
                    break end;
                }
                end = stream.step(&around).await;
            };
            record.told_or_estimated(metered.told, metered.pieces);
            client_closed |= around.abort.client_closed();
            if !client_closed {
                let _client_gone = JsFuture::from(writer.close()).await;
            }
            settle(record, metered.result, client_closed, around.started, now_ms())
        })
    });
    Ok(Outgoing { readable, writable, task })
}

struct Processed {
    pieces: Pieces,
    processor: Box<dyn StreamProcessor>,
    /// What waits to be written.
    out: Vec<u8>,
    began: bool,
}

impl Processed {
    /// Takes the next piece in; `Some` if that was the end.
    async fn step(&mut self, around: &Surroundings) -> Option<Metered> {
        // Silence counts from here on: the time that the client took for the last piece is not the provider's.
        let waiting_since = self.began.then(now_ms);
        let fault = match self.pieces.next_within(around.patience, waiting_since).await {
            Ok(Some(piece)) => {
                self.began = true;
                match self.processor.push(&piece.to_vec(), &mut self.out) {
                    Ok(()) => return None,
                    Err(fault) => fault,
                }
            }
            Ok(None) => {
                let metered = self.processor.finish(&mut self.out);
                let result = metered.result.map_err(|fault| scrubbed(fault, &around.scrubber));
                return Some(Metered { result, ..metered });
            }
            Err(fault) => fault,
        };
        around.abort.abort();
        Some(self.processor.broken_off(scrubbed(fault, &around.scrubber)))
    }
}
