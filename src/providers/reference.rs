//! The page of providers for people, made by asking the code: every dialect is handed one request for each feature, and
//! the page says what it made of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::families::{self, SwitchedOff, Taken, Traits};
use super::openai::scan_problem;
use super::outbound::{Serves, translated};
use super::preset::ROWS;
use super::{Source, Target, UpstreamRequest, outbound};
use crate::config::{Model, Provider, ProviderDialect, StructuredOutput, Wire};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::inbound::{Inbound as _, chat::Chat};
use crate::protocol::json_scan::{ScanLimits, scan_object};

/// A provider and one of its models, as they are asked.
struct Subject {
    /// The headline of its column.
    title: &'static str,
    /// Its configuration.
    provider: Value,
    /// The model's name at the provider.
    model: &'static str,
}

/// A feature of Chat Completions: what is asked without it, and with it.
struct Probe {
    title: &'static str,
    without: Value,
    with: Value,
}

/// What a dialect makes of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    Carried,
    Changed(String),
    LeftOut,
    Refused,
    Without,
}

impl Made {
    fn words(&self) -> String {
        match self {
            Self::Carried => "yes".to_owned(),
            Self::Changed(note) => format!("`{note}`"),
            Self::LeftOut => "left out".to_owned(),
            Self::Refused => "**400**".to_owned(),
            Self::Without => "–".to_owned(),
        }
    }
}

fn subjects() -> Vec<Subject> {
    let subject = |title, dialect: &str, model| Subject {
        title,
        provider: json!({"dialect": dialect, "base_url": "https://provider.example"}),
        model,
    };
    let responses = json!({"dialect": "openai", "base_url": "https://provider.example", "wires": ["responses"]});
    vec![
        Subject { title: "OpenAI Responses, GPT-5.1", provider: responses, model: "gpt-5.1" },
        subject("Anthropic, Opus 4.1", "anthropic", "claude-opus-4-1"),
        subject("Anthropic, Opus 5", "anthropic", "claude-opus-5"),
        subject("Gemini 2.5 Flash", "gemini", "gemini-2.5-flash"),
        subject("Gemini 3 Pro", "gemini", "gemini-3-pro-preview"),
        subject("Vertex, Claude Opus 5", "vertex", "claude-opus-5"),
        subject("Bedrock, Claude Sonnet 4.5", "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        subject("Bedrock, Nova Pro", "bedrock", "amazon.nova-pro-v1:0"),
        subject("Cohere, Command A", "cohere", "command-a-03-2025"),
        subject("wenxinworkshop", "wenxinworkshop", "ernie-4.0-8k-latest"),
        subject("Workers AI", "workers_ai", "@cf/meta/llama-3.3-70b-instruct-fp8-fast"),
    ]
}

/// Recorded requests in Chat Completions that no provider of Messages can be asked: recording, place, reason.
pub const NOT_FOR_MESSAGES: &[(&str, &str, &str)] = &[
    ("openrouter/openrouter-openrouter_video_url_public_api", "messages[0].content[1]", "Messages take no video"),
    ("openrouter/openrouter-openrouter_web_search_tool_usage_stream", "tools[0].type", "a tool of OpenRouter's own"),
];

/// Other recorded shapes that are not translated: which, and why.
const NOT_TRANSLATED: &[(&str, &str)] = &[
    (
        "Responses: requests with `previous_response_id`, `conversation` or tools that are searched for",
        "what they refer to is kept by the provider: they pass to providers that serve Responses, and are refused where \
         they would have to be translated",
    ),
    ("Bedrock: `invoke` of Claude", "Claude is called by `converse` there; embeddings are called by `invoke`"),
    ("OpenAI: `images`", "the reply passes as it is; its usage is read"),
];

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg==";

fn with_function(more: Value) -> Value {
    let mut function = json!({"name": "look", "parameters": {"type": "object", "required": ["at"],
        "properties": {"at": {"type": "string"}}, "additionalProperties": false}});
    if let (Some(function), Value::Object(more)) = (function.as_object_mut(), more) {
        function.extend(more);
    }
    json!({"tools": [{"type": "function", "function": function}]})
}

fn user(part: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Look."}, part]}]})
}

fn probes() -> Vec<Probe> {
    let plain = json!({});
    let tool =
        json!({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}});
    let tools = json!({"tools": [tool]});
    let with_tools = |name: &str, value: Value| json!({"tools": [tool], name: value});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema":
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}}});
    let of_user = user(json!({"type": "text", "text": "And?"}));
    let probe = |title, with: Value| Probe { title, without: plain.clone(), with };
    let beside_tools =
        |title, name: &str, value: Value| Probe { title, without: tools.clone(), with: with_tools(name, value) };
    let part = |title, part: Value| Probe { title, without: of_user.clone(), with: user(part) };
    let history = |title, messages: Value| probe(title, json!({ "messages": messages }));
    let said = |role: &str| json!({"role": role, "content": "Hello."});
    vec![
        history("`system` message first", json!([said("system"), said("user")])),
        history(
            "`developer` message later on",
            json!([said("user"), said("assistant"), said("developer"), said("user")]),
        ),
        history("assistant's turn first", json!([said("assistant"), said("user")])),
        history("assistant's turn last", json!([said("user"), said("assistant")])),
        part(
            "picture, base64",
            json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PIXEL}")}}),
        ),
        Probe {
            title: "`detail` of a picture",
            without: user(json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PIXEL}")}})),
            with: user(json!({"type": "image_url",
                "image_url": {"url": format!("data:image/png;base64,{PIXEL}"), "detail": "low"}})),
        },
        part("picture, `https:`", json!({"type": "image_url", "image_url": {"url": "https://a.example/a.png"}})),
        part(
            "PDF, base64",
            json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}),
        ),
        part("file by id", json!({"type": "file", "file": {"file_id": "file-1"}})),
        part("sound", json!({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})),
        part(
            "`cache_control` on a part",
            json!({"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}}),
        ),
        probe("`tools`", tools.clone()),
        beside_tools("`tool_choice: none`", "tool_choice", json!("none")),
        beside_tools("`tool_choice: required`", "tool_choice", json!("required")),
        beside_tools(
            "`tool_choice`: one by name",
            "tool_choice",
            json!({"type": "function", "function": {"name": "look"}}),
        ),
        beside_tools("`parallel_tool_calls: false`", "parallel_tool_calls", json!(false)),
        Probe {
            title: "`strict` of a function",
            without: with_function(json!({"strict": false})),
            with: with_function(json!({"strict": true})),
        },
        probe("custom tool", json!({"tools": [{"type": "custom", "custom": {"name": "write"}}]})),
        probe("`response_format: json_object`", json!({"response_format": {"type": "json_object"}})),
        probe("`response_format: json_schema`", json!({"response_format": schema})),
        beside_tools("the same beside tools", "response_format", schema.clone()),
        probe("`reasoning_effort: high`", json!({"reasoning_effort": "high"})),
        probe("`reasoning_effort: none`", json!({"reasoning_effort": "none"})),
        probe(
            "`thinking` with a budget",
            json!({"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4096}),
        ),
        probe("`max_completion_tokens`", json!({"max_completion_tokens": 100})),
        probe("`temperature: 0.5`", json!({"temperature": 0.5})),
        probe("`temperature: 1.5`", json!({"temperature": 1.5})),
        probe("`top_p`", json!({"top_p": 0.5})),
        probe("`top_k`", json!({"top_k": 5})),
        probe("`min_p`", json!({"min_p": 0.1})),
        probe("`presence_penalty`", json!({"presence_penalty": 0.5})),
        probe("`frequency_penalty`", json!({"frequency_penalty": 0.5})),
        probe("`repetition_penalty`", json!({"repetition_penalty": 1.1})),
        probe("`seed`", json!({"seed": 7})),
        probe("`stop`", json!({"stop": ["END"]})),
        probe("`n: 2`", json!({"n": 2})),
        probe("`logprobs`", json!({"logprobs": true})),
        probe("`logit_bias`", json!({"logit_bias": {"1": 5}})),
        probe(
            "`modalities` with sound",
            json!({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
        ),
        probe("`prediction`", json!({"prediction": {"type": "content", "content": "Hello."}})),
        probe("`verbosity`", json!({"verbosity": "low"})),
        probe("`service_tier: flex`", json!({"service_tier": "flex"})),
        probe("`user`", json!({"user": "u-1"})),
        probe("`safety_identifier`", json!({"safety_identifier": "u-1"})),
        probe("`metadata`", json!({"metadata": {"a": "b"}})),
        probe("`prompt_cache_key`", json!({"prompt_cache_key": "k"})),
        probe("`prompt_cache_retention`", json!({"prompt_cache_retention": "24h"})),
        probe("`store: true`", json!({"store": true})),
        history("`name` of a message", json!([{"role": "user", "content": "Hello.", "name": "ada"}])),
        probe("a member that nobody knows", json!({"a_member_that_nobody_knows": 1})),
    ]
}

fn body(features: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello."}]});
    if let (Some(body), Some(features)) = (body.as_object_mut(), features.as_object()) {
        body.extend(features.clone());
    }
    body
}

fn asked(subject: &Subject, features: &Value) -> Result<(UpstreamRequest, Vec<String>), Problem> {
    let chat = Chat.read(body(features).to_string().as_bytes())?;
    let provider = provider(subject)?;
    let mut request = translated(outbound(provider.dialect()), target(&provider, subject.model), &chat)?;
    let dropped = std::mem::take(&mut request.dropped_params);
    Ok((request, dropped))
}

fn provider(subject: &Subject) -> Result<Provider, Problem> {
    serde_json::from_value(subject.provider.clone()).map_err(|error| Problem::invalid("provider", error.to_string()))
}

fn target<'a>(provider: &'a Provider, upstream_model: &'a str) -> Target<'a> {
    Target {
        provider,
        upstream_model,
        max_output_tokens: Model::MAX_OUTPUT_TOKENS,
        structured_output: StructuredOutput::Native,
        strict_params: false,
    }
}

fn made(subject: &Subject, probe: &Probe) -> Made {
    let Ok((without, _)) = asked(subject, &probe.without) else { return Made::Refused };
    match asked(subject, &probe.with) {
        Err(_) => Made::Refused,
        Ok((_, notes)) if notes.iter().any(|note| note.contains('=')) => Made::Changed(notes.join(", ")),
        Ok((_, notes)) if !notes.is_empty() => Made::LeftOut,
        Ok((with, _)) if with == without => Made::Without,
        Ok(_) => Made::Carried,
    }
}

/// The page: `docs/providers.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Providers\n\n\
         Made from the code by `gatewayctl providers docs`: every table below was filled by asking the gateway itself.\n\n",
    );
    apis(&mut page);
    parameters(&mut page);
    presets(&mut page);
    models(&mut page);
    recordings(&mut page);
    page
}

fn row<'a>(page: &mut String, cells: impl IntoIterator<Item = impl AsRef<str> + 'a>) {
    for cell in cells {
        let _ = write!(page, "| {} ", cell.as_ref());
    }
    page.push_str("|\n");
}

fn headline(page: &mut String, cells: &[&str]) {
    row(page, cells);
    row(page, cells.iter().map(|_| "---"));
}

fn apis(page: &mut String) {
    page.push_str(
        "## APIs\n\n*native*: the caller's bytes pass, with the model's name and what the provider refuses changed. \
         *translated*: request and reply are written anew. –: refused with `unsupported_api_for_model`.\n\n",
    );
    let subjects = subjects();
    let titles: Vec<&str> = ["API", "OpenAI-like"].into_iter().chain(subjects.iter().map(|it| it.title)).collect();
    headline(page, &titles);
    let chat_alone = Subject {
        title: "OpenAI-like",
        provider: json!({"dialect": "openai", "base_url": "https://provider.example"}),
        model: "gpt-4o",
    };
    for api in Api::ALL {
        let served = std::iter::once(&chat_alone).chain(&subjects).map(|subject| {
            let Ok(provider) = provider(subject) else { return "?" };
            match outbound(provider.dialect()).serves(api, target(&provider, subject.model)) {
                Serves::Natively => "native",
                Serves::Translated => "translated",
                Serves::No => "–",
            }
        });
        let name = format!("`{}`", api.path());
        let cells: Vec<&str> = std::iter::once(name.as_str()).chain(served).collect();
        row(page, cells);
    }
    page.push('\n');
}

fn parameters(page: &mut String) {
    page.push_str(
        "## What becomes of a Chat Completions request\n\n\
         *yes*: it is carried over, under the provider's name for it. *left out*: it is named in \
         `x-gateway-dropped-params`, or refused with `strict_params`. `name=value`: it is brought into the provider's \
         range, and told likewise. **400**: the answer would not be what was asked for, so the request is refused, naming \
         it. –: the model does so anyway. `user`, `safety_identifier`, `metadata`, `store`, `prompt_cache_…` and \
         `cache_control` change no answer: where a provider has none they are left out and named with `strict_params`, \
         too. To OpenAI-like providers a request passes as it is, but for what the next table says.\n\n",
    );
    let subjects = subjects();
    let titles: Vec<&str> = std::iter::once("feature").chain(subjects.iter().map(|it| it.title)).collect();
    headline(page, &titles);
    for probe in probes() {
        let cells = subjects.iter().map(|subject| made(subject, &probe).words());
        let cells: Vec<String> = std::iter::once(probe.title.to_owned()).chain(cells).collect();
        row(page, cells);
    }
    page.push('\n');
}

/// What a provider of OpenAI's dialect makes of a caller's own request with a feature; `None` if it is sent.
fn made_of_own(provider: &Provider, probe: &Probe) -> Option<Made> {
    let sent = |features: &Value| {
        let body = body(features).to_string().into_bytes();
        let members = scan_object(&body, ScanLimits::default()).map_err(scan_problem)?;
        let source = Source { body: &body, members: &members, stream: false, mark: None };
        let served =
            outbound(provider.dialect()).faithful(Api::ChatCompletions, &source, target(provider, "a-model"))?;
        Ok::<_, Problem>(served.dropped_params)
    };
    match (sent(&probe.without), sent(&probe.with)) {
        (Ok(_), Err(_)) => Some(Made::Refused),
        (Ok(_), Ok(dropped)) if !dropped.is_empty() => Some(Made::LeftOut),
        _ => None,
    }
}

fn presets(page: &mut String) {
    page.push_str(
        "## Providers that speak as OpenAI does\n\n\
         Each is a `preset`. Where a name or a value is written otherwise, that is done. The last columns tell what of a \
         Chat Completions request cannot be carried over, for a model of which nothing is known.\n\n",
    );
    headline(page, &["`preset`", "provider", "address", "APIs besides Chat Completions", "left out", "**400**"]);
    for (preset, title, known) in ROWS.iter().filter(|(_, _, known)| known.dialect == ProviderDialect::OpenAi) {
        let name = json!(preset);
        let name = name.as_str().unwrap_or_default();
        let address = known.base_url.unwrap_or("yours");
        let Ok(provider) =
            serde_json::from_value::<Provider>(json!({"preset": name, "base_url": "https://a.example/v1"}))
        else {
            continue;
        };
        let responses = known.wires.contains(&Wire::Responses).then_some("/responses");
        let endpoints: Vec<String> =
            responses.into_iter().chain(known.endpoints.iter().copied()).map(|path| format!("`{path}`")).collect();
        let with = |wanted: &Made| {
            let made = probes().into_iter().filter(|probe| made_of_own(&provider, probe).as_ref() == Some(wanted));
            made.map(|probe| probe.title).collect::<Vec<_>>().join(", ")
        };
        let (left_out, refused) = (with(&Made::LeftOut), with(&Made::Refused));
        let cells =
            [format!("`{name}`"), (*title).to_owned(), address.to_owned(), endpoints.join(", "), left_out, refused];
        row(page, cells);
    }
    page.push('\n');
}

fn recordings(page: &mut String) {
    page.push_str(
        "\n## Recorded traffic\n\n\
         Recorded replies of all of these providers are read in the tests, cut at every byte, and must come out as what \
         they say. These shapes are not translated:\n\n",
    );
    headline(page, &["recorded", "why"]);
    for (id, place, why) in NOT_FOR_MESSAGES {
        row(page, [format!("`{id}`, for a provider of Messages"), format!("{why} (400 naming `{place}`)")]);
    }
    for (what, why) in NOT_TRANSLATED {
        row(page, [*what, *why]);
    }
}

fn models(page: &mut String) {
    page.push_str(
        "## Models\n\n\
         What is known of models by their names, hosts, regions, dates and versions taken off. The first line that fits \
         counts. A name that is not known is taken for the newest model of its vendor; what is not known to be refused is \
         sent.\n\n",
    );
    headline(
        page,
        &[
            "names",
            "reasoning",
            "switched off",
            "sampling",
            "forced tools",
            "JSON schema",
            "goes on with its own last turn",
        ],
    );
    for (names, traits) in families::all() {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let cells = [
            names.join(", "),
            reasoning(traits),
            switched_off(traits).to_owned(),
            taken(traits.sampling).to_owned(),
            taken(traits.forced_tools).to_owned(),
            taken(traits.json_schema).to_owned(),
            if traits.prefill { "yes" } else { "no" }.to_owned(),
        ];
        row(page, cells);
    }
}

fn reasoning(traits: &Traits) -> String {
    let efforts = traits.efforts.iter().map(|effort| effort.as_str()).collect::<Vec<_>>().join(", ");
    let budgets = traits.budgets.map(|(least, most)| match most {
        u64::MAX => format!("budget from {least}"),
        most => format!("budget {least} to {most}"),
    });
    let ways = [(!efforts.is_empty()).then_some(efforts), budgets].into_iter().flatten().collect::<Vec<_>>();
    match (traits.reasons, ways.is_empty()) {
        (false, _) => "no".to_owned(),
        (true, true) => "always the same".to_owned(),
        (true, false) => ways.join("; "),
    }
}

fn switched_off(traits: &Traits) -> &'static str {
    match traits.switched_off {
        _ if !traits.reasons => "–",
        SwitchedOff::Always => "yes",
        SwitchedOff::UpToHigh => "up to `high`",
        SwitchedOff::BetweenTools => "between calls only",
        SwitchedOff::Never => "no",
    }
}

fn taken(taken: Taken) -> &'static str {
    match taken {
        Taken::Always => "yes",
        Taken::WithoutReasoning => "while it does not reason",
        Taken::ReasoningOff => "where reasoning is switched off",
        Taken::WithoutTools => "without tools",
        Taken::Never => "no",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::inbound::{Inbound, messages::Messages, responses::Responses};

    #[test]
    fn the_page_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
        let found = std::fs::read_to_string(file).unwrap_or_default();
        let advice = "cargo run -p gatewayctl -- providers docs > docs/providers.md";
        assert!(found == page(), "docs/providers.md is not what the code says. Run: {advice}");
    }

    /// Asks for a feature in an API; whether the request became another, or a note or an error told of it.
    fn is_heeded(inbound: &dyn Inbound, subject: &Subject, without: &Value, with: &Value) -> bool {
        let provider = provider(subject).unwrap();
        let made = |body: &Value| {
            let chat = inbound.read(body.to_string().as_bytes())?;
            translated(outbound(provider.dialect()), target(&provider, subject.model), &chat)
        };
        match (made(without).unwrap(), made(with)) {
            (without, Ok(with)) => with != without,
            (_, Err(problem)) => problem.param.is_some(),
        }
    }

    #[test]
    fn nothing_that_is_asked_for_is_lost_in_silence() {
        let chat_wire = |title, preset: &str, model| Subject {
            title,
            provider: json!({"preset": preset, "base_url": "https://provider.example"}),
            model,
        };
        let mut subjects = subjects();
        subjects.extend([
            chat_wire("OpenAI Chat", "vllm", "a-model"),
            chat_wire("Mistral", "mistral", "mistral-large-latest"),
            chat_wire("OpenRouter", "openrouter", "anthropic/claude-opus-4.1"),
        ]);
        for subject in &subjects {
            for probe in probes() {
                // Models that do not think, or do so anyway.
                let is_no_wish = probe.title == "`reasoning_effort: none`";
                let lost = made(subject, &probe) == Made::Without && !is_no_wish;
                assert!(!lost, "{}: {}", subject.title, probe.title);
            }
        }
        let messages = |more: Value| {
            let mut body = json!({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello."}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let cited = |enabled: bool| {
            let source = json!({"type": "text", "media_type": "text/plain", "data": "Facts."});
            let document = json!({"type": "document", "source": source, "citations": {"enabled": enabled}});
            messages(json!({"messages": [{"role": "user", "content": [document, {"type": "text", "text": "Why?"}]}]}))
        };
        let plain = messages(json!({}));
        let marked = json!([{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]);
        let wishes = [
            (messages(json!({"system": "Be kind."})), messages(json!({"system": marked}))),
            (cited(false), cited(true)),
            (plain.clone(), messages(json!({"metadata": {"user_id": "u"}}))),
            (plain.clone(), messages(json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}))),
            (plain.clone(), messages(json!({"container": "c"}))),
            (plain.clone(), messages(json!({"top_k": 5}))),
            (plain.clone(), messages(json!({"stop_sequences": ["END"]}))),
            (plain, messages(json!({"service_tier": "standard_only"}))),
        ];
        for subject in subjects.iter().filter(|subject| subject.title != "Vertex, Claude Opus 5") {
            for (without, with) in &wishes {
                // Cohere quotes every document.
                let is_default = with.get("service_tier").is_some() || subject.title.starts_with("Cohere");
                let heeded = is_heeded(&Messages, subject, without, with);
                assert!(heeded || is_default, "{}: {with}", subject.title);
            }
        }
        let response = |more: Value| {
            let mut body = json!({"model": "m", "input": "Hello."});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        for wish in [
            json!({"reasoning": {"summary": "auto"}}),
            json!({"include": ["file_search_call.results"]}),
            json!({"truncation": "auto"}),
            json!({"max_tool_calls": 3}),
            json!({"text": {"verbosity": "low"}}),
            json!({"store": true}),
            json!({"prompt_cache_key": "k"}),
            json!({"prompt_cache_retention": "24h"}),
            json!({"safety_identifier": "u"}),
            json!({"metadata": {"a": "b"}}),
            json!({"top_logprobs": 2}),
        ] {
            for subject in &subjects {
                let shows_anyway = wish.get("reasoning").is_some();
                let heeded = is_heeded(&Responses, subject, &response(json!({})), &response(wish.clone()));
                assert!(heeded || shows_anyway, "{}: {wish}", subject.title);
            }
        }
    }

    #[test]
    fn every_subject_can_be_asked() {
        for subject in subjects() {
            assert!(asked(&subject, &json!({})).is_ok(), "{}", subject.title);
        }
    }
}
