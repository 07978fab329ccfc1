//! Access tokens that are minted from a credential: what to ask a token endpoint, and what its answer says.
//!
//! Neither a request's secrets nor anything of an endpoint's answer gets into an error: answers quote what was sent.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded::Serializer;

use super::slot::Token;
use crate::secret::Secret;

const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const ENTRA_SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const BAIDU_TOKENS: &str = "https://aip.baidubce.com/oauth/2.0/token";

/// For how long an assertion is good, in seconds: the most that Google takes.
const ASSERTION_SECONDS: u64 = 3_600;

/// How long a token is taken to live whose endpoint does not say, in seconds.
const UNTOLD_SECONDS: u64 = 300;

/// Bytes of a token at most: it has to fit into a header.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Who mints the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Minter {
    /// Google, for an assertion signed with a service account's key (RFC 7523).
    GoogleServiceAccount,
    /// Microsoft Entra ID, for a client's secret.
    AzureEntra,
    /// Baidu, for an application's API key and secret key.
    BaiduOAuth,
}

/// What a token is minted from.
#[derive(Debug, Clone, Copy)]
pub struct Minting<'a> {
    /// Who mints it.
    pub minter: Minter,
    /// Entra's application, Baidu's API key. A Google key names its own account.
    pub client_id: &'a str,
    /// Entra's tenant: its id or one of its domains.
    pub tenant: &'a str,
    /// What the token is good for, where it is not what the provider's models need.
    pub scope: Option<&'a str>,
    /// An endpoint in place of the minter's own, already checked as an address to call.
    pub token_url: Option<&'a str>,
    /// The JSON key of a service account, the client's secret, or the secret key.
    pub credential: &'a Secret<String>,
}

/// A request for a token: a POST.
#[derive(Debug)]
pub struct TokenRequest {
    url: String,
    form: Vec<(&'static str, Secret<String>)>,
    in_query: bool,
    /// What must be signed before it can be sent.
    pub sign: Option<SigningInput>,
}

/// An assertion that needs its signature: RSASSA-PKCS1-v1_5 with SHA-256.
#[derive(Debug)]
pub struct SigningInput {
    /// The private key, PKCS #8 in DER.
    pub key: Secret<Vec<u8>>,
    /// The bytes to sign: the first two parts of a JSON Web Token.
    pub text: String,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    /// The credential is not of the kind that is needed.
    #[error("the provider's credential is not of the kind that its `auth` works with: {what}")]
    Credential {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A setting is missing or cannot be what it should.
    #[error("{name}: must be set to mint tokens, in letters, digits, \"-\", \"_\" and \".\"")]
    Setting {
        /// Its name.
        name: &'static str,
    },
    /// The endpoint does not accept the credential.
    #[error("the token endpoint refused the provider's credential (status {status})")]
    Refused {
        /// The endpoint's status.
        status: u16,
    },
    /// The endpoint cannot mint one now.
    #[error("the token endpoint could not answer (status {status})")]
    Unavailable {
        /// The endpoint's status.
        status: u16,
    },
    /// The endpoint mints tokens that the provider does not accept.
    #[error("the provider does not accept the tokens that are minted from its credential")]
    Useless,
    /// A success without a usable token.
    #[error("the token endpoint's answer has no usable token")]
    NoToken,
}

impl Minting<'_> {
    /// Tells what is minted from one thing from what is minted from another.
    pub fn id(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix([self.minter as u8]);
        let parts = [self.client_id, self.tenant, self.scope.unwrap_or_default(), self.token_url.unwrap_or_default()];
        for part in parts.into_iter().chain([self.credential.expose().as_str()]) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl AuthFault {
    /// Whether the operator has to act, rather than the endpoint to recover.
    pub fn is_about_the_credential(self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::NoToken)
    }
}

impl TokenRequest {
    /// The address with its query, and the body, `application/x-www-form-urlencoded`. `signature` is that of
    /// [`Self::sign`].
    pub fn message(&self, signature: Option<&[u8]>) -> (Secret<String>, Secret<String>) {
        let mut form = Serializer::new(String::new());
        for (name, value) in &self.form {
            form.append_pair(name, value.expose());
        }
        if let (Some(sign), Some(signature)) = (&self.sign, signature) {
            form.append_pair("assertion", &format!("{}.{}", sign.text, URL_SAFE_NO_PAD.encode(signature)));
        }
        let form = form.finish();
        let (url, body) = match self.in_query {
            true => (format!("{}?{form}", self.url), String::new()),
            false => (self.url.clone(), form),
        };
        (Secret::new(url), Secret::new(body))
    }
}

/// The request for a token, at the Unix time `now_ms` in milliseconds.
///
/// # Errors
/// [`AuthFault`] if what there is to mint it from will not do.
pub fn token_request(from: Minting<'_>, now_ms: u64) -> Result<TokenRequest, AuthFault> {
    let at = |own: &str| from.token_url.unwrap_or(own).to_owned();
    let by_secret = |scope: Option<&str>| {
        let mut form = vec![
            ("grant_type", Secret::new("client_credentials".to_owned())),
            ("client_id", Secret::new(from.client_id.to_owned())),
            ("client_secret", from.credential.clone()),
        ];
        form.extend(scope.map(|scope| ("scope", Secret::new(scope.to_owned()))));
        form
    };
    match from.minter {
        Minter::GoogleServiceAccount => {
            let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned();
            let sign = assertion(from.credential, from.scope.unwrap_or(GOOGLE_SCOPE), now_ms)?;
            let form = vec![("grant_type", Secret::new(grant))];
            Ok(TokenRequest { url: at(GOOGLE_TOKENS), form, in_query: false, sign: Some(sign) })
        }
        Minter::AzureEntra => {
            let tenant = setting("tenant", from.tenant)?;
            setting("client_id", from.client_id)?;
            let url = at(&format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"));
            let form = by_secret(Some(from.scope.unwrap_or(ENTRA_SCOPE)));
            Ok(TokenRequest { url, form, in_query: false, sign: None })
        }
        Minter::BaiduOAuth => {
            setting("client_id", from.client_id)?;
            Ok(TokenRequest { url: at(BAIDU_TOKENS), form: by_secret(from.scope), in_query: true, sign: None })
        }
    }
}

/// A value that may stand in a path: no dots alone, no separators.
fn setting<'a>(name: &'static str, value: &'a str) -> Result<&'a str, AuthFault> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_one = value.chars().all(usual) && value.chars().any(|c| c.is_ascii_alphanumeric());
    if is_one { Ok(value) } else { Err(AuthFault::Setting { name }) }
}

/// The assertion of a service account's key. The endpoint that a key names (`token_uri`) is not looked at: who may
/// write a credential could have it sent anywhere.
fn assertion(credential: &Secret<String>, scope: &str, now_ms: u64) -> Result<SigningInput, AuthFault> {
    let wrong = |what| AuthFault::Credential { what };
    let key: Value = serde_json::from_str(credential.expose())
        .map_err(|_| wrong("it is not JSON, as a service account's key is"))?;
    let text = |name| key.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let account = text("client_email").ok_or(wrong("client_email is missing"))?;
    let pem = text("private_key").ok_or(wrong("private_key is missing"))?;
    let der = pkcs8(pem).ok_or(wrong("private_key is not PKCS #8 in PEM (\"BEGIN PRIVATE KEY\")"))?;

    let mut header = json!({"alg": "RS256", "typ": "JWT"});
    if let (Some(id), Some(header)) = (text("private_key_id"), header.as_object_mut()) {
        header.insert("kid".to_owned(), id.into());
    }
    let issued = now_ms.div_euclid(1_000);
    let claims = json!({
        "iss": account,
        "scope": scope,
        "aud": GOOGLE_TOKENS,
        "iat": issued,
        "exp": issued.saturating_add(ASSERTION_SECONDS),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    Ok(SigningInput { key: Secret::new(der), text: format!("{}.{}", part(&header), part(&claims)) })
}

fn pkcs8(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?.strip_suffix("-----END PRIVATE KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

/// Reads a token endpoint's answer; `asked_ms` is when it was asked, in Unix milliseconds.
///
/// # Errors
/// [`AuthFault`] if there is no token in it.
pub fn read_token(status: u16, body: &[u8], asked_ms: u64) -> Result<Token, AuthFault> {
    let reply = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let error = reply.get("error").and_then(Value::as_str);
    match (status, error) {
        (400..=499, Some("temporarily_unavailable" | "server_error" | "slow_down")) | (408 | 429, _) => {
            return Err(AuthFault::Unavailable { status });
        }
        // Some endpoints tell an error with a success status.
        (200..=299, Some(_)) | (400..=499, _) => return Err(AuthFault::Refused { status }),
        (200..=299, None) => {}
        _ => return Err(AuthFault::Unavailable { status }),
    }
    let secret = reply.get("access_token").and_then(Value::as_str).ok_or(AuthFault::NoToken)?;
    let can_be_sent = (1..=MAX_TOKEN_BYTES).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    let seconds = match reply.get("expires_in") {
        None | Some(Value::Null) => Some(UNTOLD_SECONDS),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(number) => number.as_u64(),
    };
    match seconds {
        Some(seconds @ 1..) if can_be_sent => Ok(Token {
            secret: Secret::new(secret.to_owned()),
            expires_at_ms: asked_ms.saturating_add(seconds.saturating_mul(1_000)),
        }),
        _ => Err(AuthFault::NoToken),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_999;

    fn minting(minter: Minter, credential: &Secret<String>) -> Minting<'_> {
        Minting { minter, client_id: "an-id", tenant: "example.com", scope: None, token_url: None, credential }
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    /// A service account's key; the private key is no key, but bytes that look like one.
    fn google_key() -> Value {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode([7; 60]));
        json!({
            "type": "service_account",
            "client_email": "me@example.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": pem,
            "token_uri": "https://evil.example/token",
        })
    }

    #[test]
    fn a_service_account_asserts_itself_to_google_and_to_nobody_else() {
        let credential = secret(&google_key().to_string());
        let request = token_request(minting(Minter::GoogleServiceAccount, &credential), NOW_MS).unwrap();
        let sign = request.sign.as_ref().unwrap();
        assert_eq!(sign.key.expose(), &[7; 60]);
        let parts: Vec<Value> = sign
            .text
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        assert_eq!(
            parts[1],
            json!({
                "iss": "me@example.iam.gserviceaccount.com",
                "scope": "https://www.googleapis.com/auth/cloud-platform",
                "aud": "https://oauth2.googleapis.com/token",
                "iat": 1_700_000_000,
                "exp": 1_700_003_600,
            })
        );
        let (url, body) = request.message(Some(&[0xff, 0xfe]));
        assert_eq!(url.expose(), "https://oauth2.googleapis.com/token");
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        assert_eq!(body.expose(), &format!("{grant}&assertion={}.__4", sign.text));
    }

    #[test]
    fn a_credential_that_is_no_such_key_is_told_by_what_is_missing() {
        let without = |name: &str, value: Value| {
            let mut key = google_key();
            key[name] = value;
            key.to_string()
        };
        for (credential, missing) in [
            ("AIza-secret-text".to_owned(), "not JSON"),
            (without("client_email", Value::Null), "client_email"),
            (without("private_key", json!("")), "private_key is missing"),
            (without("private_key", json!("-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END …")), "PKCS #8"),
            (without("private_key", json!("-----BEGIN PRIVATE KEY-----\n§\n-----END PRIVATE KEY-----")), "PKCS #8"),
        ] {
            let credential = secret(&credential);
            let fault = token_request(minting(Minter::GoogleServiceAccount, &credential), NOW_MS).unwrap_err();
            assert!(fault.to_string().contains(missing) && fault.is_about_the_credential(), "{fault}");
        }
    }

    #[test]
    fn entra_and_baidu_are_sent_the_clients_secret() {
        let credential = secret("s&cret");
        let entra = minting(Minter::AzureEntra, &credential);
        let (url, body) = token_request(entra, NOW_MS).unwrap().message(None);
        assert_eq!(url.expose(), "https://login.microsoftonline.com/example.com/oauth2/v2.0/token");
        let form = "grant_type=client_credentials&client_id=an-id&client_secret=s%26cret";
        let scope = "scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default";
        assert_eq!(body.expose(), &format!("{form}&{scope}"));

        let baidu = minting(Minter::BaiduOAuth, &credential);
        let (url, body) = token_request(baidu, NOW_MS).unwrap().message(None);
        assert_eq!(url.expose(), &format!("https://aip.baidubce.com/oauth/2.0/token?{form}"));
        assert_eq!(body.expose(), "");

        let elsewhere = Minting { token_url: Some("https://tokens.example/t"), scope: Some("mine"), ..entra };
        let (url, body) = token_request(elsewhere, NOW_MS).unwrap().message(None);
        assert_eq!((url.expose().as_str(), body.expose()), ("https://tokens.example/t", &format!("{form}&scope=mine")));

        for tenant in ["", "..", "a/b", "a?b", "a%2fb", "é"] {
            let fault = token_request(Minting { tenant, ..entra }, NOW_MS).unwrap_err();
            assert_eq!(fault, AuthFault::Setting { name: "tenant" }, "{tenant:?}");
        }
        for from in [entra, baidu] {
            let fault = token_request(Minting { client_id: "", ..from }, NOW_MS).unwrap_err();
            assert_eq!(fault, AuthFault::Setting { name: "client_id" });
        }
    }

    #[test]
    fn answers_are_read_and_what_is_no_token_is_told_apart() {
        let read = |status, body: Value| read_token(status, body.to_string().as_bytes(), 1_000);
        for (lives, until) in [(json!(3599), 3_600_000), (json!("60"), 61_000), (Value::Null, 301_000)] {
            let token = read(200, json!({"access_token": "t", "expires_in": lives, "token_type": "Bearer"})).unwrap();
            assert_eq!((token.secret.expose().as_str(), token.expires_at_ms), ("t", until));
        }
        assert!(read(200, json!({"access_token": "t", "expires_in": u64::MAX})).is_ok());

        let error =
            |status, error: &str| read(status, json!({"error": error, "error_description": "SECRET"})).unwrap_err();
        assert_eq!(error(400, "invalid_grant"), AuthFault::Refused { status: 400 });
        assert_eq!(error(401, "invalid_client"), AuthFault::Refused { status: 401 });
        assert_eq!(error(200, "invalid_client"), AuthFault::Refused { status: 200 });
        assert_eq!(error(400, "temporarily_unavailable"), AuthFault::Unavailable { status: 400 });
        for status in [0, 302, 408, 429, 500, 503] {
            assert_eq!(error(status, "SECRET"), AuthFault::Unavailable { status });
        }
        for reply in [
            json!({}),
            json!("t"),
            json!({"access_token": ""}),
            json!({"access_token": "a b"}),
            json!({"access_token": "é"}),
            json!({"access_token": "a".repeat(MAX_TOKEN_BYTES.saturating_add(1))}),
            json!({"access_token": "t", "expires_in": 0}),
            json!({"access_token": "t", "expires_in": -1}),
            json!({"access_token": "t", "expires_in": "soon"}),
        ] {
            assert_eq!(read(200, reply.clone()).unwrap_err(), AuthFault::NoToken, "{reply}");
        }
        assert!(!error(500, "SECRET").is_about_the_credential());
    }

    #[test]
    fn what_is_minted_from_something_else_is_something_else() {
        let (one, other) = (secret("s"), secret("t"));
        let from = minting(Minter::AzureEntra, &one);
        let ids = [
            from,
            Minting { minter: Minter::BaiduOAuth, ..from },
            Minting { client_id: "an-", tenant: "idexample.com", ..from },
            Minting { scope: Some("s"), ..from },
            Minting { token_url: Some("s"), ..from },
            Minting { credential: &other, ..from },
        ]
        .map(|from| from.id());
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
        assert_eq!(ids[0], minting(Minter::AzureEntra, &secret("s")).id());
    }

    proptest! {
        #[test]
        fn neither_answers_nor_credentials_get_into_an_error(status in 0..600u16, name in "error|access_token|[a-z]{3}") {
            let body = json!({ name.as_str(): "SEC RET", "expires_in": "SECRET" }).to_string();
            let told = format!("{:?}", read_token(status, body.as_bytes(), 0));
            prop_assert!(!told.contains("SEC"), "{}", told);
            let credential = secret(&body);
            for minter in [Minter::GoogleServiceAccount, Minter::AzureEntra, Minter::BaiduOAuth] {
                let told = format!("{:?}", token_request(minting(minter, &credential), 0));
                prop_assert!(!told.contains("SEC"), "{}", told);
            }
        }

        #[test]
        fn anything_is_read_without_a_panic(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(read_token(status, &body, u64::MAX).is_err());
        }
    }
}
