//! What a caller is still sending, passed on to the provider as it comes.

use futures::future::LocalBoxFuture;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, WritableStreamDefaultWriter};

use super::forms::{self, FIELDS, model_after_file};
use super::held::Held;
use super::incoming::Incoming;
use super::streams::{pipe, pipe_of, write};
use crate::error::Problem;
use crate::protocol::multipart::{self, Form, MultipartFault, Pipe};
use crate::protocol::sound;
use crate::providers::UpstreamRequest;

/// The rest of a caller's body.
pub struct Upload {
    /// As it comes.
    pub incoming: Incoming,
    /// What it goes through, if it is a form.
    pub form: Option<Pipe>,
    /// How long the body is that the provider gets, what goes before the rest included; `None` if that is not known.
    pub length: Option<u64>,
    /// What goes before the rest.
    pub held: Held,
}

/// A form that a caller sends.
pub struct FormBody {
    content_type: String,
    state: State,
    held: Held,
}

enum State {
    /// All of it is there, so that it can be sent again.
    Whole(Form),
    /// Its beginning is there, and the rest is coming; the last is the length that was announced.
    Coming(Form, Incoming, Option<u64>),
    /// It has been sent and is gone.
    Spent,
}

/// What a form is taken in by.
pub struct Taking {
    /// The content type, with its boundary.
    pub content_type: String,
    /// The length that was announced.
    pub length: Option<u64>,
    /// The model that is named beside the form.
    pub named: Option<String>,
    /// How much is held at most.
    pub hold_bytes: usize,
    /// How much may come.
    pub max_bytes: usize,
    /// How long the caller may pause, in milliseconds.
    pub wait_ms: u64,
}

impl FormBody {
    /// Takes in a form: until it has named its model, or to its end if it is announced to be short. With what the rest of
    /// the way needs of it.
    ///
    /// # Errors
    /// 400 if it is none or names its model too late, 503 if the isolate holds too much; or as the body comes.
    pub async fn take(body: &ReadableStream, taking: Taking) -> Result<(Self, Vec<u8>), Problem> {
        let Taking { content_type, length, named, hold_bytes, max_bytes, wait_ms } = taking;
        let mut form = Form::new(&multipart::boundary(&content_type)?, FIELDS);
        let (mut incoming, mut held) = (Incoming::new(body, max_bytes, wait_ms), Held::default());
        let is_short = length.is_some_and(|length| length <= hold_bytes as u64);
        let is_whole = loop {
            let is_known = named.is_some() || form.field("model")?.is_some();
            // How long a recording is its beginning may say.
            let is_seen = form.file().len() >= sound::HEAD_BYTES || form.held() >= hold_bytes;
            if is_known && is_seen && !is_short {
                break false;
            }
            if form.held() >= hold_bytes && !is_short {
                return Err(model_after_file(hold_bytes));
            }
            let Some(piece) = incoming.next().await? else { break true };
            match held.grow(piece.length() as usize) {
                // It need not be held: it goes out now, and cannot be sent again.
                Err(_) if is_known => {
                    form.hold(&piece.to_vec())?;
                    break false;
                }
                grown => grown?,
            }
            form.hold(&piece.to_vec())?;
        };
        let bytes = if is_whole { form.held() as u64 } else { length.unwrap_or(max_bytes as u64) };
        let fields = forms::described(&form, named.as_deref(), bytes)?;
        let state = match is_whole {
            true if !form.is_complete() => return Err(MultipartFault::Truncated.into()),
            true => State::Whole(form),
            false => State::Coming(form, incoming, length),
        };
        Ok((Self { content_type, state, held }, fields))
    }

    /// How many bytes it has, as far as that is known.
    pub fn bytes(&self) -> u64 {
        match &self.state {
            State::Whole(form) => form.held() as u64,
            State::Coming(form, _, length) => length.unwrap_or(form.held() as u64),
            State::Spent => 0,
        }
    }

    /// Whether it has been sent and cannot be sent again.
    pub fn is_spent(&self) -> bool {
        matches!(self.state, State::Spent)
    }

    /// Puts it into a request, with this model's name; the result is what of it is still coming.
    pub fn give(&mut self, request: &mut UpstreamRequest, model: &str) -> Option<Upload> {
        request.content_type = Some(self.content_type.clone());
        if let State::Whole(form) = &self.state {
            request.body = form.with(Some(model));
            return None;
        }
        let State::Coming(form, incoming, length) = std::mem::replace(&mut self.state, State::Spent) else {
            return None;
        };
        let length = length.zip(form.growth(model)).and_then(|(length, growth)| length.checked_add_signed(growth));
        let (first, pipe) = form.pipe(Some(model.to_owned()));
        request.body = first;
        Some(Upload { incoming, form: Some(pipe), length, held: std::mem::take(&mut self.held) })
    }
}

/// Why a body has not been sent to its end.
pub enum Stopped {
    /// It did not come as it should: what the caller is told.
    Caller(Problem),
    /// The provider takes no more of it.
    Provider,
}

/// The task that sends a body.
pub type Sending = LocalBoxFuture<'static, Result<(), Stopped>>;

impl Upload {
    /// The body for the provider, and the task that feeds it: `first`, then the rest.
    ///
    /// # Errors
    /// If the runtime gives no stream.
    pub fn begin(self, first: Vec<u8>) -> Result<(ReadableStream, Sending), JsValue> {
        let (readable, writable) = match self.length {
            Some(length) => pipe_of(length)?,
            None => pipe()?,
        };
        let writer = writable.get_writer()?;
        let sending = Box::pin(async move {
            let sent = self.send(first, &writer).await;
            // What was sent so far must not be taken for the whole.
            let ended = JsFuture::from(if sent.is_ok() { writer.close() } else { writer.abort() }).await;
            sent.and_then(|()| ended.map(drop).map_err(|_| Stopped::Provider))
        });
        Ok((readable, sending))
    }

    async fn send(self, first: Vec<u8>, writer: &WritableStreamDefaultWriter) -> Result<(), Stopped> {
        let Self { mut incoming, mut form, held, .. } = self;
        if !first.is_empty() {
            write(writer, &first).await.map_err(|_| Stopped::Provider)?;
        }
        drop((first, held));
        let mut out = Vec::new();
        while let Some(piece) = incoming.next().await.map_err(Stopped::Caller)? {
            let written = match &mut form {
                None => JsFuture::from(writer.write_with_chunk(&piece)).await.map(drop),
                Some(form) => {
                    out.clear();
                    form.pass(&piece.to_vec(), &mut out).map_err(stopped)?;
                    if out.is_empty() { Ok(()) } else { write(writer, &out).await }
                }
            };
            written.map_err(|_| Stopped::Provider)?;
        }
        form.map_or(Ok(()), |form| form.finish().map_err(stopped))
    }
}

fn stopped(fault: MultipartFault) -> Stopped {
    Stopped::Caller(fault.into())
}
