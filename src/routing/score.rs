//! Figures by which candidates are compared, and the lots that are drawn among them.

use std::fmt;

/// What a candidate's place among the others of its route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// Its place in the list.
    Place(usize),
    /// How much of its share it is owed, in thousandths of a request, this one included.
    Owed(i64),
    /// A lot that was drawn; the smallest in millionths of a weight comes first.
    Lot(u64),
    /// A lot that is always the same for this session, user, prompt …; the smallest in millionths of a weight comes first.
    Pin(u64),
    /// Requests that are open there, for its weight in thousandths.
    Open {
        /// How many.
        open: u64,
        /// The weight, in thousandths.
        weight: u64,
    },
    /// The time to the first token, in milliseconds, times what is open there and one more, and more where it fails.
    Latency(u64),
    /// What the request would cost there, in nano-dollars; `None` if nobody knows.
    Cost(Option<u64>),
    /// In how many milliseconds it may be back.
    Back(Option<u64>),
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => write!(formatter, "place {place}"),
            Self::Owed(owed) => write!(formatter, "owed {owed}"),
            Self::Lot(lot) => write!(formatter, "lot {lot}"),
            Self::Pin(lot) => write!(formatter, "pinned lot {lot}"),
            Self::Open { open, weight } => write!(formatter, "{open} open for a weight of {weight}"),
            Self::Latency(millis) => write!(formatter, "{millis} ms"),
            Self::Cost(Some(nanos)) => write!(formatter, "{nanos} nano-dollars"),
            Self::Cost(None) => formatter.write_str("no price"),
            Self::Back(Some(millis)) => write!(formatter, "back in {millis} ms"),
            Self::Back(None) => formatter.write_str("back at a time that nobody knows"),
        }
    }
}

/// A hash of bytes on top of another. Not for secrets: whoever chooses the bytes can choose where they lead.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let folded = words.iter().fold(seed, |state, word| mix(state ^ u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    // The length tells a text from the same with zeros behind it.
    mix(mix(folded ^ u64::from_le_bytes(last)) ^ bytes.len() as u64)
}

/// Spreads every bit over all others (the finalizer of `splitmix64`).
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The lot of somebody with this weight: whoever has the smallest of several wins, each as likely as its weight says; the
/// second smallest is a fair draw among the rest, and so on (Efraimidis and Spirakis, 2006).
pub(super) fn lot(random: u64, weight: u64) -> f64 {
    // Between 0 and 1, neither of them reached.
    let uniform = ((random >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -uniform.ln() / weight.max(1) as f64
}

/// A lot in millionths, as it is told.
pub(super) fn told(lot: f64) -> u64 {
    (lot * 1e6) as u64
}

#[cfg(test)]
mod tests;
