//! Which candidates answer a request, in which order, and when another attempt is made.

pub mod board;
pub mod conditions;
pub mod outcome;
pub mod score;
pub mod sticky;
pub mod strategy;
pub mod traits;
pub mod tree;
