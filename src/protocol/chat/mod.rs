//! The canonical chat: one request and one sequence of reply events that every dialect is translated to and from,
//! lossless for what the dialects share.
//!
//! Inbound dialects build a [`ChatRequest`] and write [`ChatEvent`]s; outbound dialects write requests from the one and
//! read replies into the other. A whole reply becomes the events that a stream of it would have had, so that one reader
//! and one writer a dialect serve both.

mod event;
mod fault;
pub mod ids;
mod message;
mod place;
mod request;

pub use event::{ChatEvent, Citation, FinishReason, SoundPiece};
pub use fault::ReplyFault;
pub use message::{CacheMark, Lineage, Message, Part, PartBody, ReasoningPart, Role, Signature, Source, TextPart};
pub use place::{List, Place, Within};
pub use request::{
    CallerFacts, ChatRequest, Effort, Format, Function, Output, Reasoning, Sampling, ThinkMode, Tool, ToolBody,
    ToolChoice, Tools,
};

/// Turns an upstream's reply into events. Feed it every piece, then call `finish` once.
pub trait ReplyDecoder {
    /// Decodes the next bytes, which may break off anywhere.
    ///
    /// # Errors
    /// [`ReplyFault`] if the provider reported an error or sent what cannot be understood.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;

    /// The reply has ended.
    ///
    /// # Errors
    /// [`ReplyFault::Truncated`] unless it is complete.
    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault>;
}
