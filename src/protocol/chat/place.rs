//! Where the caller wrote something: what an error points at.

use std::fmt;

/// A place in the caller's body. It costs nothing until an error is written from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The list that it is in.
    pub list: List,
    /// The position in that list, from 0.
    pub nth: u32,
    /// The place within the item.
    pub within: Within,
}

/// A list of the caller's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `messages` (Chat Completions, Messages).
    Messages,
    /// `input` (Responses).
    Input,
    /// `input` as one text (Responses).
    InputText,
    /// `system` (Messages).
    System,
    /// `instructions` (Responses).
    Instructions,
    /// `prompt` (Completions).
    Prompt,
    /// `tools`.
    Tools,
}

/// A place within an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The item as a whole.
    Whole,
    /// Its `content`, where that is one text.
    Content,
    /// A part of its `content`.
    Part(u32),
    /// One of its `tool_calls`.
    Call(u32),
    /// One of its `thinking_blocks`.
    Thinking(u32),
    /// One of its `images`.
    Image(u32),
}

impl Place {
    /// An item of a list.
    pub fn item(list: List, nth: usize) -> Self {
        Self { list, nth: small(nth), within: Within::Whole }
    }

    /// A place within the same item.
    #[must_use]
    pub fn within(self, within: Within) -> Self {
        Self { within, ..self }
    }

    /// A part of the same item's content.
    #[must_use]
    pub fn part(self, nth: usize) -> Self {
        self.within(Within::Part(small(nth)))
    }

    /// A picture of the same item's.
    #[must_use]
    pub fn image(self, nth: usize) -> Self {
        self.within(Within::Image(small(nth)))
    }

    /// A tool call of the same item.
    #[must_use]
    pub fn call(self, nth: usize) -> Self {
        self.within(Within::Call(small(nth)))
    }
}

fn small(nth: usize) -> u32 {
    u32::try_from(nth).unwrap_or(u32::MAX)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list {
            List::Messages => write!(f, "messages[{}]", self.nth)?,
            List::Input => write!(f, "input[{}]", self.nth)?,
            List::System => write!(f, "system[{}]", self.nth)?,
            List::Tools => write!(f, "tools[{}]", self.nth)?,
            List::InputText => f.write_str("input")?,
            List::Instructions => f.write_str("instructions")?,
            List::Prompt => f.write_str("prompt")?,
        }
        match self.within {
            Within::Whole => Ok(()),
            Within::Content => f.write_str(".content"),
            Within::Part(nth) => write!(f, ".content[{nth}]"),
            Within::Call(nth) => write!(f, ".tool_calls[{nth}]"),
            Within::Thinking(nth) => write!(f, ".thinking_blocks[{nth}]"),
            Within::Image(nth) => write!(f, ".images[{nth}]"),
        }
    }
}
