//! Which addresses a provider may have.
//!
//! Whoever can edit the configuration could otherwise make the gateway call what only the gateway can reach: metadata
//! services, loopback, private networks. So a base URL must be `https:` to a public host unless the *deployment* (not the
//! configuration) names the host.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Hosts that a deployment allows although they are private or without TLS, each as `host` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateHosts {
    /// Only these.
    Named(Vec<String>),
    /// All: for checks that do not know the deployment.
    Any,
}

impl PrivateHosts {
    /// Reads a list separated by commas.
    pub fn parse(list: &str) -> Self {
        Self::Named(
            list.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect(),
        )
    }

    fn allows(&self, url: &Url) -> bool {
        let Self::Named(hosts) = self else { return true };
        let Some(host) = url.host_str() else { return false };
        let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        hosts.iter().any(|allowed| allowed == host || Some(allowed) == with_port.as_ref())
    }
}

/// Why a base URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL, or one with parts that a base URL must not have.
    #[error("must be a URL such as https://api.example.com/v1, without user, query or fragment")]
    NotAUrl,
    /// Neither `https:` nor `http:`.
    #[error("must begin with https://")]
    Scheme,
    /// Without TLS, or to a host that is not public.
    #[error(
        "`{0}` is not a public host reached by https; if it is meant, name it in the deployment's PRIVATE_UPSTREAM_HOSTS"
    )]
    Private(String),
}

/// Checks a provider's base URL. The URL parser resolves decimal, octal and hexadecimal spellings of addresses before
/// they are judged.
///
/// # Errors
/// [`EndpointError`] says why it is refused.
pub fn check_base_url(text: &str, private: &PrivateHosts) -> Result<Url, EndpointError> {
    let url = Url::parse(text).map_err(|_| EndpointError::NotAUrl)?;
    if url.query().is_some() {
        return Err(EndpointError::NotAUrl);
    }
    check(url, private)
}

/// Checks the address of an issuer's keys as [`check_base_url`] does a provider's; it may have a query.
///
/// # Errors
/// [`EndpointError`] says why it is refused.
pub fn check_jwks_uri(text: &str, private: &PrivateHosts) -> Result<Url, EndpointError> {
    check(Url::parse(text).map_err(|_| EndpointError::NotAUrl)?, private)
}

fn check(url: Url, private: &PrivateHosts) -> Result<Url, EndpointError> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(EndpointError::Scheme);
    }
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let Some(host) = url.host().filter(|_| plain) else { return Err(EndpointError::NotAUrl) };
    let public = match host {
        Host::Ipv4(address) => is_public_v4(address),
        Host::Ipv6(address) => is_public_v6(address),
        Host::Domain(name) => is_public_name(name),
    };
    if (url.scheme() == "https" && public) || private.allows(&url) {
        Ok(url)
    } else {
        Err(EndpointError::Private(url.host_str().unwrap_or_default().to_owned()))
    }
}

fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let private_suffix = ["localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa"]
        .iter()
        .any(|suffix| name == *suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')));
    name.contains('.') && !private_suffix
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b); // carrier-grade NAT; some clouds' metadata
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || shared
        || protocol
        || benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Addresses that carry an IPv4 address are as public as that one is.
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x2002, ..) => embedded(b, c),
        // Global unicast is 2000::/3; Teredo and documentation within it are not reachable services.
        _ => a & 0xe000 == 0x2000 && !(a == 0x2001 && (b == 0 || b == 0xdb8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> bool {
        check_base_url(url, &PrivateHosts::parse("")).is_err()
    }

    #[test]
    fn public_hosts_by_https_are_allowed() {
        for url in
            ["https://api.openai.com/v1", "https://8.8.8.8", "https://[2606:4700::1111]/v1", "https://x.example:8443"]
        {
            assert!(!refused(url), "{url}");
        }
    }

    #[test]
    fn private_hosts_are_refused_in_every_spelling() {
        for url in [
            "http://api.openai.com/v1",
            "https://localhost/v1",
            "https://a.localhost",
            "https://localhost.",
            "https://printer.local",
            "https://metadata.google.internal",
            "https://localhost.localdomain",
            "https://Db.LocalDomain.",
            "https://router.lan",
            "https://nas.home.arpa",
            "https://intranet",
            "https://127.0.0.1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://0177.0.0.1",
            "https://0",
            "https://10.0.0.1",
            "https://172.16.0.1",
            "https://192.168.1.1",
            "https://169.254.169.254",
            "https://100.100.100.200",
            "https://[::1]",
            "https://[::]",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:a9fe:a9fe]",
            "https://[fe80::1]",
            "https://[fd00::1]",
            "https://[64:ff9b::7f00:1]",
            "https://[2002:7f00:1::]",
            "ftp://example.com",
            "https://user:pw@example.com",
            "https://example.com/?x=1",
            "not a url",
        ] {
            assert!(refused(url), "{url}");
        }
    }

    #[test]
    fn the_address_of_keys_may_have_a_query_and_nothing_more() {
        let check = |uri| check_jwks_uri(uri, &PrivateHosts::parse(""));
        assert!(check("https://id.example/keys?policy=a").is_ok());
        assert!(check("https://169.254.169.254/keys").is_err());
        assert!(check("https://id.example/keys#a").is_err());
    }

    #[test]
    fn a_deployment_can_name_private_hosts() {
        let hosts = PrivateHosts::parse(" 127.0.0.1:8788, ollama.internal ");
        assert!(check_base_url("http://127.0.0.1:8788/v1", &hosts).is_ok());
        assert!(check_base_url("http://127.0.0.1:9999/v1", &hosts).is_err());
        assert!(check_base_url("http://ollama.internal:11434", &hosts).is_ok());
        assert!(check_base_url("ftp://ollama.internal", &hosts).is_err());
    }
}
