//! Tools that take free text, for models whose API knows functions alone: the text becomes a function's one argument,
//! and the caller gets it as text again.

use serde_json::{Value, json};

use super::notes::Notes;
use crate::error::Problem;
use crate::protocol::chat::{ChatEvent, ChatRequest, Function, PartBody, ReplyFault, ToolBody};
use crate::protocol::frames::{EventReader, RawEvent};

/// The request with functions in place of tools that take text, and the names of those; `None` if there are none, in the
/// history either.
///
/// # Errors
/// A 400 naming a grammar, which nobody would see to, if this caller wants to hear of it that way.
pub fn as_functions(chat: &ChatRequest, notes: &mut Notes) -> Result<Option<(ChatRequest, Vec<String>)>, Problem> {
    let is_custom = |body: &PartBody| matches!(body, PartBody::Call { custom: true, .. });
    let offered = chat.tools.offered.iter().any(|tool| matches!(tool.body, ToolBody::Custom { .. }));
    let called = chat.messages.iter().flat_map(|message| &message.parts).any(|part| is_custom(&part.body));
    if !offered && !called {
        return Ok(None);
    }
    let (mut chat, mut names) = (chat.clone(), Vec::new());
    for tool in &mut chat.tools.offered {
        let ToolBody::Custom { name, description, format } = &tool.body else { continue };
        let grammar = format.as_ref().and_then(grammar);
        if grammar.is_some() {
            notes.drop_named(&format!("{}.format", tool.at))?;
        }
        let about = [description.clone(), grammar].into_iter().flatten().collect::<Vec<_>>().join("\n\n");
        names.push(name.clone());
        tool.body = ToolBody::Function(Function {
            name: name.clone(),
            description: (!about.is_empty()).then_some(about),
            parameters: Some(json!({
                "type": "object",
                "properties": {"input": {"type": "string"}},
                "required": ["input"],
                "additionalProperties": false,
            })),
            strict: None,
        });
    }
    for part in chat.messages.iter_mut().flat_map(|message| &mut message.parts) {
        if let PartBody::Call { arguments, custom: custom @ true, .. } = &mut part.body {
            *arguments = json!({"input": arguments}).to_string();
            *custom = false;
        }
    }
    Ok(Some((chat, names)))
}

/// What a model that is not held to a grammar is told of it.
fn grammar(format: &Value) -> Option<String> {
    let of = |name: &str| format.get(name).or_else(|| format.pointer(&format!("/grammar/{name}")))?.as_str();
    let (syntax, definition) = (of("syntax").unwrap_or("given"), of("definition")?);
    Some(format!("`input` must follow this grammar ({syntax}):\n{definition}"))
}

/// Reads a reply in which calls of such functions are calls with text.
pub struct CustomReader {
    reader: Box<dyn EventReader>,
    events: Vec<ChatEvent>,
    names: Vec<String>,
    /// Calls that are under way: choice, position, and the text so far.
    open: Vec<(u32, u32, InputText)>,
}

impl CustomReader {
    /// A reader over the dialect's own. `names` are the functions' names.
    pub fn new(reader: Box<dyn EventReader>, names: Vec<String>) -> Self {
        Self { reader, events: Vec::new(), names, open: Vec::new() }
    }

    fn pass_on(&mut self, out: &mut Vec<ChatEvent>) {
        for mut event in std::mem::take(&mut self.events) {
            match &mut event {
                ChatEvent::CallStart { choice, index, name, custom, .. } if self.names.contains(name) => {
                    *custom = true;
                    self.open.push((*choice, *index, InputText::default()));
                }
                ChatEvent::CallArguments { choice, index, fragment } => {
                    let is_it = |(of, at, _): &&mut (u32, u32, InputText)| of == choice && at == index;
                    if let Some((_, _, text)) = self.open.iter_mut().find(is_it) {
                        *fragment = text.push(fragment);
                        if fragment.is_empty() {
                            continue;
                        }
                    }
                }
                ChatEvent::Finish { choice, .. } => self.close(Some(*choice), out),
                _ => {}
            }
            out.push(event);
        }
    }

    /// Gives what is still held of a choice's calls, or of all.
    fn close(&mut self, choice: Option<u32>, out: &mut Vec<ChatEvent>) {
        for (of, index, text) in self.open.extract_if(.., |(of, _, _)| choice.is_none_or(|choice| *of == choice)) {
            let fragment = text.rest();
            if !fragment.is_empty() {
                out.push(ChatEvent::CallArguments { choice: of, index, fragment });
            }
        }
    }
}

impl EventReader for CustomReader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.event(event, &mut self.events);
        self.pass_on(out);
        result
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.whole(body, &mut self.events);
        self.pass_on(out);
        result
    }

    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let result = self.reader.ended(&mut self.events);
        self.pass_on(out);
        self.close(None, out);
        result
    }
}

/// The text in `{"input": "…"}`, given on as it comes. Whatever else a model writes is held until its end.
#[derive(Debug, Default)]
struct InputText {
    state: State,
    held: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text's first character.
    #[default]
    Before,
    /// Within the text; an escape that is not complete is held.
    Within,
    /// Behind the text.
    Behind,
    /// The arguments have another form.
    Other,
}

impl InputText {
    fn push(&mut self, fragment: &str) -> String {
        let mut out = String::new();
        match self.state {
            State::Behind => {}
            State::Other => self.held.push_str(fragment),
            State::Within => self.read(fragment, &mut out),
            State::Before => {
                self.held.push_str(fragment);
                match beginning(&self.held) {
                    Beginning::Unclear => {}
                    Beginning::Other => self.state = State::Other,
                    Beginning::Text(at) => {
                        self.state = State::Within;
                        let text = self.held.split_off(at);
                        self.held.clear();
                        self.read(&text, &mut out);
                    }
                }
            }
        }
        out
    }

    fn read(&mut self, text: &str, out: &mut String) {
        for character in text.chars() {
            if self.state == State::Behind {
                return;
            }
            match (self.held.len(), character) {
                (0, '"') => self.state = State::Behind,
                (0, '\\') => self.held.push('\\'),
                (0, plain) => out.push(plain),
                // Half of a character outside the basic plane, and its other half does not follow.
                (6, other) if other != '\\' => {
                    self.held.clear();
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.read(other.encode_utf8(&mut [0; 4]), out);
                }
                _ => {
                    self.held.push(character);
                    if let Some(decoded) = escaped(&self.held) {
                        self.held.clear();
                        out.push(decoded);
                    }
                }
            }
        }
    }

    /// What is left when the call is complete.
    fn rest(self) -> String {
        match self.state {
            State::Within | State::Behind => String::new(),
            State::Before | State::Other => match serde_json::from_str::<Value>(&self.held) {
                Ok(Value::Object(members)) if members.is_empty() => String::new(),
                Ok(Value::String(text)) => text,
                Ok(value) => match value.get("input").and_then(Value::as_str) {
                    Some(text) => text.to_owned(),
                    None => self.held,
                },
                Err(_) => self.held,
            },
        }
    }
}

enum Beginning {
    Unclear,
    Other,
    /// The text begins at this byte.
    Text(usize),
}

/// Whether arguments begin as `{"input": "` does.
fn beginning(arguments: &str) -> Beginning {
    let mut rest = arguments;
    for token in ["{", "\"input\"", ":", "\""] {
        rest = rest.trim_start();
        match rest.strip_prefix(token) {
            Some(behind) => rest = behind,
            None if token.starts_with(rest) => return Beginning::Unclear,
            None => return Beginning::Other,
        }
    }
    Beginning::Text(arguments.len().saturating_sub(rest.len()))
}

/// The character that an escape stands for; `None` while it is not complete.
fn escaped(escape: &str) -> Option<char> {
    let is_high = |escape: &str| {
        let unit = escape.get(2..6).and_then(|hex| u16::from_str_radix(hex, 16).ok());
        unit.is_some_and(|unit| (0xd800..0xdc00).contains(&unit))
    };
    let is_unicode = escape.starts_with("\\u");
    let is_whole = match escape.len() {
        2 => !is_unicode,
        6 => !is_high(escape),
        length => length >= 12,
    };
    // Two-unit escapes whose second part is none, and letters that escape nothing, are no JSON.
    let decode = || serde_json::from_str::<String>(&format!("\"{escape}\"")).ok()?.chars().next();
    is_whole.then(|| decode().unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Provider, StructuredOutput};
    use crate::protocol::inbound::{Inbound as _, chat::Chat};
    use crate::providers::Target;
    use crate::providers::anthropic::Anthropic;
    use crate::providers::outbound::{decode_body, translated};

    fn read(pieces: &[&str]) -> String {
        let mut text = InputText::default();
        let mut out: String = pieces.iter().map(|piece| text.push(piece)).collect();
        out.push_str(&text.rest());
        out
    }

    #[test]
    fn text_comes_as_it_is_written() {
        let mut text = InputText::default();
        let given: Vec<String> =
            ["{\"in", "put\" : \"a\\", "nb\\ud8", "3d\\ude00", "c\"", "}"].map(|it| text.push(it)).into();
        assert_eq!(given, ["", "a", "\nb", "😀", "c", ""]);
        assert_eq!(text.rest(), "");
    }

    #[test]
    fn what_has_another_form_is_given_at_the_end() {
        assert_eq!(read(&["{\"a\":1,", "\"input\":\"b\"}"]), "b");
        assert_eq!(read(&["{", "}"]), "");
        assert_eq!(read(&["\"te", "xt\""]), "text");
        assert_eq!(read(&["plain ", "words"]), "plain words");
        assert_eq!(read(&["{\"input\": 5}"]), "{\"input\": 5}");
        assert_eq!(read(&["{\"input\":\"\\ud83dx\\q\"}"]), "\u{fffd}x\u{fffd}");
    }

    #[test]
    fn tools_with_text_go_out_and_come_back_over_a_dialect_of_functions() {
        let provider: Provider =
            serde_json::from_value(json!({"dialect": "anthropic", "base_url": "https://a.example"})).unwrap();
        let target = Target {
            provider: &provider,
            upstream_model: "claude-opus-5",
            max_output_tokens: 64,
            structured_output: StructuredOutput::Native,
            strict_params: false,
        };
        let grammar = json!({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}});
        let body = json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": "Go."},
                {"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls \"a\""}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "a"},
            ],
            "tools": [{"type": "custom", "custom": {"name": "sh", "description": "Runs it.", "format": grammar}}],
            "tool_choice": {"type": "custom", "custom": {"name": "sh"}},
        });
        let chat = Chat.read(body.to_string().as_bytes()).unwrap();
        let request = translated(&Anthropic, target, &chat).unwrap();
        assert_eq!(request.dropped_params, ["tools[0].format"]);
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["messages"][1]["content"][0]["input"], json!({"input": "ls \"a\""}));
        assert_eq!(sent["tools"][0]["input_schema"]["required"], json!(["input"]));
        let about = sent["tools"][0]["description"].as_str().unwrap();
        assert!(about.starts_with("Runs it.") && about.ends_with("(lark):\nstart: WORD"), "{about}");
        assert_eq!(sent["tool_choice"], json!({"type": "tool", "name": "sh"}));

        let reply = json!({"type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
            {"type": "tool_use", "id": "c2", "name": "sh", "input": {"input": "cat a\n"}},
            {"type": "tool_use", "id": "c3", "name": "other", "input": {"input": "x"}},
        ]});
        let events = decode_body(&Anthropic, target, &request.stand_ins, reply.to_string().as_bytes()).unwrap();
        let calls: Vec<(String, bool)> = events
            .iter()
            .filter_map(|event| match event {
                ChatEvent::CallStart { name, custom, .. } => Some((name.clone(), *custom)),
                _ => None,
            })
            .collect();
        assert_eq!(calls, [("sh".to_owned(), true), ("other".to_owned(), false)]);
        let of = |wanted: u32| -> String {
            let fragment = |event: &ChatEvent| match event {
                ChatEvent::CallArguments { index, fragment, .. } if *index == wanted => Some(fragment.clone()),
                _ => None,
            };
            events.iter().filter_map(fragment).collect()
        };
        assert_eq!((of(0).as_str(), of(1).as_str()), ("cat a\n", "{\"input\":\"x\"}"));
    }

    proptest! {
        #[test]
        fn any_text_comes_through_any_cuts(text in any::<String>(), ascii in any::<bool>(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut arguments = json!({"input": text}).to_string();
            if ascii {
                arguments = arguments.chars().flat_map(|it| match it.is_ascii() {
                    true => vec![it.to_string()],
                    false => it.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
                }).collect();
            }
            let characters: Vec<char> = arguments.chars().collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(characters.len())).collect();
            at.extend([0, characters.len()]);
            at.sort_unstable();
            let pieces: Vec<String> = at.windows(2).map(|it| characters[it[0]..it[1]].iter().collect()).collect();
            prop_assert_eq!(read(&pieces.iter().map(String::as_str).collect::<Vec<_>>()), text);
        }
    }
}
