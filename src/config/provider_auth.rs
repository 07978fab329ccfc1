//! A provider's section `auth`: what becomes of its credential before it is sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{Bounded, Problems, at, fields};
use super::{PrivateHosts, Provider, ProviderDialect, check_base_url};

fields! {
    /// What becomes of a provider's credential before it is sent.
    pub struct ProviderAuth {
        /// What is done with it.
        pub method: AuthMethod;
        /// For `sigv4`: the access key's id. Left out: the credential names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub access_key_id: Option<String>, chars 1 ..= 128;
        /// For `sigv4`: the region, as the host in `base_url` names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub region: Option<String>, chars 1 ..= 64;
        /// For `entra`: the tenant's id, or one of its domains.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tenant: Option<String>, chars 1 ..= 128;
        /// For `entra`: the application's id. For `baidu`: the application's API key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub client_id: Option<String>, chars 1 ..= 128;
        /// For `entra`: what tokens are for, if that is not Azure's AI services (`https://ai.azure.com/.default`, a government
        /// cloud's).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub scope: Option<String>, chars 1 ..= 256;
        /// Where tokens are minted, if that is not the usual place. Which addresses may stand here is as for `base_url`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub token_url: Option<String>, chars 1 ..= 2048;
    }
}

/// What is done with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthMethod {
    /// Requests are signed by Amazon's Signature Version 4. The credential is the secret access key; of a temporary key it
    /// is the JSON that `aws sts` prints, with `AccessKeyId`, `SecretAccessKey` and `SessionToken`.
    #[serde(rename = "sigv4")]
    SigV4,
    /// Google mints access tokens for a service account. The credential is the account's key file, JSON.
    #[serde(rename = "google_service_account")]
    GoogleServiceAccount,
    /// Microsoft Entra ID mints access tokens for an application. The credential is a client secret of the application.
    #[serde(rename = "entra")]
    Entra,
    /// Baidu mints access tokens for an application. The credential is the application's secret key.
    #[serde(rename = "baidu")]
    Baidu,
}

impl AuthMethod {
    /// Whether there are providers of this dialect that take what comes of it, and the dialects of which there are some.
    fn suits(self, dialect: ProviderDialect) -> Result<(), &'static str> {
        use ProviderDialect::{Anthropic, Bedrock, Gemini, Generic, OpenAi, Vertex, Wenxinworkshop};
        let (suits, which) = match self {
            Self::SigV4 => (dialect == Bedrock, "`bedrock`"),
            Self::GoogleServiceAccount => {
                (matches!(dialect, Vertex | Gemini | OpenAi | Generic), "`vertex`, `gemini`, `openai` and `generic`")
            }
            Self::Entra => (matches!(dialect, OpenAi | Anthropic | Generic), "`openai`, `anthropic` and `generic`"),
            Self::Baidu => (matches!(dialect, Wenxinworkshop | Generic), "`wenxinworkshop` and `generic`"),
        };
        if suits { Ok(()) } else { Err(which) }
    }
}

impl ProviderAuth {
    /// What is wrong with it.
    pub(super) fn check(&self, path: &str, provider: &Provider, found: &mut Problems) {
        use AuthMethod::{Baidu, Entra, GoogleServiceAccount, SigV4};
        self.check_bounds(path, found);
        if let Err(which) = self.method.suits(provider.dialect()) {
            found.add(&at(path, "method"), format!("is only for providers of the dialects {which}"));
        }
        if provider.credential.is_none() {
            found.add(path, "needs a `credential`");
        }
        let minted: &[AuthMethod] = &[GoogleServiceAccount, Entra, Baidu];
        for (name, value, of, needed) in [
            ("access_key_id", &self.access_key_id, &[SigV4][..], false),
            ("region", &self.region, &[SigV4], true),
            ("tenant", &self.tenant, &[Entra], true),
            ("client_id", &self.client_id, &[Entra, Baidu], true),
            ("scope", &self.scope, &[Entra], false),
            ("token_url", &self.token_url, minted, false),
        ] {
            let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            match value {
                None if needed && of.contains(&self.method) => {
                    found.add(&at(path, name), "must be set for this method");
                }
                Some(_) if !of.contains(&self.method) => found.add(&at(path, name), "is not for this method"),
                Some(value) if name == "scope" && !value.chars().all(|c| c.is_ascii_graphic()) => {
                    found.add(&at(path, name), "must be one scope");
                }
                Some(value) if !["scope", "token_url"].contains(&name) && !value.chars().all(usual) => {
                    found.add(&at(path, name), "must consist of letters, digits, \"-\", \"_\" and \".\"");
                }
                _ => {}
            }
        }
        if let Some(Err(error)) = self.token_url.as_deref().map(|url| check_base_url(url, &PrivateHosts::Any)) {
            found.add(&at(path, "token_url"), error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use serde_json::{Value, json};

    fn problems(dialect: &str, auth: Value) -> Vec<String> {
        let provider = json!({
            "dialect": dialect, "base_url": "https://p.example/v1", "credential": "P_KEY", "auth": auth,
            "generic": (dialect == "generic").then(|| json!({"body": {}, "reply": {"text": "/a"}})),
        });
        let config = json!({"providers": {"p": provider}});
        let problems = Config::parse(&config).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.path.replace("providers.p.auth.", "")).collect()
    }

    #[test]
    fn a_method_says_what_it_needs_and_nothing_else() {
        let none: [&str; 0] = [];
        let entra = json!({"method": "entra", "tenant": "example.com", "client_id": "c-1"});
        assert_eq!(problems("bedrock", json!({"method": "sigv4", "region": "us-east-1"})), none);
        assert_eq!(problems("vertex", json!({"method": "google_service_account"})), none);
        assert_eq!(problems("openai", entra.clone()), none);
        let scoped = |scope: &str| json!({"method": "entra", "tenant": "t", "client_id": "c", "scope": scope});
        assert_eq!(problems("openai", scoped("https://ai.azure.com/.default")), none);
        assert_eq!(problems("openai", scoped("one two")), ["scope"]);
        assert_eq!(problems("bedrock", json!({"method": "sigv4", "region": "r", "scope": "s"})), ["scope"]);
        assert_eq!(problems("generic", json!({"method": "baidu", "client_id": "c"})), none);

        assert_eq!(problems("openai", json!({"method": "sigv4", "region": "r"})), ["method"]);
        assert_eq!(problems("gemini", entra), ["method"]);
        assert_eq!(problems("bedrock", json!({"method": "sigv4", "client_id": "c"})), ["region", "client_id"]);
        assert_eq!(problems("openai", json!({"method": "entra", "tenant": "a/b"})), ["tenant", "client_id"]);
        assert_eq!(problems("bedrock", json!({"method": "sigv4", "region": "r/x@evil"})), ["region"]);
        assert_eq!(problems("bedrock", json!({"method": "made_up"})), ["method"]);
    }

    #[test]
    fn a_token_endpoint_is_no_less_public_than_a_provider() {
        let told = |url: &str| problems("vertex", json!({"method": "google_service_account", "token_url": url}));
        assert_eq!(told("https://tokens.example/t"), [""; 0]);
        for url in ["ftp://tokens.example/t", "https://u:p@tokens.example", "https://tokens.example/?a=b", "tokens"] {
            assert_eq!(told(url), ["token_url"], "{url}");
        }
    }

    #[test]
    fn there_is_nothing_to_work_on_without_a_credential() {
        let provider = json!({
            "dialect": "bedrock", "base_url": "https://p.example", "auth": {"method": "sigv4", "region": "r"},
        });
        let problems = Config::parse(&json!({"providers": {"p": provider}})).unwrap_err();
        assert_eq!((problems.len(), problems[0].path.as_str()), (1, "providers.p.auth"));
    }
}
