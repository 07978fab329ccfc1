//! Replies. A stream's chunks and a whole reply have one shape; a stream asked for in the wrong way is a list of chunks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::error;
use crate::protocol::chat::{
    ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature, SoundPiece,
};
use crate::protocol::frames::{EventReader, RawEvent, parse_json};
use crate::protocol::usage::{BillingFacts, Usage};

/// Words for why an answer was withheld or broken off for what it says.
const WITHHELD: &[&str] = &[
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "LANGUAGE",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
];

/// Words that say that an answer came to nothing, whatever came before.
const FAILED: &[&str] =
    &["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "NO_IMAGE", "IMAGE_OTHER"];

/// Parts that tell what tools of Google's own did.
const HOSTED: &[&str] = &["executableCode", "codeExecutionResult", "toolCall", "toolResponse"];

/// Reads a reply.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The reply's id; `None` until the first candidate has come.
    id: Option<String>,
    /// What was used, as far as was told before that.
    used: Vec<ChatEvent>,
    /// The usage that was told last.
    usage: Option<Usage>,
    /// Searches on the web that are charged.
    searches: u64,
    choices: BTreeMap<u32, Choice>,
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.chunk(&parse_json(&event.data)?, out)
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.chunk(body, out)?;
        self.ended(out)
    }

    /// Nothing marks the end of a stream: it is complete if every candidate has said why it ended. That is told only
    /// now, as some models say it with every chunk.
    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.choices.is_empty() || self.choices.values().any(|choice| choice.end.is_none()) {
            return Err(ReplyFault::Truncated);
        }
        for (choice, state) in std::mem::take(&mut self.choices) {
            let reason = match state.end {
                Some(FinishReason::Stop) | None if !state.calls.is_empty() => FinishReason::ToolCalls,
                Some(reason) => reason,
                None => FinishReason::Stop,
            };
            out.push(ChatEvent::Finish { choice, reason });
        }
        Ok(())
    }
}

impl Reader {
    fn chunk(&mut self, chunk: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Value::Array(chunks) = chunk {
            return chunks.iter().try_for_each(|chunk| self.chunk(chunk, out));
        }
        if !chunk.is_object() {
            return Err(ReplyFault::Malformed("a chunk is no object".to_owned()));
        }
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(error::fault(chunk));
        }
        let searches = searches(chunk).max(self.searches);
        let more_searches = searches > std::mem::replace(&mut self.searches, searches);
        if let Some(told) = chunk.get("usageMetadata") {
            self.usage = Usage::from_gemini(told).map(|usage| Usage { web_searches: searches, ..usage });
            self.used = self.usage.map(ChatEvent::Usage).into_iter().collect();
            let facts = BillingFacts::from_gemini(told);
            self.used.extend((facts != BillingFacts::default()).then_some(ChatEvent::Billed(facts)));
        }
        if let (None, true, Some(usage)) = (chunk.get("usageMetadata"), more_searches, &mut self.usage) {
            usage.web_searches = searches;
            self.used.push(ChatEvent::Usage(*usage));
        }
        let candidates = chunk.get("candidates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let blocked = chunk.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
        if let (Some(reason), true, true) = (blocked, candidates.is_empty(), self.choices.is_empty()) {
            // Nothing was generated, so this is no answer that was withheld: the request was refused.
            out.append(&mut self.used);
            let said = chunk.pointer("/promptFeedback/blockReasonMessage").and_then(Value::as_str);
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            let message = format!("the provider refused the prompt for its content ({reason}){said}");
            return Err(ReplyFault::Reported { message, code: Some("content_filter".to_owned()) });
        }
        if self.id.is_none() && !candidates.is_empty() {
            let text = |name: &str| chunk.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let id = text("responseId");
            out.push(ChatEvent::Start { id: id.clone(), model: text("modelVersion"), created: None });
            self.id = Some(id);
        }
        for (position, candidate) in candidates.iter().enumerate() {
            let index = candidate.get("index").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
            let index = index.unwrap_or_else(|| u32::try_from(position).unwrap_or(u32::MAX));
            let id = self.id.as_deref().unwrap_or_default();
            Candidate { choice: index, reply: id, state: self.choices.entry(index).or_default(), out }
                .read(candidate)?;
        }
        if let Some(reason) = blocked {
            for choice in self.choices.values_mut().filter(|choice| choice.end.is_none()) {
                choice.end = Some(FinishReason::ContentFilter { category: Some(reason.to_owned()) });
            }
        }
        if self.id.is_some() {
            out.append(&mut self.used);
        }
        Ok(())
    }
}

/// What has come of one candidate.
#[derive(Debug, Default)]
struct Choice {
    /// The answer.
    text: String,
    /// The thoughts since the last proof.
    thoughts: String,
    /// The ids of the calls.
    calls: Vec<String>,
    /// What has been cited.
    cited: Vec<Citation>,
    /// Whether there is anything that a caller can use.
    has_spoken: bool,
    /// Why it ended.
    end: Option<FinishReason>,
}

/// Reads one candidate of a chunk.
struct Candidate<'r> {
    choice: u32,
    reply: &'r str,
    state: &'r mut Choice,
    out: &'r mut Vec<ChatEvent>,
}

impl Candidate<'_> {
    fn read(&mut self, candidate: &Value) -> Result<(), ReplyFault> {
        let choice = self.choice;
        let mut logprobs = candidate.get("logprobsResult").and_then(logprobs);
        for part in candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten() {
            self.part(part, &mut logprobs)?;
        }
        if logprobs.is_some() {
            self.out.push(ChatEvent::Text { choice, text: String::new(), logprobs });
        }
        for citation in citations(candidate, &self.state.text) {
            if !self.state.cited.contains(&citation) {
                self.state.cited.push(citation.clone());
                self.out.push(ChatEvent::Citation { choice, citation });
            }
        }
        if let Some(word) = candidate.get("finishReason").and_then(Value::as_str) {
            let said = candidate.get("finishMessage").and_then(Value::as_str);
            self.state.end = self.finish(word, said)?.or(self.state.end.take());
        }
        Ok(())
    }

    /// What a word for the end means. One that is not known is believed only behind an answer.
    fn finish(&self, word: &str, said: Option<&str>) -> Result<Option<FinishReason>, ReplyFault> {
        Ok(Some(match word {
            "FINISH_REASON_UNSPECIFIED" => return Ok(None),
            "STOP" => FinishReason::Stop,
            "MAX_TOKENS" => FinishReason::Length,
            _ if WITHHELD.contains(&word) => FinishReason::ContentFilter { category: Some(word.to_owned()) },
            _ if self.state.has_spoken && !FAILED.contains(&word) => FinishReason::Stop,
            _ => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                let message = format!("the provider broke its reply off with the finish reason `{word}`{said}");
                return Err(ReplyFault::Reported { message, code: Some(word.to_ascii_lowercase()) });
            }
        }))
    }

    fn part(&mut self, part: &Value, logprobs: &mut Option<Value>) -> Result<(), ReplyFault> {
        let choice = self.choice;
        let proof = part.get("thoughtSignature").and_then(Value::as_str).filter(|proof| !proof.is_empty());
        let proof = proof.map(|value| Signature { family: Lineage::Gemini, value: value.to_owned() });
        let text = part.get("text").and_then(Value::as_str).unwrap_or_default();
        let is_thought = part.get("thought").and_then(Value::as_bool) == Some(true);
        if let Some(call) = part.get("functionCall") {
            return self.call(call, proof);
        }
        if HOSTED.iter().any(|name| part.get(name).is_some()) {
            self.out.push(ChatEvent::Hosted { choice, family: Lineage::Gemini, value: part.clone() });
            return Ok(());
        }
        if is_thought {
            // A picture among thoughts is a draft of the one in the answer.
            if !text.is_empty() {
                self.state.thoughts.push_str(text);
                self.out.push(ChatEvent::Reasoning { choice, text: text.to_owned() });
            }
            if proof.is_some() {
                let text = std::mem::take(&mut self.state.thoughts);
                let part = ReasoningPart { text, signature: proof, ..ReasoningPart::default() };
                self.out.push(ChatEvent::ReasoningDone { choice, part });
            }
            return Ok(());
        }
        if let Some(data) = part.pointer("/inlineData/data").and_then(Value::as_str) {
            let media_type = part.pointer("/inlineData/mimeType").and_then(Value::as_str).unwrap_or("image/png");
            let (media_type, data) = (media_type.to_owned(), data.to_owned());
            self.state.has_spoken = true;
            self.out.push(match media_type.starts_with("audio/") {
                true => ChatEvent::Sound { choice, piece: SoundPiece { data, ..SoundPiece::default() } },
                false => ChatEvent::Picture { choice, media_type, data },
            });
        }
        if !text.is_empty() {
            self.state.has_spoken = true;
            self.state.text.push_str(text);
            self.out.push(ChatEvent::Text { choice, text: text.to_owned(), logprobs: logprobs.take() });
        }
        if let Some(signature) = proof {
            self.out.push(ChatEvent::Proof { choice, index: None, signature });
        }
        Ok(())
    }

    fn call(&mut self, call: &Value, proof: Option<Signature>) -> Result<(), ReplyFault> {
        let choice = self.choice;
        // Pieces of arguments come only to those who ask for them, which nobody here does.
        let in_pieces = call.get("partialArgs").is_some() || call.get("willContinue").is_some_and(|more| more == true);
        let name = call.get("name").and_then(Value::as_str).filter(|name| !name.is_empty() && !in_pieces);
        let Some(name) = name else {
            return Err(ReplyFault::Malformed("a function call is not whole".to_owned()));
        };
        let nth = self.state.calls.len();
        let given = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        let id = given.filter(|id| !self.state.calls.contains(id)).unwrap_or_else(|| match choice {
            0 => format!("call_{}_{nth}", self.reply),
            _ => format!("call_{}_{choice}_{nth}", self.reply),
        });
        let arguments =
            call.get("args").filter(|args| !args.is_null()).map_or_else(|| "{}".to_owned(), Value::to_string);
        let index = u32::try_from(nth).unwrap_or(u32::MAX);
        self.state.calls.push(id.clone());
        self.state.has_spoken = true;
        self.out.push(ChatEvent::CallStart { choice, index, id, name: name.to_owned(), custom: false });
        self.out.push(ChatEvent::CallArguments { choice, index, fragment: arguments });
        self.out.extend(proof.map(|signature| ChatEvent::Proof { choice, index: Some(index), signature }));
        Ok(())
    }
}

/// Log probabilities in OpenAI's form; `None` if there are none.
fn logprobs(told: &Value) -> Option<Value> {
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let tops = list(told, "topCandidates");
    let token = |candidate: &Value| {
        let token = candidate.get("token").and_then(Value::as_str).unwrap_or_default();
        json!({"token": token, "logprob": candidate.get("logProbability"), "bytes": token.as_bytes()})
    };
    let mut content = Vec::new();
    for (nth, chosen) in list(told, "chosenCandidates").iter().enumerate() {
        let mut chosen = token(chosen);
        let others = tops.get(nth).map(|top| list(top, "candidates")).unwrap_or_default();
        if let Some(chosen) = chosen.as_object_mut() {
            chosen.insert("top_logprobs".to_owned(), others.iter().map(token).collect());
        }
        content.push(chosen);
    }
    (!content.is_empty()).then(|| json!({"content": content}))
}

/// How many searches on the web are charged for a reply: up to Gemini 2.5 one for every reply that rests on any, later
/// one for every query (<https://ai.google.dev/gemini-api/docs/google-search#pricing>).
fn searches(chunk: &Value) -> u64 {
    let candidates = chunk.get("candidates").and_then(Value::as_array).into_iter().flatten();
    let queries =
        candidates.filter_map(|candidate| candidate.pointer("/groundingMetadata/webSearchQueries")?.as_array());
    let queries = queries.flatten().filter(|query| query.as_str().is_some_and(|query| !query.is_empty())).count();
    let model = chunk.get("modelVersion").and_then(Value::as_str).unwrap_or_default();
    let by_reply = ["gemini-1", "gemini-2"].iter().any(|version| model.contains(version));
    if by_reply { u64::from(queries > 0) } else { u64::try_from(queries).unwrap_or(u64::MAX) }
}

/// The sources that a candidate names.
fn citations(candidate: &Value, answer: &str) -> Vec<Citation> {
    let list = |pointer: &str| candidate.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let chunks: Vec<Citation> = list("/groundingMetadata/groundingChunks").filter_map(source).collect();
    let mut citations = Vec::new();
    for support in list("/groundingMetadata/groundingSupports") {
        let segment = support.get("segment").unwrap_or(&Value::Null);
        let indices = support.get("groundingChunkIndices").and_then(Value::as_array).into_iter().flatten();
        for chunk in indices.filter_map(|index| chunks.get(usize::try_from(index.as_u64()?).ok()?)) {
            citations.push(placed(chunk.clone(), segment, answer));
        }
    }
    if citations.is_empty() {
        citations = chunks;
    }
    for recited in list("/citationMetadata/citationSources").chain(list("/citationMetadata/citations")) {
        let text = |name: &str| recited.get(name).and_then(Value::as_str).map(str::to_owned);
        let source = Citation { url: text("uri"), title: text("title"), ..Citation::default() };
        citations.push(placed(source, recited, answer));
    }
    citations
}

/// A source, of whatever kind it is.
fn source(chunk: &Value) -> Option<Citation> {
    let (kind, told) = chunk.as_object()?.iter().next()?;
    let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
    let cited_text = if kind == "retrievedContext" { text("text") } else { None };
    Some(Citation { url: text("uri"), title: text("title"), cited_text, ..Citation::default() })
}

/// Says where in the answer a source is cited. Google counts bytes, and within one part of the answer.
fn placed(mut citation: Citation, segment: &Value, answer: &str) -> Citation {
    let index = |name: &str| segment.get(name).and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
    let words = segment.get("text").and_then(Value::as_str).filter(|words| !words.is_empty());
    let told = index("endIndex").map(|end| index("startIndex").unwrap_or(0)..end);
    let range = match words {
        Some(words) if told.as_ref().and_then(|range| answer.get(range.clone())) != Some(words) => {
            answer.find(words).map(|start| start..start.saturating_add(words.len()))
        }
        _ => told,
    };
    let characters = |to: usize| u64::try_from(answer.get(..to)?.chars().count()).ok();
    if let Some((start, end)) = range.and_then(|range| Some((characters(range.start)?, characters(range.end)?))) {
        (citation.start, citation.end) = (Some(start), Some(end));
    }
    citation
}
