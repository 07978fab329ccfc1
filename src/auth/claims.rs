//! What a token claims (RFC 7519, section 4), read in one way for all issuers.

use serde_json::{Map, Value};

use super::AuthError;

/// The latest time that a claim may name: the end of the year 9999, in Unix seconds.
const LATEST: f64 = 253_402_300_799.0;

/// Longest name of a subject, account, user or role, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Most items of a list in a claim.
const MAX_LIST_ITEMS: usize = 256;

/// When a token may be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The time, in Unix seconds.
    pub(super) now: u64,
    /// By how much clocks may differ, in seconds.
    pub(super) leeway: u64,
}

impl Clock {
    /// Checks `exp`, `nbf` and `iat`, and gives `exp` in whole Unix seconds. A token without `exp` is refused, and with
    /// `max_age` (in seconds) one without `iat` as well.
    pub(super) fn check(self, claims: &Map<String, Value>, max_age: Option<u64>) -> Result<u64, AuthError> {
        let (now, leeway) = (self.now as f64, self.leeway as f64);
        let expires = time(claims, "exp")?.ok_or(AuthError::Token("no expiry"))?;
        if now >= expires + leeway {
            return Err(AuthError::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|start| start > now + leeway) {
            return Err(AuthError::Token("not valid yet"));
        }
        let issued = time(claims, "iat")?;
        if issued.is_some_and(|issued| issued > now + leeway) {
            return Err(AuthError::Token("issued in the future"));
        }
        if let Some(max_age) = max_age {
            let issued = issued.ok_or(AuthError::Token("no time of issue"))?;
            if now >= issued + max_age as f64 + leeway {
                return Err(AuthError::Expired);
            }
        }
        Ok(expires as u64)
    }
}

/// A time; it may have a fraction. What is there and is no sensible time makes the token unusable.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds));
            seconds.map(Some).ok_or(AuthError::Token("unusable time"))
        }
    }
}

/// Whether the token is meant for one of the given audiences.
pub(super) fn is_for(claims: &Map<String, Value>, audiences: &[String]) -> bool {
    let meant = |audience: &str| audiences.iter().any(|ours| ours == audience);
    match claims.get("aud") {
        Some(Value::String(audience)) => meant(audience),
        Some(Value::Array(list)) => {
            list.len() <= MAX_LIST_ITEMS
                && list.iter().all(Value::is_string)
                && list.iter().filter_map(Value::as_str).any(meant)
        }
        _ => false,
    }
}

/// The claim of this name; failing that, the name is a path: `realm_access.roles` is `roles` within `realm_access`. The
/// whole name comes first because claims with a namespace (`https://example.com/team`) have dots in their names.
pub(super) fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    at(claims.get(first)?.as_object()?, rest)
}

/// A name: text that is not empty, not overlong, and has no control characters.
pub(super) fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| {
        !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control) && text.trim() == *text
    })
}

/// One name, or a list of names.
pub(super) fn names(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::Array(list) if list.len() <= MAX_LIST_ITEMS => list.iter().map(name).collect(),
        Value::Array(_) => None,
        single => name(single).map(|single| vec![single]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn check(value: Value, max_age: Option<u64>) -> Result<u64, AuthError> {
        Clock { now: 1500, leeway: 30 }.check(&claims(value), max_age)
    }

    #[test]
    fn times_bound_a_token_within_the_leeway() {
        assert_eq!(check(json!({"exp": 1471}), None), Ok(1471));
        assert_eq!(check(json!({"exp": 1470}), None), Err(AuthError::Expired));
        assert_eq!(check(json!({"exp": 1470.5}), None), Ok(1470));
        assert!(check(json!({"exp": 2000, "nbf": 1530, "iat": 1530}), None).is_ok());
        assert_eq!(check(json!({"exp": 2000, "nbf": 1531}), None), Err(AuthError::Token("not valid yet")));
        assert_eq!(check(json!({"exp": 2000, "iat": 1531}), None), Err(AuthError::Token("issued in the future")));
        assert_eq!(check(json!({"nbf": 1}), None), Err(AuthError::Token("no expiry")));
        assert!(check(json!({"exp": 9000, "iat": 1000}), Some(500)).is_ok());
        assert_eq!(check(json!({"exp": 9000, "iat": 1000}), Some(400)), Err(AuthError::Expired));
        assert_eq!(check(json!({"exp": 9000}), Some(400)), Err(AuthError::Token("no time of issue")));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in
            [json!("2000"), json!(null), json!(true), json!([2000]), json!({}), json!(-1), json!(1e18), json!(1e300)]
        {
            for name in ["exp", "nbf", "iat"] {
                let mut with = claims(json!({"exp": 2000, "nbf": 1000, "iat": 1000}));
                with.insert(name.to_owned(), bad.clone());
                let verdict = Clock { now: 1500, leeway: 30 }.check(&with, None);
                assert_eq!(verdict, Err(AuthError::Token("unusable time")), "{name} {bad}");
            }
        }
    }

    #[test]
    fn an_audience_is_matched_whole() {
        let ours = ["gateway".to_owned(), "other".to_owned()];
        for good in [json!("gateway"), json!(["x", "other"])] {
            assert!(is_for(&claims(json!({"aud": good})), &ours), "{good}");
        }
        for bad in [
            json!("gatewa"),
            json!("gateway2"),
            json!("Gateway"),
            json!(" gateway"),
            json!("gateway,other"),
            json!([]),
            json!([["gateway"]]),
            json!(["gateway", 1]),
            json!({"gateway": "gateway"}),
            json!(null),
        ] {
            assert!(!is_for(&claims(json!({"aud": bad})), &ours), "{bad}");
        }
        assert!(!is_for(&claims(json!({})), &ours));
    }

    #[test]
    fn claims_are_found_by_name_or_by_path() {
        let token =
            claims(json!({"https://x.example/team": "t", "realm": {"access": {"roles": ["a"]}, "a.b": 1}, "s": "x"}));
        assert_eq!(at(&token, "https://x.example/team"), Some(&json!("t")));
        assert_eq!(at(&token, "realm.access.roles"), Some(&json!(["a"])));
        assert_eq!(at(&token, "realm.a.b"), Some(&json!(1)));
        for missing in ["realm.none", "s.x", "", ".", "realm.", ".realm", "realm..access"] {
            assert_eq!(at(&token, missing), None, "{missing}");
        }
    }

    #[test]
    fn names_are_sane_text() {
        assert_eq!(name(&json!("Team Ä")), Some("Team Ä"));
        for bad in [json!(""), json!(" x"), json!("a\nb"), json!("a\u{0}"), json!(7), json!("x".repeat(257))] {
            assert_eq!(name(&bad), None, "{bad}");
        }
        assert_eq!(names(&json!(["a", "b"])), Some(vec!["a", "b"]));
        assert_eq!(names(&json!("a")), Some(vec!["a"]));
        assert_eq!(names(&json!(["a", 1])), None);
    }
}
