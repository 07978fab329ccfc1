//! Reasoning that stands in the text itself, between `<think>` and `</think>` at its beginning.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Divides a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct ThinkTags {
    state: State,
    /// What may be the beginning of a mark.
    held: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Within,
    After,
}

/// A piece of either.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Thought(String),
    Text(String),
}

impl ThinkTags {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) -> Vec<Said> {
        let mut out = Vec::new();
        self.held.push_str(piece);
        if self.state == State::Before {
            let begun = self.held.trim_start();
            if let Some(thought) = begun.strip_prefix(OPEN) {
                self.held = thought.trim_start_matches('\n').to_owned();
                self.state = State::Within;
            } else if !OPEN.starts_with(begun) {
                self.state = State::After;
            } else {
                return out;
            }
        }
        if self.state == State::Within {
            if let Some((thought, text)) = self.held.split_once(CLOSE) {
                let (thought, text) = (thought.to_owned(), text.trim_start_matches('\n').to_owned());
                out.extend(said(Said::Thought, thought));
                self.held = text;
                self.state = State::After;
            } else {
                let kept = (1..CLOSE.len())
                    .rev()
                    .find(|length| CLOSE.get(..*length).is_some_and(|beginning| self.held.ends_with(beginning)));
                let until = self.held.len().saturating_sub(kept.unwrap_or(0));
                let held = self.held.split_off(until);
                out.extend(said(Said::Thought, std::mem::replace(&mut self.held, held)));
            }
        }
        if self.state == State::After {
            out.extend(said(Said::Text, std::mem::take(&mut self.held)));
        }
        out
    }

    /// What is left once there is no more.
    pub(super) fn finish(&mut self) -> Option<Said> {
        let rest = std::mem::take(&mut self.held);
        said(if self.state == State::Within { Said::Thought } else { Said::Text }, rest)
    }
}

fn said(kind: fn(String) -> Said, text: String) -> Option<Said> {
    (!text.is_empty()).then(|| kind(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn divided(pieces: &[&str]) -> (String, String) {
        let mut tags = ThinkTags::default();
        let mut all: Vec<Said> = pieces.iter().flat_map(|piece| tags.push(piece)).collect();
        all.extend(tags.finish());
        let (mut thought, mut text) = (String::new(), String::new());
        for said in all {
            match said {
                Said::Thought(more) => thought.push_str(&more),
                Said::Text(more) => text.push_str(&more),
            }
        }
        (thought, text)
    }

    #[test]
    fn only_what_stands_first_is_reasoning() {
        let is = |thought: &str, text: &str| (thought.to_owned(), text.to_owned());
        assert_eq!(divided(&["<think>\na\n</think>\n\nb"]), is("a\n", "b"));
        assert_eq!(divided(&["a <think>b</think>"]), is("", "a <think>b</think>"));
        assert_eq!(divided(&["<th"]), is("", "<th"));
        assert_eq!(divided(&["<think>a</th"]), is("a</th", ""));
        assert_eq!(divided(&["<think>a</think>b</think>"]), is("a", "b</think>"));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in "(<think>)?[ab<>/é]{0,6}(</think>)?[ab<é]{0,4}", at in any::<prop::sample::Index>()) {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let (before, after) = text.split_at(places[at.index(places.len())]);
            prop_assert_eq!(divided(&[before, after]), divided(&[&text]));
        }
    }
}
