//! The prices that the gateway brings along: `data/prices.json`, made by `gatewayctl prices bundle`. They are a default,
//! true on the day that they name; what an operator configures counts above them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::config::{Price, Provider};

/// The table, one line for each price of a catalog.
const BUNDLED: &str = include_str!("../../data/prices.json");

/// Names of the catalogs, with the hosts of the providers whose prices they have: a whole host, or the end of one if it
/// begins with a dot.
const CATALOGS: &[(&str, &[&str])] = &[
    ("anthropic", &["api.anthropic.com"]),
    ("azure", &[".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"]),
    ("bedrock", &[]),
    ("cohere", &["api.cohere.com", "api.cohere.ai"]),
    ("dashscope", &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"]),
    ("deepseek", &["api.deepseek.com"]),
    ("fireworks", &["api.fireworks.ai"]),
    ("gemini", &["generativelanguage.googleapis.com"]),
    ("groq", &["api.groq.com"]),
    ("mistral", &["api.mistral.ai"]),
    ("moonshot", &["api.moonshot.ai", "api.moonshot.cn"]),
    ("openai", &["api.openai.com"]),
    ("perplexity", &["api.perplexity.ai"]),
    ("together", &["api.together.xyz", "api.together.ai"]),
    ("vertex", &["aiplatform.googleapis.com", "-aiplatform.googleapis.com"]),
    ("xai", &["api.x.ai"]),
    ("zai", &["api.z.ai"]),
];

/// The setting of a provider whose models have no bundled prices.
const NONE: &str = "none";

/// Parts of the world that Bedrock's names of models may begin with.
const BEDROCK_PROFILES: &[&str] = &["us.", "eu.", "apac.", "global.", "jp.", "au.", "us-gov."];

/// Whether a provider may name a catalog.
pub fn is_catalog(name: &str) -> bool {
    name == NONE || CATALOGS.iter().any(|(catalog, _)| *catalog == name)
}

/// The names that a provider may name.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOGS.iter().map(|(name, _)| *name).chain([NONE])
}

/// The catalog with a provider's prices: the one that it names, or else the one of its host.
pub fn catalog_of(provider: &Provider) -> Option<&'static str> {
    let named = |name: &str| CATALOGS.iter().find(|(catalog, _)| *catalog == name);
    let found = match &provider.price_catalog {
        Some(name) => named(name),
        None => {
            let url = Url::parse(provider.base_url()).ok()?;
            let host = url.host_str()?;
            if host.starts_with("bedrock-") && host.ends_with(".amazonaws.com") {
                return Some("bedrock");
            }
            let is_host = |known: &&str| match known.starts_with(['.', '-']) {
                true => host.ends_with(*known),
                false => host == *known,
            };
            CATALOGS.iter().find(|(_, hosts)| hosts.iter().any(is_host))
        }
    };
    found.map(|(catalog, _)| *catalog)
}

/// Where the price of a model is looked for, in this order. What two providers sell at the same price is listed once.
pub fn places<'a>(catalog: &'a str, model: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut places = vec![(catalog, model)];
    match catalog {
        "azure" => places.push(("openai", model)),
        "vertex" => places.push(("gemini", model)),
        "bedrock" => places.extend(BEDROCK_PROFILES.iter().find_map(|it| Some((catalog, model.strip_prefix(it)?)))),
        "fireworks" => places.extend(model.strip_prefix("accounts/fireworks/models/").map(|name| (catalog, name))),
        _ => {}
    }
    places
}

/// The table, opened as far as it is needed.
#[derive(Debug)]
pub struct Catalogs {
    date: &'static str,
    catalogs: BTreeMap<&'static str, &'static RawValue>,
    opened: BTreeMap<&'static str, BTreeMap<&'static str, &'static RawValue>>,
}

impl Catalogs {
    /// Opens the table.
    pub fn open() -> Option<Self> {
        #[derive(Deserialize)]
        struct Table {
            #[serde(borrow)]
            date: &'static str,
            #[serde(borrow)]
            catalogs: BTreeMap<&'static str, &'static RawValue>,
        }
        let Table { date, catalogs } = serde_json::from_str(BUNDLED).ok()?;
        Some(Self { date, catalogs, opened: BTreeMap::new() })
    }

    /// The day on which the prices were true.
    pub fn date(&self) -> &'static str {
        self.date
    }

    /// The price of a provider's model.
    pub fn price(&mut self, catalog: &str, model: &str) -> Option<Price> {
        let found = places(catalog, model).into_iter().find_map(|(catalog, model)| self.find(catalog, model));
        serde_json::from_str(found?.get()).ok()
    }

    fn find(&mut self, catalog: &str, model: &str) -> Option<&'static RawValue> {
        /// Models, and the price that they have.
        type Line = (Vec<&'static str>, &'static RawValue);
        let (catalog, lines) = self.catalogs.get_key_value(catalog)?;
        let models = self.opened.entry(catalog).or_insert_with(|| {
            let lines: Vec<Line> = serde_json::from_str(lines.get()).unwrap_or_default();
            lines.into_iter().flat_map(|(models, price)| models.into_iter().map(move |model| (model, price))).collect()
        });
        models.get(model).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::json;

    fn provider(base_url: &str, price_catalog: Option<&str>) -> Provider {
        let mut provider = json!({"dialect": "openai", "base_url": base_url});
        if let Some(name) = price_catalog {
            provider["price_catalog"] = name.into();
        }
        serde_json::from_value(provider).unwrap()
    }

    #[test]
    fn a_providers_host_tells_its_prices() {
        let of = |url: &str| catalog_of(&provider(url, None));
        assert_eq!(of("https://api.openai.com/v1"), Some("openai"));
        assert_eq!(of("https://mine.openai.azure.com/openai/v1"), Some("azure"));
        assert_eq!(of("https://bedrock-runtime.us-east-1.amazonaws.com"), Some("bedrock"));
        assert_eq!(of("https://us-central1-aiplatform.googleapis.com/v1"), Some("vertex"));
        for other in ["https://api.openai.com.evil.example", "https://xapi.openai.com", "http://127.0.0.1:1/v1", "x"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(catalog_of(&provider("https://proxy.example", Some("openai"))), Some("openai"));
        assert_eq!(catalog_of(&provider("https://api.openai.com/v1", Some("none"))), None);
    }

    #[test]
    fn every_price_of_the_table_can_be_used() {
        let mut catalogs = Catalogs::open().unwrap();
        assert!(catalogs.date().parse::<crate::billing::Day>().is_ok());
        let mut count = 0;
        for (name, lines) in catalogs.catalogs.clone() {
            assert!(is_catalog(name), "{name}");
            let lines: Vec<serde_json::Value> = serde_json::from_str(lines.get()).unwrap();
            for line in lines {
                for model in line[0].as_array().unwrap() {
                    let model = model.as_str().unwrap();
                    let price = catalogs.price(name, model).unwrap();
                    assert_eq!(json!(price), line[1], "{name} {model}");
                    let config = json!({
                        "providers": {"p": {"dialect": "openai", "base_url": "https://p.example"}},
                        "models": {"m": {"provider": "p"}},
                        "prices": {"m": price},
                    });
                    assert_eq!(Config::parse(&config).err(), None, "{name} {model}");
                    count += 1;
                }
            }
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn what_is_no_chat_is_priced_by_what_is_counted_of_it() {
        let mut catalogs = Catalogs::open().unwrap();
        let mut price = |model| json!(catalogs.price("openai", model));
        assert_eq!(price("whisper-1"), json!({"per_audio_minute": "0.006"}));
        assert_eq!(price("tts-1"), json!({"per_million_characters": "15"}));
        assert_eq!(price("gpt-4o-transcribe"), json!({"input": "2.5", "output": "10", "input_audio": "2.5"}));
        assert_eq!(price("gpt-image-1.5")["output_image"], "32");
        // What a picture costs depends on its size and quality.
        assert_eq!(price("dall-e-3"), json!(null));
    }

    #[test]
    fn a_name_stands_for_the_same_model_elsewhere() {
        let mut catalogs = Catalogs::open().unwrap();
        let mut input = |catalog, model| catalogs.price(catalog, model).and_then(|price| price.input);
        let openai = input("openai", "gpt-4o");
        assert!(openai.is_some());
        assert_eq!(input("azure", "gpt-4o"), openai);
        assert_eq!(input("openai", "no-such-model"), None);
        assert_eq!(input("nobody", "gpt-4o"), None);
    }
}
