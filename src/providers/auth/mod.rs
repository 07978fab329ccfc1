//! How a request is given its provider's credential: as it is, as a signature, or as a token that is minted from it and
//! kept. All of it is pure; the clock's time comes as an argument, and asking a token endpoint is the shell's business.

pub mod minted;
pub mod sigv4;
pub mod slot;

use url::form_urlencoded::byte_serialize;

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
    /// Whether the address must not be told.
    in_url: bool,
}

impl Credentials {
    /// None.
    pub fn none(url: String) -> Self {
        Self { url: Secret::new(url), headers: Vec::new(), in_url: false }
    }

    /// The platform's words for what went wrong with the request, which may quote the address.
    pub fn tellable(&self, error: String) -> String {
        if self.in_url { "an error that may quote a credential".to_owned() } else { error }
    }
}

impl AuthKind {
    /// The credential in its place of a request to `url`.
    pub fn carry(self, credential: &Secret<String>, url: String) -> Credentials {
        let (name, value) = match self {
            Self::Bearer => ("authorization", Secret::new(format!("Bearer {}", credential.expose()))),
            Self::Header { name } => (name, credential.clone()),
            Self::Query { name } => {
                let mark = if url.contains('?') { '&' } else { '?' };
                let value: String = byte_serialize(credential.expose().as_bytes()).collect();
                return Credentials { in_url: true, ..Credentials::none(format!("{url}{mark}{name}={value}")) };
            }
        };
        Credentials { headers: vec![(name, value)], ..Credentials::none(url) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
