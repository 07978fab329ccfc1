//! Credentials that need work before a request goes out: signatures, and tokens that are minted and kept. All of it is
//! pure; the clock's time comes as an argument, and asking a token endpoint is the shell's business.

pub mod minted;
pub mod sigv4;
pub mod slot;
