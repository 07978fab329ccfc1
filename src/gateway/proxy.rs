//! Requests that are passed on to a path of the provider's own: `/v1/proxy/{provider}/{path…}`.
//!
//! What is decided here: which paths, parameters and headers may pass, which model a request is for and whether its
//! caller may use that, and by which plan it goes out.

use http::{HeaderMap, Method};
use url::Url;

use super::asking::{Load, Wanted};
use super::envelope::heard;
use super::estimate::{BYTES_PER_TOKEN, Family};
use super::plan::{Lane, LoadedConfig, Plan, Unusable, join_url};
use crate::auth::{Principal, presented};
use crate::config::{Model, Overrides, Provider, StructuredOutput, Unpriced, may_be_forwarded};
use crate::error::{Kind, Problem};
use crate::http::routes::decode;
use crate::protocol::json_scan::{Members, ScanLimits, scan_object};
use crate::protocol::sound;
use crate::protocol::usage::Usage;
use crate::providers::openai::scan_problem;
use crate::providers::outbound::Serves;
use crate::providers::{Target, outbound};

/// The beginning of such paths.
pub const PREFIX: &str = "/v1/proxy/";

/// Methods that are passed on.
pub const METHODS: &[Method] = &[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Headers of a reply that are passed on to the caller.
pub const REPLY_HEADERS: &[&str] = &[
    "content-type",
    "content-disposition",
    "content-language",
    "content-range",
    "accept-ranges",
    "cache-control",
    "etag",
    "last-modified",
    "expires",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "openai-processing-ms",
];

/// Parameters of the query that are credentials, in small letters and with underscores.
const CREDENTIAL_PARAMS: &[&str] = &[
    "key",
    "api_key",
    "apikey",
    "x_api_key",
    "x_goog_api_key",
    "access_token",
    "auth_token",
    "token",
    "authorization",
    "subscription_key",
    "client_secret",
];

/// Headers that stay here, besides those that never reach a provider: they tell who calls and from where, or choose on
/// whose account at the provider a request goes.
const KEPT: &[&str] = &[
    "x-goog-user-project",
    "openai-organization",
    "openai-project",
    "true-client-ip",
    "x-client-ip",
    "x-request-id",
    "x-test-fault",
    "via",
    "origin",
    "referer",
    "cdn-loop",
];

/// Beginnings of the names of such headers.
const KEPT_PREFIXES: &[&str] = &["x-forwarded-", "x-amz-", "x-stainless-", "x-original-", "access-control-"];

/// Text of the caller's that is shorter is not taken for its credential.
const SECRET_BYTES: usize = 8;

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The path below its base URL, still percent-encoded, with its leading slash.
    pub path: String,
}

impl Address {
    /// Reads what follows [`PREFIX`] in a path.
    ///
    /// # Errors
    /// 400 for a path that providers, or something in front of them, could understand in two ways.
    pub fn read(rest: &str) -> Result<Self, Problem> {
        let refused = |what: &str| {
            let message = format!("{what} Name the provider and a plain path: {PREFIX}openai/files.");
            Problem { code: "invalid_path".to_owned(), ..Problem::invalid("", message) }
        };
        let Some((provider, path)) =
            rest.split_once('/').filter(|(provider, path)| !provider.is_empty() && !path.is_empty())
        else {
            return Err(refused("The path names no provider, or nothing at it."));
        };
        let provider = decode(provider).ok_or_else(|| refused("The provider's name is not legible."))?;
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            if segment.is_empty() && !is_last {
                return Err(refused("The path has an empty segment."));
            }
            if !is_plain(segment) {
                return Err(refused("The path has a segment that leads elsewhere."));
            }
        }
        Ok(Self { provider, path: format!("/{path}") })
    }

    /// Whether recordings are sent there to be listened to, under OpenAI's names.
    pub fn takes_sound(&self) -> bool {
        ["/audio/transcriptions", "/audio/translations"].iter().any(|path| self.path.ends_with(path))
    }

    /// The path and the query as the provider gets them.
    ///
    /// # Errors
    /// 400 if that is no longer below the provider's base URL.
    pub fn below(&self, base: &Url, query: &str, secrets: &[String]) -> Result<String, Problem> {
        let query = passed_query(query, secrets);
        let path = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let url = Url::parse(&join_url(base, &path)).ok();
        let root = format!("{}/", base.path().trim_end_matches('/'));
        let is_below = url.is_some_and(|url| {
            url.origin() == base.origin()
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
                && url.path().starts_with(&root)
        });
        let tells = secrets.iter().any(|secret| self.path.contains(secret.as_str()));
        if is_below && !tells {
            return Ok(path);
        }
        let message = "The path does not lead to anything below the provider's address.";
        Err(Problem { code: "invalid_path".to_owned(), ..Problem::invalid("", message) })
    }

    /// The model that the path names, in the spellings that it may have in the configuration.
    pub fn model(&self) -> Option<Named> {
        let mut segments = self.path.split('/');
        let is_before = |it: &&str| matches!(*it, "models" | "model" | "deployments" | "engines" | "tunedModels");
        let collection = segments.find(is_before)?;
        let whole = decode(segments.next().filter(|it| !it.is_empty())?)?;
        let mut spellings = vec![whole.clone()];
        // Google's methods stand behind a colon; of other names a colon is part.
        if let Some((name, method)) = whole.rsplit_once(':')
            && method.bytes().all(|byte| byte.is_ascii_alphabetic())
        {
            spellings.push(name.to_owned());
        }
        if collection == "tunedModels" {
            spellings.iter_mut().for_each(|it| it.insert_str(0, "tunedModels/"));
        }
        Some(Named(spellings))
    }
}

/// Whether a segment of a path means itself, however often it is decoded.
fn is_plain(segment: &str) -> bool {
    let mut text = segment.to_owned();
    for _ in 0..4 {
        let name = text.split(';').next().unwrap_or_default();
        if name == "." || name == ".." || text.contains(['/', '\\', '#', '?']) || text.contains(char::is_control) {
            return false;
        }
        if !text.contains('%') {
            return true;
        }
        let Some(decoded) = decode(&text) else { return false };
        text = decoded;
    }
    false
}

/// The query without what is, or contains, a credential.
pub fn passed_query(query: &str, secrets: &[String]) -> String {
    let passes = |pair: &&str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else { return false };
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        !CREDENTIAL_PARAMS.contains(&name.as_str())
            && !name.starts_with("x_amz_")
            && !secrets.iter().any(|secret| value.contains(secret.as_str()) || name.contains(secret.as_str()))
    };
    query.split('&').filter(|pair| !pair.is_empty()).filter(passes).collect::<Vec<_>>().join("&")
}

/// What the caller has presented as its credentials, to be found again wherever else it stands.
pub fn secrets(headers: &HeaderMap) -> Vec<String> {
    presented(headers).filter(|secret| secret.len() >= SECRET_BYTES).map(str::to_owned).collect()
}

/// The caller's headers that pass.
pub fn passed_headers(headers: &HeaderMap, provider: &Provider, secrets: &[String]) -> Vec<(String, String)> {
    let of_this_hop: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let passes = |name: &str| {
        may_be_forwarded(name)
            && !KEPT.contains(&name)
            && !KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !of_this_hop.iter().any(|it| it == name)
            // What the operator has set for this provider stays as it is.
            && !provider.headers.keys().any(|own| own.eq_ignore_ascii_case(name))
    };
    headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| passes(name))
        .filter_map(|name| {
            let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            let value = values.join(", ");
            (!secrets.iter().any(|secret| value.contains(secret.as_str()))).then(|| (name.to_owned(), value))
        })
        .collect()
}

/// A model as a request names it: the spellings that mean it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(Vec<String>);

impl Named {
    /// A model of this name.
    pub fn new(name: &str) -> Self {
        let bare = name.strip_prefix("models/").map(str::to_owned);
        Self(std::iter::once(name.to_owned()).chain(bare).collect())
    }

    /// As the request has it.
    pub fn name(&self) -> &str {
        self.0.first().map(String::as_str).unwrap_or_default()
    }
}

/// What is known of a request that is passed on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The models that it names.
    pub models: Vec<Named>,
    /// Whether a streamed reply is asked for.
    pub stream: bool,
    /// The most output tokens that the caller allows; `None` if it names no bound.
    pub max_output: Option<u64>,
    /// Tokens that go in, roughly.
    pub input_tokens: u64,
    /// What goes in that is charged by the piece.
    pub pieces: Usage,
}

impl Seen {
    /// A text of so many bytes goes in.
    pub fn announce(&mut self, bytes: u64) {
        self.input_tokens = bytes.div_ceil(BYTES_PER_TOKEN);
    }

    /// A recording goes in: the form's file, of so many bytes with what is around it.
    pub fn announce_sound(&mut self, start: &[u8], bytes: u64) {
        self.pieces = heard(sound::length_ms(start, bytes));
    }

    /// Whether something is known of it that is charged by the piece.
    pub fn may_cost_pieces(&self) -> bool {
        self.pieces != Usage::default()
    }

    /// What can be seen in a body that may be JSON. One that is neither object nor list tells nothing.
    ///
    /// # Errors
    /// 400 if it names its model twice: readers disagree on which one counts.
    pub fn read(&mut self, body: &[u8], max_depth: usize) -> Result<(), Problem> {
        if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
            self.announce(body.len() as u64);
        }
        let limits = ScanLimits { max_depth, ..ScanLimits::default() };
        let Ok(members) = scan_object(body, limits) else { return Ok(()) };
        if let Some(model) = value::<String>(&members, "model")? {
            self.models.push(Named::new(&model));
        }
        let others = value::<Vec<String>>(&members, "models")?.unwrap_or_default();
        self.models.extend(others.iter().map(|name| Named::new(name)));
        self.stream = value(&members, "stream")?.unwrap_or(false);
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            self.max_output = self.max_output.max(value(&members, name)?);
        }
        Ok(())
    }

    /// The configured model that this is a request for, so that it has a price and limits of its own; `None` if it names
    /// none that is configured at this provider.
    ///
    /// # Errors
    /// 403 if the caller may not use a model that it names, or, where it may not use all, names none that is known; or if a
    /// model is switched off.
    pub fn model<'a>(
        &self,
        loaded: &'a LoadedConfig,
        provider: &str,
        principal: &Principal,
    ) -> Result<Option<&'a str>, Problem> {
        let is_bound = !principal.models.is_empty();
        let refused = |message: String| {
            Problem { param: Some("model".to_owned()), ..Problem::new(Kind::Permission, "model_not_allowed", message) }
                .final_answer()
        };
        if is_bound && self.models.is_empty() {
            return Err(refused(
                "This API key may use certain models only, and none could be recognised in this request.".to_owned(),
            ));
        }
        let mut first = None;
        for named in &self.models {
            let here = loaded.config.models.iter().filter(|(name, model)| {
                let upstream = model.upstream_model.as_deref().unwrap_or(name);
                model.provider == provider && named.0.iter().any(|it| it == upstream)
            });
            let here: Vec<(&str, &Model)> = here.map(|(name, model)| (name.as_str(), model)).collect();
            let may_use = |(name, model): &&(&str, &Model)| model.enabled && principal.may_use_model(name);
            let usable = here.iter().find(may_use).map(|(name, _)| *name);
            if usable.is_none() && (is_bound || !here.is_empty()) {
                return Err(refused(format!(
                    "This API key may not use the model `{}` at this provider.",
                    named.name()
                )));
            }
            first = first.or(usable);
        }
        Ok(first)
    }
}

impl Load for Seen {
    fn wanted(&self, _: Family) -> Wanted<'_> {
        let Self { input_tokens, max_output, .. } = *self;
        // Where nothing goes in that a model could read, nothing comes out that it would write.
        let max_output = if input_tokens == 0 { Some(0) } else { max_output };
        Wanted { input_tokens, max_output, choices: 1, service_tier: None, pieces: self.pieces }
    }

    fn expected(&self, input: u64) -> Option<Usage> {
        self.may_cost_pieces().then_some(Usage { input, ..self.pieces })
    }
}

/// A member's value, if it is of this type.
fn value<T: serde::de::DeserializeOwned>(members: &Members<'_>, name: &str) -> Result<Option<T>, Problem> {
    let member = members.unique(name).map_err(scan_problem)?;
    Ok(member.and_then(|member| serde_json::from_slice(members.raw(member)).ok()))
}

/// Whether a request by this method may have a model do something.
pub fn may_use_tokens(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The plan for a request to this provider.
///
/// # Errors
/// 404 if there is no such provider, 503 if it cannot be called, 403 where the caller may not use the model or where a
/// request that may use tokens has no price and must have one.
pub fn plan<'a>(
    loaded: &'a LoadedConfig,
    principal: &Principal,
    address: &Address,
    seen: &'a Seen,
    method: &Method,
    at: u64,
) -> Result<Plan<'a>, Problem> {
    let config = &loaded.config;
    let found = config.providers.get_key_value(&address.provider).zip(loaded.endpoint(&address.provider));
    let Some(((provider_name, provider), endpoint)) = found else {
        let message = format!("There is no provider `{}` here.", address.provider);
        return Err(Problem::new(Kind::NotFound, "unknown_provider", message));
    };
    let named = seen.models.first().map(Named::name).unwrap_or_default();
    if !provider.enabled {
        return Err(Unusable::ProviderDisabled.problem(named));
    }
    let endpoint = endpoint.map_err(|_| Unusable::AddressRefused.problem(named))?;
    let model_name = seen.model(loaded, provider_name, principal)?.unwrap_or_default();
    let pricing = loaded.prices.find(model_name, &principal.account, at);
    if pricing.is_none() && may_use_tokens(method) && config.billing.unpriced_models == Unpriced::Refuse {
        return Err(Unusable::Unpriced.problem(named));
    }
    let model = config.models.get(model_name);
    let overrides = principal.overrides.as_ref().map(Overrides::read).unwrap_or_default();
    Ok(Plan {
        route: None,
        model_name,
        provider_name,
        endpoint,
        target: Target {
            provider,
            upstream_model: model.map_or(named, |model| model.upstream_model.as_deref().unwrap_or(model_name)),
            max_output_tokens: Model::MAX_OUTPUT_TOKENS,
            structured_output: StructuredOutput::default(),
            strict_params: config.http.strict_params,
        },
        dialect: outbound(provider.dialect()),
        serves: Serves::Natively,
        lane: Lane::Proxy,
        timeouts: overrides.timeouts(provider.timeouts.over(config.timeouts)),
        pricing,
    })
}

#[cfg(test)]
mod tests;
