//! The prices of a configuration's models.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Day, PriceCard, PriceSource, Pricing};
use crate::config::Config;

/// What is known of the price of each model.
#[derive(Debug, Default)]
pub struct Prices(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    card: Arc<PriceCard>,
    source: PriceSource,
}

impl Prices {
    /// The prices of a configuration's models: the configured one, or else the bundled one.
    pub fn of(config: &Config) -> Self {
        let known = |name: &String| {
            let configured = config.prices.get(name)?;
            Some(Known { card: Arc::new(configured.card()), source: PriceSource::Configured })
        };
        Self(config.models.keys().filter_map(|name| Some((name.clone(), known(name)?))).collect())
    }

    /// What a model costs an account at a Unix time in seconds; `None` if it has no price.
    pub fn find(&self, model: &str, account: &str, at: u64) -> Option<Pricing> {
        let known = self.0.get(model)?;
        Pricing::of(&known.card, known.source, account, Day::at(at))
    }
}
