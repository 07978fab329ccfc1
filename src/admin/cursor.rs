//! Where the next page of a list begins. Lists are ordered by a number and a text, descending; a cursor is the last
//! entry's two, so that what is added meanwhile shifts no page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::Problem;

/// The largest number that D1 and JavaScript keep exact.
pub const MAX_NUMBER: u64 = 9_007_199_254_740_991;

/// The last entry of the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// What the list is ordered by first, mostly a time.
    pub number: u64,
    /// What the list is ordered by then, mostly an id.
    pub text: String,
}

impl Cursor {
    /// Before every entry.
    pub fn start() -> Self {
        Self { number: MAX_NUMBER, text: "\u{10ffff}".to_owned() }
    }

    /// Reads one that a caller brings; none is the start.
    ///
    /// # Errors
    /// 400 for anything that [`Self::write`] has not written.
    pub fn read(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Self::start()) };
        let parsed = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<(u64, String)>(&bytes).ok())
            .filter(|(number, _)| *number <= MAX_NUMBER);
        parsed.map(|(number, text)| Self { number, text }).ok_or_else(|| {
            Problem::invalid("cursor", "This is not a cursor of this list. Take `next_cursor` of the page before.")
        })
    }

    /// As a caller gets it.
    pub fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!([self.number, self.text]).to_string())
    }
}

/// How many entries a page has.
///
/// # Errors
/// 400 for more than `max`, or none.
pub fn page_size(asked: Option<u32>, default: u32, max: u32) -> Result<u32, Problem> {
    let size = asked.unwrap_or(default.min(max));
    if (1..=max).contains(&size) {
        return Ok(size);
    }
    Err(Problem::invalid("limit", format!("A page has 1 to {max} entries.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "x", "bnVsbA", "WzEsMl0", "WzkwMDcxOTkyNTQ3NDA5OTIsImEiXQ"] {
            assert_eq!(Cursor::read(Some(text)).unwrap_err().status, 400, "{text}");
        }
        assert_eq!(Cursor::read(None).unwrap(), Cursor::start());
        assert_eq!(page_size(None, 50, 20).unwrap(), 20);
        assert!(page_size(Some(0), 50, 200).is_err() && page_size(Some(201), 50, 200).is_err());
    }

    proptest! {
        #[test]
        fn a_cursor_survives_the_journey(number in 0..=MAX_NUMBER, text in ".{0,40}") {
            let cursor = Cursor { number, text };
            prop_assert_eq!(Cursor::read(Some(&cursor.write())).unwrap(), cursor);
        }
    }
}
