//! A caller's body on its way in.

use js_sys::Uint8Array;
use web_sys::ReadableStream;

use super::streams::{CHUNK_BYTES, Pieces, append};
use crate::error::{Kind, Problem};
use crate::http::middleware::too_large;
use crate::http::shell::within;

/// Reads the caller's body of at most `max_bytes`.
///
/// # Errors
/// 413 as soon as it is too large, 408 if it does not arrive, 400 if it breaks off.
pub async fn request_body(body: Option<ReadableStream>, max_bytes: usize, wait_ms: u64) -> Result<Vec<u8>, Problem> {
    let Some(body) = body else { return Ok(Vec::new()) };
    let mut incoming = Incoming::new(&body, max_bytes, wait_ms);
    let mut bytes = Vec::new();
    while let Some(piece) = incoming.next().await? {
        append(&mut bytes, &piece);
    }
    Ok(bytes)
}

/// The caller's body as it comes, of at most so many bytes.
pub struct Incoming {
    pieces: Pieces,
    max_bytes: usize,
    wait_ms: u64,
    came: usize,
}

impl Incoming {
    /// A body within these bounds.
    pub fn new(body: &ReadableStream, max_bytes: usize, wait_ms: u64) -> Self {
        Self { pieces: Pieces::new(body, CHUNK_BYTES), max_bytes, wait_ms, came: 0 }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// As [`request_body`].
    pub async fn next(&mut self) -> Result<Option<Uint8Array>, Problem> {
        match within(self.wait_ms, self.pieces.next()).await {
            Some(Ok(None)) => Ok(None),
            Some(Ok(Some(piece))) => {
                self.came = self.came.saturating_add(piece.length() as usize);
                if self.came > self.max_bytes { Err(too_large(self.max_bytes)) } else { Ok(Some(piece)) }
            }
            Some(Err(_)) => Err(Problem::new(Kind::InvalidRequest, "incomplete_body", "The request body broke off.")),
            None => {
                let message = format!("The request body did not arrive: nothing came for {} ms.", self.wait_ms);
                Err(Problem::new(Kind::RequestTimeout, "request_timeout", message))
            }
        }
    }

    /// How many bytes have come.
    pub fn came(&self) -> usize {
        self.came
    }
}
