//! Replies of translated APIs that are no chat: embeddings and rankings.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use llm_gateway::config::Provider;
use llm_gateway::protocol::Api;
use llm_gateway::providers::outbound;
use llm_gateway::providers::side::SideAsked;
use llm_gateway_fuzz::{providers, target};
use serde_json::{Value, json};

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(providers);

const MODELS: [&str; 4] = ["upstream", "amazon.titan-embed", "cohere.embed", "nova-embed"];

fuzz_target!(|input: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(input) else { return };
    for (provider, model) in PROVIDERS.iter().flat_map(|provider| MODELS.map(|model| (provider, model))) {
        let target = target(provider, model);
        for api in Api::ALL {
            let Some(side) = outbound(provider.dialect()).side(api, target) else { continue };
            for asked in
                [json!({"input": "a", "documents": ["a", "b"]}), json!({"input": ["a"], "encoding_format": "base64"})]
            {
                let members = &side.echo(&asked);
                let _ = side.reply(&body, &SideAsked { members, model: "m", id: "id" });
            }
        }
    }
});
