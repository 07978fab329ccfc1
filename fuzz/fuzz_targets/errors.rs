//! Error replies of every dialect, whatever they are.

#![no_main]

use std::sync::LazyLock;

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use llm_gateway::config::Provider;
use llm_gateway::providers::upstream_problem;
use llm_gateway_fuzz::providers;

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(providers);

fuzz_target!(|input: (u16, &[u8])| {
    let (status, body) = input;
    for provider in PROVIDERS.iter() {
        let problem = upstream_problem(provider, status, &HeaderMap::new(), body);
        assert!((400..=599).contains(&problem.status), "{} from {status}", problem.status);
    }
});
