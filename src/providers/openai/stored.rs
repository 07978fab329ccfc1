//! Responses that a provider keeps. It keeps those of all callers under one credential, so each is marked as its
//! account's when it is made, in its `metadata`, and nobody may go back to one that does not carry his account's mark.
//! The gateway itself keeps nothing.

use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::azure;
use super::responses_request::RESPONSES_PATH;
use crate::error::{Kind, Problem};
use crate::http::routes::decode;
use crate::protocol::json_scan::{Edit, Members, ScanLimits, ValueKind, scan_object, splice};
use crate::providers::Target;
use crate::providers::openai::scan_problem;
use crate::secret::Secret;

/// The pair of `metadata` that names the account.
pub const MARK: &str = "gateway_account";

/// Pairs that a response may have, the mark among them.
const MAX_PAIRS: usize = 16;

/// Longest id, in bytes.
const MAX_ID: usize = 256;

/// An account's mark: nobody without the secret can tell which account it is, or make another's.
pub fn mark(secret: &Secret<String>, account: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
    mac.update(b"llm-gateway/responses/v1\0");
    mac.update(account.as_bytes());
    let digest = mac.finalize().into_bytes();
    Some(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// What marks a request's response; `None` for one that is not to be kept.
///
/// # Errors
/// A 400 if it has as many pairs of its own as there may be.
pub fn marked(body: &[u8], members: &Members<'_>, mark: &str) -> Result<Option<Edit>, Problem> {
    let member = |name| members.unique(name).map_err(scan_problem);
    if member("store")?.is_some_and(|store| members.raw(store) == b"false") {
        return Ok(None);
    }
    let pair = format!("\"{MARK}\":\"{mark}\"");
    let Some(metadata) = member("metadata")? else {
        return Ok(Some(Edit {
            range: members.open..members.open,
            with: format!("\"metadata\":{{{pair}}},").into_bytes(),
        }));
    };
    let with = match metadata.kind {
        ValueKind::Null => format!("{{{pair}}}").into_bytes(),
        ValueKind::Object => {
            let text = body.get(metadata.value.clone()).unwrap_or_default();
            let mut pairs: Map<String, Value> = serde_json::from_slice(text).unwrap_or_default();
            // One's own mark from an earlier reply may come back; another's is worth nothing.
            pairs.remove(MARK);
            if pairs.len() >= MAX_PAIRS {
                let message = "metadata: must have at most 15 pairs: the gateway adds one.";
                return Err(Problem::invalid("metadata", message));
            }
            pairs.insert(MARK.to_owned(), mark.into());
            Value::Object(pairs).to_string().into_bytes()
        }
        // The provider says what is wrong with it.
        _ => return Ok(None),
    };
    Ok(Some(Edit { range: metadata.value.clone(), with }))
}

/// Whether a response carries an account's mark.
pub fn is_owned(response: &Value, mark: &str) -> bool {
    response.get("metadata").and_then(|pairs| pairs.get(MARK)).is_some_and(|its| its == mark)
}

/// A response as its caller has asked for it, without the mark.
pub fn unmarked(body: Vec<u8>) -> Vec<u8> {
    if memchr::memmem::find(&body, MARK.as_bytes()).is_none() {
        return body;
    }
    let edit = scan_object(&body, ScanLimits::default()).ok().and_then(|members| {
        let metadata = members.unique("metadata").ok()??;
        let mut pairs: Map<String, Value> = serde_json::from_slice(members.raw(metadata)).ok()?;
        pairs.remove(MARK)?;
        Some(Edit { range: metadata.value.clone(), with: Value::Object(pairs).to_string().into_bytes() })
    });
    match edit {
        Some(edit) => splice(&body, vec![edit]),
        None => body,
    }
}

/// The response that a request goes on from, if it names one.
///
/// # Errors
/// A 400 if that is no id.
pub fn previous(members: &Members<'_>) -> Result<Option<String>, Problem> {
    const NAME: &str = "previous_response_id";
    let member = members.unique(NAME).map_err(scan_problem)?.filter(|member| member.kind != ValueKind::Null);
    let Some(member) = member else { return Ok(None) };
    match serde_json::from_slice::<String>(members.raw(member)) {
        Ok(id) if is_id(&id) => Ok(Some(id)),
        Ok(id) => Err(no_previous(&id)),
        Err(_) => Err(Problem::invalid(NAME, "previous_response_id: must be a string.")),
    }
}

/// Whether a text can be an id: nothing that would lead elsewhere in a path.
pub fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(fits)
}

/// Parameters of the query that the provider gets. Those of streams are not among them: no response is streamed again.
const PARAMS: &[&str] = &["include", "limit", "order", "after", "before"];

/// What the query of a look-up says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The model, which is the gateway's to read.
    pub model: Option<String>,
    /// Whether a stream is asked for.
    pub streams: bool,
    /// What the provider gets of it, as it was written.
    pub passed: String,
}

impl Query {
    /// Reads a query; what nobody knows is left out, since it could be anything, the caller's key among it.
    pub fn read(query: &str) -> Self {
        let (mut read, mut passed) = (Self::default(), Vec::new());
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).unwrap_or_default();
            match name.as_str() {
                "model" => read.model = decode(value),
                "stream" => read.streams = value == "true",
                // Lists are written as `include`, `include[]` or `include[0]`.
                name if PARAMS.contains(&name.split('[').next().unwrap_or_default()) => passed.push(pair),
                _ => {}
            }
        }
        Self { passed: passed.join("&"), ..read }
    }
}

/// Where a response is, or what is below it, such as `/cancel`.
pub fn path(target: Target<'_>, id: &str, below: &str, query: &str) -> String {
    let path = azure::path(target, &format!("{RESPONSES_PATH}/{id}{below}"));
    match query {
        "" => path,
        _ if path.contains('?') => format!("{path}&{query}"),
        _ => format!("{path}?{query}"),
    }
}

/// What a caller is told of a response that is not there, or not his.
pub fn not_found(id: &str) -> Problem {
    Problem::new(Kind::NotFound, "response_not_found", format!("Response with id '{id}' not found."))
}

/// The same of one that it wants to go on from.
pub fn no_previous(id: &str) -> Problem {
    let problem = Problem::invalid("previous_response_id", format!("Previous response with id '{id}' not found."));
    Problem { code: "previous_response_not_found".to_owned(), ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn marked_body(body: &str, mark: &str) -> Result<String, Problem> {
        let members = scan_object(body.as_bytes(), ScanLimits::default()).unwrap();
        let edit = marked(body.as_bytes(), &members, mark)?;
        Ok(String::from_utf8(splice(body.as_bytes(), edit.into_iter().collect())).unwrap())
    }

    #[test]
    fn a_mark_tells_accounts_apart_and_only_the_gateway_can_make_it() {
        let of = |secret: &str, account| mark(&Secret::new(secret.to_owned()), account).unwrap();
        assert_eq!(of("s", "a"), of("s", "a"));
        assert_eq!(of("s", "a").len(), 32);
        assert_ne!(of("s", "a"), of("s", "b"));
        assert_ne!(of("s", "a"), of("t", "a"));
        let response = json!({"metadata": {MARK: of("s", "a")}});
        assert!(is_owned(&response, &of("s", "a")) && !is_owned(&response, &of("s", "b")));
        for other in [json!({}), json!({"metadata": null}), json!({"metadata": {MARK: 5}}), json!([])] {
            assert!(!is_owned(&other, &of("s", "a")));
        }
    }

    #[test]
    fn what_is_kept_is_marked_and_nothing_else_changes() {
        let told = |body: &str| marked_body(body, "m").unwrap();
        assert_eq!(told(r#"{ "model":"x"}"#), r#"{"metadata":{"gateway_account":"m"}, "model":"x"}"#);
        assert_eq!(told(r#"{"metadata":null,"n":1.50}"#), r#"{"metadata":{"gateway_account":"m"},"n":1.50}"#);
        assert_eq!(
            told(r#"{"metadata":{"a":"b","gateway_account":"other"}}"#),
            r#"{"metadata":{"a":"b","gateway_account":"m"}}"#
        );
        for same in [r#"{"store":false,"metadata":{}}"#, r#"{"metadata":"x"}"#] {
            assert_eq!(told(same), same);
        }
        assert_eq!(told(r#"{"store":true}"#), r#"{"metadata":{"gateway_account":"m"},"store":true}"#);
        let many: Map<String, Value> = (0..16).map(|n| (n.to_string(), json!("x"))).collect();
        let refused = marked_body(&json!({"metadata": many}).to_string(), "m").unwrap_err();
        assert_eq!((refused.status, refused.param.as_deref()), (400, Some("metadata")));
    }

    #[test]
    fn the_caller_does_not_see_the_mark() {
        let told = |body: &str| String::from_utf8(unmarked(body.into())).unwrap();
        assert_eq!(told(r#"{"a":1.50,"metadata": {"gateway_account":"m"}}"#), r#"{"a":1.50,"metadata": {}}"#);
        assert_eq!(told(r#"{"metadata":{"x":"y","gateway_account":"m"}}"#), r#"{"metadata":{"x":"y"}}"#);
        for same in [r#"{"text":"gateway_account"}"#, "gateway_account", r#"{"metadata":{"x":"gateway_account"}}"#] {
            assert_eq!(told(same), same);
        }
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert!(is_id("resp_0a-B9") && is_id(&"x".repeat(256)));
        for text in ["", "a/b", "..", "a?b", "a%2Fb", "é", &"x".repeat(257)] {
            assert!(!is_id(text), "{text}");
        }
        let read = |body: &str| previous(&scan_object(body.as_bytes(), ScanLimits::default()).unwrap());
        assert_eq!(read(r#"{"previous_response_id":"resp_1"}"#), Ok(Some("resp_1".to_owned())));
        assert_eq!((read("{}"), read(r#"{"previous_response_id":null}"#)), (Ok(None), Ok(None)));
        for body in [r#"{"previous_response_id":5}"#, r#"{"previous_response_id":"../x"}"#] {
            assert_eq!(read(body).unwrap_err().param.as_deref(), Some("previous_response_id"));
        }
    }

    #[test]
    fn of_a_query_the_provider_gets_what_is_its_own() {
        let query =
            Query::read("model=a%2Fb&include%5B%5D=x&include[1]=y&limit=5&order=asc&after=i&before=j&stream=false");
        assert_eq!(query.model.as_deref(), Some("a/b"));
        assert!(!query.streams);
        assert_eq!(query.passed, "include%5B%5D=x&include[1]=y&limit=5&order=asc&after=i&before=j");
        for other in ["api_key=sk", "api%5Fkey=sk", "api-version=1", "key", "limits=1", "%zz=1", "", "&"] {
            assert_eq!(Query::read(other), Query::default(), "{other}");
        }
        assert!(Query::read("stream=true").streams);
    }

    #[test]
    fn a_response_is_looked_for_where_the_provider_has_it() {
        let found = |provider: Value, query: &str| {
            let provider: crate::config::Provider = serde_json::from_value(provider).unwrap();
            let target = Target {
                provider: &provider,
                upstream_model: "gpt",
                max_output_tokens: 1,
                structured_output: crate::config::StructuredOutput::Native,
                strict_params: false,
            };
            path(target, "resp_1", "/input_items", query)
        };
        let openai = json!({"preset": "openai"});
        assert_eq!(found(openai.clone(), ""), "/responses/resp_1/input_items");
        assert_eq!(found(openai, "limit=5"), "/responses/resp_1/input_items?limit=5");
        let azure =
            json!({"preset": "azure", "base_url": "https://r.openai.azure.com", "api_version": "2025-04-01-preview"});
        let items = "/openai/responses/resp_1/input_items?api-version=2025-04-01-preview";
        assert_eq!(found(azure.clone(), ""), items);
        assert_eq!(found(azure, "limit=5"), format!("{items}&limit=5"));
    }
}
