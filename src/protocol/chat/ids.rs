//! Ids and positions of tool calls: providers' own are of many kinds, the gateway's are one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::event::ChatEvent;

/// An id in an alphabet and length that a provider insists on. What fits stays as it is; anything else is replaced by
/// something that fits and depends on the original alone, so that a call and its result, and every later turn of the
/// conversation, agree on it.
pub fn fit(id: &str, allowed: fn(char) -> bool, max: usize) -> Cow<'_, str> {
    if !id.is_empty() && id.len() <= max && id.chars().all(allowed) {
        return Cow::Borrowed(id);
    }
    let mark = hash(id);
    let mark: String = (0..8_u32).map(|nth| base36(mark >> nth.saturating_mul(6))).collect();
    let plain = |c: char| if allowed(c) && c.is_ascii() { c } else { 'x' };
    let kept: String = id.chars().map(plain).take(max.saturating_sub(mark.len())).collect();
    Cow::Owned(format!("{kept}{mark}"))
}

/// As [`fit`], but of exactly nine letters and digits, which is what Mistral takes.
pub fn fit_nine(id: &str) -> Cow<'_, str> {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    let mark = hash(id);
    Cow::Owned((0..9_u32).map(|nth| base36(mark >> nth.saturating_mul(6))).collect())
}

/// What most providers take: letters, digits, `_` and `-`.
pub fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// FNV-1a: the same everywhere and for ever, and nothing secret rests on it.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn base36(bits: u64) -> char {
    char::from_digit(u32::try_from(bits & 63).unwrap_or(0) % 36, 36).unwrap_or('x')
}

/// The calls of one choice: providers count them by indexes of their own, by ids, or not at all.
#[derive(Debug, Default)]
pub struct CallIndex {
    /// By position: whether arguments have come.
    calls: Vec<bool>,
    /// The positions of calls by the provider's index; a later call takes an index over.
    by_index: BTreeMap<u32, (usize, String)>,
    /// The positions of calls by the provider's id.
    by_id: BTreeMap<String, usize>,
}

impl CallIndex {
    /// Takes a piece of a call: begins the call if it is a new one, and passes the arguments on.
    pub fn take(&mut self, choice: u32, piece: CallPiece, out: &mut Vec<ChatEvent>) {
        let id = piece.id.filter(|id| !id.is_empty());
        let name = piece.name.filter(|name| !name.is_empty());
        let position = self.position(piece.index, id.as_deref(), name.is_some()).unwrap_or_else(|| {
            let position = self.calls.len();
            let id = id.unwrap_or_else(|| format!("call_{choice}_{position}"));
            self.calls.push(false);
            self.by_id.insert(id.clone(), position);
            if let Some(index) = piece.index {
                self.by_index.insert(index, (position, id.clone()));
            }
            let (name, custom) = (name.unwrap_or_default(), piece.custom);
            out.push(ChatEvent::CallStart { choice, index: number(position), id, name, custom });
            position
        });
        if !piece.arguments.is_empty() {
            if let Some(has_arguments) = self.calls.get_mut(position) {
                *has_arguments = true;
            }
            out.push(ChatEvent::CallArguments { choice, index: number(position), fragment: piece.arguments });
        }
    }

    /// The call that a piece continues; `None` if it begins one. Indexes are the providers' own: they may begin at 1,
    /// all be 0 (Gemini's OpenAI form, which gives each call its id), or be missing. An id that changes from piece to
    /// piece (vLLM) begins a call only together with a name.
    fn position(&self, index: Option<u32>, id: Option<&str>, named: bool) -> Option<usize> {
        match (index, id) {
            (Some(index), id) => {
                let (position, known) = self.by_index.get(&index)?;
                let is_another = named && id.is_some_and(|id| id != known);
                (!is_another).then_some(*position)
            }
            (None, Some(id)) => self.by_id.get(id).copied(),
            (None, None) if named => None,
            (None, None) => self.calls.len().checked_sub(1),
        }
    }

    /// The position of the latest call.
    pub fn last(&self) -> Option<u32> {
        self.calls.len().checked_sub(1).map(number)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The calls are whole: one without arguments still has some, an empty object.
    pub fn complete(&mut self, choice: u32, out: &mut Vec<ChatEvent>) {
        for (position, has_arguments) in self.calls.iter_mut().enumerate() {
            if !std::mem::replace(has_arguments, true) {
                out.push(ChatEvent::CallArguments { choice, index: number(position), fragment: "{}".to_owned() });
            }
        }
    }
}

/// A piece of a tool call.
#[derive(Debug, Default)]
pub struct CallPiece {
    /// The provider's index.
    pub index: Option<u32>,
    /// The provider's id.
    pub id: Option<String>,
    /// The tool's name.
    pub name: Option<String>,
    /// The next of its arguments.
    pub arguments: String,
    /// Whether the tool takes free text.
    pub custom: bool,
}

/// A call's position as it stands on the wire.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn a_fitted_id_fits_and_stays(id in any::<String>(), max in 16..80_usize) {
            let fitted = fit(&id, plain, max).into_owned();
            prop_assert!(!fitted.is_empty() && fitted.len() <= max && fitted.chars().all(plain), "{fitted}");
            prop_assert_eq!(fit(&fitted, plain, max), fitted.as_str());
            let nine = fit_nine(&id).into_owned();
            prop_assert!(nine.len() == 9 && nine.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{nine}");
            prop_assert_eq!(fit_nine(&nine), nine.as_str());
        }
    }

    #[test]
    fn ids_that_differ_stay_different() {
        let ids: Vec<String> = (0..100_000).map(|nth| format!("call:{nth}")).collect();
        let fitted: HashSet<_> = ids.iter().map(|id| fit(id, plain, 20)).collect();
        let nine: HashSet<_> = ids.iter().map(|id| fit_nine(id)).collect();
        assert_eq!((fitted.len(), nine.len()), (ids.len(), ids.len()));
    }
}
