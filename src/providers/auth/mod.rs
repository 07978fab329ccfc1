//! How a request is given its provider's credential: as it is, as a signature, or as a token that is minted from it and
//! kept. All of it is pure; the clock's time comes as an argument, and asking a token endpoint is the shell's business.

pub mod minted;
pub mod scrub;
pub mod sigv4;
pub mod slot;

use url::form_urlencoded::byte_serialize;

use self::minted::{AuthFault, Minter, Minting};
use self::scrub::Scrubber;
use self::sigv4::AccessKey;
use crate::config::{AuthMethod, Provider};
use crate::secret::Secret;

/// Where a request carries its provider's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthKind {
    /// `Authorization: Bearer …`
    Bearer,
    /// A header with nothing else in it.
    Header {
        /// Its name.
        name: &'static str,
    },
    /// A parameter of the query, added when the request is sent and in no path before that.
    Query {
        /// Its name.
        name: &'static str,
    },
}

/// What a request is sent with.
#[derive(Debug)]
pub struct Credentials {
    /// The address, as a whole.
    pub url: Secret<String>,
    /// Headers.
    pub headers: Vec<(&'static str, Secret<String>)>,
    /// Takes them out of what the provider says.
    pub scrubber: Scrubber,
    /// Whether the address must not be told.
    in_url: bool,
}

impl Credentials {
    /// None.
    pub fn none(url: String) -> Self {
        Self::in_headers(url, Vec::new(), Scrubber::default())
    }

    /// These headers and nothing else, made of what `scrubber` knows.
    pub fn in_headers(url: String, headers: Vec<(&'static str, Secret<String>)>, scrubber: Scrubber) -> Self {
        Self { url: Secret::new(url), headers, scrubber, in_url: false }
    }

    /// The platform's words for what went wrong with the request, which may quote the address.
    pub fn tellable(&self, error: String) -> String {
        if self.in_url { "an error that may quote a credential".to_owned() } else { error }
    }
}

impl AuthKind {
    /// The credential in its place of a request to `url`.
    pub fn carry(self, credential: &Secret<String>, url: String) -> Credentials {
        let scrubber = Scrubber::new([credential]);
        let (name, value) = match self {
            Self::Bearer => ("authorization", Secret::new(format!("Bearer {}", credential.expose()))),
            Self::Header { name } => (name, credential.clone()),
            Self::Query { name } => {
                let mark = if url.contains('?') { '&' } else { '?' };
                let value: String = byte_serialize(credential.expose().as_bytes()).collect();
                let url = format!("{url}{mark}{name}={value}");
                return Credentials { in_url: true, ..Credentials::in_headers(url, Vec::new(), scrubber) };
            }
        };
        Credentials::in_headers(url, vec![(name, value)], scrubber)
    }
}

/// What becomes of a provider's credential.
#[derive(Debug)]
pub enum Scheme<'a> {
    /// It is sent as it is.
    AsItIs(AuthKind),
    /// Requests are signed with it.
    Signed {
        /// The key.
        key: AccessKey,
        /// The region.
        region: &'a str,
    },
    /// A token is minted from it.
    Minted {
        /// What from.
        from: Minting<'a>,
        /// Where the token goes.
        to: AuthKind,
    },
}

/// What becomes of a provider's credential: what its configuration says, or else it goes where its dialect has it.
///
/// # Errors
/// [`AuthFault`] if the credential is not of the kind that this takes.
pub fn scheme<'a>(
    provider: &'a Provider,
    own: AuthKind,
    credential: &'a Secret<String>,
) -> Result<Scheme<'a>, AuthFault> {
    let Some(auth) = &provider.auth else { return Ok(Scheme::AsItIs(own)) };
    let from = |minter| Minting {
        minter,
        client_id: auth.client_id.as_deref().unwrap_or_default(),
        tenant: auth.tenant.as_deref().unwrap_or_default(),
        scope: auth.scope.as_deref(),
        token_url: auth.token_url.as_deref(),
        credential,
    };
    Ok(match auth.method {
        AuthMethod::SigV4 => Scheme::Signed {
            key: AccessKey::read(auth.access_key_id.as_deref(), credential)?,
            region: auth.region.as_deref().unwrap_or_default(),
        },
        AuthMethod::GoogleServiceAccount => {
            Scheme::Minted { from: from(Minter::GoogleServiceAccount), to: AuthKind::Bearer }
        }
        AuthMethod::Entra => Scheme::Minted { from: from(Minter::AzureEntra), to: AuthKind::Bearer },
        AuthMethod::Baidu => {
            Scheme::Minted { from: from(Minter::BaiduOAuth), to: AuthKind::Query { name: "access_token" } }
        }
    })
}

/// A token to be renewed beside the request that already uses it.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The provider whose token it is.
    pub provider: Provider,
    /// What it is minted from.
    pub credential: Secret<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configuration_says_what_becomes_of_a_credential() {
        let secret = Secret::new("s".to_owned());
        let told = |auth: serde_json::Value| {
            let provider = json!({"dialect": "openai", "base_url": "https://p.example", "auth": auth});
            let provider: Provider = serde_json::from_value(provider).unwrap();
            match scheme(&provider, AuthKind::Header { name: "api-key" }, &secret).unwrap() {
                Scheme::AsItIs(kind) => format!("{kind:?}"),
                Scheme::Signed { key, region } => format!("{} signs in {region}", key.id),
                Scheme::Minted { from, to } => format!("{:?} of {} in {to:?}", from.minter, from.client_id),
            }
        };
        assert_eq!(told(json!(null)), "Header { name: \"api-key\" }");
        assert_eq!(told(json!({"method": "sigv4", "access_key_id": "AK", "region": "r"})), "AK signs in r");
        let entra = json!({"method": "entra", "tenant": "t", "client_id": "c"});
        assert_eq!(told(entra), "AzureEntra of c in Bearer");
        let baidu = json!({"method": "baidu", "client_id": "c"});
        assert_eq!(told(baidu), "BaiduOAuth of c in Query { name: \"access_token\" }");
        assert!(told(json!({"method": "google_service_account"})).starts_with("GoogleServiceAccount"));
    }

    #[test]
    fn a_credential_is_carried_in_its_place_alone() {
        let sent = |kind: AuthKind, url: &str| {
            let sent = kind.carry(&Secret::new("s&1".to_owned()), url.to_owned());
            assert!(!format!("{sent:?}").contains("s&1") && !format!("{sent:?}").contains("s%26"));
            let headers: Vec<_> =
                sent.headers.iter().map(|(name, value)| format!("{name}: {}", value.expose())).collect();
            (sent.url.expose().clone(), headers.join("\n"))
        };
        let at = "https://h/a".to_owned();
        assert_eq!(sent(AuthKind::Bearer, &at), (at.clone(), "authorization: Bearer s&1".to_owned()));
        assert_eq!(sent(AuthKind::Header { name: "api-key" }, &at), (at.clone(), "api-key: s&1".to_owned()));
        let query = AuthKind::Query { name: "access_token" };
        assert_eq!(sent(query, &at), ("https://h/a?access_token=s%261".to_owned(), String::new()));
        assert_eq!(sent(query, "https://h/a?b=c").0, "https://h/a?b=c&access_token=s%261");

        let told = |kind: AuthKind| kind.carry(&Secret::new("s".to_owned()), at.clone()).tellable("lost".to_owned());
        assert_eq!(told(AuthKind::Bearer), "lost");
        assert_ne!(told(query), "lost");
    }
}
