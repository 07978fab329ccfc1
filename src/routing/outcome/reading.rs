//! What a provider's error means.
//!
//! Providers agree on statuses only roughly: no money left is a 429, 402, 403 or 400, a prompt that is too long a 400, 413 or
//! 422. So a code that says more than the status goes first. A message may repeat what the caller has written: words anywhere
//! in it may only lead to faults that count against nobody, and whatever does count must be how it begins.

use super::Fault;

/// Codes and types that say everything, whatever the status. In lower case, without `-` and `_`.
const CODES: &[(Fault, &[&str])] = &[
    (
        Fault::ContextLength,
        &[
            "contextlengthexceeded",
            "contextwindowexceeded",
            "exceedcontextsizeerror",
            "stringabovemaxlength",
            "characterstoolong",
            "tokenstoolong",
        ],
    ),
    (
        Fault::ContentPolicy,
        &[
            "contentpolicyviolation",
            "contentfilter",
            "responsibleaipolicyviolation",
            "moderationblocked",
            "datainspectionfailed",
            "prohibitedcontent",
            "blocklist",
            "safety",
            "guardrailintervened",
        ],
    ),
    (
        Fault::QuotaExhausted,
        &[
            "insufficientquota",
            "billinghardlimitreached",
            "billingnotactive",
            "billingerror",
            "exceededcurrentquotaerror",
            "insufficientbalance",
            "insufficientcredits",
            "arrearage",
            "accountoverdueerror",
        ],
    ),
    (Fault::ModelNotFound, &["modelnotfound", "modelnotexist", "invalidmodel", "deploymentnotfound"]),
    (
        Fault::Auth,
        &[
            "invalidapikey",
            "apikeyinvalid",
            "incorrectapikey",
            "authenticationerror",
            "invalidauthenticationerror",
            "unauthenticated",
            "accountdeactivated",
            "unrecognizedclientexception",
            "expiredtokenexception",
        ],
    ),
    (
        Fault::Overloaded,
        &[
            "overloadederror",
            "overloaded",
            "engineoverloaded",
            "engineoverloadederror",
            "modeloverloaded",
            "capacityexceeded",
            "capacityexhausted",
            "modelnotreadyexception",
            "serviceunavailableexception",
            "serveroverloaded",
        ],
    ),
    (
        Fault::RateLimited,
        &[
            "ratelimiterror",
            "ratelimitexceeded",
            "rpmratelimitexceeded",
            "tpmratelimitexceeded",
            "ratelimitreachederror",
            "toomanyrequests",
            "throttlingexception",
            "throttling",
        ],
    ),
    (Fault::TooSlow, &["timeouterror", "deadlineexceeded", "modeltimeoutexception"]),
];

/// Codes and types that say what a status says, for errors in replies whose status was 200.
const STATUSES: &[(u16, &[&str])] = &[
    (400, &["invalidrequesterror", "badrequesterror", "invalidargument", "failedprecondition", "requesttoolarge"]),
    (403, &["permissionerror", "permissiondenied", "accessdenied"]),
    (404, &["notfounderror", "notfound"]),
    (429, &["resourceexhausted"]),
    (529, &["unavailable", "serviceunavailable"]),
];

/// Error codes of Baidu's older API, which come with status 200.
const BAIDU: &[(Fault, &[u32])] = &[
    (Fault::Auth, &[6, 13, 14, 15, 110, 111]),
    (Fault::ModelNotFound, &[3]),
    (Fault::Overloaded, &[2, 4, 336_100]),
    (Fault::RateLimited, &[18, 336_501, 336_502]),
    (Fault::QuotaExhausted, &[17, 19]),
    (Fault::ServerError, &[1, 336_000]),
];

/// Words anywhere in the message of a refused request: it is too long.
const TOO_LONG: &[&str] = &[
    "context length",
    "context window",
    "context limit",
    "context size",
    "prompt is too long",
    "input is too long",
    "too many input tokens",
    "too many tokens",
    "maximum prompt length",
    "maximum number of tokens",
    "max input characters",
    "range of input length",
    "model token limit",
    "exceeds token limit",
    "reduce the length",
];

/// Words anywhere in the message of a refused request: its content is refused.
const BLOCKED: &[&str] = &[
    "content management policy",
    "content filter",
    "content policy",
    "content_policy",
    "content exists risk",
    "usage policies",
    "usage guidelines",
    "safety system",
    "inappropriate content",
    "sensitive content",
    "input was flagged",
    "considered high risk",
];

/// Words in the message of a 404 about something that the caller has named: not the model.
const OTHERS_MISSING: &[&str] = &[
    "file",
    "response",
    "conversation",
    "item with id",
    "container",
    "vector store",
    "cachedcontent",
    "cached content",
    "batch",
];

/// How messages begin whose status says less than they do.
const BEGINNINGS: &[(Fault, &[&str])] = &[
    (
        Fault::QuotaExhausted,
        &[
            "your credit balance is too low",
            "you have reached your specified",
            "insufficient balance",
            "your account is not active",
        ],
    ),
    (Fault::Auth, &["api key not valid", "api key expired", "incorrect api key provided", "invalid api key"]),
    (
        Fault::ModelNotFound,
        &[
            "model not exist",
            "model not found",
            "no such model",
            "the provided model identifier is invalid",
            "the requested model ",
            "you don't have access to the model",
        ],
    ),
];

impl Fault {
    /// What a reply with an error means. `code`, `kind` and `message` are what the reply's error object says, if it has
    /// one: OpenAI's `error.code`, `error.type` and `error.message`, Anthropic's `error.type`, Gemini's `error.status`,
    /// Bedrock's exception, Baidu's `error_code`.
    pub fn of_reply(status: u16, code: Option<&str>, kind: Option<&str>, message: Option<&str>) -> Self {
        let words = [code, kind].map(|word| word.map(plain).unwrap_or_default());
        let message = message.unwrap_or_default().trim_start().to_lowercase();
        let named = words.iter().find_map(|word| find(CODES, word));
        let begins = || {
            let mut all = BEGINNINGS.iter();
            all.find(|(_, with)| with.iter().any(|with| message.starts_with(with))).map(|(fault, _)| *fault)
        };
        let about_the_request = matches!(status, 400 | 403 | 413 | 422);
        if status == 404 && OTHERS_MISSING.iter().any(|words| message.contains(words)) {
            return named.unwrap_or(Self::BadRequest);
        }
        if matches!(status, 413 | 429) && is_too_large_for_a_limit(&message) {
            return Self::ContextLength;
        }
        // A server that fails does not become anybody else's fault by what it says, but it may say that it is overloaded.
        match (status, named) {
            (401, Some(Self::QuotaExhausted)) => return Self::QuotaExhausted,
            (401, _) => return Self::Auth,
            (402, _) => return Self::QuotaExhausted,
            (500..=599, Some(Self::Overloaded | Self::RateLimited | Self::TooSlow)) | (200..=499, Some(_)) => {
                return named.unwrap_or(Self::ServerError);
            }
            _ => {}
        }
        if about_the_request && TOO_LONG.iter().any(|words| message.contains(words)) {
            return Self::ContextLength;
        }
        if about_the_request && BLOCKED.iter().any(|words| message.contains(words)) {
            return Self::ContentPolicy;
        }
        if about_the_request && let Some(fault) = begins() {
            return fault;
        }
        match status {
            200..=299 => Self::in_success(&words),
            other => Self::of_status(other, &message),
        }
    }

    /// What an error means whose reply had begun as a success.
    fn in_success(words: &[String; 2]) -> Self {
        let number = words.iter().find_map(|word| word.parse::<u32>().ok());
        if let Some(number) = number {
            return match u16::try_from(number) {
                Ok(status @ 400..=599) => Self::of_status(status, ""),
                _ => {
                    let listed = BAIDU.iter().find(|(_, numbers)| numbers.contains(&number));
                    listed.map_or(Self::BadRequest, |(fault, _)| *fault)
                }
            };
        }
        let status = words.iter().find_map(|word| STATUSES.iter().find(|(_, names)| names.contains(&word.as_str())));
        status.map_or(Self::ServerError, |(status, _)| Self::of_status(*status, ""))
    }

    /// What a status means by itself; 520 and above are those of Cloudflare and of Anthropic.
    fn of_status(status: u16, message: &str) -> Self {
        match status {
            401 | 403 | 407 => Self::Auth,
            402 => Self::QuotaExhausted,
            404 | 410 => Self::ModelNotFound,
            408 | 504 | 524 => Self::TooSlow,
            424 => Self::ServerError,
            429 => Self::RateLimited,
            498 | 529 => Self::Overloaded,
            503 if ["overload", "capacity", "unavailable", "try again"].iter().any(|word| message.contains(word)) => {
                Self::Overloaded
            }
            // Cloudflare's own, in place of an origin's that breaks connections off.
            520 => Self::Reset,
            521..=523 | 525 | 526 | 530 => Self::Unreachable,
            400..=499 => Self::BadRequest,
            500..=599 => Self::ServerError,
            _ => Self::BadReply,
        }
    }
}

/// Whether a rate limit is smaller than the request itself: no waiting helps with that, and nobody else is concerned.
fn is_too_large_for_a_limit(message: &str) -> bool {
    let number = |after: &str| {
        let read = |rest: &str| {
            let digits: String = rest.chars().filter(|it| *it != ',').take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok()
        };
        message.split(after).skip(1).find_map(read)
    };
    let more_than_all = number("limit ").zip(number("requested ")).is_some_and(|(limit, asked)| asked > limit);
    more_than_all
        || ["request too large", "extra usage is required for long context"].iter().any(|it| message.starts_with(it))
}

/// A code without what its spellings differ by.
fn plain(word: &str) -> String {
    let word = word.rsplit(['#', '.']).next().unwrap_or(word);
    word.chars().filter(|letter| !matches!(letter, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

fn find(table: &[(Fault, &[&str])], word: &str) -> Option<Fault> {
    table.iter().find(|(_, words)| words.contains(&word)).map(|(fault, _)| *fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Errors as providers send them: status, code, type or Gemini's status, message.
    #[rustfmt::skip]
    const SEEN: &[(Fault, u16, &str, &str, &str)] = &[
        // OpenAI and what speaks like it.
        (Fault::ContextLength, 400, "context_length_exceeded", "invalid_request_error", "This model's maximum context length is 8192 tokens."),
        (Fault::ContextLength, 400, "", "invalid_request_error", "Your input exceeds the context window of this model."),
        (Fault::BadRequest, 400, "", "invalid_request_error", "Unsupported parameter: 'temperature' is not supported with this model."),
        (Fault::ModelNotFound, 400, "model_not_found", "invalid_request_error", "The requested model 'gpt-5.2-proo' does not exist."),
        (Fault::ModelNotFound, 404, "model_not_found", "invalid_request_error", "The model `x` does not exist or you do not have access to it."),
        (Fault::BadRequest, 404, "", "invalid_request_error", "Item with id 'rs_x' not found."),
        (Fault::BadRequest, 404, "previous_response_not_found", "invalid_request_error", "Previous response with id 'resp_x' not found."),
        (Fault::ModelNotFound, 404, "", "", ""),
        (Fault::ModelNotFound, 403, "model_not_found", "invalid_request_error", "Project `p` does not have access to model `x`"),
        (Fault::Auth, 401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided: sk-x."),
        (Fault::Auth, 403, "unsupported_country_region_territory", "request_forbidden", "Country, region, or territory not supported"),
        (Fault::RateLimited, 429, "rate_limit_exceeded", "tokens", "Rate limit reached for gpt-4o in organization o."),
        (Fault::QuotaExhausted, 429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
        (Fault::RateLimited, 429, "rate_limit_exceeded", "tokens", "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s."),
        (Fault::ContextLength, 429, "rate_limit_exceeded", "tokens", "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 44000."),
        (Fault::ContextLength, 429, "rate_limit_exceeded", "tokens", "Rate limit reached on tokens per min (TPM): Limit 30,000, Requested 44,000."),
        (Fault::ContextLength, 413, "rate_limit_exceeded", "tokens", "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7000, please reduce your message size"),
        (Fault::ContextLength, 429, "", "rate_limit_error", "Extra usage is required for long context requests."),
        (Fault::ServerError, 500, "", "server_error", "The server had an error while processing your request."),
        (Fault::Overloaded, 503, "", "server_error", "The engine is currently overloaded, please try again later"),
        (Fault::ContentPolicy, 400, "content_policy_violation", "invalid_request_error", "Your request was rejected"),
        (Fault::ContentPolicy, 400, "", "invalid_request_error", "Your request was rejected as a result of our safety system."),
        (Fault::BadRequest, 400, "tool_use_failed", "invalid_request_error", "Tool choice is required, but model did not call a tool"),
        // Anthropic.
        (Fault::ModelNotFound, 404, "", "not_found_error", "model: claude-sonet-4-5"),
        (Fault::RateLimited, 429, "", "rate_limit_error", "This request would exceed your organization's rate limit of 20,000,000 prompt bytes per hour. Please reduce the prompt length"),
        (Fault::ContextLength, 400, "", "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        (Fault::ContextLength, 400, "", "invalid_request_error", "input length and `max_tokens` exceed context limit: 199999 + 8192 > 200000"),
        (Fault::QuotaExhausted, 400, "", "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        (Fault::QuotaExhausted, 402, "", "billing_error", "x"),
        (Fault::ContentPolicy, 400, "", "invalid_request_error", "Output blocked by content filtering policy"),
        (Fault::BadRequest, 413, "", "request_too_large", "Request exceeds the maximum size"),
        (Fault::Overloaded, 529, "", "overloaded_error", "Overloaded"),
        (Fault::Overloaded, 200, "overloaded_error", "", "Overloaded"),
        (Fault::ServerError, 200, "api_error", "", "Internal server error"),
        (Fault::TooSlow, 504, "", "timeout_error", "x"),
        // Gemini.
        (Fault::ContextLength, 400, "", "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        (Fault::Auth, 400, "", "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        (Fault::RateLimited, 429, "429", "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
        (Fault::Overloaded, 503, "503", "UNAVAILABLE", "The model is overloaded. Please try again later."),
        (Fault::Overloaded, 200, "", "UNAVAILABLE", "x"),
        (Fault::TooSlow, 504, "", "DEADLINE_EXCEEDED", "x"),
        // Azure.
        (Fault::ContentPolicy, 400, "content_filter", "", "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."),
        (Fault::ModelNotFound, 404, "DeploymentNotFound", "", "The API deployment for this resource does not exist."),
        // Bedrock.
        (Fault::ModelNotFound, 400, "", "ValidationException", "The provided model identifier is invalid."),
        (Fault::ContextLength, 400, "", "ValidationException", "Input is too long for requested model."),
        (Fault::RateLimited, 429, "", "com.amazon#ThrottlingException", "Too many requests"),
        (Fault::ModelNotFound, 403, "", "AccessDeniedException", "You don't have access to the model with the specified model ID."),
        (Fault::TooSlow, 408, "", "ModelTimeoutException", "x"),
        (Fault::BadRequest, 400, "", "", "This model doesn't support the s3Uri field. Remove s3Uri and try again."),
        // Others.
        (Fault::QuotaExhausted, 402, "invalid_request_error", "unknown_error", "Insufficient Balance"),
        (Fault::ContentPolicy, 400, "invalid_request_error", "", "Content Exists Risk"),
        (Fault::ContentPolicy, 400, "", "content_filter", "The request was rejected because it was considered high risk"),
        (Fault::ContentPolicy, 403, "403", "", "Your chosen model requires moderation and your input was flagged for \"violence\"."),
        (Fault::RateLimited, 200, "429", "", "Rate limited upstream"),
        (Fault::ServerError, 200, "502", "", "Upstream error"),
        (Fault::Auth, 200, "110", "", "Access token invalid or no longer valid"),
        (Fault::RateLimited, 200, "18", "", "Open api qps request limit reached"),
        (Fault::BadRequest, 200, "336003", "", "the length of messages must be an odd number"),
        (Fault::ServerError, 502, "", "", "<html><h1>Bad Gateway</h1></html>"),
        (Fault::Reset, 520, "", "", "Web server is returning an unknown error"),
        (Fault::Unreachable, 521, "", "", "Web server is down"),
        (Fault::BadReply, 302, "", "", ""),
    ];

    #[test]
    fn errors_of_all_providers_are_told_apart() {
        for (fault, status, code, kind, message) in SEEN {
            let some = |text: &'static str| (!text.is_empty()).then_some(text);
            assert_eq!(
                Fault::of_reply(*status, some(code), some(kind), some(message)),
                *fault,
                "{status} {code} {kind} {message}"
            );
        }
    }

    #[test]
    fn every_fault_has_the_name_that_it_is_written_with() {
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
    }

    proptest! {
        /// Whatever a caller makes a provider repeat, a refused request opens nothing.
        #[test]
        fn what_a_caller_writes_counts_against_nobody(
            words in proptest::sample::select(vec!["your credit balance is too low", "api key not valid", "model not found", "overloaded"]),
            status in proptest::sample::select(vec![400_u16, 413, 422]),
        ) {
            let message = format!("messages[0].content: invalid value: '{words}'");
            let fault = Fault::of_reply(status, Some("invalid_value"), Some("invalid_request_error"), Some(&message));
            prop_assert_eq!(fault, Fault::BadRequest);
        }

        #[test]
        fn any_reply_is_read(status in 0_u16.., code in ".{0,30}", message in ".{0,60}") {
            Fault::of_reply(status, Some(&code), None, Some(&message));
        }
    }
}
