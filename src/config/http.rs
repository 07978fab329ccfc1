//! Sections `http` and `cors`.

use super::bounds::section;

section! {
    /// Inbound HTTP: how much is read, and what replies carry.
    pub struct Http {
        /// Largest request body in bytes. An isolate has 128 MiB for everything.
        pub max_body_bytes: usize = 16 * 1024 * 1024, in 1024 ..= 67_108_864;
        /// Largest form (`multipart/form-data`), and largest body for a path of a provider's own, in bytes. Such bodies are
        /// passed on as they come.
        pub max_multipart_bytes: usize = 100 * 1024 * 1024, in 1024 ..= 536_870_912;
        /// How much of such a body is held until it has named its model, in bytes. What fits is held whole, so that it can
        /// be sent again, to somebody else. All requests of an isolate together hold 24 MiB at most.
        pub multipart_hold_bytes: usize = 8 * 1024 * 1024, in 1024 ..= 33_554_432;
        /// Deepest nesting of a request's JSON.
        pub max_json_depth: usize = 64, in 8 ..= 512;
        /// Smallest reply in bytes that is compressed for callers that accept it.
        pub compress_min_bytes: usize = 1024, in 0 ..= 67_108_864;
        /// Largest unstreamed reply of a provider in bytes.
        pub max_reply_bytes: usize = 32 * 1024 * 1024, in 1024 ..= 67_108_864;
        /// How many bytes of a provider's error reply are read.
        pub max_error_bytes: usize = 1024 * 1024, in 1024 ..= 16_777_216;
        /// How long a caller may pause within its request body, in milliseconds.
        pub request_body_wait_ms: u64 = 60_000, in 10 ..= 600_000;
        /// Whether the caller's `x-request-id` (8 to 128 letters, digits and `-_.:`) names the request; otherwise every
        /// request gets an id of its own.
        pub accept_request_id: bool = true;
        /// Whether replies outside `/v1` carry `x-content-type-options: nosniff`, `referrer-policy: no-referrer` and
        /// `x-frame-options: DENY`.
        pub security_headers: bool = true;
        /// How long browsers shall insist on TLS, in seconds (`strict-transport-security`); 0 sends no such header.
        pub hsts_seconds: u64 = 0, in 0 ..= 63_072_000;
        /// Whether replies tell which provider and model answered, after how many attempts and with how much overhead
        /// (`x-gateway-provider`, `-model`, `-attempts`, `-overhead-ms`, `-upstream-request-id`).
        pub disclose: bool = true;
        /// Whether every caller that sends `x-gateway-explain: true` is told how it was decided who answers it
        /// (`x-gateway-explain`): candidates, those left out, attempts. A key's `overrides.explain` says so for the key.
        pub explain: bool = false;
        /// Whether a caller may shorten the time its request may take by `x-gateway-timeout-ms`.
        pub allow_timeout_header: bool = true;
        /// Whether a parameter that merely tunes the answer and that the provider of the model does not have is refused with
        /// a 400 that names it; otherwise it is left out and named in `x-gateway-dropped-params`. A model's own
        /// `strict_params` goes before.
        pub strict_params: bool = false;
        /// Further headers of the caller's that are passed on to every provider, besides those that belong to its
        /// dialect. Credentials, cookies and hop-by-hop headers are refused.
        pub forward_headers: Vec<String> = Vec::new(), items 0 ..= 32;
    }
}

section! {
    /// Cross-origin access from browsers.
    pub struct Cors {
        /// Origins that may call the gateway from a browser, such as `https://app.example.com`; `*` allows every origin.
        pub allowed_origins: Vec<String> = Vec::new(), items 0 ..= 100;
        /// Request headers that a browser may send; empty allows those that it asks for.
        pub allowed_headers: Vec<String> = Vec::new(), items 0 ..= 100;
        /// Reply headers that a page may read; `*` stands for all.
        pub exposed_headers: Vec<String> = vec!["*".to_owned()], items 0 ..= 100;
        /// How long a browser may remember what is allowed, in seconds.
        pub max_age_seconds: u64 = 7_200, in 0 ..= 86_400;
        /// Whether a page may send cookies and read replies to requests with them. Not together with the origin `*`.
        pub allow_credentials: bool = false;
    }
}
