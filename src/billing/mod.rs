//! What requests cost. Integers only: prices in pico-dollars a token, sums in nano-dollars, so that nothing is lost
//! between a request and an invoice.

pub mod catalog;
mod cost;
mod date;
mod money;
mod parts;
mod prices;
mod pricing;

pub use cost::cost;
pub use date::{Day, DayError};
pub use money::{Multiplier, Nanodollars, Picodollars, PriceError, RequestPrice, TokenPrice};
pub use parts::{Parts, Rates};
pub use prices::Prices;
pub use pricing::{AskPrices, PriceCard, PriceSource, Pricing, Variant};
