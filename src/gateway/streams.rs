//! The runtime's byte streams: read in pieces or whole, and made from both ends.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    ReadableStream, ReadableStreamByobReader, ReadableStreamGetReaderOptions, ReadableStreamReaderMode, WritableStream,
    WritableStreamDefaultWriter,
};

use super::dispatch::UpstreamAbort;
use super::patience::Patience;
use crate::http::shell::{now_ms, within};
use crate::protocol::chat::ReplyFault;

/// How much is read at once where every byte is looked at.
pub(super) const CHUNK_BYTES: u32 = 32 * 1024;

#[wasm_bindgen]
extern "C" {
    /// Passes bytes from its writable to its readable side without script.
    pub type IdentityTransformStream;

    /// One.
    #[wasm_bindgen(constructor, catch)]
    pub fn new() -> Result<IdentityTransformStream, JsValue>;

    /// Where bytes come out.
    #[wasm_bindgen(method, getter)]
    pub fn readable(this: &IdentityTransformStream) -> ReadableStream;

    /// Where bytes go in.
    #[wasm_bindgen(method, getter)]
    pub fn writable(this: &IdentityTransformStream) -> WritableStream;

    /// As [`IdentityTransformStream`], for so many bytes: the request or reply that is made of it has their number as its
    /// length, and fails where they are others.
    type FixedLengthStream;

    #[wasm_bindgen(constructor, catch)]
    fn new(length: f64) -> Result<FixedLengthStream, JsValue>;

    #[wasm_bindgen(method, getter)]
    fn readable(this: &FixedLengthStream) -> ReadableStream;

    #[wasm_bindgen(method, getter)]
    fn writable(this: &FixedLengthStream) -> WritableStream;

    /// What a read of a stream resolves to.
    type ReadResult;

    #[wasm_bindgen(method, getter)]
    fn done(this: &ReadResult) -> bool;

    #[wasm_bindgen(method, getter)]
    fn value(this: &ReadResult) -> Option<Uint8Array>;
}

/// Reads a byte stream in pieces of up to a given size, each as soon as any of it is there.
pub(super) struct Pieces {
    reader: ReadableStreamByobReader,
    size: u32,
}

impl Pieces {
    pub(super) fn new(stream: &ReadableStream, size: u32) -> Self {
        let options = ReadableStreamGetReaderOptions::new();
        options.set_mode(ReadableStreamReaderMode::Byob);
        Self { reader: stream.get_reader_with_options(&options).unchecked_into(), size }
    }

    pub(super) async fn next(&self) -> Result<Option<Uint8Array>, ReplyFault> {
        let view = Uint8Array::new_with_length(self.size);
        let read = JsFuture::from(self.reader.read_with_array_buffer_view(&view)).await;
        let result: ReadResult = read.map_err(|_| ReplyFault::Broken)?.unchecked_into();
        if result.done() {
            return Ok(None);
        }
        Ok(result.value())
    }

    /// The next piece, or the fault that it did not come in time.
    pub(super) async fn next_within(
        &self,
        patience: Patience,
        last_byte: Option<u64>,
    ) -> Result<Option<Uint8Array>, ReplyFault> {
        let (wait, fault) = patience.next(now_ms(), last_byte);
        // A read of what is there already would win against any timer.
        if wait == 0 {
            return Err(fault);
        }
        within(wait, self.next()).await.unwrap_or(Err(fault))
    }
}

/// A body that did not come to its end.
pub struct Partial {
    /// Why not.
    pub fault: ReplyFault,
    /// Bytes of it that came.
    pub bytes: usize,
}

/// Reads a whole body of at most `max_bytes`.
///
/// # Errors
/// [`Partial`] if it breaks off, takes too long or is too large; the upstream request is then ended.
pub async fn whole(
    body: Option<&ReadableStream>,
    patience: Patience,
    abort: &UpstreamAbort,
    max_bytes: usize,
) -> Result<Vec<u8>, Partial> {
    let Some(body) = body else { return Ok(Vec::new()) };
    let pieces = Pieces::new(body, CHUNK_BYTES);
    let mut bytes: Vec<u8> = Vec::new();
    let mut last_byte = None;
    let fault = loop {
        match pieces.next_within(patience, last_byte).await {
            Ok(None) => return Ok(bytes),
            Ok(Some(piece)) if bytes.len().saturating_add(piece.length() as usize) <= max_bytes => {
                last_byte = Some(now_ms());
                append(&mut bytes, &piece);
            }
            Ok(Some(_)) => break ReplyFault::TooLarge { max: max_bytes },
            Err(fault) => break fault,
        }
    };
    abort.abort();
    Err(Partial { fault, bytes: bytes.len() })
}

/// Adds a piece to what is there.
pub(super) fn append(bytes: &mut Vec<u8>, piece: &Uint8Array) {
    let at = bytes.len();
    bytes.resize(at.saturating_add(piece.length() as usize), 0);
    if let Some(end) = bytes.get_mut(at..) {
        piece.copy_to(end);
    }
}

/// A readable and a writable side between which the runtime passes bytes.
pub(super) fn pipe() -> Result<(ReadableStream, WritableStream), JsValue> {
    let pipe = IdentityTransformStream::new()?;
    Ok((pipe.readable(), pipe.writable()))
}

/// As [`pipe`], for so many bytes.
pub(super) fn pipe_of(length: u64) -> Result<(ReadableStream, WritableStream), JsValue> {
    let pipe = FixedLengthStream::new(length as f64)?;
    Ok((pipe.readable(), pipe.writable()))
}

/// Writes bytes and waits until they are taken.
///
/// # Errors
/// Why the other side takes no more.
pub(super) async fn write(writer: &WritableStreamDefaultWriter, bytes: &[u8]) -> Result<(), JsValue> {
    JsFuture::from(writer.write_with_chunk(&Uint8Array::from(bytes))).await.map(drop)
}
