//! What providers want otherwise in messages.

use super::super::json_edit::{Editor, List, contains, each, object, quoted, unquoted};
use super::super::notes::Notes;
use crate::error::Problem;

/// What becomes of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageQuirk {
    /// OpenAI's newer name of instructions is not known.
    DeveloperIsSystem,
    /// Of messages of a role, only these members are known.
    Known(&'static [(&'static str, &'static [&'static str])]),
    /// These members are not known.
    Lacks(&'static [&'static str]),
    /// Ids of calls have nine letters and digits.
    CallIds9,
    /// While the model thinks, its calls must come back with the reasoning before them.
    ReasoningBack,
    /// Between a tool's result and the user the model must have spoken.
    BridgeAfterTool,
    /// A message of the model's at the end must be marked as one to go on with.
    PrefixLast,
    /// After instructions user and model take turns, and the user begins and ends.
    Alternate,
    /// A user must speak.
    NeedsUser,
    /// Parts of this type are refused, with this advice.
    RefusePart(&'static str, &'static str),
    /// Files are `document_url`, and sound is its base64 alone.
    PartsOfMistral,
    /// Pictures by address are refused, with this advice.
    RefuseWebImages(&'static str),
}

impl MessageQuirk {
    /// Whether it can concern messages with this text.
    fn may_concern(self, messages: &[u8]) -> bool {
        match self {
            Self::DeveloperIsSystem => contains(messages, r#""developer""#),
            Self::Lacks(names) => names.iter().any(|name| contains(messages, name)),
            Self::CallIds9 => contains(messages, r#""tool_call"#),
            Self::ReasoningBack => contains(messages, r#""tool_calls""#),
            Self::BridgeAfterTool => contains(messages, r#""tool""#),
            Self::PrefixLast => contains(messages, r#""assistant""#),
            Self::RefusePart(kind, _) => contains(messages, kind),
            Self::PartsOfMistral => [r#""file""#, r#""input_audio""#].iter().any(|kind| contains(messages, kind)),
            Self::RefuseWebImages(_) => contains(messages, "image_url"),
            Self::Known(_) | Self::Alternate | Self::NeedsUser => true,
        }
    }
}

/// What is asked of messages.
pub(super) struct Asked {
    pub quirks: &'static [MessageQuirk],
    /// What the model is to be told besides.
    pub instruction: Option<String>,
    /// Whether the model wants its reasoning back.
    pub reasoning_back: bool,
}

/// Messages as the provider wants them; `None` if they are so already.
pub(super) fn edited(
    text: &[u8],
    asked: &Asked,
    is_translated: bool,
    notes: &mut Notes,
) -> Result<Option<Vec<u8>>, Problem> {
    let concerned = || asked.quirks.iter().any(|quirk| quirk.may_concern(text));
    if text.first() != Some(&b'[') || (asked.instruction.is_none() && !concerned()) {
        return Ok(None);
    }
    let mut list = List::read(text)?;
    for at in 0..list.len() {
        let Some(message) = list.get(at).filter(|message| message.first() == Some(&b'{')) else { continue };
        let members = object(message)?;
        let mut editor = Editor::new(&members);
        for quirk in asked.quirks {
            one(*quirk, asked, &mut editor, notes)?;
            // What is written anew has been judged where the caller's own places were known.
            if !is_translated {
                refused(*quirk, at, &editor)?;
            }
        }
        if editor.is_changed() {
            let message = editor.finish();
            list.set(at, message);
        }
    }
    if let Some(instruction) = &asked.instruction {
        list.insert(0, message("system", instruction));
    }
    for quirk in asked.quirks {
        together(*quirk, &mut list)?;
    }
    Ok(list.is_changed().then(|| list.finish()))
}

fn message(role: &str, text: &str) -> Vec<u8> {
    serde_json::json!({"role": role, "content": text}).to_string().into_bytes()
}

/// What replies bring along and callers send back without asking for anything by it.
const ECHOED: &[&str] = &["refusal", "annotations", "audio", "function_call", "reasoning_content", "reasoning", "id"];

fn one(quirk: MessageQuirk, asked: &Asked, editor: &mut Editor<'_>, notes: &mut Notes) -> Result<(), Problem> {
    let role = editor.text("role")?.unwrap_or_default();
    let mut leave_out = |at: usize, name: &str, editor: &mut Editor<'_>| -> Result<(), Problem> {
        if !ECHOED.contains(&name) && super::asks_for_anything(name, editor.value(at)) {
            notes.drop_named(&format!("messages[].{name}"))?;
        }
        editor.remove(at);
        Ok(())
    };
    match quirk {
        MessageQuirk::DeveloperIsSystem if role == "developer" => editor.put("role", r#""system""#),
        MessageQuirk::Known(roles) => {
            let known = roles.iter().find(|(known, _)| *known == role).map(|(_, members)| *members);
            for (at, name) in editor.names() {
                if known.is_some_and(|known| !known.contains(&name.as_str())) {
                    leave_out(at, &name, editor)?;
                }
            }
            Ok(())
        }
        MessageQuirk::Lacks(names) => {
            for name in names {
                if let Some(at) = editor.find(name)? {
                    leave_out(at, name, editor)?;
                }
            }
            Ok(())
        }
        MessageQuirk::CallIds9 => {
            if let Some(at) = editor.find("tool_call_id")?
                && let Some(id) = short_id(editor.value(at))
            {
                editor.set(at, id);
            }
            if let Some(at) = editor.find("tool_calls")?
                && let Some(calls) =
                    each(editor.value(at), &mut |_, call| super::within(call, "id", &mut |id| Ok(short_id(id))))?
            {
                editor.set(at, calls);
            }
            Ok(())
        }
        MessageQuirk::PartsOfMistral => {
            let Some(at) = editor.find("content")? else { return Ok(()) };
            if let Some(content) = each(editor.value(at), &mut |_, part| part_of_mistral(part))? {
                editor.set(at, content);
            }
            Ok(())
        }
        MessageQuirk::ReasoningBack if asked.reasoning_back && role == "assistant" => {
            let calls = editor.get("tool_calls")?.is_some_and(|calls| super::asks_for_anything("", calls));
            match calls && editor.text("reasoning_content")?.is_none() {
                // Nobody knows any more what it was.
                true => editor.put("reasoning_content", r#"" ""#),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A file or sound as Mistral has it; `None` if it is neither, or has nothing of it here.
/// <https://docs.mistral.ai/capabilities/document_qna> and `/capabilities/audio`
fn part_of_mistral(part: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    let part: serde_json::Value = serde_json::from_slice(part).unwrap_or_default();
    let text = |pointer: &str| part.pointer(pointer).and_then(serde_json::Value::as_str);
    Ok(match text("/type") {
        Some("file") => text("/file/file_data").map(|data| {
            let mut document = serde_json::json!({"type": "document_url", "document_url": data});
            if let (Some(name), Some(document)) = (text("/file/filename"), document.as_object_mut()) {
                document.insert("document_name".to_owned(), name.into());
            }
            document.to_string().into_bytes()
        }),
        Some("input_audio") => text("/input_audio/data")
            .map(|data| serde_json::json!({"type": "input_audio", "input_audio": data}).to_string().into_bytes()),
        _ => None,
    })
}

/// An id of nine letters and digits that stands for another; `None` if it is one itself.
fn short_id(id: &[u8]) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let id = unquoted(id)?;
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    // FNV-1a: the same id comes out the same in every turn.
    let mut hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let short = (0..9).filter_map(|_| {
        let letter = LETTERS.get(usize::try_from(hash.checked_rem(62)?).ok()?).copied();
        hash = hash.checked_div(62)?;
        letter.map(char::from)
    });
    Some(quoted(&short.collect::<String>()))
}

/// What the provider would refuse and nothing can be done about.
fn refused(quirk: MessageQuirk, at: usize, editor: &Editor<'_>) -> Result<(), Problem> {
    let (MessageQuirk::RefusePart(_, advice) | MessageQuirk::RefuseWebImages(advice)) = quirk else { return Ok(()) };
    let Some(content) = editor.get("content")?.filter(|content| content.first() == Some(&b'[')) else { return Ok(()) };
    let parts: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
    for (part_at, part) in parts.as_array().into_iter().flatten().enumerate() {
        let member = match quirk {
            MessageQuirk::RefusePart(kind, _) if part.get("type").is_some_and(|own| own == kind) => kind,
            MessageQuirk::RefuseWebImages(_) => {
                let image = part.get("image_url");
                let url = image.and_then(|image| image.get("url").unwrap_or(image).as_str());
                if url.is_some_and(|url| url.starts_with("http")) { "image_url.url" } else { continue }
            }
            _ => continue,
        };
        let place = format!("messages[{at}].content[{part_at}].{member}");
        return Err(Problem::invalid(&place, format!("{place}: {advice}")));
    }
    Ok(())
}

fn role_of(message: Option<&[u8]>) -> String {
    let members = message.and_then(|message| object(message).ok());
    let role = members.as_ref().and_then(|members| Some(members.raw(members.unique("role").ok()??)));
    role.and_then(unquoted).unwrap_or_default()
}

/// What concerns the messages' order.
fn together(quirk: MessageQuirk, list: &mut List<'_>) -> Result<(), Problem> {
    let roles = |list: &List<'_>| (0..list.len()).map(|at| role_of(list.get(at))).collect::<Vec<_>>();
    match quirk {
        MessageQuirk::BridgeAfterTool => {
            let roles = roles(list);
            for (at, pair) in roles.windows(2).enumerate().rev() {
                if pair == ["tool", "user"] {
                    list.insert(at.saturating_add(1), message("assistant", "."));
                }
            }
        }
        MessageQuirk::PrefixLast => {
            let last = list.len().saturating_sub(1);
            if let Some(text) = list.get(last).filter(|text| role_of(Some(text)) == "assistant") {
                let members = object(text)?;
                let mut editor = Editor::new(&members);
                editor.put("prefix", "true")?;
                let text = editor.finish();
                list.set(last, text);
            }
        }
        MessageQuirk::NeedsUser if !roles(list).iter().any(|role| role == "user" || role == "tool") => {
            list.insert(list.len(), message("user", "."));
        }
        MessageQuirk::Alternate => alternate(list, roles(list))?,
        _ => {}
    }
    Ok(())
}

/// Instructions first, as one message (later ones count as the user's); then turns of user and model, of which the user has the first and the last.
fn alternate(list: &mut List<'_>, mut roles: Vec<String>) -> Result<(), Problem> {
    let begun = roles.iter().position(|role| role != "system").unwrap_or(roles.len());
    for (at, role) in roles.iter_mut().enumerate().skip(begun).filter(|(_, role)| *role == "system") {
        let members = object(list.get(at).unwrap_or_default())?;
        let mut editor = Editor::new(&members);
        editor.put("role", r#""user""#)?;
        let later = editor.finish();
        list.set(at, later);
        "user".clone_into(role);
    }
    let mut before = "";
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for (at, role) in roles.iter().enumerate() {
        match groups.last_mut() {
            Some((_, until)) if role == before => *until = at,
            _ => groups.push((at, at)),
        }
        before = role;
    }
    for (from, until) in groups.into_iter().rev().filter(|(from, until)| from != until) {
        let merged = merged(list, from, until)?;
        list.set(from, merged);
        for at in (from.saturating_add(1)..=until).rev() {
            list.remove(at);
        }
    }
    let first = (0..list.len()).find(|at| role_of(list.get(*at)) != "system");
    if let Some(first) = first.filter(|at| role_of(list.get(*at)) == "assistant") {
        list.insert(first, message("user", "."));
    }
    if matches!(role_of(list.get(list.len().saturating_sub(1))).as_str(), "assistant" | "system") {
        list.insert(list.len(), message("user", "."));
    }
    Ok(())
}

/// Messages of one role as one, with all that they contain.
fn merged(list: &List<'_>, from: usize, until: usize) -> Result<Vec<u8>, Problem> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for at in from..=until {
        let members = object(list.get(at).unwrap_or_default())?;
        let content = Editor::new(&members);
        match content.get("content")? {
            Some(text) if text.first() == Some(&b'"') => {
                parts.push([br#"{"type":"text","text":"#.as_slice(), text, b"}"].concat());
            }
            Some(list) if list.first() == Some(&b'[') => {
                let inner = List::read(list)?;
                parts.extend((0..inner.len()).filter_map(|at| inner.get(at).map(<[u8]>::to_vec)));
            }
            _ => {}
        }
    }
    let members = object(list.get(from).unwrap_or_default())?;
    let mut editor = Editor::new(&members);
    editor.put("content", [b"[".as_slice(), &parts.join(&b","[..]), b"]"].concat())?;
    Ok(editor.finish())
}
