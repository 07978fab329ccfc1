//! Amazon's signature of a request, version 4
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::minted::AuthFault;
use crate::billing::Day;
use crate::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An access key.
#[derive(Debug)]
pub struct AccessKey {
    /// Its id, the public half.
    pub id: String,
    /// Its secret half.
    pub secret: Secret<String>,
    /// The token of a temporary one.
    pub session_token: Option<Secret<String>>,
}

impl AccessKey {
    /// Reads a credential: the secret of the key with this id, or what `aws sts` prints of a temporary key.
    ///
    /// # Errors
    /// [`AuthFault::Credential`] if the key has not all of its parts.
    pub fn read(id: Option<&str>, credential: &Secret<String>) -> Result<Self, AuthFault> {
        let text = credential.expose().trim();
        let missing = |what| AuthFault::Credential { what };
        let Some(id) = id.filter(|_| !text.starts_with('{')) else {
            let printed: Value = serde_json::from_str(text)
                .map_err(|_| missing("without `auth.access_key_id` it must be what `aws sts` prints"))?;
            let key = printed.get("Credentials").unwrap_or(&printed);
            let part = |name: &str| key.get(name).and_then(Value::as_str).filter(|part| !part.is_empty());
            return Ok(Self {
                id: part("AccessKeyId").ok_or(missing("AccessKeyId is missing"))?.to_owned(),
                secret: Secret::new(part("SecretAccessKey").ok_or(missing("SecretAccessKey is missing"))?.to_owned()),
                session_token: part("SessionToken").map(|token| Secret::new(token.to_owned())),
            });
        };
        Ok(Self { id: id.to_owned(), secret: Secret::new(text.to_owned()), session_token: None })
    }
}

/// Who signs, and for what.
#[derive(Debug, Clone, Copy)]
pub struct SigV4<'a> {
    /// The public half of the key.
    pub access_key_id: &'a str,
    /// Its secret half.
    pub secret: &'a Secret<String>,
    /// The token of a temporary key.
    pub session_token: Option<&'a Secret<String>>,
    /// The region as the service's host names it.
    pub region: &'a str,
    /// The service's name for signatures, such as `bedrock`.
    pub service: &'a str,
}

impl SigV4<'_> {
    /// The headers to send besides `headers`. Signed are these, the host, and of `headers` the content type and
    /// Amazon's own. `url` has each segment of its path encoded once, and `now_ms` is the Unix time in milliseconds at
    /// which the request leaves: Amazon accepts a signature for five minutes.
    pub fn headers(
        &self,
        method: &str,
        url: &Url,
        headers: &[(String, String)],
        body: &[u8],
        now_ms: u64,
    ) -> Vec<(&'static str, Secret<String>)> {
        let payload_hash = hex(&Sha256::digest(body));
        let stamp = timestamp(now_ms);
        let mut added = vec![("x-amz-content-sha256", payload_hash.clone()), ("x-amz-date", stamp.clone())];
        if let Some(token) = self.session_token {
            added.push(("x-amz-security-token", token.expose().clone()));
        }
        let mut signed = BTreeMap::from([("host".to_owned(), host(url))]);
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if name == "content-type" || name.starts_with("x-amz-") {
                signed.insert(name, one_spaced(value));
            }
        }
        signed.extend(added.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        added.push(("authorization", self.authorization(method, url, &signed, &payload_hash, &stamp)));
        added.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
    }

    fn authorization(
        &self,
        method: &str,
        url: &Url,
        signed: &BTreeMap<String, String>,
        payload_hash: &str,
        stamp: &str,
    ) -> String {
        let names = signed.keys().map(String::as_str).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = [method, &path(url), &query(url), &lines, &names, payload_hash].join("\n");

        let (day, _) = stamp.split_once('T').unwrap_or_default();
        let scope = [day, self.region, self.service, "aws4_request"].join("/");
        let text = [ALGORITHM, stamp, &scope, &hex(&Sha256::digest(request))].join("\n");

        let first = format!("AWS4{}", self.secret.expose()).into_bytes();
        let key = scope.split('/').fold(first, |key, part| hmac(&key, part));
        let signature = hex(&hmac(&key, &text));
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.access_key_id)
    }
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The path with each segment encoded once more, and without empty segments.
fn path(url: &Url) -> String {
    let path = url.path();
    let mut encoded = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        encoded.push('/');
        encode(segment, &mut encoded);
    }
    if path.ends_with('/') || encoded.is_empty() {
        encoded.push('/');
    }
    encoded
}

/// The query's parameters, encoded once and sorted.
fn query(url: &Url) -> String {
    let encoded = |text: &str| {
        let mut out = String::new();
        encode(text, &mut out);
        out
    };
    let mut pairs: Vec<_> = url.query_pairs().map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but what RFC 3986 leaves unreserved.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

/// A header's value with single spaces, and none around it.
fn one_spaced(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// `20150830T123600Z`
fn timestamp(now_ms: u64) -> String {
    let seconds = now_ms.div_euclid(1_000);
    let day = Day::at(seconds).to_string().replace('-', "");
    let of_day = seconds.rem_euclid(86_400);
    let (hours, minutes) = (of_day.div_euclid(3_600), of_day.div_euclid(60).rem_euclid(60));
    format!("{day}T{hours:02}{minutes:02}{:02}Z", of_day.rem_euclid(60))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do, so there is always one.
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mut mac| {
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    });
    mac.unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
