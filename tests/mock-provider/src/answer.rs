//! What the assistant says.
//!
//! The answer is chosen by a hash of the conversation: the same request always gets the same words, streamed or
//! not, and different requests get different ones. An answer is also cut into the pieces in which it is
//! streamed; one piece counts as one completion token.

use crate::directives::Directives;
use crate::schema;

use serde_json::Value;

/// Longest part of a question that is echoed, in characters.
const ECHO_CHARS: usize = 160;
/// Tokens an image adds to a prompt.
const IMAGE_TOKENS: u64 = 85;
/// Tokens a tool definition adds to a prompt.
const TOOL_TOKENS: u64 = 20;
/// Tokens every message adds to a prompt beside its text.
const MESSAGE_TOKENS: u64 = 4;

/// Multi-byte text: accents, CJK, emoji with joiners, combining marks, U+2028, right-to-left, outside the BMP.
const UNICODE_TEXT: &str = "Grüße aus dem naïven Café — 你好，世界！ こんにちは 🌍 👩‍🚀 e\u{301}a\u{308} \
                            line\u{2028}separator مرحبا 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ½ ✓ done.";

/// Words that fill an answer of a given length.
const FILLER: &str = "the gateway passed this request to its demo provider which answers with plain words so that \
                      every part of the way can be watched and measured without a model or a bill ";

/// What a dialect found in a request, as far as the answer depends on it.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Hash of everything that was said.
    pub hash: u64,
    /// Text of the last user message that has any, without directives.
    pub question: String,
    /// Number of user messages that are not tool results.
    pub turns: usize,
    pub images: usize,
    pub documents: usize,
    pub has_system: bool,
    /// Texts of the tool results that end the conversation; empty when it does not end with one.
    pub tool_results: Vec<String>,
    pub prompt_tokens: u64,
}

impl Conversation {
    /// Takes a message's text into account: hash and tokens (a quarter of its bytes, rounded up, and four).
    pub fn count_message(&mut self, role: &str, text_bytes: usize) {
        self.hash = fnv(self.hash, role.as_bytes());
        let bytes = u64::try_from(text_bytes).unwrap_or(u64::MAX);
        self.prompt_tokens = self.prompt_tokens.saturating_add(bytes.div_ceil(4)).saturating_add(MESSAGE_TOKENS);
    }

    pub fn hash_text(&mut self, text: &str) {
        self.hash = fnv(self.hash, text.as_bytes());
    }

    /// Adds what images and tool definitions cost.
    pub fn count_extras(&mut self, tools: usize) {
        let images = u64::try_from(self.images).unwrap_or_default();
        let tools = u64::try_from(tools).unwrap_or_default();
        self.prompt_tokens = self
            .prompt_tokens
            .saturating_add(images.saturating_mul(IMAGE_TOKENS))
            .saturating_add(tools.saturating_mul(TOOL_TOKENS));
    }
}

/// FNV-1a, which is the same on every machine and in every build.
pub fn fnv(start: u64, bytes: &[u8]) -> u64 {
    let start = if start == 0 { 0xcbf2_9ce4_8422_2325 } else { start };
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)).rotate_left(5)
}

/// Why an answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing more to say.
    Stop,
    /// The token limit.
    Length,
    /// This stop sequence.
    StopSequence(String),
}

/// A part of a text, in bytes: from, to.
pub type Span = (u32, u32);

/// A text and the pieces in which it is streamed.
#[derive(Debug)]
pub struct Answer {
    pub text: String,
    pub pieces: Vec<Span>,
    pub ending: Ending,
}

impl Answer {
    /// Completion tokens.
    pub fn tokens(&self) -> u64 {
        u64::try_from(self.pieces.len()).unwrap_or(u64::MAX)
    }
}

/// What kind of text is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Want<'a> {
    Prose,
    /// Any JSON object.
    JsonObject,
    /// A JSON document valid for this schema.
    Json(&'a Value),
}

/// What bounds an answer.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub max_tokens: Option<u64>,
    pub stop: Vec<String>,
}

/// Composes an answer. `variant` numbers the choices of one reply.
pub fn compose(
    conversation: &Conversation,
    directives: &Directives,
    want: Want<'_>,
    limits: &Limits,
    variant: usize,
) -> Answer {
    let salt = if variant == 0 { conversation.hash } else { fnv(conversation.hash, &variant.to_le_bytes()) };
    let (text, mut pieces) = match directives {
        Directives { text: Some(text), .. } => cut(text.clone(), directives),
        Directives { big_reply: Some(bytes), .. } => cut(filler(salt, *bytes), directives),
        Directives { chunks: Some(chunks), .. } => words(salt, *chunks, directives),
        Directives { unicode: true, .. } => cut(UNICODE_TEXT.to_owned(), directives),
        _ => {
            let text = match want {
                Want::Prose => prose(conversation, salt),
                Want::JsonObject => {
                    let object = serde_json::json!({
                        "answer": prose(conversation, salt),
                        "question": echo(&conversation.question),
                    });
                    object.to_string()
                }
                Want::Json(schema) => schema::example(schema, &conversation.question, 0).to_string(),
            };
            cut(text, directives)
        }
    };
    let mut text = text;
    if let Some(bytes) = directives.huge {
        insert_huge(&mut text, &mut pieces, &filler(salt, bytes));
    }
    let mut answer = Answer { text, pieces, ending: Ending::Stop };
    apply_stop(&mut answer, &limits.stop);
    apply_limit(&mut answer, limits.max_tokens);
    answer
}

/// The thinking that precedes an answer: `words` words, or a sentence of its own.
pub fn thinking(conversation: &Conversation, words_wanted: Option<u64>) -> Answer {
    let (text, pieces) = match words_wanted {
        Some(count) => {
            let count = usize::try_from(count).unwrap_or_default().min(1_000_000);
            words(conversation.hash, count, &Directives::default())
        }
        None => {
            let text = format!(
                "The user said '{}'. I am the demo provider, so a short and friendly answer that says so is best.",
                echo(&conversation.question)
            );
            let pieces = word_spans(&text);
            (text, pieces)
        }
    };
    Answer { text, pieces, ending: Ending::Stop }
}

/// Sentence that introduces a tool call.
pub fn before_tools(directives: &Directives, tool: &str) -> Answer {
    let text = directives.text.clone().unwrap_or_else(|| format!("I'll use {tool} for that."));
    let (text, pieces) = cut(text, directives);
    Answer { text, pieces, ending: Ending::Stop }
}

/// What a decision about tool calls rests on.
#[derive(Debug, Clone, Copy)]
pub struct ToolQuestion<'a> {
    pub tools: usize,
    /// The request forbids calls.
    pub forbidden: bool,
    /// The request demands a call.
    pub forced: bool,
    /// More than one call is welcome.
    pub parallel: bool,
    pub conversation: &'a Conversation,
}

/// How many tool calls the answer makes.
pub fn tool_calls(question: ToolQuestion<'_>, directives: &Directives) -> usize {
    if question.tools == 0 || question.forbidden {
        return 0;
    }
    let after_result = !question.conversation.tool_results.is_empty();
    let wanted = match directives.tools {
        Some(0) => 0,
        Some(count) if question.forced || !after_result => count,
        _ if question.forced => 1,
        _ if !after_result && asks_for_tool(&question.conversation.question) => 1,
        _ => 0,
    };
    if question.parallel { wanted } else { wanted.min(1) }
}

fn asks_for_tool(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .any(|word| ["weather", "tool", "tools"].iter().any(|wanted| word.eq_ignore_ascii_case(wanted)))
}

/// Picks one of several by a hash. `place` makes choices of one answer independent of each other.
fn pick<'a>(from: &[&'a str], salt: u64, place: u32) -> &'a str {
    let count = u64::try_from(from.len()).unwrap_or(1).max(1);
    let mixed = salt.rotate_right(place * 11).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    usize::try_from(mixed % count).ok().and_then(|at| from.get(at)).copied().unwrap_or_default()
}

const HELLO: [&str; 4] = [
    "Hello! It's good to hear from you.",
    "Hi there, and welcome!",
    "Hello and welcome!",
    "Hi! Thanks for stopping by.",
];
const AGAIN: [&str; 4] = [
    "Thanks for writing again.",
    "Good to have you back.",
    "Still here, and still happy to help.",
    "Sure, let's go on.",
];
const IDENTITY: [&str; 4] = [
    "I'm the demo provider behind this gateway: my answers come from a small script, not from a language model.",
    "You've reached the gateway's demo provider, which answers with prepared sentences so that you can try \
     everything without an API key.",
    "This is the demo provider that comes with the gateway, so no outside model was called and nothing was spent.",
    "I'm a stand-in that lives behind the gateway, here so that your first requests work before any real provider \
     is connected.",
];
const ASKED: [&str; 4] = [
    "You asked '{}', and that is a question for a real model to answer.",
    "Your question, '{}', went through the gateway and reached me word for word.",
    "You'd like to know: '{}' A connected model would take it from here.",
    "I received your question '{}' and can confirm that the whole way there and back works.",
];
const SAID: [&str; 4] = [
    "You wrote '{}', and it reached me word for word.",
    "I read your message, '{}', exactly as you sent it.",
    "Your message was '{}', and a connected model would take it from here.",
    "I received '{}' and can confirm that the whole way there and back works.",
];
const GREETED: [&str; 3] = [
    "You said '{}', which is a fine way to start.",
    "Your '{}' arrived safely.",
    "'{}' to you, too: your message made it through the gateway.",
];
const NEXT: [&str; 4] = [
    "When you're ready, connect a provider and send the same request again.",
    "Add a provider of your own and the same request will get a real answer.",
    "Try streaming, tools or an image next: I can play along with all of them.",
    "Have a look at the request log, where you'll find this exchange with its tokens and its timing.",
];

fn prose(conversation: &Conversation, salt: u64) -> String {
    let question = conversation.question.trim();
    let mut sentences: Vec<String> = Vec::with_capacity(8);
    if !conversation.tool_results.is_empty() {
        let results: Vec<String> = conversation.tool_results.iter().map(|result| echo(result)).collect();
        sentences.push(format!("Here is what the tool returned: {}.", results.join("; ")));
        if !question.is_empty() {
            sentences.push(format!("That is what I can tell you about '{}'.", echo(question)));
        }
        sentences.push(pick(&IDENTITY, salt, 1).to_owned());
        return sentences.join(" ");
    }
    let hello: &[&str] = if conversation.turns > 1 { &AGAIN } else { &HELLO };
    sentences.push(pick(hello, salt, 0).to_owned());
    sentences.push(pick(&IDENTITY, salt, 1).to_owned());
    if !question.is_empty() {
        let frames: &[&str] = if question.ends_with('?') {
            &ASKED
        } else if is_greeting(question) {
            &GREETED
        } else {
            &SAID
        };
        sentences.push(pick(frames, salt, 2).replacen("{}", &echo(question), 1));
    }
    if let Some(seen) = attachments(conversation) {
        sentences.push(seen);
    }
    if conversation.has_system {
        sentences.push("The system instructions arrived as well.".to_owned());
    }
    if conversation.turns > 1 {
        sentences.push(format!(
            "This is turn {} of our conversation, and I have the earlier ones in front of me.",
            conversation.turns
        ));
    }
    sentences.push(pick(&NEXT, salt, 3).to_owned());
    sentences.join(" ")
}

fn attachments(conversation: &Conversation) -> Option<String> {
    let count = |number: usize, thing: &str| match number {
        0 => None,
        1 => Some(format!("1 {thing}")),
        _ => Some(format!("{number} {thing}s")),
    };
    let seen = [count(conversation.images, "image"), count(conversation.documents, "document")];
    let seen: Vec<String> = seen.into_iter().flatten().collect();
    (!seen.is_empty()).then(|| format!("I can see {} in your message.", seen.join(" and ")))
}

fn is_greeting(text: &str) -> bool {
    let first = text.split(|c: char| !c.is_alphabetic()).find(|word| !word.is_empty());
    text.chars().count() <= 40
        && first.is_some_and(|word| {
            ["hello", "hi", "hey", "hallo", "bonjour", "greetings"]
                .iter()
                .any(|greeting| word.eq_ignore_ascii_case(greeting))
        })
}

/// A question on one line and of bounded length.
fn echo(text: &str) -> String {
    let mut short = String::new();
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            short.push(' ');
        }
        for c in word.chars() {
            if short.len() >= ECHO_CHARS {
                short.push('…');
                return short;
            }
            short.push(c);
        }
    }
    short
}

/// Cuts a text as the directives say: into so many pieces, of such a size, or into words.
fn cut(text: String, directives: &Directives) -> (String, Vec<Span>) {
    let pieces = match (directives.chunk_bytes, directives.chunks) {
        (Some(bytes), _) => sized_spans(&text, bytes),
        (None, Some(count)) => equal_spans(&text, count),
        (None, None) => word_spans(&text),
    };
    (text, pieces)
}

/// Exactly `count` pieces: words, or pieces of `chunk_bytes` bytes.
fn words(salt: u64, count: usize, directives: &Directives) -> (String, Vec<Span>) {
    if let Some(bytes) = directives.chunk_bytes {
        // Bounded like any other text a directive asks for.
        let total = count.saturating_mul(bytes).min(64 * 1024 * 1024);
        let text = filler(salt, total);
        let pieces = sized_spans(&text, bytes);
        return (text, pieces);
    }
    let source = if directives.unicode { UNICODE_TEXT } else { FILLER };
    let vocabulary: Vec<&str> = source.split_whitespace().collect();
    let start = usize::try_from(salt >> 40).unwrap_or_default() % vocabulary.len().max(1);
    let mut text = String::with_capacity(count.saturating_mul(6));
    let mut pieces = Vec::with_capacity(count);
    for word in vocabulary.iter().cycle().skip(start).take(count) {
        let from = text.len();
        if from > 0 {
            text.push(' ');
        }
        text.push_str(word);
        pieces.push(span(from, text.len()));
    }
    (text, pieces)
}

/// Filler text of exactly so many bytes.
fn filler(salt: u64, bytes: usize) -> String {
    let start = usize::try_from(salt >> 40).unwrap_or_default() % FILLER.len().max(1);
    FILLER.chars().cycle().skip(start).take(bytes).collect()
}

fn span(from: usize, to: usize) -> Span {
    let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    (narrow(from), narrow(to))
}

/// Words, each with the white space before it.
pub fn word_spans(text: &str) -> Vec<Span> {
    let mut pieces = Vec::with_capacity(text.len() / 5 + 1);
    let (mut from, mut in_word) = (0, false);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            if in_word {
                pieces.push(span(from, at));
                from = at;
            }
            in_word = false;
        } else {
            in_word = true;
        }
    }
    if from < text.len() {
        pieces.push(span(from, text.len()));
    }
    pieces
}

/// Pieces of at most so many bytes, at least one character each.
pub fn sized_spans(text: &str, bytes: usize) -> Vec<Span> {
    let mut pieces = Vec::with_capacity(text.len() / bytes.max(1) + 1);
    let mut from = 0;
    for (at, c) in text.char_indices() {
        if at > from && at + c.len_utf8() - from > bytes {
            pieces.push(span(from, at));
            from = at;
        }
    }
    if from < text.len() {
        pieces.push(span(from, text.len()));
    }
    pieces
}

/// So many pieces with about the same number of characters; fewer when there are not enough characters.
fn equal_spans(text: &str, count: usize) -> Vec<Span> {
    let chars = text.chars().count();
    let count = count.min(chars);
    let mut pieces = Vec::with_capacity(count);
    let mut from = 0;
    for (number, (at, _)) in text.char_indices().enumerate() {
        // The piece that is open ends before the character that belongs to the next one.
        let next = pieces.len() + 1;
        if next < count && number.saturating_mul(count) >= next.saturating_mul(chars) {
            pieces.push(span(from, at));
            from = at;
        }
    }
    if count > 0 {
        pieces.push(span(from, text.len()));
    }
    pieces
}

/// Puts one huge piece after the first.
fn insert_huge(text: &mut String, pieces: &mut Vec<Span>, huge: &str) {
    let at = pieces.first().map_or(0, |(_, to)| *to);
    text.insert_str(at as usize, huge);
    let (_, grown) = span(0, huge.len());
    for (from, to) in pieces.iter_mut().skip(1) {
        *from = from.saturating_add(grown);
        *to = to.saturating_add(grown);
    }
    if grown > 0 {
        let place = pieces.len().min(1);
        pieces.insert(place, (at, at.saturating_add(grown)));
    }
}

/// Ends the answer before the first stop sequence.
fn apply_stop(answer: &mut Answer, stop: &[String]) {
    let first = stop
        .iter()
        .filter(|sequence| !sequence.is_empty())
        .filter_map(|sequence| answer.text.find(sequence.as_str()).map(|at| (at, sequence)))
        .min_by_key(|(at, _)| *at);
    if let Some((at, sequence)) = first {
        answer.ending = Ending::StopSequence(sequence.clone());
        truncate(answer, at);
    }
}

/// Ends the answer after so many tokens.
fn apply_limit(answer: &mut Answer, max_tokens: Option<u64>) {
    let Some(limit) = max_tokens.and_then(|limit| usize::try_from(limit).ok()) else {
        return;
    };
    if answer.pieces.len() > limit {
        let at = limit.checked_sub(1).and_then(|last| answer.pieces.get(last)).map_or(0, |(_, to)| *to);
        answer.ending = Ending::Length;
        truncate(answer, at as usize);
    }
}

fn truncate(answer: &mut Answer, at: usize) {
    answer.text.truncate(at);
    let (_, end) = span(0, at);
    answer.pieces.retain(|(from, _)| *from < end);
    if let Some((_, to)) = answer.pieces.last_mut() {
        *to = end.min(*to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(list: &str) -> Directives {
        let mut directives = Directives::default();
        directives.apply_list(list, "m").unwrap();
        directives
    }

    fn conversation(question: &str) -> Conversation {
        let mut conversation = Conversation { question: question.to_owned(), turns: 1, ..Conversation::default() };
        conversation.hash_text(question);
        conversation.count_message("user", question.len());
        conversation
    }

    fn say(question: &str, list: &str) -> Answer {
        compose(&conversation(question), &directives(list), Want::Prose, &Limits::default(), 0)
    }

    fn joined(answer: &Answer) -> String {
        answer.pieces.iter().map(|(from, to)| answer.text.get(*from as usize..*to as usize).unwrap()).collect()
    }

    #[test]
    fn an_answer_greets_explains_and_echoes() {
        let answer = say("What is the capital of France?", "");
        assert!(answer.text.starts_with('H'), "{}", answer.text);
        assert!(answer.text.contains("What is the capital of France?"));
        assert!(answer.text.contains("gateway"));
        assert_eq!(joined(&answer), answer.text);
    }

    #[test]
    fn the_same_conversation_gets_the_same_answer_and_others_differ() {
        assert_eq!(say("one", "").text, say("one", "").text);
        let different: std::collections::HashSet<String> = (0..40)
            .map(|number| say(&format!("question {number}"), "").text.replace(&number.to_string(), ""))
            .collect();
        assert!(different.len() > 15, "{}", different.len());
    }

    #[test]
    fn pieces_always_make_up_the_text() {
        for list in [
            "",
            "chunks=7",
            "chunks=0",
            "chunks=5;chunk_bytes=9",
            "text=%20a%20%20b%20",
            "text=",
            "text=abc;chunks=2",
            "text=ab;chunks=9",
            "unicode=1;chunk_bytes=3",
            "unicode=1;chunks=40",
            "huge=1000",
            "text=;huge=10",
            "huge=0",
            "big_reply=5000",
        ] {
            let answer = say("Hi?", list);
            assert_eq!(joined(&answer), answer.text, "{list}");
        }
    }

    #[test]
    fn the_number_and_size_of_pieces_can_be_chosen() {
        assert_eq!(say("Hi", "chunks=7").pieces.len(), 7);
        assert_eq!(say("Hi", "text=hello%20world;chunks=4").pieces.len(), 4);
        let answer = say("Hi", "chunks=5;chunk_bytes=9");
        assert!(answer.pieces.iter().all(|(from, to)| to - from == 9));
        assert_eq!(answer.pieces.len(), 5);
        assert!(say("Hi", "huge=1000").pieces.iter().any(|(from, to)| to - from == 1000));
        assert_eq!(say("Hi", "big_reply=5000").text.len(), 5000);
    }

    #[test]
    fn limits_end_the_answer() {
        let limits = Limits { max_tokens: Some(3), stop: Vec::new() };
        let answer = compose(&conversation("Hi"), &directives("chunks=9"), Want::Prose, &limits, 0);
        assert_eq!((answer.pieces.len(), &answer.ending), (3, &Ending::Length));
        assert_eq!(joined(&answer), answer.text);
        let limits = Limits { max_tokens: None, stop: vec!["zz".to_owned(), "two".to_owned()] };
        let answer = compose(&conversation("Hi"), &directives("text=one%20two%20three"), Want::Prose, &limits, 0);
        assert_eq!(answer.text, "one ");
        assert_eq!(answer.ending, Ending::StopSequence("two".to_owned()));
        assert_eq!(joined(&answer), answer.text);
    }

    #[test]
    fn tools_are_called_when_wanted() {
        let ask = |text: &str, forced, parallel, list: &str| {
            let conversation = conversation(text);
            let question = ToolQuestion { tools: 2, forbidden: false, forced, parallel, conversation: &conversation };
            tool_calls(question, &directives(list))
        };
        assert_eq!(ask("How is the Weather?", false, true, ""), 1);
        assert_eq!(ask("The stool", false, true, ""), 0);
        assert_eq!(ask("Hi", true, true, ""), 1);
        assert_eq!(ask("Hi", false, true, "tools=2"), 2);
        assert_eq!(ask("Hi", false, false, "tools=2"), 1);
        assert_eq!(ask("Hi", true, true, "tools=0"), 0);
    }

    #[test]
    fn after_a_tool_result_the_answer_tells_it() {
        let mut conversation = conversation("How is the weather?");
        conversation.tool_results = vec!["18 degrees".to_owned()];
        let answer = compose(&conversation, &Directives::default(), Want::Prose, &Limits::default(), 0);
        assert!(answer.text.contains("18 degrees") && answer.text.contains("How is the weather?"));
    }

    #[test]
    fn prompt_tokens_follow_the_documented_rule() {
        let mut conversation = conversation("12345");
        assert_eq!(conversation.prompt_tokens, 2 + 4);
        conversation.images = 1;
        conversation.count_extras(2);
        assert_eq!(conversation.prompt_tokens, 6 + 85 + 40);
    }
}
