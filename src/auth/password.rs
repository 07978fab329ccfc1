//! Passwords: argon2id (RFC 9106), stored as PHC strings.
//!
//! The cost is OWASP's for little memory (7 MiB, five passes, one lane): an isolate has 128 MiB for everything, and its
//! memory never shrinks. A hash is computed synchronously, so an isolate holds at most one of them at a time. In Wasm it
//! takes about 75 ms of CPU, more than a free Workers plan grants a request.

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::secret::Secret;

/// Bytes of a salt. It must be random.
pub const SALT_BYTES: usize = 16;

/// Longest password in bytes.
pub const MAX_BYTES: usize = 256;

/// Memory in KiB.
const MEMORY: u32 = 7 * 1024;
/// Passes over it.
const PASSES: u32 = 5;
/// Lanes.
const LANES: u32 = 1;

/// The most that a stored hash may ask for, in KiB times passes: four times today's cost.
const MAX_COST: u64 = 4 * MEMORY as u64 * PASSES as u64;
/// The most memory that a stored hash may ask for, in KiB.
const MAX_MEMORY: u32 = 4 * MEMORY;

/// A hash with today's cost that nobody has the password of: what an unknown user's password is compared with, so that
/// an unknown user takes as long as a known one.
const DUMMY: &str = "$argon2id$v=19$m=7168,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What comparing a password tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It is the right one.
    pub matches: bool,
    /// It is, and its stored hash has another cost than today's: store a new one.
    pub needs_rehash: bool,
}

impl Verdict {
    const NO: Self = Self { matches: false, needs_rehash: false };
}

/// Why a password is not accepted for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Too few characters.
    #[error("must have at least {0} characters")]
    TooShort(usize),
    /// Too many bytes.
    #[error("must have at most {MAX_BYTES} bytes")]
    TooLong,
    /// The user's own e-mail address, or its first part.
    #[error("must not be the e-mail address or a part of it")]
    IsEmail,
    /// One of those that everybody guesses first.
    #[error("is among the passwords that are guessed first")]
    Common,
}

/// A password cannot be hashed: it is longer than [`MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password cannot be hashed: it must have at most {MAX_BYTES} bytes")]
pub struct HashError;

/// Hashes a password for storing. Takes tens of milliseconds of CPU by design.
///
/// # Errors
/// [`HashError`] for one that is too long.
pub fn hash(password: &Secret<String>, salt: &[u8; SALT_BYTES]) -> Result<String, HashError> {
    let password = password.expose().as_bytes();
    if password.len() > MAX_BYTES {
        return Err(HashError);
    }
    let salt = SaltString::encode_b64(salt).map_err(|_| HashError)?;
    let params = Params::new(MEMORY, PASSES, LANES, None).map_err(|_| HashError)?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    hasher.hash_password(password, &salt).map(|hash| hash.to_string()).map_err(|_| HashError)
}

/// Compares a password with a stored hash. `None` stands for a user who does not exist or has no password; it takes as
/// long as any other and never matches.
pub fn verify(password: &Secret<String>, stored: Option<&str>) -> Verdict {
    let password = password.expose().as_bytes();
    if password.len() > MAX_BYTES {
        return Verdict::NO;
    }
    let usable = stored.and_then(|text| PasswordHash::new(text).ok()).filter(is_affordable);
    let known = usable.is_some();
    let Some(hash) = usable.or_else(|| PasswordHash::new(DUMMY).ok()) else { return Verdict::NO };
    let matches = Argon2::default().verify_password(password, &hash).is_ok() && known;
    Verdict { matches, needs_rehash: matches && !has_todays_cost(&hash) }
}

/// Whether a stored hash is argon2id of the current version, at a cost that an isolate can bear.
fn is_affordable(hash: &PasswordHash<'_>) -> bool {
    let Ok(params) = Params::try_from(hash) else { return false };
    hash.algorithm == argon2::ARGON2ID_IDENT
        && hash.version == Some(Version::V0x13.into())
        && hash.hash.is_some()
        && params.m_cost() <= MAX_MEMORY
        && u64::from(params.m_cost()).saturating_mul(u64::from(params.t_cost())) <= MAX_COST
}

fn has_todays_cost(hash: &PasswordHash<'_>) -> bool {
    Params::try_from(hash)
        .is_ok_and(|params| (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY, PASSES, LANES))
}

/// Checks a new password against the policy; `min_length` is in characters.
///
/// # Errors
/// [`WeakPassword`], to be told to the user.
pub fn check_policy(password: &Secret<String>, email: &str, min_length: usize) -> Result<(), WeakPassword> {
    let password = password.expose();
    if password.len() > MAX_BYTES {
        return Err(WeakPassword::TooLong);
    }
    if password.chars().count() < min_length {
        return Err(WeakPassword::TooShort(min_length));
    }
    let lower = password.trim().to_lowercase();
    let bare = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    let email = email.trim().to_lowercase();
    let local = email.split('@').next().unwrap_or_default();
    if lower == email || lower == local || (!local.is_empty() && bare == local) {
        return Err(WeakPassword::IsEmail);
    }
    let guessed_first = |text: &str| COMMON.split_ascii_whitespace().any(|common| common == text.replace(' ', ""));
    let repeats_little = unit(&lower).len() < lower.len() && unit(&lower).chars().count() <= 4;
    if guessed_first(&lower) || guessed_first(bare) || guessed_first(unit(&lower)) || repeats_little {
        return Err(WeakPassword::Common);
    }
    Ok(())
}

/// The shortest text that repeated gives the whole: `abc` for `abcabcabc`. A text that repeats nothing is its own.
fn unit(text: &str) -> &str {
    text.char_indices()
        .skip(1)
        .filter_map(|(at, _)| text.split_at_checked(at).map(|(unit, _)| unit))
        .find(|unit| text.len().is_multiple_of(unit.len()) && text.replace(unit, "").is_empty())
        .unwrap_or(text)
}

/// The passwords that public lists of leaks agree on, without spaces and without the digits and signs that people append.
const COMMON: &str = "\
    0123456789 012345678910 0987654321 098765432100 1029384756 11223344 1122334455 112233445566 12341234 12345 \
    123456 1234567 12345678 123456789 1234567890 12345678900 123456789000 123456789012 1234567890123 123456789123 \
    12345678910 1234567891011 123456789101112 123123123 123321123321 1234abcd 123abc 147258369 1q2w3e 1q2w3e4r \
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx 1qaz2wsx3edc 1qaz2wsx3edc4rfv 87654321 987654321 9876543210 987654321000 \
    a1b2c3d4 a1b2c3d4e5f6 aa123456 abc123 abcd1234 abcdef abcdefg abcdefgh abcdefghijkl abcdefghijklm access admin \
    admin123456 administrator adminadmin asdf1234 asdfasdf asdfgh asdfghjkl asdfghjklqwe baseball batman changeme \
    changemenow changethis charlie computer correcthorsebatterystaple default dragon football freedom gateway \
    hello helloworld iloveyou iloveyousomuch jennifer jordan letmein letmeinnow letmeinplease llm-gateway \
    llmgateway login master michael monkey mypassword mustang p4ssw0rd p@ssw0rd p@ssword pa55w0rd pa55word pass \
    passw0rd password passwordpassword princess q1w2e3r4 q1w2e3r4t5 q1w2e3r4t5y6 qazwsx qazwsxedc qazwsxedcrfv \
    qwer1234 qwerty qwerty123456 qwertyui qwertyuiop qwertyuiop[] qwertyuiopasdf qwertyuiopasdfghjkl \
    qwertyuiopasdfghjklzxcvbnm root secret shadow starwars summer sunshine superman superuser test testtest \
    thisisapassword trustno trustno1 unknown user welcome whatever winter yourpassword zaq12wsx zxcvbnm \
    zxcvbnmasdfg \
    ";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let stored = hash(&secret("tall-ships-at-dawn"), &[7; SALT_BYTES]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{stored}");
        assert_eq!(
            verify(&secret("tall-ships-at-dawn"), Some(&stored)),
            Verdict { matches: true, needs_rehash: false }
        );
        for wrong in ["", "tall-ships-at-dusk", "Tall-ships-at-dawn", "tall-ships-at-dawn "] {
            assert_eq!(verify(&secret(wrong), Some(&stored)), Verdict::NO, "{wrong}");
        }
        assert_ne!(stored, hash(&secret("tall-ships-at-dawn"), &[8; SALT_BYTES]).unwrap());
    }

    #[test]
    fn a_hash_of_another_cost_still_matches_and_is_to_be_renewed() {
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let salt = SaltString::encode_b64(&[1; SALT_BYTES]).unwrap();
        let stored = cheap.hash_password(b"old", &salt).unwrap().to_string();
        assert_eq!(verify(&secret("old"), Some(&stored)), Verdict { matches: true, needs_rehash: true });
        assert_eq!(verify(&secret("new"), Some(&stored)), Verdict::NO);
    }

    #[test]
    fn an_unknown_user_costs_a_whole_hash_and_never_matches() {
        assert!(is_affordable(&PasswordHash::new(DUMMY).unwrap()));
        assert!(has_todays_cost(&PasswordHash::new(DUMMY).unwrap()));
        assert_eq!(verify(&secret("anything"), None), Verdict::NO);
    }

    #[test]
    fn what_is_stored_cannot_ask_for_more_than_an_isolate_has() {
        let tail = "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for stored in [
            "",
            "plain",
            "$2b$12$abcdefghijklmnopqrstuv",
            &format!("$argon2i$v=19$m=64,t=1,p=1{tail}"),
            &format!("$argon2id$v=16$m=64,t=1,p=1{tail}"),
            &format!("$argon2id$v=19$m=4194304,t=1,p=1{tail}"),
            &format!("$argon2id$v=19$m=64,t=4000000000,p=1{tail}"),
            "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(verify(&secret("x"), Some(stored)), Verdict::NO, "{stored}");
        }
    }

    #[test]
    fn the_longest_password_is_hashed_and_a_longer_one_is_not() {
        let longest = secret(&"é".repeat(MAX_BYTES / 2));
        assert!(verify(&longest, Some(&hash(&longest, &[0; SALT_BYTES]).unwrap())).matches);
        let over = secret(&"x".repeat(MAX_BYTES + 1));
        assert_eq!(hash(&over, &[0; SALT_BYTES]), Err(HashError));
        assert_eq!(verify(&over, Some(DUMMY)), Verdict::NO);
    }

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        let check = |password: &str| check_policy(&secret(password), "Ada.Lovelace@example.com", 12);
        assert_eq!(check("tall-ships-at-dawn"), Ok(()));
        assert_eq!(check("ünïcödé-is-fine"), Ok(()));
        assert_eq!(check("elevenchars"), Err(WeakPassword::TooShort(12)));
        assert_eq!(check("éééééé"), Err(WeakPassword::TooShort(12)), "characters are counted, not bytes");
        assert_eq!(check(&"xy".repeat(129)), Err(WeakPassword::TooLong));
        for own in ["ada.lovelace@example.com", "Ada.Lovelace", " ADA.LOVELACE@EXAMPLE.COM ", "ada.lovelace1815!"] {
            assert_eq!(check(own), Err(WeakPassword::IsEmail), "{own}");
        }
        for common in [
            "Password1234!",
            "passwordpassword",
            "PASSWORDPASSWORDPASSWORD",
            "123456789012",
            "qwertyuiop12",
            "aaaaaaaaaaaaaa",
            "abababababab",
            "123412341234",
            "ééééééééééééé",
            "CorrectHorseBatteryStaple",
            "correct horse battery staple",
            "Sunshine!!!!!!!!",
        ] {
            assert_eq!(check(common), Err(WeakPassword::Common), "{common}");
        }
        assert_eq!(check_policy(&secret("tall-ships-at-dawn"), "", 12), Ok(()));
    }
}
