//! Amazon's signatures, version 4, recomputed from the request as it arrived.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::http::Request;
use crate::reply::ApiError;

/// The access key whose signatures are taken, and its secret: those of Amazon's own documentation.
pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SERVICE: &str = "bedrock";
/// How far the client's clock may be off, in milliseconds.
const LEEWAY_MS: u64 = 300_000;

fn refusal(kind: &str, message: impl Into<String>) -> ApiError {
    ApiError { kind: Some(kind.to_owned()), ..ApiError::new(403, message) }
}

fn invalid(message: impl Into<String>) -> ApiError {
    refusal("InvalidSignatureException", message)
}

/// Checks a request's signature at this time, in milliseconds since 1970.
pub fn check(request: &Request<'_>, now_ms: u64) -> Result<(), ApiError> {
    let header = request.header("authorization").unwrap_or_default();
    let Some(fields) = header.strip_prefix("AWS4-HMAC-SHA256") else {
        return Err(refusal("MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let field = |name: &str| {
        let mut pairs = fields.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value).ok_or_else(|| {
            refusal(
                "IncompleteSignatureException",
                format!("Authorization header requires '{name}' parameter. Authorization={header}"),
            )
        })
    };
    let (credential, signed, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let scope: Vec<&str> = credential.split('/').collect();
    let [access_key, date, region, service, "aws4_request"] = scope.as_slice() else {
        return Err(refusal(
            "IncompleteSignatureException",
            format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'"
            ),
        ));
    };
    if *access_key != ACCESS_KEY_ID {
        return Err(refusal("UnrecognizedClientException", "The security token included in the request is invalid."));
    }
    if *service != SERVICE {
        return Err(invalid(format!("Credential should be scoped to correct service: '{SERVICE}'. ")));
    }
    let Some(time) = request.header("x-amz-date") else {
        return Err(refusal(
            "IncompleteSignatureException",
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        ));
    };
    if !time.starts_with(date) {
        return Err(invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{date}' != '{time}'."
        )));
    }
    let signed_at =
        at_ms(time).ok_or_else(|| invalid(format!("Date must be in ISO-8601 'basic format'. Got '{time}'.")))?;
    if signed_at.abs_diff(now_ms) > LEEWAY_MS {
        return Err(invalid(format!(
            "Signature expired: {time} is now earlier or later than the server's time by more than 5 min."
        )));
    }
    let names: Vec<&str> = signed.split(';').collect();
    let needs = |name: &str| request.header(name).is_some() && !names.contains(&name);
    if let Some(missing) =
        ["host", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"].into_iter().find(|name| needs(name))
    {
        return Err(invalid(format!("'{missing}' must be a 'SignedHeader' in the AWS Authorization.")));
    }
    let hash = hex(&Sha256::digest(request.body));
    if request.header("x-amz-content-sha256").is_some_and(|given| given != hash) {
        return Err(invalid("The value passed in as x-amz-content-sha256 does not match the hash of the body."));
    }
    let canonical =
        canonical(request, &names, &hash).ok_or_else(|| invalid("A signed header is not in the request."))?;
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = sign(format!("AWS4{SECRET}").as_bytes(), date);
    for part in [*region, *service, "aws4_request"] {
        key = sign(&key, part);
    }
    if hex(&sign(&key, &text)) != signature {
        return Err(invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(())
}

/// The request in the one form that both sides sign.
fn canonical(request: &Request<'_>, names: &[&str], hash: &str) -> Option<String> {
    let mut headers = String::new();
    for name in names {
        let values: Vec<&str> = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| std::str::from_utf8(header.value).unwrap_or_default())
            .collect();
        if values.is_empty() {
            return None;
        }
        let value = values.join(",");
        let value: Vec<&str> = value.split_whitespace().collect();
        headers.push_str(&format!("{name}:{}\n", value.join(" ")));
    }
    let mut pairs: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> =
        pairs.iter().map(|pair| if pair.contains('=') { (*pair).to_owned() } else { format!("{pair}=") }).collect();
    Some(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{hash}",
        request.method,
        encode(request.path),
        pairs.join("&"),
        names.join(";")
    ))
}

/// A path as it was sent, encoded once more: so every service but S3 wants it.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z` in milliseconds since 1970.
fn at_ms(time: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    if time.len() != 16 || time.get(8..9) != Some("T") || !time.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(4, 6)?, digits(6, 8)?);
    // Days since 1970 of a date, counted in years that begin in March.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days =
        (365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day).checked_sub(719_469)?;
    let seconds = days * 86_400 + digits(9, 11)? * 3600 + digits(11, 13)? * 60 + digits(13, 15)?;
    Some(seconds * 1000)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use httparse::Header;
    use std::time::Instant;

    /// The header that signs a request; what it signs and how is written out here once more.
    fn signed(path: &str, body: &str, time: &str, headers: &[(&str, &str)], region: &str) -> String {
        let (date, _) = time.split_at(8);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!(
            "POST\n{}\n\n{lines}\n{}\n{}",
            path.replace('%', "%25").replace(':', "%3A"),
            names.join(";"),
            hex(&Sha256::digest(body.as_bytes()))
        );
        let scope = format!("{date}/{region}/bedrock/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
        let mut key = sign(format!("AWS4{SECRET}").as_bytes(), date);
        for part in [region, "bedrock", "aws4_request"] {
            key = sign(&key, part);
        }
        format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={}, Signature={}",
            names.join(";"),
            hex(&sign(&key, &text))
        )
    }

    const TIME: &str = "20260102T030405Z";
    const PATH: &str = "/model/us.anthropic.claude-v1%3A0/converse";

    fn told(change: impl FnOnce(&mut Vec<(String, String)>, &mut String, &mut u64)) -> String {
        let mut body = "{}".to_owned();
        let base = [("content-type", "application/json"), ("host", "h:1"), ("x-amz-date", TIME)];
        let mut headers: Vec<(String, String)> =
            base.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.push(("authorization".to_owned(), signed(PATH, &body, TIME, &base, "us-east-1")));
        let mut now = at_ms(TIME).unwrap() + 200_000;
        change(&mut headers, &mut body, &mut now);
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let request = Request {
            method: "POST",
            target: PATH,
            path: PATH,
            query: "",
            headers: &headers,
            head: b"",
            body: body.as_bytes(),
            form: None,
            received: Instant::now(),
        };
        check(&request, now)
            .map_or_else(|error| format!("{} {}", error.kind.unwrap(), error.message), |()| String::new())
    }

    #[test]
    fn a_signature_holds_for_exactly_this_request() {
        assert_eq!(told(|_, _, _| ()), "");
        assert!(told(|_, body, _| body.push(' ')).contains("does not match the signature you provided"));
        assert!(told(|headers, _, _| headers[0].1.push('x')).contains("does not match the signature"));
        assert!(told(|headers, _, _| headers[1].1 = "other".to_owned()).contains("does not match the signature"));
        assert!(told(|headers, _, _| drop(headers.remove(0))).contains("A signed header is not in the request"));
        assert!(told(|_, _, now| *now += 101_000).contains("Signature expired"));
        assert!(told(|_, _, now| *now -= 501_000).contains("Signature expired"));
        let token = ("x-amz-security-token".to_owned(), "t".to_owned());
        assert!(told(|headers, _, _| headers.push(token)).contains("must be a 'SignedHeader'"));
        let hash = ("x-amz-content-sha256".to_owned(), "0".to_owned());
        assert!(told(|headers, _, _| headers.push(hash)).contains("must be a 'SignedHeader'"));
    }

    #[test]
    fn credentials_are_told_apart() {
        let replace = |from: &'static str, to: &'static str| {
            told(move |headers, _, _| headers[3].1 = headers[3].1.replace(from, to))
        };
        assert!(told(|headers, _, _| drop(headers.pop())).starts_with("MissingAuthenticationTokenException"));
        assert!(replace("AKIDEXAMPLE", "AKIDOTHER").starts_with("UnrecognizedClientException"));
        assert!(replace("/bedrock/", "/s3/").contains("correct service: 'bedrock'"));
        assert!(replace("/us-east-1/", "/eu-west-1/").contains("does not match the signature"));
        assert!(replace("20260102/", "20260103/").contains("Date in Credential scope"));
        assert!(replace("Signature=", "Sig=").starts_with("IncompleteSignatureException"));
    }

    /// The vector "get-vanilla" of Amazon's published suite has another service; what it fixes is the key.
    #[test]
    fn times_and_paths_are_read_as_amazon_does() {
        assert_eq!(at_ms("20150830T123600Z"), Some(1_440_938_160_000));
        assert_eq!(at_ms("19700101T000000Z"), Some(0));
        assert_eq!(at_ms("2015-08-30T12:36"), None);
        assert_eq!(encode("/model/a%3A0/b c"), "/model/a%253A0/b%20c");
        let mut key = sign(format!("AWS4{SECRET}").as_bytes(), "20120215");
        for part in ["us-east-1", "iam", "aws4_request"] {
            key = sign(&key, part);
        }
        assert_eq!(hex(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }
}
