//! Takes a credential out of what its provider says: an upstream that repeats the token it was sent must not hand it to
//! the caller, the log or the records.

use url::form_urlencoded::byte_serialize;

use crate::secret::Secret;

/// What stands in a credential's place.
const HIDDEN: &str = "[hidden]";

/// Shorter credentials are placeholders such as `none`, and words of the language.
const MIN_BYTES: usize = 8;

/// The credentials that a request was sent with, in each form in which a reply may repeat them.
#[derive(Debug, Clone, Default)]
pub struct Scrubber(Vec<Secret<String>>);

impl Scrubber {
    /// One that knows these.
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        let mut forms = Vec::new();
        for credential in credentials {
            let plain = credential.expose().trim();
            if plain.len() < MIN_BYTES {
                continue;
            }
            let in_query: String = byte_serialize(plain.as_bytes()).collect();
            let in_json = serde_json::Value::from(plain).to_string();
            let in_json = in_json.trim_matches('"').to_owned();
            for form in [plain.to_owned(), in_query, in_json] {
                if !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        Self(forms.into_iter().map(Secret::new).collect())
    }

    /// A text without them.
    pub fn text(&self, text: String) -> String {
        self.0.iter().map(Secret::expose).fold(text, |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), HIDDEN) } else { text }
        })
    }

    /// A body without them; one that has none of them stays as it is to the byte.
    pub fn body(&self, body: Vec<u8>) -> Vec<u8> {
        self.0.iter().map(Secret::expose).fold(body, |body, form| replaced(body, form.as_bytes()))
    }
}

fn replaced(body: Vec<u8>, form: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body.as_slice();
    while let Some(at) = rest.windows(form.len()).position(|window| window == form) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.extend_from_slice(HIDDEN.as_bytes());
        rest = rest.get(at.saturating_add(form.len())..).unwrap_or_default();
    }
    if rest.len() == body.len() {
        return body;
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scrubber(credentials: &[&str]) -> Scrubber {
        let secrets: Vec<_> = credentials.iter().map(|text| Secret::new((*text).to_owned())).collect();
        Scrubber::new(&secrets)
    }

    #[test]
    fn a_credential_is_hidden_in_each_form_of_it() {
        let it = scrubber(&["key/with+signs==\n", "a \"quoted\" token"]);
        assert_eq!(it.text("bad key/with+signs== here".to_owned()), "bad [hidden] here");
        assert_eq!(it.text("?k=key%2Fwith%2Bsigns%3D%3D&b".to_owned()), "?k=[hidden]&b");
        let body = br#"{"error":"a \"quoted\" token, key/with+signs==key/with+signs=="}"#.to_vec();
        assert_eq!(it.body(body), br#"{"error":"[hidden], [hidden][hidden]"}"#);
        assert_eq!(it.body(b"\xff none \xfe".to_vec()), b"\xff none \xfe");
        assert!(!format!("{it:?}").contains("signs"));
    }

    #[test]
    fn placeholders_are_no_credentials() {
        assert_eq!(scrubber(&["", "none", "ollama"]).text("none of ollama's".to_owned()), "none of ollama's");
    }

    proptest! {
        #[test]
        fn nothing_of_it_is_left(before in any::<Vec<u8>>(), after in any::<Vec<u8>>(), key in "[a-z+/=]{8,20}") {
            let body = [before.as_slice(), key.as_bytes(), &after].concat();
            let scrubbed = scrubber(&[&key]).body(body);
            prop_assert!(!scrubbed.windows(key.len()).any(|window| window == key.as_bytes()));
        }
    }
}
