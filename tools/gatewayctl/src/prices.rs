//! Prices from LiteLLM's price map: for a configuration, and for the table that the gateway brings along.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Subcommand;
use llm_gateway::billing::catalog::places;
use llm_gateway::config::Price;
use llm_gateway::protocol::usage::ServiceTier;
use serde_json::{Value, json};

mod decimal;
mod litellm;

use litellm::{Entry, Imported, import};

/// What is done with prices.
#[derive(Subcommand)]
pub(super) enum PricesCommand {
    /// Prints the prices of models as the section `prices` of a configuration.
    Import {
        /// LiteLLM's price map, `model_prices_and_context_window.json`; `-` for standard input.
        map: String,
        /// A model: its name in the configuration and, behind a `=`, its name in the map if that is another. May be given
        /// several times.
        #[arg(long = "model", required = true)]
        models: Vec<String>,
        /// Prints JSON instead of TOML.
        #[arg(long)]
        json: bool,
    },
    /// Prints the table that the gateway brings along: `data/prices.json`. What is left out is told on standard error.
    Bundle {
        /// LiteLLM's price map; `-` for standard input.
        map: String,
        /// The day on which the prices were true, such as 2026-01-31.
        #[arg(long)]
        date: String,
        /// Where the map comes from, for people.
        #[arg(long)]
        source: String,
        /// Only these catalogs, separated by commas. Default: all.
        #[arg(long, value_delimiter = ',')]
        provider: Vec<String>,
    },
}

/// Our catalogs: LiteLLM's provider, our name for it, and what its models' names begin with there.
const CATALOGS: &[(&str, &str, &str)] = &[
    ("anthropic", "anthropic", "anthropic/"),
    ("azure", "azure", "azure/"),
    ("bedrock", "bedrock", "bedrock/"),
    ("bedrock_converse", "bedrock", "bedrock/"),
    ("cohere", "cohere", "cohere/"),
    ("cohere_chat", "cohere", "cohere/"),
    ("dashscope", "dashscope", "dashscope/"),
    ("deepseek", "deepseek", "deepseek/"),
    ("fireworks_ai", "fireworks", "fireworks_ai/"),
    ("gemini", "gemini", "gemini/"),
    ("groq", "groq", "groq/"),
    ("mistral", "mistral", "mistral/"),
    ("moonshot", "moonshot", "moonshot/"),
    ("openai", "openai", "openai/"),
    ("perplexity", "perplexity", "perplexity/"),
    ("text-completion-openai", "openai", "openai/"),
    ("together_ai", "together", "together_ai/"),
    ("vertex_ai-language-models", "vertex", "vertex_ai/"),
    ("xai", "xai", "xai/"),
    ("zai", "zai", "zai/"),
];

/// Does what is asked, and gives what is to be printed.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn run(command: &PricesCommand) -> Result<String, String> {
    match command {
        PricesCommand::Import { map, models, json } => {
            let (section, notes) = section(&read_map(map)?, models)?;
            tell(&notes);
            let document = json!({ "prices": section });
            match json {
                true => Ok(format!("{document:#}\n")),
                false => toml::to_string_pretty(&document).map_err(|error| error.to_string()),
            }
        }
        PricesCommand::Bundle { map, date, source, provider } => {
            let (table, notes) = bundle(&read_map(map)?, provider, date);
            tell(&notes);
            Ok(written(&table, date, source))
        }
    }
}

fn tell(notes: &[String]) {
    for note in notes {
        eprintln!("{note}");
    }
}

/// A price map, its models' members as they are written. What describes the map itself is left out.
fn read_map(file: &str) -> Result<BTreeMap<String, Entry>, String> {
    let mut map: BTreeMap<String, Entry> =
        serde_json::from_str(&super::read(file)?).map_err(|error| format!("{file}: {error}"))?;
    map.remove("sample_spec");
    Ok(map)
}

/// The section `prices` for models given as `name` or `name=name in the map`.
fn section(map: &BTreeMap<String, Entry>, models: &[String]) -> Result<(BTreeMap<String, Price>, Vec<String>), String> {
    let (mut section, mut notes) = (BTreeMap::new(), Vec::new());
    for model in models {
        let (name, key) = model.split_once('=').unwrap_or((model, model));
        let entry = map.get(key).ok_or_else(|| format!("the map has no model `{key}`{}", alike(map, key)))?;
        let Imported { mut price, notes: more } = import(entry).map_err(|reason| format!("{key}: {reason}"))?;
        notes.extend(more.into_iter().map(|note| format!("{key}: {note}")));
        price.source = Some(format!("LiteLLM's price map, {key}"));
        section.insert(name.to_owned(), price);
    }
    Ok((section, notes))
}

/// Models of which a name may be a part.
fn alike(map: &BTreeMap<String, Entry>, key: &str) -> String {
    let names: Vec<&str> = map.keys().map(String::as_str).filter(|name| name.contains(key)).take(5).collect();
    if names.is_empty() { String::new() } else { format!("; there are {}", names.join(", ")) }
}

/// Prices by catalog and model.
type Table = BTreeMap<&'static str, BTreeMap<String, Value>>;

/// The catalogs that are wanted, all if none is named, and what is left out of them: models that were gone by the day, and
/// prices of batches, which no request through the gateway is part of.
fn bundle(map: &BTreeMap<String, Entry>, wanted: &[String], date: &str) -> (Table, Vec<String>) {
    let (mut table, mut notes) = (Table::new(), Vec::new());
    for (key, entry) in map {
        let text = |name: &str| -> Option<String> { serde_json::from_str(entry.get(name)?.get()).ok() };
        let provider = text("litellm_provider");
        let found = CATALOGS.iter().find(|(litellm, ..)| provider.as_deref() == Some(litellm));
        let Some((_, catalog, prefix)) = found else { continue };
        if !wanted.is_empty() && !wanted.iter().any(|it| it == catalog) {
            continue;
        }
        let name = key.strip_prefix(prefix);
        let model = name.unwrap_or(key);
        let model = model.strip_prefix("accounts/fireworks/models/").unwrap_or(model);
        // Other companies' models, which Perplexity resells through an API of its own.
        if *catalog == "perplexity" && text("mode").as_deref() == Some("responses") {
            continue;
        }
        if is_regional(catalog, model) {
            notes.push(format!("{key}: left out, as the name is that of a region or a commitment and not of a model"));
            continue;
        }
        if let Some(gone) = text("deprecation_date").filter(|gone| gone.as_str() <= date) {
            notes.push(format!("{key}: left out, as it was given up on {gone}"));
            continue;
        }
        match import(entry) {
            Err(reason) => notes.push(format!("{key}: left out, as {reason}")),
            Ok(Imported { mut price, notes: more }) => {
                notes.extend(more.into_iter().map(|note| format!("{key}: {note}")));
                price.variants.retain(|variant| variant.service_tier != Some(ServiceTier::Batch));
                let models = table.entry(catalog).or_default();
                // Where a model is there twice, the entry that names its provider counts.
                if name.is_some() || !models.contains_key(model) {
                    models.insert(model.to_owned(), json!(price));
                }
            }
        }
    }
    // What is found in another place anyway need not be there twice.
    let whole = table.clone();
    for (catalog, models) in &mut table {
        models.retain(|model, price| {
            let mut elsewhere = places(catalog, model).into_iter().skip(1);
            let found = elsewhere.find_map(|(catalog, model)| whole.get(catalog)?.get(model));
            found != Some(price)
        });
    }
    (table, notes)
}

/// Azure's and Bedrock's entries for single regions, and prices by a model's size: no provider is called by such names.
fn is_regional(catalog: &str, model: &str) -> bool {
    match catalog {
        "azure" | "bedrock" => model.contains('/'),
        "fireworks" => model.starts_with("fireworks-ai-"),
        "together" => model.starts_with("together-ai-"),
        _ => false,
    }
}

/// The table as a file: one line for each price of a catalog, with the models that it is the price of.
fn written(table: &Table, date: &str, source: &str) -> String {
    let mut text = format!("{{\"date\":{},\n\"source\":{},\n\"catalogs\":{{", json!(date), json!(source));
    for (nth, (catalog, models)) in table.iter().enumerate() {
        let mut by_price: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (model, price) in models {
            by_price.entry(price.to_string()).or_default().push(model);
        }
        let mut lines: Vec<(Vec<&str>, String)> = by_price.into_iter().map(|(price, names)| (names, price)).collect();
        lines.sort();
        let lines: Vec<String> = lines.iter().map(|(names, price)| format!("[{},{price}]", json!(names))).collect();
        let comma = if nth > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\n{}:[\n{}]", json!(catalog), lines.join(",\n"));
    }
    text.push_str("}}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> BTreeMap<String, Entry> {
        serde_json::from_str(
            r#"{
                "gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
                "openai/gpt-y": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
                "gpt-y": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 9e-06},
                "azure/eu/gpt-x": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1e-06},
                "whisper": {"litellm_provider": "openai", "mode": "audio_transcription"},
                "else": {"litellm_provider": "nobody", "mode": "chat", "input_cost_per_token": 1e-06}
            }"#,
        )
        .unwrap()
    }

    #[test]
    fn a_table_has_every_price_once() {
        let (table, notes) = bundle(&map(), &[], "2026-01-31");
        assert_eq!(
            written(&table, "2026-01-31", "a map"),
            "{\"date\":\"2026-01-31\",\n\"source\":\"a map\",\n\"catalogs\":{\n\"openai\":[\n\
             [[\"gpt-x\",\"gpt-y\"],{\"input\":\"1\"}]]}}\n"
        );
        assert_eq!(notes.len(), 2);
        assert!(bundle(&map(), &["azure".to_owned()], "2026-01-31").0.is_empty());
    }

    #[test]
    fn a_configuration_names_its_models_as_it_likes() {
        let (section, _) = section(&map(), &["mine=gpt-x".to_owned(), "gpt-y".to_owned()]).unwrap();
        let inputs: Vec<_> = section.iter().map(|(name, price)| (name.as_str(), json!(price.input))).collect();
        assert_eq!(inputs, [("gpt-y", json!("9")), ("mine", json!("1"))]);
        let error = super::section(&map(), &["gpt".to_owned()]).unwrap_err();
        assert!(error.contains("gpt-x, gpt-y"), "{error}");
    }
}
