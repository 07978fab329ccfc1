//! A provider's section `health`: how it is looked at without anybody's request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{Problems, at, section};

section! {
    /// How it is found out whether a provider is in good health.
    #[derive(Eq)]
    pub struct HealthProbe {
        /// Whether what requests come to counts: it takes the provider, or one of its models, out of service for a while.
        /// Otherwise only probes and operators do.
        pub passive: bool = true;
        /// What probes send.
        pub method: ProbeMethod = ProbeMethod::None;
        /// For method `path`: what to get, below `base_url`. Anything from 200 to 299 is healthy.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub path: Option<String> = None, chars 1 ..= 512;
        /// For method `chat`: the model to ask, by its name in `models`; it must be one of this provider's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub model: Option<String> = None, chars 1 ..= 256;
        /// How often, in seconds, rounded up to whole minutes.
        pub interval_seconds: u64 = 60, in 60 ..= 86_400;
        /// How long an answer may take, in milliseconds.
        pub timeout_ms: u64 = 5_000, in 100 ..= 30_000;
        /// After how many probes in a row that failed the provider gets no requests any more.
        pub unhealthy_after: u64 = 3, in 1 ..= 20;
        /// After how many probes in a row that succeeded it gets requests again.
        pub healthy_after: u64 = 2, in 1 ..= 20;
    }
}

/// What a probe sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeMethod {
    /// There are no probes.
    #[default]
    None,
    /// It gets the list of models, which costs nothing. Of a `generic`, `bedrock` or `vertex` provider that is `base_url`
    /// itself: any answer that is not about the credential will do.
    Models,
    /// It has `model` say one token, which costs about that.
    Chat,
    /// It gets `path`.
    Path,
}

impl HealthProbe {
    /// Whether it is left at its defaults.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What its fields say of each other.
    pub(super) fn check(&self, path: &str, found: &mut Problems) {
        match (self.method, &self.path) {
            (ProbeMethod::Path, None) => found.add(&at(path, "path"), "must be set for the method `path`"),
            (ProbeMethod::Path, Some(wanted)) if !wanted.starts_with('/') => {
                found.add(&at(path, "path"), "must begin with /: it is appended to `base_url`");
            }
            (ProbeMethod::Path, Some(_)) | (_, None) => {}
            (_, Some(_)) => found.add(&at(path, "path"), "is only for the method `path`"),
        }
        match (self.method, &self.model) {
            (ProbeMethod::Chat, None) => found.add(&at(path, "model"), "must be set for the method `chat`"),
            (ProbeMethod::Chat, Some(_)) | (_, None) => {}
            (_, Some(_)) => found.add(&at(path, "model"), "is only for the method `chat`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use serde_json::{Value, json};

    fn problems(health: Value) -> Vec<String> {
        let provider =
            |health: Value| json!({"dialect": "openai", "base_url": "https://p.example/v1", "health": health});
        let config = json!({
            "providers": {"p": provider(health), "q": provider(json!({}))},
            "models": {"m": {"provider": "p"}, "n": {"provider": "q"}},
        });
        let problems = Config::parse(&config).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.path.replace("providers.p.health.", "")).collect()
    }

    #[test]
    fn a_probe_says_what_it_needs_and_nothing_else() {
        let none: [&str; 0] = [];
        assert_eq!(problems(json!({"method": "models", "interval_seconds": 300})), none);
        assert_eq!(problems(json!({"method": "path", "path": "/health"})), none);
        assert_eq!(problems(json!({"method": "chat", "model": "m"})), none);
        assert_eq!(problems(json!({"method": "path"})), ["path"]);
        assert_eq!(problems(json!({"method": "path", "path": "health"})), ["path"]);
        assert_eq!(problems(json!({"method": "models", "path": "/health", "model": "m"})), ["path", "model"]);
        assert_eq!(problems(json!({"method": "chat"})), ["model"]);
        assert_eq!(problems(json!({"method": "chat", "model": "n"})), ["model"], "that one is another provider's");
        assert_eq!(
            problems(json!({"interval_seconds": 59, "healthy_after": 0})),
            ["interval_seconds", "healthy_after"]
        );
    }
}
