//! The gateway's configuration: one typed schema with defaults and bounds, read from TOML by `gatewayctl` and from a
//! JSON snapshot by the Worker. [`Config::problems`] lists everything that is wrong at once, each with its path.

mod endpoint;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use endpoint::{EndpointError, PrivateHosts, check_base_url};

/// The key under which KV holds the current snapshot.
pub const CURRENT_SNAPSHOT: &str = "config:current";

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Limits of inbound HTTP.
    pub http: Http,
    /// Cross-origin access from browsers.
    pub cors: Cors,
    /// How callers are recognised.
    pub auth: Auth,
    /// Bounds on the time an upstream may take, for every provider that sets none of its own.
    pub timeouts: Timeouts,
    /// The providers, by name.
    pub providers: BTreeMap<String, Provider>,
    /// The models that callers can name, by that name.
    pub models: BTreeMap<String, Model>,
}

/// Limits of inbound HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Http {
    /// Largest request body in bytes. Default 16 MiB, 1 KiB to 64 MiB: an isolate has 128 MiB for everything.
    pub max_body_bytes: usize,
    /// Deepest nesting of a request's JSON. Default 64, 8 to 512.
    pub max_json_depth: usize,
    /// Smallest reply in bytes that is worth compressing. Default 1,024.
    pub compress_min_bytes: usize,
    /// Largest unstreamed reply of a provider in bytes. Default 32 MiB, 1 KiB to 64 MiB.
    pub max_reply_bytes: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 * 1024 * 1024,
            max_json_depth: 64,
            compress_min_bytes: 1024,
            max_reply_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Cross-origin access from browsers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    /// Origins that may call the gateway from a browser, such as `https://app.example.com`; `*` allows every origin.
    /// Default: none.
    pub allowed_origins: Vec<String>,
}

/// How callers are recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// How long an isolate may use a key record before it looks again, in milliseconds. Default 5,000, 0 to 60,000.
    pub key_cache_ms: u64,
    /// Issuers whose JSON Web Tokens are accepted in place of an API key.
    pub jwt: Vec<JwtIssuer>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { key_cache_ms: 5_000, jwt: Vec::new() }
    }
}

/// An issuer of JSON Web Tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JwtIssuer {
    /// The exact `iss` claim.
    pub issuer: String,
    /// The `aud` claim that a token must carry.
    pub audience: String,
    /// The algorithms that the issuer signs with: `RS256`, `ES256`, `EdDSA`. A token with another one is refused
    /// whatever its key says.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The issuer's public keys, as a JSON Web Key Set (RFC 7517).
    pub jwks: Value,
    /// The claim that names the caller's account. Default `sub`.
    #[serde(default = "default_account_claim")]
    pub account_claim: String,
    /// Models that its tokens may use; empty for all.
    #[serde(default)]
    pub models: Vec<String>,
}

fn default_account_claim() -> String {
    "sub".to_owned()
}

/// A signature algorithm for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// Bounds on the time an upstream may take. Each one that runs out aborts the upstream request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Connecting and waiting for the first byte of a streamed reply, in milliseconds. Default 60,000, 50 to 600,000.
    /// An unstreamed reply has no byte before it is complete, so only `total_ms` bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Silence between two pieces of a reply, in milliseconds. Default 60,000, 50 to 600,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// The whole reply, in milliseconds. Default 600,000, 100 to 3,600,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

impl Timeouts {
    /// Default of `first_byte_ms`.
    pub const FIRST_BYTE_MS: u64 = 60_000;
    /// Default of `idle_ms`.
    pub const IDLE_MS: u64 = 60_000;
    /// Default of `total_ms`.
    pub const TOTAL_MS: u64 = 600_000;

    /// These bounds where they are set, `general` where they are not.
    #[must_use]
    pub fn or(self, general: Self) -> Self {
        Self {
            first_byte_ms: self.first_byte_ms.or(general.first_byte_ms),
            idle_ms: self.idle_ms.or(general.idle_ms),
            total_ms: self.total_ms.or(general.total_ms),
        }
    }
}

/// A provider: an upstream that serves models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// The wire format it speaks.
    pub dialect: ProviderDialect,
    /// Where it is. The dialect's path is appended: `/chat/completions` for `openai` (so this ends in `/v1` for most),
    /// `/v1/messages` for `anthropic`, the `generic` section's own path for `generic`. Must be `https:` and a public
    /// host, unless the deployment names the host in `PRIVATE_UPSTREAM_HOSTS`.
    pub base_url: String,
    /// The name of the Worker secret that holds the provider's credential. Left out: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Further headers to send. Not for credentials: they would stand in the snapshot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Time bounds of its own.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How a stream tells its usage.
    #[serde(default)]
    pub stream_usage: StreamUsage,
    /// Decode and rewrite the replies of a provider that speaks the caller's dialect loosely, so that callers see it
    /// strictly. Costs CPU per chunk. Default false.
    #[serde(default)]
    pub normalize: bool,
    /// The mapping of a `generic` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic: Option<Generic>,
}

/// A wire format that providers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderDialect {
    /// OpenAI Chat Completions.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic Messages.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// Anything that takes and gives JSON, mapped by configuration.
    #[serde(rename = "generic")]
    Generic,
}

/// How a provider's stream tells its usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamUsage {
    /// In a chunk of its own if `stream_options.include_usage` asks for it (OpenAI). The gateway asks; where the caller
    /// did not, it removes the chunk again.
    #[default]
    OnRequest,
    /// Always, inside ordinary chunks. Such streams are passed on natively.
    Always,
}

/// How a `generic` provider's requests and replies are mapped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generic {
    /// The path below the base URL; may contain `{{model}}`.
    #[serde(default)]
    pub path: String,
    /// The header that carries the credential. Default `authorization`.
    #[serde(default)]
    pub credential_header: CredentialPlace,
    /// The request body. A string that is one placeholder, such as `"{{temperature}}"`, becomes the value itself and its
    /// member is left out where the caller gave none; placeholders within a longer string are filled in as text.
    /// Placeholders: `model`, `messages`, `prompt` (the conversation as text), `system`, `last_user_message`,
    /// `max_tokens`, `temperature`, `top_p`, `stop`, `stream`, `user`, `tools`.
    pub body: Value,
    /// Where an unstreamed reply has what.
    pub reply: GenericReply,
    /// How a streamed reply looks. Left out: the provider cannot stream, and a streamed call is answered from an
    /// unstreamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<GenericStream>,
    /// Pointer to the message in an error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Pointer to the code in an error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// The header that carries a generic provider's credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialPlace {
    /// `Authorization: Bearer …`
    #[default]
    Authorization,
    /// `x-api-key: …`
    XApiKey,
    /// `api-key: …`
    ApiKey,
}

/// JSON pointers (RFC 6901) into a reply, or into each object of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenericReply {
    /// The text, or the next piece of it.
    pub text: String,
    /// The reply's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Reasoning that is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The provider's words for why it ended, with OpenAI's (`stop`, `length`, `tool_calls`, `content_filter`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub finish_reasons: BTreeMap<String, String>,
    /// Input tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<String>,
    /// Output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<String>,
}

/// How a generic provider streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenericStream {
    /// How its objects are divided.
    pub framing: Framing,
    /// Where each object has what.
    pub reply: GenericReply,
    /// The event data that ends the stream, such as `[DONE]`. Left out: an object with a finish reason ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// Pointer to an error message within the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// How the objects of a stream are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Server-sent events, one object each.
    Sse,
    /// One object a line.
    Ndjson,
}

/// A model that callers can name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The provider that serves it.
    pub provider: String,
    /// Its name there. Default: the name that callers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_model: Option<String>,
    /// Output tokens to ask for where the caller sets no limit and the provider insists on one. Default 8,192,
    /// 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// How it is made to answer with JSON that follows a schema, where the provider is not OpenAI-like.
    #[serde(default)]
    pub structured_output: StructuredOutput,
}

impl Model {
    /// Default of `max_output_tokens`.
    pub const MAX_OUTPUT_TOKENS: u64 = 8_192;
}

/// How a model is made to answer with JSON that follows a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// By the provider's own parameter for it.
    #[default]
    Native,
    /// By a tool whose arguments are the answer, for models that lack the parameter.
    Tool,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where, such as `providers.openai.base_url`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl Config {
    /// Reads what somebody wrote. Misspelt fields are problems here; a snapshot may have fields that are unknown, because
    /// a later version of the gateway wrote it.
    ///
    /// # Errors
    /// Everything that is wrong with it, or the first thing of the wrong type.
    pub fn parse(written: &Value) -> Result<Self, Vec<ConfigProblem>> {
        let mut unknown = Vec::new();
        let note = |path: serde_ignored::Path<'_>| {
            let path = path.to_string().replace(".?", "");
            unknown.push(ConfigProblem { path, message: "there is no such field".to_owned() });
        };
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(written, &mut track);
        let parsed: Result<Self, _> = serde_ignored::deserialize(tracked, note);
        match parsed {
            Ok(config) => {
                unknown.extend(config.problems());
                if unknown.is_empty() { Ok(config) } else { Err(unknown) }
            }
            Err(error) => Err(vec![ConfigProblem { path: track.path().to_string(), message: error.to_string() }]),
        }
    }

    /// Everything that is wrong with it; empty if it can be used.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Problems::default();
        found.within("http.max_body_bytes", self.http.max_body_bytes as u64, 1024, 64 * 1024 * 1024);
        found.within("http.max_json_depth", self.http.max_json_depth as u64, 8, 512);
        found.within("http.max_reply_bytes", self.http.max_reply_bytes as u64, 1024, 64 * 1024 * 1024);
        found.within("auth.key_cache_ms", self.auth.key_cache_ms, 0, 60_000);
        for (nth, origin) in self.cors.allowed_origins.iter().enumerate() {
            let is_origin =
                origin == "*" || url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            if !is_origin {
                let path = format!("cors.allowed_origins[{nth}]");
                found.add(&path, "must be an origin such as https://app.example.com, without a path, or *");
            }
        }
        for (nth, issuer) in self.auth.jwt.iter().enumerate() {
            found.issuer(&format!("auth.jwt[{nth}]"), issuer);
        }
        found.timeouts("timeouts", self.timeouts);
        for (name, provider) in &self.providers {
            found.provider(&format!("providers.{name}"), provider);
        }
        for (name, model) in &self.models {
            let path = format!("models.{name}");
            if !self.providers.contains_key(&model.provider) {
                found.add(&format!("{path}.provider"), &format!("there is no provider `{}`", model.provider));
            }
            if let Some(tokens) = model.max_output_tokens {
                found.within(&format!("{path}.max_output_tokens"), tokens, 1, 1_000_000);
            }
            if name.is_empty() || name.len() > 256 {
                found.add(&path, "a model's name must have 1 to 256 bytes");
            }
        }
        found.0
    }
}

#[derive(Default)]
struct Problems(Vec<ConfigProblem>);

impl Problems {
    fn add(&mut self, path: &str, message: &str) {
        self.0.push(ConfigProblem { path: path.to_owned(), message: message.to_owned() });
    }

    fn within(&mut self, path: &str, value: u64, min: u64, max: u64) {
        if value < min || value > max {
            self.add(path, &format!("is {value}, but must be {min} to {max}"));
        }
    }

    fn timeouts(&mut self, path: &str, timeouts: Timeouts) {
        let bounds = [
            ("first_byte_ms", timeouts.first_byte_ms, 50, 600_000),
            ("idle_ms", timeouts.idle_ms, 50, 600_000),
            ("total_ms", timeouts.total_ms, 100, 3_600_000),
        ];
        for (name, value, min, max) in bounds {
            if let Some(value) = value {
                self.within(&format!("{path}.{name}"), value, min, max);
            }
        }
    }

    fn issuer(&mut self, path: &str, issuer: &JwtIssuer) {
        if issuer.algorithms.is_empty() {
            self.add(&format!("{path}.algorithms"), "name at least one of RS256, ES256, EdDSA");
        }
        if issuer.issuer.is_empty() || issuer.audience.is_empty() {
            self.add(path, "`issuer` and `audience` must not be empty");
        }
        if serde_json::from_value::<jsonwebtoken::jwk::JwkSet>(issuer.jwks.clone()).is_err() {
            self.add(&format!("{path}.jwks"), "must be a JSON Web Key Set: an object with `keys`");
        }
    }

    fn provider(&mut self, path: &str, provider: &Provider) {
        if let Err(error) = check_base_url(&provider.base_url, &PrivateHosts::Any) {
            self.add(&format!("{path}.base_url"), &error.to_string());
        }
        self.timeouts(&format!("{path}.timeouts"), provider.timeouts);
        for (name, value) in &provider.headers {
            let valid = http::HeaderName::try_from(name.as_str()).is_ok()
                && http::HeaderValue::try_from(value.as_str()).is_ok();
            let path = format!("{path}.headers.{name}");
            if !valid {
                self.add(&path, "is not a valid header");
            } else if matches!(name.to_ascii_lowercase().as_str(), "authorization" | "x-api-key" | "api-key" | "cookie")
            {
                self.add(&path, "credentials do not belong here: name a Worker secret in `credential`");
            }
        }
        if provider.normalize && provider.dialect != ProviderDialect::OpenAi {
            self.add(
                &format!("{path}.normalize"),
                "only for dialect `openai`: replies of the others are rewritten anyway",
            );
        }
        match (provider.dialect, &provider.generic) {
            (ProviderDialect::Generic, None) => {
                self.add(path, "a provider with dialect `generic` needs a `generic` section");
            }
            (ProviderDialect::Generic, Some(generic)) => self.generic(&format!("{path}.generic"), generic),
            (_, Some(_)) => self.add(&format!("{path}.generic"), "only for dialect `generic`"),
            (_, None) => {}
        }
    }

    fn generic(&mut self, path: &str, generic: &Generic) {
        self.reply(&format!("{path}.reply"), &generic.reply);
        if let Some(stream) = &generic.stream {
            self.reply(&format!("{path}.stream.reply"), &stream.reply);
            if stream.done.is_none() && stream.reply.finish_reason.is_none() {
                let message =
                    "set `done` or `reply.finish_reason`, or a complete stream cannot be told from a broken one";
                self.add(&format!("{path}.stream"), message);
            }
        }
        let pointers = [
            ("error_message", &generic.error_message),
            ("error_code", &generic.error_code),
            ("stream.error_message", &generic.stream.as_ref().and_then(|stream| stream.error_message.clone())),
        ];
        for (name, pointer) in pointers {
            self.pointer(&format!("{path}.{name}"), pointer.as_deref());
        }
        for unknown in crate::providers::generic::unknown_placeholders(&generic.body) {
            self.add(&format!("{path}.body"), &format!("there is no placeholder {{{{{unknown}}}}}"));
        }
    }

    fn reply(&mut self, path: &str, reply: &GenericReply) {
        let pointers = [
            ("text", Some(&reply.text)),
            ("id", reply.id.as_ref()),
            ("reasoning", reply.reasoning.as_ref()),
            ("finish_reason", reply.finish_reason.as_ref()),
            ("input_tokens", reply.input_tokens.as_ref()),
            ("output_tokens", reply.output_tokens.as_ref()),
        ];
        for (name, pointer) in pointers {
            self.pointer(&format!("{path}.{name}"), pointer.map(String::as_str));
        }
    }

    fn pointer(&mut self, path: &str, pointer: Option<&str>) {
        if pointer.is_some_and(|pointer| !pointer.starts_with('/')) {
            self.add(path, "must be a JSON pointer: it begins with /");
        }
    }
}

/// A configuration as it lies in KV: immutable, named by a hash of its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The first 12 hexadecimal digits of the SHA-256 of the configuration's JSON.
    pub version: String,
    /// When it was sealed, in Unix seconds. Not part of the version.
    #[serde(default)]
    pub created_at: u64,
    /// The configuration.
    pub config: Config,
}

impl Snapshot {
    /// Seals a configuration; `now` is in Unix seconds.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn seal(config: Config, now: u64) -> Result<Self, Vec<ConfigProblem>> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let json = serde_json::to_vec(&config)
            .map_err(|error| vec![ConfigProblem { path: String::new(), message: error.to_string() }])?;
        let digest = Sha256::digest(&json);
        let version = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { version, created_at: now, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_path() {
        let problems = config(json!({
            "http": {"max_body_bytes": 1},
            "cors": {"allowed_origins": ["https://a.example/x"]},
            "timeouts": {"idle_ms": 1},
            "providers": {
                "a": {"dialect": "openai", "base_url": "ftp://x", "headers": {"Authorization": "Bearer x"}},
                "b": {"dialect": "generic", "base_url": "https://x.example", "normalize": true},
                "c": {"dialect": "generic", "base_url": "https://x.example", "generic": {
                    "body": {"a": "{{nonsense}}"}, "reply": {"text": "no"}, "stream": {"framing": "sse", "reply": {"text": "/t"}}}},
            },
            "models": {"m": {"provider": "zzz", "max_output_tokens": 0}},
        }))
        .problems();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "http.max_body_bytes",
                "cors.allowed_origins[0]",
                "timeouts.idle_ms",
                "providers.a.base_url",
                "providers.a.headers.Authorization",
                "providers.b.normalize",
                "providers.b",
                "providers.c.generic.reply.text",
                "providers.c.generic.stream",
                "providers.c.generic.body",
                "models.m.provider",
                "models.m.max_output_tokens",
            ]
        );
    }

    #[test]
    fn the_version_depends_on_the_content_alone() {
        let one = Snapshot::seal(config(json!({"timeouts": {"idle_ms": 500}})), 1).unwrap();
        let same = Snapshot::seal(config(json!({"cors": {}, "timeouts": {"idle_ms": 500}})), 2).unwrap();
        let other = Snapshot::seal(config(json!({"timeouts": {"idle_ms": 501}})), 1).unwrap();
        assert_eq!(one.version, same.version);
        assert_ne!(one.version, other.version);
        assert_eq!(one.version.len(), 12);
        let back: Snapshot = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(back, one);
    }

    #[test]
    fn what_is_written_is_read_strictly_and_told_by_path() {
        let told = |written: Value| {
            let problems = Config::parse(&written).unwrap_err();
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        let misspelt = json!({
            "timeouts": {"idel_ms": 5, "total_ms": 1},
            "providers": {"p": {"dialect": "openai", "base_url": "https://x.example", "nope": 1, "timeouts": {"x": 1}}},
        });
        let paths = told(misspelt);
        assert_eq!(paths, ["timeouts.idel_ms", "providers.p.nope", "providers.p.timeouts.x", "timeouts.total_ms"]);
        assert_eq!(told(json!({"models": {"m": {"provider": 5}}})), ["models.m.provider"]);
        assert_eq!(told(json!({"providers": {"p": {"dialect": "klingon", "base_url": "x"}}})), ["providers.p.dialect"]);
        assert!(Config::parse(&json!({"http": {"max_json_depth": 100}})).is_ok());
    }

    #[test]
    fn a_snapshot_of_a_later_version_can_still_be_read() {
        let later = json!({"version": "v", "new": 1, "config": {"timeouts": {"new": 1}, "new": {}}});
        assert!(serde_json::from_value::<Snapshot>(later).is_ok());
    }
}
