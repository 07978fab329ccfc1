//! What a status means to who has asked a provider something without need.

use crate::config::{ProbeMethod, ProviderDialect};

/// Longest time that a test takes, in milliseconds.
pub const MAX_PATIENCE_MS: u64 = 10_000;

/// The path below the base URL that a test asks for: cheap, but only for those whose credential is good.
pub fn path(dialect: ProviderDialect) -> &'static str {
    match dialect {
        ProviderDialect::OpenAi => "/models",
        ProviderDialect::Anthropic => "/v1/models",
        ProviderDialect::Cohere => "/v1/models",
        // Nothing is known of it but where it is; the others have no list of models there.
        ProviderDialect::Generic
        | ProviderDialect::Bedrock
        | ProviderDialect::Vertex
        | ProviderDialect::Wenxinworkshop
        | ProviderDialect::WorkersAi => "",
        ProviderDialect::Gemini => "/models?pageSize=1",
    }
}

/// Whether a status is that of a provider which works, and what it says in words.
pub fn judge(dialect: ProviderDialect, status: u16) -> (bool, String) {
    match (dialect, status) {
        (_, 200..=299) => (true, "It answered as it should.".to_owned()),
        (_, 300..=399) => {
            (false, format!("It answered with status {status}, a redirect, which is never followed. Check `base_url`."))
        }
        // Google calls a wrong key an invalid argument, and this request has no other.
        (_, 401 | 403 | 407) | (ProviderDialect::Gemini, 400) => {
            (false, format!("It refused the credential (status {status}). Check `credential` and what it may do."))
        }
        (
            ProviderDialect::Generic
            | ProviderDialect::Bedrock
            | ProviderDialect::Vertex
            | ProviderDialect::Wenxinworkshop
            | ProviderDialect::WorkersAi,
            400..=499,
        ) => (true, format!("It answered (status {status}). Of a provider of this dialect no more can be tested.")),
        (_, 404 | 405 | 410) => (
            false,
            format!(
                "It has no list of models below `base_url` (status {status}). Check whether that ends as it should."
            ),
        ),
        (_, 429) => (false, "It wants fewer requests at the moment (status 429).".to_owned()),
        (_, 400..=499) => (false, format!("It refused the request (status {status}).")),
        _ => (false, format!("It failed (status {status}).")),
    }
}

/// As [`judge`], for a probe: whether the provider should get requests. One that wants fewer of them works, and so does
/// one that has understood a request and did not like it.
pub fn judge_probe(dialect: ProviderDialect, method: ProbeMethod, status: u16) -> (bool, String) {
    match (method, status) {
        (_, 429) => (true, "It answered, and wants fewer requests at the moment (status 429).".to_owned()),
        (ProbeMethod::Chat, 400 | 413 | 422) => {
            (true, format!("It answered, but did not like the request (status {status})."))
        }
        (ProbeMethod::Path | ProbeMethod::Chat, 404 | 405 | 410) => {
            (false, format!("There is nothing at this path (status {status})."))
        }
        (ProbeMethod::Path, _) => judge(ProviderDialect::OpenAi, status),
        _ => judge(dialect, status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProviderDialect::{Anthropic, Bedrock, Gemini, Generic, OpenAi, Vertex};

    #[test]
    fn a_status_tells_what_is_wrong() {
        for (dialect, status, healthy, word) in [
            (OpenAi, 200, true, "should"),
            (OpenAi, 301, false, "redirect"),
            (Anthropic, 401, false, "credential"),
            (Generic, 403, false, "credential"),
            (OpenAi, 404, false, "base_url"),
            (Generic, 404, true, "no more"),
            (Generic, 405, true, "no more"),
            (Bedrock, 404, true, "no more"),
            (Vertex, 404, true, "no more"),
            (Vertex, 401, false, "credential"),
            (Bedrock, 403, false, "credential"),
            (OpenAi, 429, false, "fewer"),
            (OpenAi, 400, false, "refused"),
            (Gemini, 400, false, "credential"),
            (Generic, 500, false, "failed"),
            (Anthropic, 529, false, "failed"),
        ] {
            let (told, detail) = judge(dialect, status);
            assert_eq!(told, healthy, "{dialect:?} {status}");
            assert!(detail.contains(word), "{detail}");
        }
    }

    #[test]
    fn a_probe_counts_against_the_provider_only_what_speaks_against_it() {
        use ProbeMethod::{Chat, Models, Path};
        for (method, status, healthy) in [
            (Models, 200, true),
            (Models, 429, true),
            (Models, 404, false),
            (Models, 401, false),
            (Chat, 400, true),
            (Chat, 404, false),
            (Chat, 503, false),
            (Path, 204, true),
            (Path, 400, false),
        ] {
            assert_eq!(judge_probe(Anthropic, method, status).0, healthy, "{method:?} {status}");
        }
        assert!(judge_probe(Generic, Models, 404).0 && !judge_probe(Generic, Path, 404).0);
    }

    #[test]
    fn only_what_costs_nothing_is_asked() {
        assert_eq!([OpenAi, Anthropic, Gemini].map(path), ["/models", "/v1/models", "/models?pageSize=1"]);
        assert_eq!([Bedrock, Generic, Vertex].map(path), ["", "", ""]);
    }
}
