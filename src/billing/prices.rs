//! The prices of a configuration's models.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::{Catalogs, catalog_of};
use super::{Day, PriceCard, PriceSource, Pricing};
use crate::config::{Config, Price};

/// What is known of the price of each model.
#[derive(Debug, Default)]
pub struct Prices(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    card: Arc<PriceCard>,
    source: PriceSource,
}

impl Prices {
    /// The prices of a configuration's models: the configured one where it states a price, otherwise the bundled one, with
    /// the configured variants on top.
    pub fn of(config: &Config) -> Self {
        let mut bundled = if config.billing.bundled_prices { Catalogs::open() } else { None };
        let mut known = BTreeMap::new();
        for (name, model) in &config.models {
            let configured = config.prices.get(name).map(Price::card).unwrap_or_default();
            let mut brought = || {
                let catalog = catalog_of(config.providers.get(&model.provider)?)?;
                let bundled = bundled.as_mut()?;
                let price = bundled.price(catalog, model.upstream_model.as_deref().unwrap_or(name))?;
                Some((price.card(), PriceSource::Bundled(bundled.date())))
            };
            let found = if configured.base.is_empty() { brought() } else { None };
            let (card, source) = match found {
                None => (configured, PriceSource::Configured),
                Some((PriceCard { base, mut variants }, source)) => {
                    variants.extend(configured.variants);
                    (PriceCard { base, variants }, source)
                }
            };
            known.insert(name.clone(), Known { card: Arc::new(card), source });
        }
        Self(known)
    }

    /// What a model costs an account at a Unix time in seconds; `None` if it has no price.
    pub fn find(&self, model: &str, account: &str, at: u64) -> Option<Pricing> {
        let known = self.0.get(model)?;
        Pricing::of(&known.card, known.source, account, Day::at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::Nanodollars;
    use crate::protocol::usage::{BillingFacts, Usage};
    use serde_json::json;

    /// What a million tokens of input cost an account at a time, in dollars, and where that comes from.
    fn costs(prices: &Prices, model: &str, account: &str, at: u64) -> Option<(String, String)> {
        let pricing = prices.find(model, account, at)?;
        let usage = Usage { input: 1_000_000, ..Usage::default() };
        let Nanodollars(nanos) = pricing.cost(&usage, &BillingFacts::default());
        Some((Nanodollars(nanos).to_string(), pricing.source().to_string()))
    }

    fn prices(prices: serde_json::Value, billing: serde_json::Value) -> Prices {
        let config = json!({
            "providers": {
                "o": {"dialect": "openai", "base_url": "https://api.openai.com/v1"},
                "local": {"dialect": "openai", "base_url": "https://models.example/v1"},
            },
            "models": {
                "mini": {"provider": "o", "upstream_model": "gpt-4o-mini"}, "gpt-4o-mini": {"provider": "local"},
                "own": {"provider": "o", "upstream_model": "nobody-knows-it"},
            },
            "prices": prices,
            "billing": billing,
        });
        Prices::of(&Config::parse(&config).unwrap())
    }

    #[test]
    fn a_configured_price_counts_above_the_one_that_is_brought_along() {
        let plain = prices(json!({}), json!({}));
        let (bundled, source) = costs(&plain, "mini", "a", 0).unwrap();
        assert_eq!(bundled, "0.15");
        assert!(source.starts_with("bundled (20"), "{source}");
        assert_eq!((costs(&plain, "gpt-4o-mini", "a", 0), costs(&plain, "own", "a", 0)), (None, None));
        assert_eq!(costs(&plain, "nope", "a", 0), None);
        let told = |prices: Prices| costs(&prices, "mini", "a", 0).map(|(cost, source)| format!("{cost} {source}"));
        assert_eq!(told(prices(json!({"mini": {"input": "7"}}), json!({}))).as_deref(), Some("7 configured"));
        assert_eq!(told(prices(json!({}), json!({"bundled_prices": false}))), None);
        assert_eq!(told(prices(json!({"mini": {"source": "x"}}), json!({}))), Some(format!("0.15 {source}")));
    }

    #[test]
    fn variants_count_for_their_days_and_accounts() {
        const NEW_YEAR: u64 = 1_798_761_600;
        let own = json!({"own": {"variants": [
            {"from": "2026-01-01", "until": "2027-01-01", "input": "3"},
            {"from": "2027-01-01", "input": "2"},
            {"account": "friends", "input": "1"},
        ]}});
        let prices = prices(own, json!({}));
        let cost = |account, at| costs(&prices, "own", account, at).map(|(cost, _)| cost);
        assert_eq!(cost("a", 0), None);
        assert_eq!(cost("a", NEW_YEAR - 1).as_deref(), Some("3"));
        assert_eq!(cost("a", NEW_YEAR).as_deref(), Some("2"));
        assert_eq!((cost("friends", 0).as_deref(), cost("friends", NEW_YEAR).as_deref()), (Some("1"), Some("1")));
    }

    #[test]
    fn an_accounts_discount_goes_on_top_of_what_is_brought_along() {
        let prices = prices(json!({"mini": {"variants": [{"account": "friends", "multiplier": "0.9"}]}}), json!({}));
        let cost = |account| costs(&prices, "mini", account, 0).map(|(cost, _)| cost);
        assert_eq!((cost("a").as_deref(), cost("friends").as_deref()), (Some("0.15"), Some("0.135")));
    }
}
