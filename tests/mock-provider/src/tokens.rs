//! Access tokens: the endpoints that mint them, and what has become of those that were minted.
//!
//! Google's checks the signature of the assertion, so a client has to use the key that this provider hands out under
//! `/_mock/service-account`. Everything else stands for the credentials of no real account.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::directives::{Directives, percent_decode};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;

/// The primes of the service account's key: no secret, for it opens nothing but this stand-in.
const PRIMES: [&str; 2] = [
    "ea1a004e3cbde160d3617047fc76b3d25c7dafb6f07bd3eabeb65487301859b614496f08ff3fecd6c752e6469610bbb39f5b2f42abdc2f46\
     aace50f775f0a12ce8c9ffbcc7f3a60060b2d29be162f130fe98106ab0133369ea40454879c736297aaa181daa5527be7094d35003d47869\
     6ab9ac5f04812fbf6b25a8b48334a97d",
    "d9662766f4157b7f9bfddbd3d13fd87925798e17981514bc3eabcb7135df4870d47f3c02802f8d7400e648a0b2a640af9623d9aeca5fe61c\
     f9d548bbb2d783852712c9bf20f34d7084e960aba35072f010d45ee7ca63b477f4709de666d4aa91f4b64af5840473eced16a9dd71ee9d46\
     3c50d0b3df289c4ead74227c2646401b",
];
const KEY_ID: &str = "6d6f636b2d6b65792d31";
const CLIENT_EMAIL: &str = "mock@mock-project.iam.gserviceaccount.com";
const GOOGLE_TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The path of Google's token endpoint here.
const GOOGLE_PATH: &str = "/oauth/google/token";
/// A client secret that begins so is refused.
const WRONG: &str = "wrong";
/// How far a clock may be off, in seconds.
const LEEWAY: u64 = 300;
/// Most tokens that are remembered; beyond it all are forgotten.
const MAX_TOKENS: usize = 100_000;

/// Whose tokens they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issuer {
    Google,
    Baidu,
    Entra,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Expired,
    /// Never minted, minted by somebody else, or taken back.
    Unknown,
}

#[derive(Debug)]
struct Minted {
    issuer: Issuer,
    until: Instant,
    revoked: bool,
}

#[derive(Debug, Default)]
struct State {
    minted: HashMap<String, Minted>,
    /// Tags whose first token has been rejected.
    rejected: HashMap<String, String>,
    /// Token requests seen for each tag with `token_fail`.
    failures: HashMap<String, u64>,
}

/// All tokens of one server.
#[derive(Debug, Default)]
pub struct Tokens {
    state: Mutex<State>,
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a token that was minted, good for so many seconds.
    pub fn mint(&self, token: String, issuer: Issuer, seconds: u64) {
        let mut state = self.lock();
        if state.minted.len() > MAX_TOKENS {
            state.minted.clear();
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        state.minted.insert(token, Minted { issuer, until, revoked: false });
    }

    /// What has become of a token. With `token_reject` the first token seen under the request's tag is taken back.
    pub fn standing(&self, token: &str, issuer: Issuer, directives: &Directives) -> Standing {
        let mut state = self.lock();
        if directives.token_reject {
            let tag = directives.tag.clone().unwrap_or_default();
            let first = state.rejected.entry(tag).or_insert_with(|| token.to_owned()).clone();
            if let Some(minted) = state.minted.get_mut(&first) {
                minted.revoked = true;
            }
        }
        match state.minted.get(token) {
            Some(minted) if minted.issuer != issuer || minted.revoked => Standing::Unknown,
            Some(minted) if minted.until <= Instant::now() => Standing::Expired,
            Some(_) => Standing::Good,
            None => Standing::Unknown,
        }
    }

    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    fn still_fails(&self, tag: &str, times: u64) -> bool {
        let mut state = self.lock();
        let seen = state.failures.entry(tag.to_owned()).or_insert(0);
        *seen += 1;
        *seen <= times
    }
}

/// Whose token endpoint a path is.
pub fn issuer(path: &str) -> Option<Issuer> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.ends_with(GOOGLE_PATH) {
        Some(Issuer::Google)
    } else if path.ends_with("/oauth2/v2.0/token") {
        Some(Issuer::Entra)
    } else if path.ends_with("/oauth/2.0/token") {
        Some(Issuer::Baidu)
    } else {
        None
    }
}

/// Renders an error as OAuth wants it.
fn error_body(error: &ApiError) -> String {
    let kind = error.kind.as_deref().unwrap_or(match error.status {
        401 => "invalid_client",
        503 => "temporarily_unavailable",
        500.. => "server_error",
        _ => "invalid_request",
    });
    format!(r#"{{"error":{},"error_description":{}}}"#, json_string(kind), json_string(&error.message))
}

fn refusal(status: u16, kind: &str, message: impl Into<String>) -> ApiError {
    ApiError { kind: Some(kind.to_owned()), ..ApiError::new(status, message) }
}

/// An endpoint that mints tokens.
#[derive(Debug)]
pub struct TokenEndpoint(pub Issuer);

impl Endpoint for TokenEndpoint {
    fn route(&self) -> Route {
        Route::Tokens
    }

    fn methods(&self) -> &'static [&'static str] {
        if self.0 == Issuer::Baidu { &["POST", "GET"] } else { &["POST"] }
    }

    fn takes_json(&self) -> bool {
        false
    }

    fn refuse_key(&self, _: &Request<'_>, _: &str) -> Option<ApiError> {
        None
    }

    fn error_body(&self, error: &ApiError) -> String {
        error_body(error)
    }

    fn headers(&self, _: &App, reply: Reply) -> Reply {
        reply.header("cache-control", "no-store")
    }

    fn respond(&self, app: &App, request: &Request<'_>, _: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        mint(app, self.0, request, directives)
    }
}

fn mint(app: &App, issuer: Issuer, request: &Request<'_>, directives: &Directives) -> Result<Reply, ApiError> {
    let tag = directives.tag.as_deref().unwrap_or(request.path);
    if directives.token_fail.is_some_and(|times| app.tokens.still_fails(tag, times)) {
        return Err(ApiError::new(503, "The service is temporarily unavailable."));
    }
    let form = Form::read(request);
    let (prefix, seconds) = match issuer {
        Issuer::Google => {
            check_assertion(&form, unix_ms() / 1000)?;
            ("ya29.mock-", 3599)
        }
        Issuer::Baidu => {
            check_client(&form, "unknown client id", "Client authentication failed")?;
            ("24.mock", 2_592_000)
        }
        Issuer::Entra => {
            let id = form.get("client_id").unwrap_or_default();
            check_client(
                &form,
                "AADSTS900144: The request body must contain the following parameter: 'client_id'.",
                &format!("AADSTS7000215: Invalid client secret provided for app '{id}'."),
            )?;
            if !form.get("scope").is_some_and(|scope| scope.ends_with("/.default")) {
                return Err(refusal(400, "invalid_scope", "AADSTS1002012: The provided value for scope is not valid."));
            }
            ("eyJ0eXAiOiJKV1QifQ.mock.", 3599)
        }
    };
    let seconds = directives.token_ttl.unwrap_or(seconds);
    let token = app.id(prefix, 40);
    app.tokens.mint(token.clone(), issuer, seconds);
    let body = match issuer {
        Issuer::Google => json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}),
        Issuer::Entra => {
            json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token})
        }
        Issuer::Baidu => json!({
            "refresh_token": app.id("25.mock", 40), "expires_in": seconds, "session_key": "mock", "access_token": token,
            "scope": "public ai_custom_qianfan_bloomz_7b_compressed wise_adapt", "session_secret": "mock",
        }),
    };
    Ok(Reply::json(200, body.to_string()))
}

/// Form fields, of the body and of the query.
struct Form(Vec<(String, String)>);

impl Form {
    fn read(request: &Request<'_>) -> Self {
        let body = std::str::from_utf8(request.body).unwrap_or_default();
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        let pairs = body.split('&').chain(request.query.split('&')).filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

fn check_client(form: &Form, no_id: &str, bad_secret: &str) -> Result<(), ApiError> {
    if form.get("grant_type") != Some("client_credentials") {
        return Err(refusal(400, "unsupported_grant_type", "The authorization grant type is not supported"));
    }
    if form.get("client_id").is_none() {
        return Err(refusal(401, "invalid_client", no_id));
    }
    match form.get("client_secret") {
        Some(secret) if !secret.starts_with(WRONG) => Ok(()),
        _ => Err(refusal(401, "invalid_client", bad_secret)),
    }
}

/// The signed assertion of a service account.
fn check_assertion(form: &Form, now: u64) -> Result<(), ApiError> {
    let grant = |message: &str| refusal(400, "invalid_grant", message);
    if form.get("grant_type") != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") {
        return Err(refusal(400, "unsupported_grant_type", "Invalid grant_type"));
    }
    let assertion = form.get("assertion").ok_or_else(|| refusal(400, "invalid_request", "Missing assertion"))?;
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(|| grant("Invalid JWT."))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| grant("Invalid JWT."))?;
    let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let (Some(header), Some(claims)) = (part(header), part(claims)) else {
        return Err(grant("Invalid JWT."));
    };
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(grant("Invalid JWT Signature."));
    }
    if header.get("kid").is_some_and(|kid| kid.as_str() != Some(KEY_ID)) {
        return Err(grant("Invalid grant: account not found"));
    }
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    if claim("iss") != CLIENT_EMAIL {
        return Err(grant("Invalid grant: account not found"));
    }
    let genuine = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
        let hash = Sha256::digest(signed.as_bytes());
        key().is_some_and(|key| key.to_public_key().verify(Pkcs1v15Sign::new::<Sha256>(), &hash, &signature).is_ok())
    });
    if !genuine {
        return Err(grant("Invalid JWT Signature."));
    }
    if claim("aud") != GOOGLE_TOKEN_URL && !claim("aud").ends_with(GOOGLE_PATH) {
        return Err(grant("Invalid JWT: Failed audience check."));
    }
    if claim("scope").is_empty() {
        return Err(refusal(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided."));
    }
    let time = |name: &str| claims.get(name).and_then(Value::as_u64);
    match (time("iat"), time("exp")) {
        (Some(from), Some(to)) if from <= now + LEEWAY && now < to + LEEWAY && to > from && to - from <= 3600 => Ok(()),
        _ => Err(grant(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your \
             iat and exp values in the JWT claim.",
        )),
    }
}

fn key() -> Option<&'static RsaPrivateKey> {
    static KEY: OnceLock<Option<RsaPrivateKey>> = OnceLock::new();
    let number = |text: &str| BigUint::parse_bytes(text.as_bytes(), 16);
    let make = || {
        let [p, q] = PRIMES.map(number);
        RsaPrivateKey::from_p_q(p?, q?, BigUint::from(65_537_u32)).ok()
    };
    KEY.get_or_init(make).as_ref()
}

/// The key file of the service account whose assertions are taken.
pub fn service_account() -> String {
    let der = key().and_then(|key| key.to_pkcs8_der().ok());
    let text = der.map(|der| STANDARD.encode(der.as_bytes())).unwrap_or_default();
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    json!({
        "type": "service_account",
        "project_id": "mock-project",
        "private_key_id": KEY_ID,
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")),
        "client_email": CLIENT_EMAIL,
        "client_id": "100000000000000000001",
        "token_uri": GOOGLE_TOKEN_URL,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(list: &str) -> Directives {
        let mut directives = Directives::default();
        directives.apply_list(list, "m").unwrap();
        directives
    }

    fn assertion(change: impl FnOnce(&mut Value, &mut Value)) -> Form {
        let mut header = json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID});
        let mut claims = json!({
            "iss": CLIENT_EMAIL, "aud": GOOGLE_TOKEN_URL, "iat": 1000, "exp": 4600,
            "scope": "https://www.googleapis.com/auth/cloud-platform",
        });
        change(&mut header, &mut claims);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let hash = Sha256::digest(signed.as_bytes());
        let signature = key().unwrap().sign(Pkcs1v15Sign::new::<Sha256>(), &hash).unwrap();
        Form(vec![
            ("grant_type".to_owned(), "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
            ("assertion".to_owned(), format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))),
        ])
    }

    fn told(form: &Form, now: u64) -> String {
        check_assertion(form, now).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn an_assertion_is_taken_if_everything_about_it_is_right() {
        assert_eq!(told(&assertion(|_, _| ()), 1010), "");
        assert!(told(&assertion(|_, _| ()), 5000).contains("reasonable timeframe"));
        assert!(told(&assertion(|_, _| ()), 100).contains("reasonable timeframe"));
        assert!(told(&assertion(|_, claims| claims["exp"] = json!(4601)), 1010).contains("short-lived"));
        assert!(told(&assertion(|_, claims| claims["aud"] = json!("https://x")), 1010).contains("audience"));
        assert!(told(&assertion(|_, claims| claims["iss"] = json!("a@b")), 1010).contains("account not found"));
        assert!(told(&assertion(|_, claims| claims["scope"] = json!("")), 1010).contains("scope"));
        assert!(told(&assertion(|header, _| header["kid"] = json!("x")), 1010).contains("account not found"));
        assert!(told(&assertion(|header, _| header["alg"] = json!("HS256")), 1010).contains("Signature"));
        let mut forged = assertion(|_, _| ());
        let other = assertion(|_, claims| claims["exp"] = json!(4599));
        let signature = other.get("assertion").unwrap().rsplit_once('.').unwrap().1.to_owned();
        let signed = forged.get("assertion").unwrap().rsplit_once('.').unwrap().0.to_owned();
        forged.0[1].1 = format!("{signed}.{signature}");
        assert_eq!(told(&forged, 1010), "Invalid JWT Signature.");
        forged.0[1].1 = "nonsense".to_owned();
        assert_eq!(told(&forged, 1010), "Invalid JWT.");
    }

    #[test]
    fn a_token_is_good_until_it_expires_or_is_rejected() {
        let tokens = Tokens::default();
        tokens.mint("a".to_owned(), Issuer::Google, 60);
        tokens.mint("b".to_owned(), Issuer::Google, 60);
        tokens.mint("old".to_owned(), Issuer::Google, 0);
        let plain = Directives::default();
        let standing = |token: &str, directives: &Directives| tokens.standing(token, Issuer::Google, directives);
        assert_eq!(standing("a", &plain), Standing::Good);
        assert_eq!(standing("old", &plain), Standing::Expired);
        assert_eq!(standing("c", &plain), Standing::Unknown);
        assert_eq!(tokens.standing("a", Issuer::Baidu, &plain), Standing::Unknown);
        let reject = directives("token_reject=1;tag=t");
        assert_eq!(standing("a", &reject), Standing::Unknown);
        assert_eq!(standing("b", &reject), Standing::Good, "only the first one is rejected");
        assert_eq!(standing("a", &plain), Standing::Unknown, "and it stays so");
    }

    #[test]
    fn the_endpoints_are_told_apart() {
        assert_eq!(issuer("/x/oauth/google/token"), Some(Issuer::Google));
        assert_eq!(issuer("/oauth/baidu/oauth/2.0/token"), Some(Issuer::Baidu));
        assert_eq!(issuer("/my-tenant/oauth2/v2.0/token"), Some(Issuer::Entra));
        assert_eq!(issuer("/token"), None);
    }

    #[test]
    fn the_key_file_has_a_key() {
        let account: Value = serde_json::from_str(&service_account()).unwrap();
        let lines = account["private_key"].as_str().unwrap().lines().count();
        assert!((20..40).contains(&lines), "{lines}");
    }
}
