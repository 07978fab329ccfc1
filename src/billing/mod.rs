//! What requests cost. Integers only: prices in pico-dollars a token, sums in nano-dollars, so that nothing is lost
//! between a request and an invoice.

mod cost;
mod money;

pub use cost::{Rates, cost};
pub use money::{Nanodollars, Picodollars, PriceError, RequestPrice, TokenPrice};
