//! Ids: a prefix that says of what, and 22 random letters and digits (131 bits), so that nobody guesses one.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How many random bytes make an id.
pub const RANDOM_BYTES: usize = 44;

/// Makes an id of random bytes, such as `usr_3kTz…`.
pub fn compose(prefix: &str, random: &[u8; RANDOM_BYTES]) -> String {
    let mut id = format!("{prefix}_");
    // Two bytes a character: the remainder's bias is below one in a thousand.
    for pair in random.chunks_exact(2) {
        let number = pair.iter().fold(0usize, |n, byte| (n << 8) | usize::from(*byte));
        let at = number.checked_rem(ALPHABET.len()).unwrap_or(0);
        id.push(ALPHABET.get(at).map_or('0', |byte| char::from(*byte)));
    }
    id
}

/// Whether an id that somebody chose can be one: it stands in paths, names of objects and log lines.
pub fn is_sane(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_prefix_and_randomness() {
        let id = compose("usr", &[0xab; RANDOM_BYTES]);
        assert_eq!(id.len(), 4 + 22);
        assert!(is_sane(&id));
        assert_ne!(id, compose("usr", &[0xac; RANDOM_BYTES]));
    }

    #[test]
    fn chosen_ids_must_be_plain() {
        for good in ["team-a", "a", "Search.2", "a_b"] {
            assert!(is_sane(good), "{good}");
        }
        for bad in ["", "-a", "a/b", "a b", "ä", "a%2f", &"a".repeat(65)] {
            assert!(!is_sane(bad), "{bad}");
        }
    }
}
