//! What is no chat, translated: a JSON body becomes the provider's, and its whole reply the caller's. What a provider
//! speaks itself passes by [`Outbound::faithful`](super::outbound::Outbound::faithful) instead.

mod bedrock;
mod cohere;
pub mod embeddings;
mod google;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::notes::Notes;
use super::{Target, UpstreamRequest};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::Told;

pub use bedrock::embeddings as bedrock_embeddings;
pub use cohere::{EMBEDDINGS as COHERE_EMBEDDINGS, RERANK as COHERE_RERANK};
pub use google::embeddings as google_embeddings;

/// How a provider serves an API that is no chat, by translation.
pub trait Side: Sync {
    /// The request, from the caller's body.
    ///
    /// # Errors
    /// A 400 naming the place that this provider cannot serve.
    fn request(&self, body: &Value, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem>;

    /// The caller's reply, from a whole successful one, and what it used if the provider told.
    ///
    /// # Errors
    /// [`ReplyFault`] if it is no successful reply after all.
    fn reply(&self, body: &Value, asked: &SideAsked<'_>) -> Result<(Value, Option<Told>), ReplyFault>;

    /// What of the request the reply depends on.
    fn echo(&self, body: &Value) -> Map<String, Value>;
}

/// What a reply depends on.
#[derive(Debug, Clone, Copy)]
pub struct SideAsked<'a> {
    /// What of the request the reply depends on, as [`Side::echo`] told it.
    pub members: &'a Map<String, Value>,
    /// The model as the caller named it.
    pub model: &'a str,
    /// The reply's id, where the provider gives none.
    pub id: &'a str,
}

/// The request to a target from the caller's body.
///
/// # Errors
/// A 400 naming the place at fault.
pub fn translated(side: &dyn Side, target: Target<'_>, api: Api, body: &Value) -> Result<UpstreamRequest, Problem> {
    let mut notes = Notes::new(api, target.strict_params);
    let mut request = side.request(body, target, &mut notes)?;
    request.dropped_params = notes.into_dropped();
    Ok(request)
}
