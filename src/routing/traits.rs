//! What routing may know of a request, and of those who could answer it.

use super::board::Standing;
use crate::gateway::plan::Unusable;

/// A request as conditions and stickiness see it. Whoever implements it may do so lazily: nothing is asked for that the
/// routes in question have no use for.
pub trait RequestView {
    /// A header, by its name in any case.
    fn header(&self, name: &str) -> Option<&str>;
    /// A field of the body, one at its top, as it stands there: JSON.
    fn param(&self, name: &str) -> Option<&[u8]>;
    /// Whether a stream is asked for.
    fn stream(&self) -> bool;
    /// Estimated tokens of the input.
    fn input_tokens(&self) -> u64;
    /// The account's id.
    fn account(&self) -> &str;
    /// The id of the user that the credential belongs to.
    fn user(&self) -> Option<&str>;
    /// The key's id.
    fn key_id(&self) -> &str;
}

/// Those who could answer a request.
pub trait View {
    /// Whether a deployment could answer this request, its health aside.
    ///
    /// # Errors
    /// Why not.
    fn usable(&self, deployment: &str) -> Result<(), Unusable>;
    /// The health of a deployment at a provider.
    fn standing(&self, provider: &str, deployment: &str) -> Standing;
    /// How many requests of this isolate's are open at a deployment.
    fn in_flight(&self, deployment: &str) -> u64;
    /// What this request is expected to cost there, in nano-dollars; `None` if there is no price.
    fn cost(&self, deployment: &str) -> Option<u64>;
}
