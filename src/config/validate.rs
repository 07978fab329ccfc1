//! What types and bounds alone cannot say: that values are well formed, and that they fit each other.

use std::collections::BTreeMap;

use super::bounds::{Bounded, Problems, is_scalar};
use super::providers::is_own_secret;
use super::{
    Config, ConfigProblem, Generic, GenericReply, Issuer, Plane, Preset, Price, PrivateHosts, Provider,
    ProviderDialect, Wire, check_base_url, check_jwks_uri,
};
use crate::billing::catalog;

/// Headers that belong to the connection or to the gateway: never passed on, no more than [`CREDENTIALS`] are.
const NEVER_FORWARDED: &[&str] = &[
    "set-cookie",
    "proxy-authenticate",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "expect",
    "user-agent",
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
];

/// Beginnings of the names of such headers.
const NEVER_FORWARDED_PREFIXES: &[&str] = &["x-gateway-", "cf-", "sec-", "proxy-"];

/// Headers that carry credentials: the caller's are never passed on, and configuration must not set them.
const CREDENTIALS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "ocp-apim-subscription-key",
];

/// Longest name of a model, route or provider, in bytes.
const NAME_BYTES: usize = 256;

impl Config {
    /// Everything that is wrong with it; empty if it can be used.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Problems(self.problems_of_fields());
        found.references(self);
        found.0
    }

    /// What is wrong with single fields and sections, whatever they refer to.
    pub(super) fn problems_of_fields(&self) -> Vec<ConfigProblem> {
        let mut found = Problems::default();
        self.http.check_bounds("http", &mut found);
        found.forwarded("http.forward_headers", &self.http.forward_headers);
        found.cors(self);
        found.auth(self);
        found.control(self);
        self.timeouts.check_bounds("timeouts", &mut found);
        self.logging.check_bounds("logging", &mut found);
        self.records.check_bounds("records", &mut found);
        self.retention.check_bounds("retention", &mut found);
        self.billing.check_bounds("billing", &mut found);
        found.limits(&self.limits);
        found.routing(&self.routing);
        self.check_bounds("", &mut found);
        for (name, provider) in &self.providers {
            let path = found.name("providers", name);
            found.provider(&path, provider);
        }
        for (name, model) in &self.models {
            let path = found.name("models", name);
            model.check_bounds(&path, &mut found);
        }
        for (name, route) in &self.routes {
            let path = found.name("routes", name);
            found.route(&path, route);
        }
        for (name, price) in &self.prices {
            let path = found.name("prices", name);
            found.price(&path, price);
        }
        found.0
    }
}

impl Problems {
    /// The path of an entry whose name is checked.
    fn name(&mut self, section: &str, name: &str) -> String {
        let path = format!("{section}.{name}");
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            self.add(&path, format!("a name must have 1 to {NAME_BYTES} bytes and no control characters"));
        }
        path
    }

    /// What entries name must exist.
    fn references(&mut self, config: &Config) {
        for (name, model) in &config.models {
            if !config.providers.contains_key(&model.provider) {
                self.add(&format!("models.{name}.provider"), format!("there is no provider `{}`", model.provider));
            }
        }
        for (name, provider) in &config.providers {
            let Some(probed) = &provider.health.model else { continue };
            if config.models.get(probed).is_none_or(|model| model.provider != *name) {
                self.add(
                    &format!("providers.{name}.health.model"),
                    format!("there is no model `{probed}` of this provider"),
                );
            }
        }
        for (name, route) in &config.routes {
            if config.models.contains_key(name) {
                self.add(
                    &format!("routes.{name}"),
                    "there is a model of this name: callers could not tell which is meant",
                );
            }
            self.route_references(config, name, route);
        }
        self.route_trees(config);
        for name in config.prices.keys().filter(|name| !config.models.contains_key(*name)) {
            self.add(&format!("prices.{name}"), format!("there is no model `{name}`"));
        }
    }

    fn price(&mut self, path: &str, price: &Price) {
        price.check_bounds(path, self);
        for (nth, variant) in price.variants.iter().enumerate() {
            let path = format!("{path}.variants[{nth}]");
            variant.check_bounds(&path, self);
            if variant.parts().is_empty() && variant.multiplier.is_none() {
                self.add(&path, "states neither a price nor a multiplier");
            }
            if variant.from.zip(variant.until).is_some_and(|(from, until)| from >= until) {
                self.add(&format!("{path}.until"), "must be later than `from`");
            }
            let earlier = price.variants.iter().take(nth);
            if earlier.clone().any(|earlier| earlier.hides(variant)) {
                self.add(
                    &format!("{path}.above_input_tokens"),
                    "stands behind a variant for longer inputs, which would not count any more: put the longer ones last",
                );
            }
        }
    }

    fn cors(&mut self, config: &Config) {
        let cors = &config.cors;
        cors.check_bounds("cors", self);
        for (nth, origin) in cors.allowed_origins.iter().enumerate() {
            let is_origin =
                origin == "*" || url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            if !is_origin {
                let path = format!("cors.allowed_origins[{nth}]");
                self.add(&path, "must be an origin such as https://app.example.com, without a path, or *");
            }
        }
        self.header_names("cors.allowed_headers", &cors.allowed_headers);
        self.header_names("cors.exposed_headers", &cors.exposed_headers);
        if cors.allow_credentials && cors.allowed_origins.iter().any(|origin| origin == "*") {
            self.add("cors.allow_credentials", "not together with the origin *: every page could act for its visitor");
        }
    }

    fn header_names(&mut self, path: &str, names: &[String]) {
        for (nth, name) in names.iter().enumerate() {
            if http::HeaderName::try_from(name.as_str()).is_err() {
                self.add(&format!("{path}[{nth}]"), "is not the name of a header");
            }
        }
    }

    fn forwarded(&mut self, path: &str, names: &[String]) {
        self.header_names(path, names);
        for (nth, name) in names.iter().enumerate() {
            if !may_be_forwarded(name) {
                self.add(
                    &format!("{path}[{nth}]"),
                    "is a credential, or belongs to the connection: it is never passed on",
                );
            }
        }
    }

    fn auth(&mut self, config: &Config) {
        config.auth.check_bounds("auth", self);
        let mut seen: BTreeMap<&str, Vec<Plane>> = BTreeMap::new();
        for (nth, issuer) in config.auth.issuers.iter().enumerate() {
            let path = format!("auth.issuers[{nth}]");
            self.issuer(&path, issuer);
            let planes = seen.entry(&issuer.issuer).or_default();
            if issuer.planes.iter().any(|plane| planes.contains(plane)) {
                self.add(
                    &path,
                    "the same issuer stands here twice for the same plane: give it several audiences instead",
                );
            }
            planes.extend(&issuer.planes);
        }
    }

    fn issuer(&mut self, path: &str, issuer: &Issuer) {
        issuer.check_bounds(path, self);
        if issuer.audiences.iter().any(String::is_empty) {
            self.add(&format!("{path}.audiences"), "an audience must not be empty");
        }
        if issuer.issuer == crate::auth::session_token::ISSUER {
            self.add(&format!("{path}.issuer"), "is the gateway's own name as an issuer");
        }
        match (&issuer.jwks, &issuer.jwks_uri) {
            (Some(keys), None) => {
                if let Err(error) = crate::auth::jwks::Jwks::parse(keys) {
                    self.add(&format!("{path}.jwks"), error.to_string());
                }
            }
            (None, Some(uri)) => {
                if let Err(error) = check_jwks_uri(uri, &PrivateHosts::Any) {
                    self.add(&format!("{path}.jwks_uri"), error.to_string());
                }
            }
            _ => self.add(path, "set exactly one of `jwks` and `jwks_uri`"),
        }
        for (name, value) in &issuer.required_claims {
            if !is_scalar(value) {
                self.add(&format!("{path}.required_claims.{name}"), "must be a string, a number, true or false");
            }
        }
        if !issuer.roles.is_empty() && issuer.roles_claim.is_none() {
            self.add(&format!("{path}.roles"), "has no effect unless `roles_claim` names the claim to look up");
        }
        for (value, grants) in &issuer.roles {
            if grants.iter().any(|grant| grant.role.is_empty() || grant.account.as_deref() == Some("")) {
                self.add(&format!("{path}.roles.{value}"), "the name of a role or an account must not be empty");
            }
        }
    }

    fn control(&mut self, config: &Config) {
        let (sessions, admin) = (&config.sessions, &config.admin);
        sessions.check_bounds("sessions", self);
        if sessions.lockout_base_seconds > sessions.lockout_max_seconds {
            self.add("sessions.lockout_base_seconds", "must not be more than `lockout_max_seconds`");
        }
        if sessions.access_token_seconds > sessions.refresh_token_seconds {
            self.add("sessions.refresh_token_seconds", "must not be less than `access_token_seconds`");
        }
        admin.check_bounds("admin", self);
        if admin.page_size_default > admin.page_size_max {
            self.add("admin.page_size_default", "must not be more than `page_size_max`");
        }
        for (nth, range) in admin.allowed_ip_ranges.iter().enumerate() {
            if range.parse::<crate::auth::ip_ranges::IpRange>().is_err() {
                let path = format!("admin.allowed_ip_ranges[{nth}]");
                self.add(&path, "must be an address or a range such as 192.0.2.0/24 or 2001:db8::/32");
            }
        }
    }

    fn provider(&mut self, path: &str, provider: &Provider) {
        provider.check_bounds(path, self);
        if provider.dialect.is_none() && provider.preset.is_none() {
            self.add(&format!("{path}.dialect"), "is missing: say which it speaks, or name a `preset`");
        }
        if provider.base_url().is_empty() && provider.base_url.is_none() {
            let why = if provider.preset.is_some() { ": this `preset` has no address of its own" } else { "" };
            self.add(&format!("{path}.base_url"), format!("is missing{why}"));
        } else if let Err(error) = check_base_url(provider.base_url(), &PrivateHosts::Any) {
            self.add(&format!("{path}.base_url"), error.to_string());
        }
        if provider.price_catalog.as_deref().is_some_and(|name| !catalog::is_catalog(name)) {
            let names: Vec<&str> = catalog::names().collect();
            self.add(&format!("{path}.price_catalog"), format!("must be one of {}", names.join(", ")));
        }
        if let Some(credential) = &provider.credential {
            self.credential(&format!("{path}.credential"), credential);
        }
        if let Some(auth) = &provider.auth {
            auth.check(&format!("{path}.auth"), provider, self);
        }
        provider.timeouts.check_bounds(&format!("{path}.timeouts"), self);
        self.list_of_terms(&format!("{path}.limits"), &provider.limits);
        provider.health.check_bounds(&format!("{path}.health"), self);
        provider.health.check(&format!("{path}.health"), self);
        self.forwarded(&format!("{path}.forward_headers"), &provider.forward_headers);
        if provider.user_agent.as_ref().is_some_and(|agent| http::HeaderValue::try_from(agent).is_err()) {
            self.add(&format!("{path}.user_agent"), "is not a valid header");
        }
        for (name, value) in &provider.headers {
            let valid = http::HeaderName::try_from(name.as_str()).is_ok()
                && http::HeaderValue::try_from(value.as_str()).is_ok();
            let path = format!("{path}.headers.{name}");
            if !valid {
                self.add(&path, "is not a valid header");
            } else if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
                self.add(&path, "credentials do not belong here: name one in `credential`");
            }
        }
        if provider.normalize && provider.dialect() != ProviderDialect::OpenAi {
            self.add(
                &format!("{path}.normalize"),
                "only for dialect `openai`: replies of the others are rewritten anyway",
            );
        }
        self.azure(path, provider);
        if provider.wires() != [Wire::Chat] && provider.dialect() != ProviderDialect::OpenAi {
            self.add(&format!("{path}.wires"), "only for dialect `openai`: the others have one API each");
        }
        if provider.stored_responses && !provider.wires().contains(&Wire::Responses) {
            self.add(&format!("{path}.stored_responses"), "only with `responses` among the `wires`");
        }
        if provider.wires().iter().all(|wire| *wire == Wire::Completions) {
            self.add(
                &format!("{path}.wires"),
                "must have `chat` or `responses`: other requests are translated to these",
            );
        }
        match (provider.dialect(), &provider.generic) {
            (ProviderDialect::Generic, None) => {
                self.add(path, "a provider with dialect `generic` needs a `generic` section");
            }
            (ProviderDialect::Generic, Some(generic)) => self.generic(&format!("{path}.generic"), generic),
            (_, Some(_)) => self.add(&format!("{path}.generic"), "only for dialect `generic`"),
            (_, None) => {}
        }
    }

    fn azure(&mut self, path: &str, provider: &Provider) {
        let path = format!("{path}.api_version");
        match (provider.preset, &provider.api_version) {
            (Some(Preset::Azure), Some(version)) => {
                if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                    self.add(&path, "must be a version such as 2024-10-21 or `preview`");
                }
            }
            (Some(Preset::Azure), None) if !provider.base_url().trim_end_matches('/').ends_with("/v1") => {
                self.add(&path, "is missing: name it, or let `base_url` end in `/openai/v1`");
            }
            (_, Some(_)) => self.add(&path, "only for preset `azure`"),
            (_, None) => {}
        }
    }

    fn credential(&mut self, path: &str, credential: &str) {
        let word = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        let valid = match credential.strip_prefix("stored:") {
            Some(id) => word(id, b"_-"),
            None => word(credential, b"_"),
        };
        if !valid {
            self.add(path, "must be the name of a Worker secret, or `stored:` and the id of a credential");
        } else if is_own_secret(credential) {
            self.add(path, "is a secret of the gateway's own: the provider would learn it");
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
            self.add(&format!("{path}.body"), format!("there is no placeholder {{{{{unknown}}}}}"));
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
            ("cache_read_tokens", reply.cache_read_tokens.as_ref()),
            ("cache_write_tokens", reply.cache_write_tokens.as_ref()),
            ("reasoning_tokens", reply.reasoning_tokens.as_ref()),
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

/// Whether a header of the caller's may reach a provider.
pub fn may_be_forwarded(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let named = [CREDENTIALS, NEVER_FORWARDED].iter().any(|names| names.contains(&name.as_str()));
    !named && !NEVER_FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
