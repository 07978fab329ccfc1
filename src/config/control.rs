//! Sections `sessions` and `admin`: the control plane.

use super::bounds::section;

section! {
    /// Sign-in to the admin API.
    pub struct Sessions {
        /// How long an access token is good for, in seconds.
        pub access_token_seconds: u64 = 900, in 60 ..= 3_600;
        /// How long a session can be prolonged before its user must sign in again, in seconds.
        pub refresh_token_seconds: u64 = 2_592_000, in 300 ..= 31_536_000;
        /// How long a session may go unused before it ends, in seconds.
        pub idle_seconds: u64 = 604_800, in 300 ..= 31_536_000;
        /// How many sessions a user may have at once; a further one ends the oldest.
        pub max_per_user: u64 = 20, in 1 ..= 1_000;
        /// How long a token for calling models, got in exchange for a session, is good for, in seconds.
        pub model_token_seconds: u64 = 900, in 60 ..= 3_600;
        /// After how long a new key signs tokens, in seconds. The old one stays published until its tokens have expired.
        pub signing_key_rotation_seconds: u64 = 2_592_000, in 3_600 ..= 31_536_000;
        /// Fewest characters of a password.
        pub password_min_length: u64 = 12, in 8 ..= 128;
        /// After how many wrong passwords in a row a sign-in is locked for a while.
        pub lockout_after: u64 = 5, in 1 ..= 100;
        /// How long the first lock lasts, in seconds; each further wrong password doubles it.
        pub lockout_base_seconds: u64 = 30, in 1 ..= 3_600;
        /// How long a lock may last at most, in seconds.
        pub lockout_max_seconds: u64 = 3_600, in 1 ..= 86_400;
        /// How many sign-ins may be tried from one address in a minute.
        pub attempts_per_ip_per_minute: u64 = 30, in 1 ..= 10_000;
    }
}

section! {
    /// The admin API.
    pub struct Admin {
        /// Addresses that may call it, as CIDR ranges such as `192.0.2.0/24`; empty allows all.
        pub allowed_ip_ranges: Vec<String> = Vec::new(), items 0 ..= 100;
        /// How many entries a list gives where the caller does not say.
        pub page_size_default: u64 = 50, in 1 ..= 1_000;
        /// How many entries a list gives at most.
        pub page_size_max: u64 = 200, in 1 ..= 1_000;
        /// Largest request body in bytes.
        pub max_body_bytes: usize = 1_048_576, in 1_024 ..= 16_777_216;
        /// How long an idempotency key is remembered, in seconds.
        pub idempotency_seconds: u64 = 86_400, in 60 ..= 604_800;
        /// Whether a change must name the version that it changes (`if-match`); a change without it is refused with 428.
        pub require_if_match: bool = false;
        /// How many rows an export as CSV has at most; one that would have more is refused.
        pub csv_max_rows: u64 = 50_000, in 1 ..= 100_000;
        /// How many days a query of usage may span.
        pub usage_max_days: u64 = 400, in 1 ..= 3_660;
    }
}
