//! What a dialect hands to the connection loop.

use std::borrow::Cow;

use serde_json::Value;

use crate::wire::{Event, EventStream, Framing};

/// A reply before directives shape it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: Cow<'static, str>,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Body,
}

/// A body that is there at once, or one that is streamed.
#[derive(Debug)]
pub enum Body {
    Whole(Vec<u8>),
    Stream(EventStream),
}

impl Reply {
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: Cow::Borrowed("application/json"),
            headers: Vec::new(),
            body: Body::Whole(body.into()),
        }
    }

    /// A success of known length.
    pub fn whole(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: Cow::Borrowed(content_type), ..Self::json(200, body) }
    }

    pub fn stream(content_type: &'static str, stream: EventStream) -> Self {
        Self { status: 200, content_type: Cow::Borrowed(content_type), headers: Vec::new(), body: Body::Stream(stream) }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Puts a stream into another framing, with its own errors. A whole reply stays as it is.
    pub fn framed(mut self, framing: Framing, content_type: &'static str, error: Event, exception: Event) -> Self {
        if let Body::Stream(stream) = &mut self.body {
            stream.framing = framing;
            stream.error = error;
            stream.exception = Some(exception);
            self.content_type = Cow::Borrowed(content_type);
        }
        self
    }

    /// Cuts the body short, so that it is no longer JSON.
    pub fn truncated(mut self) -> Self {
        if let Body::Whole(bytes) = &mut self.body {
            bytes.truncate(bytes.len() / 2);
        }
        self
    }
}

/// An error that a dialect renders in its own shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub message: String,
    /// The dialect's error type; each dialect has one for every status.
    pub kind: Option<String>,
    pub code: Option<String>,
    pub param: Option<String>,
}

impl ApiError {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind: None, code: None, param: None }
    }

    /// A request that does not fit.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

/// Sets a member of an object.
pub fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// A string as JSON.
pub fn json_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// What goes wrong by default at a status, in words.
pub fn status_message(status: u16) -> &'static str {
    match status {
        400 => "The request could not be processed as it was sent.",
        401 => "Incorrect API key provided.",
        402 => "Your credit balance is too low to access this API.",
        403 => "Your API key does not have permission to use the specified resource.",
        404 => "The requested model does not exist or you do not have access to it.",
        408 => "Request timed out.",
        409 => "The request conflicts with another request.",
        413 => "Request exceeds the maximum size.",
        422 => "The request was well formed but could not be followed.",
        429 => "Rate limit reached for requests. Please try again later.",
        500 => "The server had an error while processing your request. Sorry about that!",
        502 => "Bad gateway.",
        503 => "The server is currently unavailable. Please try again later.",
        504 => "The upstream server did not answer in time.",
        529 => "Overloaded",
        _ => "The request failed.",
    }
}

/// The words that follow a status in a status line.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        529 => "Site is overloaded",
        _ => "Status",
    }
}
